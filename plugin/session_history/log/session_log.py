"""The log of a session: append with retry on conflict, and the summary at its head."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import NamedTuple
from uuid import uuid4
from weakref import WeakValueDictionary

from session_history.errors import (
    ConfigurationError,
    Conflict,
    Corrupt,
    IncompatibleStore,
    SessionBusy,
    SessionDeleted,
    TurnOvertaken,
    Unavailable,
)
from session_history.log.cache import TailCache, numbered
from session_history.log.leases import LeaseObserver
from session_history.log.waiting import WaitingLine, WaitingLines, poll_pause
from session_history.records.record import Record
from session_history.records.summary import SessionSummary
from session_history_hooks import Entry, Head, Log, Position, SessionHistoryProvider, SessionKey, Snapshot
from session_history_hooks.rules import head_after

logger: logging.Logger = logging.getLogger("session_history")

RETRY_TIMEOUT = 30.0
"""Seconds for which an append is tried again while other writers come first, or while an exclusive turn goes on."""


class Placed(NamedTuple):
    """An entry that was appended.

    :ivar head: the new head, as far as this process knows; ``None`` if the log held an entry of this id already.
    :ivar ahead: the head that the entry was appended behind.
    :ivar lost_past: the log is no longer the one that the author knows, see :class:`LostPastError`.
    """

    head: Head | None
    ahead: Head | None
    lost_past: bool = False

    def is_behind(self, known: Head | None) -> bool:
        """Tell whether the entry stands directly behind what its author knew."""
        if self.ahead is None or known is None:
            return self.ahead is known
        return (self.ahead.tail, self.ahead.tail_origin) == (known.tail, known.tail_origin)


class LostPastError(Exception):
    """The log does not hold what the author of a record knows of it, as after the restore of a backup.

    :ivar head: the current head.
    """

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.head = head


class SessionLog:
    """The logs of a provider, as records.

    :ivar name: tells the sessions of this log from those of another one.
    """

    def __init__(self, provider: SessionHistoryProvider) -> None:
        self.provider = provider
        self.cache: TailCache = TailCache()
        self.leases: LeaseObserver = LeaseObserver()
        self._lines = WaitingLines()
        self.name: str = uuid4().hex
        self._incarnation: str | None = None
        self._has_warned = False
        self._queues: WeakValueDictionary[tuple[int, SessionKey], _AppendQueue] = WeakValueDictionary()

    def warn_once(self, text: str) -> None:
        """Log a warning, unless this log has warned before."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(text)

    def forget(self) -> None:
        """Drop what was read from the store. Reads that are under way go on with the old cache."""
        self.cache = TailCache()

    async def identify_store(self) -> None:
        """Find out which store this is, and drop all that is known of another one.

        :raises ConfigurationError: it is one shard of several.
        """
        info = await self.provider.store_info()
        if info.shard is not None:
            raise ConfigurationError(f"this store is shard {info.shard} of a sharded store; open it through `sharded`")
        if self._incarnation not in (None, info.incarnation):
            logger.warning("the store is another one than before; what was known of it is dropped")
            self.forget()
            self.leases = LeaseObserver()
            self.name = uuid4().hex
        self._incarnation = info.incarnation

    async def head(self, key: SessionKey) -> Head | None:
        log = await self.provider.read(key, last=0)
        return log.head if log else None

    async def summary(self, key: SessionKey, head: Head) -> SessionSummary:
        """Return the summary at the head: the snapshot's if it covers the tail, else one rebuilt from the log."""
        cached = self.cache.get(key)
        if cached is not None and cached.summary is not None and cached.stands_at(head):
            return cached.summary
        snapshot = head.snapshot
        if snapshot and (head.current_snapshot or await self.holds(key, snapshot.seq, snapshot.origin)):
            try:
                summary = SessionSummary.decode(snapshot.summary, key)
            except (Corrupt, IncompatibleStore) as error:
                logger.warning("%s: its summary is rebuilt from the log: %r", key, error)
            else:
                return await self._caught_up(key, head, summary, snapshot.seq)
        return await self._caught_up(key, head, SessionSummary(), 0)

    async def listed_summary(self, head: Head) -> SessionSummary | None:
        """Return what a listing shows of a session; ``None`` if the session cannot be read."""
        try:
            return await self.summary(head.key, head)
        except SessionDeleted:
            return SessionSummary()
        except (Corrupt, IncompatibleStore) as error:
            logger.error("%s is listed without title and metadata: %r", head.key, error)
            return None

    async def _caught_up(self, key: SessionKey, head: Head, summary: SessionSummary, seq: int) -> SessionSummary:
        """Return the summary at the head, given the one at entry ``seq``."""
        while seq < head.tail.seq:
            log = await self.read_again(key, head, after=seq, before=head.tail.seq + 1)
            summary = summary.with_records(numbered(log))
            seq += len(log.entries)
        return summary

    async def append(
        self, key: SessionKey, entry: Entry, record: Record, *, known: Head | None, ask: bool = False
    ) -> Placed:
        """Append behind the newest entry, as long as the session is in the generation that the author knows.

        It waits for an exclusive turn to end, up to :data:`RETRY_TIMEOUT`.

        :param record: the one that ``entry`` holds.
        :param known: the head that the author saw; ``None`` if the session was never seen.
        :param ask: find out in any case whether the log still is the one that the author knows.
        :raises LostPastError: it is not, and the record names entries of that log. Nothing was written.
        :raises SessionDeleted: the session was deleted since.
        :raises SessionBusy: the session still belongs to an exclusive turn.
        :raises Unavailable: other writers came first for too long.
        :raises Conflict: the log has a key of the entry already.
        """
        queue = self._queue(key)
        deadline = time.monotonic() + RETRY_TIMEOUT
        while True:
            try:
                async with queue.lock:
                    placed = await self._append_with_retry(key, entry, record, queue.newest(known), known, ask=ask)
                    queue.head = placed.head or queue.head
                    return placed
            except SessionBusy:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(poll_pause())

    async def _append_with_retry(
        self, key: SessionKey, entry: Entry, record: Record, head: Head | None, known: Head | None, *, ask: bool
    ) -> Placed:
        deadline = time.monotonic() + RETRY_TIMEOUT
        attempt = 0
        lost_past = False
        while True:
            if time.monotonic() > deadline:
                raise Unavailable(f"{key}: other writers came first for {RETRY_TIMEOUT:.0f} s")
            _require_same_life(key, head, known)
            # Also ahead of the first try: the head of an append before may be of a log that the author does not know.
            if known and head and await self._has_lost_past(key, head, known, ask=ask or record.refers_back):
                if record.refers_back:
                    raise LostPastError(head)
                logger.warning("%s: the store lost what this process knew of the session", key)
                record = replace(record, base=head.tail.seq)
                entry = replace(entry, payload=record.encode())
                known, lost_past = head, True
            try:
                return Placed(await self.append_at(key, entry, record, head), head, lost_past)
            except Conflict as conflict:
                if conflict.keys:
                    raise
                if conflict.recreated:
                    known = conflict.head
                # An author that saw no session asks as such again: only then does a store tell of an expired life.
                goes_on = head is None or known is not None or _is_same_life(conflict.head, known)
                head = conflict.head if goes_on else None
            await asyncio.sleep(_backoff(attempt))
            attempt += 1

    async def _has_lost_past(self, key: SessionKey, head: Head, known: Head, *, ask: bool) -> bool:
        """Tell whether the log at ``head`` is of the known generation, and lacks the entry that was known.

        :param ask: ask the store if the heads do not tell.
        """
        if not _is_same_life(head, known) or (head.tail.seq > known.tail.seq and not ask):
            return False
        return not await self.continues(key, head, known.tail.seq, known.tail_origin)

    async def continues(self, key: SessionKey, head: Head, seq: int, origin: str) -> bool:
        """Tell whether the log at ``head`` holds the entry of this seq and origin, and so all ahead of it."""
        if head.tail.seq <= seq:
            return (head.tail.seq, head.tail_origin) == (seq, origin)
        return await self.holds(key, seq, origin)

    async def goes_on(self, head: Head | None, end: Head) -> bool:
        """Tell whether the log at ``head`` is the one that ended at ``end``."""
        if head is None or not _is_same_life(head, end):
            return False
        return await self.continues(end.key, head, end.tail.seq, end.tail_origin)

    async def append_owned(self, key: SessionKey, entry: Entry, record: Record, *, own: Head) -> Head | None:
        """Append directly behind an entry whose lease is one's own.

        :returns: see :meth:`append`.
        :raises SessionDeleted: the session was deleted since.
        :raises TurnOvertaken: another turn took it over.
        """
        try:
            return await self.append_at(key, entry, record, own, own=own.tail)
        except Conflict as conflict:
            _require_same_life(key, conflict.head, own)
            raise TurnOvertaken(key) from None

    async def append_claim(self, key: SessionKey, entry: Entry, record: Record, head: Head | None) -> Head | None:
        """Append an entry that takes a lease. If its outcome stays unknown, nobody holds the lease.

        Parameters, result and errors: see :meth:`append_at`.
        """
        try:
            return await self.append_at(key, entry, record, head)
        except Unavailable:
            self.leases.abandon(entry.origin)
            raise

    async def append_at(
        self, key: SessionKey, entry: Entry, record: Record, head: Head | None, *, own: Position | None = None
    ) -> Head | None:
        """Append directly behind a head. Behind a tombstone a new generation begins.

        :param own: the position of an entry whose lease is one's own.
        :returns: see :meth:`append`.
        :raises Conflict: something else stands there.
        :raises SessionBusy: the session belongs to an exclusive turn.
        """
        living = head if head is not None and not head.deleted else None
        summary = await self.summary(key, living) if living else SessionSummary()
        if living and summary.lease is not None and living.tail != own:
            await self._require_expired(key, living, summary.lease)
        at = living.tail if living else Position(head.tail.generation + 1 if head else 0, 0)
        summary = summary.with_record(at.seq + 1, record)
        snapshot = Snapshot(at.seq + 1, entry.origin, summary.encode())
        tail_origin = living.tail_origin if living else None
        appended = await self.provider.append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)
        if appended.replayed:
            return None
        new = head_after(head, key, entry, snapshot)  # its times are by the clock of this process
        if new.tail != appended.position:  # behind sessions of this id that expired without a tombstone
            new = replace(new, tail=appended.position)
        if head:
            self.cache.extend(key, head, new, record, size=len(entry.payload), summary=summary)
        return new

    async def _require_expired(self, key: SessionKey, head: Head, lease: float) -> None:
        """Check that the turn which has a session is dead. The head is read again: an old one shows no heartbeat.

        :raises Conflict: the session belongs to another turn now, or to none.
        :raises SessionBusy: the turn may be alive.
        """
        asked_at = time.monotonic()
        now = await self.head(key)
        if now is None or (now.tail, now.tail_origin) != (head.tail, head.tail_origin):
            raise Conflict(now)
        self.leases.check_expired(now, lease, asked_at=asked_at)

    async def is_busy(self, key: SessionKey) -> bool:
        """Tell whether the session belongs to an exclusive turn that may be alive."""
        asked_at = time.monotonic()
        head = await self.head(key)
        lease = (await self.summary(key, head)).lease if head and not head.deleted else None
        if head is None or lease is None:
            return False
        try:
            self.leases.check_expired(head, lease, asked_at=asked_at)
        except SessionBusy:
            return True
        return False

    async def find(self, key: SessionKey, entry_id: str) -> tuple[Head, int, Entry] | None:
        """Return the head, and seq and entry of an id of the newest generation."""
        log = await self.provider.read(key, last=0, entry_id=entry_id)
        return (log.head, *log.match) if log and log.match else None

    async def read_again(
        self, key: SessionKey, head: Head, *, last: int | None = None, before: int, after: int | None = None
    ) -> Log:
        """Read more of the log that ``head`` belongs to.

        :raises SessionDeleted: it was deleted meanwhile.
        :raises Unavailable: the store lost this log meanwhile, as by the restore of a backup.
        """
        log = await self.provider.read(key, last=last, before=before, after=after)
        if log is None or log.head.deleted or log.head.tail.generation != head.tail.generation:
            raise SessionDeleted(key, traceless=log is None)
        if not await self.continues(key, log.head, head.tail.seq, head.tail_origin):
            _require_same_life(key, await self.head(key), head)  # it may have been deleted since the read
            raise Unavailable(f"{key} was replaced while it was read; try again")
        return log

    async def holds(self, key: SessionKey, seq: int, origin: str) -> bool:
        """Tell whether the entry at ``seq`` has this origin."""
        log = await self.provider.read(key, last=1, before=seq + 1)
        return log is not None and (log.first, [entry.origin for entry in log.entries]) == (seq, [origin])

    def line(self, key: SessionKey) -> WaitingLine:
        """Return the turns of the running event loop that wait for the lease of a session."""
        return self._lines.line(key)

    def _queue(self, key: SessionKey) -> _AppendQueue:
        name = id(asyncio.get_running_loop()), key
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _AppendQueue()
        return queue


