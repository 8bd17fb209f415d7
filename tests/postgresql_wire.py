"""A relay between a client and a server of PostgreSQL: counts what is asked, loses answers, speaks TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from postgresql_server import PASSWORD, USER

TLS_REQUEST = 80877103
"""The code with which a client asks for TLS, ahead of anything else."""

WAITS = b"SHQ"
"""Sync, Flush and Query: the messages after which a client waits for an answer."""


class Wire:
    """:ivar round_trips: how often a client had to wait for an answer, logins aside.
    :ivar lossy: from now on answers are lost, and the connection with them, as when a network fails.
    :ivar mute: so many of the oldest connections get no answers any more, and are not closed, as behind some firewalls.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.round_trips = 0
        self.lossy = False
        self.mute = 0
        self.logins = 0
        self._accepted = 0

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._accepted += 1
        answers = asyncio.create_task(self._answers(server_reader, writer, self._accepted))
        try:
            await self._questions(reader, writer, server_writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            answers.cancel()
            server_writer.close()
            writer.close()
            self._tasks.discard(task)

    async def _questions(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        login = await _untyped(reader)
        if self._tls is not None and int.from_bytes(login[4:8]) == TLS_REQUEST:
            writer.write(b"S")
            await writer.start_tls(self._tls)
            login = await _untyped(reader)
        server.write(login)
        self.logins += 1
        while True:
            kind = await reader.readexactly(1)
            message = kind + await _untyped(reader)
            self.round_trips += kind in WAITS
            server.write(message)
            await server.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                if self.lossy:
                    break
                if number <= self.mute:
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _untyped(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length) - 4)


@asynccontextmanager
async def relay(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    wire = Wire(port, tls)
    listening = await asyncio.start_server(wire.serve, "127.0.0.1")
    wire.port = listening.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listening.close()
        await wire.close()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for the loopback address that nobody but itself vouches for, and its key.

    :raises FileNotFoundError: there is no openssl.
    """
    made, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key
