"""Stretches of logs, decoded, and the newest of them kept: a turn reads and decodes only what is new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from session_history.records.record import Author, Record
from session_history.view import assembly as view
from session_history_hooks import Head, Log, SessionKey

ROOM = 32 * 2**20
"""Bytes of payload that are kept in all, some 30,000 turns of 1 KB. Decoded, they take a few times as much."""

SHARE = ROOM // 4
"""The most of it that one session gets."""

_OVERHEAD = 1024

Numbered = tuple[int, Record]
"""The seq of an entry, and its record."""


@dataclass(frozen=True, slots=True)
class EntryRange:
    """Neighbouring entries of a log. They may not be changed, nor be handed to anybody who might.

    :ivar head: the head that they were read with.
    :ivar entries: ascending and gapless.
    :ivar size: bytes of their payloads.
    """

    head: Head
    entries: list[Numbered]
    size: int
    _turns: list[view.TurnView] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, log: Log) -> EntryRange:
        """:raises Corrupt: an entry is no record. And see :meth:`session_history.records.record.Record.decode`."""
        return cls(log.head, numbered(log), sum(len(entry.payload) for entry in log.entries))

    @property
    def weight(self) -> int:
        """About the bytes it takes a process to know it: also one of few entries has a head, and that a summary."""
        return self.size + (len(self.head.snapshot.summary) if self.head.snapshot else 0) + _OVERHEAD

    @property
    def first(self) -> int:
        return self.entries[0][0] if self.entries else self.head.tail.seq + 1

    @property
    def last(self) -> int:
        """Seq of its newest entry, or of the one ahead of it."""
        return self.first + len(self.entries) - 1

    @property
    def begins_the_log(self) -> bool:
        return not self.entries or self.first == 1

    def reaches(self, count: int | None) -> bool:
        """Whether it holds so many entries, or ``None`` = all, or all there are."""
        return self.first == 1 or (count is not None and len(self.entries) >= count)

    @property
    def turns(self) -> list[view.TurnView]:
        """The turns that are seen here. Put together once."""
        if not self._turns:
            self._turns[:] = view.turns(self.entries)  # at once: another thread may do the same
        return self._turns

    def cut(self, count: int | None) -> EntryRange:
        """Its newest entries, if they are to be put together for so many, and there are many more."""
        length = len(self.entries)
        if count is None or self._turns or length <= 4 * count:
            return self
        return EntryRange(self.head, self.entries[-2 * count :], self.size * 2 * count // length)

    def preceded_by(self, page: Log) -> EntryRange:
        before = EntryRange.of(page)
        return EntryRange(self.head, before.entries + self.entries, before.size + self.size)

    def continued_by(self, page: Log) -> EntryRange:
        """A stretch that ends in the midst of a log, and the page behind it."""
        behind = EntryRange.of(page)
        return EntryRange(self.head, self.entries + behind.entries, self.size + behind.size)

    @property
    def end(self) -> tuple[int, str]:
        """Seq and id of the newest entry of the log, when it was read."""
        return self.head.tail.seq, self.head.tail_id

    def stands_at(self, head: Head) -> bool:
        """Whether a log whose head this is ends here, and nothing in it was rewritten."""
        mine = self.head
        return (mine.tail, mine.tail_id, mine.rewrites) == (head.tail, head.tail_id, head.rewrites)

    def followed_by(self, log: Log) -> EntryRange | None:
        """A tail and all that came since; ``None`` if the log is not what it was, or more came than was read.

        If something came, the caller still has to see that the entry before it is the one that was known.
        """
        old, new = self.head, log.head
        if not log.entries:
            return EntryRange(new, self.entries, self.size, self._turns) if self.stands_at(new) else None
        if (new.tail.generation, new.rewrites) != (old.tail.generation, old.rewrites):
            return None
        if log.first != old.tail.seq + 1 or log.first + len(log.entries) - 1 != new.tail.seq:
            return None
        since = EntryRange.of(log)
        return EntryRange(new, self.entries + since.entries, self.size + since.size)


class TailCache:
    """Stretches that reach to the tails of the sessions that were used last. Several threads may share them."""

    def __init__(self) -> None:
        self._tails: OrderedDict[SessionKey, EntryRange] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: SessionKey) -> EntryRange | None:
        with self._lock:
            if key in self._tails:
                self._tails.move_to_end(key)
            return self._tails.get(key)

    def keep(self, key: SessionKey, tail: EntryRange) -> None:
        """Keep a tail in place of the one that was there, and let go of the oldest that there is no room for."""
        with self._lock:
            self._drop(key)
            if tail.entries and tail.weight <= SHARE:
                self._tails[key] = tail
                self._size += tail.weight
            while self._size > ROOM:
                self._drop(next(iter(self._tails)))

    def extend(self, key: SessionKey, old: Head, record: Record, size: int, head: Head) -> None:
        """A record was appended behind ``old``, and the log now stands at ``head``."""
        tail = self.get(key)
        if tail is not None and tail.stands_at(old):
            entry = head.tail.seq, record
            turns = view.turns([entry], tail._turns) if tail._turns and record.by is Author.TURN else []
            self.keep(key, EntryRange(head, [*tail.entries, entry], tail.size + size, turns))

    def drop(self, key: SessionKey) -> None:
        with self._lock:
            self._drop(key)

    def drop_user(self, user_id: str) -> None:
        with self._lock:
            for key in [key for key in self._tails if key.user_id == user_id]:
                self._drop(key)

    def _drop(self, key: SessionKey) -> None:
        tail = self._tails.pop(key, None)
        self._size -= tail.weight if tail else 0


def numbered(log: Log) -> list[Numbered]:
    """The records of a log's entries."""
    records = Record.decode_all([entry.payload for entry in log.entries], log.head.key, log.first)
    return list(enumerate(records, start=log.first))
