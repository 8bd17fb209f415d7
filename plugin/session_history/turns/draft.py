"""What a turn says, and how much of it is stored. Nothing here waits for anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.records.record import (
    Author,
    Continuation,
    HistoryStart,
    MessageRef,
    Record,
    Revision,
    Slot,
    Status,
)
from session_history.records.values import encode


class Draft:
    """The messages of a turn, from which the records of its entries are made.

    :ivar messages: in their newest versions.
    """

    def __init__(self) -> None:
        self.messages: list[StoredMessage] = []
        self._places: list[MessageRef] = []  # where those stand that are stored, which come first
        self._stored: dict[int, StoredMessage] = {}  # those that were revised since, as the store has them
        self._recorded: list[StoredMessage] = []  # all of them, as they were when the newest record was made
        self._slots: dict[str, Slot] = {}
        self._recorded_slots: dict[str, Slot] = {}
        self._part: Continuation | None = None
        self._status: Status | None = None

    def add(self, messages: Iterable[StoredMessage]) -> None:
        self.messages += messages

    def revise(self, index: int, message: StoredMessage) -> None:
        """Put a later version in the place of a message."""
        earlier = self.messages[index]
        if index < len(self._places) and _differ(earlier, message):
            self._stored.setdefault(index, earlier)
        self.messages[index] = message

    def go_on(self, part: Continuation, place: MessageRef, message: StoredMessage) -> None:
        """Go on with a turn that was left open, and with a message of it."""
        self._part = part
        self.messages.append(message)
        self._places.append(place)

    def keep(self, name: str, state: dict[str, Any], begin: HistoryStart | None, pending: MessageRef | None) -> None:
        """Keep the state of an agent."""
        self._slots[name] = Slot(state, 0, begin, pending)

    def place(self, index: int) -> MessageRef:
        """Where a message stands, or will stand: a seq of 0 is that of the record that is made next."""
        stored = len(self._places)
        return self._places[index] if index < stored else MessageRef(0, index - stored)

    def record(self, status: Status, *, must: bool = False, on: int = 0, **fields: Any) -> Record | None:
        """What is not stored yet; ``None`` if that is nothing.

        :param status: how the turn stands now.
        :param must: make a record in any case.
        :param on: seq of the entry that held the state on which the new one is based.
        :param fields: further ones of the record.
        """
        new = tuple(self.messages[len(self._places) :])
        revisions = tuple(_revision(self._places[at], old, self.messages[at]) for at, old in self._stored.items())
        is_end = self._status is Status.OPEN and status is not Status.OPEN
        if not (new or revisions or self._slots or is_end or must):
            return None
        self._recorded, self._recorded_slots = list(self.messages), dict(self._slots)
        return Record(
            by=Author.TURN,
            messages=new,
            revisions=revisions,
            slots={name: slot._replace(on=on) for name, slot in self._slots.items()},
            part=self._part,
            status=status,
            **fields,
        )

    def stored(self, seq: int, record: Record) -> None:
        """The newest record that was made here stands in the log; what was said since is not in it."""
        self._places += [MessageRef(seq, index) for index in range(len(record.messages))]
        pairs = enumerate(zip(self._recorded[: len(self._places)], self.messages, strict=False))
        self._stored = {index: earlier for index, (earlier, message) in pairs if _differ(earlier, message)}
        slots = [(name, slot) for name, slot in self._slots.items() if slot is not self._recorded_slots.get(name)]
        self._slots = {name: _moved(slot, seq, len(record.messages)) for name, slot in slots}
        self._status = record.status
        if record.messages or self._part:
            self._part = Continuation(self._part.first if self._part else seq, seq)


def _moved(slot: Slot, seq: int, count: int) -> Slot:
    """A state that is not stored yet, after an entry with so many messages was."""

    def moved(place: MessageRef) -> MessageRef:
        if place.seq:
            return place
        return MessageRef(seq, place.message) if place.message < count else MessageRef(0, place.message - count)

    return slot._replace(
        begin=slot.begin and slot.begin._replace(place=moved(slot.begin.place)),
        pending=slot.pending and moved(slot.pending),
    )


def _differ(one: StoredMessage, other: StoredMessage) -> bool:
    return one is not other and not (one.value == other.value and _same(one.value, other.value))


def _revision(place: MessageRef, old: StoredMessage, new: StoredMessage) -> Revision:
    kept = _common(old.value.get("content"), new.value.get("content"))
    value = new.value | {"content": new.value["content"][kept:]} if kept else new.value
    return Revision(place, kept, StoredMessage(new.format, value))


def _common(old: Any, new: Any) -> int:
    """How many blocks at the beginning of two contents are the same."""
    if not isinstance(old, list) or not isinstance(new, list):
        return 0
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (one, other) in pairs if not _same(one, other)), min(len(old), len(new)))


def _same(one: Any, other: Any) -> bool:
    return one is other or encode(one, "block", wrapped=True) == encode(other, "block", wrapped=True)
