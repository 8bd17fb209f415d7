"""Repair of histories: what a model's API refuses is completed, moved, merged or left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from session_history.records.messages import StoredMessage
from session_history.view.leftovers import leave_out
from session_history.view.merging import insists, merged, neighbours
from session_history.view.pairing import Call, Pairing, Round, Slot
from session_history.view.shapes import Kind, reading_of, speaker

RepairKind = Literal[
    "result added",
    "result left out",
    "result moved",
    "call left out",
    "reasoning left out",
    "empty text left out",
    "message left out",
    "message added",
    "messages merged",
]


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair of a history.

    :ivar kind: what was done. A result was added, to a call that had none; left out, since it had no call, or its
        call another result; or moved to its call, since it came too late. Anything else is left out since an API
        refuses it. A message of the user was added where a history began with a call.
    :ivar call_id: the call; ``None`` if the repair concerns no call.
    :ivar index: the message of the history that was changed; for what is left out, where it would stand.
    """

    kind: RepairKind
    call_id: str | None
    index: int


def repaired(
    messages: Sequence[StoredMessage], *, alternate: bool = False
) -> tuple[Sequence[StoredMessage], list[Repair]]:
    """Return messages as a model's API takes them, and the repairs; without repairs, the same sequence.

    Shapes are recognized message by message, see :mod:`session_history.view.shapes`. Messages of other shapes stay as
    they are.

    :param alternate: merge neighbours of one role, for chat templates that insist on it.
    """
    readings = list(map(reading_of, messages))
    found: Sequence[StoredMessage] = messages
    repairs: list[Repair] = []
    kinds = {part.kind for reading in readings if reading is not None for part in reading.parts}
    if kinds:
        slots = list(map(Slot, messages, readings, map(speaker, messages, readings)))
        first = leave_out(slots, kinds)
        kept = [slot for slot in slots if not slot.left_out]
        pairing = Pairing(kept)
        is_pending = Kind.PENDING in kinds and any(_pending(kept, index) for index in range(len(kept)))
        if first or is_pending or pairing.lacks_result or any([slot.notes or slot.removed for slot in slots]):  # noqa: C419 - a list is faster
            found, repairs = _Builder(slots, kept, pairing).built(first)
    if alternate or any([reading is not None and insists(reading) for reading in readings]):  # noqa: C419 - a list is faster
        return _merged(found, repairs, alternate=alternate)
    return found, repairs


def _pending(slots: Sequence[Slot], index: int) -> list[Any]:
    """Return the calls of a message that hold no result in themselves yet, and do not wait for a person."""
    is_last = index == len(slots) - 1
    return [part for part in slots[index].parts(Kind.PENDING) if not (part.waits and is_last)]


class _Builder:
    """Builds the repaired messages, and notes the repairs."""

    def __init__(self, slots: Sequence[Slot], kept: Sequence[Slot], pairing: Pairing) -> None:
        self._slots = slots
        self._kept = kept
        self._built: list[StoredMessage] = []
        self._repairs: list[Repair] = []
        self._rounds: defaultdict[int, list[Round]] = defaultdict(list)
        for round_ in pairing.rounds:
            self._rounds[round_.end + round_.in_next].append(round_)

    def built(self, first: Slot | None) -> tuple[list[StoredMessage], list[Repair]]:
        """Return the messages and the repairs.

        :param first: the message that needs one of the user ahead of it.
        """
        index = 0
        for slot in self._slots:
            for kind, call_id in slot.notes:
                self._note(kind, call_id)
            if slot.left_out:
                continue
            if slot is first:
                self._open(slot)
            rounds = self._rounds.get(index, ())
            self._keep(index, slot, [round_ for round_ in rounds if round_.in_next])
            for round_ in rounds:
                if not round_.in_next:
                    self._add(round_)
            index += 1
        return self._built, self._repairs

    def _note(self, kind: RepairKind, call_id: str | None) -> None:
        self._repairs.append(Repair(kind, call_id, len(self._built)))

    def _open(self, slot: Slot) -> None:
        assert slot.reading is not None
        self._note("message added", None)
        self._built.append(StoredMessage(slot.message.format, slot.reading.shape.opening()))

    def _keep(self, index: int, slot: Slot, hosted: Sequence[Round]) -> None:
        """Add a message without what must not stay, and with the parts that belong into it."""
        added = [part for round_ in hosted for part in self._missing(round_)]
        pending = _pending(self._kept, index)
        if not slot.removed and not added and not pending:
            self._built.append(slot.message)
            return
        assert slot.reading is not None
        shape, value = slot.reading.shape, slot.message.value
        if pending:
            for part in pending:
                self._note("result added", part.call_id)
            value = shape.completed(value, {part.at for part in pending})
        left = shape.without(value, slot.removed) if slot.removed else value
        if left is None and added:
            left = shape.message_of([], value)
        if left is not None:
            self._built.append(StoredMessage(slot.message.format, shape.hosting(left, added) if added else left))

    def _add(self, round_: Round) -> None:
        """Add the results that a round lacks, behind it."""
        missing = self._missing(round_)
        if not missing:
            return
        asked = round_.calls[0].asked
        values = [round_.shape.message_of(missing, asked.value)] if round_.shape.in_parts else missing
        self._built += [StoredMessage(asked.format, value) for value in values]

    def _missing(self, round_: Round) -> list[Any]:
        """Return the results that a round lacks, in the order of their calls: messages, or parts of one message."""
        missing: list[Any] = []
        for call in round_.missing:
            index = len(self._built) + (0 if round_.shape.in_parts else len(missing))
            kind: RepairKind = "result added" if call.moved is None else "result moved"
            self._repairs.append(Repair(kind, call.part.call_id, index))
            missing.append(_result_of(call))
        return missing


def _result_of(call: Call) -> Any:
    return call.round.shape.missing(call.part, call.asked.value) if call.moved is None else call.moved


def _merged(
    messages: Sequence[StoredMessage], repairs: list[Repair], *, alternate: bool
) -> tuple[Sequence[StoredMessage], list[Repair]]:
    """Merge the neighbours that the API, or the caller, wants merged."""
    pairs = neighbours(messages, alternate=alternate)
    if not pairs:
        return messages, repairs
    found: list[StoredMessage] = []
    places: list[int] = []
    notes: list[Repair] = []
    for index, message in enumerate(messages):
        together = merged(found[-1], message) if index in pairs and found else None
        if together is None:
            found.append(message)
        else:
            found[-1] = together
            notes.append(Repair("messages merged", None, len(found) - 1))
        places.append(len(found) - 1)
    places.append(len(found))
    moved = [replace(repair, index=places[repair.index]) for repair in repairs]
    return found, sorted([*moved, *notes], key=lambda repair: repair.index)
