"""A check that every tool call has one result in its place. It is written for the tests from the formats."""

from __future__ import annotations

from collections import Counter
from typing import Any

Json = dict[str, Any]

OTHERS = ("user", "system", "developer")


def flaws(messages: list[Json]) -> list[str]:
    """Return the flaws for which a model's API would refuse the messages."""
    return [
        *flaws_of_chat(messages),
        *flaws_of_items(messages, item_id),
        *flaws_of_items(messages, neutral_id),
        *flaws_of_blocks(messages),
        *flaws_of_msgs(messages),
    ]


def flaws_of_chat(messages: list[Json]) -> list[str]:
    found = []
    due: Counter[str] = Counter()
    for index, message in enumerate(messages):
        result = message.get("tool_call_id") if message.get("role") == "tool" and not is_item(message) else None
        if result is not None:
            found += [] if due[result] else [f"{index}: an unexpected result of {result}"]
            due -= Counter([result])
            continue
        found += [f"{index}: no result of {call_id} before it" for call_id in due]
        due = Counter(chat_calls(message))
    return found + [f"end: no result of {call_id}" for call_id in due]


def flaws_of_items(messages: list[Json], id_of: Any) -> list[str]:
    found = []
    due: Counter[str] = Counter()
    for index, message in enumerate(messages):
        call_id = id_of(message)
        if call_id is None:
            if message.get("role") in OTHERS and not is_item(message):
                found += [f"{index}: no result of {missing} before it" for missing in due]
                due = Counter()
        elif message["type"].endswith("_call"):
            due[call_id] += 1
        else:
            found += [] if due[call_id] else [f"{index}: an unexpected result of {call_id}"]
            due -= Counter([call_id])
    return found + [f"end: no result of {call_id}" for call_id in due]


def flaws_of_blocks(messages: list[Json]) -> list[str]:
    found = []
    due: Counter[str] = Counter()
    for index, message in enumerate([*messages, {}]):
        if block_calls(message):
            due.update(block_calls(message))
            continue
        results = Counter(block_results(message))
        found += [f"{index}: no result of {call_id}" for call_id in due - results]
        found += [f"{index}: an unexpected result of {call_id}" for call_id in results - due]
        kinds = [is_result(part) for part in blocks(message)] if results else []
        found += [f"{index}: a result behind other content"] if kinds != sorted(kinds, reverse=True) else []
        due = Counter()
    return found


def flaws_of_msgs(messages: list[Json]) -> list[str]:
    """AgentScope 1.x makes a message of the role ``tool`` of every result, ahead of what else its ``Msg`` holds."""
    found = []
    due: Counter[str] = Counter()
    for index, message in enumerate(messages):
        results = Counter(msg_results(message))
        found += [f"{index}: an unexpected result of {call_id}" for call_id in results - due]
        due -= results
        if not results or len(message["content"]) > results.total():
            found += [f"{index}: no result of {call_id} before it" for call_id in due]
            found += [f"{index}: {call_id} beside other content" for call_id in results]
            due = Counter(msg_calls(message))
    return found + [f"end: no result of {call_id}" for call_id in due]


def mentions_tools(message: Json) -> bool:
    return bool(
        is_item(message)
        or chat_calls(message)
        or message.get("role") == "tool"
        or block_calls(message)
        or block_results(message)
        or msg_calls(message)
        or msg_results(message)
    )


def chat_calls(message: Json) -> list[str]:
    if message.get("role") != "assistant" or is_item(message):
        return []
    return [call["id"] for call in message.get("tool_calls") or [] if isinstance(call.get("id"), str)]


def block_calls(message: Json) -> list[str]:
    if message.get("role") != "assistant" or is_item(message) or chat_calls(message):
        return []
    return [part["id"] for part in blocks(message) if part.get("type") == "tool_use"]


def block_results(message: Json) -> list[str]:
    if message.get("role") != "user" or is_item(message):
        return []
    return [part["tool_use_id"] for part in blocks(message) if is_result(part)]


def msg_calls(message: Json) -> list[str]:
    return [part["id"] for part in msg_blocks(message, "tool_use")] if message.get("role") == "assistant" else []


def msg_results(message: Json) -> list[str]:
    return [part["id"] for part in msg_blocks(message, "tool_result")]


def msg_blocks(message: Json, kind: str) -> list[Json]:
    """The blocks of a kind in a message of AgentScope 1.x, which alone has a name and a timestamp."""
    content = message.get("content")
    if not isinstance(content, list) or not {"name", "timestamp"} <= message.keys():
        return []
    return [part for part in content if part.get("type") == kind]


def is_result(part: Json) -> bool:
    return part.get("type") == "tool_result"


def blocks(message: Json) -> list[Json]:
    """The blocks of an Anthropic message; a message of AgentScope has a name and other blocks."""
    content = message.get("content")
    return content if isinstance(content, list) and "name" not in message else []


def is_item(message: Json) -> bool:
    return item_id(message) is not None or neutral_id(message) is not None


def item_id(message: Json) -> str | None:
    found = message.get("call_id") if is_item_kind(message) else None
    return found if isinstance(found, str) else None


def neutral_id(message: Json) -> str | None:
    if not is_item_kind(message) or item_id(message) is not None:
        return None
    for part in message.get("content") or []:
        if isinstance(part, dict) and isinstance(part.get("data"), dict):
            found = part["data"].get("call_id")
            return found if isinstance(found, str) else None
    return None


def is_item_kind(message: Json) -> bool:
    return str(message.get("type")).endswith(("_call", "_output"))
