"""Clients that send the whole transcript with every turn: what of it is new. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile
from typing import Any

from session_history.errors import TranscriptEdited
from session_history.records.messages import WORDS, StoredMessage
from session_history.view.assembly import TurnView
from session_history.view.shapes import Kind, Speaker, reading_of, speaker

_TOOL_FIELDS = ("type", "id", "toolCallId", "tool_use_id", "state", "input", "output", "content", "errorText")

_NO_IDS = {"__fake_id__"}
"""What stands in the place of an id: OpenAI's Agents SDK gives this one to all messages of other models."""

_DONE = {"output-available", "output-error", "output-denied"}


def is_known(message: StoredMessage, turns: Sequence[TurnView]) -> bool:
    """Tell whether turns have a message of the same id."""
    name = _id(message)
    return name is not None and any(_id(other) == name for turn in turns for other in turn.messages)


def unsaid(
    messages: Sequence[StoredMessage],
    turns: Sequence[TurnView],
    turn_id: str | None = None,
    *,
    earlier: Callable[[], Sequence[TurnView]] | None = None,
) -> Sequence[StoredMessage]:
    """Return the messages of an input that the session lacks. Messages are known by their ids.

    All that the input has ahead of a message that is known is older. An answer may have another id in the client.

    :param turns: those of the window.
    :param turn_id: the id of the turn that has the input. Earlier attempts at this turn had the same one.
    :param earlier: returns more turns to look at, if the window knows none of the messages.
    :raises TranscriptEdited: the input repeats the session's messages, but not as they are.
    """
    if not any("id" in message.value for message in messages):
        return messages
    counted = _without_retried([turn for turn in turns if turn.turn_id is None or turn.turn_id != turn_id])
    history = [message for turn in counted for message in turn.messages]  # also what a budget hides
    cut = {id(message) for turn in counted if not turn.is_final for message in turn.messages}
    places = _places(history)
    known = [(index, places[name]) for name, index in _places(messages).items() if name in places]
    if not known:
        return unsaid(messages, earlier(), turn_id) if earlier else messages
    if known[-1][1] == len(history) - 1 and _has_results_for(messages[known[-1][0]], history[-1]):
        return [*messages[known[-1][0] :]]
    for index, place in known:
        _require(_is_same(messages[index], history[place]), index)
    for (index, place), (next_index, next_place) in pairwise(known):
        said, kept = messages[index + 1 : next_index], history[place + 1 : next_place]
        _require(not any(map(_is_of_user, [*said, *kept])) and _agree(said, kept, cut), next_index)
    index, place = known[-1]
    start = len(history) - len(counted[-1].messages)
    if start <= place < len(history) - 1 and index == len(messages) - 1 and not counted[-1].is_final:
        # Another attempt at a turn that failed or was cut: its answer is not one.
        return messages[_attempt_start(messages, known, start) :]
    new = _new_part(messages[index + 1 :], history[place + 1 :], index, cut)
    has_answer = counted[-1].is_final and not _is_of_user(history[-1])
    _require(new or not has_answer, len(messages) - 1)
    return new


def _attempt_start(messages: Sequence[StoredMessage], known: Sequence[tuple[int, int]], start: int) -> int:
    """Return where the input repeats a turn, which begins at a place of the history; messages may lack an id."""
    first = next(index for index, place in known if place >= start)
    while first and _id(messages[first - 1]) is None:
        first -= 1
    return first


def _without_retried(turns: Sequence[TurnView]) -> list[TurnView]:
    """Return turns without those that failed or were cut, and whose input a later turn has again."""
    kept: list[TurnView] = []
    later: set[str | None] = set()
    for turn in reversed(turns):
        names = {name for message in turn.messages if _is_of_user(message) and (name := _id(message))}
        if turn.is_final or not names & later:
            kept.append(turn)
            later |= names
    return kept[::-1]


