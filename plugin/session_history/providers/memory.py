"""A store in the memory of one process, for tests and for conversations that nobody needs after its end."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import field_validator

from session_history.providers.common.forks import ForkGuard
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
    Restorable,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    UserPage,
    Users,
    check_origin,
    hookimpl,
    new_origin,
)
from session_history_hooks.rules import (
    ends_at,
    entries_to_restore,
    find_replay,
    head_after,
    list_page,
    overlap_to_compare,
    read_log,
    rewritten,
    tombstone_of,
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

REMEDY = "each process has a memory store of its own: start it after the fork, or use another store, e.g. sqlite://"


@dataclass(slots=True)
class _Session:
    """A log.

    :ivar seqs: the seq of each entry's id and keys.
    """

    head: Head
    entries: list[Entry] = field(default_factory=list)
    seqs: dict[str, int] = field(default_factory=dict)

    def put(self, entry: Entry) -> None:
        self.entries.append(entry if entry.text is None else replace(entry, text=None))
        self.seqs |= dict.fromkeys((entry.id, *entry.keys), len(self.entries))

    def delete(self) -> bool:
        """Leave a tombstone. Return whether it was not one before."""
        if self.head.deleted:
            return False
        self.head = tombstone_of(self.head)
        self.entries.clear()
        self.seqs.clear()
        return True

    def find(self, entry_id: str | None) -> tuple[int, Entry] | None:
        seq = self.seqs.get(entry_id) if entry_id is not None else None
        return (seq, self.entries[seq - 1]) if seq else None


class _Lock:
    """The lock of a store that was started, if it was, in this process.

    A process that was forked meanwhile has a copy of the store, and perhaps of a lock that nobody will release. So it
    must not wait for the lock.
    """

    __slots__ = ("_guard", "_lock")

    def __init__(self) -> None:
        self._guard: ForkGuard | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if self._guard is not None and self._guard.inherited:
            self._guard.require_own_process()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def start(self) -> None:
        """Remember this process. :raises Unavailable: the store was started in a parent of it."""
        with self:
            self._guard = self._guard or ForkGuard("the memory store", REMEDY)

    @property
    def is_inherited(self) -> bool:
        """Tell whether a parent of this process started the store."""
        return self._guard is not None and self._guard.inherited


class MemoryProvider:
    """Keeps all sessions in a dict. Several threads and event loops may share it.

    Processes cannot share it. A process that was forked after the first start has a copy of the sessions, which would
    differ from those of the parent from then on. So there the provider raises ``Unavailable``.
    """

    def __init__(self) -> None:
        self._users: defaultdict[str, dict[str, _Session]] = defaultdict(dict)
        self._lock = _Lock()
        self._started = False
        self._info = StoreInfo(new_origin(), FORMAT)

    @property
    def limits(self) -> Limits:
        return LIMITS

    async def start(self) -> None:
        self._lock.start()
        self._started = True

    async def stop(self) -> None:
        self._started = False

    async def health(self) -> bool:
        return self._started and not self._lock.is_inherited

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
            match = session.seqs.get(entry_id) if entry_id is not None else None
            return read_log(session.head, session.entries, match, LIMITS, last=last, before=before, after=after)

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
            head = session.head if session else None
            replay = find_replay(head, entry, at, tail_origin, session.seqs.get if session else lambda _: None)
            if replay is not None:
                return replay
            new_head = head_after(head, key, entry, snapshot)
            self._stored(new_head, session).put(entry)
            return Appended(new_head.tail, replayed=False)

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        with self._lock:
            session = self._session(key)
            if session is None or session.head.deleted or not ends_at(session.head, at, tail_origin):
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
            if session is None:
                raise Conflict(None)
            if session.head.rewrite_id != rewrite_id:
                old = session.entries[at.seq - 1] if 0 < at.seq <= len(session.entries) else None
                new = rewritten(session.head, old, entry, at, last_rewrite_id)
                session.entries[at.seq - 1] = replace(new, text=None)
                session.head = replace(session.head, rewrite_id=rewrite_id, snapshot=snapshot)
            return session.head

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        with self._lock:
            heads = [session.head for session in self._sessions(user_id).values()]
        return list_page(heads, LIMITS.page, limit=limit, cursor=cursor)

    async def delete(self, key: SessionKey) -> bool:
        with self._lock:
            session = self._session(key)
            return session is not None and session.delete()

    async def delete_user(self, user_id: str) -> int:
        with self._lock:
            return sum(session.delete() for session in self._sessions(user_id).values())

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
        LIMITS.check_restore(head, entries)
        with self._lock:
            session = self._session(head.key)
            found = session.head if session else None
            overlap = overlap_to_compare(found, head, entries)
            origins = [session.entries[seq - 1].origin for seq in overlap] if session else []
            new = entries_to_restore(found, origins, head, entries, behind)
            if new is None:
                return False
            session = self._stored(head, session)
            for entry in new:
                session.put(entry)
            return True

    def _stored(self, head: Head, session: _Session | None) -> _Session:
        """Return the session with another head; a new one in place of none or of a tombstone."""
        if session is None or session.head.deleted:
            session = self._users[head.key.user_id][head.key.session_id] = _Session(head)
        session.head = head
        return session

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


def _encoded(name: str) -> str:
    return ListingCursor(0, name).encode()


def _decoded(cursor: str | None) -> str:
    return "" if cursor is None else ListingCursor.decode(cursor).session_id


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
