"""``make capacity``: what a turn and a session weigh in each store, and what a plan of sessions comes to.

Each store gets sessions of one turn, through the whole public API, then more turns in each. What the second part added
is the turns' weight, and what the first one had beyond that the sessions'. A turn is that of ``make bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import asyncpg
import orjson

from bench.stores import ASSISTANT, PAYLOAD, TURN, USER, WINDOW, Json
from postgresql_server import Server, running, servers
from session_history import SessionHistoryService
from tablestore_server import TablestoreServer
from valkey_server import ValkeyServer

Figures = dict[str, float]
Look = Callable[[], Awaitable[Figures]]
"""What a store has kept and done so far."""

SESSIONS = 1000
SESSIONS_OF_A_USER = 10
MORE_TURNS = 20
AT_ONCE = 16
MANY_AT_ONCE = 64
SAMPLE = 400
CROWDS = (1_000, 10_000, 100_000)

SERVER = "microseconds of the server's CPU"
CLIENT = "microseconds of the client's CPU"
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
            return {"bytes in the file": float(file.stat().st_size)}

        yield f"sqlite:///{file}", look


@asynccontextmanager
async def postgresql() -> AsyncIterator[tuple[str, Look]]:
    with servers() as machine, running(machine) as server:
        yield server.url(), lambda: _on_postgresql(server)


async def _on_postgresql(server: Server) -> Figures:
    found: Figures = {}
    connection = await asyncpg.connect(server.url())
    try:
        for table in ("session_history_entry", "session_history_head"):
            await connection.execute(f"VACUUM {table}")
            name = f"bytes of {table.removeprefix('session_history_')}"
            found[f"{name}: table"] = float(await connection.fetchval("SELECT pg_table_size($1)", table))
            found[f"{name}: indexes"] = float(await connection.fetchval("SELECT pg_indexes_size($1)", table))
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
                "bytes of memory": float(info["used_memory"]),
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
                "bytes in the table": float(rows),
                "bytes in the index": float(index),
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


def messages(size: int) -> list[Json]:
    """A turn of so many bytes as JSON, or the least that there can be."""
    least = sum(len(orjson.dumps({**message, "content": ""})) for message in TURN)
    letters = max(0, size - least)
    return [{**USER, "content": "?" * (letters // 5)}, {**ASSISTANT, "content": "!" * (letters - letters // 5)}]


class Scales:
    """:param size: bytes of the messages of a turn."""

    def __init__(self, size: int) -> None:
        self.said = messages(size)

    async def talk(self, service: SessionHistoryService, number: int, turns: int) -> None:
        user, session = f"user-{number // SESSIONS_OF_A_USER:08}", f"session-{number:08}"
        for _ in range(turns):
            async with service.turn(user, session, last_turns=WINDOW, native=True) as turn:
                turn.add(self.said)

    async def part(self, service: SessionHistoryService, look: Look, numbers: Sequence[int], turns: int) -> Figures:
        """What so many turns in each session add to the figures."""
        before, began = await look(), time.process_time_ns()
        for first in range(0, len(numbers), AT_ONCE):
            await asyncio.gather(*(self.talk(service, number, turns) for number in numbers[first : first + AT_ONCE]))
        computed = (time.process_time_ns() - began) / 1000
        after = await look()
        return {name: after[name] - before[name] for name in after} | {CLIENT: computed}

    async def weigh(self, store: str, sessions: int) -> dict[str, tuple[float, float]]:
        """What a turn weighs, and a session beside its turns; the CPU of a session is in its turns."""
        numbers = range(SESSIONS_OF_A_USER, SESSIONS_OF_A_USER + sessions)
        async with STORES[store]() as (url, look), SessionHistoryService.from_url(url) as service:
            await asyncio.gather(
                *(self.talk(service, number, 1) for number in range(SESSIONS_OF_A_USER))
            )  # connects, too
            first = await self.part(service, look, numbers, 1)
            more = await self.part(service, look, numbers, MORE_TURNS)
        if store in IN_THIS_PROCESS:
            del more[CLIENT]
        turn = {name: figure / sessions / MORE_TURNS for name, figure in more.items()}
        beside = {name: 0.0 if name in CPU else first[name] / sessions - turn[name] for name in turn}
        return {name: (turn[name], beside[name]) for name in turn}

    async def among(self, store: str, crowds: Sequence[int]) -> list[float]:
        """Median milliseconds of a turn in a session of a store that holds so many, by a process that knows none."""
        medians, filled = [], 0
        async with STORES[store]() as (url, _):
            for crowd in crowds:
                async with SessionHistoryService.from_url(url) as service:
                    for first in range(filled, crowd, MANY_AT_ONCE):
                        numbers = range(first, min(first + MANY_AT_ONCE, crowd))
                        await asyncio.gather(*(self.talk(service, number, 1) for number in numbers))
                filled = crowd
                taken = []
                async with SessionHistoryService.from_url(url) as service:
                    for number in random.sample(range(crowd), SAMPLE):
                        began = time.perf_counter()
                        await self.talk(service, number, 1)
                        taken.append(1000 * (time.perf_counter() - began))
                medians.append(statistics.median(taken))
        return medians

    async def hot(self, store: str) -> float:
        """Turns a second of one session, with many at once."""
        async with STORES[store]() as (url, _), SessionHistoryService.from_url(url) as service:
            await self.talk(service, 0, 1)
            began = time.perf_counter()
            await asyncio.gather(*(self.talk(service, 0, SAMPLE // AT_ONCE) for _ in range(AT_ONCE)))
            return SAMPLE // AT_ONCE * AT_ONCE / (time.perf_counter() - began)


async def main(
    stores: Iterable[str], size: int, sessions: int, crowds: Sequence[int], plan: float, turns: float
) -> None:
    scales = Scales(size)
    print(f"A turn has {size:,} bytes of messages; a user has {SESSIONS_OF_A_USER} sessions.")
    for store in stores:
        print(f"\n{store:<36}{'a turn':>12}{'a session':>14}{f'{plan:g} x {turns:g} turns':>24}", flush=True)
        for name, (turn, session) in (await scales.weigh(store, sessions)).items():
            print(f"{name:<36}{turn:>12,.1f}{session:>14,.1f}{plan * (session + turns * turn):>24.3g}", flush=True)
        print(f"{f'turns a second in one session, {AT_ONCE} at once':<48}{await scales.hot(store):,.0f}", flush=True)
        if store not in IN_THIS_PROCESS:
            for crowd, median in zip(crowds, await scales.among(store, crowds), strict=True):
                print(f"{f'milliseconds of a turn among {crowd:,} sessions':<48}{median:.2f}", flush=True)


if __name__ == "__main__":
    os.environ |= {"TABLESTORE_ACCESS_KEY_ID": "ak", "TABLESTORE_ACCESS_KEY_SECRET": "sk"}
    parser = argparse.ArgumentParser(prog="make capacity", description=__doc__)
    parser.add_argument("--bytes", type=int, default=PAYLOAD, help="of the messages of a turn, as JSON")
    parser.add_argument("--sample", type=int, default=SESSIONS, help="sessions that are measured in each store")
    parser.add_argument("--crowds", type=int, nargs="*", default=CROWDS, help="sessions among which a turn is timed")
    parser.add_argument("--sessions", type=float, default=1e9, help="sessions of the plan")
    parser.add_argument("--turns", type=float, default=10, help="turns of each of them")
    parser.add_argument("stores", nargs="*", choices=[[], *STORES], help="all by default")
    given = parser.parse_args()
    asyncio.run(main(given.stores or STORES, given.bytes, given.sample, given.crowds, given.sessions, given.turns))
