"""Stores to be weighed, and what they say of themselves."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import asyncpg

from servers.postgresql import Server, running, servers
from servers.tablestore import TablestoreServer
from servers.valkey import ValkeyServer

Figures = dict[str, float]
Look = Callable[[], Awaitable[Figures]]
"""What a store has kept and done so far."""

KEPT = "bytes kept"

SERVER = "microseconds of the server's CPU"
CLIENT = "microseconds of the application's CPU"
CPU = (SERVER, CLIENT)

IN_THIS_PROCESS = {"tablestore"}
"""A server of the tests, whose time and CPU say nothing of the real one's."""


@asynccontextmanager
async def sqlite() -> AsyncIterator[tuple[str, Look]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "history.db"

        async def look() -> Figures:
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return {f"{KEPT} in the file": float(file.stat().st_size)}

        yield f"sqlite:///{file}", look


@asynccontextmanager
async def postgresql() -> AsyncIterator[tuple[str, Look]]:
    with servers() as machine, running(machine) as server:
        yield server.url(), lambda: _on_postgresql(server)


async def _on_postgresql(server: Server) -> Figures:
    found: Figures = {}
    connection = await asyncpg.connect(server.url())
    try:
        for part in ("entry", "head"):
            table = f"session_history_{part}"
            await connection.execute(f"VACUUM {table}")
            found[f"{KEPT} in {part}, table"] = float(await connection.fetchval("SELECT pg_table_size($1)", table))
            found[f"{KEPT} in {part}, indexes"] = float(await connection.fetchval("SELECT pg_indexes_size($1)", table))
        found["bytes of WAL"] = float(await connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
    finally:
        await connection.close()
    return found | {SERVER: cpu(server.pids())}


@asynccontextmanager
async def valkey() -> AsyncIterator[tuple[str, Look]]:
    with ValkeyServer(appendonly="yes", appendfsync="everysec", auto_aof_rewrite_percentage=0) as server:

        async def look() -> Figures:
            with server.client() as client:
                info = client.info()
            assert isinstance(info, dict)
            return {
                f"{KEPT} in memory": float(info["used_memory"]),
                "bytes of the append-only file": float(info["aof_current_size"]),
                SERVER: cpu([server.pid]),
            }

        yield server.url, look


@asynccontextmanager
async def tablestore() -> AsyncIterator[tuple[str, Look]]:
    with TablestoreServer() as server:

        async def look() -> Figures:
            rows, index = server.sizes("session_history")
            return {
                f"{KEPT} in the table": float(rows),
                f"{KEPT} in the index": float(index),
                "requests": float(len(server.requests)),
                "read units": float(server.units["read"]),
                "write units": float(server.units["write"]),
            }

        host = server.endpoint.removeprefix("http://")
        yield f"tablestore://{host}?instance=inst&tls=false", look


STORES: dict[str, Callable[[], AbstractAsyncContextManager[tuple[str, Look]]]] = {
    "sqlite": sqlite,
    "postgresql": postgresql,
    "valkey": valkey,
    "tablestore": tablestore,
}


def cpu(pids: Iterable[int]) -> float:
    """Microseconds that processes, and the children that they have waited for, have computed; as Linux tells it."""
    ticks = 0
    for pid in pids:
        # Behind the name, which may hold spaces: utime, stime, cutime and cstime are fields 14 to 17 of the whole.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return 1e6 * ticks / os.sysconf("SC_CLK_TCK")
