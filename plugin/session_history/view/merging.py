"""Merging of neighbours of one role, where an API or a chat template refuses them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.view.shapes import Kind, Reading, Speaker, reading_of, speaker

_LISTS = ("content", "parts", "tool_calls", "invalid_tool_calls")

_NESTED = ("data", "kwargs")


def neighbours(messages: Sequence[StoredMessage], *, alternate: bool) -> set[int]:
    """Return the indexes of the messages that are to be merged into the one ahead."""
    if not any([_role(ahead) == _role(behind) for ahead, behind in pairwise(messages)]):  # noqa: C419 - a list is faster
        return set()
    readings = list(map(reading_of, messages))
    found: set[int] = set()
    for index in reversed(range(1, len(messages))):
        first, second = readings[index - 1 : index + 1]
        is_refused = alternate or _is_refused(first, second, ends_in_call=index + 1 in found)
        if is_refused and _speak_as_one(messages[index - 1 : index + 1], [first, second]):
            found.add(index)
    return found


def insists(reading: Reading) -> bool:
    """Tell whether the API of a message refuses some neighbours of one role."""
    return reading.shape.alternates or reading.shape.call_after_input


def _is_refused(first: Reading | None, second: Reading | None, *, ends_in_call: bool) -> bool:
    """Tell whether an API refuses these neighbours of one role.

    :param ends_in_call: the message behind is to be merged into the second one.
    """
    if first is None or second is None or first.shape is not second.shape or not insists(first):
        return False
    is_call = second.speaker is Speaker.MODEL and (ends_in_call or bool(second.of(Kind.CALL)))
    return first.shape.alternates or is_call


def _speak_as_one(messages: Sequence[StoredMessage], readings: Sequence[Reading | None]) -> bool:
    first, second = messages
    if any(reading and not reading.shape.in_parts and reading.speaker is Speaker.RESULTS for reading in readings):
        return False
    if any(message.value.get("type", "message") != "message" and not _nested(message.value) for message in messages):
        return False
    speakers = {_side(speaker(message, reading)) for message, reading in zip(messages, readings, strict=True)}
    is_one = len(speakers) == 1 and Speaker.UNKNOWN not in speakers
    return is_one and _role(first) == _role(second) and first.format == second.format


def _role(message: StoredMessage) -> tuple[Any, ...]:
    """Return the fields by which one shape or another names the speaker."""
    get = message.value.get
    return get("role"), get("kind"), get("type", "message")


def _side(found: Speaker) -> Speaker:
    return Speaker.INPUT if found is Speaker.RESULTS else found


def merged(first: StoredMessage, second: StoredMessage) -> StoredMessage | None:
    """Return two messages as one; ``None`` if their contents do not go together."""
    value = _merged(first.value, second.value)
    return None if value is None else StoredMessage(first.format, value)


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    together = {**first, **{name: item for name, item in second.items() if name not in first}}
    for name in _LISTS:
        if first.get(name) or second.get(name):
            found = _joined(first.get(name), second.get(name))
            if found is None:
                return None
            together[name] = found
    nested = _nested(first)
    if nested is not None:
        inner = _merged(first[nested], second[nested])
        if inner is None:
            return None
        together[nested] = inner
    return together


def _nested(value: dict[str, Any]) -> str | None:
    return next((name for name in _NESTED if isinstance(value.get(name), dict)), None)


def _joined(first: Any, second: Any) -> Any:
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    lists = [
        [{"type": "text", "text": content}] if isinstance(content, str) else content for content in (first, second)
    ]
    return [*lists[0], *lists[1]] if all(isinstance(content, list) for content in lists) else None
