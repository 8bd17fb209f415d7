"""A store in the memory of one process, for tests and for conversations that nobody needs after its end."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
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
    # The limit of SQLite, so that tests on memory fail where SQLite would.
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
    """A log.

    :ivar seqs: the seq of each entry's id.
    """

    head: Head
    entries: list[Entry] = field(default_factory=list)
    seqs: dict[str, int] = field(default_factory=dict)

    def read(self, seqs: range, entry_id: str | None) -> Log:
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
        with self._lock:
            session = self._session(key)
            if session is None:
                return None
            tail = len(session.entries)
            if after is not None and after >= tail:  # A warm turn knows the tail: this is the most frequent read.
                return Log(session.head, tail + 1, (), session.find(entry_id))
            seqs = select_seqs(tail, LIMITS.page, last=last, before=before, after=after)
            return session.read(seqs, entry_id)

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)
        with self._lock:
            session = self._session(key)
            if session is not None and not session.head.deleted:
                return _extend(session, entry, at, snapshot)
            if at != (Position(session.head.tail.generation + 1, 0) if session else Position(0, 0)):
                raise Conflict(session.head if session else None)
            new = _Session(_new_head(key, session, at))
            self._users[key.user_id][key.session_id] = new
            return _push(new, entry, at, snapshot)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        with self._lock:
            session = self._session(key)
            if session is None or session.head.deleted or session.head.tail != at:
                return False
            session.head = replace(session.head, heartbeat=session.head.heartbeat + 1)
            return True

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        LIMITS.check(entry, snapshot)
        with self._lock:
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
        with self._lock:
            heads = sorted(self._heads(user_id), key=_listing_order)
        if start is not None:
            behind = (-start.active_us, start.session_id)
            heads = [head for head in heads if _listing_order(head) > behind]
        page = tuple(heads[: min(limit, LIMITS.page)])
        more = len(heads) > len(page)
        return Page(page, ListingCursor.behind(page[-1]).encode() if more else None)

    async def delete(self, key: SessionKey) -> bool:
        with self._lock:
            session = self._session(key)
            return session is not None and _write_tombstone(session)

    async def delete_user(self, user_id: str) -> int:
        with self._lock:
            return sum(_write_tombstone(session) for session in self._sessions(user_id).values())

    def _session(self, key: SessionKey) -> _Session | None:
        return self._sessions(key.user_id).get(key.session_id)

    def _sessions(self, user_id: str) -> Mapping[str, _Session]:
        """Return a user's sessions by id, tombstones too.

        :raises Unavailable: the provider is not started.
        """
        if not self._started:
            raise Unavailable("the memory store is not open: the service was stopped or not yet started")
        return self._users.get(user_id, {})

    def _heads(self, user_id: str) -> Iterable[Head]:
        return (session.head for session in self._sessions(user_id).values() if not session.head.deleted)


def _new_head(key: SessionKey, tombstone: _Session | None, at: Position) -> Head:
    active_us = tombstone.head.active_us if tombstone else 0
    return Head(key, at, "", deleted=False, heartbeat=0, rewrites=0, active_us=active_us, snapshot=None)


def _extend(session: _Session, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
    tail = session.head.tail
    seq = session.seqs.get(entry.id)
    if seq is not None and at.generation == tail.generation:
        return Appended(Position(tail.generation, seq), replayed=True)
    if at != tail:
        raise Conflict(session.head)
    return _push(session, entry, at, snapshot)


def _push(session: _Session, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
    head = session.head
    position = Position(at.generation, at.seq + 1)
    session.entries.append(entry)
    session.seqs[entry.id] = position.seq
    session.head = Head(
        head.key,
        position,
        entry.id,
        deleted=False,
        heartbeat=head.heartbeat,
        rewrites=head.rewrites,
        active_us=_next_active_us(head),
        snapshot=snapshot or head.snapshot,
    )
    return Appended(position, replayed=False)


def _write_tombstone(session: _Session) -> bool:
    """Replace a session by its tombstone. Return whether it was not one before."""
    head = session.head
    if head.deleted:
        return False
    tail = Position(head.tail.generation, 0)
    active_us = _next_active_us(head)
    session.head = Head(head.key, tail, "", deleted=True, heartbeat=0, rewrites=0, active_us=active_us, snapshot=None)
    session.entries.clear()
    session.seqs.clear()
    return True


def _next_active_us(head: Head) -> int:
    return max(time.time_ns() // 1000, head.active_us + 1)


def _listing_order(head: Head) -> tuple[int, str]:
    return -head.active_us, head.key.session_id


class MemoryOptions(ProviderOptions):
    """Takes the URL ``memory://`` and nothing else."""

    @field_validator("url")
    @classmethod
    def _names_nothing(cls, url: str) -> str:
        if url != "memory://":
            raise ValueError("names a place, but memory has none: write memory://")
        return url


@hookimpl
def session_history_providers() -> Iterable[ProviderSpec]:
    yield ProviderSpec("memory", MemoryOptions, lambda _: MemoryProvider())
