"""A store in the memory of one process, for tests and for conversations that may be forgotten."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pydantic import field_validator

from session_history_hooks import (
    Appended,
    Conflict,
    Durability,
    Entry,
    Head,
    Limits,
    ListingCursor,
    Log,
    Page,
    Position,
    ProviderOptions,
    ProviderSpec,
    SessionKey,
    Snapshot,
    Unavailable,
    hookimpl,
    select_seqs,
)

LIMITS = Limits(
    # A round figure far above any real turn; the same as SQLite's, so that tests find what production would.
    entry_bytes=64 * 2**20,
    summary_bytes=2**20,
    entries=2**24 - 1,
    page=1000,
    remembered_ids=None,
    durability=Durability.PROCESS,
    atomic_head=True,
)


@dataclass(slots=True)
class _Session:
    head: Head
    entries: list[Entry] = field(default_factory=list)
    seqs: dict[str, int] = field(default_factory=dict)

    def log(self, seqs: range, entry_id: str | None) -> Log:
        entries = tuple(self.entries[seq - 1] for seq in seqs)
        first = seqs.start if entries else len(self.entries) + 1
        return Log(self.head, first, entries, self.find(entry_id))

    def find(self, entry_id: str | None) -> tuple[int, Entry] | None:
        seq = self.seqs.get(entry_id) if entry_id is not None else None
        return (seq, self.entries[seq - 1]) if seq else None


class MemoryProvider:
    """Keeps all sessions in a dict. Several threads and event loops may share it."""

    def __init__(self) -> None:
        self._users: defaultdict[str, dict[str, _Session]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._started = False

    @property
    def limits(self) -> Limits:
        return LIMITS

    async def start(self) -> None:
        self._started = True

    async def stop(self) -> None:
        self._started = False

    async def health(self) -> bool:
        return self._started

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        with self._opened():
            session = self._session(key)
            if session is None:
                return None
            seqs = select_seqs(len(session.entries), LIMITS.page, last=last, before=before, after=after)
            return session.log(seqs, entry_id)

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)
        with self._opened():
            session = self._session(key)
            if session is not None and not session.head.deleted:
                return self._extend(session, entry, at, snapshot)
            if at != (Position(session.head.tail.generation + 1, 0) if session else Position(0, 0)):
                raise Conflict(session.head if session else None)
            born = _Session(_head(key, session, at))
            self._users[key.user_id][key.session_id] = born
            return _push(born, entry, at, snapshot)

    def _extend(self, session: _Session, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
        tail = session.head.tail
        seq = session.seqs.get(entry.id)
        if seq is not None and at.generation == tail.generation:
            return Appended(Position(tail.generation, seq), replayed=True)
        if at != tail:
            raise Conflict(session.head)
        return _push(session, entry, at, snapshot)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        with self._opened():
            session = self._session(key)
            if session is None or session.head.deleted or session.head.tail != at:
                return False
            session.head = replace(session.head, heartbeat=session.head.heartbeat + 1)
            return True

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        LIMITS.check(entry, snapshot)
        with self._opened():
            session = self._session(key)
            if session is None or (session.head.tail.generation, session.head.rewrites) != (at.generation, rewrites):
                raise Conflict(session.head if session else None)
            if session.seqs.get(entry.id) != at.seq:
                raise Conflict(session.head)
            session.entries[at.seq - 1] = entry
            session.head = replace(session.head, rewrites=rewrites + 1, snapshot=snapshot)
            return session.head

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        start = ListingCursor.decode(cursor) if cursor is not None else None
        with self._opened():
            heads = sorted(self._live(user_id), key=_recency)
        if start is not None:
            behind = (-start.active_us, start.session_id)
            heads = [head for head in heads if _recency(head) > behind]
        page = tuple(heads[: min(limit, LIMITS.page)])
        more = len(heads) > len(page)
        return Page(page, ListingCursor.behind(page[-1]).encode() if more else None)

    async def delete(self, key: SessionKey) -> bool:
        with self._opened():
            session = self._session(key)
            return session is not None and _bury(session)

    async def delete_user(self, user_id: str) -> int:
        with self._opened():
            return sum(_bury(session) for session in self._users.get(user_id, {}).values())

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """:raises Unavailable: it was not started, or was stopped."""
        with self._lock:
            if not self._started:
                raise Unavailable("the memory store is closed")
            yield

    def _session(self, key: SessionKey) -> _Session | None:
        return self._users.get(key.user_id, {}).get(key.session_id)

    def _live(self, user_id: str) -> Iterable[Head]:
        sessions = self._users.get(user_id, {}).values()
        return (session.head for session in sessions if not session.head.deleted)


def _head(key: SessionKey, tombstone: _Session | None, at: Position) -> Head:
    active_us = tombstone.head.active_us if tombstone else 0
    return Head(key, at, "", deleted=False, heartbeat=0, rewrites=0, active_us=active_us, snapshot=None)


def _push(session: _Session, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
    head = session.head
    position = Position(at.generation, at.seq + 1)
    session.entries.append(entry)
    session.seqs[entry.id] = position.seq
    session.head = replace(
        head, tail=position, tail_id=entry.id, active_us=_tick(head), snapshot=snapshot or head.snapshot
    )
    return Appended(position, replayed=False)


def _bury(session: _Session) -> bool:
    head = session.head
    if head.deleted:
        return False
    tail = Position(head.tail.generation, 0)
    session.head = Head(head.key, tail, "", deleted=True, heartbeat=0, rewrites=0, active_us=_tick(head), snapshot=None)
    session.entries.clear()
    session.seqs.clear()
    return True


def _tick(head: Head) -> int:
    return max(time.time_ns() // 1000, head.active_us + 1)


def _recency(head: Head) -> tuple[int, str]:
    return -head.active_us, head.key.session_id


class MemoryOptions(ProviderOptions):
    """Takes the URL ``memory://`` and nothing else."""

    @field_validator("url")
    @classmethod
    def _names_nothing(cls, url: str) -> str:
        if url != "memory://":
            raise ValueError("memory has no place to name: write memory://")
        return url


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("memory", MemoryOptions, lambda _: MemoryProvider())
