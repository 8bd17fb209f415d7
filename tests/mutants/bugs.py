"""Providers with one planted bug each: the bugs that the design names, and other likely ones."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

from mutants.entry_bugs import ENTRY_BUGS
from mutants.store_bugs import STORE_BUGS
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
)


class SeparatorJoinedKey(MemoryProvider):
    """Finds a session by the joined key ``user:session``."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, SessionKey] = {}

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(self._joined(key), **keywords)
        return log and replace(log, head=replace(log.head, key=key))

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        return await super().append(self._joined(key), entry, at=at, **keywords)

    async def renew(self, key: SessionKey, **keywords: Any) -> bool:
        return await super().renew(self._joined(key), **keywords)

    async def rewrite(self, key: SessionKey, entry: Entry, **keywords: Any) -> Head:
        return await super().rewrite(self._joined(key), entry, **keywords)

    async def delete(self, key: SessionKey) -> bool:
        return await super().delete(self._joined(key))

    def _joined(self, key: SessionKey) -> SessionKey:
        return self._first.setdefault(f"{key.user_id}:{key.session_id}", key)


class ReadModifyWrite(MemoryProvider):
    """Reads a whole session, gives up control, and writes the session back with one more entry."""

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        sessions = self._users.setdefault(key.user_id, {})
        read = deepcopy(sessions.get(key.session_id))
        await asyncio.sleep(0)
        sessions.pop(key.session_id, None)
        if read is not None:
            sessions[key.session_id] = read
        return await super().append(key, entry, at=at, **keywords)


class IgnoredGeneration(MemoryProvider):
    """Compares the seq of a position, but not its generation."""

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        log = await super().read(key, last=0)
        if log is not None:
            at = Position(log.head.tail.generation + log.head.deleted, at.seq)
        return await super().append(key, entry, at=at, **keywords)


class IgnoredId(MemoryProvider):
    """Stores an entry without a look-up of its id."""

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        log = await super().read(key, last=0)
        if log is not None and at != log.head.tail and not log.head.deleted:
            raise Conflict(log.head)
        session = self._session(key)
        if session is not None:
            session.seqs.pop(entry.id, None)
        return await super().append(key, entry, at=at, **keywords)


class AcknowledgedBeforeCommit(SqliteProvider):
    """Acknowledges an append at once and commits it later. Its own connection sees the append at once."""

    def __init__(self, path: Any) -> None:
        super().__init__(path, synchronous="NORMAL")
        self._pending: asyncio.Task[Any] | None = None

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        self.limits.check(entry, keywords.get("snapshot"), at)
        log = await self.read(key, last=0, entry_id=entry.id)
        if log is not None and not log.head.deleted and (log.match or at != log.head.tail):
            return await super().append(key, entry, at=at, **keywords)
        next_generation = log.head.tail.generation + 1 if log else 0
        if (log is None or log.head.deleted) and at != Position(next_generation, 0):
            raise Conflict(log.head if log else None)
        self._pending = asyncio.create_task(self._commit(key, entry, at, keywords))
        return Appended(Position(at.generation, at.seq + 1), replayed=False)

    async def _commit(self, key: SessionKey, entry: Entry, at: Position, keywords: Any) -> None:
        await asyncio.sleep(0.002)
        try:
            await super().append(key, entry, at=at, **keywords)
        except Conflict:
            return  # The append was acknowledged: no caller waits for this error.

    async def _wait_for_commit(self) -> None:
        if self._pending is not None and not self._pending.done() and self._pending is not asyncio.current_task():
            await asyncio.wait([self._pending])

    async def _read(self, job: Any) -> Any:
        await self._wait_for_commit()
        return await super()._read(job)

    async def _write(self, job: Any, *, deletes: bool = False) -> Any:
        await self._wait_for_commit()
        return await super()._write(job, deletes=deletes)

    async def stop(self) -> None:
        await self._wait_for_commit()
        await super().stop()


