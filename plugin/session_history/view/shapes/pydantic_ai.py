"""The shape of pydantic-ai: requests and responses, each with parts."""

from __future__ import annotations

from typing import Any

from session_history.view.shapes.base import (
    UNKNOWN_OUTCOME,
    Json,
    Kind,
    Part,
    PartsShape,
    Place,
    Reading,
    Speaker,
    is_blank,
    or_blank,
    text_of,
)


class Exchanges(PartsShape):
    """pydantic-ai: parts ``tool-call`` of a response, ``tool-return`` or ``retry-prompt`` of the next request."""

    place = Place.NEXT
    ends_in_reasoning = False
    field = "parts"

    def read(self, value: Json) -> Reading | None:
        kind, found = value.get("kind"), value.get("parts")
        if type(found) is not list or kind not in {"request", "response"}:
            return None
        if kind == "response":
            return Reading(self, Speaker.MODEL, or_blank([_said(at, part) for at, part in enumerate(found)]))
        parts = [_sent(at, part) for at, part in enumerate(found)]
        is_results = bool(parts) and all(part.kind is Kind.RESULT for part in parts)
        return Reading(self, Speaker.RESULTS if is_results else Speaker.INPUT, parts)

    def missing(self, call: Part, asked: Json) -> Json:
        name = asked["parts"][call.at].get("tool_name")
        told: Json = {"tool_name": name, "content": UNKNOWN_OUTCOME, "tool_call_id": call.call_id, "metadata": None}
        when = {"timestamp": asked["timestamp"]} if isinstance(asked.get("timestamp"), str) else {}
        return {**told, **when, "part_kind": "tool-return"}

    def message_of(self, results: list[Json], asked: Json) -> Json:  # noqa: ARG002 - a request has no field of the response
        return {"parts": results, "instructions": None, "kind": "request"}


def _said(at: int, part: Any) -> Part:
    part = part if isinstance(part, dict) else {}
    kind, call_id = str(part.get("part_kind")), text_of(part.get("tool_call_id"))
    if kind == "text" and is_blank(part.get("content")):
        return Part(Kind.BLANK, at)
    if kind == "thinking":
        return Part(Kind.REASONING, at)
    if call_id is not None and kind == "tool-call":
        return Part(Kind.CALL, at, call_id)
    if call_id is not None and kind.endswith("-tool-call"):
        return Part(Kind.HOSTED_CALL, at, call_id)
    if call_id is not None and kind.endswith("-tool-return"):
        return Part(Kind.HOSTED_RESULT, at, call_id)
    return Part(Kind.CONTENT, at)


def _sent(at: int, part: Any) -> Part:
    part = part if isinstance(part, dict) else {}
    kind, call_id = part.get("part_kind"), text_of(part.get("tool_call_id"))
    if call_id is not None and (kind == "tool-return" or (kind == "retry-prompt" and part.get("tool_name"))):
        return Part(Kind.RESULT, at, call_id)
    return Part(Kind.FRAME if kind == "system-prompt" else Kind.CONTENT, at)
