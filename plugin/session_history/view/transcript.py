"""Clients that send the whole transcript with every turn: what of it is new. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile, pairwise, takewhile
from typing import Any

from session_history.errors import TranscriptEdited
from session_history.records.messages import WORDS, StoredMessage
from session_history.view.assembly import TurnView, messages_of

_TOOL_FIELDS = ("type", "id", "toolCallId", "tool_use_id", "state", "input", "output", "content", "errorText")


def unsaid(messages: Sequence[StoredMessage], turns: Sequence[TurnView]) -> Sequence[StoredMessage]:
    """Return the messages of an input that the session lacks. Messages are known by their ids.

    All that the input has ahead of a message that is known is older. An answer may have another id in the client.

    :param turns: those of the window that was read.
    :raises TranscriptEdited: the input repeats the session's messages, but not as they are.
    """
    if not any("id" in message.value for message in messages):
        return messages
    history = messages_of(turns)
    places = {_id(message): place for place, message in enumerate(history) if _id(message) is not None}
    known = [(index, places[_id(message)]) for index, message in enumerate(messages) if _id(message) in places]
    if not known:
        return messages
    for index, place in known:
        _require(_is_same(messages[index], history[place]), index)
    for (index, place), (next_index, next_place) in pairwise(known):
        said, kept = messages[index + 1 : next_index], history[place + 1 : next_place]
        _require(not any(map(_is_of_user, [*said, *kept])) and _agree(said, kept), next_index)
    index, place = known[-1]
    return _new_part(messages[index + 1 :], history[place + 1 :], index)


def recorded_part(messages: Sequence[StoredMessage], inputs: Sequence[StoredMessage]) -> Sequence[StoredMessage]:
    """Return the end of a transcript that may be the input of a turn that was recorded."""
    count = len(inputs)
    is_transcript = len(messages) > count and any("id" in message.value for message in messages)
    return messages[-count:] if is_transcript and count else messages


def _new_part(messages: Sequence[StoredMessage], kept: Sequence[StoredMessage], index: int) -> Sequence[StoredMessage]:
    """Return what is new behind the newest known message, of which the client may have the answer.

    :param kept: what the session has behind that message.
    :param index: that of the known message in the input.
    """
    _require(not any(map(_is_of_user, kept)) and bool(messages or not kept), index)
    if not kept:
        return messages
    answer = list(takewhile(lambda message: not _is_of_user(message), messages))
    _require(_agree(answer, kept), index + 1)
    return list(dropwhile(lambda message: not _is_of_user(message), messages))


def _require(condition: object, index: int) -> None:
    """Check a condition. :raises TranscriptEdited: it does not hold for a message of the input."""
    if not condition:
        raise TranscriptEdited(f"input[{index}]")


def _agree(said: Sequence[StoredMessage], kept: Sequence[StoredMessage]) -> bool:
    """Tell whether two versions of an answer agree. A client may have only a part of it, or none."""
    one, other = ("".join(map(_text, messages)).strip() for messages in (said, kept))
    return one.startswith(other) or other.startswith(one)


def _is_same(one: StoredMessage, other: StoredMessage) -> bool:
    def said(message: StoredMessage) -> tuple[object, ...]:
        return message.role, _text(message), _tool_parts(message)

    return one.value == other.value or said(one) == said(other)


def _is_of_user(message: StoredMessage) -> bool:
    return message.role in WORDS


def _id(message: StoredMessage) -> str | None:
    name = message.value.get("id")
    return name if isinstance(name, str) and name else None


def _text(message: StoredMessage) -> str:
    content = message.value.get("content", message.value.get("parts"))
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in _parts(message) if isinstance(part.get("text"), str))


def _tool_parts(message: StoredMessage) -> list[dict[str, Any]]:
    """Return what the parts say of calls and results. A client may have added other fields to a message."""
    tools = (part for part in _parts(message) if "tool" in str(part.get("type")))
    return [{name: part[name] for name in _TOOL_FIELDS if name in part} for part in tools]


def _parts(message: StoredMessage) -> list[dict[str, Any]]:
    content = message.value.get("content", message.value.get("parts"))
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
