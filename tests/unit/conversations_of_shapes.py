"""One conversation in each shape, with all that its API knows: texts, reasoning, calls at once, hosted tools, media."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def _call(call_id: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


CHAT: list[Json] = [
    {"role": "system", "content": "Be kind."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}],
    },
    {"role": "assistant", "content": "", "tool_calls": [_call("a"), _call("b")]},
    {"role": "tool", "tool_call_id": "b", "content": "done"},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "done"}]},
    {"role": "assistant", "content": None, "tool_calls": [_call("c")], "reasoning_content": "hm"},
    {"role": "tool", "tool_call_id": "c", "content": "done"},
    {"role": "assistant", "content": [{"type": "text", "text": "It is"}, {"type": "text", "text": " done."}]},
    {"role": "user", "content": "thanks"},
    {"role": "assistant", "content": None, "refusal": None, "audio": {"id": "au"}, "tool_calls": [_call("d")]},
    {"role": "tool", "tool_call_id": "d", "content": "done"},
    {"role": "assistant", "content": "Bye."},
]

RESPONSES: list[Json] = [
    {"role": "user", "content": [{"type": "input_text", "text": "look"}]},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "…"},
    {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
    {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": "done"},
    {"type": "function_call_output", "call_id": "b", "output": "done"},
    {"type": "reasoning", "id": "rs_3", "summary": []},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "f", "arguments": "{}", "output": "done"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Done", "annotations": []}, {"type": "refusal", "refusal": "No."}],
    },
    {"role": "user", "content": "thanks"},
    {"type": "reasoning", "id": "rs_4", "summary": []},
    {"role": "assistant", "content": "Bye."},
]


def _neutral(kind: str, call_id: str, **more: str) -> Json:
    role = "tool" if kind.endswith("output") else "assistant"
    return {
        "type": kind,
        "role": role,
        "content": [{"type": "data", "data": {"call_id": call_id, "name": "f", **more}}],
    }


NEUTRAL: list[Json] = [
    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image", "image_url": "data:"}]},
    {"type": "reasoning", "role": "assistant", "content": [{"type": "text", "text": "hm"}]},
    _neutral("plugin_call", "a", arguments="{}"),
    _neutral("mcp_call", "b", arguments="{}"),
    _neutral("mcp_call_output", "b", output="done"),
    _neutral("plugin_call_output", "a", output="done"),
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "It is"}, {"type": "text", "text": " done"}],
    },
    {"role": "user", "content": "thanks"},
    _neutral("function_call", "c", arguments="{}"),
    _neutral("function_call_output", "c", output="done"),
    {"role": "assistant", "content": "Bye."},
]


def _use(call_id: str, kind: str = "tool_use") -> Json:
    return {"type": kind, "id": call_id, "name": "f", "input": {}}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}

ANTHROPIC: list[Json] = [
    {"role": "user", "content": "look"},
    {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "let me see"}, _use("a"), _use("b")]},
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": "done"},
            {"type": "tool_result", "tool_use_id": "a", "content": "done"},
            {"type": "text", "text": "go on"},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "redacted_thinking", "data": "x"},
            _use("s1", "server_tool_use"),
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
            THOUGHT,
            _use("m1", "mcp_tool_use"),
            {"type": "mcp_tool_result", "tool_use_id": "m1", "content": []},
            {"type": "text", "text": "found"},
        ],
    },
    {"role": "user", "content": [{"type": "text", "text": "and with code?"}]},
    {"role": "assistant", "content": [_use("s2", "server_tool_use"), _use("c")]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "done"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "code_execution_tool_result", "tool_use_id": "s2", "content": {}},
            {"type": "text", "text": "Bye."},
        ],
    },
    {"role": "user", "content": "thanks"},
    {"role": "assistant", "content": [THOUGHT]},  # kept block by block
    {"role": "assistant", "content": [_use("d")]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "d", "content": "done"}]},
]


def _msg(role: str, content: str | list[Json]) -> Json:
    return {"id": role, "name": role, "role": role, "content": content, "metadata": {}, "timestamp": "2026-01-01"}


MSGS: list[Json] = [
    _msg("user", "look"),
    _msg("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"}, _use("a"), _use("b")]),
    _msg("system", [{"type": "tool_result", "id": "a", "name": "f", "output": "done"}]),
    _msg("system", [{"type": "tool_result", "id": "b", "name": "f", "output": "done"}]),
    _msg("assistant", [{"type": "text", "text": "Done."}]),
    _msg("user", [{"type": "text", "text": "thanks"}]),
    _msg("assistant", "Bye."),
]


def _tool_use(call_id: str) -> Json:
    return {"toolUse": {"toolUseId": call_id, "name": "f", "input": {}}}


def _tool_result(call_id: str) -> Json:
    return {"toolResult": {"toolUseId": call_id, "content": [{"json": {"done": True}}], "status": "success"}}


BEDROCK: list[Json] = [
    {
        "role": "user",
        "content": [
            {"text": "look"},
            {"document": {"name": "d", "source": {"text": "x"}}},
            {"cachePoint": {"type": "default"}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm"}}},
            {"text": "let me see"},
            _tool_use("a"),
            _tool_use("b"),
        ],
    },
    {"role": "user", "content": [_tool_result("a"), _tool_result("b"), {"text": "go on"}]},
    {"role": "assistant", "content": [_tool_use("c")]},
    {"role": "user", "content": [_tool_result("c")]},
    {"role": "assistant", "content": [{"text": "Done."}]},
    {"role": "user", "content": [{"text": "thanks"}]},
    {"role": "assistant", "content": [{"text": "Bye."}]},
]

GEMINI: list[Json] = [
    {"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": "eA=="}}]},
    {
        "role": "model",
        "parts": [
            {"text": "hm", "thought": True},
            {"text": "let me see"},
            {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "cw=="},
            {"functionCall": {"name": "f", "args": {}}},
            {"functionCall": {"name": "g", "args": {}}},
        ],
    },
    {
        "role": "user",
        "parts": [{"functionResponse": {"name": name, "response": {"output": "done"}}} for name in ("f", "g", "f")],
    },
    {"role": "model", "parts": [{"function_call": {"id": "c", "name": "f", "args": {}}}]},
    {"role": "user", "parts": [{"function_response": {"id": "c", "name": "f", "response": {}}}]},
    {"role": "model", "parts": [{"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}]},
    {"role": "model", "parts": [{"text": "Done."}, {"text": "", "thoughtSignature": "cw=="}]},
    {"role": "user", "parts": [{"text": "thanks"}]},
    {"role": "model", "parts": [{"text": "Bye."}]},
]


def _lc(kind: str, content: Any, **more: Any) -> Json:
    data = {
        "content": content,
        "additional_kwargs": {},
        "response_metadata": {},
        "type": kind,
        "name": None,
        "id": None,
    }
    return {"type": kind, "data": {**data, **more}}


def _constructed(name: str, **kwargs: Any) -> Json:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": kwargs}


LC_CALLS = [{"name": "f", "args": {}, "id": call_id, "type": "tool_call"} for call_id in "ab"]

LANGCHAIN: list[Json] = [
    _lc("human", "look"),
    _lc("ai", "", tool_calls=LC_CALLS, invalid_tool_calls=[]),
    _lc("tool", "done", tool_call_id="b", status="success"),
    _lc("tool", "done", tool_call_id="a", status="success"),
    _lc(
        "ai", [{"type": "text", "text": "let me"}, "see"], tool_calls=[], invalid_tool_calls=[{"id": "c", "args": "{"}]
    ),
    _lc("tool", "no such tool", tool_call_id="c", status="error"),
    _lc("ai", "Done."),
    _constructed("HumanMessage", content="thanks", type="human"),
    _constructed("AIMessage", content="", type="ai", tool_calls=LC_CALLS[:1]),
    _constructed("ToolMessage", content="done", type="tool", tool_call_id="a"),
    _constructed("AIMessage", content="Bye.", type="ai"),
]


def _response(*parts: Json) -> Json:
    return {"parts": list(parts), "model_name": "m", "timestamp": "2026-01-01T00:00:00Z", "kind": "response"}


def _request(*parts: Json) -> Json:
    return {"parts": list(parts), "instructions": None, "kind": "request"}


def _tool_part(kind: str, call_id: str, **more: Any) -> Json:
    return {"part_kind": kind, "tool_name": "f", "tool_call_id": call_id, **more}


PYDANTIC_AI: list[Json] = [
    _request({"part_kind": "system-prompt", "content": "Be kind."}, {"part_kind": "user-prompt", "content": "look"}),
    _response(
        {"part_kind": "thinking", "content": "hm"},
        {"part_kind": "text", "content": "let me see"},
        _tool_part("tool-call", "a", args="{}"),
        _tool_part("tool-call", "b", args={}),
    ),
    _request(
        _tool_part("tool-return", "a", content="done"),
        _tool_part("retry-prompt", "b", content="no"),
        {"part_kind": "user-prompt", "content": "go on"},
    ),
    _response(
        _tool_part("builtin-tool-call", "s", args={}),
        _tool_part("builtin-tool-return", "s", content="done"),
        {"part_kind": "text", "content": "Done."},
    ),
    _request({"part_kind": "retry-prompt", "content": "no", "tool_name": None, "tool_call_id": "p"}),
    _response({"part_kind": "thinking", "content": "hm"}, _tool_part("tool-call", "c", args="{}")),
    _request(_tool_part("tool-return", "c", content="done")),
    _response({"part_kind": "text", "content": "Bye."}),
]


def _tool_call(call_id: str, **more: Any) -> Json:
    return {"type": "tool-call", "toolCallId": call_id, "toolName": "f", "input": {}, **more}


def _result_of(call_id: str) -> Json:
    output = {"type": "json", "value": {"done": True}}
    return {"type": "tool-result", "toolCallId": call_id, "toolName": "f", "output": output}


MODEL_MESSAGES: list[Json] = [
    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "file", "data": "x"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "reasoning", "text": "hm"},
            {"type": "text", "text": "let me see"},
            _tool_call("a"),
            _tool_call("b"),
        ],
    },
    {"role": "tool", "content": [_result_of("a")]},
    {"role": "tool", "content": [_result_of("b")]},
    {
        "role": "assistant",
        "content": [
            {"type": "reasoning", "text": "hm"},
            _tool_call("s", providerExecuted=True),
            _result_of("s"),
            {"type": "text", "text": "Done."},
        ],
    },
    {"role": "user", "content": "thanks"},
    {"role": "assistant", "content": [_tool_call("c"), {"type": "tool-approval-request", "toolCallId": "c"}]},
    {"role": "tool", "content": [{"type": "tool-approval-response", "approvalId": "x", "approved": True}]},
    {"role": "tool", "content": [_result_of("c")]},
    {"role": "assistant", "content": "Bye."},
]


def _ui_tool(call_id: str, state: str, **more: Any) -> Json:
    return {"type": "tool-f", "toolCallId": call_id, "state": state, "input": {}, **more}


UI_MESSAGES: list[Json] = [
    {"id": "1", "role": "user", "parts": [{"type": "text", "text": "look"}]},
    {
        "id": "2",
        "role": "assistant",
        "parts": [
            {"type": "step-start"},
            {"type": "reasoning", "text": "hm", "state": "done"},
            {"type": "text", "text": "let me see"},
            _ui_tool("a", "output-available", output={"done": True}),
            {**_ui_tool("b", "output-error", errorText="no"), "type": "dynamic-tool", "toolName": "f"},
            {"type": "step-start"},
            {"type": "source-url", "sourceId": "x", "url": "https://example.org"},
            {"type": "data-weather", "data": {"sunny": True}},
            {"type": "text", "text": "Done."},
        ],
    },
    {"id": "3", "role": "user", "parts": [{"type": "text", "text": "thanks"}]},
    {"id": "4", "role": "assistant", "parts": [{"type": "text", "text": "Bye."}]},
]

CONVERSATIONS: dict[str, list[Json]] = {
    "openai.chat": CHAT,
    "openai.responses": RESPONSES,
    "neutral": NEUTRAL,
    "anthropic": ANTHROPIC,
    "agentscope.1": MSGS,
    "bedrock": BEDROCK,
    "gemini": GEMINI,
    "langchain": LANGCHAIN,
    "pydantic-ai": PYDANTIC_AI,
    "ai-sdk.model": MODEL_MESSAGES,
    "ai-sdk.ui": UI_MESSAGES,
}

INPUTS: dict[str, Json] = {
    "openai.chat": {"role": "user", "content": "and now?"},
    "openai.responses": {"role": "user", "content": "and now?"},
    "neutral": {"role": "user", "content": "and now?"},
    "anthropic": {"role": "user", "content": "and now?"},
    "agentscope.1": _msg("user", "and now?"),
    "bedrock": {"role": "user", "content": [{"text": "and now?"}]},
    "gemini": {"role": "user", "parts": [{"text": "and now?"}]},
    "langchain": _lc("human", "and now?"),
    "pydantic-ai": _request({"part_kind": "user-prompt", "content": "and now?"}),
    "ai-sdk.model": {"role": "user", "content": "and now?"},
    "ai-sdk.ui": {"id": "5", "role": "user", "parts": [{"type": "text", "text": "and now?"}]},
}
