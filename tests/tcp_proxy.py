"""A proxy for any TCP protocol that cuts, delays and strands connections on purpose."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Kind = Literal["cut before", "cut after", "delay", "half-open"]

CHUNK = 2**20


@dataclass
class Mishaps:
    """
    What happens to some of the chunks that clients send. A client waits for an answer before it sends more, so a chunk
    is a request, or a part of one that is large.

    cut before: the connection ends, and the server never saw the chunk.
    cut after: the server got the chunk and answered; the connection ends instead of the answer.
    delay: the chunk waits.
    half-open: the server gets the chunk, and nothing more passes in either direction. Nobody is told.
    """

    kinds: Sequence[Kind] = ("cut before", "cut after", "delay", "half-open")
    share: float = 1.0
    seed: int = 0
    delay: float = 0.05  # seconds
    times: int | None = None  # at most
    happened: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def next(self) -> Kind | None:
        if self.times == self.happened or self._random.random() >= self.share:
            return None
        self.happened += 1
        return self._random.choice(self.kinds)


class TcpProxy:
    """Listens on 127.0.0.1 for a server there. ``mishaps`` may be set at any time."""

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.mishaps: Mishaps | None = None
        self.chunks = 0  # from clients
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection((reader, writer), server)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._requests(connection))
                directions.create_task(connection.answers())
        except* (OSError, _Cut):
            pass
        finally:
            connection.abort()

    async def _requests(self, connection: _Connection) -> None:
        while chunk := await connection.client_reader.read(CHUNK):
            self.chunks += 1
            mishap = self.mishaps.next() if self.mishaps else None
            if mishap == "cut before":
                raise _Cut
            if mishap == "delay" and self.mishaps:
                await asyncio.sleep(self.mishaps.delay)
            if connection.swallow is None and mishap in ("cut after", "half-open"):
                connection.swallow = mishap
            connection.server_writer.write(chunk)
            await connection.server_writer.drain()
        raise _Cut


class _Cut(Exception):
    """The connection is to end, on both sides."""


class _Connection:
    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client_reader, self._client_writer = client
        self._server_reader, self.server_writer = server
        self.swallow: str | None = None

    async def answers(self) -> None:
        while chunk := await self._server_reader.read(CHUNK):
            if self.swallow == "cut after":
                raise _Cut
            if self.swallow != "half-open":
                self._client_writer.write(chunk)
                await self._client_writer.drain()
        raise _Cut

    def abort(self) -> None:
        self.server_writer.transport.abort()
        self._client_writer.transport.abort()
