"""The writer of a turn: how its draft becomes entries of the log, with or without a lease."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import NamedTuple

from session_history.errors import Conflict, SessionDeleted, SessionHistoryError, TurnIdReused, TurnOvertaken
from session_history.log import leases
from session_history.log.reader import Reader
from session_history.log.recorded import RecordedTurn
from session_history.log.session_log import LostPastError, SessionLog
from session_history.records.markers import log_markers
from session_history.records.record import Author, Record, Status, new_id
from session_history.turns.draft import Draft, StoredPart
from session_history.turns.repeat import has_same_messages, has_same_words
from session_history.view.effects import is_harmless
from session_history_hooks import Entry, Head, SessionKey

logger: logging.Logger = logging.getLogger("session_history")


class _Pending(NamedTuple):
    """A record on its way to the log. After an unknown outcome the same entry is tried again."""

    record: Record
    entry: Entry

    @classmethod
    def of(cls, record: Record, entry_id: str) -> _Pending:
        return cls(record, record.entry(entry_id))


class Writer:
    """Stores the draft of one turn.

    :param answer_id: the id of the entry that answers the turn: the turn's own, or another one if it runs again.
    :param is_named: the caller gave the turn its id, so that it can be repeated.
    :param slot: the name of the agent whose state the draft may hold.
    :ivar is_named: the caller gave the turn its id.
    :ivar head: the newest head that the turn knows; ``None`` if the session was never seen.
    :ivar recorded: the turn that was answered under this id before, or by another run that was stored first.
    :ivar is_contiguous: nobody else appended since the session was read.
    :ivar lost_past: the store lost what the turn knew of the session.
    :ivar state_kept: whether the log took the turn's state; ``None`` before that is known.
    """

    def __init__(
        self,
        log: SessionLog,
        reader: Reader,
        key: SessionKey,
        draft: Draft,
        *,
        head: Head | None,
        recorded: RecordedTurn | None,
        answer_id: str,
        is_named: bool,
        slot: str | None,
    ) -> None:
        self.is_named = is_named
        self.head = head
        self.recorded = recorded
        self.is_contiguous: bool = True
        self.lost_past: bool = False
        self.state_kept: bool | None = None
        self._log = log
        self._reader = reader
        self._key = key
        self._draft = draft
        self._answer_id = answer_id
        self._slot = slot
        self._base = head.tail.seq if head else 0
        self._claim: _Pending | None = None
        self._lease: leases.Lease | None = None
        self._pending: _Pending | None = None
        self._is_answered = False  # an entry with the id of the answer stands in the log
        self._is_overtaken = False
        self._has_yielded = False  # another run of the turn was stored first
        self._had_effect = False  # a tool may have run here, and another run of the turn was stored first
        self._told = 0  # how many markers were logged
        self._steps: list[tuple[Head | None, StoredPart]] = []  # heads that the turn knew, and what of it stood there
        self._owned = asyncio.Lock()  # appends behind an entry of one's own

    @property
    def is_exclusive(self) -> bool:
        return self._lease is not None

    @property
    def is_idle(self) -> bool:
        """Tell whether no record is on its way to the log."""
        return self._pending is None

    @property
    def entry_bytes(self) -> int:
        """The largest entry of the store."""
        return self._log.provider.limits.entry_bytes

    def warn_of_transcript(self) -> None:
        """Tell, once for all turns of the service, that a client sends messages again which the session has."""
        self._log.warn_once(f"{self._key}: the input repeats messages of the session; only the new ones are stored")

    async def claim(self) -> None:
        """Claim the session's lease for this turn. Doing it again changes nothing.

        :raises SessionBusy: it belongs to another turn.
        :raises Conflict: the session changed since it was read.
        """
        if self._claim is None:
            claim = Record(by=Author.TURN, base=self._base, status=Status.OPEN, lease=leases.LEASE_SECONDS)
            self._claim = _Pending.of(claim, new_id())
        head = await self._log.append_claim(self._key, self._claim.entry, self._claim.record, self.head)
        if head is None:
            head, seq, _ = await self._find(self._claim.entry.id)
            if head.tail.seq != seq:  # another turn has taken this one for dead meanwhile
                raise Conflict(head)
        self.head = head
        self._lease = self._lease or leases.Lease(self._log.provider, self._claimed_head, self._log.line(self._key))
        if self._draft.status is not None:  # the service was stopped meanwhile
            try:
                await self.store(self._draft.status)
            finally:
                self.end_lease()

    def _claimed_head(self) -> Head:
        assert self.head is not None
        return self.head

    def end_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()

    def require_same_input(self, *, is_whole: bool = True) -> None:
        """Check that a repeat brings the input that was recorded.

        :param is_whole: the repeat has added all of its input.
        :raises TurnIdReused: it is another input.
        """
        given, recorded = self._draft.inputs(), self.recorded.inputs if self.recorded else ()
        if not has_same_messages(given, recorded, is_whole=is_whole):
            raise TurnIdReused(self._key)

    def require_same_words(self) -> None:
        """Check what a turn without a declared input added, if it was recorded before: its first words are its input.

        :raises TurnIdReused: it is another input.
        """
        if self.recorded is None or self._draft.inputs() or self.recorded.inputs:
            return
        if not has_same_words(self._draft.messages, self.recorded.messages):
            raise TurnIdReused(self._key)

    async def store(self, status: Status) -> None:
        """Store what is not stored yet. Doing it again changes nothing.

        :param status: how the turn stands.
        :raises TurnOvertaken: another turn took the lease. If a tool may have run here, what was said is stored as an
            interrupted attempt.
        """
        if not self._is_overtaken:
            try:
                await self._store(status)
            except TurnOvertaken:
                self._is_overtaken = True
        if self._is_overtaken:
            await self._store_effects()
            raise TurnOvertaken(self._key)

    async def _store_effects(self) -> None:
        """Store an overtaken turn in which a tool may have run: the next model call must know of it."""
        self.end_lease()
        self._pending = None
        self._draft.withdraw_answer()
        if not all(map(is_harmless, self._draft.messages)):
            try:
                await self._store(Status.INTERRUPTED)
            except SessionHistoryError as lost:
                logger.error("%s: the calls of an overtaken turn could not be stored: %r", self._key, lost)

    async def _store(self, status: Status) -> None:
        while pending := self._pending or self._next(status):
            self._pending = pending
            record, entry = pending
            try:
                head, seq, found = await self._append(pending)
            except LostPastError as lost:
                part = await self._left_part(lost.head)
                if self._pending is pending:  # else another task that stores this turn has begun again
                    self._begin_anew(lost.head, part)
                continue
            if self._pending is not pending:
                continue  # another task that stores this turn saw the outcome first
            self._pending = None
            if found.origin == entry.origin:  # also if it was there already, since an acknowledgement was lost
                self._is_answered = self._is_answered or entry.id == self._answer_id
                await self._mark_stored(head, seq, record)
            else:
                await self._yield_to_first(head, seq, Record.decode(found.payload, self._key, seq))
        self._log_markers()
        if self._has_yielded:
            if self._draft.inputs():
                self.require_same_input()
            self.require_same_words()
        if self.recorded is not None and self._draft.status is not None and not self._had_effect:
            added = self._draft.messages
            if added and not has_same_messages(added, self.recorded.messages, is_whole=False):
                logger.warning("%s: the turn was recorded before; what was added to it now is not stored", self._key)

    async def _left_part(self, head: Head) -> StoredPart:
        """Return what the log at ``head`` still has of this turn."""
        for known, part in reversed(self._steps):
            if known and await self._log.continues(self._key, head, known.tail.seq, known.tail_origin):
                return part
        return StoredPart()

    def _begin_anew(self, head: Head, part: StoredPart) -> None:
        """Have the rest of the turn stored behind ``head``: the log that it was opened in is lost, perhaps with parts.

        :param part: what is left of the turn.
        """
        logger.warning("%s: the store lost what this turn knew of the session; its state is not stored", self._key)
        self._draft.begin_anew(head.tail.seq, part)
        self._pending, self.head = None, head
        self._is_answered = self.is_contiguous = False
        self.lost_past = True
        self.state_kept = None if self._slot is None else False

    def _log_markers(self) -> None:
        """Tell what is not stored as it was produced, without its content."""
        new = list(self._draft.markers)[self._told :]
        self._told += len(new)
        if new:
            log_markers(self._key, new)

    def _next(self, status: Status) -> _Pending | None:
        draft = self._draft
        if self.recorded is not None:
            if draft.stored_status is not Status.OPEN and not self._had_effect:
                return None
            status = Status.INTERRUPTED  # another run had the answer first, but of this one some is to be known
        is_open = status is Status.OPEN and draft.status is None
        record = draft.record(
            status,
            lease=self._lease_seconds() if is_open else None,
            required=self.is_exclusive and draft.status is not None,
        )
        return self._fitted(record, status) if record else None

    def _fitted(self, record: Record, status: Status) -> _Pending | None:
        """Return a record as an entry; of one that is too large for an entry its first part, or less of it."""
        pending = _Pending.of(record, self._entry_id(record))
        limit = self.entry_bytes
        if len(pending.entry.payload) <= limit:
            return pending
        if (part := self._draft.part(record, limit, self._lease_seconds())) is not None:
            return _Pending.of(part, self._entry_id(part))
        if not self._draft.fit(limit):
            return pending  # the store says what is too large
        if record.slots and not self._draft.has_state:
            self.state_kept = False
        return self._next(status)

    def _lease_seconds(self) -> float | None:
        return leases.LEASE_SECONDS if self.is_exclusive else None

    def _entry_id(self, record: Record) -> str:
        """Return the id of the turn for the entry that answers it, so that a repeat finds it; else a new id."""
        may_be_asked_for = record.continues is None or self.is_named
        if record.is_answered and may_be_asked_for and not self._is_answered:
            return self._answer_id
        return new_id()

    async def _append(self, pending: _Pending) -> tuple[Head, int, Entry]:
        """Append an entry; return the head, and seq and entry that the log has under its id."""
        record, entry = pending
        self._steps.append((self.head, self._draft.stored))
        if self._lease is not None:
            return await self._append_owned(pending)
        placed = await self._log.append(self._key, entry, record, known=self.head)
        self.is_contiguous = self.is_contiguous and placed.is_behind(self.head)
        return (placed.head, placed.head.tail.seq, entry) if placed.head else await self._find(entry.id)

    async def _append_owned(self, pending: _Pending) -> tuple[Head, int, Entry]:
        record, entry = pending
        async with self._owned:
            assert self.head is not None
            head = await self._log.append_owned(self._key, entry, record, own=self.head)
            stored = (head, head.tail.seq, entry) if head else await self._find(entry.id)
            self.head = stored[0]
            return stored

    async def append_within(self, record: Record, entry_id: str) -> Head:
        """Append what is no part of the turn behind its newest entry, and keep the session's lease.

        :raises SessionDeleted: the session was deleted since.
        :raises TurnOvertaken: another turn took it over.
        """
        leased = replace(record, lease=leases.LEASE_SECONDS)
        head, _, _ = await self._append_owned(_Pending.of(leased, entry_id))
        self.is_contiguous = False
        return head

    def holds(self, log: SessionLog, key: SessionKey) -> bool:
        """Tell whether the turn holds the lease of a session."""
        return self.is_exclusive and self._log is log and self._key == key

    async def _find(self, entry_id: str) -> tuple[Head, int, Entry]:
        """Return what an earlier attempt stored whose outcome was not known."""
        found = await self._log.find(self._key, entry_id)
        if found is None:
            raise SessionDeleted(self._key)
        return found

    async def _mark_stored(self, head: Head, seq: int, record: Record) -> None:
        self._draft.mark_stored(seq, record)
        if not self.is_exclusive and seq != (self.head.tail.seq if self.head else 0) + 1:
            self.is_contiguous = False  # an append of this turn whose outcome was not known, behind one of others
        self.head = head
        if record.lease is None:
            self.end_lease()
        if record.slots:
            await self._check_state(head, seq)

    async def _check_state(self, head: Head, seq: int) -> None:
        """Find out whether the state of the entry at ``seq`` took its slot."""
        summary = await self._log.summary(self._key, head)
        assert self._slot is not None
        self.state_kept = summary.slots.get(self._slot) == seq
        if self.state_kept:
            self._draft.state_seq = seq
        else:
            logger.warning(
                "%s: the state of %r is not stored: another turn stored one meanwhile", self._key, self._slot
            )

    async def _yield_to_first(self, head: Head, seq: int, record: Record) -> None:
        """Take the answer of another run of this turn, which was stored first."""
        self.recorded = await self._reader.recorded_turn(self._key, head, seq, record)
        self._has_yielded = True
        self._draft.withdraw_answer()
        self._had_effect = not all(map(is_harmless, self._draft.messages))
