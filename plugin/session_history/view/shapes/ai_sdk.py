"""The shapes of Vercel's AI SDK: ``ModelMessage`` and ``UIMessage``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from session_history.view.shapes.base import (
    UNKNOWN_OUTCOME,
    WHOLE,
    Json,
    Kind,
    Part,
    PartsShape,
    Reading,
    Speaker,
    dicts,
    is_blank,
    or_blank,
    role_of,
    text_of,
)

_OWN = {"tool-call", "tool-result", "reasoning", "tool-approval-request", "tool-approval-response"}
"""Types of parts that no other shape has."""


class ModelMessages(PartsShape):
    """AI SDK ``ModelMessage``: parts ``tool-call`` of the assistant, ``tool-result`` of the role ``tool``."""

    ends_in_reasoning = False

    def read(self, value: Json) -> Reading | None:
        content, role = value.get("content"), role_of(value)
        if type(content) is not list or not any(type(part) is dict and part.get("type") in _OWN for part in content):
            return None
        if role == "tool":
            # An approval answers a call that it does not name.
            return Reading(self, Speaker.RESULTS, [_result(at, part) for at, part in enumerate(content)])
        asked = {part.get("toolCallId") for part in dicts(content) if part.get("type") == "tool-approval-request"}
        parts = [_said(at, part, asked) for at, part in enumerate(content)]
        return Reading(self, Speaker.MODEL, parts) if role == "assistant" else None

    def missing(self, call: Part, asked: Json) -> Json:
        part = asked["content"][call.at]
        told = {"type": "tool-result", "toolCallId": call.call_id, "toolName": part.get("toolName")}
        if "args" in part:  # version 4
            return {**told, "result": UNKNOWN_OUTCOME, "isError": True}
        return {**told, "output": {"type": "error-text", "value": UNKNOWN_OUTCOME}}

    def message_of(self, results: list[Json], asked: Json) -> Json:  # noqa: ARG002 - a message has nothing else
        return {"role": "tool", "content": results}


def _result(at: int, part: Any) -> Part:
    is_result = isinstance(part, dict) and part.get("type") == "tool-result"
    return Part(Kind.RESULT, at, text_of(part.get("toolCallId")) if is_result else None)


def _said(at: int, part: Any, asked: set[Any]) -> Part:
    part = part if isinstance(part, dict) else {}
    kind, call_id = part.get("type"), text_of(part.get("toolCallId"))
    if kind == "text" and is_blank(part.get("text")):
        return Part(Kind.BLANK, at)
    if kind == "reasoning":
        return Part(Kind.REASONING, at)
    if kind == "tool-call" and call_id is not None:
        is_hosted = part.get("providerExecuted") is True
        return Part(Kind.HOSTED_CALL if is_hosted else Kind.CALL, at, call_id, waits=call_id in asked)
    if kind == "tool-result" and call_id is not None:
        return Part(Kind.HOSTED_RESULT, at, call_id)
    return Part(Kind.CONTENT, at)


_DONE = {"output-available", "output-error", "output-denied"}

_WAITING = {"approval-requested", "approval-responded"}


class UIMessages(PartsShape):
    """AI SDK ``UIMessage``: parts ``tool-<name>`` or ``dynamic-tool`` that hold call and result."""

    ends_in_reasoning = False
    field = "parts"

    def read(self, value: Json) -> Reading | None:
        found, role = value.get("parts"), role_of(value)
        if type(found) is not list or role not in {"user", "assistant", "system"} or "kind" in value:
            return None
        if not all(type(part) is dict and isinstance(part.get("type"), str) for part in found):
            return None
        if role != "assistant":
            return Reading(self, Speaker.INPUT, [Part(Kind.CONTENT, WHOLE)])
        return Reading(self, Speaker.MODEL, or_blank([_shown(at, part) for at, part in enumerate(found)]))

    def missing(self, call: Part, asked: Json) -> Json:
        raise NotImplementedError  # a call holds its result

    def completed(self, value: Json, pending: Collection[int]) -> Json:
        return {
            **value,
            "parts": [_failed(part) if at in pending else part for at, part in enumerate(value["parts"])],
        }


def _shown(at: int, part: Json) -> Part:
    kind, state = part["type"], part.get("state")
    if kind == "text":
        return Part(Kind.BLANK if is_blank(part.get("text")) else Kind.CONTENT, at)
    if kind == "reasoning":
        return Part(Kind.REASONING, at)
    is_call = (kind == "dynamic-tool" or kind.startswith("tool-")) and text_of(part.get("toolCallId")) is not None
    if is_call and state not in _DONE:
        return Part(Kind.PENDING, at, part["toolCallId"], waits=state in _WAITING)
    # Neither a custom part nor a source reaches the model.
    is_frame = kind == "step-start" or kind.startswith(("data-", "source-"))
    return Part(Kind.FRAME if is_frame else Kind.CONTENT, at)


def _failed(part: Json) -> Json:
    kept = {name: item for name, item in part.items() if name not in {"output", "approval", "preliminary"}}
    return {**kept, "state": "output-error", "input": part.get("input", {}), "errorText": UNKNOWN_OUTCOME}
