"""Valkey: the floor, and a peer that keeps conversations there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from agents.extensions.memory import RedisSession
from redis.asyncio import Redis

from bench.turns import TURN, WINDOW


class Floor:
    """redis-py, one LRANGE and one RPUSH; RESP3."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Floor]:
        async with Redis.from_url(url, protocol=3) as client:
            yield cls(client)

    async def fill(self, session_id: str, turns: int) -> None:
        for start in range(0, turns, 1000):
            await self._client.rpush(f"floor:{session_id}", *[orjson.dumps(TURN)] * min(1000, turns - start))

    async def turn(self, session_id: str) -> int:
        found = await self._client.lrange(f"floor:{session_id}", -WINDOW, -1)
        loaded = [orjson.loads(each) for each in found]
        await self._client.rpush(f"floor:{session_id}", orjson.dumps(TURN))
        return sum(map(len, loaded))


class Agents:
    """The RedisSession of openai-agents, one object for each session, over one client."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._sessions: dict[str, RedisSession] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Agents]:
        async with Redis.from_url(url, protocol=3) as client:
            yield cls(client)

    def _session(self, session_id: str) -> RedisSession:
        if session_id not in self._sessions:
            self._sessions[session_id] = RedisSession(session_id, redis_client=self._client)
        return self._sessions[session_id]

    async def fill(self, session_id: str, turns: int) -> None:
        for start in range(0, turns, 1000):
            await self._session(session_id).add_items(TURN * min(1000, turns - start))

    async def turn(self, session_id: str) -> int:
        session = self._session(session_id)
        loaded = await session.get_items(limit=2 * WINDOW)
        await session.add_items(TURN)
        return len(loaded)
