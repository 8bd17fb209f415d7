"""Tests of the repair of tool calls: a model sees valid messages, and valid messages stay as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_history import Message, Repair, SessionHistoryService, Turn, with_session_history
from session_history.records.messages import NATIVE, StoredMessage
from session_history.view.repair import repaired
from session_history.view.shapes import UNKNOWN_OUTCOME, read
from support import json_lines, same
from unit.pairing import (
    block_calls,
    block_results,
    chat_calls,
    flaws,
    is_item,
    mentions_tools,
    msg_blocks,
    msg_calls,
    msg_results,
)
from unit.validators import flaws as flaws_of_api

Json = dict[str, Any]

HERE = {"user_id": "u", "session_id": "s"}


def repair(messages: list[Json]) -> tuple[list[Json], list[Repair]]:
    shown, repairs = repaired([StoredMessage(NATIVE, message) for message in messages])
    return [message.value for message in shown], repairs


# What the shapes look like


def chat(*call_ids: str) -> Json:
    calls = [{"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for call_id in call_ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def chat_result(call_id: str, text: str = "done") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def item(call_id: str, kind: str = "function") -> Json:
    return {"type": f"{kind}_call", "call_id": call_id, "name": "f", "arguments": "{}"}


def item_result(call_id: str, kind: str = "function", text: str = "done") -> Json:
    return {"type": f"{kind}_call_output", "call_id": call_id, "output": text}


def neutral(call_id: str, kind: str = "plugin") -> Json:
    data = {"call_id": call_id, "name": "f", "arguments": "{}"}
    return {"type": f"{kind}_call", "role": "assistant", "content": [{"type": "data", "data": data}]}


def neutral_result(call_id: str, kind: str = "plugin", text: str = "done") -> Json:
    data = {"call_id": call_id, "name": "f", "output": text}
    return {"type": f"{kind}_call_output", "role": "tool", "content": [{"type": "data", "data": data}]}


def block(*call_ids: str) -> Json:
    uses = [{"type": "tool_use", "id": call_id, "name": "f", "input": {}} for call_id in call_ids]
    return {"role": "assistant", "content": [{"type": "text", "text": "let me see"}, *uses]}


def block_result(*call_ids: str, text: str | None = None) -> Json:
    results = [{"type": "tool_result", "tool_use_id": call_id, "content": "done"} for call_id in call_ids]
    return {"role": "user", "content": [*results, *([] if text is None else [{"type": "text", "text": text}])]}


def msg(*call_ids: str) -> Json:
    uses = [{"type": "tool_use", "id": call_id, "name": f"tool {call_id}", "input": {}} for call_id in call_ids]
    return as_msg("friday", "assistant", [{"type": "text", "text": "let me see"}, *uses])


def msg_result(*call_ids: str, output: str = "done", text: str | None = None) -> Json:
    results = [
        {"type": "tool_result", "id": call_id, "name": f"tool {call_id}", "output": output} for call_id in call_ids
    ]
    return as_msg("system", "system", [*results, *([] if text is None else [{"type": "text", "text": text}])])


def as_msg(name: str, role: str, content: list[Json]) -> Json:
    told = {"metadata": {}, "timestamp": "2026-01-01 00:00:00.000"}
    return {"id": f"a {role}'s", "name": name, "role": role, "content": content, **told}


USER = {"role": "user", "content": "and now?"}
DEVELOPER = {"role": "developer", "content": "be brief"}
SAID = {"role": "assistant", "content": "well"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image", "image_url": "data:"}]}
SYSTEM = {"role": "system", "content": [{"type": "text", "text": "be kind"}]}
REASONING = {"type": "reasoning", "role": "assistant", "content": [{"type": "text", "text": "hm"}]}
SERVER_CALL = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
AGENTSCOPE = {
    "name": "friday",
    "role": "assistant",
    "content": [{"type": "tool_call", "id": "a"}, {"type": "tool_result", "id": "a", "output": []}],
}
NAMED = {"name": "friday", "role": "assistant", "content": [{"type": "tool_use", "id": "a", "input": {}}]}

UNCONCERNED = [USER, SAID, PARTS, SYSTEM, REASONING, SERVER_CALL, AGENTSCOPE, NAMED]

ids = st.sampled_from(["a", "b", "c"])
id_lists = st.lists(ids, min_size=1, max_size=3)
kinds = st.sampled_from(["function", "custom_tool", "shell"])
neutral_kinds = st.sampled_from(["function", "plugin", "mcp"])
user_blocks = st.one_of(
    st.builds(lambda call_id: {"type": "tool_result", "tool_use_id": call_id, "content": "done"}, ids),
    st.just({"type": "text", "text": "look"}),
)
msg_parts = st.one_of(
    st.builds(lambda call_id: {"type": "tool_result", "id": call_id, "name": "f", "output": "done"}, ids),
    st.builds(lambda call_id: {"type": "tool_use", "id": call_id, "name": "f", "input": {}}, ids),
    st.just({"type": "text", "text": "look"}),
)
unconcerned = st.sampled_from(UNCONCERNED).map(copy.deepcopy)
anything = st.one_of(
    unconcerned,
    st.builds(lambda call_ids: chat(*call_ids), id_lists),
    st.builds(chat_result, ids),
    st.builds(item, ids, kinds),
    st.builds(item_result, ids, kinds),
    st.builds(neutral, ids, neutral_kinds),
    st.builds(neutral_result, ids, neutral_kinds),
    st.builds(lambda call_ids: block(*call_ids), id_lists),
    st.builds(lambda parts: {"role": "user", "content": parts}, st.lists(user_blocks, min_size=1, max_size=4)),
    st.builds(lambda call_ids: msg(*call_ids), id_lists),
    st.builds(lambda parts: as_msg("friday", "assistant", parts), st.lists(msg_parts, min_size=1, max_size=4)),
    st.builds(lambda call_ids, text: msg_result(*call_ids, text=text), id_lists, st.sampled_from([None, "hm"])),
)
sessions = st.lists(anything, max_size=12).map(lambda messages: [dict(USER), *messages])


@st.composite
def rounds(draw: st.DrawFn) -> list[Json]:
    """Calls and all their results, as a shape wants them."""
    call_ids = draw(st.lists(ids, min_size=1, max_size=3, unique=True))
    answered = draw(st.permutations(call_ids))
    shape = draw(st.sampled_from(["chat", "items", "neutral", "blocks", "msgs"]))
    if shape == "chat":
        return [chat(*call_ids), *map(chat_result, answered)]
    if shape == "msgs":
        return [msg(*call_ids), *([msg_result(*answered)] if draw(st.booleans()) else map(msg_result, answered))]
    if shape == "blocks":
        together = draw(st.booleans())  # some keep every block as a message
        calls = [block(*call_ids)] if together else [block(call_id) for call_id in call_ids]
        return [*calls, block_result(*answered, text=draw(st.sampled_from([None, "go on"])))]
    call, result = (item, item_result) if shape == "items" else (neutral, neutral_result)
    nothing: list[Json] = []
    between = draw(st.sampled_from([nothing, [SAID], [REASONING]]))
    return [*(call(call_id) for call_id in call_ids), *between, *(result(call_id) for call_id in answered)]


valid_sessions = st.lists(st.one_of(rounds(), unconcerned.map(lambda message: [message])), max_size=6).map(
    lambda parts: [dict(USER), *(message for part in parts for message in part)]
)


@st.composite
def damaged_sessions(draw: st.DrawFn) -> list[Json]:
    """Valid ones of which a few messages were lost, sent twice, or came at another time."""
    messages = [*draw(valid_sessions)]
    for _ in range(draw(st.integers(0, 3))):
        if len(messages) > 1:
            message = messages.pop(draw(st.integers(1, len(messages) - 1)))
            for _ in range(draw(st.integers(0, 2))):
                messages.insert(draw(st.integers(1, len(messages))), copy.deepcopy(message))
    return messages


any_sessions = st.one_of(sessions, damaged_sessions())


def count_results(messages: list[Json]) -> int:
    whole = [message for message in messages if message.get("role") == "tool" or is_item(message)]
    return sum(not str(message.get("type")).endswith("_call") for message in whole) + sum(
        len(block_results(message)) + len(msg_results(message)) for message in messages
    )


def ids_answered_by(message: Json) -> list[str]:
    data = (message.get("content") or [{}])[0]
    inner = data.get("data", {}) if isinstance(data, dict) else {}
    names = (message.get("call_id"), message.get("tool_call_id"), inner.get("call_id"))
    return [name for name in names if name is not None] + block_results(message) + msg_results(message)


@given(any_sessions)
def test_repaired_messages_have_one_result_for_every_call(messages: list[Json]) -> None:
    shown, _ = repair(messages)
    assert flaws(shown) == []


@given(any_sessions)
def test_repair_of_repaired_messages_changes_nothing(messages: list[Json]) -> None:
    once, _ = repaired([StoredMessage(NATIVE, message) for message in messages])
    twice, repairs = repaired(once)
    assert twice is once
    assert repairs == []


@given(valid_sessions)
def test_repair_of_valid_messages_returns_the_same_object(messages: list[Json]) -> None:
    assert flaws(messages) == []
    stored = [StoredMessage(NATIVE, message) for message in messages]
    shown, repairs = repaired(stored)
    assert shown is stored
    assert repairs == []


@given(any_sessions)
def test_repair_is_reported_exactly_if_messages_have_a_flaw(messages: list[Json]) -> None:
    shown, repairs = repair(messages)
    assert bool(repairs) == bool(flaws(messages)) == (not same(shown, messages))


@given(any_sessions)
def test_messages_without_tools_stay_as_they_are(messages: list[Json]) -> None:
    before = copy.deepcopy(messages)
    shown, _ = repair(messages)
    assert same(messages, before)
    mine = {id(message) for message in messages if not mentions_tools(message)}
    kept = [id(message) for message in shown if not mentions_tools(message) and id(message) in mine]
    assert kept == [id(message) for message in messages if not mentions_tools(message)]


@given(any_sessions)
def test_repair_keeps_every_call_and_its_result(messages: list[Json]) -> None:
    shown, repairs = repair(messages)

    def calls(told: list[Json]) -> list[Json]:
        kinds = [str(message.get("type")).endswith("_call") for message in told]
        return [
            call
            for message, is_call in zip(told, kinds, strict=True)
            if is_call or chat_calls(message) or block_calls(message) or msg_calls(message)
            for call in msg_blocks(message, "tool_use") or [message]
        ]

    assert [id(call) for call in calls(shown)] == [id(call) for call in calls(messages)]
    told = [repair.kind for repair in repairs]
    added, left_out = told.count("result added"), told.count("result left out")
    assert count_results(shown) == count_results(messages) + added - left_out
    assert sum("outcome is unknown" in str(message) for message in shown) <= added


@given(any_sessions)
def test_repair_names_the_place_of_its_change(messages: list[Json]) -> None:
    shown, repairs = repair(messages)
    assert [repair.index for repair in repairs] == sorted(repair.index for repair in repairs)
    for done in repairs:
        if done.kind == "result left out":
            assert 0 <= done.index <= len(shown)
        else:
            assert done.call_id in ids_answered_by(shown[done.index])


# One by one

ADDED = [
    ([chat("a")], chat_result("a", UNKNOWN_OUTCOME)),
    ([item("a")], item_result("a", text=UNKNOWN_OUTCOME)),
    (
        [item("a", "custom_tool")],
        item_result("a", "custom_tool", UNKNOWN_OUTCOME),
    ),
    ([neutral("a")], neutral_result("a", text=UNKNOWN_OUTCOME)),
    ([neutral("a", "mcp")], neutral_result("a", "mcp", UNKNOWN_OUTCOME)),
]


@pytest.mark.parametrize(("calls", "expected"), ADDED)
def test_added_result_has_the_shape_of_its_call(calls: list[Json], expected: Json) -> None:
    shown, repairs = repair([*calls, USER])
    assert same(shown, [*calls, expected, USER])
    assert repairs == [Repair("result added", "a", 1)]


def test_call_blocks_without_a_result_get_one() -> None:
    shown, repairs = repair([USER, block("a", "b"), block_result("b", text="hm"), USER])
    told = shown[2]["content"]
    assert [part["type"] for part in told] == ["tool_result", "tool_result", "text"]
    assert [part.get("tool_use_id") for part in told] == ["b", "a", None]
    assert told[1]["is_error"] is True
    assert repairs == [Repair("result added", "a", 2)]


def test_call_blocks_of_an_interrupted_turn_get_results() -> None:
    shown, repairs = repair([USER, block("a", "b"), PARTS])
    assert [message["role"] for message in shown] == ["user", "assistant", "user", "user"]
    assert block_results(shown[2]) == ["a", "b"]
    assert shown[3] is PARTS
    assert repairs == [Repair("result added", "a", 2), Repair("result added", "b", 2)]


def test_result_blocks_of_several_messages_move_into_the_next_message() -> None:
    shown, repairs = repair([USER, block("a"), block("b"), block_result("a"), block_result("b", text="hm")])
    assert [block_results(message) for message in shown] == [[], [], [], ["a", "b"], []]
    assert shown[4]["content"] == [{"type": "text", "text": "hm"}]
    assert repairs == [Repair("result moved", "b", 3)]


def test_neutral_call_without_a_role_gets_a_result_without_a_role() -> None:
    call = {name: value for name, value in neutral("a").items() if name != "role"}
    shown, _ = repair([call])
    assert list(shown[1]) == ["type", "content"]


@pytest.mark.parametrize("kind", ["shell", "apply_patch", "tool_search"])
def test_items_get_results_in_the_shape_of_their_type(kind: str) -> None:
    shown, _ = repair([item("a", kind)])
    expected = {
        "shell": ["type", "call_id", "output"],
        "apply_patch": ["type", "call_id", "status", "output"],
        "tool_search": ["type", "call_id", "execution", "status", "tools"],
    }
    assert list(shown[1]) == expected[kind]
    assert shown[1]["type"] == ("tool_search_output" if kind == "tool_search" else f"{kind}_call_output")


LATE: list[tuple[list[Json], list[int], list[Repair]]] = [
    ([chat("a"), USER, chat_result("a")], [0, 2, 1], [Repair("result moved", "a", 1)]),
    ([chat("a", "b"), chat_result("b"), SAID, chat_result("a")], [0, 1, 3, 2], [Repair("result moved", "a", 2)]),
    ([item("a"), USER, item_result("a")], [0, 2, 1], [Repair("result moved", "a", 1)]),
    ([item("a"), DEVELOPER, item_result("a")], [0, 2, 1], [Repair("result moved", "a", 1)]),
    ([item("a"), SAID, item_result("a")], [0, 1, 2], []),
    ([neutral("a"), neutral("b"), neutral_result("b"), USER, neutral_result("a")], [0, 1, 2, 4, 3],
     [Repair("result moved", "a", 3)]),
    ([USER, block("a"), USER, block_result("a")], [0, 1, 3, 2], [Repair("result moved", "a", 2)]),
    ([USER, block("a"), block("b"), block_result("b", "a")], [0, 1, 2, 3], []),
    ([chat("a"), item("b"), chat_result("a"), item_result("b")], [0, 2, 1, 3], [Repair("result moved", "a", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "order", "expected"), LATE)
def test_late_result_moves_to_its_call(messages: list[Json], order: list[int], expected: list[Repair]) -> None:
    shown, repairs = repair(messages)
    assert same(shown, [messages[index] for index in order])
    assert repairs == expected or not expected
    assert bool(repairs) == (order != sorted(order))


def test_results_without_a_call_and_second_results_are_left_out() -> None:
    messages = [
        chat_result("x"), USER, chat("a"), chat_result("a"), chat_result("a", "again"), SAID,
        item_result("y"), item("b"), item_result("b"), item_result("b", text="again"),
    ]  # fmt: skip
    shown, repairs = repair(messages)
    assert shown == [messages[index] for index in (1, 2, 3, 5, 7, 8)]
    assert repairs == [
        Repair("result left out", "x", 0),
        Repair("result left out", "a", 3),
        Repair("result left out", "y", 4),
        Repair("result left out", "b", 6),
    ]


def test_message_whose_blocks_all_moved_is_left_out() -> None:
    shown, repairs = repair([USER, block_result("x"), SAID, block_result("y", text="hm")])
    assert [message["content"] for message in shown] == ["and now?", "well", [{"type": "text", "text": "hm"}]]
    assert [repair.index for repair in repairs] == [1, 2]


def test_results_behind_other_content_of_a_message_come_first() -> None:
    answer = block_result("a", text="hm")
    answer["content"].reverse()
    shown, repairs = repair([USER, block("a"), answer])
    assert [part["type"] for part in shown[2]["content"]] == ["tool_result", "text"]
    assert repairs == [Repair("result moved", "a", 2)]


def test_call_of_agentscope_1_gets_a_result_in_its_format() -> None:
    shown, repairs = repair([msg("a", "b", "c"), msg_result("b"), USER])
    made_up = [
        {"type": "tool_result", "id": "a", "name": "tool a", "output": UNKNOWN_OUTCOME},
        {"type": "tool_result", "id": "c", "name": "tool c", "output": UNKNOWN_OUTCOME},
    ]
    added = {**as_msg("system", "system", made_up), "id": "a assistant's:results"}
    assert shown == [msg("a", "b", "c"), msg_result("b"), added, USER]
    assert repairs == [Repair("result added", "a", 2), Repair("result added", "c", 2)]


def test_late_result_of_agentscope_1_moves_to_its_call() -> None:
    shown, repairs = repair([msg("a", "b"), msg_result("a", text="hm"), msg_result("b")])
    together = {**msg_result("a", "b"), "id": "a assistant's:results"}
    assert shown == [msg("a", "b"), together, as_msg("system", "system", [{"type": "text", "text": "hm"}])]
    assert repairs == [Repair("result moved", "a", 1), Repair("result moved", "b", 1)]


def test_repeated_call_ids_pair_with_the_nearest_result() -> None:
    crashed, answered = chat("call_0"), [chat("call_0"), chat_result("call_0")]
    shown, repairs = repair([crashed, USER, *answered, USER, *answered])
    assert repairs == [Repair("result added", "call_0", 1)]
    assert shown[2:] == [USER, *answered, USER, *answered]


def test_second_result_does_not_belong_to_an_earlier_call() -> None:
    shown, repairs = repair([chat("a"), USER, chat("a"), chat_result("a"), chat_result("a", "again")])
    assert shown[2:] == [USER, chat("a"), chat_result("a")]
    assert repairs == [Repair("result added", "a", 1), Repair("result left out", "a", 5)]


def test_result_is_added_before_the_next_calls() -> None:
    begun = [item("a"), item("b"), item("c"), item_result("a")]
    shown, repairs = repair([*begun, item("b"), item_result("c"), item_result("b")])
    assert shown == [*begun, item_result("b", text=UNKNOWN_OUTCOME), item("b"), item_result("c"), item_result("b")]
    assert repairs == [Repair("result added", "b", 4)]


NOTHING_WE_KNOW: list[list[Json]] = [
    [AGENTSCOPE, NAMED],
    [{"name": "friday", "timestamp": "", "content": [{"type": "tool_use"}, {"type": "tool_result", "id": 5}, "text"]}],
    [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "1"},
    ],
    [chat("a"), {"role": "tool", "content": "done", "tool_call_ids": ["a"]}, USER],
    [{"role": "assistant", "tool_calls": None}, {"role": "assistant", "tool_calls": ["a", {"id": 5}]}],
    [{"role": "user", "content": [{"type": "tool_result"}, {"type": "tool_result", "tool_use_id": 5}]}],
    [{"role": "assistant", "content": [{"type": "tool_use"}, "text", None]}],
    [{"type": "function_call"}, {"type": "function_call_output", "call_id": None, "content": [{"type": "data"}]}],
    [{"type": ["function_call"], "call_id": "a"}, {"type": "mcp_call", "id": "m", "output": None}],
    [{"role": "host", "parts": [{"functionCall": 5}]}, {"role": ["tool"], "tool_call_id": "a"}],
]


@pytest.mark.parametrize("messages", NOTHING_WE_KNOW)
def test_messages_of_an_unknown_shape_stay_as_they_are(messages: list[Json]) -> None:
    stored = [StoredMessage(NATIVE, message) for message in messages]
    shown, repairs = repaired(stored)
    assert shown is stored
    assert repairs == []


# Real conversations, cut anywhere


def test_conversations_cut_at_any_message_become_valid(shared: Path) -> None:
    cuts = repairs_seen = 0
    for file in sorted(shared.glob("data/*/sessions.jsonl")):
        for row in json_lines(file):
            messages = [StoredMessage(NATIVE, message) for message in [USER, *row["messages"]]]
            whole, repairs = repaired(messages)
            if row["format"] not in APIS and not flaws(row["messages"]):
                assert whole is messages, row["session_id"]
            for stop in range(len(messages) + 1):
                shown, repairs = repaired(messages[:stop])
                values = [message.value for message in shown]
                assert flaws(values) == [] or row["format"] == "swe-agent.history", (row["session_id"], stop)
                cuts += 1
                repairs_seen += bool(repairs)
    assert cuts > 500
    assert repairs_seen > 15


APIS = {
    "openai.responses": "openai.responses",
    "anthropic.messages": "anthropic",
    "bedrock.converse": "bedrock",
    "google.contents": "gemini",
}
"""Formats of the corpora that are one API's own, and the shape's validator."""


def test_conversations_of_apis_cut_at_any_message_become_valid(shared: Path) -> None:
    cuts = repairs_seen = 0
    for file in sorted(shared.glob("data/*/sessions.jsonl")):
        for row in json_lines(file):
            name = APIS.get(row["format"], "")
            for stop in range(len(row["messages"]) + 1) if name else ():
                messages = row["messages"][:stop]
                shown, repairs = repair(messages)
                assert flaws_of_api(name, shown) == [], (row["session_id"], stop)
                assert bool(repairs) == bool(flaws_of_api(name, messages)), (row["session_id"], stop)
                cuts += 1
                repairs_seen += bool(repairs)
    assert cuts > 5
    assert repairs_seen > 0


# A turn


async def history(service: SessionHistoryService, **options: Any) -> tuple[list[Any], list[Repair]]:
    async with service.turn("u", "s", **options) as turn:
        return turn.history, turn.repairs


async def say(service: SessionHistoryService, messages: list[Json], error: type[BaseException] | None = None) -> None:
    try:
        async with service.turn("u", "s", native=True) as turn:
            turn.add(messages)
            if error is not None:
                raise error
    except (RuntimeError, TimeoutError):
        assert error is not None


async def test_turn_shows_a_result_for_an_interrupted_call_and_the_log_keeps_none(
    service: SessionHistoryService,
) -> None:
    await say(service, [USER, chat("a", "b"), chat_result("b")], TimeoutError)
    shown, repairs = await history(service, native=True)
    assert flaws(shown) == []
    assert shown[:3] == [USER, chat("a", "b"), chat_result("b")]
    assert repairs == [Repair("result added", "a", 3)]
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    assert session.messages == [USER, chat("a", "b"), chat_result("b")]


async def test_failed_turn_that_is_shown_has_valid_messages(service: SessionHistoryService) -> None:
    await say(service, [USER, SAID], RuntimeError)
    await say(service, [USER, block("a"), block_result("a"), block("b", "c")], RuntimeError)
    await say(service, [USER, SAID])
    shown, repairs = await history(service, native=True)
    assert flaws(shown) == []
    assert [message["role"] for message in shown] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "user",
        "assistant",
    ]
    assert [(repair.kind, repair.call_id) for repair in repairs] == [("result added", "b"), ("result added", "c")]


async def test_neutral_messages_are_repaired(service: SessionHistoryService) -> None:
    session = await service.create_session("u", "s")
    await service.append_message(session, [{"role": "user", "content": "hi"}, neutral("a")])
    shown, repairs = await history(service)
    assert [message.type for message in shown] == ["message", "plugin_call", "plugin_call_output"]
    assert {type(message) for message in shown} == {Message}
    assert shown[2].role == "tool"
    assert repairs == [Repair("result added", "a", 2)]


def test_output_of_a_local_shell_has_the_id_of_its_call() -> None:
    call = {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1", "action": {"type": "exec"}}
    output = {"type": "local_shell_call_output", "id": "call_1", "output": "{}"}
    whole = [StoredMessage(NATIVE, value) for value in (USER, call, output)]
    assert repaired(whole) == (whole, [])
    messages, repairs = repaired(whole[:2])
    assert [message.value for message in messages[2:]] == [{**output, "output": UNKNOWN_OUTCOME}]
    assert repairs == [Repair("result added", "call_1", 2)]


def test_neutral_calls_in_one_message_get_a_result_each() -> None:
    data = [{"type": "data", "data": {"call_id": name, "name": f"tool {name}"}} for name in "ab"]
    calls = {"type": "plugin_call", "role": "assistant", "content": data}
    outputs = [{"type": "plugin_call_output", "role": "tool", "content": [part]} for part in data]
    whole = [StoredMessage(NATIVE, value) for value in (calls, *outputs)]
    assert repaired(whole) == (whole, [])
    messages, repairs = repaired(whole[:2])
    assert repairs == [Repair("result added", "b", 2)]
    made_up = {"call_id": "b", "name": "tool b", "output": UNKNOWN_OUTCOME}
    assert messages[2].value["content"] == [{"type": "data", "data": made_up}]


async def test_decorated_handler_gets_repaired_messages(service: SessionHistoryService) -> None:
    @with_session_history(service, native=True)
    async def handler(messages: list[Json]) -> Any:
        assert flaws(messages) == []
        assert messages[-1] == {"role": "user", "content": "go on"}
        return [{"role": "assistant", "content": str(len(messages))}]

    await say(service, [USER, chat("a")], TimeoutError)
    assert await handler("go on", **HERE) == [{"role": "assistant", "content": "4"}]
    assert len((await history(service, native=True))[0]) == 5


async def test_input_may_be_the_result_of_a_call_in_the_history(service: SessionHistoryService) -> None:
    """Of a tool that runs in the client, which gets the call as the answer of a turn."""
    call, result = chat("a"), {"role": "tool", "tool_call_id": "a", "content": "sunny"}

    @with_session_history(service, native=True)
    async def handler(messages: list[Json], turn: Turn[Json]) -> Any:
        seen.append((messages, turn.repairs))
        return call if messages[-1]["role"] == "user" else {"role": "assistant", "content": "It is sunny."}

    seen: list[tuple[list[Json], list[Repair]]] = []
    await handler("How is the weather?", **HERE)
    await handler(result, **HERE)
    await handler("Thanks", **HERE)
    (_, _), (messages, repairs), _ = seen
    assert messages == [{"role": "user", "content": "How is the weather?"}, call, result]
    assert repairs == []
    assert [flaws(messages) for messages, _ in seen] == [[], [], []]
    await handler("And now?", **HERE)
    assert [repair.kind for repair in seen[-1][1]] == ["result added"]


async def test_window_without_the_call_leaves_its_result_out(service: SessionHistoryService) -> None:
    await say(service, [chat("a")], TimeoutError)
    await say(service, [chat_result("a")])
    assert await history(service, native=True, last_turns=1) == ([], [Repair("result left out", "a", 0)])
    assert await history(service, native=True) == ([chat("a"), chat_result("a")], [])


@pytest.mark.parametrize(
    ("value", "is_text"),
    [
        ({"role": "user", "content": "hello"}, True),
        ({"role": "tool", "content": "hello"}, False),
        ({"role": None, "content": "hello"}, False),
        ({"role": "user", "content": [{"type": "text", "text": "hello"}]}, True),
        ({"role": "user", "content": []}, True),
        ({"role": "user", "content": ["hello"]}, False),
        ({"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "tool_result"}]}, False),
        ({"role": "tool", "content": [{"type": "text", "text": "hello"}]}, False),
        ({"role": "assistant", "tool_calls": "none"}, False),
        ({"role": "user", "content": "hello", "type": "function_call_output"}, False),
    ],
)
def test_text_message_holds_no_tool_call(value: dict[str, Any], is_text: bool) -> None:
    message = StoredMessage(NATIVE, value)
    assert message.is_text is is_text
    assert not (message.is_text and read(value))
