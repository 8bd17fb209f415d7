"""Histories that were cut: the next model call gets only what a model's API takes, and the log stays."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from agentscope.message import (
    AssistantMsg,
    ContentBlock,
    HintBlock,
    Msg,
    SystemMsg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    ToolResultState,
    UserMsg,
)

from runtimes.agentscope.support import (
    Speaker,
    call,
    cancel,
    flaws,
    for_ever,
    logged,
    pieces,
    reach,
    text,
    thought,
    ticks,
    told,
)
from runtimes.agentscope.test_compaction import CONTEXT
from session_history import SessionHistoryService, StoredMessage
from session_history.records.record import Status
from session_history.runtimes.agentscope import FORMAT
from session_history.runtimes.agentscope.messages import needs_repair, repair


def result(call_id: str, output: str = "done") -> ToolResultBlock:
    return ToolResultBlock(id=call_id, name="weather", output=output, state=ToolResultState.SUCCESS)


def reply() -> list[ContentBlock]:
    """Return everything that a reply of two rounds says."""
    return [
        thought("I should look.", "signed"),
        text("I look."),
        call("weather", id="c1", city="Rome"),
        call("weather", id="c2", city="Oslo"),
        result("c1"),
        result("c2"),
        thought("It is clear.", "signed"),
        text("It is sunny."),
    ]


def halved(block: ContentBlock) -> list[ContentBlock]:
    """Return the beginnings of a block that was cut."""
    if not isinstance(block, (TextBlock, ThinkingBlock, ToolCallBlock)):
        return []
    start = pieces(block)[0]
    empty: dict[str, Any] = {"thinking": ""} if isinstance(start, ThinkingBlock) else {}
    empty = {"text": " \n"} if isinstance(start, TextBlock) else empty or {"input": ""}
    return [start, start.model_copy(update=empty)]


def cuts() -> list[list[ContentBlock]]:
    """Return every beginning of the reply."""
    whole = reply()
    return [
        cut
        for end in range(len(whole) + 1)
        for cut in (
            whole[:end],
            *([*whole[:end], half] for half in (halved(whole[end]) if end < len(whole) else ())),
        )
    ]


async def say_in_log(service: SessionHistoryService, messages: list[Msg], status: Status) -> None:
    async with service.record_turn("u", "s") as recorder:
        recorder.add([StoredMessage(FORMAT, message.model_dump(mode="json")) for message in messages])
        await recorder.checkpoint(status)


@pytest.mark.every_store
@pytest.mark.parametrize("status", [Status.INTERRUPTED, Status.OPEN], ids=lambda status: status.name)
@pytest.mark.parametrize("cut", range(len(cuts())))
async def test_every_cut_of_a_reply_is_a_history_that_models_take(
    service: SessionHistoryService, cut: int, status: Status
) -> None:
    said = [UserMsg("user", "q1"), AssistantMsg("friday", cuts()[cut])]
    await say_in_log(service, said, status)
    before = await logged(service)
    speaker = Speaker(service, text("a2"))
    answer = await speaker.say("q2")
    assert answer.get_text_content() == "a2"
    assert await flaws(speaker.seen) == []
    assert (await logged(service))[: len(before)] == before
    assert [message["content"] for message in before] == [
        message.model_dump(mode="json")["content"] for message in said
    ]
    finished = [block for block in said[1].content if isinstance(block, ToolResultBlock)]
    assert [line for line in told(speaker.seen) if line == "success: done"] == ["success: done"] * len(finished)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ([text("")], []),
        ([text(" \n\t")], []),
        ([text(" "), text("a")], ["text"]),
        ([thought("Hm.", "signed")], []),
        ([thought("Hm.", "signed"), text(" ")], []),
        ([thought("Hm.", "signed"), text("a")], ["thinking", "text"]),
        ([text("a"), thought("Hm.", "signed")], ["text"]),
        ([thought("One.", "s"), thought("Two.", "s"), text("a")], ["thinking", "thinking", "text"]),
        ([HintBlock(hint=" "), text("a")], ["text"]),
        ([thought("Hm.", "signed"), HintBlock(hint="It is late.")], ["hint"]),
        (
            [thought("Hm.", "s"), call("weather", id="c"), result("c"), thought("So.", "s")],
            ["thinking", "tool_call", "tool_result"],
        ),
        ([thought("Hm.", "s"), call("weather", id="c")], ["thinking", "tool_call", "tool_result"]),
    ],
)
async def test_blocks_that_an_api_refuses_are_left_out(content: list[ContentBlock], shown: list[str]) -> None:
    msg = AssistantMsg("friday", content).model_copy(deep=True)
    was_flawed = [block.type for block in content] != shown
    assert needs_repair(msg) == was_flawed
    assert [block.type for block in msg.content] == [block.type for block in content]
    assert (repair(msg) > 0) == was_flawed
    assert [block.type for block in msg.content] == shown
    assert not needs_repair(msg)
    assert await flaws([SystemMsg("system", "You help."), UserMsg("user", "q"), msg]) == []


@pytest.mark.parametrize("arguments", ["", '{"city": "Ro', "[]", "null"])
def test_arguments_that_are_no_object_become_an_empty_one(arguments: str) -> None:
    msg = AssistantMsg("friday", [ToolCallBlock(id="c", name="weather", input=arguments), result("c")])
    assert repair(msg) == 1
    assert msg.content[0].input == "{}"  # type: ignore[union-attr]


class TestLive:
    """The same for an agent object that goes on."""

    async def test_blank_answer_is_not_shown_to_the_next_call(self, service: SessionHistoryService, save: str) -> None:
        speaker = Speaker(service, text(" "), text("a2"), save=save)
        await speaker.say("q1")
        await speaker.say("q2")
        assert await flaws(speaker.seen) == []
        assert told(await logged(service)) == ["q1", " ", "q2", "a2"]

    async def test_blank_question_is_not_shown_to_later_calls(self, service: SessionHistoryService, save: str) -> None:
        await say_in_log(service, [UserMsg("user", " "), AssistantMsg("friday", "a0")], Status.COMPLETED)
        speaker = Speaker(service, text("a1"), save=save)
        await speaker.say("q1")
        assert told(speaker.seen) == ["a0", "q1"]

    async def test_thought_that_was_cut_is_not_shown(
        self, service: SessionHistoryService, save: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        speaker = Speaker(service, [thought("Hm.", "signed"), for_ever()], text("a2"), save=save)
        running = asyncio.create_task(speaker.say("q1"))
        await reach(speaker.model.waiting, running)
        await ticks()
        await cancel(running)
        with caplog.at_level(logging.INFO, logger="session_history"):
            await speaker.say("q2")
        assert await flaws(speaker.seen) == []
        assert told(speaker.seen) == ["q1", "q2"]

    async def test_summary_after_a_repair_keeps_what_follows_it(
        self, service: SessionHistoryService, save: str
    ) -> None:
        """The agent keeps a message from which a block was left out; its next process begins there, too."""
        said = [UserMsg("user", "word " * 4000), AssistantMsg("friday", [text("First."), text(" "), *reply()])]
        await say_in_log(service, said, Status.COMPLETED)
        speaker = Speaker(service, text("a2"), context_size=5000, context=CONTEXT, save=save)
        await speaker.say("q2")
        assert len(speaker.model.compressed) == 1
        again = Speaker(service, text("a3"), save=save)
        await again.say("q3")
        kept = told(speaker.agent.state.context)
        assert kept[:3] == ["First.", "I look.", "call weather"]
        assert told(again.seen)[-len(kept) - 1 :] == [*kept, "q3"]
