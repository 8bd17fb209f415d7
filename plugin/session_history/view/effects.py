"""Effects of a turn: a turn is left out of a model's history only if it certainly had none.

An allow-list: what is not known to be text, media, reasoning or a plain field counts as an effect.
"""

from __future__ import annotations

from typing import Any

from session_history.records.messages import StoredMessage

_SPEAKERS = {"user", "assistant", "system", "developer", "model", "human", "ai"}
"""Roles, and types of messages, that may speak without a tool."""

_MESSAGES = {"message", "chat_message", "reasoning", "HumanMessageChunk", "AIMessageChunk", "SystemMessageChunk"}
"""Further types of whole messages: OpenAI Responses, AgentScope Runtime, Microsoft Agent Framework, LangChain."""

_CLASSES = {"HumanMessage", "AIMessage", "SystemMessage", *_MESSAGES}
"""Classes of LangChain's constructor form."""

_NESTED = {"content", "contents", "parts", "message"}
"""Fields that hold parts, or a message."""

_PARTS = {
    *("text", "input_text", "output_text", "text_delta", "summary_text", "reasoning_text", "refusal"),
    *("image", "image_url", "input_image", "input_audio", "audio", "audio_url", "video", "video_url", "input_video"),
    *("file", "input_file", "document", "document-url", "image-url", "audio-url", "video-url", "binary", "uri"),
    *("thinking", "redacted_thinking", "reasoning", "redacted-reasoning", "text_reasoning", "hint", "step-start"),
    *("system-prompt", "user-prompt"),
}
"""Types of parts that have no effect. A part of pydantic-ai has its type as ``part_kind``, or as ``kind``."""

_UNTYPED = {
    *("text", "image", "document", "video", "audio", "reasoningContent", "cachePoint", "guardContent"),  # Bedrock
    *("inlineData", "inline_data", "fileData", "file_data", "thought", "thoughtSignature", "thought_signature"),
    *("videoMetadata", "video_metadata"),  # Gemini
}
"""Fields of parts without a type."""

_PLAIN = {
    *("role", "id", "name", "type", "kind", "author", "author_name", "source_id", "msg_id", "message_id", "index"),
    *("status", "state", "phase", "partial", "turn", "tokens", "lang", "example", "prefix", "lc", "sequence_number"),
    *("created", "created_at", "createdAt", "timestamp", "started_at", "finished_at", "completed_at", "time", "date"),
    *("refusal", "reasoning", "reasoning_content", "thinking", "signature", "encrypted_content", "summary"),
    *("stop_reason", "stop_sequence", "finish_reason", "finishReason", "finished_reason", "turn_complete", "branch"),
    *("interrupted", "invocation_id", "invocationId", "run_id", "conversation_id", "response_id", "parent_id"),
    *("model", "model_name", "model_version", "modelVersion", "provider", "provider_name", "provider_url", "object"),
    *("provider_response_id", "instructions", "service_tier", "system_fingerprint", "avg_logprobs", "avgLogprobs"),
    *("metadata", "custom_metadata", "customMetadata", "additional_kwargs", "additional_properties", "attrs"),
    *("provider_details", "provider_specific_fields", "vendor_details", "vendor_metadata", "annotations"),
    *("providerOptions", "providerMetadata", "provider_options", "provider_metadata", "cache_control", "title"),
    *("audio", "images"),
}
"""Fields of a message that hold no call, unless a name in them speaks of one."""

_FREE = {
    *("usage", "usage_metadata", "usageMetadata", "response_metadata", "logprobs", "reasoning_details"),
    *("thinking_blocks", "error", "error_code", "error_message"),
}
"""Fields of a message that hold no call, with any value."""

_TELLING = ("tool", "call", "func", "result", "output", "action", "execut", "response", "command", "observation")
"""Pieces of the names of calls, results and other effects."""


def is_harmless(message: StoredMessage) -> bool:
    """Tell whether a message certainly holds neither a call nor a result of a tool, nor any other effect."""
    return message.is_text or _is_message(message.value)


def _is_message(value: Any) -> bool:
    if type(value) is not dict or not _is_spoken(value):
        return False
    return all([_is_field(name, item) for name, item in value.items()])  # noqa: C419 - a list is faster


def _is_spoken(value: dict[str, Any]) -> bool:
    """Tell whether a message names its speaker, and that this is no tool."""
    role, kind = value.get("role"), value.get("type")
    if isinstance(role, dict):  # Microsoft Agent Framework
        role = role.get("value")
    if kind == "constructor":
        path = value.get("id")
        return isinstance(path, list) and bool(path) and _among(path[-1], _CLASSES)
    if kind is not None and not _among(kind, _SPEAKERS | _MESSAGES):
        return False
    if role is not None:
        return _among(role, _SPEAKERS)
    is_request = _among(value.get("kind"), {"request", "response"})
    return kind is not None or is_request or ("author" in value and _is_spoken_content(value.get("content")))


def _is_spoken_content(content: Any) -> bool:
    """Tell it of the content of an event of Google's ADK."""
    return isinstance(content, dict) and _among(content.get("role"), _SPEAKERS)


def _is_field(name: str, value: Any) -> bool:
    """Tell whether a field of a message has no effect."""
    if _is_void(value) or name in _FREE:
        return True
    if name in _NESTED:
        return _is_content(value)
    if name in {"data", "kwargs"}:  # LangChain
        return _is_message({"role": "ai", **value}) if type(value) is dict else False
    return name in _PLAIN and _is_metadata(value)


def _is_content(value: Any) -> bool:
    if type(value) is list:
        return all([_is_part(part) for part in value])  # noqa: C419 - a list is faster
    if type(value) is dict:
        return _is_message(value)
    return type(value) is str


def _is_part(part: Any) -> bool:
    if type(part) is not dict:
        return type(part) is str
    kind = part.get("type", part.get("part_kind", part.get("kind")))
    if kind is None:
        return all(name in _UNTYPED for name in part)
    if kind == "retry-prompt":  # it has the id of a call even without a call
        return not part.get("tool_name")
    if kind == "data":  # media, of AgentScope 2 and Microsoft Agent Framework; any JSON of others
        return "data" not in part and (type(part.get("source")) is dict or type(part.get("uri")) is str)
    return _among(kind, _PARTS) and _is_metadata(part)


def _is_metadata(value: Any) -> bool:
    """Tell whether no name in a value speaks of a call."""
    if type(value) is dict:
        return all(_is_void(item) or (_is_plain_name(name) and _is_metadata(item)) for name, item in value.items())
    return all(map(_is_metadata, value)) if type(value) is list else True


def _is_plain_name(name: str) -> bool:
    lowered = name.lower()
    return not any(piece in lowered for piece in _TELLING)


def _is_void(value: Any) -> bool:
    """Tell whether nothing is in a value."""
    if type(value) is dict:
        return all(map(_is_void, value.values()))
    return value is None or value is False or (type(value) in {str, list} and not value)


def _among(value: Any, names: set[str]) -> bool:
    return isinstance(value, str) and value in names