class InclusiveCursor(MemoryProvider):
    """Begins a page with the session that the cursor names, not with the one after it."""

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        if cursor is not None:
            last = ListingCursor.decode(cursor)
            cursor = ListingCursor(last.active_us + 1, last.session_id).encode()
        return await super().list(user_id, limit=limit, cursor=cursor)


class AliasedEntries(MemoryProvider):
    """Returns its own list of entries, not a copy."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        if log is None or len(log.entries) != log.head.tail.seq:
            return log
        return replace(log, entries=self._users[key.user_id][key.session_id].entries)  # type: ignore[arg-type]


class AliasedHead(MemoryProvider):
    """Keeps one head for each session, changes it in place, and returns it."""

    def __init__(self) -> None:
        super().__init__()
        self._kept_heads: dict[SessionKey, Head] = {}

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, **keywords)
        return log and replace(log, head=self._kept(log.head))

    def _kept(self, head: Head) -> Head:
        kept = self._kept_heads.setdefault(head.key, head)
        for each in fields(Head):
            object.__setattr__(kept, each.name, getattr(head, each.name))
        return kept


class StaleSnapshot(MemoryProvider):
    """Marks the old snapshot as current after an append without a snapshot."""

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        log = await super().read(key, last=0)
        if keywords.get("snapshot") is None and log is not None and log.head.snapshot is not None:
            keywords["snapshot"] = replace(log.head.snapshot, seq=at.seq + 1, origin=entry.origin)
        return await super().append(key, entry, at=at, **keywords)


class SnapshotOfAReplay(MemoryProvider):
    """Stores the snapshot of a replayed append."""

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        appended = await super().append(key, entry, at=at, **keywords)
        if appended.replayed and keywords.get("snapshot") is not None:
            session = self._users[key.user_id][key.session_id]
            session.head = replace(session.head, snapshot=keywords["snapshot"])
        return appended


class TornRead(SqliteProvider):
    """Reads the head and the entries at two different moments."""

    async def read(self, key: SessionKey, **keywords: Any) -> Log | None:
        log = await super().read(key, last=0)
        return log and replace(await super().read(key, **keywords) or log, head=log.head)


class UncheckedLimits(MemoryProvider):
    """Claims smaller limits than it enforces."""

    @property
    def limits(self) -> Any:
        return replace(super().limits, entry_bytes=1000, summary_bytes=100, entries=50)


class ForgottenIds(MemoryProvider):
    """Claims to remember all ids, but remembers only the newest hundred."""

    async def append(self, key: SessionKey, entry: Entry, *, at: Position, **keywords: Any) -> Appended:
        log = await super().read(key, last=0, entry_id=entry.id)
        if log is not None and log.match and log.match[0] <= log.head.tail.seq - 100:
            raise Conflict(log.head)
        return await super().append(key, entry, at=at, **keywords)


class UnorderedTies(MemoryProvider):
    """Does not sort sessions of one moment by id, although the cursor relies on that order."""

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        sessions = self._sessions(user_id).values()
        heads = sorted((each.head for each in sessions if not each.head.deleted), key=lambda head: -head.active_us)
        if cursor is not None:
            start = ListingCursor.decode(cursor)
            behind = (-start.active_us, start.session_id)
            heads = [head for head in heads if (-head.active_us, head.key.session_id) > behind]
        page = tuple(heads[:limit])
        return Page(page, ListingCursor.behind(page[-1]).encode() if len(heads) > limit else None)


class OpenWithoutStart(MemoryProvider):
    """Reads also before the start and after the stop."""

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
    "a stale snapshot": StaleSnapshot,
    "the snapshot of a replay": SnapshotOfAReplay,
    "a read of two moments": TornRead,
    "limits that are not enforced": UncheckedLimits,
    "forgotten ids": ForgottenIds,
    "ties of activity without an order": UnorderedTies,
    "reads without a start": OpenWithoutStart,
    **ENTRY_BUGS,
    **STORE_BUGS,
}
