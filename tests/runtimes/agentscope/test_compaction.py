"""Compaction in an agent of AgentScope: the log keeps everything, and the agent goes on with its summary."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from agentscope.agent import ContextConfig, ReActConfig
from agentscope.message import DataBlock, Msg, UserMsg

from runtimes.agentscope.support import (
    Boom,
    Cast,
    Json,
    Speaker,
    call,
    cancel,
    for_ever,
    image,
    long,
    reach,
    text,
    ticks,
    told,
    valid,
)

CONTEXT = ContextConfig(trigger_ratio=0.8, reserve_ratio=0.5)

SMALL: dict[str, Any] = {"context_size": 3000, "context": CONTEXT}
"""Room for the schemas of the tools, of about 640 tokens, and three or four long texts."""

ENOUGH = 5
"""So many turns with long questions need a compaction."""


def names(messages: list[Msg] | list[Json]) -> list[str]:
    """Return messages by their topics, and summaries by their numbers."""
    return [name(line) for line in told(messages)]


def name(line: str) -> str:
    found = re.search(r"summary \d+|earlier messages were truncated", line)
    return found.group() if found else line.removeprefix("success: ").split(":")[0]


def assert_window(seen: list[str], whole: list[str], summary: str = "summary") -> None:
    """A summary and then what it does not cover, as it was said."""
    assert seen[0].startswith(summary)
    assert 0 < len(seen) - 1 < len(whole)
    assert seen[1:] == whole[-(len(seen) - 1) :]


async def next_sees(cast: Cast, **options: Any) -> list[str]:
    """Return the messages that another process shows its model, without its question. They all fit."""
    speaker = Speaker(cast.service, text("the last answer"), save=cast.save, **options)
    await speaker.say("the last question")
    assert speaker.model.compressed == []
    assert await valid(speaker.seen)
    seen = names(speaker.seen)
    assert seen.pop() == "the last question"
    return seen


async def summarise(speaker: Speaker) -> None:
    """Compact the context as a user asks for it between two replies."""
    speaker.agent.model.context_size = 1000
    await speaker.agent.compress_context(CONTEXT)
    speaker.agent.model.context_size = 10**6
    assert speaker.model.compressed


async def talk(cast: Cast, turns: int) -> list[str]:
    """Several turns with long questions, of which a context holds three or four; everything that was said."""
    whole: list[str] = []
    compacted = 0
    for number in range(turns):
        speaker = cast.speaker(text(f"a{number}"), **SMALL)
        before = len(speaker.model.compressed)
        await speaker.say(long(f"q{number}"))
        compacted += len(speaker.model.compressed) - before
        whole.append(f"q{number}")
        seen = names(speaker.seen)
        if compacted:
            assert_window(seen, whole)
        else:
            assert seen == whole
        whole.append(f"a{number}")
    assert compacted or turns < ENOUGH
    return whole


class TestBetweenReplies:
    async def test_the_log_keeps_everything(self, cast: Cast) -> None:
        whole = await talk(cast, 8)
        messages = await cast.logged()
        assert names(messages) == whole
        assert told(messages)[::2] == [long(f"q{number}") for number in range(8)]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 8

    async def test_another_process_goes_on_with_summary_and_window(self, cast: Cast) -> None:
        whole = await talk(cast, 8)
        assert_window(await next_sees(cast), whole)
        assert names(await cast.logged()) == [*whole, "the last question", "the last answer"]

    async def test_another_process_sees_exactly_the_context_of_the_agent(self, cast: Cast) -> None:
        speaker = cast.speaker(*[text(f"a{number}") for number in range(5)], **SMALL)
        for number in range(5):
            await speaker.say(long(f"q{number}"))
        assert speaker.model.compressed
        state = speaker.agent.state
        kept = [
            (message.id, message.model_dump(mode="json")["content"]) for message in state.context if message.content
        ]
        other = Speaker(cast.service, text("a"), save=cast.save)
        await other.say("q")
        assert (other.seen[1].role, told(other.seen[1:2])) == ("user", [state.summary])
        seen = [(message.id, message.model_dump(mode="json")["content"]) for message in other.seen[2 : 2 + len(kept)]]
        assert seen == kept

    async def test_another_agent_sees_the_whole_log_and_no_summary(self, cast: Cast) -> None:
        whole = await talk(cast, 6)
        assert await next_sees(cast, name="saturday") == whole

    async def test_message_of_another_agent_is_in_the_window(self, cast: Cast) -> None:
        whole = await talk(cast, 6)
        await Speaker(cast.service, text("b"), name="saturday", save=cast.save).say("to saturday")
        seen = await next_sees(cast)
        assert_window(seen, [*whole, "to saturday", "b"])
        assert seen[-2:] == ["to saturday", "b"]

    @pytest.mark.parametrize("blocks", [False, True])
    async def test_message_in_another_format_is_in_the_window(self, cast: Cast, *, blocks: bool) -> None:
        await cast.service.create_session("u", session_id="s")
        session = await cast.service.get_session("u", "s", native=True)
        assert session is not None
        whole = [f"n{number}" for number in range(8)]
        for each in whole:
            said = [{"type": "text", "text": long(each)}] if blocks else long(each)
            await cast.service.append_message(session, {"role": "user", "content": said})
        speaker = cast.speaker(text("a0"), **SMALL)
        await speaker.say("q0")
        assert speaker.model.compressed
        assert_window(names(speaker.seen), [*whole, "q0"])
        assert_window(await next_sees(cast), [*whole, "q0", "a0"])
        logged = (await cast.logged())[: len(whole)]
        assert all(long(each) in str(message["content"]) for each, message in zip(whole, logged, strict=True))

    async def test_context_without_a_summary_is_truncated(self, cast: Cast) -> None:
        speaker = cast.speaker(*[text(f"a{number}") for number in range(6)], **SMALL)
        speaker.model.summary_error = Boom("no summary")
        for number in range(6):
            await speaker.say(long(f"q{number}"))
        assert speaker.model.compressed
        whole = [said for number in range(6) for said in (f"q{number}", f"a{number}")]
        assert names(await cast.logged()) == whole
        assert_window(await next_sees(cast), whole, "earlier messages")

    async def test_compaction_by_the_user_is_stored(self, cast: Cast) -> None:
        """``compress_context`` outside of a reply: it holds for the same agent, and for one in another process."""
        first = cast.speaker(text("a0"), text("a1"))
        await first.say(long("q0"))
        await summarise(first)
        await first.say("q1")
        assert names(first.seen) == ["summary 1", "q1"]
        assert await valid(first.seen)
        assert await next_sees(cast) == ["summary 1", "q1", "a1"]
        whole = ["q0", "a0", "q1", "a1", "the last question", "the last answer"]
        assert names(await cast.logged()) == whole

    async def test_compaction_without_a_later_reply_is_stored(self, cast: Cast) -> None:
        first = cast.speaker(text("a0"))
        await first.say(long("q0"))
        await first.agent.observe(UserMsg("user", "a note"))
        await summarise(first)
        assert names(await cast.logged()) == ["q0", "a0", "a note"]
        assert (await next_sees(cast))[0] == "summary 1"

    async def test_compaction_with_nothing_to_summarise_changes_nothing(self, cast: Cast) -> None:
        first = cast.speaker(text("a0"), text("a1"))
        await first.say("q0")
        before = await cast.service.get_session("u", "s", native=True)
        await first.agent.compress_context()
        await first.say("q1")
        assert names(first.seen) == ["q0", "a0", "q1"]
        assert before is not None
        assert names(await cast.logged()) == ["q0", "a0", "q1", "a1"]

    async def test_messages_observed_after_a_compaction_are_kept(self, cast: Cast) -> None:
        first = cast.speaker(text("a0"), text("a1"))
        await first.say(long("q0"))
        first.agent.state.context = []  # as somebody else may shorten it
        heard = [f"note {number}" for number in range(3)]
        await first.agent.observe([UserMsg("user", each) for each in heard])
        await first.say("q1")
        assert names(await cast.logged()) == ["q0", "a0", *heard, "q1", "a1"]
        assert names(first.seen) == ["q0", "a0", *heard, "q1"]


def reading(count: int = 6) -> list[Any]:
    return [[text(f"s{number}"), call("article", topic=f"t{number}")] for number in range(count)]


def read(count: int = 6) -> list[str]:
    return ["q", *(said for number in range(count) for said in (f"s{number}", "call article", f"t{number}"))]


class TestInAReply:
    async def test_log_holds_the_whole_message_of_a_compacted_reply(self, cast: Cast) -> None:
        speaker = cast.speaker(*reading(), text("a"), **SMALL)
        reply = await speaker.say("q")
        assert speaker.model.compressed
        messages = await cast.logged()
        assert names(messages) == [*read(), "a"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
        assert messages[1]["id"] == reply.id
        results = [block for block in messages[1]["content"] if block["type"] == "tool_result"]
        assert [result["output"][0]["text"] for result in results] == [long(f"t{number}") for number in range(6)]

    async def test_another_process_continues_a_compacted_reply(self, cast: Cast) -> None:
        await cast.speaker(*reading(), text("a"), **SMALL).say("q")
        assert_window(await next_sees(cast), [*read(), "a"])

    async def test_lasting_agent_continues_a_compacted_reply(self, cast: Cast) -> None:
        await cast.speaker(*reading(), text("a"), **SMALL).say("q")
        second = cast.speaker(*reading(), text("b"), **SMALL)
        await second.say("q")
        assert_window(names(second.seen), [*read(), "a", *read()])
        assert names(await cast.logged()) == [*read(), "a", *read(), "b"]

    async def test_compaction_by_a_tool_of_the_agent_is_stored(self, cast: Cast) -> None:
        context = ContextConfig(trigger_ratio=0.8, reserve_ratio=0.5, compression_tool_enabled=True)
        script = [*reading(3), call("CompressContext"), text("a")]
        speaker = cast.speaker(*script, context_size=3000, context=context)
        await speaker.say("q")
        assert speaker.model.compressed
        whole = [*read(3), "call CompressContext", "Context compressed successfully.", "a"]
        assert names(await cast.logged()) == whole
        assert_window(await next_sees(cast), whole)

    async def test_error_after_a_compaction_keeps_the_log(self, cast: Cast) -> None:
        with pytest.raises(Boom):
            await cast.speaker(*reading(), Boom("no"), **SMALL).say("q")
        assert names(await cast.logged()) == read()
        assert_window(await next_sees(cast), read())

    async def test_error_after_a_compaction_before_a_tool_keeps_the_log(self, cast: Cast) -> None:
        whole = await talk(cast, 3)
        speaker = cast.speaker(Boom("no"), **SMALL)
        with pytest.raises(Boom):
            await speaker.say(long("failed"))
        assert speaker.model.compressed
        assert names(await cast.logged()) == [*whole, "failed"]
        seen = await next_sees(cast)
        if seen != whole:
            assert_window(seen, whole)

    async def test_cancellation_after_a_compaction_keeps_the_log(self, cast: Cast) -> None:
        react = ReActConfig(interruption_raise_cancelled_error=True)
        speaker = cast.speaker(*reading(), [text("Half of it"), for_ever()], react=react, **SMALL)
        reply = asyncio.create_task(speaker.say("q"))
        await reach(speaker.model.waiting, reply)
        await ticks()
        await cancel(reply)
        assert names(await cast.logged()) == [*read(), "Half of it"]
        assert_window(await next_sees(cast), [*read(), "Half of it"])

    async def test_compacted_reply_is_counted_once(self, cast: Cast) -> None:
        speaker = cast.speaker(*reading(), text("a"), **SMALL)
        await speaker.say("q")
        blocks = [block for message in await cast.logged() for block in message["content"]]
        ids = [(block["type"], block["id"]) for block in blocks]
        assert len(ids) == len(set(ids))


async def images(messages: list[Msg]) -> list[str | None]:
    return [block.name for message in messages for block in message.content if isinstance(block, DataBlock)]


class TestImages:
    """AgentScope replaces images that are too many where they stand."""

    async def test_image_of_an_earlier_turn_survives_a_compaction(self, cast: Cast) -> None:
        asked = [UserMsg("user", [image(f"i{number}")]) for number in range(3)]
        for number in range(3):
            speaker = cast.speaker(text(f"a{number}"), context=ContextConfig(max_image_num=1))
            await speaker.agent.reply(asked[number])
            assert await images(speaker.seen) == [f"i{number}"]
        messages = await cast.logged()
        assert messages[::2] == [message.model_dump(mode="json") for message in asked]
        assert len(messages) == 6

    async def test_image_of_the_same_message_survives_a_compaction(self, cast: Cast) -> None:
        asked = UserMsg("user", [image("one"), image("two")])
        speaker = cast.speaker(text("a"), context=ContextConfig(max_image_num=1))
        await speaker.agent.reply(asked)
        assert await images(speaker.seen) == ["two"]
        assert (await cast.logged())[0] == asked.model_dump(mode="json")
        other = Speaker(cast.service, text("a"), save=cast.save)
        await other.say("q")
        assert await images(other.seen) in (["one", "two"], ["two"])
