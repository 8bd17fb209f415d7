"""Repeats of a turn: a repeat brings the input that was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from session_history.records.messages import WORDS, StoredMessage
from session_history.records.values import encode
from session_history.view.shapes import Speaker, reading_of, speaker


def has_same_messages(given: Sequence[StoredMessage], recorded: Sequence[StoredMessage], *, is_whole: bool) -> bool:
    """Tell whether messages are those that were recorded.

    :param is_whole: there are no more of them; else they may be the first of those that were recorded.
    """
    wanted = list(map(_identity, recorded))
    return list(map(_identity, given)) == (wanted if is_whole else wanted[: len(given)])


def has_same_words(given: Sequence[StoredMessage], recorded: Sequence[StoredMessage]) -> bool:
    """Tell whether a turn began with the same words as the recorded one. More words may follow."""
    words = _first_words(given)
    return has_same_messages(words, _first_words(recorded), is_whole=len(words) < len(given))


def _first_words(messages: Sequence[StoredMessage]) -> list[StoredMessage]:
    """Return the first messages of a turn: those of a user, or the first one of an unknown role."""
    words = list(takewhile(lambda message: message.role in WORDS, messages))
    return words or [message for message in messages[:1] if speaker(message, reading_of(message)) is not Speaker.MODEL]


def _identity(message: StoredMessage) -> tuple[str, bytes]:
    return message.format, encode(message.value, "message")
