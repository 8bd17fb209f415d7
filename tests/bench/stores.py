"""The stores that are compared: each holds sessions of two-message turns, and can take one more turn.

A turn loads the last 20 turns, decoded, and then appends a user's and an assistant's message, as two steps: the
model would answer in between. All stores get the same messages.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import orjson
from agents.memory import SQLiteSession

from bench.turns import TURN, WINDOW
from session_history import InMemorySessionHistoryService, SessionHistoryService, SqliteSessionHistoryService

T = TypeVar("T")


class Store(Protocol):
    """An open store."""

    async def fill(self, session_id: str, turns: int) -> None: ...

    async def turn(self, session_id: str) -> int:
        """Take one more turn; how many messages were loaded."""


class Ours:
    """The whole public API of this project."""

    def __init__(self, service: SessionHistoryService) -> None:
        self.service = service

    @classmethod
    @asynccontextmanager
    async def sqlite(cls, folder: Path) -> AsyncIterator[Ours]:
        async with SqliteSessionHistoryService(folder / "ours.db") as service:
            yield cls(service)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Ours]:
        async with SessionHistoryService.from_url(url) as service:
            yield cls(service)

    @classmethod
    @asynccontextmanager
    async def memory(cls, folder: Path) -> AsyncIterator[Ours]:
        async with InMemorySessionHistoryService() as service:
            yield cls(service)

    async def fill(self, session_id: str, turns: int) -> None:
        session = await self.service.get_session("u", session_id, native=True, last_turns=0)
        assert session is not None
        for _ in range(turns):
            await self.service.append_message(session, TURN)
            session.messages.clear()

    async def turn(self, session_id: str) -> int:
        async with self.service.turn("u", session_id, last_turns=WINDOW, native=True) as turn:
            loaded = len(turn.history)
            turn.add(TURN)
        return loaded


class Floor:
    """The least that a store at this durability can do: one thread with one connection, WAL and FULL, packed keys."""

    SEQ_BITS = 24
    LOAD = "SELECT d FROM e WHERE k BETWEEN ? AND ? ORDER BY k DESC LIMIT 20"

    def __init__(self, path: Path) -> None:
        self._jobs: queue.SimpleQueue[Callable[[sqlite3.Connection], None] | None] = queue.SimpleQueue()
        self._seqs: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, args=(path,))
        self._thread.start()

    @classmethod
    @asynccontextmanager
    async def sqlite(cls, folder: Path) -> AsyncIterator[Floor]:
        floor = cls(folder / "floor.db")
        yield floor
        floor._jobs.put(None)
        await asyncio.to_thread(floor._thread.join)

    def _run(self, path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE e (k INTEGER PRIMARY KEY, d BLOB)")
        while job := self._jobs.get():
            job(connection)
        connection.close()

    async def _on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def job(connection: sqlite3.Connection) -> None:
            future.set_result(work(connection))

        future: Future[T] = Future()
        self._jobs.put(job)
        return await asyncio.wrap_future(future)

    def _key(self, session_id: str, seq: int) -> int:
        return int(session_id.removeprefix("s")) << self.SEQ_BITS | seq

    async def fill(self, session_id: str, turns: int) -> None:
        rows = [(self._key(session_id, seq), orjson.dumps(TURN)) for seq in range(turns)]
        self._seqs[session_id] = turns
        await self._on_thread(lambda connection: self._insert(connection, rows))

    async def turn(self, session_id: str) -> int:
        bounds = self._key(session_id, 0), self._key(session_id, 2**self.SEQ_BITS - 1)
        loaded = await self._on_thread(
            lambda connection: [orjson.loads(row[0]) for row in connection.execute(self.LOAD, bounds)]
        )
        seq = self._seqs.get(session_id, 0)
        self._seqs[session_id] = seq + 1
        row = (self._key(session_id, seq), orjson.dumps(TURN))
        await self._on_thread(lambda connection: self._insert(connection, [row]))
        return sum(map(len, loaded))

    @staticmethod
    def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[int, bytes]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO e VALUES (?, ?)", rows)
        connection.execute("COMMIT")


class Peer:
    """The SQLiteSession of openai-agents, one object for each session, as its users have it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions: dict[str, SQLiteSession] = {}

    @classmethod
    @asynccontextmanager
    async def sqlite(cls, folder: Path) -> AsyncIterator[Peer]:
        peer = cls(folder / "peer.db")
        yield peer
        for session in peer._sessions.values():
            session.close()

    def _session(self, session_id: str) -> SQLiteSession:
        if session_id not in self._sessions:
            self._sessions[session_id] = SQLiteSession(session_id, self._path)
        return self._sessions[session_id]

    async def fill(self, session_id: str, turns: int) -> None:
        if turns:
            await self._session(session_id).add_items(TURN * turns)

    async def turn(self, session_id: str) -> int:
        session = self._session(session_id)
        loaded = await session.get_items(limit=2 * WINDOW)
        await session.add_items(TURN)
        return len(loaded)
