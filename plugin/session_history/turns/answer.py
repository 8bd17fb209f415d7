"""The answer of a handler: turned into messages, and back into the shape it had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from session_history.errors import InvalidMessage
from session_history.records.markers import Marker
from session_history.records.messages import Message, Role, StoredMessage, dumped_model, freeze, text_message, thaw
from session_history.records.produced import looks_like_message, produced
from session_history.records.salvage import salvaged, type_name
from session_history.records.values import DEPTH, plain

TEXT = "text"
MESSAGE = "message"
VALUE = "value"

AnswerShape = str | list[Any] | None
"""``None`` for no answer, one of the three names for one message, a list of shapes for a list or a stream.

Neighbouring pieces of a streamed text are one message.
"""


class Answer(NamedTuple):
    """An answer as messages.

    :ivar markers: what the messages lack of it.
    """

    shape: AnswerShape
    messages: list[StoredMessage]
    markers: list[Marker]


def to_messages(answer: object, *, native: bool, first: int = 0) -> Answer:
    """Return an answer as messages. A part that cannot be stored is marked, and the rest is kept.

    :param first: the index of the first message in the turn.
    :raises InvalidMessage: nothing in it is text, a message, or ``None``.
    """
    if not _holds_message(answer, native=native, depth=DEPTH):
        value = answer[0] if isinstance(answer, (list, tuple)) else answer
        kind = "a dict without a role" if isinstance(value, dict) else f"of type {type(value).__name__}"
        raise InvalidMessage("the handler's answer", f"is {kind}, not text, a message or a list of them")
    return _part(answer, native=native, first=first, depth=DEPTH)


def text_answer(text: str, path: str, *, native: bool) -> tuple[StoredMessage, list[Marker]]:
    """Return a text of the assistant as a message."""
    kept, markers = salvaged(plain(text), path)
    (message,) = freeze(text_message(Role.ASSISTANT, kept, native=native), native=native)
    return message, markers


def from_messages(shape: AnswerShape, messages: Iterator[StoredMessage]) -> Any:
    """Return an answer in its shape. :raises StopIteration: a message is missing."""
    if shape is None:
        return None
    if isinstance(shape, list):
        return [from_messages(part, messages) for part in shape]
    message = next(messages)
    if shape == TEXT:
        return _text(message)
    return thaw([message], native=shape != MESSAGE)[0]


def _holds_message(answer: object, *, native: bool, depth: int) -> bool:
    """Tell whether an answer is one, or a list in which at least one part is."""
    if isinstance(answer, (list, tuple)):
        parts = answer if depth else ()
        return not answer or any(_holds_message(part, native=native, depth=depth - 1) for part in parts)
    return answer is None or isinstance(answer, str) or looks_like_message(answer, native=native)


def _part(answer: object, *, native: bool, first: int, depth: int) -> Answer:
    path = f"messages[{first}]"
    if answer is None:
        return Answer(None, [], [])
    if isinstance(answer, str):
        message, markers = text_answer(answer, path, native=native)
        return Answer(TEXT, [message], markers)
    if isinstance(answer, (list, tuple)) and depth:
        return _list(answer, native=native, first=first, depth=depth)
    message, markers = produced(answer, path, native=native)
    if isinstance(answer, Message):
        return Answer(MESSAGE, [message], markers)
    return Answer(VALUE if isinstance(dumped_model(answer), dict) else TEXT, [message], markers)


def _list(answer: list[Any] | tuple[Any, ...], *, native: bool, first: int, depth: int) -> Answer:
    shapes: list[Any] = []
    messages: list[StoredMessage] = []
    kind = type_name(answer)
    markers = [] if type(answer) is list else [Marker(f"messages[{first}]", kind, "converted")]
    for part in answer:
        shape, more, lacking = _part(part, native=native, first=first + len(messages), depth=depth - 1)
        shapes.append(shape)
        messages += more
        markers += lacking
    return Answer(shapes, messages, markers)


def _text(message: StoredMessage) -> str:
    content = message.value.get("content")
    return content if isinstance(content, str) else Message.read(message.value).text
