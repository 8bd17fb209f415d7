"""The shape of LangChain: ``message_to_dict``, and the constructor form of its ``dumpd``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from session_history.view.shapes.base import (
    UNKNOWN_OUTCOME,
    WHOLE,
    Json,
    Kind,
    MessageShape,
    Part,
    Reading,
    Speaker,
    dicts,
    is_blank,
    text_of,
)

_SPEAKERS = {
    "human": Speaker.INPUT,
    "system": Speaker.INPUT,
    "ai": Speaker.MODEL,
    "AIMessageChunk": Speaker.MODEL,
    "HumanMessageChunk": Speaker.INPUT,
    "SystemMessageChunk": Speaker.INPUT,
    "tool": Speaker.RESULTS,
    "ToolMessageChunk": Speaker.RESULTS,
    "HumanMessage": Speaker.INPUT,
    "SystemMessage": Speaker.INPUT,
    "AIMessage": Speaker.MODEL,
    "ToolMessage": Speaker.RESULTS,
}

_CALLS = ("tool_calls", "invalid_tool_calls")
"""A call that was cut while it streamed is an invalid one. LangChain sends both to the model."""


class LangChain(MessageShape):
    """LangChain: ``tool_calls`` of the AI, answered by messages of the type ``tool``."""

    def read(self, value: Json) -> Reading | None:
        field = _field(value)
        if field is None:
            return None
        kind = value["id"][-1] if field == "kwargs" else value["type"]
        speaker = _SPEAKERS.get(kind) if isinstance(kind, str) else None
        if speaker is None:
            return None
        data = value[field]
        if speaker is Speaker.RESULTS:
            return Reading(self, speaker, [Part(Kind.RESULT, WHOLE, text_of(data.get("tool_call_id")))])
        return Reading(self, speaker, _parts(data) if speaker is Speaker.MODEL else [Part(Kind.CONTENT, WHOLE)])

    def without(self, value: Json, removed: Collection[int]) -> Json | None:
        field = _field(value)
        assert field is not None
        content = value[field].get("content")
        if WHOLE in removed or not isinstance(content, list):
            return None
        kept: Any = [part for at, part in enumerate(content) if at not in removed]
        if not kept and not _calls(value[field]):
            return None
        return {**value, field: {**value[field], "content": kept or ""}}

    def missing(self, call: Part, asked: Json) -> Json:
        told = {"content": UNKNOWN_OUTCOME, "tool_call_id": call.call_id, "type": "tool", "status": "error"}
        if _field(asked) == "data":
            return {"type": "tool", "data": told}
        return {"lc": 1, "type": "constructor", "id": [*asked["id"][:-1], "ToolMessage"], "kwargs": told}


def _field(value: Json) -> str | None:
    """Return the field that holds the message; ``None`` for another shape."""
    if isinstance(value.get("data"), dict) and isinstance(value.get("type"), str) and "role" not in value:
        return "data"
    is_constructor = value.get("type") == "constructor" and isinstance(value.get("kwargs"), dict)
    return "kwargs" if is_constructor and isinstance(value.get("id"), list) and value["id"] else None


def _parts(data: Json) -> list[Part]:
    calls = [Part(Kind.CALL, WHOLE, call["id"]) for call in _calls(data)]
    content = data.get("content")
    if not isinstance(content, list):
        if not is_blank(content):
            return [Part(Kind.CONTENT, WHOLE), *calls]
        more = data.get("additional_kwargs")
        return calls or [Part(Kind.CONTENT if isinstance(more, dict) and any(more.values()) else Kind.BLANK, WHOLE)]
    if not content and not calls:
        return [Part(Kind.BLANK, WHOLE)]
    return [*(_part(at, part) for at, part in enumerate(content)), *calls]


def _part(at: int, part: Any) -> Part:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
    return Part(Kind.BLANK if is_blank(text) else Kind.CONTENT, at)


def _calls(data: Json) -> list[Json]:
    found = [call for name in _CALLS for call in dicts(data.get(name))]
    more = data.get("additional_kwargs")
    if not found and isinstance(more, dict):
        found = dicts(more.get("tool_calls"))
    return [call for call in found if isinstance(call.get("id"), str)]
