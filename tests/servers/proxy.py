"""A proxy on loopback between clients and a server: counts what goes through it, and loses what it is told to lose."""

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
"""The most bytes that are handed on at once."""


class Mishap(Enum):
    """What becomes of a request, and of the connection that it came on."""

    CUT_BEFORE = "it never arrives, and the connection is closed"
    CUT_AFTER = "it arrives, its answer is lost, and the connection is closed"
    DELAY = "its answer comes late"
    HALF_OPEN = "the connection stays open, and hands on nothing any more"
    MUTE = "the connection stays open, and hands on no answer any more"


SILENT = (Mishap.HALF_OPEN, Mishap.MUTE)

WEIGHTS = {Mishap.CUT_BEFORE: 16, Mishap.CUT_AFTER: 16, Mishap.DELAY: 3, Mishap.HALF_OPEN: 1, Mishap.MUTE: 1}
"""How often what happens: whatever falls silent costs a time-out, a cut next to nothing."""


class Mishaps:
    """The fate of one request after the other: at random, but a seed gives the same again.

    :param share: of the requests that go wrong.
    :ivar happened: how many went wrong in which way.
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
    """Listens on :attr:`port` as long as it is entered, in a thread of its own, so that any event loop may be a client.

    A request begins when a client sends something for the first time, or after it has heard something.

    :param target: the port of the server, which need not be up.
    :param tls: what is spoken to the clients; the server is spoken to without it.
    :param tls_request: what a client sends to ask for TLS, if that is not spoken from the beginning; the answer is "S".
    :param delay: seconds by which an answer is late.
    :ivar mishaps: the fate of each request to come; when it ends, all goes well.
    :ivar requests: how many there were.
    :ivar connections: how many were made.
    :ivar target: of connections to come.
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
        """From now on, no client hears anything on the connections that there are."""
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
            first = await self._negotiated(reader, writer)
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

    async def _negotiated(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """What the client has sent meanwhile that is for the server."""
        if not self._tls_request or self._tls is None:
            return b""
        first = await reader.readexactly(len(self._tls_request))
        if first != self._tls_request:
            return first
        writer.write(b"S")
        await writer.start_tls(self._tls)
        return b""

    def begun(self) -> Mishap | None:
        """Count a request, and say what becomes of it."""
        self.requests += 1
        return next(self.mishaps, None)

    async def late(self) -> None:
        await asyncio.sleep(self._delay)


class _Connection:
    """:ivar fate: of the request that was begun last."""

    def __init__(self, proxy: Proxy) -> None:
        self.fate: Mishap | None = None
        self._proxy = proxy
        self._heard = True

    async def requests(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await client.read(CHUNK):
            if self._heard:
                self._heard = False
                fate = self._proxy.begun()
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
                await self._proxy.late()
            self._heard = True
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
