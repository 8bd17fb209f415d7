"""The shape of Gemini: contents with ``functionCall`` and ``functionResponse``, also in snake case."""

from __future__ import annotations

from typing import Any

from session_history.view.shapes.base import (
    OMITTED,
    UNKNOWN_OUTCOME,
    Json,
    Kind,
    Part,
    PartsShape,
    Place,
    Reading,
    is_blank,
    or_blank,
    role_of,
    speaker_of,
    text_of,
)

_FIELDS = {
    *("text", "functionCall", "function_call", "functionResponse", "function_response", "inlineData", "inline_data"),
    *("fileData", "file_data", "executableCode", "executable_code", "codeExecutionResult", "code_execution_result"),
    *("thought", "thoughtSignature", "thought_signature"),
}


class Contents(PartsShape):
    """Gemini: parts ``functionCall`` of the model, ``functionResponse`` of the user."""

    place = Place.NEXT
    user_first = True
    call_after_input = True
    field = "parts"

    def read(self, value: Json) -> Reading | None:
        found, role = value.get("parts"), role_of(value)
        if type(found) is not list or role == "assistant" or "kind" in value:
            return None
        if not all(type(part) is dict and "type" not in part and not _FIELDS.isdisjoint(part) for part in found):
            return None
        parts = [self._part(at, part, is_model=role == "model") for at, part in enumerate(found)]
        return Reading(self, speaker_of(role, parts), or_blank(parts) if role == "model" else parts)

    def _part(self, at: int, part: Json, *, is_model: bool) -> Part:
        call = part.get("functionCall") or part.get("function_call")
        if is_model and isinstance(call, dict):
            name = text_of(call.get("name"))
            return Part(Kind.CALL, at, text_of(call.get("id")) or name, name)
        result = part.get("functionResponse") or part.get("function_response")
        if not is_model and isinstance(result, dict):
            name = text_of(result.get("name"))
            return Part(Kind.RESULT, at, text_of(result.get("id")) or name, name)
        said = [name for name, item in part.items() if item is not None]
        # An empty text with a signature of a thought must stay.
        return Part(Kind.BLANK if is_model and said == ["text"] and is_blank(part["text"]) else Kind.CONTENT, at)

    def missing(self, call: Part, asked: Json) -> Json:
        part = asked["parts"][call.at]
        field = "functionResponse" if "functionCall" in part else "function_response"
        asked_for: dict[str, Any] = part.get("functionCall") or part["function_call"]
        named = {name: asked_for[name] for name in ("id", "name") if asked_for.get(name) is not None}
        return {field: {**named, "response": {"error": UNKNOWN_OUTCOME}}}

    def opening(self) -> Json:
        return {"role": "user", "parts": [{"text": OMITTED}]}
