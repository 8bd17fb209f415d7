"""Tests of the effects of a turn: a turn is left out only if it certainly had none."""

from __future__ import annotations

from typing import Any

import pytest

from session_history.records.messages import NATIVE, StoredMessage
from session_history.records.record import Author, Record, Status
from session_history.view.assembly import TurnView, assemble, for_model
from session_history.view.effects import is_harmless

Json = dict[str, Any]

LANGCHAIN = {"additional_kwargs": {}, "response_metadata": {"finish_reason": "tool_calls"}, "name": None, "id": "r1"}
CALLS_OF_LANGCHAIN: Json = {"tool_calls": [], "invalid_tool_calls": [], "usage_metadata": {"output_tokens": 1}}
PYDANTIC = {"usage": {"requests": 1, "tool_calls": 0}, "model_name": "m", "timestamp": "t", "kind": "response"}
ADK = {"author": "host", "invocation_id": "i", "long_running_tool_ids": [], "actions": {"state_delta": {}}}
EXCHANGE = {"id": "m1", "name": "friday", "role": "assistant", "metadata": {}, "timestamp": "2026-01-01"}

HARMLESS: dict[str, Json] = {
    "openai chat": {"role": "assistant", "content": "hm", "refusal": None, "tool_calls": None, "annotations": []},
    "openai chat media": {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
    "openai refusal": {"role": "assistant", "content": None, "refusal": "No."},
    "responses message": {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hm", "annotations": [{"type": "url_citation"}], "logprobs": []}],
    },
    "responses reasoning": {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "…"},
    "anthropic": {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
    "anthropic response": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hm"}],
        "usage": {"server_tool_use": {"web_search_requests": 1}},
    },
    "bedrock": {"role": "assistant", "content": [{"text": "hm"}, {"reasoningContent": {"redactedContent": "x"}}]},
    "gemini": {"role": "model", "parts": [{"text": "hm", "thought": True}, {"inlineData": {"data": "x"}}]},
    "langchain human": {"type": "human", "data": {"content": "hm", **LANGCHAIN, "type": "human"}},
    "langchain ai": {"type": "ai", "data": {"content": "hm", "type": "ai", **LANGCHAIN, **CALLS_OF_LANGCHAIN}},
    "langchain lc": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "AIMessage"],
        "kwargs": {"content": "hm", "type": "ai", **CALLS_OF_LANGCHAIN},
    },
    "pydantic-ai request": {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "hm"}]},
    "pydantic-ai response": {"parts": [{"part_kind": "thinking", "content": "hm", "signature": "s"}], **PYDANTIC},
    "pydantic-ai retry": {
        "kind": "request",
        "parts": [{"part_kind": "retry-prompt", "content": "no", "tool_name": None, "tool_call_id": "p1"}],
    },
    "ai sdk": {"role": "assistant", "content": [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}]},
    "ai sdk ui": {"id": "u", "role": "assistant", "parts": [{"type": "step-start"}, {"type": "text", "text": "hm"}]},
    "agentscope 1": {**EXCHANGE, "content": "hm"},
    "agentscope 2": {
        "id": "m1",
        "name": "friday",
        "role": "assistant",
        "metadata": {},
        "usage": {"output_tokens": 1},
        "content": [{"type": "text", "text": "hm"}, {"type": "data", "source": {"type": "url"}}, {"type": "hint"}],
    },
    "agentscope runtime": {
        "object": "message",
        "type": "reasoning",
        "role": "assistant",
        "status": "completed",
        "error": None,
        "content": [{"object": "content", "type": "text", "text": "hm", "delta": False, "index": 0}],
    },
    "adk": {"content": {"role": "model", "parts": [{"text": "hm"}]}, **ADK},
    "agent framework": {
        "type": "chat_message",
        "role": {"type": "role", "value": "assistant"},
        "contents": [{"type": "text", "text": "hm", "additional_properties": {}}],
    },
}

