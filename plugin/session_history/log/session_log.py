"""Snapshot, and append with rebase: what service and turn stand on."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from uuid import uuid4
from weakref import WeakValueDictionary

from session_history.errors import (
    Conflict,
    Corrupt,
    IncompatibleStore,
    SessionBusy,
    SessionDeleted,
    TurnOvertaken,
    Unavailable,
)
from session_history.log.cache import TailCache, numbered
from session_history.log.leases import Leases
from session_history.records.record import Record
from session_history.records.summary import SessionSummary, snapshot
from session_history_hooks import Entry, Head, Log, Position, SessionHistoryProvider, SessionKey, Snapshot

logger: logging.Logger = logging.getLogger("session_history")

RETRY_TIMEOUT = 30.0
"""Seconds for which an append that others keep overtaking, or that waits for its turn, is tried again."""

POLL_INTERVAL = 0.1
"""Seconds between two looks at a session that belongs to another turn."""


class SessionLog:
    """The logs of a provider, as records and turns."""

    def __init__(self, provider: SessionHistoryProvider) -> None:
        self.provider = provider
        self.tails: TailCache = TailCache()
        self.leases: Leases = Leases()
        self.name: str = uuid4().hex  # tells one store's sessions from another's, also in a copy
        self._queues: WeakValueDictionary[tuple[int, SessionKey], _Queue] = WeakValueDictionary()

    async def head(self, key: SessionKey) -> Head | None:
        log = await self.provider.read(key, last=0)
        return log.head if log else None

    async def summary(self, key: SessionKey, head: Head) -> SessionSummary:
        """The summary at the head: the snapshot if it covers the tail, else current_snapshot anew from the log."""
        if head.snapshot and (
            head.current_snapshot or await self.holds(key, head.snapshot.seq, head.snapshot.entry_id)
        ):
            try:
                summary = SessionSummary.decode(head.snapshot.summary, key)
            except (Corrupt, IncompatibleStore) as error:
                logger.warning("%s: its summary is current_snapshot anew: %r", key, error)
            else:
                return await self._fold(key, head, summary, head.snapshot.seq)
        return await self._fold(key, head, SessionSummary(), 0)

    async def listed(self, head: Head) -> SessionSummary:
        """What a listing shows of a session; of one that can not be read, that it is there."""
        try:
            return await self.summary(head.key, head)
        except SessionDeleted:
            return SessionSummary()
        except (Corrupt, IncompatibleStore) as error:
            logger.error("%s is listed without title and metadata: %r", head.key, error)
            return SessionSummary()

    async def _fold(self, key: SessionKey, head: Head, summary: SessionSummary, seq: int) -> SessionSummary:
        """Snapshot what lies behind ``seq`` into a summary."""
        while seq < head.tail.seq:
            log = await self.read_again(key, head, after=seq, before=head.tail.seq + 1)
            summary = snapshot(summary, numbered(log))
            seq += len(log.entries)
        return summary

    async def append(self, key: SessionKey, record: Record, *, known: Head | None, entry_id: str) -> Head | None:
        """Append behind whatever stands there, as long as the session is the one that was known.

        It waits for a while, if the session belongs to an exclusive turn.

        :param known: the head that the author saw; ``None`` if the session was never seen.
        :returns: where the log stands now, as far as this process knows; ``None`` if it holds an entry of this id.
        :raises SessionDeleted: it was deleted since.
        :raises SessionBusy: it still belongs to that turn.
        :raises Unavailable: others kept coming first.
        """
        entry = Entry(entry_id, record.encode())
        queue = self._queue(key)
        deadline = time.monotonic() + RETRY_TIMEOUT
        while True:
            try:
                async with queue.turnstile:
                    moved = await self._rebased(key, entry, record, queue.newest(known), known)
                    queue.head = moved or queue.head
                    return moved
            except SessionBusy:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_INTERVAL)

    async def _rebased(
        self, key: SessionKey, entry: Entry, record: Record, head: Head | None, known: Head | None
    ) -> Head | None:
        deadline = time.monotonic() + RETRY_TIMEOUT
        attempt = 0
        while True:
            if time.monotonic() > deadline:
                raise Unavailable(f"{key}: other writers came first for {RETRY_TIMEOUT:.0f} s")
            _insist_alive(key, head, known)
            try:
                return await self.append_at(key, entry, record, head)
            except Conflict as conflict:
                if conflict.recreated:
                    known = conflict.head
                # Who saw no session may belong to another life, too, which a store tells of nobody but them.
                asked = head is None or known is not None or _is_of(conflict.head, known)
                head = conflict.head if asked else None
            await asyncio.sleep(_pause(attempt))
            attempt += 1

    async def append_next(self, key: SessionKey, record: Record, *, mine: Head, entry_id: str) -> Head | None:
        """Append directly behind an entry that makes the session one's own.

        :returns: see :meth:`append`.
        :raises SessionDeleted: the session was deleted since.
        :raises TurnOvertaken: another turn took it over.
        """
        try:
            return await self.append_at(key, Entry(entry_id, record.encode()), record, mine, mine=mine.tail)
        except Conflict as conflict:
            _insist_alive(key, conflict.head, mine)
            raise TurnOvertaken(key) from None

    async def append_at(
        self, key: SessionKey, entry: Entry, record: Record, head: Head | None, *, mine: Position | None = None
    ) -> Head | None:
        """Append directly behind a head; behind a tombstone a new generation begins.

        :param mine: where the entry stands that makes the session one's own.
        :returns: see :meth:`append`.
        :raises Conflict: something else stands there.
        :raises SessionBusy: the session belongs to another turn.
        """
        alive = head is not None and not head.deleted
        summary = await self.summary(key, head) if head and alive else SessionSummary()
        if head and summary.lease is not None and head.tail != mine:
            await self._insist_free(key, head, summary.lease)
        at = head.tail if head and alive else Position(head.tail.generation + 1 if head else 0, 0)
        cover = Snapshot(at.seq + 1, entry.id, summary.with_record(at.seq + 1, record).encode())
        appended = await self.provider.append(key, entry, at=at, snapshot=cover)
        if appended.replayed:
            return None
        moved = _moved(key, head, appended.position, cover)
        if head:
            self.tails.extend(key, head, record, len(entry.payload), moved)
        return moved

    async def _insist_free(self, key: SessionKey, head: Head, term: float) -> None:
        """See that the turn that has a session is dead. Its head is read anew: an old one shows no sign of life.

        :raises Conflict: the session is another one's, or nobody's, by now.
        :raises SessionBusy: it may be alive.
        """
        now = await self.head(key)
        if now is None or now.tail != head.tail:
            raise Conflict(now)
        self.leases.check(now, term)

    async def find(self, key: SessionKey, entry_id: str) -> tuple[Head, int, Record] | None:
        """The head, and seq and record of an entry of the newest generation."""
        log = await self.provider.read(key, last=0, entry_id=entry_id)
        if log is None or log.match is None:
            return None
        seq, entry = log.match
        return log.head, seq, Record.decode(entry.payload, key, seq)

    async def read_again(
        self, key: SessionKey, head: Head, *, last: int | None = None, before: int, after: int | None = None
    ) -> Log:
        """More of the log that ``head`` belongs to."""
        log = await self.provider.read(key, last=last, before=before, after=after)
        if log is None or log.head.deleted or log.head.tail.generation != head.tail.generation:
            raise SessionDeleted(key, traceless=log is None)
        return log

    async def holds(self, key: SessionKey, seq: int, entry_id: str) -> bool:
        """Whether this entry stands there."""
        log = await self.provider.read(key, last=1, before=seq + 1)
        return log is not None and (log.first, [entry.id for entry in log.entries]) == (seq, [entry_id])

    def _queue(self, key: SessionKey) -> _Queue:
        name = id(asyncio.get_running_loop()), key
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue()
        return queue


class _Queue:
    """The tasks of one event loop that append to one session: they do not overtake each other for nothing."""

    def __init__(self) -> None:
        self.turnstile = asyncio.Lock()
        self.head: Head | None = None

    def newest(self, known: Head | None) -> Head | None:
        """What was known, or what a task before this one left behind in the same life, if that is newer."""
        if self.head is None or self.head.tail.generation != _generation(known):
            return known
        return known if known and known.tail >= self.head.tail else self.head


def _insist_alive(key: SessionKey, head: Head | None, known: Head | None) -> None:
    """A session never seen may have come into being since, as generation 0; nothing else may have changed."""
    if head is None and known is None:
        return
    if not _is_of(head, known):
        raise SessionDeleted(key, traceless=head is None)


def _is_of(head: Head | None, known: Head | None) -> bool:
    """Whether the life that an author writes for goes on."""
    return head is not None and not head.deleted and head.tail.generation == _generation(known)


def _generation(known: Head | None) -> int:
    """The life that an author writes for: a session never seen begins as generation 0."""
    return known.tail.generation if known else 0


def _moved(key: SessionKey, head: Head | None, tail: Position, cover: Snapshot) -> Head:
    """The head after an append, its activity by the clock of this process."""
    active_us = max(time.time_ns() // 1000, head.active_us + 1 if head else 0)
    heartbeat, rewrites = (head.heartbeat, head.rewrites) if head and not head.deleted else (0, 0)
    return Head(
        key,
        tail,
        cover.entry_id,
        deleted=False,
        heartbeat=heartbeat,
        rewrites=rewrites,
        active_us=active_us,
        snapshot=cover,
    )


def _pause(attempt: int) -> float:
    """Seconds before the next try: none at first, since it now knows the tail; then random, up to 4 ms.

    That is about as long as a commit takes: who waits longer is overtaken more often.
    """
    return random.uniform(0, min(0.004, 0.001 * 2**attempt)) if attempt else 0.0
