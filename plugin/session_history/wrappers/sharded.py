"""Several stores as one. Each user is in one of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from math import inf

from pydantic import Field, field_validator

from session_history_hooks import (
    Appended,
    ConfigurationError,
    Durability,
    Entry,
    Head,
    Limits,
    Log,
    OpenInner,
    Page,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    WrapperOptions,
    WrapperSpec,
    hookimpl,
)

WEAKEST_FIRST = (Durability.PROCESS, Durability.HOST, Durability.DISK)


class ShardedProvider:
    """Keeps the sessions of each user in one of several stores, the shards.

    A digest of the user id picks the shard: the 64-bit BLAKE2b of its UTF-8 bytes, read as a big-endian number, modulo
    the number of shards. So the number of shards and their order must never change: otherwise most users lose sight of
    their sessions. A shard may move to another server.

    The limits are the weakest of the shards.

    :param shards: providers that are not started; this one starts and stops them.
    :raises ConfigurationError: there is no shard.
    """

    def __init__(self, shards: Sequence[SessionHistoryProvider]) -> None:
        if not shards:
            raise ConfigurationError("a sharded store needs at least one shard")
        self._shards = tuple(shards)
        self._limits = weakest([shard.limits for shard in shards])

    def __repr__(self) -> str:
        return f"ShardedProvider([{', '.join(map(repr, self._shards))}])"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        """Start all shards. If one cannot start, the others are stopped."""
        tried: list[SessionHistoryProvider] = []
        try:
            for shard in self._shards:
                tried.append(shard)
                await shard.start()
        except BaseException:
            await _stop(tried)  # Its errors are dropped: the error of the start is the one to show.
            raise

    async def stop(self) -> None:
        """Stop all shards, also if one of them fails."""
        errors = await _stop(self._shards)
        if errors:
            raise errors[0]

    async def health(self) -> bool:
        """Return whether all shards are healthy."""
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
        if last is None:  # A page of this shard may be larger than the smallest page, which `limits` promises.
            last, before = self._first_page(before, after)
        return await self._shard_of(key.user_id).read(key, last=last, before=before, after=after, entry_id=entry_id)

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        return await self._shard_of(key.user_id).append(key, entry, at=at, snapshot=snapshot)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        return await self._shard_of(key.user_id).renew(key, at=at)

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        self._limits.check(entry, snapshot)
        return await self._shard_of(key.user_id).rewrite(key, entry, at=at, rewrites=rewrites, snapshot=snapshot)

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await self._shard_of(user_id).list(user_id, limit=min(limit, self._limits.page), cursor=cursor)

    async def delete(self, key: SessionKey) -> bool:
        return await self._shard_of(key.user_id).delete(key)

    async def delete_user(self, user_id: str) -> int:
        return await self._shard_of(user_id).delete_user(user_id)

    def _shard_of(self, user_id: str) -> SessionHistoryProvider:
        return self._shards[shard_number(user_id, len(self._shards))]

    def _first_page(self, before: int | None, after: int | None) -> tuple[int | None, int | None]:
        """Return ``last`` and ``before`` of a read that asks for no number of entries."""
        page = self._limits.page
        if after is None:
            return page, before
        stop = max(after, 0) + 1 + page
        return None, stop if before is None else min(before, stop)


def shard_number(user_id: str, shards: int) -> int:
    """Return the index of a user's shard. It is the same in every process and every version."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def weakest(limits: Sequence[Limits]) -> Limits:
    """Return limits that hold for every one of several providers."""
    remembered = min(inf if each.remembered_ids is None else each.remembered_ids for each in limits)
    return Limits(
        entry_bytes=min(each.entry_bytes for each in limits),
        summary_bytes=min(each.summary_bytes for each in limits),
        entries=min(each.entries for each in limits),
        page=min(each.page for each in limits),
        remembered_ids=None if remembered == inf else int(remembered),
        durability=min((each.durability for each in limits), key=WEAKEST_FIRST.index),
        atomic_head=all(each.atomic_head for each in limits),
    )


async def _stop(shards: Iterable[SessionHistoryProvider]) -> list[BaseException]:
    """Stop all of these shards, and return their errors."""
    results = await asyncio.gather(*(shard.stop() for shard in shards), return_exceptions=True)
    return [result for result in results if result is not None]


class ShardedOptions(WrapperOptions):
    """The options of the wrapper ``sharded``.

    :ivar shards: the URL of each shard. Their number and order must never change.
    """

    shards: list[str] = Field(min_length=1, repr=False)

    @field_validator("shards")
    @classmethod
    def _check_distinct(cls, shards: list[str]) -> list[str]:
        for number, url in enumerate(shards):
            if (first := shards.index(url)) < number:
                raise ValueError(f"[{first}] and [{number}] are the same URL")
        return shards


def wrap(options: ShardedOptions, open_inner: OpenInner) -> ShardedProvider:
    return ShardedProvider([open_inner(url) for url in options.shards])


@hookimpl
def session_history_wrappers() -> Iterable[WrapperSpec]:
    yield WrapperSpec("sharded", ShardedOptions, wrap)