EFFECTS: dict[str, Json] = {
    "openai chat call": {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
    "openai chat result": {"role": "tool", "tool_call_id": "a", "content": "done"},
    "openai old call": {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
    "openai old result": {"role": "function", "name": "f", "content": "done"},
    "openai old result without a name": {"role": "function", "content": "done"},
    "responses call": {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
    "responses result": {"type": "function_call_output", "call_id": "a", "output": "done"},
    "hosted mcp": {"type": "mcp_call", "id": "mcp_1", "name": "f", "output": "done"},
    "hosted code": {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "outputs": []},
    "hosted search": {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    "anthropic call": {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
    "anthropic result": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "done"}]},
    "anthropic server": {"role": "assistant", "content": [{"type": "server_tool_use", "id": "a"}]},
    "anthropic mcp": {"role": "assistant", "content": [{"type": "mcp_tool_result", "tool_use_id": "a"}]},
    "bedrock call": {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a"}}]},
    "bedrock result": {"role": "user", "content": [{"toolResult": {"toolUseId": "a", "content": []}}]},
    "gemini call": {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
    "gemini result": {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
    "gemini snake": {"role": "user", "parts": [{"function_response": {"name": "f", "response": {}}, "text": None}]},
    "gemini code": {"role": "model", "parts": [{"codeExecutionResult": {"outcome": "OUTCOME_OK"}}]},
    "langchain call": {"type": "ai", "data": {"content": "", "tool_calls": [{"id": "a", "name": "f", "args": {}}]}},
    "langchain result": {"type": "tool", "data": {"content": "done", "tool_call_id": "a", "type": "tool"}},
    "langchain kwargs": {"type": "ai", "data": {"content": "", "additional_kwargs": {"tool_calls": [{"id": "a"}]}}},
    "langchain lc result": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "ToolMessage"],
        "kwargs": {"content": "done", "tool_call_id": "a"},
    },
    "pydantic-ai call": {"parts": [{"part_kind": "tool-call", "tool_name": "f", "tool_call_id": "a"}], **PYDANTIC},
    "pydantic-ai result": {"kind": "request", "parts": [{"part_kind": "tool-return", "content": "done"}]},
    "pydantic-ai builtin": {"parts": [{"part_kind": "builtin-tool-return", "content": "done"}], **PYDANTIC},
    "pydantic-ai retry": {"kind": "request", "parts": [{"part_kind": "retry-prompt", "tool_name": "f"}]},
    "ai sdk call": {"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "a"}]},
    "ai sdk result": {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "a"}]},
    "ai sdk ui": {"role": "assistant", "parts": [{"type": "tool-f", "toolCallId": "a", "state": "output-available"}]},
    "ai sdk ui dynamic": {"role": "assistant", "parts": [{"type": "dynamic-tool", "state": "input-available"}]},
    "ai sdk 4": {"role": "assistant", "content": "", "toolInvocations": [{"state": "result", "toolCallId": "a"}]},
    "agentscope 1": {**EXCHANGE, "role": "system", "content": [{"type": "tool_result", "id": "a", "output": "done"}]},
    "agentscope 2": {"name": "friday", "role": "assistant", "content": [{"type": "tool_call", "id": "a"}]},
    "agentscope runtime": {"type": "plugin_call_output", "role": "tool", "content": [{"type": "data", "data": {}}]},
    "adk": {"content": {"role": "user", "parts": [{"functionResponse": {"name": "f"}}]}, **ADK},
    "adk state": {"content": {"role": "model", "parts": []}, "author": "a", "actions": {"state_delta": {"paid": 1}}},
    "agent framework": {"role": "tool", "contents": [{"type": "function_result", "call_id": "a", "result": "done"}]},
    "unknown field": {"role": "assistant", "content": "hm", "booking": "12A"},
    "unknown part": {"role": "assistant", "content": [{"type": "receipt", "text": "12A"}]},
    "unknown data": {"role": "assistant", "content": [{"type": "data", "data": {"paid": True}}]},
    "unknown role": {"role": "observation", "content": "12A"},
    "unknown shape": {"text": "12A", "sender": "host"},
    "telling name": {"role": "assistant", "content": "hm", "metadata": {"tool_results": ["12A"]}},
}


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_text_media_and_reasoning_of_each_shape_have_no_effect(value: Json) -> None:
    assert is_harmless(StoredMessage(NATIVE, value))


@pytest.mark.parametrize("value", EFFECTS.values(), ids=EFFECTS)
def test_calls_results_and_unknown_shapes_may_have_an_effect(value: Json) -> None:
    assert not is_harmless(StoredMessage(NATIVE, value))


SAID = {"role": "assistant", "content": "hm"}


def turns(*attempts: tuple[str | None, Status, Json]) -> list[TurnView]:
    """Return turns of an id, a status and what was said, each after a question."""
    records = [
        Record(
            Author.TURN,
            0,
            (StoredMessage(NATIVE, {"role": "user", "content": "q"}), StoredMessage(NATIVE, said)),
            status=status,
            turn_id=turn_id,
            answer=(1,) if status in {Status.COMPLETED, Status.INTERRUPTED} else (),  # type: ignore[arg-type]
        )
        for turn_id, status, said in attempts
    ]
    return assemble(enumerate(records, start=1))


def shown(attempts: list[TurnView], turn_id: str | None = None) -> list[int]:
    return [turn.start.seq for turn in for_model(attempts, turn_id)]


@pytest.mark.parametrize("value", EFFECTS.values(), ids=EFFECTS)
def test_failed_turn_with_an_effect_is_shown(value: Json) -> None:
    assert shown(turns(("t", Status.FAILED, value), ("v", Status.COMPLETED, SAID))) == [1, 2]


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_failed_turn_without_an_effect_is_left_out(value: Json) -> None:
    assert shown(turns(("t", Status.FAILED, value), ("v", Status.COMPLETED, SAID))) == [2]


@pytest.mark.parametrize("status", [Status.FAILED, Status.INTERRUPTED, Status.OPEN])
@pytest.mark.parametrize("later", [Status.COMPLETED, Status.INTERRUPTED])
def test_attempt_without_an_effect_is_left_out_if_a_later_one_exists(status: Status, later: Status) -> None:
    assert shown(turns(("t", status, SAID), ("t", later, SAID))) == [2]
    assert shown(turns(("t", status, EFFECTS["bedrock call"]), ("t", later, SAID))) == [1, 2]


@pytest.mark.parametrize("status", [Status.FAILED, Status.INTERRUPTED, Status.OPEN])
def test_attempt_is_shown_to_the_next_one_only_with_an_effect(status: Status) -> None:
    assert shown(turns(("t", status, SAID)), "t") == []
    assert shown(turns(("t", status, EFFECTS["gemini result"])), "t") == [1]


def test_partial_answer_is_shown_if_no_other_attempt_follows() -> None:
    assert shown(turns(("t", Status.INTERRUPTED, SAID), ("v", Status.INTERRUPTED, SAID), (None, Status.OPEN, SAID)))
    assert shown(turns(("t", Status.INTERRUPTED, SAID), ("v", Status.INTERRUPTED, SAID)), "w") == [1, 2]
    assert shown(turns((None, Status.INTERRUPTED, SAID), (None, Status.COMPLETED, SAID))) == [1, 2]
