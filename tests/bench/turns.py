"""The turns that all stores get: a user's message of about 200 bytes, and an assistant's of about 800."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

WINDOW = 20
"""Turns that are loaded before each."""

USER: Json = {"role": "user", "content": "Where is my order? " * 10}
ASSISTANT: Json = {"role": "assistant", "content": "It left the warehouse this morning and is on its way to you. " * 13}
TURN = [USER, ASSISTANT]


def size(messages: list[Json]) -> int:
    """Bytes of messages as JSON."""
    return sum(len(json.dumps(message, separators=(",", ":"))) for message in messages)


PAYLOAD = size(TURN)


def turn_of(length: int) -> list[Json]:
    """A turn of so many bytes, or the least that there can be."""
    letters = max(0, length - size([{**message, "content": ""} for message in TURN]))
    return [{**USER, "content": "?" * (letters // 5)}, {**ASSISTANT, "content": "!" * (letters - letters // 5)}]
