"""The newest entries of the sessions that were used last, decoded. A turn reads and decodes only what is new."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from operator import itemgetter

from session_history.records.record import Author, Record
from session_history.records.summary import SessionSummary, UnseenRun
from session_history.view.assembly import TurnView, assemble
from session_history_hooks import Head, Log, SessionKey

CAPACITY = 32 * 2**20
"""Bytes of payload that a cache holds, some 30,000 turns of 1 KB. Decoded, they take a few times as much memory."""

SESSION_CAPACITY = CAPACITY // 4
"""The most bytes of one session."""

_OVERHEAD = 1024

NumberedRecord = tuple[int, Record]
"""The seq of an entry, and its record."""


@dataclass(slots=True)
class EntryRange:
    """Neighbouring entries of a log. Threads share a range, so it is never changed, nor handed to users.

    :ivar head: the head that they were read with.
    :ivar entries: ascending and gapless.
    :ivar size: bytes of their payloads.
    :ivar summary: that of the head, if it is known.
    :ivar unseen: runs of the log of which no entry is at hand, ascending. A cache keeps no range with any.
    """

    head: Head
    entries: list[NumberedRecord]
    size: int
    summary: SessionSummary | None = None
    unseen: tuple[UnseenRun, ...] = ()
    _assembled: tuple[list[TurnView], int] = field(default=([], 0), repr=False)  # turns, and of how many entries

    @classmethod
    def of(cls, log: Log) -> EntryRange:
        """Decode the entries of a log. :raises Corrupt: see :meth:`session_history.records.record.Record.decode`."""
        return cls(log.head, numbered(log), sum(len(entry.payload) for entry in log.entries))

    @property
    def weight(self) -> int:
        """Return about how many bytes a cache spends on it. Its head, with a summary, counts also without entries."""
        return self.size + (len(self.head.snapshot.summary) if self.head.snapshot else 0) + _OVERHEAD

    @property
    def skipped(self) -> tuple[UnseenRun, ...]:
        """Return the runs that are left out of the entries."""
        first = self.entries[0][0] if self.entries else self.head.tail.seq + 1
        return tuple(run for run in self.unseen if run.last >= first - 1)

    @property
    def first(self) -> int:
        """Return the seq of the first entry, which may be left out."""
        first = self.entries[0][0] if self.entries else self.head.tail.seq + 1
        skipped = self.skipped if self.unseen else ()
        return min(first, skipped[0].first) if skipped else first

    @property
    def last(self) -> int:
        """Return the seq of the newest entry; without entries that of the entry ahead."""
        return self.head.tail.seq if self.unseen and self.skipped else self.first + len(self.entries) - 1

    @property
    def begins_log(self) -> bool:
        return self.first == 1 or not (self.entries or (self.unseen and self.skipped))

    def has(self, count: int | None) -> bool:
        """Tell whether it holds at least ``count`` entries, or all that the log has. ``None``: all."""
        return self.first == 1 or (count is not None and len(self.entries) >= count)

    @property
    def turns(self) -> list[TurnView]:
        """Return the turns that the entries show. They are put together once."""
        turns, count = self._assembled
        if not self.entries and self.unseen:
            return assemble((), skipped=self.skipped)
        if count < len(self.entries):
            new = self.entries[count:] if count else self.entries
            # Plain appends may continue the turn ahead in place, which other ranges share.
            if self.unseen:
                turns = assemble(self.entries, skipped=self.skipped)
            elif turns and all(record.by is Author.TURN for _, record in new):
                turns = assemble(new, turns)
            else:
                turns = assemble(self.entries)
            self._assembled = turns, len(self.entries)
        return turns

    def trimmed(self, count: int | None) -> EntryRange:
        """Return about the newest ``count`` entries, if there are many more and turns are not put together yet."""
        length = len(self.entries)
        if count is None or self._assembled[1] or length <= 4 * count:
            return self
        return replace(self, entries=self.entries[-2 * count :], size=self.size * 2 * count // length)

    def without(self, runs: tuple[UnseenRun, ...]) -> EntryRange:
        """Return the range to the tail without the entries of runs, of which it leaves out all that it reaches."""
        entries = self.entries
        for run in runs:
            begin, end = (bisect_left(entries, seq, key=itemgetter(0)) for seq in (run.first, run.last + 1))
            entries = entries[:begin] + entries[end:] if begin < end else entries
        assembled = self._assembled if entries is self.entries else ([], 0)
        return EntryRange(self.head, entries, self.size, self.summary, runs, assembled)

    def preceded_by(self, page: Log) -> EntryRange:
        before = EntryRange.of(page)
        entries = before.entries + self.entries
        range_ = EntryRange(self.head, entries, before.size + self.size, self.summary)
        return range_.without(self.unseen) if self.unseen else range_

    def continued_by(self, page: Log) -> EntryRange:
        behind = EntryRange.of(page)
        return EntryRange(self.head, self.entries + behind.entries, self.size + behind.size, self.summary)

    def extended(self, head: Head, record: Record, size: int, summary: SessionSummary) -> EntryRange:
        """Return the range after an append. :param size: bytes of the record's payload."""
        entries = [*self.entries, (head.tail.seq, record)]
        return EntryRange(head, entries, self.size + size, summary, _assembled=self._assembled)

    @property
    def end(self) -> tuple[int, str]:
        """Return seq and origin of the newest entry that the log had when it was read."""
        return self.head.tail.seq, self.head.tail_origin

    def stands_at(self, head: Head) -> bool:
        """Tell whether the log of ``head`` ends here, and no entry was rewritten since."""
        mine = self.head
        return (mine.tail_origin, mine.rewrite_id, mine.tail) == (head.tail_origin, head.rewrite_id, head.tail)

    def followed_by(self, log: Log) -> EntryRange | None:
        """Return the range with all that came since.

        The caller still has to check that the entry ahead of the new ones is the one that the range ends with.

        :returns: ``None`` if the log is not the same any more, or has more new entries than were read.
        """
        old, new = self.head, log.head
        if not log.entries:
            return replace(self, head=new) if self.stands_at(new) else None
        if (new.tail.generation, new.rewrite_id) != (old.tail.generation, old.rewrite_id):
            return None
        if log.first != old.tail.seq + 1 or log.first + len(log.entries) - 1 != new.tail.seq:
            return None
        since = EntryRange.of(log)
        return EntryRange(new, self.entries + since.entries, self.size + since.size)


