"""Messages that a handler, a tool or a model produced. They are stored in any case; what cannot be is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from session_history.records.markers import Marker
from session_history.records.messages import (
    NATIVE,
    NEUTRAL,
    WORDS,
    Message,
    Role,
    StoredMessage,
    dumped_model,
    freeze,
    is_message,
    raw_fields,
    text_message,
)
from session_history.records.salvage import marker_text, salvaged, type_name

Produced = tuple[StoredMessage, list[Marker]]


def produced(value: object, path: str, *, native: bool) -> Produced:
    """Return a message as it is stored, and what it lacks. Nothing is refused.

    A dict that is no :class:`Message` is kept as it is. What is no message at all becomes a text of the assistant.

    :param path: the name of the message.
    """
    plainer = dumped_model(value)
    if isinstance(plainer, Message):
        fields, markers = salvaged(raw_fields(plainer), path)
        return StoredMessage(NEUTRAL if is_message(fields) else NATIVE, fields), markers
    if isinstance(plainer, dict):
        fields, markers = salvaged(plainer, path)
        return StoredMessage(NATIVE if native or not is_message(fields) else NEUTRAL, fields), markers
    text = text_message(Role.ASSISTANT, marker_text(value, ""), native=native)
    (message,) = freeze(text, native=native)
    return message, [Marker(path, type_name(value), "replaced")]


def produced_or_refused(values: Any, first: int, *, native: bool) -> tuple[list[StoredMessage], list[Marker]]:
    """Return messages of which some cannot be stored. If a model or a tool produced one of them, nothing is refused.

    :param values: a message, or a sequence of messages.
    :param first: the index of the first message in the turn.
    :raises InvalidMessage: words of a user are not a message, or nothing is.
    :raises NotStorable: words of a user would not come back equal.
    """
    one = isinstance(values, (str, bytes)) or not isinstance(values, Sequence)
    items = [values] if one else list(values)
    if not any(looks_like_message(item, native=native) and not is_words(item) for item in items):
        return freeze(values, native=native), []  # which raises
    kept = [produced(item, f"messages[{first + index}]", native=native) for index, item in enumerate(items)]
    return [message for message, _ in kept], [marker for _, markers in kept for marker in markers]


def looks_like_message(value: object, *, native: bool) -> bool:
    """Tell whether a value is meant as a message: a native one is any JSON object, another one has a role or a type."""
    plainer = dumped_model(value)
    if isinstance(plainer, Message):
        return True
    return isinstance(plainer, dict) and (
        native or any(isinstance(plainer.get(name), str) for name in ("role", "type"))
    )


def is_words(value: object) -> bool:
    """Tell whether a message comes before the model: it is of a user or of the system, and holds no result."""
    message = dumped_model(value)
    fields = raw_fields(message) if isinstance(message, Message) else message
    if not isinstance(fields, dict) or not isinstance(fields.get("role"), str) or fields["role"] not in WORDS:
        return False
    content = fields.get("content", fields.get("parts"))
    parts = content if isinstance(content, (list, tuple)) else []
    return not any(map(_may_be_result, parts))


def _may_be_result(part: object) -> bool:
    part = dumped_model(part)
    if not isinstance(part, Mapping):
        return False
    names = [str(part.get("type")), str(part.get("part_kind")), *map(str, part)]
    return any("esult" in name or "esponse" in name or "tool" in name.lower() for name in names)
