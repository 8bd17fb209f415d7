"""Pairing: finds the result of every call, and the results that stand where they must not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.view.shapes import Kind, Part, Place, Reading, Shape, Speaker


@dataclass(slots=True)
class Slot:
    """A message of a history under repair.

    :ivar removed: positions of the parts that must not stay.
    :ivar left_out: the message must not stay.
    :ivar notes: what is left out here: a kind of repair, and the call.
    """

    message: StoredMessage
    reading: Reading | None
    speaker: Speaker
    removed: set[int] = field(default_factory=set)
    left_out: bool = False
    notes: list[tuple[Any, str | None]] = field(default_factory=list)

    def parts(self, kind: Kind) -> list[Part]:
        """Return the parts of a kind that stay."""
        if self.reading is None:
            return []
        return [part for part in self.reading.parts if part.kind is kind and part.at not in self.removed]


@dataclass(slots=True)
class Round:
    """Calls that are answered together.

    :ivar end: index of the slot behind which further results belong.
    :ivar in_next: the message behind holds the results, among its parts.
    :ivar closed: it is too late for a result.
    """

    shape: Shape
    end: int
    calls: list[Call] = field(default_factory=list)
    answered: bool = False
    in_next: bool = False
    closed: bool = False

    @property
    def missing(self) -> list[Call]:
        """Return the calls that need a result. One that a person is asked about may wait while nothing follows."""
        return [call for call in self.calls if not call.answered and (self.closed or not call.part.waits)]


@dataclass(slots=True)
class Call:
    """A call.

    :ivar asked: the message that holds it.
    :ivar moved: the result, if it stands where it must not stay.
    """

    part: Part
    asked: StoredMessage
    round: Round
    answered: bool = False
    moved: Any = None
    taken: bool = False


class Pairing:
    """Finds the result of every call, and marks the slots of results that must not stay.

    :ivar rounds: in the order of their calls.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.rounds: list[Round] = []
        self._slots = slots
        self._waiting: dict[tuple[Shape, str], list[Call]] = {}
        self._open: defaultdict[Shape, list[Round]] = defaultdict(list)
        for index, slot in enumerate(slots):
            if slot.reading is None:
                self._close(index, slot, has_tools=False)
                continue
            results, calls = slot.parts(Kind.RESULT), slot.parts(Kind.CALL)
            self._close(index, slot, has_tools=bool(results or calls))
            if results:
                self._answer(index, slot.reading.shape, results)
            if calls:
                self._ask(index, slot.reading.shape, calls)

    @property
    def lacks_result(self) -> bool:
        return any(round_.missing for round_ in self.rounds)

    def _close(self, index: int, slot: Slot, *, has_tools: bool) -> None:
        """Close the rounds whose results cannot stand at an index, nor behind it."""
        shape = slot.reading.shape if slot.reading else None
        for other in list(self._open):
            if other.place is Place.BEHIND:
                late = other is not shape or slot.speaker is not Speaker.RESULTS
            elif other.place is Place.NEXT:
                late = any(round_.end < index - 1 for round_ in self._open[other])
            else:
                # Blocks of calls, too: the user's message must follow them.
                late = (has_tools and shape is not None and shape.in_parts) or (
                    not has_tools and slot.speaker is Speaker.INPUT
                )
            if late:
                for round_ in self._open.pop(other):
                    round_.closed = True

    def _answer(self, index: int, shape: Shape, results: list[Part]) -> None:
        if shape.place is Place.NEXT:
            for round_ in self._open[shape]:
                round_.in_next = True
        frames = len(self._slots[index].parts(Kind.FRAME))
        for rank, result in enumerate(results):
            if result.call_id is None:
                self._take_for_answered(index, shape)
            else:
                self._pair(index, shape, result, first=result.at <= rank + frames)

    def _take_for_answered(self, index: int, shape: Shape) -> None:
        """Take a result that does not name its call. The format is another one, and its calls stay as they are."""
        for round_ in self._open[shape]:
            round_.end = index
            for call in round_.calls:
                call.answered = True

    def _pair(self, index: int, shape: Shape, result: Part, *, first: bool) -> None:
        slot = self._slots[index]
        call = self._call_of(shape, result)
        if call is None:
            slot.removed.add(result.at)
            slot.notes.append(("result left out", result.call_id))
            return
        call.taken = True
        if call.round.closed or (shape.place is Place.NEXT and not first):
            call.answered = False
            slot.removed.add(result.at)
            call.moved = shape.taken(slot.message.value, result.at)
            return
        call.answered = call.round.answered = True
        if shape.place is not Place.NEXT and self._open[shape][-1] is call.round:  # later calls stay behind it
            call.round.end = index

    def _call_of(self, shape: Shape, result: Part) -> Call | None:
        """Return the newest call that waits for a result; where the result has only the name of its tool, by that."""
        for key in (result.call_id, _by_name(result) if result.call_id == result.name else None):
            waiting = [call for call in self._waiting.get((shape, key or ""), ()) if not call.taken]
            if waiting:
                return waiting[-1]
        return None

    def _ask(self, index: int, shape: Shape, calls: list[Part]) -> None:
        round_ = self._round(index, shape)
        for part in calls:
            call = Call(part, self._slots[index].message, round_)
            round_.calls.append(call)
            for key in (part.call_id, _by_name(part)):
                if key is not None:
                    # Some models repeat ids: a result that comes now does not belong to a call long past.
                    earlier = self._waiting.get((shape, key), [])
                    self._waiting[shape, key] = [*(other for other in earlier if not other.round.closed), call]

    def _round(self, index: int, shape: Shape) -> Round:
        """Return the round of a call: neighbouring messages with calls, without a result between, call together."""
        newest = self._open[shape][-1:]
        if newest and not newest[0].answered:
            newest[0].end = index
            return newest[0]
        round_ = Round(shape, index)
        self.rounds.append(round_)
        self._open[shape].append(round_)
        return round_


def _by_name(part: Part) -> str | None:
    return None if part.name is None else f"name of {part.name}"
