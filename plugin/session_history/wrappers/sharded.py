"""Several stores as one. Each user is in one of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from pydantic import Field, field_validator

from session_history_hooks import (
    Appended,
    ConfigurationError,
    Durability,
    Entry,
    Head,
    InvalidCursor,
    Limits,
    Log,
    OpenInner,
    Page,
    Position,
    Restorable,
    Searchable,
    SearchPage,
    SessionHistoryProvider,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    UserPage,
    Users,
    WaitingOrder,
    WrapperOptions,
    WrapperSpec,
    ability,
    hookimpl,
)

WEAKEST_FIRST = (Durability.PROCESS, Durability.HOST, Durability.DISK)


class ShardedProvider:
    """Keeps the sessions of each user in one of several stores, the shards.

    A digest of the user id picks the shard: the 64-bit BLAKE2b of its UTF-8 bytes, read as a big-endian number, modulo
    the number of shards. So the number of shards and their order must never change: otherwise most users lose sight of
    their sessions. Each shard keeps its place, and ``start`` refuses a shard in the wrong one. A shard may move to
    another server.

    The limits are the weakest of the shards, and the abilities are those that all shards have.

    :param shards: providers that are not started; this one starts and stops them.
    :raises ConfigurationError: there is no shard.
    """

    def __init__(self, shards: Sequence[SessionHistoryProvider]) -> None:
        if not shards:
            raise ConfigurationError("a sharded store needs at least one shard")
        self._shards = tuple(shards)
        self._limits = weakest([shard.limits for shard in shards])
        self._is_started = False

    def __repr__(self) -> str:
        return f"ShardedProvider([{', '.join(map(repr, self._shards))}])"

    @property
    def limits(self) -> Limits:
        return self._limits

    async def start(self) -> None:
        """Start all shards. If one cannot start, the others are stopped.

        :raises ConfigurationError: a shard has its place elsewhere; or see the shards.
        """
        tried: list[SessionHistoryProvider] = []
        try:
            for shard in self._shards:
                tried.append(shard)
                await shard.start()
            if not self._is_started:
                await self._take_places()
        except BaseException:
            if not self._is_started:  # by an earlier start, or by one at the same time
                await _stop(tried)  # Its errors are dropped: the error of the start is the one to show.
            raise
        self._is_started = True

    async def _take_places(self) -> None:
        """Check that each shard is in its place. Only then those take theirs that have none yet."""
        places = [Shard(number, len(self._shards)) for number in range(len(self._shards))]
        found = await asyncio.gather(*(shard.store_info() for shard in self._shards))
        if len({info.incarnation for info in found}) < len(found):
            raise ConfigurationError("two shards are the same store")
        for place, info in zip(places, found, strict=True):
            _require_place(place, info.shard or place)
        for place, shard, info in zip(places, self._shards, found, strict=True):
            if info.shard is None:
                _require_place(place, (await shard.store_info(shard=place)).shard)

    async def stop(self) -> None:
        """Stop all shards, also if one of them fails."""
        self._is_started = False
        errors = await _stop(self._shards)
        if errors:
            raise errors[0]

    async def health(self) -> bool:
        """Return whether all shards are healthy."""
        return all(await asyncio.gather(*(shard.health() for shard in self._shards)))

    def ability(self, kind: object) -> object | None:
        if kind is Users:
            walked = [ability(shard, Users) for shard in self._shards]
            return _ShardedUsers([each for each in walked if each], self._limits) if all(walked) else None
        if kind is Restorable:
            restored = [ability(shard, Restorable) for shard in self._shards]
            return _ShardedRestore([each for each in restored if each], self._limits) if all(restored) else None
        if kind is Searchable:
            searched = [ability(shard, Searchable) for shard in self._shards]
            return _ShardedSearch([each for each in searched if each]) if all(searched) else None
        return None

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        """Return the identity of all shards together: it changes if one of them is another store.

        :raises ConfigurationError: ``shard`` is given. The shards have places already.
        """
        if shard is not None:
            raise ConfigurationError("a sharded store cannot be a shard of another one; name all shards in one")
        infos = await asyncio.gather(*(each.store_info() for each in self._shards))
        incarnations = json.dumps([info.incarnation for info in infos])
        digest = hashlib.blake2b(incarnations.encode(), digest_size=16).hexdigest()
        return StoreInfo(digest, max(info.format for info in infos))

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        shard = self._shard_of(key.user_id)
        log = await shard.read(key, last=last, before=before, after=after, entry_id=entry_id)
        is_page = log is not None and last is None and shard.limits != self._limits
        return self._smallest_page(log, oldest_first=after is not None) if log and is_page else log

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        self._limits.check(entry, snapshot, at)
        shard = self._shard_of(key.user_id)
        return await shard.append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        return await self._shard_of(key.user_id).renew(key, at=at, tail_origin=tail_origin)

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        self._limits.check(entry, snapshot)
        return await self._shard_of(key.user_id).rewrite(
            key, entry, at=at, rewrite_id=rewrite_id, last_rewrite_id=last_rewrite_id, snapshot=snapshot
        )

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await self._shard_of(user_id).list(user_id, limit=min(limit, self._limits.page), cursor=cursor)

    async def delete(self, key: SessionKey) -> bool:
        return await self._shard_of(key.user_id).delete(key)

    async def delete_user(self, user_id: str) -> int:
        return await self._shard_of(user_id).delete_user(user_id)

    def _shard_of(self, user_id: str) -> SessionHistoryProvider:
        return self._shards[shard_number(user_id, len(self._shards))]

    def _smallest_page(self, log: Log, *, oldest_first: bool) -> Log:
        """Return what of a page of a shard fits into the smallest page, which ``limits`` promises."""
        entries = self._limits.fitting(log.entries if oldest_first else log.entries[::-1])
        if len(entries) == len(log.entries):
            return log
        if oldest_first:
            return replace(log, entries=tuple(entries))
        first = log.first + len(log.entries) - len(entries)
        return replace(log, entries=tuple(entries[::-1]), first=first)


class _ShardedUsers:
    """Walks one shard after another. A cursor names the shard, and holds the cursor of that shard, if there is one."""

    def __init__(self, shards: Sequence[Users], limits: Limits) -> None:
        self._shards = shards
        self._limits = limits

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        match = re.fullmatch(r"([0-9]{1,9})(?:/(.*))?", "0" if cursor is None else cursor, re.ASCII | re.DOTALL)
        number = int(match[1]) if match else len(self._shards)
        if match is None or number >= len(self._shards):
            raise InvalidCursor("the cursor was not made by this listing")
        page = await self._shards[number].list_users(limit=limit, cursor=match[2])
        following = f"{number}/{page.cursor}" if page.cursor is not None else f"{number + 1}"
        is_last = page.cursor is None and number + 1 == len(self._shards)
        return UserPage(page.user_ids, None if is_last else following, page.unnamed)

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        shard = self._shards[shard_number(user_id, len(self._shards))]
        return await shard.list_tombstones(user_id, limit=min(limit, self._limits.page), cursor=cursor)


class _ShardedRestore:
    """Restores each session in the shard of its user."""

    def __init__(self, shards: Sequence[Restorable], limits: Limits) -> None:
        self._shards = shards
        self._limits = limits

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        self._limits.check_restore(head, entries)
        shard = self._shards[shard_number(head.key.user_id, len(self._shards))]
        return await shard.restore(head, entries, behind=behind)


class _ShardedSearch:
    """Searches the shard of a user."""

    def __init__(self, shards: Sequence[Searchable]) -> None:
        self._shards = shards

    async def search(self, user_id: str, words: Sequence[str], **options: Any) -> SearchPage:
        return await self._shards[shard_number(user_id, len(self._shards))].search(user_id, words, **options)


def _require_place(place: Shard, found: Shard | None) -> None:
    if found != place:
        raise ConfigurationError(f"the store configured as shard {place} is shard {found} of its sharded store")


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
        page_bytes=min(each.page_bytes for each in limits),
        remembered_ids=None if remembered == inf else int(remembered),
        durability=min((each.durability for each in limits), key=WEAKEST_FIRST.index),
        atomic_head=all(each.atomic_head for each in limits),
        waiting=min((each.waiting for each in limits), key=list(WaitingOrder).index),
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
