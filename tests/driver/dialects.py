"""The shapes of messages: how each says a question, a call, a result, and how its results are found in a history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class Tool:
    """A call of a tool, and what it gave.

    :ivar name: of the tool; unique, since Gemini may name its calls only by it.
    """

    id: str
    name: str
    output: Any = None


@dataclass
class Saying:
    """Messages that a model says at once.

    :ivar extra: a further value among the parts, or beside them in a field.
    :ivar hosted: calls that its provider runs.
    :ivar with_hosted_results: the hosted calls have their results.
    """

    text: str | None = None
    reasoning: bool = False
    calls: list[Tool] = field(default_factory=list)
    hosted: list[Tool] = field(default_factory=list)
    with_hosted_results: bool = True
    extra: Any = None

    @property
    def handed(self) -> list[Tool]:
        """Return the hosted calls whose results it holds."""
        return self.hosted if self.with_hosted_results else []


class Dialect:
    """A shape. Its messages of the user have ``content`` unless it says otherwise."""

    has_hosted = False
    has_roles = True  # so that words of the user are recognized as such
    holds_extra_parts = False  # a further value stands among the parts

    def question(self, text: Any, name: str) -> Json:
        return {"role": "user", "content": text}

    def said(self, saying: Saying, name: str) -> list[Json]:
        """Return the messages of a saying. :param name: is unique."""
        raise NotImplementedError

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        """Return the messages of results; without results none."""
        raise NotImplementedError


def extra(saying: Saying) -> Json:
    return {} if saying.extra is None else {"metadata": saying.extra}


class Chat(Dialect):
    def said(self, saying: Saying, name: str) -> list[Json]:
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "{}"}} for c in saying.calls
        ]
        message: Json = {"role": "assistant", "content": saying.text, **extra(saying)}
        if calls:
            message["tool_calls"] = calls
        if saying.reasoning:
            message["reasoning_content"] = "hm"
        return [message]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return [{"role": "tool", "tool_call_id": tool.id, "content": tool.output} for tool in tools]


class Responses(Dialect):
    holds_extra_parts = True
    has_hosted = True

    def said(self, saying: Saying, name: str) -> list[Json]:
        items: list[Json] = []
        if saying.reasoning:
            items.append({"type": "reasoning", "id": f"rs_{name}", "summary": []})
        items += [
            {"type": "mcp_call", "id": tool.id, "name": tool.name, "arguments": "{}", "output": tool.output}
            for tool in saying.handed
        ]
        if saying.text is not None or saying.extra is not None:
            parts = [] if saying.text is None else [{"type": "output_text", "text": saying.text, "annotations": []}]
            odd = [] if saying.extra is None else [saying.extra]
            items.append({"type": "message", "id": f"msg_{name}", "role": "assistant", "content": [*parts, *odd]})
        calls = saying.calls
        return [*items, *({"type": "function_call", "call_id": c.id, "name": c.name, "arguments": "{}"} for c in calls)]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return [{"type": "function_call_output", "call_id": tool.id, "output": tool.output} for tool in tools]


class Neutral(Dialect):
    def said(self, saying: Saying, name: str) -> list[Json]:
        items: list[Json] = []
        if saying.reasoning:
            items.append({"type": "reasoning", "role": "assistant", "content": [{"type": "text", "text": "hm"}]})
        if saying.text is not None or saying.extra is not None:
            content = [{"type": "text", "text": saying.text or ""}]
            items.append({"type": "message", "role": "assistant", "content": content, **extra(saying)})
        return [*items, *(self._tool("plugin_call", "assistant", c, arguments="{}") for c in saying.calls)]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return [self._tool("plugin_call_output", "tool", tool, output=tool.output) for tool in tools]

    @staticmethod
    def _tool(kind: str, role: str, tool: Tool, **more: Any) -> Json:
        data = {"call_id": tool.id, "name": tool.name, **more}
        return {"type": kind, "role": role, "content": [{"type": "data", "data": data}]}


class Anthropic(Dialect):
    holds_extra_parts = True
    has_hosted = True

    def said(self, saying: Saying, name: str) -> list[Json]:
        blocks: list[Any] = [{"type": "thinking", "thinking": "hm", "signature": "s"}] if saying.reasoning else []
        for tool in saying.hosted:
            blocks.append({"type": "mcp_tool_use", "id": tool.id, "name": tool.name, "input": {}})
            if saying.with_hosted_results:
                blocks.append({"type": "mcp_tool_result", "tool_use_id": tool.id, "content": tool.output})
        if saying.text is not None:
            blocks.append({"type": "text", "text": saying.text})
        if saying.extra is not None:
            blocks.append(saying.extra)
        blocks += [{"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}} for tool in saying.calls]
        return [{"role": "assistant", "content": blocks}]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        blocks = [{"type": "tool_result", "tool_use_id": tool.id, "content": tool.output} for tool in tools]
        return [{"role": "user", "content": blocks}] if blocks else []


class Msgs(Dialect):
    holds_extra_parts = True

    def question(self, text: Any, name: str) -> Json:
        return self._msg("user", text, name)

    def said(self, saying: Saying, name: str) -> list[Json]:
        blocks: list[Any] = [{"type": "thinking", "thinking": "hm"}] if saying.reasoning else []
        if saying.text is not None:
            blocks.append({"type": "text", "text": saying.text})
        if saying.extra is not None:
            blocks.append(saying.extra)
        blocks += [{"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}} for tool in saying.calls]
        return [self._msg("assistant", blocks, name)]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return [
            self._msg(
                "system", [{"type": "tool_result", "id": t.id, "name": t.name, "output": t.output}], f"{name}.{t.id}"
            )
            for t in tools
        ]

    @staticmethod
    def _msg(role: str, content: Any, name: str) -> Json:
        return {"id": name, "name": role, "role": role, "content": content, "metadata": {}, "timestamp": "2026-01-01"}


class Bedrock(Dialect):
    holds_extra_parts = True

    def question(self, text: Any, name: str) -> Json:
        return {"role": "user", "content": [{"text": text}]}

    def said(self, saying: Saying, name: str) -> list[Json]:
        parts: list[Any] = [{"reasoningContent": {"reasoningText": {"text": "hm"}}}] if saying.reasoning else []
        if saying.text is not None:
            parts.append({"text": saying.text})
        if saying.extra is not None:
            parts.append(saying.extra)
        parts += [{"toolUse": {"toolUseId": tool.id, "name": tool.name, "input": {}}} for tool in saying.calls]
        return [{"role": "assistant", "content": parts}]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        parts = [{"toolResult": {"toolUseId": tool.id, "content": [{"json": tool.output}]}} for tool in tools]
        return [{"role": "user", "content": parts}] if parts else []


class Gemini(Dialect):
    holds_extra_parts = True

    def question(self, text: Any, name: str) -> Json:
        return {"role": "user", "parts": [{"text": text}]}

    def said(self, saying: Saying, name: str) -> list[Json]:
        parts: list[Any] = [{"text": "hm", "thought": True}] if saying.reasoning else []
        if saying.text is not None:
            parts.append({"text": saying.text})
        if saying.extra is not None:
            parts.append(saying.extra)
        parts += [{"functionCall": {"name": tool.name, "args": {}}} for tool in saying.calls]
        return [{"role": "model", "parts": parts}]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        parts = [{"functionResponse": {"name": tool.name, "response": {"output": tool.output}}} for tool in tools]
        return [{"role": "user", "parts": parts}] if parts else []


class LangChain(Dialect):
    has_roles = False

    def question(self, text: Any, name: str) -> Json:
        return self._made("human", "HumanMessage", content=text)

    def said(self, saying: Saying, name: str) -> list[Json]:
        calls = [{"name": tool.name, "args": {}, "id": tool.id, "type": "tool_call"} for tool in saying.calls]
        kwargs = {} if saying.extra is None else {"response_metadata": {"extra": saying.extra}}
        return [self._made("ai", "AIMessage", content=saying.text or "", tool_calls=calls, **kwargs)]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return [self._made("tool", "ToolMessage", content=tool.output, tool_call_id=tool.id) for tool in tools]

    def _made(self, kind: str, name: str, **data: Any) -> Json:
        return {"type": kind, "data": {"additional_kwargs": {}, "type": kind, **data}}


class Constructed(LangChain):
    def _made(self, kind: str, name: str, **data: Any) -> Json:
        path = ["langchain", "schema", "messages", name]
        return {"lc": 1, "type": "constructor", "id": path, "kwargs": {"type": kind, **data}}


class PydanticAI(Dialect):
    has_hosted = True
    has_roles = False

    def question(self, text: Any, name: str) -> Json:
        return self._request([{"part_kind": "user-prompt", "content": text}])

    def said(self, saying: Saying, name: str) -> list[Json]:
        parts: list[Any] = [{"part_kind": "thinking", "content": "hm"}] if saying.reasoning else []
        for tool in saying.hosted:
            parts.append(self._part("builtin-tool-call", tool, args={}))
            if saying.with_hosted_results:
                parts.append(self._part("builtin-tool-return", tool, content=tool.output))
        if saying.text is not None:
            parts.append({"part_kind": "text", "content": saying.text})
        parts += [self._part("tool-call", tool, args={}) for tool in saying.calls]
        more = {} if saying.extra is None else {"provider_details": {"extra": saying.extra}}
        return [{"parts": parts, "model_name": "m", "kind": "response", **more}]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        parts = [self._part("tool-return", tool, content=tool.output) for tool in tools]
        return [self._request(parts)] if parts else []

    @staticmethod
    def _request(parts: list[Json]) -> Json:
        return {"parts": parts, "instructions": None, "kind": "request"}

    @staticmethod
    def _part(kind: str, tool: Tool, **more: Any) -> Json:
        return {"part_kind": kind, "tool_name": tool.name, "tool_call_id": tool.id, **more}


class ModelMessages(Dialect):
    holds_extra_parts = True
    has_hosted = True

    def said(self, saying: Saying, name: str) -> list[Json]:
        parts: list[Any] = [{"type": "reasoning", "text": "hm"}] if saying.reasoning else []
        for tool in saying.hosted:
            parts.append(self._part("tool-call", tool, input={}, providerExecuted=True))
            if saying.with_hosted_results:
                parts.append(self._part("tool-result", tool, output={"type": "json", "value": tool.output}))
        if saying.text is not None:
            parts.append({"type": "text", "text": saying.text})
        if saying.extra is not None:
            parts.append(saying.extra)
        parts += [self._part("tool-call", tool, input={}) for tool in saying.calls]
        return [{"role": "assistant", "content": parts}]

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return [
            {"role": "tool", "content": [self._part("tool-result", t, output={"type": "json", "value": t.output})]}
            for t in tools
        ]

    @staticmethod
    def _part(kind: str, tool: Tool, **more: Any) -> Json:
        return {"type": kind, "toolCallId": tool.id, "toolName": tool.name, **more}


class UIMessages(Dialect):
    def question(self, text: Any, name: str) -> Json:
        return {"id": name, "role": "user", "parts": [{"type": "text", "text": text}]}

    def said(self, saying: Saying, name: str) -> list[Json]:
        return [self.message(saying, [], name)]

    @staticmethod
    def message(saying: Saying, answered: list[Tool], name: str) -> Json:
        parts: list[Any] = [{"type": "step-start"}]
        if saying.reasoning:
            parts.append({"type": "reasoning", "text": "hm", "state": "done"})
        if saying.text is not None:
            parts.append({"type": "text", "text": saying.text})
        if saying.extra is not None:
            parts.append({"type": "data-extra", "data": saying.extra})
        known = {tool.id for tool in answered}
        for tool in saying.calls:
            told = (
                {"state": "output-available", "output": tool.output}
                if tool.id in known
                else {"state": "input-available"}
            )
            parts.append({"type": "tool-f", "toolCallId": tool.id, "input": {}, **told})
        return {"id": name, "role": "assistant", "parts": parts}

    def results(self, tools: list[Tool], name: str) -> list[Json]:
        return []


DIALECTS: dict[str, tuple[str, Dialect]] = {
    "openai.chat": ("openai.chat", Chat()),
    "openai.responses": ("openai.responses", Responses()),
    "neutral": ("neutral", Neutral()),
    "anthropic": ("anthropic", Anthropic()),
    "agentscope.1": ("agentscope.1", Msgs()),
    "bedrock": ("bedrock", Bedrock()),
    "gemini": ("gemini", Gemini()),
    "langchain": ("langchain", LangChain()),
    "langchain constructed": ("langchain", Constructed()),
    "pydantic-ai": ("pydantic-ai", PydanticAI()),
    "ai-sdk.model": ("ai-sdk.model", ModelMessages()),
    "ai-sdk.ui": ("ai-sdk.ui", UIMessages()),
}
"""For each dialect the shape that validates it."""


def results_in(node: Any) -> Iterator[tuple[str, Any]]:  # noqa: PLR0912 - one shape after the other
    """Yield the results in a history of any shape: what names their calls, and the outputs."""
    match node:
        case {"role": "tool", "tool_call_id": str(call), "content": output}:
            yield call, output
        case {"type": "function_call_output", "call_id": str(call), "output": output}:
            yield call, output
        case {"type": "mcp_call", "id": str(call), "output": output}:
            yield call, output
        case {"type": "data", "data": {"call_id": str(call), "output": output}}:
            yield call, output
        case {"type": "tool_result" | "mcp_tool_result", "tool_use_id": str(call), "content": output}:
            yield call, output
        case {"type": "tool_result", "id": str(call), "output": output}:
            yield call, output
        case {"toolResult": {"toolUseId": str(call), "content": [{"json": output}]}}:
            yield call, output
        case {"toolResult": {"toolUseId": str(call), "content": output}}:
            yield call, output
        case {"functionResponse": {"name": str(call), "response": {"output": output}}}:
            yield call, output
        case {"functionResponse": {"name": str(call), "response": output}}:
            yield call, output
        case {"type": "tool", "tool_call_id": str(call), "content": output}:
            yield call, output
        case {"part_kind": "tool-return" | "builtin-tool-return", "tool_call_id": str(call), "content": output}:
            yield call, output
        case {"type": "tool-result", "toolCallId": str(call), "output": {"type": "json", "value": output}}:
            yield call, output
        case {"type": "tool-result", "toolCallId": str(call), "output": output}:
            yield call, output
        case {"type": "tool-f", "toolCallId": str(call), "state": "output-available", "output": output}:
            yield call, output
        case {"type": "tool-f", "toolCallId": str(call), "state": "output-error", "errorText": output}:
            yield call, output
        case dict():
            for inner in node.values():
                yield from results_in(inner)
        case list():
            for inner in node:
                yield from results_in(inner)
