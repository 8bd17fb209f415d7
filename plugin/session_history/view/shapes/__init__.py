"""The shapes of messages that the repair knows: one module for each API, behind one interface."""

from __future__ import annotations

from session_history.records.messages import UNREAD, StoredMessage
from session_history.view.shapes.ai_sdk import ModelMessages, UIMessages
from session_history.view.shapes.anthropic import Blocks, Converse, Msgs
from session_history.view.shapes.base import (
    UNKNOWN_OUTCOME,
    Json,
    Kind,
    Part,
    Place,
    Reading,
    Shape,
    Speaker,
    speaker_of,
)
from session_history.view.shapes.gemini import Contents
from session_history.view.shapes.langchain import LangChain
from session_history.view.shapes.openai import Chat, Items, Neutral
from session_history.view.shapes.pydantic_ai import Exchanges

__all__ = ["UNKNOWN_OUTCOME", "Kind", "Part", "Place", "Reading", "Shape", "Speaker", "read", "reading_of", "speaker"]

CHAT: Shape = Chat()

_TYPED: tuple[Shape, ...] = (LangChain(), Items(), Neutral())
"""Shapes of messages with a ``type`` of their own."""

_WITH_PARTS: tuple[Shape, ...] = (Exchanges(), Contents(), UIMessages())

_MSGS = Msgs()

_WITH_LIST: tuple[Shape, ...] = (_MSGS, ModelMessages(), Converse(), Blocks(), CHAT)

_WITH_TEXT: tuple[Shape, ...] = (_MSGS, CHAT)


def read(value: Json) -> Reading | None:
    """Return what a message holds; ``None`` if it has nothing that the repair looks at, or an unknown shape."""
    shapes = _WITH_TEXT
    if value.get("type", "message") != "message":
        shapes = _TYPED
    elif "parts" in value:
        shapes = _WITH_PARTS
    elif type(value.get("content")) is list:
        shapes = _WITH_LIST
    for shape in shapes:
        reading = shape.read(value)
        if reading is not None:
            return reading
    return None


def reading_of(message: StoredMessage) -> Reading | None:
    """Return what a message holds. It is read once: turns of a process share the messages of their history."""
    if message.is_text:
        return None
    if message.reading is UNREAD:
        message.reading = read(message.value)
    reading: Reading | None = message.reading
    return reading


def speaker(message: StoredMessage, reading: Reading | None) -> Speaker:
    """Return the speaker of a message."""
    return speaker_of(message.role) if reading is None else reading.speaker