class TailCache:
    """Ranges that reach to the tails of the sessions that were used last. Threads may share it.

    :ivar size: about the bytes that it holds.
    """

    def __init__(self) -> None:
        self._tails: OrderedDict[SessionKey, EntryRange] = OrderedDict()
        self.size: int = 0
        self._lock = threading.Lock()

    def get(self, key: SessionKey) -> EntryRange | None:
        with self._lock:
            if key in self._tails:
                self._tails.move_to_end(key)
            return self._tails.get(key)

    def keep(self, key: SessionKey, tail: EntryRange) -> None:
        """Keep a tail in place of the old one. Tails that were not used for the longest time make room for it."""
        weight = tail.weight
        with self._lock:
            self._drop(key)
            if tail.entries and weight <= SESSION_CAPACITY:
                self._tails[key] = tail
                self.size += weight
            while self.size > CAPACITY:
                self._drop(next(iter(self._tails)))

    def extend(
        self, key: SessionKey, old: Head, head: Head, record: Record, *, size: int, summary: SessionSummary
    ) -> None:
        """Follow an append behind ``old``, after which the log stands at ``head``.

        :param size: bytes of the record's payload.
        """
        tail = self.get(key)
        if tail is not None and tail.stands_at(old):
            self.keep(key, tail.extended(head, record, size, summary))

    def drop(self, key: SessionKey) -> None:
        with self._lock:
            self._drop(key)

    def drop_user(self, user_id: str) -> None:
        with self._lock:
            for key in [key for key in self._tails if key.user_id == user_id]:
                self._drop(key)

    def _drop(self, key: SessionKey) -> None:
        tail = self._tails.pop(key, None)
        if tail is not None:
            self.size -= tail.weight


def numbered(log: Log) -> list[NumberedRecord]:
    """Decode the entries of a log."""
    records = Record.decode_all([entry.payload for entry in log.entries], log.head.key, log.first)
    return list(enumerate(records, start=log.first))
