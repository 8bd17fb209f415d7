"""A relay between a client and a server on loopback, which counts round trips and loses what it is told to lose."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum


class Loss(Enum):
    """What becomes of the next request, and of the connection that it came on."""

    NOTHING = "it is answered"
    REQUEST = "it never arrives"
    ANSWER = "it arrives, and its answer is lost"


class Relay:
    """Listens on :attr:`port` and hands on to ``target``.

    :ivar trips: how often a client has sent something since it last heard something.
    :ivar connections: how many were made.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.trips = 0
        self.connections = 0
        self.lose = Loss.NOTHING
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            above, below = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await self._relay(reader, writer, above, below)
            finally:
                below.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        above: asyncio.StreamReader,
        below: asyncio.StreamWriter,
    ) -> None:
        asked = asyncio.create_task(reader.read(2**20))
        answered = asyncio.create_task(above.read(2**20))
        heard = True
        losing = Loss.NOTHING
        try:
            while True:
                await asyncio.wait({asked, answered}, return_when=asyncio.FIRST_COMPLETED)
                if answered.done():
                    data = answered.result()
                    if not data or losing is Loss.ANSWER:
                        return
                    writer.write(data)
                    heard = True
                    answered = asyncio.create_task(above.read(2**20))
                if asked.done():
                    data = asked.result()
                    if not data:
                        return
                    self.trips += heard
                    heard = False
                    losing, self.lose = self.lose, Loss.NOTHING
                    if losing is Loss.REQUEST:
                        return
                    below.write(data)
                    asked = asyncio.create_task(reader.read(2**20))
        finally:
            for task in (asked, answered):
                task.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await task


@asynccontextmanager
async def relay(target: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Relay]:
    """:param tls: what it speaks to the clients; the server has none."""
    made = Relay(target)
    server = await asyncio.start_server(made._serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(made._tasks):
            task.cancel()
        await asyncio.gather(*made._tasks, return_exceptions=True)
        await server.wait_closed()