class _AppendQueue:
    """The appends of one event loop to one session, one after the other: they need not conflict with each other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.head: Head | None = None

    def newest(self, known: Head | None) -> Head | None:
        """Return the newer one of the head that is known and that of the append before, if both are of one life."""
        if self.head is None or self.head.tail.generation != _generation(known):
            return known
        return known if known and known.tail >= self.head.tail else self.head


def _require_same_life(key: SessionKey, head: Head | None, known: Head | None) -> None:
    """Check that a session still is in the generation that an author knows.

    :raises SessionDeleted: it is not. A session never seen may have come into being since, as generation 0.
    """
    if head is None and known is None:
        return
    if not _is_same_life(head, known):
        raise SessionDeleted(key, traceless=head is None)


def _is_same_life(head: Head | None, known: Head | None) -> bool:
    return head is not None and not head.deleted and head.tail.generation == _generation(known)


def _generation(known: Head | None) -> int:
    """Return the generation that an author writes for. A session never seen begins with generation 0."""
    return known.tail.generation if known else 0


def _backoff(attempt: int) -> float:
    """Return the seconds before the next attempt: none at first, since the tail is known now; then random, up to 4 ms.

    That is about as long as a commit takes: a writer that waits longer is overtaken more often.
    """
    return random.uniform(0, min(0.004, 0.001 * 2**attempt)) if attempt else 0.0
