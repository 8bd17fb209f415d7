"""The input of a turn, checked before anything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel

from session_history.errors import InvalidMessage
from session_history.records.messages import MessageInput, Role, StoredMessage, freeze, text_message
from session_history.records.values import check, plain

Input = str | MessageInput
"""The new input of a turn: text of the user, or messages."""


def frozen_input(value: Input | Sequence[StoredMessage] | None, *, native: bool) -> list[StoredMessage]:
    """Return an input as messages.

    :raises InvalidMessage: it is not text, a message or a list of messages.
    :raises NotStorable: it would not come back equal.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return freeze(text_message(Role.USER, plain(value), native=native), native=native)
    if isinstance(value, bytes) or not isinstance(value, (BaseModel, dict, Sequence)):
        raise InvalidMessage(
            "the input", f"must be text, a Message, a dict or a list of them, not {type(value).__name__}"
        )
    if isinstance(value, Sequence) and any(isinstance(message, StoredMessage) for message in value):
        return checked_messages(value)
    return freeze(cast("MessageInput", value), native=native)


def checked_messages(messages: Any) -> list[StoredMessage]:
    """Return stored messages of an adapter.

    :raises TypeError: not a list of stored messages.
    :raises NotStorable: one was made past the checks, and would not come back equal.
    """
    for index, message in enumerate(require_stored(messages)):
        check(message.value, f"messages[{index}]")
    return list(messages)


def require_stored(messages: Any) -> Sequence[StoredMessage]:
    """Return the messages. :raises TypeError: not a list of stored messages."""
    if isinstance(messages, StoredMessage) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of StoredMessage, not {type(messages).__name__}")
    for index, message in enumerate(messages):
        if not isinstance(message, StoredMessage):
            kind = type(message).__name__
            raise TypeError(f"messages[{index}] must be a StoredMessage, not {kind}; StoredMessage.checked makes one")
    return messages
