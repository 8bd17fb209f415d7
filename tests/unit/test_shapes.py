"""Every shape, cut at every place: what a model sees passes the validator of its API."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_history import Repair
from session_history.records.messages import NATIVE, StoredMessage
from session_history.view.repair import repaired
from session_history.view.shapes import UNKNOWN_OUTCOME
from unit.conversations_of_shapes import CONVERSATIONS, INPUTS
from unit.validators import SHAPES, flaws

Json = dict[str, Any]


def stored(messages: list[Json]) -> list[StoredMessage]:
    return [StoredMessage(NATIVE, message) for message in messages]


def repair(messages: list[Json], **options: bool) -> tuple[list[Json], list[Repair]]:
    shown, repairs = repaired(stored(messages), **options)
    return [message.value for message in shown], repairs


def field_of_parts(message: Json) -> tuple[Json, str] | None:
    """Return the dict and the field that hold the parts of a message."""
    inner = message.get("data") or message.get("kwargs") or message
    return next(((inner, name) for name in ("parts", "content") if isinstance(inner.get(name), list)), None)


def cut_messages(message: Json) -> Iterator[Json]:
    """Yield a message as a stream that is cut leaves it: some of its parts, the last one perhaps without its text."""
    found = copy.deepcopy(message)
    place = field_of_parts(found)
    if place is None:
        inner = found.get("data") or found.get("kwargs") or found
        if isinstance(inner.get("content"), str) and "tool_call_id" not in inner:
            for text in ("", " \n"):
                inner["content"] = text
                yield copy.deepcopy(found)
        return
    inner, name = place
    parts = inner[name]
    for count in range(len(parts)):
        inner[name] = parts[:count]
        yield copy.deepcopy(found)
        part = copy.deepcopy(parts[count])
        if isinstance(part, str):
            inner[name] = [*parts[:count], ""]
            yield copy.deepcopy(found)
        elif "text" in part or ("content" in part and part.get("part_kind") == "text"):
            part["text" if "text" in part else "content"] = " "
            inner[name] = [*parts[:count], part]
            yield copy.deepcopy(found)
        elif str(part.get("state")).startswith("output"):
            for state in ("input-streaming", "input-available", "approval-requested"):
                kept = {key: value for key, value in part.items() if key not in {"output", "errorText"}}
                inner[name] = [*parts[:count], {**kept, "state": state}]
                yield copy.deepcopy(found)


def is_of_user(message: Json) -> bool:
    """Tell whether a message is input: an application checks that ahead of the model, so no stream cuts it."""
    kinds = (message.get("role"), message.get("kind"), message.get("type"))
    return bool({"user", "system", "request", "human"} & set(kinds)) or "HumanMessage" in (message.get("id") or ())


def cuts(name: str) -> Iterator[list[Json]]:
    conversation = CONVERSATIONS[name]
    for stop in range(len(conversation) + 1):
        yield conversation[:stop]
    for index, message in enumerate(conversation):
        if not is_of_user(message):
            for cut in cut_messages(message):
                yield [*conversation[:index], cut]


def results_in(value: Any) -> Counter[str]:
    """Return all results, as text, that no repair made up."""
    if isinstance(value, list):
        return sum((results_in(item) for item in value), Counter())
    if not isinstance(value, dict):
        return Counter()
    is_result = (
        value.get("role") == "tool"
        or str(value.get("type")).endswith(("_output", "tool_result"))
        or value.get("type") in {"tool", "tool-result"}
        or value.get("part_kind") == "tool-return"
        or bool({"toolResult", "functionResponse", "function_response"} & value.keys())
        or value.get("state") == "output-available"
    )
    nested: Counter[str] = sum((results_in(item) for item in value.values()), Counter())
    if not is_result or nested:
        return nested
    return Counter() if UNKNOWN_OUTCOME in str(value) else Counter([str(value)])


@pytest.mark.parametrize("name", SHAPES)
def test_whole_conversation_is_valid_and_comes_back_as_the_same_object(name: str) -> None:
    messages = [*CONVERSATIONS[name], INPUTS[name]]
    if name == "anthropic":
        messages = [*messages[:-1], {"role": "assistant", "content": "Bye."}, INPUTS[name]]
    assert flaws(name, messages) == []
    kept = stored(messages)
    shown, repairs = repaired(kept)
    assert shown is kept
    assert repairs == []


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("follow", [True, False])
def test_conversation_cut_at_any_place_becomes_valid(name: str, follow: bool) -> None:
    count = flawed = 0
    for cut in cuts(name):
        messages = [*cut, INPUTS[name]] if follow else cut
        before = copy.deepcopy(messages)
        shown, repairs = repair(messages)
        assert flaws(name, shown) == [], messages
        assert messages == before
        assert bool(repairs) == bool(flaws(name, messages)), (messages, repairs)
        assert repair(shown) == (shown, []), "not idempotent"
        assert results_in(shown) == results_in(messages)
        assert all(0 <= each.index <= len(shown) for each in repairs)
        assert [each.index for each in repairs] == sorted(each.index for each in repairs)
        count += 1
        flawed += bool(repairs)
    assert count > 8
    assert flawed > 3


@pytest.mark.parametrize("name", SHAPES)
def test_conversation_without_its_beginning_becomes_valid(name: str) -> None:
    conversation = [*CONVERSATIONS[name], INPUTS[name]]
    for start in range(len(conversation)):
        messages = conversation[start:]
        shown, _ = repair(messages)
        assert flaws(name, shown) == [], start
        assert repair(shown) == (shown, [])


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
def test_conversation_with_lost_and_repeated_messages_becomes_valid(name: str, data: st.DataObject) -> None:
    conversation = [copy.deepcopy(message) for message in [*CONVERSATIONS[name], INPUTS[name]]]
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, max(0, len(conversation) - 1)))
        message = conversation.pop(index) if conversation else copy.deepcopy(INPUTS[name])
        for _ in range(data.draw(st.integers(0, 2))):
            conversation.insert(data.draw(st.integers(0, len(conversation))), copy.deepcopy(message))
    shown, _ = repair(conversation)
    assert flaws(name, shown) == []
    assert repair(shown) == (shown, [])


@pytest.mark.parametrize("name", SHAPES)
def test_history_that_grows_keeps_its_repaired_beginning(name: str) -> None:
    for cut in cuts(name):
        begun = [*cut, INPUTS[name]]
        shown, _ = repair(begun)
        grown, _ = repair([*begun, *CONVERSATIONS[name]])
        if name == "bedrock":  # neighbours of one role become one message
            shown, grown = shown[:-1], grown[: len(shown) - 1]
        assert grown[: len(shown)] == shown


@pytest.mark.parametrize("name", SHAPES)
def test_neighbours_of_one_role_become_one_message_if_templates_insist(name: str) -> None:
    messages = [INPUTS[name], INPUTS[name], *CONVERSATIONS[name][-1:], *CONVERSATIONS[name][-1:], INPUTS[name]]
    if name == "anthropic":
        messages[2:4] = [{"role": "assistant", "content": "Bye."}] * 2
    shown, repairs = repair(messages, alternate=True)
    assert len(shown) == 3
    assert [each.kind for each in repairs] == ["messages merged", "messages merged"]
    assert [each.index for each in repairs] == [0, 1]
    assert str(shown[0]).count("and now?") == str(shown[1]).count("Bye.") == 2
    assert flaws(name, shown) == []
    assert repair(shown, alternate=True) == (shown, [])
    if name != "bedrock":
        assert repair(messages) == (messages, [])


# One by one

ASKED: dict[str, tuple[list[Json], Json]] = {
    "bedrock": (
        [INPUTS["bedrock"], {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a", "name": "f"}}]}],
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "a", "content": [{"text": UNKNOWN_OUTCOME}], "status": "error"}},
            ],
        },
    ),
    "gemini": (
        [INPUTS["gemini"], {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "f"}}]}],
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "a", "name": "f", "response": {"error": UNKNOWN_OUTCOME}}}],
        },
    ),
    "gemini in snake case": (
        [INPUTS["gemini"], {"role": "model", "parts": [{"function_call": {"name": "f"}}]}],
        {"role": "user", "parts": [{"function_response": {"name": "f", "response": {"error": UNKNOWN_OUTCOME}}}]},
    ),
    "langchain": (
        [{"type": "ai", "data": {"content": "", "tool_calls": [{"id": "a", "name": "f"}]}}],
        {
            "type": "tool",
            "data": {"content": UNKNOWN_OUTCOME, "tool_call_id": "a", "type": "tool", "status": "error"},
        },
    ),
    "langchain's constructor": (
        [
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "schema", "messages", "AIMessage"],
                "kwargs": {"content": "", "tool_calls": [{"id": "a", "name": "f"}]},
            }
        ],
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", "ToolMessage"],
            "kwargs": {"content": UNKNOWN_OUTCOME, "tool_call_id": "a", "type": "tool", "status": "error"},
        },
    ),
    "pydantic-ai": (
        [{"kind": "response", "parts": [{"part_kind": "tool-call", "tool_name": "f", "tool_call_id": "a"}]}],
        {
            "parts": [
                {
                    "tool_name": "f",
                    "content": UNKNOWN_OUTCOME,
                    "tool_call_id": "a",
                    "metadata": None,
                    "part_kind": "tool-return",
                }
            ],
            "instructions": None,
            "kind": "request",
        },
    ),
    "ai-sdk.model": (
        [{"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "a", "toolName": "f", "input": {}}]}],
        {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "a",
                    "toolName": "f",
                    "output": {"type": "error-text", "value": UNKNOWN_OUTCOME},
                }
            ],
        },
    ),
    "ai-sdk.model 4": (
        [{"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "a", "toolName": "f", "args": {}}]}],
        {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "a",
                    "toolName": "f",
                    "result": UNKNOWN_OUTCOME,
                    "isError": True,
                }
            ],
        },
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_call_without_a_result_gets_one_in_the_form_of_its_shape(name: str) -> None:
    messages, expected = ASKED[name]
    shown, repairs = repair(messages)
    assert shown == [*messages, expected]
    assert [(each.kind, each.index) for each in repairs] == [("result added", len(messages))]
    assert repairs[0].call_id in {"a", "f"}


def test_call_of_a_ui_message_becomes_an_error() -> None:
    asked = {"type": "tool-f", "toolCallId": "a", "state": "input-streaming", "input": {"x": 1}}
    shown, repairs = repair([{"role": "assistant", "parts": [asked]}])
    failed = {**asked, "state": "output-error", "errorText": UNKNOWN_OUTCOME}
    assert shown == [{"role": "assistant", "parts": [failed]}]
    assert repairs == [Repair("result added", "a", 0)]


@pytest.mark.parametrize("name", ["ai-sdk.model", "ai-sdk.ui"])
def test_call_that_waits_for_an_approval_stays_while_nothing_follows(name: str) -> None:
    call = {"type": "tool-call", "toolCallId": "a", "toolName": "f", "input": {}}
    waiting: dict[str, Json] = {
        "ai-sdk.model": {"role": "assistant", "content": [call, {"type": "tool-approval-request", "toolCallId": "a"}]},
        "ai-sdk.ui": {
            "role": "assistant",
            "parts": [{"type": "tool-f", "toolCallId": "a", "state": "approval-requested", "input": {}}],
        },
    }
    asked = waiting[name]
    assert repair([asked]) == ([asked], [])
    shown, repairs = repair([asked, INPUTS[name]])
    assert flaws(name, shown) == []
    assert [each.kind for each in repairs] == ["result added"]


THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}
TEXT = {"type": "text", "text": "well"}
SERVER_CALL = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
SERVER_RESULT = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
QUESTION = {"role": "user", "content": "q"}


def says(*content: Json) -> Json:
    return {"role": "assistant", "content": list(content)}


LEFT_OUT: dict[str, tuple[list[Json], list[Json], list[Repair]]] = {
    "no text": ([{"role": "assistant", "content": ""}], [], [Repair("empty text left out", None, 0)]),
    "no content": ([{"role": "assistant", "content": None}], [], [Repair("empty text left out", None, 0)]),
    "white space": (
        [QUESTION, {"role": "assistant", "content": " \n"}, QUESTION],
        [QUESTION, QUESTION],
        [Repair("empty text left out", None, 1)],
    ),
    "a blank part": (
        [QUESTION, says({"type": "text", "text": ""}, TEXT)],
        [QUESTION, says(TEXT)],
        [Repair("empty text left out", None, 1)],
    ),
    "blank text, with reasoning in a field": (
        [QUESTION, {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": None}],
        [QUESTION],
        [Repair("empty text left out", None, 1)],
    ),
    "thinking at the end": (
        [QUESTION, says(THINKING, TEXT, THINKING), QUESTION],
        [QUESTION, says(THINKING, TEXT), QUESTION],
        [Repair("reasoning left out", None, 1)],
    ),
    "only thinking": ([QUESTION, says(THINKING)], [QUESTION], [Repair("reasoning left out", None, 1)]),
    "a hosted call without a result": (
        [QUESTION, says(TEXT, SERVER_CALL), QUESTION],
        [QUESTION, says(TEXT), QUESTION],
        [Repair("call left out", "s", 1)],
    ),
    "a hosted result without a call": (
        [QUESTION, says(SERVER_RESULT, TEXT), QUESTION],
        [QUESTION, says(TEXT), QUESTION],
        [Repair("result left out", "s", 1)],
    ),
    "thinking ahead of a hosted call": (
        [QUESTION, says(THINKING, SERVER_CALL), QUESTION],
        [QUESTION, QUESTION],
        [Repair("call left out", "s", 1), Repair("reasoning left out", None, 1)],
    ),
    "an mcp call": (
        [QUESTION, says(TEXT, {"type": "mcp_tool_use", "id": "m"})],
        [QUESTION, says(TEXT)],
        [Repair("call left out", "m", 1)],
    ),
    "reasoning items": (
        [QUESTION, {"type": "reasoning", "id": "rs", "summary": []}, {"role": "assistant", "content": " "}],
        [QUESTION],
        [Repair("reasoning left out", None, 1), Repair("empty text left out", None, 1)],
    ),
    "the model first": (
        [says(THINKING, TEXT), {"role": "assistant", "content": "hm"}, QUESTION],
        [QUESTION],
        [Repair("message left out", None, 0), Repair("message left out", None, 0)],
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_part_that_an_api_refuses_is_left_out(name: str) -> None:
    messages, expected, repairs = LEFT_OUT[name]
    assert repair(messages) == (expected, repairs)


def test_greeting_stays_where_no_message_shows_an_api_that_refuses_it() -> None:
    messages = [{"role": "assistant", "content": "Hello!"}, QUESTION]
    assert repair(messages) == (messages, [])


def test_history_that_begins_with_a_call_gets_a_question_ahead_of_it() -> None:
    use, result = CONVERSATIONS["anthropic"][10:12]
    shown, repairs = repair([says(TEXT), use, result])
    assert shown == [{"role": "user", "content": "Earlier messages are left out."}, use, result]
    assert repairs == [Repair("message left out", None, 0), Repair("message added", None, 0)]


def test_neighbours_of_bedrock_become_one_message() -> None:
    question = INPUTS["bedrock"]
    shown, repairs = repair([question, question, {"role": "assistant", "content": [{"text": "a"}]}, question])
    assert [message["content"] for message in shown] == [question["content"] * 2, [{"text": "a"}], question["content"]]
    assert repairs == [Repair("messages merged", None, 0)]


def test_call_of_gemini_behind_the_models_own_text_joins_it() -> None:
    said = {"role": "model", "parts": [{"text": "let me see"}]}
    call = {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}
    result = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}
    shown, repairs = repair([INPUTS["gemini"], said, said, call, result])
    together = {"role": "model", "parts": [*said["parts"], *said["parts"], *call["parts"]]}
    assert shown == [INPUTS["gemini"], together, result]
    assert repairs == [Repair("messages merged", None, 1), Repair("messages merged", None, 1)]


def test_merged_messages_keep_their_other_fields() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
    first = {"role": "assistant", "content": "so", "name": "friday"}
    shown, _ = repair([first, call, {"role": "tool", "tool_call_id": "a", "content": "done"}], alternate=True)
    assert shown[0] == {"role": "assistant", "content": "so", "name": "friday", "tool_calls": [{"id": "a"}]}
    assert len(shown) == 2
