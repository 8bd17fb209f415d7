"""``make contenders``: eight processes take exclusive turns of one session, each as many as it gets.

Shows for each store how many turns there were, the smallest and the largest part of them that a contender got, as a
multiple of its fair share, and how long a turn waited at most. It fails if a contender got less than half its share,
waited longer than its patience, or if two turns went on at once. On memory the contenders are services or tasks of one
process.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from contract import stores
from session_history import SessionHistoryService
from session_history.errors import SessionBusy
from session_history.providers.sqlite import SqliteProvider
from session_history.wrappers.sharded import ShardedProvider
from session_history_hooks.testing import Connect
from session_history_hooks.testing.processes import PROCESS_TIMEOUT

KINDS = ("tasks", "memory", "sqlite", "sharded", "postgresql", "valkey", "tablestore")
"""The contenders are processes, but on memory: services; and ``tasks`` are those of one service on memory."""

SHARDS = 3

OVERHEAD = 0.5
"""Seconds that a turn may be late to begin or to give up on a busy machine, beyond its patience."""


@dataclass(frozen=True, slots=True)
class Contest:
    """The rules of a contest.

    :ivar seconds: for which each contender asks for turns.
    :ivar work: seconds that a turn lasts.
    """

    contenders: int = 8
    seconds: float = 60.0
    work: float = 0.005
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Tally:
    """The turns of one contender.

    :ivar waits: the seconds before each turn.
    :ivar refused: turns that waited beyond their patience.
    """

    waits: Sequence[float]
    refused: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The turns of all contenders.

    :ivar counted: the turns that the session counts: fewer than there were if two turns went on at once.
    """

    contest: Contest
    tallies: Sequence[Tally]
    counted: int

    @property
    def turns(self) -> int:
        return sum(len(tally.waits) for tally in self.tallies)

    @property
    def shares(self) -> list[float]:
        """The turns of each contender, as a multiple of the fair share, the smallest first."""
        return sorted(len(tally.waits) * len(self.tallies) / max(1, self.turns) for tally in self.tallies)

    @property
    def longest_wait(self) -> float:
        return max((wait for tally in self.tallies for wait in tally.waits), default=0.0)

    def flaws(self) -> list[str]:
        """Return what is wrong."""
        refused = sum(tally.refused for tally in self.tallies)
        return [
            flaw
            for flaw, is_true in {
                f"a contender got {self.shares[0]:.2f} of its share": self.shares[0] < 0.5,
                f"{refused} turns were refused": refused > 0,
                f"a turn waited for {self.longest_wait:.1f} s": self.longest_wait > self.contest.patience + OVERHEAD,
                f"of {self.turns} turns {self.counted} were counted": self.counted != self.turns,
            }.items()
            if is_true
        ]


@contextmanager
def store(kind: str, folder: Path) -> Iterator[Connect]:
    """Make an empty store of a kind, and yield a function that connects to it."""
    if kind == "sharded":
        yield partial(sharded, folder)
    else:
        with stores.store("memory" if kind == "tasks" else kind, folder) as connect:
            yield connect


def sharded(folder: Path) -> ShardedProvider:
    return ShardedProvider([SqliteProvider(folder / f"{number}.db") for number in range(SHARDS)])


async def contend(service: SessionHistoryService, contest: Contest) -> Tally:
    """Take one exclusive turn after the other, until the time is over."""
    waits: list[float] = []
    refused = 0
    until = time.monotonic() + contest.seconds
    while (asked := time.monotonic()) < until:
        try:
            async with service.turn(
                "u", "s", concurrent="queue", patience=contest.patience, slot="counter", last_turns=1
            ) as turn:
                waits.append(time.monotonic() - asked)
                number = (turn.state or {"n": 0})["n"] + 1
                turn.add({"role": "user", "content": f"{number}"})
                await asyncio.sleep(contest.work)
                turn.state = {"n": number}
        except SessionBusy:
            refused += 1
    return Tally(waits, refused)


async def contend_alone(service: SessionHistoryService, contest: Contest, ready: Callable[[], Any]) -> Tally:
    async with service:
        await service.get_session("u", "s")  # connects
        await asyncio.to_thread(ready)
        return await contend(service, contest)


async def contend_as_services(connect: Connect, contest: Contest) -> list[Tally]:
    services = [SessionHistoryService(connect()) for _ in range(contest.contenders)]
    for service in services:
        await service.start()
    return await asyncio.gather(*(contend(service, contest) for service in services))


async def contend_as_tasks(connect: Connect, contest: Contest) -> list[Tally]:
    async with SessionHistoryService(connect()) as service:
        return await asyncio.gather(*(contend(service, contest) for _ in range(contest.contenders)))


def contend_in_process(connect: Connect, contest: Contest, barrier: Any) -> Tally:
    service = SessionHistoryService(connect())
    return asyncio.run(contend_alone(service, contest, partial(barrier.wait, PROCESS_TIMEOUT)))


async def contend_as_processes(connect: Connect, contest: Contest) -> list[Tally]:
    spawn = multiprocessing.get_context("spawn")
    loop = asyncio.get_running_loop()
    with spawn.Manager() as manager, ProcessPoolExecutor(contest.contenders, mp_context=spawn) as pool:
        work = partial(contend_in_process, connect, contest, manager.Barrier(contest.contenders))
        return await asyncio.gather(*(loop.run_in_executor(pool, work) for _ in range(contest.contenders)))


WAYS: dict[str, Callable[[Connect, Contest], Coroutine[Any, Any, list[Tally]]]] = {
    "tasks": contend_as_tasks,
    "memory": contend_as_services,
}


async def counted(connect: Connect) -> int:
    """Return the turns that the session counts."""
    async with SessionHistoryService(connect()) as service, service.turn("u", "s", slot="counter") as turn:
        return turn.state["n"] if turn.state else 0


def hold(kind: str, folder: Path, contest: Contest) -> Outcome:
    """Hold a contest on an empty store of a kind."""
    with store(kind, folder) as connect:
        tallies = asyncio.run(WAYS.get(kind, contend_as_processes)(connect, contest))
        return Outcome(contest, tallies, asyncio.run(counted(connect)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make contenders", description=__doc__)
    for name, default in (("contenders", 8), ("seconds", 60.0), ("work", 0.005), ("patience", 30.0)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("stores", nargs="*", choices=[[], *KINDS], help="all by default")
    given = vars(parser.parse_args())
    kinds = given.pop("stores") or KINDS
    failed = False
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            outcome = hold(kind, Path(folder), Contest(**given))
        flaws = outcome.flaws()
        failed = failed or bool(flaws)
        print(
            f"{kind:<12} {outcome.turns:>6,} turns, shares {outcome.shares[0]:.2f} to {outcome.shares[-1]:.2f},"
            f" longest wait {outcome.longest_wait:.1f} s: {'; '.join(flaws) or 'fair'}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
