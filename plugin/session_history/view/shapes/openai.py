"""The shapes of OpenAI, and our own: chat messages, items of the Responses API, neutral messages."""

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
    Place,
    Reading,
    Speaker,
    dicts,
    is_blank,
    role_of,
    text_of,
)

_TEXTS = {"text", "output_text"}

_SAYS_NOTHING = {
    *("id", "name", "type", "role", "content", "status", "object", "created_at", "timestamp", "metadata", "usage"),
    *("reasoning", "reasoning_content", "reasoning_details", "thinking", "index", "model", "sequence_number"),
}
"""Fields of an assistant's message that an API does not take for something said."""

_NAMED_BY_ID = "local_shell_call_output"
"""The only output type of OpenAI that has the id of its call as ``id``."""

_MODEL = {"assistant", "model"}


class Chat(MessageShape):
    """OpenAI chat: ``tool_calls`` of the assistant, answered by messages of the role ``tool``.

    Text of an assistant in any other shape is read here, too.
    """

    def read(self, value: Json) -> Reading | None:
        role = role_of(value)
        if role == "tool" or role == "function":  # noqa: PLR1714 - faster
            # One of the old role ``function`` does not name its call.
            return Reading(self, Speaker.RESULTS, [Part(Kind.RESULT, WHOLE, text_of(value.get("tool_call_id")))])
        if role not in _MODEL or value.get("type", "message") != "message":
            return None
        content = value.get("content")
        if type(content) is str and "tool_calls" not in value and not is_blank(content):
            return None  # the usual case
        return self._said(value, content)

    def _said(self, value: Json, content: Any) -> Reading | None:
        calls = [Part(Kind.CALL, WHOLE, call["id"]) for call in calls_of(value)]
        blanks = [] if calls and is_void(content) else _blanks(value)
        others = len(content) - len(blanks) if isinstance(content, list) else 0
        if not calls and not others and any(item and name not in _SAYS_NOTHING for name, item in value.items()):
            return None  # it says something in another field
        if not calls and not blanks:
            return None
        said = [Part(Kind.BLANK, at) for at in blanks] + [Part(Kind.CONTENT, WHOLE)] * others
        return Reading(self, Speaker.MODEL, said + calls)

    def without(self, value: Json, removed: Collection[int]) -> Json | None:
        left = super().without(value, removed)
        return {**value, "content": None} if left is None and calls_of(value) else left

    def missing(self, call: Part, asked: Json) -> Json:  # noqa: ARG002 - the call's id is enough
        return {"role": "tool", "tool_call_id": call.call_id, "content": UNKNOWN_OUTCOME}


def calls_of(value: Json) -> list[Json]:
    """Return the calls of an assistant that have an id."""
    return [call for call in dicts(value.get("tool_calls")) if isinstance(call.get("id"), str)]


def _blanks(value: Json) -> list[int]:
    """Return where the content of an assistant has blank text."""
    content = value.get("content")
    if is_void(content):
        return [WHOLE] if "content" in value else []
    if not isinstance(content, list):
        return []
    return [
        at
        for at, part in enumerate(content)
        if isinstance(part, dict) and part.get("type") in _TEXTS and is_blank(part.get("text"))
    ]


def is_void(content: object) -> bool:
    return content is None or content == [] or is_blank(content)


class Items(MessageShape):
    """OpenAI Responses: items of a ``type`` such as ``function_call`` and ``function_call_output``."""

    place = Place.BEFORE_INPUT
    ends_in_reasoning = False

    def read(self, value: Json) -> Reading | None:
        kind = value.get("type")
        if not isinstance(kind, str):
            return None
        if kind == "reasoning" and "role" not in value and ("summary" in value or "encrypted_content" in value):
            return Reading(self, Speaker.MODEL, [Part(Kind.REASONING, WHOLE)])
        if not kind.endswith(("_call", "_output")):
            return None
        call_id = text_of(value.get("id" if kind == _NAMED_BY_ID else "call_id"))
        if call_id is not None:
            if kind.endswith("_call"):
                return Reading(self, Speaker.MODEL, [Part(Kind.CALL, WHOLE, call_id)])
            return Reading(self, Speaker.RESULTS, [Part(Kind.RESULT, WHOLE, call_id)])
        # The model's provider runs it.
        return Reading(self, Speaker.MODEL, [Part(Kind.CONTENT, WHOLE)]) if "content" not in value else None

    def without(self, value: Json, removed: Collection[int]) -> Json | None:  # noqa: ARG002 - an item has one part
        return None

    def missing(self, call: Part, asked: Json) -> Json:
        kind, call_id = asked["type"], call.call_id
        told: dict[str, dict[str, Any]] = {
            "apply_patch_call": {"status": "failed", "output": UNKNOWN_OUTCOME},
            "shell_call": {"output": [{"stdout": "", "stderr": UNKNOWN_OUTCOME, "outcome": {"type": "timeout"}}]},
            "tool_search_call": {"execution": "client", "status": "incomplete", "tools": []},
        }
        if kind + "_output" == _NAMED_BY_ID:
            return {"type": _NAMED_BY_ID, "id": call_id, "output": UNKNOWN_OUTCOME}
        name = "tool_search_output" if kind == "tool_search_call" else f"{kind}_output"
        return {"type": name, "call_id": call_id, **told.get(kind, {"output": UNKNOWN_OUTCOME})}


class Neutral(MessageShape):
    """AgentScope Runtime and our own: messages of such types, with the call id in the data of the content."""

    place = Place.BEFORE_INPUT

    def read(self, value: Json) -> Reading | None:
        kind = value.get("type")
        if not isinstance(kind, str) or not kind.endswith(("_call", "_output")):
            return None
        told = _data(value)
        if not told:
            return None
        is_call = kind.endswith("_call")
        kind_of = Kind.CALL if is_call else Kind.RESULT
        parts = [Part(kind_of, at, data["call_id"]) for at, data in told]
        return Reading(self, Speaker.MODEL if is_call else Speaker.RESULTS, parts)

    def taken(self, value: Json, at: int) -> Json:
        return {**value, "content": [value["content"][at]]} if len(value["content"]) > 1 else value

    def missing(self, call: Part, asked: Json) -> Json:
        role = {"role": "tool"} if "role" in asked else {}
        name = {name: item for name, item in dict(_data(asked))[call.at].items() if name == "name"}
        data = {"call_id": call.call_id, **name, "output": UNKNOWN_OUTCOME}
        return {"type": f"{asked['type']}_output", **role, "content": [{"type": "data", "data": data}]}


def _data(value: Json) -> list[tuple[int, Json]]:
    """Return the data of the contents that name a call, each with its place; the first of each call."""
    content = value.get("content")
    found: dict[str, tuple[int, Json]] = {}
    for at, part in enumerate(content if isinstance(content, list) else ()):
        data = part.get("data") if isinstance(part, dict) and part.get("type") == "data" else None
        if isinstance(data, dict) and isinstance(data.get("call_id"), str):
            found.setdefault(data["call_id"], (at, data))
    return list(found.values())
