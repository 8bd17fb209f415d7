"""Leftovers of a cut history: blank text, reasoning and hosted calls whose other half is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

from session_history.view.pairing import Slot
from session_history.view.shapes import Kind, Part, Speaker

_CALLS = {Kind.CALL, Kind.HOSTED_CALL}

_SAYS_SOMETHING = {Kind.CONTENT, Kind.REASONING, *_CALLS, Kind.RESULT, Kind.HOSTED_RESULT, Kind.PENDING}


def leave_out(slots: Sequence[Slot], kinds: AbstractSet[Kind]) -> Slot | None:
    """Mark what an API refuses without the rest.

    :param kinds: the kinds of the parts of all messages.
    :returns: the message that needs one of the user ahead of it.
    """
    if kinds & {Kind.BLANK, Kind.FRAME}:
        for slot in slots:
            _leave_out_blanks(slot)
    if Kind.PENDING in kinds:
        _leave_out_versions(slots)
    if kinds & {Kind.HOSTED_CALL, Kind.HOSTED_RESULT}:
        _leave_out_hosted(slots)
    if Kind.REASONING in kinds:
        for run in _runs(slots):
            _leave_out_reasoning(run)
    return _leave_out_beginning(slots)


def _remove(slot: Slot, parts: Sequence[Part], kind: str, *, by_call: bool = False) -> None:
    """Remove parts of a message, and the message if it says nothing without them."""
    if not parts and slot.reading is not None and _says_something(slot):
        return
    slot.removed.update(part.at for part in parts)
    slot.notes += [(kind, part.call_id) for part in parts] if by_call else [(kind, None)]
    slot.left_out = not _says_something(slot)


def _says_something(slot: Slot) -> bool:
    return slot.reading is None or any(
        part.kind in _SAYS_SOMETHING and (part.at not in slot.removed or part.kind is Kind.CALL)
        for part in slot.reading.parts
    )


def _leave_out_blanks(slot: Slot) -> None:
    if slot.reading is not None and slot.speaker is Speaker.MODEL:
        _remove(slot, slot.parts(Kind.BLANK), "empty text left out")


def _leave_out_versions(slots: Sequence[Slot]) -> None:
    """Leave out a message that waits for results, if the next one is a later version of it, by its id."""
    for slot, following in pairwise(slots):
        name = slot.message.value.get("id")
        if isinstance(name, str) and name == following.message.value.get("id") and slot.parts(Kind.PENDING):
            slot.left_out = True
            slot.notes.append(("message left out", None))


def _leave_out_hosted(slots: Sequence[Slot]) -> None:
    """Leave out calls without a result, and results without a call, of tools that the model's provider runs."""
    waiting: dict[str | None, tuple[Slot, Part]] = {}
    for slot in slots:
        if slot.speaker is Speaker.INPUT:
            _leave_out_calls(waiting)
        if slot.reading is None or slot.left_out:
            continue
        strays = []
        for part in slot.reading.parts:
            if part.kind is Kind.HOSTED_CALL:
                if part.call_id in waiting:
                    _leave_out_calls({part.call_id: waiting.pop(part.call_id)})
                waiting[part.call_id] = slot, part
            elif part.kind is Kind.HOSTED_RESULT and waiting.pop(part.call_id, None) is None:
                strays.append(part)
        if strays:
            _remove(slot, strays, "result left out", by_call=True)
    _leave_out_calls(waiting)


def _leave_out_calls(waiting: dict[str | None, tuple[Slot, Part]]) -> None:
    for slot, part in waiting.values():
        _remove(slot, [part], "call left out", by_call=True)
    waiting.clear()


def _runs(slots: Sequence[Slot]) -> Iterator[list[Slot]]:
    """Yield neighbouring messages of the model, without those that are left out."""
    run: list[Slot] = []
    for slot in slots:
        if slot.left_out:
            continue
        if slot.speaker is Speaker.MODEL:
            run.append(slot)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _leave_out_reasoning(run: list[Slot]) -> None:
    """Leave out reasoning at the end of what the model said."""
    for slot in reversed(run):
        if slot.reading is None or slot.reading.shape.ends_in_reasoning:
            return
        last = []
        for part in reversed(slot.reading.parts):
            if part.kind is Kind.REASONING:
                last.append(part)
            elif part.kind is not Kind.FRAME and part.at not in slot.removed:
                break
        if last:
            _remove(slot, last, "reasoning left out")
        if not slot.left_out:
            return


def _leave_out_beginning(slots: Sequence[Slot]) -> Slot | None:
    """Leave out what the model said ahead of the user; but a call may have had an effect, so it stays."""
    if not any(slot.reading is not None and slot.reading.shape.user_first for slot in slots):
        return None
    for slot in slots:
        if slot.left_out or slot.speaker is Speaker.RESULTS or slot.message.role == "system":
            continue
        if slot.speaker is not Speaker.MODEL:
            return None
        if any(slot.parts(kind) for kind in _CALLS):
            return slot if slot.reading is not None and slot.reading.shape.user_first else None
        slot.left_out = True
        slot.notes.append(("message left out", None))
    return None
