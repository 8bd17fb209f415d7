"""A store in the memory of one process, for tests and for conversations that nobody needs after its end."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import field_validator

from session_history_hooks import (
    Appended,
    Conflict,
    Durability,
    Entry,
    Head,
    LimitExceeded,
    Limits,
    ListingCursor,
    Log,
    Page,
    Position,
    ProviderOptions,
    ProviderSpec,
    Restorable,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    UserPage,
    Users,
    check_origin,
    check_restore,
    hookimpl,
    new_origin,
    select_seqs,
)

LIMITS = Limits(
    # The limit of SQLite, so that tests on memory fail where SQLite would.
    entry_bytes=64 * 2**20,
    summary_bytes=2**20,
    entries=2**24 - 1,
    page=1000,
    page_bytes=64 * 2**20,
    remembered_ids=None,
    durability=Durability.PROCESS,
    atomic_head=True,
)


FORMAT = 1


@dataclass(slots=True)
class _Session:
    """A log.

    :ivar seqs: the seq of each entry's id and keys.
    """

    head: Head
    entries: list[Entry] = field(default_factory=list)
    seqs: dict[str, int] = field(default_factory=dict)

    def read(self, seqs: range, entry_id: str | None, *, is_page: bool, oldest_first: bool) -> Log:
        """Read these entries; of a page those that fit into it."""
        wanted = seqs if oldest_first else reversed(seqs)
        found: Iterable[Entry] = (self.entries[seq - 1] for seq in wanted)
        entries = LIMITS.fitting(found) if is_page else list(found)
        if not oldest_first:
            entries.reverse()
        first = seqs.start if oldest_first else seqs.stop - len(entries)
        return Log(self.head, first if entries else len(self.entries) + 1, tuple(entries), self.find(entry_id))

    def put(self, entry: Entry) -> None:
        self.entries.append(entry if entry.text is None else replace(entry, text=None))
        self.seqs |= dict.fromkeys((entry.id, *entry.keys), len(self.entries))

    def find(self, entry_id: str | None) -> tuple[int, Entry] | None:
        seq = self.seqs.get(entry_id) if entry_id is not None else None
        return (seq, self.entries[seq - 1]) if seq else None


class MemoryProvider:
    """Keeps all sessions in a dict. Several threads and event loops may share it."""

    def __init__(self) -> None:
        self._users: defaultdict[str, dict[str, _Session]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._started = False
        self._info = StoreInfo(new_origin(), FORMAT)

    @property
    def limits(self) -> Limits:
        return LIMITS

    async def start(self) -> None:
        self._started = True

    async def stop(self) -> None:
        self._started = False

    async def health(self) -> bool:
        return self._started

    def ability(self, kind: object) -> object | None:
        return self if kind in (Users, Restorable) else None

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        with self._lock:
            self._require_started()
            self._info = replace(self._info, shard=self._info.shard or shard)
            return self._info

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
            return session.read(seqs, entry_id, is_page=last is None, oldest_first=after is not None and last is None)

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        LIMITS.check(entry, snapshot, at)
        with self._lock:
            session = self._session(key)
            if session is not None and not session.head.deleted:
                return _extend(session, entry, at, tail_origin, snapshot)
            if at != (Position(session.head.tail.generation + 1, 0) if session else Position(0, 0)):
                raise Conflict(session.head if session else None)
            new = _Session(_new_head(key, session, at))
            self._users[key.user_id][key.session_id] = new
            return _push(new, entry, at, snapshot)

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        with self._lock:
            session = self._session(key)
            if session is None or session.head.deleted or not _ends_at(session.head, at, tail_origin):
                return False
            session.head = replace(session.head, heartbeat=session.head.heartbeat + 1)
            return True

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
        LIMITS.check(entry, snapshot)
        check_origin("rewrite_id", rewrite_id)
        with self._lock:
            session = self._session(key)
            if session is None or session.head.tail.generation != at.generation:
                raise Conflict(session.head if session else None)
            head = session.head
            if head.rewrite_id == rewrite_id:
                return head
            old = session.entries[at.seq - 1] if 0 < at.seq <= len(session.entries) else None
            if old is None or (old.id, old.origin, head.rewrite_id) != (entry.id, entry.origin, last_rewrite_id):
                raise Conflict(head)
            session.entries[at.seq - 1] = replace(old, payload=entry.payload)
            session.head = replace(head, rewrite_id=rewrite_id, snapshot=snapshot)
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

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        behind = _decoded(cursor)
        with self._lock:
            self._require_started()
            found = sorted(user for user in self._users if user > behind)
        return UserPage(tuple(found[:limit]), _encoded(found[limit - 1]) if len(found) > limit else None)

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        behind = _decoded(cursor)
        limit = min(limit, LIMITS.page)
        with self._lock:
            heads = [session.head for session in self._sessions(user_id).values() if session.head.deleted]
        found = sorted((head for head in heads if head.key.session_id > behind), key=lambda head: head.key)
        last = found[limit - 1].key.session_id if len(found) > limit else None
        return Page(tuple(found[:limit]), _encoded(last) if last is not None else None)

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        first = check_restore(head, entries, behind)
        for entry in entries:
            LIMITS.check(entry, head.snapshot, replace(head.tail, seq=head.tail.seq - 1))
        if len(entries) > LIMITS.page:
            raise LimitExceeded("page entries", len(entries), LIMITS.page)
        with self._lock:
            session = self._session(head.key)
            new = _missing(session, head, entries, first, behind)
            if new is None:
                return False
            if session is None or session.head.deleted:
                session = self._users[head.key.user_id][head.key.session_id] = _Session(head)
            for entry in new:
                session.put(entry)
            session.head = head
            return True

    def _session(self, key: SessionKey) -> _Session | None:
        return self._sessions(key.user_id).get(key.session_id)

    def _sessions(self, user_id: str) -> Mapping[str, _Session]:
        """Return a user's sessions by id, tombstones too.

        :raises Unavailable: the provider is not started.
        """
        self._require_started()
        return self._users.get(user_id, {})

    def _require_started(self) -> None:
        if not self._started:
            raise Unavailable("the memory store is not open: the service was stopped or not yet started")

    def _heads(self, user_id: str) -> Iterable[Head]:
        return (session.head for session in self._sessions(user_id).values() if not session.head.deleted)


def _new_head(key: SessionKey, tombstone: _Session | None, at: Position) -> Head:
    changed_us = tombstone.head.changed_us if tombstone else 0
    return Head(
        key,
        at,
        "",
        deleted=False,
        heartbeat=0,
        rewrite_id="",
        active_us=changed_us,
        changed_us=changed_us,
        snapshot=None,
    )


def _extend(
    session: _Session, entry: Entry, at: Position, tail_origin: str | None, snapshot: Snapshot | None
) -> Appended:
    head = session.head
    keys: tuple[str, ...] = ()
    if at.generation == head.tail.generation:
        seq = session.seqs.get(entry.id)
        if seq is not None:
            return Appended(Position(at.generation, seq), replayed=True)
        keys = tuple(key for key in entry.keys if key in session.seqs)
    if keys or not _ends_at(head, at, tail_origin):
        raise Conflict(head, keys=keys)
    return _push(session, entry, at, snapshot)


def _ends_at(head: Head, at: Position, tail_origin: str | None) -> bool:
    return head.tail == at and tail_origin in (None, head.tail_origin)


def _push(session: _Session, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
    head = session.head
    position = Position(at.generation, at.seq + 1)
    session.put(entry)
    changed_us = _next_us(head)
    is_activity = at.seq == 0 or not entry.bookkeeping
    session.head = Head(
        head.key,
        position,
        entry.origin,
        deleted=False,
        heartbeat=head.heartbeat,
        rewrite_id=head.rewrite_id,
        active_us=changed_us if is_activity else head.active_us,
        changed_us=changed_us,
        snapshot=snapshot or head.snapshot,
    )
    return Appended(position, replayed=False)


def _write_tombstone(session: _Session) -> bool:
    """Replace a session by its tombstone. Return whether it was not one before."""
    head = session.head
    if head.deleted:
        return False
    now = _next_us(head)
    session.head = Head(
        head.key,
        Position(head.tail.generation, 0),
        "",
        deleted=True,
        heartbeat=0,
        rewrite_id="",
        active_us=now,
        changed_us=now,
        snapshot=None,
    )
    session.entries.clear()
    session.seqs.clear()
    return True


def _missing(
    session: _Session | None, head: Head, entries: Sequence[Entry], first: int, behind: str
) -> Sequence[Entry] | None:
    """Return the entries that a restore has to add; ``None`` if there is nothing to write.

    :raises Conflict: see :meth:`~session_history_hooks.Restorable.restore`.
    """
    found = session.head if session else None
    if session is None or found is None or found.deleted:
        if found == head:
            return None
        if first > 1 or (found and found.tail.generation >= head.tail.generation + head.deleted):
            raise Conflict(found)
        return entries
    same_life = not head.deleted and found.tail.generation == head.tail.generation
    origins = [entry.origin for entry in session.entries[max(first - 2, 0) : head.tail.seq]]
    expected = [behind][: first - 1] + [entry.origin for entry in entries]
    if not same_life or found.rewrite_id != head.rewrite_id or len(session.entries) < first - 1:
        raise Conflict(found)
    if origins != expected[: len(origins)]:
        raise Conflict(found)
    return entries[len(session.entries) - first + 1 :] or None


def _next_us(head: Head) -> int:
    return max(time.time_ns() // 1000, head.changed_us + 1)


def _encoded(name: str) -> str:
    return ListingCursor(0, name).encode()


def _decoded(cursor: str | None) -> str:
    return "" if cursor is None else ListingCursor.decode(cursor).session_id


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
