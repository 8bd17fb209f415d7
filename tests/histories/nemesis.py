"""The nemesis: kills, stops, cuts and delays clients and servers, one after the other."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from histories.arenas import Arena, stopped
from histories.clients import Clients
from servers.proxy import Mishap, Mishaps

SHORT, LONG = 0.05, 2.5
"""Seconds for which a process is stopped. A lease is over within the longer ones."""

LATE = 0.15
"""The share of answers that come late on a slow network."""


class Nemesis:
    """Does harm to clients and servers.

    :ivar done: how often it did what.
    """

    def __init__(self, arena: Arena, clients: Clients, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._arena = arena
        self._clients = clients
        self._random = chance
        acts: list[tuple[int, Callable[[], None]]] = [
            (6, self.kill_client), (10, self.stop_client), (3, self.stop_clients), (5, self.jump_clock),
        ]  # fmt: skip
        if arena.pids():
            acts += [(5, self.stop_server)]
        if arena.proxy:
            acts += [(5, self.disturb), (4, self.slow_down)]
        if arena.restart:
            acts += [(1, self.restart_server)]
        self._acts = acts

    def act(self) -> None:
        weights, acts = zip(*self._acts, strict=True)
        [act] = self._random.choices(acts, weights)
        self.done[act.__name__] += 1
        act()

    def kill_client(self) -> None:
        client = self._clients.one(self._random)
        if client is not None:
            self._clients.kill(client)
            self._clients.start()

    def stop_client(self) -> None:
        client = self._clients.one(self._random)
        with stopped([client.pid] if client else []):
            self._pause()

    def stop_clients(self) -> None:
        clients = {self._clients.one(self._random), self._clients.one(self._random)}
        with stopped([client.pid for client in clients if client]):
            self._pause()

    def jump_clock(self) -> None:
        client = self._clients.one(self._random)
        if client is not None:
            self._clients.jump_clock(client)

    def stop_server(self) -> None:
        """Stop all processes of the server, or one of them."""
        pids = self._arena.pids()
        some = pids if self._random.random() < 0.5 else [self._random.choice(pids)]
        with stopped(some):
            self._pause()

    def disturb(self) -> None:
        """Cut and delay connections for a while."""
        assert self._arena.proxy is not None
        self._arena.proxy.mishaps = Mishaps(str(self._random.random()), share=self._random.choice((0.01, 0.1)))
        self._pause()
        self.calm()

    def slow_down(self) -> None:
        """Let some answers come late, some of them later than a lease lives without heartbeats."""
        assert self._arena.proxy is not None
        late = random.Random(self._random.random())
        self._arena.proxy.mishaps = iter(lambda: Mishap.DELAY if late.random() < LATE else None, "never")
        time.sleep(self._random.uniform(0.5, LONG))
        self.calm()

    def calm(self) -> None:
        if self._arena.proxy:
            self._arena.proxy.mishaps = iter(())

    def restart_server(self) -> None:
        assert self._arena.restart is not None
        self._arena.restart()

    def _pause(self) -> None:
        time.sleep(self._random.choice((SHORT, SHORT, 0.3, self._random.uniform(SHORT, LONG))))
