"""The summary of a session: what a listing shows, made from the session's log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from session_history.errors import Corrupt, IncompatibleStore
from session_history.records.record import Author, Record, checked_lease
from session_history.records.values import decode, encode_checked
from session_history_hooks import SessionKey
from session_history_hooks.stored import LAST_US

VERSION = 1

_TYPES = {
    "title": (str, type(None)),
    "metadata": (dict,),
    "turns": (int,),
    "messages": (int,),
    "created_us": (int, type(None)),
    "plain": (bool,),
    "slots": (dict,),
    "unseen": (list,),
    "late": (list,),
    "lease": (float, int, type(None)),
}

_ALWAYS = ("title", "metadata", "turns", "messages", "created_us", "plain")


LONG_RUN = 64
"""Entries of a run of which a summary keeps a note when it has ended."""

NEAR = 16
"""Entries behind an entry of a turn among which a reader looks for the turn's next one."""

_MOST_RUNS = 8
_MOST_LATE = 32


class UnseenRun(NamedTuple):
    """Neighbouring entries of which no model sees anything: failed turns, claims and bookkeeping.

    :ivar first: seq of the first of them.
    :ivar last: seq of the last of them.
    :ivar turns: how many turns began in them.
    :ivar messages: how many messages they hold.
    """

    first: int
    last: int
    turns: int
    messages: int


class LatePart(NamedTuple):
    """An entry that continues a turn, more than :data:`NEAR` entries behind the part that its author knew.

    :ivar first: seq of the turn's first entry.
    :ivar seq: that of the entry.
    """

    first: int
    seq: int


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A small digest of the log up to some entry.

    :ivar turns: how many turns ever began.
    :ivar messages: how many messages were ever recorded.
    :ivar created_us: when the first entry was written, in microseconds by its author's clock.
    :ivar plain: a turn of plain appends is open: the next append may belong to it.
    :ivar slots: seq of the entry that holds the newest state, by the name of the agent.
    :ivar unseen: the newest long runs, and the one that the log ends with.
    :ivar late: the newest late parts.
    :ivar lease: that of the newest entry, see :class:`~session_history.records.record.Record`.
    """

    title: str | None = field(default=None, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    turns: int = 0
    messages: int = 0
    created_us: int | None = None
    plain: bool = False
    slots: dict[str, int] = field(default_factory=dict)
    unseen: tuple[UnseenRun, ...] = ()
    late: tuple[LatePart, ...] = ()
    lease: float | None = None

    def with_record(self, seq: int, record: Record) -> SessionSummary:
        """Return the summary after one more entry."""
        return SessionSummary(
            title=record.changes.get("title", self.title),
            metadata=record.changes.get("metadata", self.metadata),
            turns=self.turns + len(turn_starts(record, plain=self.plain)),
            messages=self.messages + len(record.messages),
            created_us=record.at_us if self.created_us is None else self.created_us,
            plain=record.by is Author.APPEND if record.messages else self.plain,
            slots=self._moved_slots(seq, record) if record.slots else self.slots,
            unseen=self._unseen_with(seq, record) if self.unseen or not record.messages or record.unseen else (),
            late=self._late_with(seq, record) if record.continues else self.late,
            lease=record.lease,
        )

    @property
    def long_runs(self) -> tuple[UnseenRun, ...]:
        return tuple([run for run in self.unseen if run.last - run.first + 1 >= LONG_RUN])  # a list is faster

    def knows_parts_since(self, seq: int) -> bool:
        """Tell whether :attr:`late` has all late parts behind an entry."""
        return len(self.late) < _MOST_LATE or self.late[0].seq <= seq

    def _late_with(self, seq: int, record: Record) -> tuple[LatePart, ...]:
        continues = record.continues
        if continues is None or seq - continues.newest <= NEAR:
            return self.late
        return (*self.late, LatePart(continues.first, seq))[-_MOST_LATE:]

    def _unseen_with(self, seq: int, record: Record) -> tuple[UnseenRun, ...]:
        runs = self.unseen
        goes_on = bool(runs) and runs[-1].last == seq - 1
        if record.continues is None and (record.unseen or not record.messages):
            run = runs[-1] if goes_on else UnseenRun(seq, seq, 0, 0)
            turns = run.turns + record.begins_turn
            run = UnseenRun(run.first, seq, turns, run.messages + len(record.messages))
            return (*(runs[:-1] if goes_on else runs), run)[-_MOST_RUNS:]
        return self.long_runs if goes_on else runs

    def with_records(self, records: Iterable[tuple[int, Record]]) -> SessionSummary:
        """Return the summary after more entries, given as seqs and records in ascending order."""
        summary = self
        for seq, record in records:
            summary = summary.with_record(seq, record)
        return summary

    def _moved_slots(self, seq: int, record: Record) -> dict[str, int]:
        """Return where the states stand. A state takes its slot only if it is based on the state that is there."""
        taken = {name: seq for name, slot in record.slots.items() if slot.base_seq == self.slots.get(name, 0)}
        return self.slots | taken

    def encode(self) -> bytes:
        document = {"v": VERSION} | {name: getattr(self, name) for name in _ALWAYS}
        optional = {"slots": self.slots, "unseen": self.unseen, "late": self.late}
        document |= {name: value for name, value in optional.items() if value}
        if self.lease is not None:
            document["lease"] = self.lease
        return encode_checked(document)

    @classmethod
    def decode(cls, data: bytes, key: SessionKey) -> SessionSummary:
        """Read the summary of a session's snapshot.

        :raises Corrupt: not a summary.
        :raises IncompatibleStore: a newer version's summary.
        """
        try:
            document = decode(data)
            version = document.pop("v")
            if version == VERSION:
                return cls(**_checked(document))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Corrupt(f"the summary of {key} is unreadable") from None
        raise IncompatibleStore(f"the summary of {key} has a version that this session-history does not know")


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document.

    :raises TypeError: a value is not of its field's type.
    :raises ValueError: a number is out of range.
    :raises KeyError: a value is missing.
    """
    for name, value in document.items():
        if type(value) not in _TYPES.get(name, ()):
            raise TypeError(name)
    for name, kind, count in (("unseen", UnseenRun, 4), ("late", LatePart, 2)):
        rows = document.get(name, [])
        if any(type(row) is not list or len(row) != count or {*map(type, row)} != {int} for row in rows):
            raise TypeError(name)
        document[name] = tuple(kind(*row) for row in rows)
    slots, created_us = document.get("slots", {}), document["created_us"]
    numbers = (document["turns"], document["messages"], *slots.values())
    if set(map(type, numbers)) != {int} or min(numbers) < 0 or not 0 <= (created_us or 0) <= LAST_US:
        raise ValueError("a number is out of range")
    checked_lease(document.get("lease"))
    if not document.keys() >= set(_ALWAYS):
        raise KeyError("a value is missing")
    return document


def turn_starts(record: Record, *, plain: bool) -> list[int]:
    """Return the indexes of the messages with which turns begin.

    The first entry of a turn begins one turn. Of plain appends, a turn reaches from one user's message to the next;
    messages without a role form a turn for each append.

    :param plain: a turn of plain appends is open already.
    """
    if record.by is Author.TURN:
        return [0] if record.begins_turn else []
    return [
        index
        for index, message in enumerate(record.messages)
        if message.role == "user" or (index == 0 and (message.role is None or not plain))
    ]
