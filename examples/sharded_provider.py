"""Many databases as one store: every user lives in one of them, which a digest of the user id picks.

A service takes it as it takes any provider:

    shards = [PostgresqlProvider(url, schema=f"shard_{number:03}") for number, url in enumerate(urls)]
    service = SessionHistoryService(ShardedProvider(shards))

The number of shards, and their order, is settled with the first session. So begin with many more than you have servers:
a shard that has become too much for its server is moved to another one, and its URL is changed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack

from session_history_hooks import (
    Appended,
    ConfigurationError,
    Entry,
    Head,
    Limits,
    Log,
    Page,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
)


class ShardedProvider:
    """:raises ConfigurationError: no shard, or shards that promise different things."""

    def __init__(self, shards: Sequence[SessionHistoryProvider]) -> None:
        if not shards or any(shard.limits != shards[0].limits for shard in shards):
            raise ConfigurationError("shards are needed, all with the same limits")
        self._shards = tuple(shards)

    def __repr__(self) -> str:
        return f"ShardedProvider({', '.join(map(repr, self._shards))})"

    @property
    def limits(self) -> Limits:
        return self._shards[0].limits

    async def start(self) -> None:
        async with AsyncExitStack() as started:
            for shard in self._shards:
                started.push_async_callback(shard.stop)
                await shard.start()
            started.pop_all()

    async def stop(self) -> None:
        await asyncio.gather(*(shard.stop() for shard in self._shards))

    async def health(self) -> bool:
        return all(await asyncio.gather(*(shard.health() for shard in self._shards)))

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        return await self._of(key.user_id).read(key, last=last, before=before, after=after, entry_id=entry_id)

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        return await self._of(key.user_id).append(key, entry, at=at, snapshot=snapshot)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        return await self._of(key.user_id).renew(key, at=at)

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        return await self._of(key.user_id).rewrite(key, entry, at=at, rewrites=rewrites, snapshot=snapshot)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await self._of(user_id).list(user_id, limit=limit, cursor=cursor)

    async def delete(self, key: SessionKey) -> bool:
        return await self._of(key.user_id).delete(key)

    async def delete_user(self, user_id: str) -> int:
        return await self._of(user_id).delete_user(user_id)

    def _of(self, user_id: str) -> SessionHistoryProvider:
        digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()  # the same in every process, unlike hash()
        return self._shards[int.from_bytes(digest) % len(self._shards)]
