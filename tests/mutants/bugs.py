"""One class, one bug. The bugs that the design names, then a few that a provider may as well have."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    ListingCursor,
    Log,
    Page,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
)


class SeparatorJoinedKey(MemoryProvider):
    """Finds a session by ``user:session``."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, SessionKey] = {}

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(self._joined(key), **keywords)
        return log and replace(log, head=replace(log.head, key=key))

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        return await super().append(self._joined(key), entry, at=at, snapshot=snapshot)

    async def delete(self, key: SessionKey) -> bool:
        return await super().delete(self._joined(key))

    def _joined(self, key: SessionKey) -> SessionKey:
        return self._first.setdefault(f"{key.user_id}:{key.session_id}", key)


class ReadModifyWrite(MemoryProvider):
    """Reads a session whole, lets others have a turn, and writes it back with one entry more."""

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        read = deepcopy(self._users[key.user_id].get(key.session_id))
        await asyncio.sleep(0)
        self._users[key.user_id].pop(key.session_id, None)
        if read is not None:
            self._users[key.user_id][key.session_id] = read
        return await super().append(key, entry, at=at, snapshot=snapshot)


class IgnoredGeneration(MemoryProvider):
    """Compares the seq of a place, and not its generation."""

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        log = await super().read(key, last=0)
        if log is not None:
            at = Position(log.head.tail.generation + log.head.deleted, at.seq)
        return await super().append(key, entry, at=at, snapshot=snapshot)


class IgnoredId(MemoryProvider):
    """Does not look for an entry's id before it stores the entry."""

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        log = await super().read(key, last=0)
        if log is not None and at != log.head.tail and not log.head.deleted:
            raise Conflict(log.head)
        session = self._users[key.user_id].get(key.session_id)
        if session is not None:
            session.seqs.pop(entry.id, None)
        return await super().append(key, entry, at=at, snapshot=snapshot)


class AcknowledgedBeforeCommit(SqliteProvider):
    """Answers an append at once and commits it a little later; the connection itself sees it at once."""

    def __init__(self, path: Any) -> None:
        super().__init__(path, synchronous="NORMAL")
        self._late: asyncio.Task[Any] | None = None

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        self.limits.check(entry, snapshot, at)
        log = await self.read(key, last=0, entry_id=entry.id)
        if log is not None and not log.head.deleted and (log.match or at != log.head.tail):
            return await super().append(key, entry, at=at, snapshot=snapshot)
        next_life = log.head.tail.generation + 1 if log else 0
        if (log is None or log.head.deleted) and at != Position(next_life, 0):
            raise Conflict(log.head if log else None)
        self._late = asyncio.create_task(self._commit(key, entry, at, snapshot))
        return Appended(Position(at.generation, at.seq + 1), replayed=False)

    async def _commit(self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None) -> None:
        await asyncio.sleep(0.002)
        try:
            await super().append(key, entry, at=at, snapshot=snapshot)
        except Conflict:
            return  # nobody is there any more to be told

    async def _settle(self) -> None:
        if self._late is not None and not self._late.done() and self._late is not asyncio.current_task():
            await asyncio.wait([self._late])

    async def _read(self, job: Any) -> Any:
        await self._settle()
        return await super()._read(job)

    async def _write(self, job: Any) -> Any:
        await self._settle()
        return await super()._write(job)

    async def stop(self) -> None:
        await self._settle()
        await super().stop()


class InclusiveCursor(MemoryProvider):
    """Begins a page with the session that the cursor stands at."""

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        if cursor is not None:
            last = ListingCursor.decode(cursor)
            cursor = ListingCursor(last.active_us + 1, last.session_id).encode()
        return await super().list(user_id, limit=limit, cursor=cursor)


class AliasedEntries(MemoryProvider):
    """Hands out the list that it keeps the entries in."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        if log is None or len(log.entries) != log.head.tail.seq:
            return log
        return replace(log, entries=self._users[key.user_id][key.session_id].entries)  # type: ignore[arg-type]


class AliasedHead(MemoryProvider):
    """Keeps one head for each session, which it changes in place and hands out."""

    def __init__(self) -> None:
        super().__init__()
        self._heads: dict[SessionKey, Head] = {}

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        return log and replace(log, head=self._kept(log.head))

    def _kept(self, head: Head) -> Head:
        kept = self._heads.setdefault(head.key, head)
        for each in fields(Head):
            object.__setattr__(kept, each.name, getattr(head, each.name))
        return kept


class StaleFold(MemoryProvider):
    """Takes the old snapshot for one that covers an entry that came without."""

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        log = await super().read(key, last=0)
        if snapshot is None and log is not None and log.head.snapshot is not None:
            snapshot = replace(log.head.snapshot, seq=at.seq + 1, entry_id=entry.id)
        return await super().append(key, entry, at=at, snapshot=snapshot)


class FoldOfTheLoser(MemoryProvider):
    """Lets a repeated append change the snapshot."""

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        appended = await super().append(key, entry, at=at, snapshot=snapshot)
        if appended.replayed and snapshot is not None:
            session = self._users[key.user_id][key.session_id]
            session.head = replace(session.head, snapshot=snapshot)
        return appended


class TornRead(SqliteProvider):
    """Reads the head, and then the entries of another moment."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, last=0)
        return log and replace(await super().read(key, **keywords) or log, head=log.head)


class UncheckedLimits(MemoryProvider):
    """Stores what is larger than it claims to hold."""

    @property
    def limits(self) -> Any:
        return replace(super().limits, entry_bytes=1000, summary_bytes=100, entries=50)


class ForgottenIds(MemoryProvider):
    """Claims to remember all ids, and looks at the newest hundred."""

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        log = await super().read(key, last=0, entry_id=entry.id)
        if log is not None and log.match and log.match[0] <= log.head.tail.seq - 100:
            raise Conflict(log.head)
        return await super().append(key, entry, at=at, snapshot=snapshot)


class OrderOfActivityAlone(MemoryProvider):
    """Leaves the order of sessions of one moment to chance, which the cursor does not."""

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        heads = sorted(self._live(user_id), key=lambda head: -head.active_us)
        if cursor is not None:
            start = ListingCursor.decode(cursor)
            behind = (-start.active_us, start.session_id)
            heads = [head for head in heads if (-head.active_us, head.key.session_id) > behind]
        page = tuple(heads[:limit])
        return Page(page, ListingCursor.behind(page[-1]).encode() if len(heads) > limit else None)


class OpenWithoutStart(MemoryProvider):
    """Does its work also before it was started, and after it was stopped."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        was, self._started = self._started, True
        try:
            return await super().read(key, **keywords)
        finally:
            self._started = was


BUGS: dict[str, type[SessionHistoryProvider]] = {
    "a separator-joined key": SeparatorJoinedKey,
    "read-modify-write": ReadModifyWrite,
    "an ignored generation": IgnoredGeneration,
    "an ignored id": IgnoredId,
    "acknowledgement before commit": AcknowledgedBeforeCommit,
    "an inclusive cursor": InclusiveCursor,
    "an aliased return value: the entries": AliasedEntries,
    "an aliased return value: the head": AliasedHead,
    "a stale snapshot": StaleFold,
    "the snapshot of a repeat": FoldOfTheLoser,
    "a read of two moments": TornRead,
    "limits that are not kept": UncheckedLimits,
    "ids that are forgotten": ForgottenIds,
    "an order of activity alone": OrderOfActivityAlone,
    "work without a start": OpenWithoutStart,
}
