"""The answer of a handler: turned into messages, and back into the shape it had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from session_history.errors import InvalidMessage
from session_history.records.messages import Message, Role, StoredMessage, freeze, text_message, thaw
from session_history.records.values import DEPTH, plain

TEXT = "text"
MESSAGE = "message"
VALUE = "value"

AnswerShape = str | list[Any] | None
"""``None`` for no answer, one of the three names for one message, a list of shapes for a list or a stream.

Neighbouring pieces of a streamed text are one message.
"""


def to_messages(answer: object, *, native: bool, depth: int = DEPTH) -> tuple[AnswerShape, list[StoredMessage]]:
    """Return the shape of an answer and its messages.

    :param depth: the deepest nesting of lists.
    :raises InvalidMessage: not text, a message, a list of these, or ``None``.
    :raises NotStorable: it would not come back equal.
    """
    if answer is None:
        return None, []
    if isinstance(answer, str):
        return TEXT, freeze(text_message(Role.ASSISTANT, plain(answer), native=native), native=native)
    if isinstance(answer, Message):
        return MESSAGE, freeze(answer, native=native)
    if isinstance(answer, dict):
        return VALUE, freeze(answer, native=native)
    if isinstance(answer, list):
        if depth == 0:
            raise InvalidMessage("the handler's answer", f"is nested more than {DEPTH} levels deep")
        parts = [to_messages(part, native=native, depth=depth - 1) for part in answer]
        return [shape for shape, _ in parts], [message for _, messages in parts for message in messages]
    raise InvalidMessage(
        "the handler's answer", f"is of type {type(answer).__name__}, not text, a message or a list of them"
    )


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


def _text(message: StoredMessage) -> str:
    content = message.value.get("content")
    return content if isinstance(content, str) else Message.read(message.value).text