def _places(messages: Sequence[StoredMessage]) -> dict[str, int]:
    """Return the place of each id. An id that several messages have names none of them."""
    names = Counter(filter(None, map(_id, messages)))
    return {name: place for place, message in enumerate(messages) if (name := _id(message)) and names[name] == 1}


def recorded_part(messages: Sequence[StoredMessage], inputs: Sequence[StoredMessage]) -> Sequence[StoredMessage]:
    """Return the end of a transcript that may be the input of a turn that was recorded."""
    count = len(inputs)
    is_transcript = len(messages) > count and any("id" in message.value for message in messages)
    # Nothing of a transcript was new if the question stood in the session already.
    return messages[len(messages) - count :] if is_transcript else messages


def _new_part(
    messages: Sequence[StoredMessage], kept: Sequence[StoredMessage], index: int, cut: set[int]
) -> Sequence[StoredMessage]:
    """Return what is new behind the newest known message, of which the client may have the answer.

    :param kept: what the session has behind that message.
    :param index: that of the known message in the input.
    :param cut: see :func:`_agree`.
    """
    _require(not any(map(_is_of_user, kept)) and bool(messages or not kept), index)
    if not kept:
        return messages
    answer = list(takewhile(lambda message: not _is_of_user(message), messages))
    _require(_agree(answer, kept, cut), index + 1)
    _require(not (_lacks_result(kept) and _has_result(answer)), index + 1)
    results = _results_at_end(answer)
    if results and not _results_at_end(kept):  # of tools that ran in the client
        return messages[len(answer) - len(results) :]
    return messages[len(answer) :]


def _results_at_end(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    return list(takewhile(_is_result, reversed(messages)))


def _is_result(message: StoredMessage) -> bool:
    return speaker(message, reading_of(message)) is Speaker.RESULTS


def _lacks_result(messages: Sequence[StoredMessage]) -> bool:
    """Tell whether a call that would hold its result in itself has none."""
    return any(reading.of(Kind.PENDING) for reading in map(reading_of, messages) if reading)


def _has_result(messages: Sequence[StoredMessage]) -> bool:
    return any(part.get("state") in _DONE for message in messages for part in _tool_parts(message))


def _require(condition: object, index: int) -> None:
    """Check a condition. :raises TranscriptEdited: it does not hold for a message of the input."""
    if not condition:
        raise TranscriptEdited(f"input[{index}]")


def _agree(said: Sequence[StoredMessage], kept: Sequence[StoredMessage], cut: set[int]) -> bool:
    """Tell whether two versions of an answer agree. A client may have only a part of it, or none.

    :param cut: identities of the messages of turns without an answer: the client may have that of another attempt.
    """
    if any(id(message) in cut for message in kept):
        return True
    one, other = ("".join("".join(map(_text, _of_model(messages))).split()) for messages in (said, kept))
    return one in other or other in one


def _of_model(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    """Return messages without the results of tools, which a client may not have."""
    return [message for message in messages if not _is_result(message)]


def _is_same(one: StoredMessage, other: StoredMessage) -> bool:
    def said(message: StoredMessage) -> tuple[object, ...]:
        return message.role, _text(message), _tool_parts(message)

    return one.value == other.value or said(one) == said(other)


def _has_results_for(message: StoredMessage, earlier: StoredMessage) -> bool:
    """Tell whether a message is a later version of one that waits for the results of the client's tools."""
    names = [part.get("toolCallId") for part in _tool_parts(earlier)]
    is_same_call = [part.get("toolCallId") for part in _tool_parts(message)] == names
    return is_same_call and _text(message) == _text(earlier) and _lacks_result([earlier]) and _has_result([message])


def _is_of_user(message: StoredMessage) -> bool:
    return message.role in WORDS


def _id(message: StoredMessage) -> str | None:
    name = message.value.get("id")
    return name if isinstance(name, str) and name and name not in _NO_IDS else None


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
