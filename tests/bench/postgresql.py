"""PostgreSQL: the floor, and peers that keep conversations there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
from agents.extensions.memory import SQLAlchemySession
from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from bench.turns import TURN, WINDOW

CONNECTIONS = 10
"""Of each store's pool: the default of ours."""


class Floor:
    """asyncpg, a pool whose connections are not reset, one prepared SELECT and one INSERT."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._seqs: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Floor]:
        async def leave(_connection: object) -> None: ...

        async with asyncpg.create_pool(url, min_size=1, max_size=CONNECTIONS, reset=leave) as pool:
            await pool.execute("CREATE TABLE floor (s text, seq bigint, d bytea, PRIMARY KEY (s, seq))")
            yield cls(pool)

    async def fill(self, session_id: str, turns: int) -> None:
        rows = [(session_id, seq, orjson.dumps(TURN)) for seq in range(turns)]
        await self._pool.executemany("INSERT INTO floor VALUES ($1, $2, $3)", rows)
        self._seqs[session_id] = turns

    async def turn(self, session_id: str) -> int:
        rows = await self._pool.fetch("SELECT d FROM floor WHERE s = $1 ORDER BY seq DESC LIMIT 20", session_id)
        loaded = [orjson.loads(row[0]) for row in rows]
        seq = self._seqs.get(session_id, 0)
        self._seqs[session_id] = seq + 1
        await self._pool.execute("INSERT INTO floor VALUES ($1, $2, $3)", session_id, seq, orjson.dumps(TURN))
        return sum(map(len, loaded))


class Agents:
    """The SQLAlchemySession of openai-agents."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Agents]:
        engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=CONNECTIONS)
        await SQLAlchemySession("first", engine=engine, create_tables=True).add_items([])
        yield cls(engine)
        await engine.dispose()

    def _session(self, session_id: str) -> SQLAlchemySession:
        return SQLAlchemySession(session_id, engine=self._engine, create_tables=True)

    async def fill(self, session_id: str, turns: int) -> None:
        session = self._session(session_id)
        for start in range(0, turns, 1000):
            await session.add_items(TURN * min(1000, turns - start))

    async def turn(self, session_id: str) -> int:
        session = self._session(session_id)
        loaded = await session.get_items(limit=2 * WINDOW)
        await session.add_items(TURN)
        return len(loaded)


class Adk:
    """The DatabaseSessionService of google-adk."""

    APP = "bench"

    def __init__(self, service: DatabaseSessionService) -> None:
        self._service = service

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Adk]:
        async with DatabaseSessionService(url.replace("postgresql://", "postgresql+asyncpg://")) as service:
            yield cls(service)

    async def fill(self, session_id: str, turns: int) -> None:
        session = await self._service.create_session(app_name=self.APP, user_id="u", session_id=session_id)
        for _ in range(turns):
            await self._append(session)

    async def turn(self, session_id: str) -> int:
        config = GetSessionConfig(num_recent_events=2 * WINDOW)
        found = {"app_name": self.APP, "user_id": "u", "session_id": session_id}
        session = await self._service.get_session(**found, config=config)
        if session is None:
            session = await self._service.create_session(**found)
        loaded = len(session.events)
        await self._append(session)
        return loaded

    async def _append(self, session: Any) -> None:
        for message in TURN:
            content = types.Content(role=message["role"], parts=[types.Continuation(text=message["content"])])
            await self._service.append_event(session, Event(author=message["role"], content=content))


class Langgraph:
    """The AsyncPostgresSaver of langgraph: a turn loads the state and stores the new one."""

    def __init__(self, saver: AsyncPostgresSaver) -> None:
        self._saver = saver

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Langgraph]:
        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(url, min_size=1, max_size=CONNECTIONS, kwargs=options) as pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            yield cls(saver)

    async def fill(self, session_id: str, turns: int) -> None:
        if turns:
            await self._put(self._config(session_id), TURN * turns, 1)

    async def turn(self, session_id: str) -> int:
        found = await self._saver.aget_tuple(self._config(session_id))
        messages = found.checkpoint["channel_values"]["messages"] if found else []
        version = found.checkpoint["channel_versions"]["messages"] if found else 0
        await self._put(found.config if found else self._config(session_id), [*messages, *TURN], version + 1)
        return len(messages)

    async def _put(self, config: Any, messages: list[Any], version: int) -> None:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": messages}
        checkpoint["channel_versions"] = {"messages": version}
        await self._saver.aput(config, checkpoint, {"step": version}, {"messages": version})

    @staticmethod
    def _config(session_id: str) -> Any:
        return {"configurable": {"thread_id": session_id, "checkpoint_ns": "", "run": uuid4().hex}}
