"""Markers: what stands in a message in place of a part that cannot be stored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from session_history_hooks import SessionKey

logger: logging.Logger = logging.getLogger("session_history")

_LOGGED = 20
"""The most markers of a turn that are logged one by one."""

MarkerKind = Literal["replaced", "converted", "too large"]


@dataclass(frozen=True, slots=True)
class Marker:
    """A part of a message that is not stored as it was produced.

    :ivar path: the place of the part in the turn, e.g. ``"messages[2].content[0].data.when"``.
    :ivar type: the name of its type, e.g. ``"datetime.datetime"``.
    :ivar kind: a text stands in its place; or it was converted to the JSON value nearest to it, as a tuple to a list;
        or a text stands in its place since it was too large.
    :ivar size: the characters of a text, the bytes of anything else; ``None`` if that is not known.
    """

    path: str
    type: str
    kind: MarkerKind
    size: int | None = None

    def __str__(self) -> str:
        size = "" if self.size is None else f", size {self.size}"
        return f"{self.path} of type {self.type}{size}: {self.kind}"


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a part: what a marker there must look like to pass the loader of its message's runtime.

    :ivar holder: the dict or list that holds the part; ``None`` for a whole value.
    :ivar key: its key, or its index.
    :ivar outer: the place of the holder.
    """

    holder: Any = None
    key: str | int = ""
    outer: Place | None = None


_PARTS = {"content", "parts", "contents", "blocks"}
"""Keys of lists of parts."""

_LISTS = {"output", "value"}
"""Keys of lists of parts within the result of a tool, where the items have a type."""

_OBJECTS = {"response", "input", "args", "metadata", "additional_kwargs", "response_metadata", "providerMetadata"}
"""Keys whose values must be objects in the messages of some runtime."""

_MEDIA = ("image", "audio", "video", "file", "document", "binary", "media", "inline")
"""Pieces of the names of parts with media: by type, in Bedrock and Gemini by the name of their field."""

_TEXT_PARTS = {
    "output_text": "output_text",
    **dict.fromkeys(("input_text", "input_image", "input_file", "input_audio"), "input_text"),
}
"""Types of text parts in OpenAI's Responses, by the type of a neighbour. Elsewhere it is ``text``."""


def marker_at(place: Place, text: str) -> Any:
    """Return a marker with this text for a place: a text part, an object that holds the text, or the text itself."""
    if isinstance(place.holder, list):
        holder = place.outer
        return _text_part(place.holder, holder.holder, text) if holder is not None and _is_part(place) else text
    if not isinstance(place.holder, dict):
        return text
    if place.key == "content" and "toolUseId" in place.holder:  # Bedrock
        return [{"text": text}]
    if place.key == "arguments":  # of a call of OpenAI: JSON as text
        return to_json({"not_stored": text}).decode()
    is_json = place.key == "json" and len(place.holder) == 1  # Bedrock
    is_object = is_json or (place.key in _OBJECTS and _is_object_field(place.holder))
    return {"not_stored": text} if is_object else text


def _is_part(place: Place) -> bool:
    """Tell whether an item of a list is a part of a message, or of the result of a tool."""
    if not isinstance(place.holder, list) or place.outer is None:
        return False
    is_typed = any(isinstance(item, dict) and "type" in item for item in place.holder)
    return place.outer.key in _PARTS or (place.outer.key in _LISTS and is_typed)


def is_media_part(place: Place, part: dict[str, Any]) -> bool:
    """Tell whether a part of a message, standing at a place, holds an image, a file or the like."""
    if not _is_part(place):
        return False
    kinds = [part[name] for name in ("type", "part_kind", "kind") if isinstance(part.get(name), str)]
    is_tool = any(word in name for name in kinds for word in ("tool", "call", "result"))  # as in tool-readFile
    return not is_tool and any(word in name.lower() for name in kinds or part for word in _MEDIA)


def holds_parts(place: Place, value: list[Any]) -> bool:
    """Tell whether a list, standing at a place, holds the parts of a message."""
    is_content = place.key in _PARTS and isinstance(place.holder, dict)
    return is_content and all(type(part) is dict for part in value)


def list_marker_at(place: Place, text: str) -> Any:
    """Return a marker in place of a whole list: a list of parts becomes one with a text part, any other the text."""
    if place.key in _PARTS and isinstance(place.holder, dict):
        return [_text_part(place.holder[place.key], place.holder, text)]
    return marker_at(place, text)


def _is_object_field(holder: dict[str, Any]) -> bool:
    """Tell whether a dict is a part of a kind whose fields must be objects: not just any JSON."""
    return not holder.keys().isdisjoint({"type", "toolUseId", "name", "role", "id", "part_kind", "kind"})


def _text_part(parts: list[Any], message: Any, text: str) -> Any:
    """Return a text part like its neighbours, in the shape of the message."""
    dicts = [part for part in parts if type(part) is dict]
    fields = set().union(*dicts) if dicts else set()
    message = message if type(message) is dict else {}
    if "part_kind" in fields or message.get("kind") in {"request", "response"}:  # pydantic-ai
        kind = "user-prompt" if message.get("kind") == "request" else "text"
        return {"part_kind": kind, "content": text}
    if message.get("part_kind") == "user-prompt":
        return text
    if "type" in fields:
        types = [part.get("type") for part in dicts]
        return {"type": next((_TEXT_PARTS[kind] for kind in types if kind in _TEXT_PARTS), "text"), "text": text}
    if fields or "toolUseId" in message or ("parts" in message and "id" not in message):  # Bedrock, Gemini
        return {"text": text}
    if any(type(part) is str for part in parts):
        return text
    return {"type": "text", "text": text}


def log_markers(key: SessionKey, markers: Sequence[Marker]) -> None:
    """Tell what is not stored as it was produced, without its content."""
    for marker in markers[:_LOGGED]:
        logger.warning("%s: not stored as it was produced: %s", key, marker)
    if len(markers) > _LOGGED:
        logger.warning("%s: and %d more, see turn.markers", key, len(markers) - _LOGGED)
