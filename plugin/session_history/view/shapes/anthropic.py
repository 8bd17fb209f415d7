"""The shapes with blocks: Anthropic, Bedrock Converse, and the ``Msg`` of AgentScope 1.x."""

from __future__ import annotations

from typing import Any

from session_history.view.shapes.base import (
    OMITTED,
    UNKNOWN_OUTCOME,
    WHOLE,
    Json,
    Kind,
    Part,
    PartsShape,
    Place,
    Reading,
    is_blank,
    is_noteworthy,
    or_blank,
    role_of,
    speaker_of,
    text_of,
)

_CALLS = {"tool_use": Kind.CALL, "server_tool_use": Kind.HOSTED_CALL, "mcp_tool_use": Kind.HOSTED_CALL}

_REASONING = {"thinking", "redacted_thinking"}


class Blocks(PartsShape):
    """Anthropic: blocks ``tool_use`` of the assistant, ``tool_result`` of the user."""

    place = Place.NEXT
    user_first = True
    ends_in_reasoning = False

    def read(self, value: Json) -> Reading | None:
        content, role = value.get("content"), role_of(value)
        if type(content) is not list or "name" in value:  # a message with a name is a Msg of AgentScope
            return None
        is_model = role == "assistant"
        parts = [self._part(at, part, is_model=is_model) for at, part in enumerate(content)]
        if all([part.kind is Kind.CONTENT or part.kind is Kind.BLANK for part in parts]):  # noqa: C419 - a list is faster
            return None  # nothing that other shapes have not
        return Reading(self, speaker_of(role, parts), parts)

    def _part(self, at: int, part: Any, *, is_model: bool) -> Part:
        kind = text_of(part.get("type")) if type(part) is dict else None
        if not is_model:
            call_id = text_of(part.get("tool_use_id")) if kind == "tool_result" else None
            return Part(Kind.CONTENT if call_id is None else Kind.RESULT, at, call_id)
        if kind == "text" and is_blank(part.get("text")):
            return Part(Kind.BLANK, at)
        if kind in _REASONING and not isinstance(part.get("thinking"), list):  # a list is Mistral's
            return Part(Kind.REASONING, at)
        if kind in _CALLS and text_of(part.get("id")) is not None:
            return Part(_CALLS[kind], at, part["id"])
        if isinstance(kind, str) and kind.endswith("_tool_result") and text_of(part.get("tool_use_id")) is not None:
            return Part(Kind.HOSTED_RESULT, at, part["tool_use_id"])
        return Part(Kind.CONTENT, at)

    def missing(self, call: Part, asked: Json) -> Json:  # noqa: ARG002 - the call's id is enough
        return {"type": "tool_result", "tool_use_id": call.call_id, "content": UNKNOWN_OUTCOME, "is_error": True}


class Converse(PartsShape):
    """Bedrock Converse, and Strands: parts ``toolUse`` of the assistant, ``toolResult`` of the user."""

    place = Place.NEXT
    user_first = True
    alternates = True
    ends_in_reasoning = False

    def read(self, value: Json) -> Reading | None:
        content, role = value.get("content"), role_of(value)
        if type(content) is not list or not content or not all(_is_untyped(part) for part in content):
            return None
        parts = [self._part(at, part, is_model=role == "assistant") for at, part in enumerate(content)]
        return Reading(self, speaker_of(role, parts), parts)

    def _part(self, at: int, part: Json, *, is_model: bool) -> Part:
        use, result = part.get("toolUse"), part.get("toolResult")
        call_id = next((text_of(tool.get("toolUseId")) for tool in (use, result) if isinstance(tool, dict)), None)
        if call_id is not None and result is not None:
            return Part(Kind.HOSTED_RESULT if is_model else Kind.RESULT, at, call_id)
        if call_id is not None and is_model:
            is_hosted = isinstance(use, dict) and use.get("type") == "server_tool_use"
            return Part(Kind.HOSTED_CALL if is_hosted else Kind.CALL, at, call_id)
        if is_model and "reasoningContent" in part:
            return Part(Kind.REASONING, at)
        if is_model and is_blank(part.get("text")):
            return Part(Kind.BLANK, at)
        return Part(Kind.FRAME if "cachePoint" in part else Kind.CONTENT, at)

    def missing(self, call: Part, asked: Json) -> Json:  # noqa: ARG002 - the call's id is enough
        result = {"toolUseId": call.call_id, "content": [{"text": UNKNOWN_OUTCOME}], "status": "error"}
        return {"toolResult": result}

    def opening(self) -> Json:
        return {"role": "user", "content": [{"text": OMITTED}]}


_FIELDS = {
    *("text", "image", "document", "video", "audio", "toolUse", "toolResult", "reasoningContent"),
    *("cachePoint", "guardContent", "citationsContent", "searchResult"),
}


def _is_untyped(part: Any) -> bool:
    return type(part) is dict and "type" not in part and len(part) == 1 and not _FIELDS.isdisjoint(part)


class Msgs(PartsShape):
    """AgentScope 1.x: blocks ``tool_use`` of the assistant, ``tool_result`` of the messages right behind."""

    ends_in_reasoning = False

    def read(self, value: Json) -> Reading | None:
        if "name" not in value or "timestamp" not in value or value.get("tool_calls"):
            return None  # one of AgentScope 2.x has no timestamp
        content, role = value.get("content"), role_of(value)
        is_model = role == "assistant"
        if type(content) is not list:
            return (
                Reading(self, speaker_of(role), [Part(Kind.BLANK, WHOLE)]) if is_model and is_blank(content) else None
            )
        parts = [self._part(at, part, is_model=is_model) for at, part in enumerate(content)]
        parts = or_blank(parts) if is_model else parts
        return Reading(self, speaker_of(role, parts), parts) if is_noteworthy(parts) else None

    def _part(self, at: int, part: Any, *, is_model: bool) -> Part:
        part = part if type(part) is dict else {}
        kind, call_id = part.get("type"), text_of(part.get("id"))
        if kind == "tool_result" and call_id is not None:
            return Part(Kind.RESULT, at, call_id)
        if is_model and kind == "tool_use" and call_id is not None:
            return Part(Kind.CALL, at, call_id)
        if is_model and kind == "thinking":
            return Part(Kind.REASONING, at)
        return Part(Kind.BLANK if is_model and kind == "text" and is_blank(part.get("text")) else Kind.CONTENT, at)

    def missing(self, call: Part, asked: Json) -> Json:
        name = asked["content"][call.at].get("name")
        return {"type": "tool_result", "id": call.call_id, "name": name, "output": UNKNOWN_OUTCOME}

    def message_of(self, results: list[Json], asked: Json) -> Json:
        told = {"content": results, "metadata": {}, "timestamp": asked["timestamp"]}
        return {"id": f"{asked.get('id')}:results", "name": "system", "role": "system", **told}
