"""A proxy on loopback between clients and a server, which counts requests, and drops those that a test chooses."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from enum import Enum
from itertools import repeat
from typing import Any, Self

CHUNK = 2**20
"""The most bytes that are passed on at once."""


class Mishap(Enum):
    """The fate of a request, and of its connection."""

    CUT_BEFORE = "the request never arrives, and the connection is closed"
    CUT_AFTER = "the request arrives, its answer is lost, and the connection is closed"
    DELAY = "the answer comes late"
    HALF_OPEN = "the connection stays open, and passes nothing on any more"
    MUTE = "the connection stays open, and passes no answer on any more"


SILENT = (Mishap.HALF_OPEN, Mishap.MUTE)

WEIGHTS = {Mishap.CUT_BEFORE: 16, Mishap.CUT_AFTER: 16, Mishap.DELAY: 3, Mishap.HALF_OPEN: 1, Mishap.MUTE: 1}
"""The relative frequencies. A silent connection costs the client a timeout, a cut next to nothing."""


class Mishaps:
    """A random fate for each request. The same seed gives the same fates.

    :param share: the share of requests with a mishap.
    :ivar happened: the number of requests for each mishap.
    """

    def __init__(self, seed: int | str, *, share: float) -> None:
        self.happened: Counter[Mishap] = Counter()
        self._random = random.Random(seed)
        self._share = share

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Mishap | None:
        if self._random.random() >= self._share:
            return None
        [mishap] = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        self.happened[mishap] += 1
        return mishap


class Proxy:
    """A proxy that listens on :attr:`port` while its context is entered.

    It runs in a thread of its own, so that clients may run in any event loop. A request begins when a client sends data
    for the first time, or for the first time after an answer.

    :param target: the port of the server, which need not run yet.
    :param tls: the TLS of connections from clients; connections to the server have none.
    :param tls_request: the bytes by which a client asks for TLS; the answer is "S". Without them, TLS begins at once.
    :param delay: seconds by which a late answer is late.
    :ivar mishaps: the fate of each request to come; after its end, no request has a mishap.
    :ivar requests: the number of requests.
    :ivar connections: the number of connections.
    :ivar target: the port for connections to come.
    """

    def __init__(
        self, target: int, *, tls: ssl.SSLContext | None = None, tls_request: bytes = b"", delay: float = 0.05
    ) -> None:
        self.port = 0
        self.mishaps: Iterator[Mishap | None] = repeat(None)
        self.requests = 0
        self.connections = 0
        self.target = target
        self._tls = tls
        self._tls_request = tls_request
        self._delay = delay
        self._open: dict[asyncio.Task[None], _Connection] = {}
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def mute(self) -> None:
        """Pass no answer on any more on the connections that exist now."""
        for connection in list(self._open.values()):
            connection.fate = Mishap.MUTE

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        tls = None if self._tls_request else self._tls
        server = await asyncio.start_server(self._serve, sock=self._listener, ssl=tls)
        await self._ended.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = self._open[task] = _Connection(self)
        self.connections += 1
        try:
            first = await self._begin_tls(reader, writer)
            above, below = await asyncio.open_connection("127.0.0.1", self.target)
            below.write(first)
            try:
                await _until_one_ends(connection.requests(reader, below), connection.answers(above, writer))
            finally:
                below.close()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            del self._open[task]

    async def _begin_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Begin TLS if the client asks for it. Return bytes that the client has sent for the server."""
        if not self._tls_request or self._tls is None:
            return b""
        first = await reader.readexactly(len(self._tls_request))
        if first != self._tls_request:
            return first
        writer.write(b"S")
        await writer.start_tls(self._tls)
        return b""

    def next_fate(self) -> Mishap | None:
        """Count a request, and return its fate."""
        self.requests += 1
        return next(self.mishaps, None)

    async def delay_answer(self) -> None:
        await asyncio.sleep(self._delay)


class _Connection:
    """A connection of a client.

    :ivar fate: the fate of the latest request.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.fate: Mishap | None = None
        self._proxy = proxy
        self._answered = True

    async def requests(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await client.read(CHUNK):
            if self._answered:
                self._answered = False
                fate = self._proxy.next_fate()
                self.fate = self.fate if self.fate in SILENT else fate
            if self.fate is Mishap.CUT_BEFORE:
                return
            if self.fate is not Mishap.HALF_OPEN:
                server.write(data)
                await server.drain()

    async def answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(CHUNK):
            if self.fate is Mishap.CUT_AFTER:
                return
            if self.fate in SILENT:
                continue
            if self.fate is Mishap.DELAY:
                self.fate = None
                await self._proxy.delay_answer()
            self._answered = True
            client.write(data)
            await client.drain()


async def _until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
