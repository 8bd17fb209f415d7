"""Validators of histories, written for the tests from the documented rules of each API, not from the repair.

``flaws(shape, messages)`` names each reason for which the API of a shape would refuse the messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

Json = dict[str, Any]
Messages = list[Json]


def flaws(shape: str, messages: Messages) -> list[str]:
    """Return the flaws of messages of one shape, one of ``SHAPES``. Messages of role and text may be among them."""
    return list(_VALIDATORS[shape](messages))


def _is_blank(text: object) -> bool:
    return text is None or (isinstance(text, str) and text.strip() == "")


def _dicts(found: object) -> list[Json]:
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _texts(message: Json) -> list[object]:
    """Return the texts of a message with a content of text, or of parts of the type text."""
    content = message.get("content")
    if not isinstance(content, list):
        return [content]
    kinds = {"text", "output_text", "input_text"}
    return [part.get("text") for part in _dicts(content) if part.get("type") in kinds]


def _said(index: int, message: Json) -> Iterable[str]:
    """Every text of an assistant says something, and there is content."""
    if message.get("role") != "assistant":
        return
    if message.get("content") in (None, "", []):
        yield f"{index}: no content"
    elif any(map(_is_blank, _texts(message))):
        yield f"{index}: blank text"


# OpenAI chat: "An assistant message with 'tool_calls' must be followed by tool messages responding to each
# 'tool_call_id'", "messages with role 'tool' must be a response to a preceding message with 'tool_calls'", and
# content is required unless there are tool_calls.


def _chat(messages: Messages) -> Iterable[str]:
    due: Counter[str] = Counter()
    for index, message in enumerate([*messages, {"role": "end"}]):
        if message["role"] == "tool":
            if not due[message["tool_call_id"]]:
                yield f"{index}: no call {message['tool_call_id']} before its result"
            due -= Counter([message["tool_call_id"]])
            continue
        yield from (f"{index}: no result of {call_id}" for call_id in due)
        due = Counter(call["id"] for call in message.get("tool_calls") or [])
        if not due:
            yield from _said(index, message)
        elif isinstance(message.get("content"), list) and any(map(_is_blank, _texts(message))):
            yield f"{index}: blank text"


# OpenAI Responses: "No tool output found for function call …", "No tool call found for function call output …",
# "Item … of type 'reasoning' was provided without its required following item".


def _responses(messages: Messages) -> Iterable[str]:
    due: Counter[str] = Counter()
    for index, item in enumerate([*messages, {"role": "user", "content": "end"}]):
        kind = item.get("type", "message")
        if kind == "reasoning":
            following = messages[index + 1] if index + 1 < len(messages) else {"role": "user"}
            is_output = str(following.get("type")).endswith("_output")
            if is_output or following.get("role", "assistant") != "assistant":
                yield f"{index}: reasoning without the item behind it"
        elif kind == "message":
            yield from _said(index, item)
            if item["role"] != "assistant":
                yield from (f"{index}: no output of {call_id}" for call_id in due)
                due = Counter()
        elif kind.endswith("_output"):
            call_id = item["call_id"]
            if not due[call_id]:
                yield f"{index}: no call {call_id} before its output"
            due -= Counter([call_id])
        elif item.get("call_id"):  # else the provider runs it
            due[item["call_id"]] += 1


# AgentScope Runtime, and our own: as the items, with the call in the data of the content.


def _neutral(messages: Messages) -> Iterable[str]:
    due: Counter[str] = Counter()
    for index, message in enumerate([*messages, {"role": "user", "content": "end"}]):
        kind = message.get("type", "message")
        ids = [part["data"]["call_id"] for part in _dicts(message.get("content")) if part.get("type") == "data"]
        if kind == "message":
            yield from _said(index, message)
            if message["role"] != "assistant":
                yield from (f"{index}: no output of {call_id}" for call_id in due)
                due = Counter()
        elif kind.endswith("_output"):
            yield from (f"{index}: no call {call_id} before its output" for call_id in ids if not due[call_id])
            due -= Counter(ids)
        elif kind.endswith("_call"):
            due.update(ids)


# Blocks: the roles take turns, of one or more messages. A turn of results answers the calls of the turn before.


def _turns(messages: Messages, role_of: Callable[[Json], str]) -> list[tuple[str, Messages]]:
    """Return neighbours of one role together, as the APIs do that merge them."""
    turns: list[tuple[str, Messages]] = []
    for message in messages:
        if not turns or turns[-1][0] != role_of(message):
            turns.append((role_of(message), []))
        turns[-1][1].append(message)
    return turns


def _paired(name: str, calls: list[str], results: list[str]) -> Iterable[str]:
    yield from (f"{name}: no result of {call_id}" for call_id in Counter(calls) - Counter(results))
    yield from (f"{name}: no call {call_id} before its result" for call_id in Counter(results) - Counter(calls))


def _blocks_of(message: Json) -> list[Json]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


# Anthropic: "first message must use the user role"; "`tool_use` ids were found without `tool_result` blocks
# immediately after", "unexpected `tool_use_id` found in `tool_result` blocks"; results come first in the content;
# "text content blocks must contain non-whitespace text"; "The final block in an assistant message cannot be
# `thinking`"; "`web_search` tool use with id … was found without a corresponding `web_search_tool_result` block".


def _anthropic(messages: Messages) -> Iterable[str]:
    if messages and messages[0]["role"] == "assistant":
        yield "0: the assistant comes first"
    turns = _turns(messages, lambda message: str(message["role"]))
    calls: list[str] = []
    hosted: list[str] = []
    for index, (role, turn) in enumerate(turns):
        blocks = [block for message in turn for block in _blocks_of(message)]
        name = f"turn {index} of {role}"
        if any(not message["content"] for message in turn):
            yield f"{name}: an empty message"
        if role != "assistant":
            yield from _paired(name, calls, _results_of_anthropic(turn))
            calls = []
            kinds = [block["type"] == "tool_result" for block in blocks]
            if kinds != sorted(kinds, reverse=True):
                yield f"{name}: a result behind other content"
            if not all(kinds):
                yield from (f"{name}: no result of {call_id} in the assistant's turn" for call_id in hosted)
                hosted = []
            continue
        yield from (f"{name}: blank text" for block in blocks if block["type"] == "text" and _is_blank(block["text"]))
        if blocks and blocks[-1]["type"] in {"thinking", "redacted_thinking"}:
            yield f"{name}: ends in thinking"
        for block in blocks:
            if block["type"] in {"server_tool_use", "mcp_tool_use"}:
                hosted.append(block["id"])
            elif block["type"].endswith("_tool_result"):
                if block["tool_use_id"] in hosted:
                    hosted.remove(block["tool_use_id"])
                else:
                    yield f"{name}: no call {block['tool_use_id']} before its result"
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    yield from _paired("end", calls, [])
    yield from (f"end: no result of {call_id} in the assistant's turn" for call_id in hosted)


def _results_of_anthropic(turn: Messages) -> list[str]:
    """Return the results of the first message of a turn; results of later ones count against it."""
    first, *rest = ([b["tool_use_id"] for b in _blocks_of(m) if b["type"] == "tool_result"] for m in turn)
    return first + [f"late {call_id}" for later in rest for call_id in later]


# Bedrock Converse: "A conversation must start with a user message", "A conversation must alternate between user and
# assistant roles", "Expected toolResult blocks at messages.2.content for the following Ids", "The text field in the
# ContentBlock object is blank".


def _bedrock(messages: Messages) -> Iterable[str]:
    calls: list[str] = []
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role != ("user", "assistant")[index % 2]:
            yield f"{index}: the roles do not alternate, beginning with the user"
        if not content:
            yield f"{index}: no content"
        yield from (f"{index}: blank text" for part in content if "text" in part and _is_blank(part["text"]))
        if role == "user":
            yield from _paired(str(index), calls, [p["toolResult"]["toolUseId"] for p in content if "toolResult" in p])
        elif content and "reasoningContent" in content[-1]:
            yield f"{index}: ends in reasoning"
        calls = [part["toolUse"]["toolUseId"] for part in content if "toolUse" in part] if role != "user" else []
    yield from _paired("end", calls, [])


# Gemini: "Please ensure that function call turn comes immediately after a user turn or after a function response
# turn", "… that the number of function response parts is equal to the number of function call parts of the function
# call turn", "… that function response turn comes immediately after a function call turn"; a part has data.


def _gemini(messages: Messages) -> Iterable[str]:
    if messages and messages[0]["role"] == "model":
        yield "0: the model comes first"
    calls: list[str] = []
    ids: set[str] = set()
    for index, message in enumerate(messages):
        parts = message["parts"]
        answered = {found["id"] for found in map(_response, parts) if "id" in found}
        yield from (f"{index}: no call {call_id} before its response" for call_id in answered - ids if ids)
        ids = {found["id"] for found in map(_function_call, parts) if "id" in found}
        names = [(_function_call(part).get("name"), _response(part).get("name")) for part in parts]
        results = [result for _, result in names if result]
        if not parts:
            yield f"{index}: no parts"
        if message["role"] == "model" and any(list(part) == ["text"] and _is_blank(part["text"]) for part in parts):
            yield f"{index}: blank text"
        yield from _paired(str(index), calls, results)
        if results and len(results) != len(parts) and not all(result for _, result in names[: len(results)]):
            yield f"{index}: a response behind other parts"
        calls = [call for call, _ in names if call]
        if calls and index and messages[index - 1]["role"] == "model":
            yield f"{index}: a call behind the model's own turn"
    yield from _paired("end", calls, [])


def _response(part: Json) -> Json:
    return part.get("functionResponse") or part.get("function_response") or {}


def _function_call(part: Json) -> Json:
    return part.get("functionCall") or part.get("function_call") or {}


# LangChain: what its chat models make of the messages. It sends invalid calls, too.


def _langchain(messages: Messages) -> Iterable[str]:
    yield from _chat([_as_chat(message) for message in messages])


def _as_chat(message: Json) -> Json:
    if "role" in message:
        return message
    data = message["kwargs"] if message.get("lc") else message["data"]
    classes = {"HumanMessage": "human", "AIMessage": "ai", "ToolMessage": "tool", "SystemMessage": "system"}
    kind: str = classes[message["id"][-1]] if message.get("lc") else message["type"]
    if kind == "tool":
        return {"role": "tool", "tool_call_id": data["tool_call_id"], "content": data["content"]}
    role = {"human": "user", "ai": "assistant"}.get(kind, kind)
    more = data.get("additional_kwargs") or {}
    calls = [*(data.get("tool_calls") or []), *(data.get("invalid_tool_calls") or [])] or more.get("tool_calls") or []
    return {"role": role, "content": data["content"], "tool_calls": [call for call in calls if call.get("id")]}


# pydantic-ai: "Cannot provide a new user prompt when the message history contains unprocessed tool calls", and what
# it sends has to pass the API of any model.


def _pydantic_ai(messages: Messages) -> Iterable[str]:
    calls: list[str] = []
    for index, message in enumerate(messages):
        parts = message["parts"]
        if not parts:
            yield f"{index}: no parts"
        if message["kind"] == "request":
            results = [p["tool_call_id"] for p in parts if p["part_kind"] == "tool-return" or p.get("tool_name")]
            yield from _paired(str(index), calls, results)
            calls = []
            continue
        yield from (f"{index}: blank text" for p in parts if p["part_kind"] == "text" and _is_blank(p["content"]))
        following = messages[index + 1]["kind"] if index + 1 < len(messages) else "request"
        if parts and parts[-1]["part_kind"] == "thinking" and following == "request":
            yield f"{index}: ends in thinking"
        calls += [part["tool_call_id"] for part in parts if part["part_kind"] == "tool-call"]
        builtin = [part["tool_call_id"] for part in parts if part["part_kind"] == "builtin-tool-call"]
        returned = [part["tool_call_id"] for part in parts if part["part_kind"] == "builtin-tool-return"]
        yield from _paired(f"builtin {index}", builtin, returned)
    yield from _paired("end", calls, [])


# AI SDK ModelMessage: MissingToolResultsError at the next message of the user or system, or at the end. Calls that the
# provider executes, and calls whose approval was given, need none. The providers refuse blank text, and reasoning
# without what follows it.


def _model_messages(messages: Messages) -> Iterable[str]:  # noqa: PLR0912 - one rule after the other
    due: set[str] = set()
    approved: set[str] = set()
    hosted: list[str] = []
    for index, message in enumerate([*messages, {"role": "user", "content": "end"}]):
        parts = _blocks_of(message)
        if message["role"] in {"user", "system"}:
            yield from (f"{index}: no result of {call_id}" for call_id in sorted(due))
            yield from (f"{index}: no result of {call_id} in the assistant's turn" for call_id in hosted)
            due, approved, hosted = set(), set(), []
        elif message["role"] == "tool":
            for part in parts:
                if part["type"] == "tool-approval-response":
                    due, approved = set(), approved | due
                elif part["toolCallId"] in due | approved:
                    due.discard(part["toolCallId"])
                    approved.discard(part["toolCallId"])
                else:
                    yield f"{index}: no call {part['toolCallId']} before its result"
        else:
            yield from _said(index, message)
            yield from (f"{index}: no result of {call_id} right behind" for call_id in sorted(due))
            due = {p["toolCallId"] for p in parts if p["type"] == "tool-call" and not p.get("providerExecuted")}
            if index == len(messages) - 1:
                due -= {part["toolCallId"] for part in parts if part["type"] == "tool-approval-request"}
            hosted += [p["toolCallId"] for p in parts if p["type"] == "tool-call" and p.get("providerExecuted")]
            for part in parts:
                if part["type"] == "tool-result" and part["toolCallId"] in hosted:
                    hosted.remove(part["toolCallId"])
                elif part["type"] == "tool-result":
                    yield f"{index}: no call {part['toolCallId']} before its result"
            following = messages[index + 1]["role"] if index + 1 < len(messages) else "user"
            if parts and parts[-1]["type"] == "reasoning" and following != "assistant":
                yield f"{index}: ends in reasoning"


# AI SDK UIMessage: convertToModelMessages makes a call of each tool part, and a result of each that has an output or
# an error; a part that waits for an approval may wait in the last message.


def _ui_messages(messages: Messages) -> Iterable[str]:
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        parts = [part for part in message["parts"] if not part["type"].startswith(("data-", "source-", "step-start"))]
        if not parts:
            yield f"{index}: nothing for the model"
        yield from (f"{index}: blank text" for p in parts if p["type"] == "text" and _is_blank(p["text"]))
        for part in parts:
            if part["type"].startswith("tool-") or part["type"] == "dynamic-tool":
                yield from _tool_part(index, part, is_last=index == len(messages) - 1)
        following = messages[index + 1]["role"] if index + 1 < len(messages) else "user"
        if parts and parts[-1]["type"] == "reasoning" and following != "assistant":
            yield f"{index}: ends in reasoning"


def _tool_part(index: int, part: Json, *, is_last: bool) -> Iterable[str]:
    needed = {"output-available": "output", "output-error": "errorText", "output-denied": "approval"}
    state = part["state"]
    if state in {"approval-requested", "approval-responded"} and is_last:
        return
    if state not in needed:
        yield f"{index}: no result of {part['toolCallId']}"
    elif needed[state] not in part or "input" not in part:
        yield f"{index}: {state} without {needed[state]} or input"
    elif state == "output-error" and ("output" in part or not isinstance(part["errorText"], str)):
        yield f"{index}: an error with an output"


# AgentScope 1.x: its formatters make a message of the role ``tool`` of every result, ahead of what else its Msg holds.


def _msgs(messages: Messages) -> Iterable[str]:
    due: Counter[str] = Counter()
    for index, message in enumerate([*messages, {"role": "end", "content": "end"}]):
        parts = _blocks_of(message)
        results = Counter(part["id"] for part in parts if part["type"] == "tool_result")
        yield from (f"{index}: no call {call_id} before its result" for call_id in results - due)
        due -= results
        if results and len(parts) == results.total():
            continue
        yield from (f"{index}: no result of {call_id}" for call_id in due)
        yield from (f"{index}: {call_id} beside other content" for call_id in results)
        is_model = message["role"] == "assistant"
        due = Counter(part["id"] for part in parts if part["type"] == "tool_use") if is_model else Counter()
        yield from _said(index, message)
        following = messages[index + 1]["role"] if index + 1 < len(messages) else "user"
        if is_model and parts and parts[-1]["type"] == "thinking" and following != "assistant":
            yield f"{index}: ends in thinking"


_VALIDATORS: dict[str, Callable[[Messages], Iterable[str]]] = {
    "openai.chat": _chat,
    "openai.responses": _responses,
    "neutral": _neutral,
    "anthropic": _anthropic,
    "agentscope.1": _msgs,
    "bedrock": _bedrock,
    "gemini": _gemini,
    "langchain": _langchain,
    "pydantic-ai": _pydantic_ai,
    "ai-sdk.model": _model_messages,
    "ai-sdk.ui": _ui_messages,
}

SHAPES = list(_VALIDATORS)
