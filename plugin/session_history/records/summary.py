"""The summary of a session: what a listing shows, current_snapshot from its log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from session_history.errors import Corrupt, IncompatibleStore
from session_history.records.record import Author, Record
from session_history.records.values import decode, encode
from session_history_hooks import SessionKey

VERSION = 1

_TYPES = {
    "title": (str, type(None)),
    "metadata": (dict,),
    "turns": (int,),
    "messages": (int,),
    "created_us": (int, type(None)),
    "plain": (bool,),
    "slots": (dict,),
    "lease": (float, int, type(None)),
}


_ALWAYS = ("title", "metadata", "turns", "messages", "created_us", "plain")


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """:ivar turns: how many turns ever began.
    :ivar messages: how many messages were ever recorded.
    :ivar created_us: when the first entry was written, by its author's clock.
    :ivar plain: a turn of plain appends is open: what is appended next may belong to it.
    :ivar slots: seq of the entry that holds the newest state, by the name of the agent.
    :ivar lease: that of the newest entry, see :class:`~session_history.records.record.Record`.
    """

    title: str | None = field(default=None, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    turns: int = 0
    messages: int = 0
    created_us: int | None = None
    plain: bool = False
    slots: dict[str, int] = field(default_factory=dict)
    lease: float | None = None

    def with_record(self, seq: int, record: Record) -> SessionSummary:
        """The summary after one more entry."""
        return SessionSummary(
            title=record.changes.get("title", self.title),
            metadata=record.changes.get("metadata", self.metadata),
            turns=self.turns + len(beginnings(record, plain=self.plain)),
            messages=self.messages + len(record.messages),
            created_us=record.at_us if self.created_us is None else self.created_us,
            plain=record.by is Author.APPEND if record.messages else self.plain,
            slots=self._moved_slots(seq, record) if record.slots else self.slots,
            lease=record.lease,
        )

    def _moved_slots(self, seq: int, record: Record) -> dict[str, int]:
        """A state takes its slot if it is based on the one that is there."""
        taken = {name: seq for name, slot in record.slots.items() if slot.on == self.slots.get(name, 0)}
        return self.slots | taken

    def encode(self) -> bytes:
        document = {"v": VERSION} | {name: getattr(self, name) for name in _ALWAYS}
        if self.slots:
            document["slots"] = self.slots
        if self.lease is not None:
            document["lease"] = self.lease
        return encode(document, "summary", wrapped=True)

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
    """:raises TypeError: a value is not of its field's type."""
    for name, value in document.items():
        if type(value) not in _TYPES.get(name, ()):
            raise TypeError(name)
    return document


def snapshot(summary: SessionSummary, records: Iterable[tuple[int, Record]]) -> SessionSummary:
    """:param records: with their seqs, ascending."""
    for seq, record in records:
        summary = summary.with_record(seq, record)
    return summary


def beginnings(record: Record, *, plain: bool) -> list[int]:
    """The indexes of the messages with which turns begin.

    A turn's own entry is one turn. Of plain appends, a turn reaches from one user's message to the
    next; messages without a role form a turn for each append.

    :param plain: a turn of plain appends is open already.
    """
    if record.by is Author.TURN:
        return [0] if record.messages and record.part is None else []
    return [
        index
        for index, message in enumerate(record.messages)
        if message.role == "user" or (index == 0 and (message.role is None or not plain))
    ]
