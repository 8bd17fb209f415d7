"""A reply that waits for a person, or for somebody else's work, goes on in another process as the same message."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agentscope.event import (
    RequireExternalExecutionEvent,
    RequireUserConfirmEvent,
    UserInterruptEvent,
)
from agentscope.message import UserMsg
from pydantic import BaseModel

from runtimes.agentscope.support import (
    Boom,
    Cast,
    Parked,
    Speaker,
    asked_for,
    call,
    decided,
    executed,
    leave,
    logged,
    park,
    reach,
    text,
    thought,
    ticks,
    told,
    valid,
)
from session_history import SessionHistoryService, SqliteSessionHistoryService, TokenBudget
from support import PROGRAMS

CHILD = PROGRAMS / "agentscope_child.py"

BOOKED = ["q1", "call book", "success: booked Rome"]


class Journey(BaseModel):
    city: str


def child(*arguments: str) -> Any:
    command = [sys.executable, "-W", "error", str(CHILD), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


async def parked_on(cast: Cast, tool: str, **arguments: Any) -> Parked:
    speaker = cast.speaker([thought("Hm.", "signed"), call(tool, id="c1", **arguments)])
    return await park(speaker, UserMsg("user", "q1"))


async def parked_on_book(cast: Cast) -> Parked:
    return await parked_on(cast, "book", city="Rome")


async def assert_one_message(cast: Cast, parked: Parked, expected: list[str]) -> None:
    """The reply that was parked stands in the log once, with all of it."""
    messages = await cast.logged()
    assert told(messages) == expected
    assert [message["id"] for message in messages].count(parked.reply_id) == 1
    assert messages[1]["id"] == parked.reply_id
    assert len({message["id"] for message in messages}) == len(messages)


class TestConfirmed:
    async def test_confirmed_reply_goes_on_as_the_same_message(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        assert await cast.told() == ["q1", "call book"]
        assert (await cast.logged())[1]["content"][-1]["state"] == "asking"
        speaker = cast.speaker(text("a1"))
        reply = await speaker.agent.reply(decided(parked, confirmed=True))
        assert (reply.id, reply.get_text_content()) == (parked.reply_id, "a1")
        assert cast.tools.ran == ["book Rome"]
        assert told(speaker.seen) == BOOKED
        await assert_one_message(cast, parked, [*BOOKED, "a1"])
        assert (await cast.logged()) == speaker.context

    async def test_confirmed_reply_is_seen_whole_by_the_next_turn(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        await cast.speaker(text("a1")).agent.reply(decided(parked, confirmed=True))
        after = cast.speaker(text("a2"))
        await after.say("q2")
        assert told(after.seen) == [*BOOKED, "a1", "q2"]
        [thinking] = after.seen[2].get_content_blocks("thinking")
        assert thinking.model_extra == {"signature": "signed"}

    async def test_confirmed_reply_may_park_again(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        again = await park(cast.speaker(call("book", city="Oslo")), decided(parked, confirmed=True))
        assert again.reply_id == parked.reply_id
        speaker = cast.speaker(text("a1"))
        await speaker.agent.reply(decided(again, confirmed=True))
        expected = [*BOOKED, "call book", "success: booked Oslo"]
        assert told(speaker.seen) == expected
        assert cast.tools.ran == ["book Rome", "book Oslo"]
        await assert_one_message(cast, parked, [*expected, "a1"])

    async def test_confirmed_call_runs_with_the_changed_arguments(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        parked.tool_calls[0].input = json.dumps({"city": "Oslo"})
        speaker = cast.speaker(text("a1"))
        await speaker.agent.reply(decided(parked, confirmed=True))
        assert cast.tools.ran == ["book Oslo"]
        await assert_one_message(cast, parked, ["q1", "call book", "success: booked Oslo", "a1"])
        [called] = [block for block in (await cast.logged())[1]["content"] if block["type"] == "tool_call"]
        assert json.loads(called["input"]) == {"city": "Oslo"}

    async def test_calls_behind_a_parked_call_get_their_results(self, cast: Cast) -> None:
        both = [call("book", id="c1", city="Rome"), call("book", id="c2", city="Oslo")]
        parked = await park(cast.speaker(both), UserMsg("user", "q1"))
        assert [each.id for each in parked.tool_calls] == ["c1"]  # AgentScope asks once for both
        speaker = cast.speaker(text("a1"))
        await speaker.agent.reply(decided(parked, confirmed=True, always=True))
        assert sorted(cast.tools.ran) == ["book Oslo", "book Rome"]
        expected = [*BOOKED, "call book", "success: booked Oslo"]
        assert sorted(told(speaker.seen)) == sorted(expected)

    async def test_parked_calls_are_confirmed_one_after_the_other(self, cast: Cast) -> None:
        script = [call("book", id="c1", city="Rome"), call("signature", id="c2")]
        speaker = cast.speaker(script)
        events = [event async for event in speaker.agent.reply_stream(UserMsg("user", "q1"))]
        confirm = asked_for([event for event in events if isinstance(event, RequireUserConfirmEvent)])
        execute = asked_for([event for event in events if isinstance(event, RequireExternalExecutionEvent)])
        second = cast.speaker()
        await second.agent.reply(decided(confirm, confirmed=True))
        assert second.model.calls == []
        assert cast.tools.ran == ["book Rome"]
        third = cast.speaker(text("a1"))
        await third.agent.reply(executed(execute, "signed"))
        assert sorted(told(third.seen)) == sorted([*BOOKED, "call signature", "success: signed"])
        messages = await cast.logged()
        assert [message["id"] for message in messages][1:] == [confirm.reply_id]

    async def test_error_after_a_confirmation_keeps_the_result(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        with pytest.raises(Boom):
            await cast.speaker(Boom("no")).agent.reply(decided(parked, confirmed=True))
        await assert_one_message(cast, parked, BOOKED)
        after = cast.speaker(text("a2"))
        await after.say("q2")
        assert told(after.seen) == [*BOOKED, "q2"]

    async def test_confirmation_of_another_call_is_refused(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        wrong = decided(parked, confirmed=True)
        wrong.confirm_results[0].tool_call.id = "another"
        with pytest.raises(ValueError, match="not waiting"):
            await cast.speaker().agent.reply(wrong)
        await cast.speaker(text("a1")).agent.reply(decided(parked, confirmed=True))
        await assert_one_message(cast, parked, [*BOOKED, "a1"])

    async def test_confirmation_after_an_early_message_works(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        with pytest.raises(ValueError, match="waiting"):
            await cast.speaker(text("never")).say("too early")
        speaker = cast.speaker(text("a1"))
        reply = await speaker.agent.reply(decided(parked, confirmed=True))
        assert reply.id == parked.reply_id
        assert told(speaker.seen) == BOOKED
        after = cast.speaker(text("a2"))
        await after.say("q2")
        assert told(after.seen) == [*BOOKED, "a1", "q2"]
        assert sorted(await cast.told()) == sorted([*BOOKED, "a1", "too early", "q2", "a2"])

    async def test_confirmed_reply_still_returns_its_structured_output(self, cast: Cast) -> None:
        speaker = cast.speaker(call("book", city="Rome"))
        stream = speaker.agent.reply_stream(UserMsg("user", "q1"), structured_schema=Journey)
        parked = asked_for([event async for event in stream])
        second = cast.speaker(call("GenerateStructuredOutput", city="Rome"))
        reply = await second.agent.reply(decided(parked, confirmed=True))
        assert (reply.id, reply.structured_output) == (parked.reply_id, {"city": "Rome"})

    @pytest.mark.parametrize("save", ["turn", "step"])
    async def test_another_process_confirms_a_parked_reply(self, tmp_path: Path, save: str) -> None:
        path = tmp_path / "history.db"
        printed = child(str(path), save, "park")
        parked = RequireUserConfirmEvent.model_validate(printed["parked"])
        async with SqliteSessionHistoryService(path) as service:
            assert await logged(service) == printed["context"]
            speaker = Speaker(service, text("a1"), save=save)
            reply = await speaker.agent.reply(decided(parked, confirmed=True))
            assert reply.id == parked.reply_id
            assert told(speaker.seen)[-2:] == ["call book", "success: booked Rome"]
            assert len(await logged(service)) == 2
            assert speaker.tools.ran == ["book Rome"]


class TestDenied:
    async def test_denied_tool_does_not_run(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        speaker = cast.speaker(text("a1"))
        reply = await speaker.agent.reply(decided(parked, confirmed=False))
        assert reply.id == parked.reply_id
        assert cast.tools.ran == []
        assert told(speaker.seen)[:2] == ["q1", "call book"]
        assert told(speaker.seen)[2].startswith("denied: ")
        assert len(told(speaker.seen)) == 3
        await assert_one_message(cast, parked, [*told(speaker.seen), "a1"])


class TestInterrupted:
    @pytest.mark.parametrize("tool", ["book", "signature"])
    async def test_interrupted_parked_call_is_closed_without_a_model_call(self, cast: Cast, tool: str) -> None:
        parked = await parked_on(cast, tool, **({"city": "Rome"} if tool == "book" else {}))
        speaker = cast.speaker()
        reply = await speaker.agent.reply(UserInterruptEvent(reply_id=parked.reply_id))
        assert reply.id == parked.reply_id
        assert speaker.model.calls == []
        await assert_one_message(cast, parked, ["q1", f"call {tool}", "interrupted"])
        after = cast.speaker(text("a2"))
        await after.say("q2")
        assert told(after.seen) == ["q1", f"call {tool}", "interrupted", "q2"]
        assert cast.tools.ran == []


class TestExternal:
    async def test_external_result_may_reach_another_process(self, cast: Cast) -> None:
        parked = await parked_on(cast, "signature")
        assert isinstance(parked, RequireExternalExecutionEvent)
        assert (await cast.logged())[1]["content"][-1]["state"] == "submitted"
        speaker = cast.speaker(text("a1"))
        reply = await speaker.agent.reply(executed(parked, "signed"))
        assert reply.id == parked.reply_id
        assert told(speaker.seen) == ["q1", "call signature", "success: signed"]
        await assert_one_message(cast, parked, ["q1", "call signature", "success: signed", "a1"])


class TestLeft:
    """The consumer leaves as soon as it is asked."""

    @pytest.mark.parametrize("tool", ["book", "signature"])
    async def test_parked_stream_that_was_left_can_be_answered(self, cast: Cast, tool: str) -> None:
        speaker = cast.speaker(call(tool, id="c1", **({"city": "Rome"} if tool == "book" else {})))
        asked = await leave(
            speaker, "q1", lambda event: isinstance(event, RequireUserConfirmEvent | RequireExternalExecutionEvent)
        )
        await ticks()
        parked = asked_for([asked])
        second = cast.speaker(text("a1"))
        answer = decided(parked, confirmed=True) if tool == "book" else executed(parked, "signed")
        reply = await second.agent.reply(answer)
        assert reply.id == parked.reply_id
        result = "success: booked Rome" if tool == "book" else "success: signed"
        await assert_one_message(cast, parked, ["q1", f"call {tool}", result, "a1"])


class TestOthersMeanwhile:
    async def test_parked_reply_goes_on_after_another_agent_spoke(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        other = cast.speaker(text("b1"), name="saturday")
        await other.say("to saturday")
        assert told(other.seen) == ["q1", "call book", "interrupted", "to saturday"]
        speaker = cast.speaker(text("a1"))
        reply = await speaker.agent.reply(decided(parked, confirmed=True))
        assert reply.id == parked.reply_id
        assert cast.tools.ran == ["book Rome"]
        assert await valid(speaker.seen)
        assert sorted(told(speaker.seen)) == sorted([*BOOKED, "to saturday", "b1"])
        assert sorted(await cast.told()) == sorted([*BOOKED, "a1", "to saturday", "b1"])
        assert [message["id"] for message in await cast.logged()].count(parked.reply_id) == 1
        after = cast.speaker(text("a2"))
        await after.say("q2")
        assert sorted(told(after.seen)) == sorted([*BOOKED, "a1", "to saturday", "b1", "q2"])
        third = cast.speaker(text("b2"), name="saturday")
        await third.say("again")
        assert sorted(told(third.seen)) == sorted([*BOOKED, "a1", "to saturday", "b1", "q2", "a2", "again"])

    async def test_parked_reply_goes_on_after_a_plain_append(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        session = await cast.service.get_session("u", "s", native=True)
        assert session is not None
        await cast.service.append_message(session, UserMsg("user", "a note").model_dump(mode="json"))
        speaker = cast.speaker(text("a1"))
        reply = await speaker.agent.reply(decided(parked, confirmed=True))
        assert reply.id == parked.reply_id
        assert sorted(await cast.told()) == sorted([*BOOKED, "a note", "a1"])

    @pytest.mark.parametrize("window", [{"last_turns": 1}, {"token_budget": TokenBudget(3, lambda _: 1)}])
    async def test_parked_reply_goes_on_beyond_the_window(self, cast: Cast, window: dict[str, Any]) -> None:
        parked = await park(cast.speaker(call("book", city="Rome"), **window), UserMsg("user", "q1"))
        for number in range(25):
            session = await cast.service.get_session("u", "s", native=True)
            assert session is not None
            await cast.service.append_message(session, UserMsg("user", f"note {number}").model_dump(mode="json"))
        with pytest.raises(ValueError, match="waiting"):
            await cast.speaker(text("never"), **window).say("too early")
        speaker = cast.speaker(text("a1"), **window)
        reply = await speaker.agent.reply(decided(parked, confirmed=True))
        assert reply.id == parked.reply_id
        assert await valid(speaker.seen)
        assert told(speaker.seen)[-2:] == BOOKED[1:]
        assert len(told(speaker.seen)) <= 8
        assert (await cast.told())[: len(BOOKED) + 1] == [*BOOKED, "a1"]

    @pytest.mark.parametrize(
        "bound", [{"last_turns": 0}, {"last_turns": 2}, {"token_budget": TokenBudget(2, lambda _: 1)}], ids=str
    )
    async def test_parked_reply_older_than_the_window_goes_on(self, cast: Cast, bound: dict[str, Any]) -> None:
        first = cast.speaker(call("book", id="c1", city="Rome"), **bound)
        parked = await park(first, UserMsg("user", "q1"))
        for number in range(30):
            await Speaker(cast.service, text(f"b{number}"), name="saturday", save=cast.save).say(f"s{number}")
        speaker = cast.speaker(text("a1"), **bound)
        reply = await speaker.agent.reply(decided(parked, confirmed=True))
        assert reply.id == parked.reply_id
        assert [line for line in told(speaker.seen) if line[0] not in "sb"] == ["q1", "call book"]
        assert len(told(speaker.seen)) < 15
        assert [message["id"] for message in await cast.logged()].count(parked.reply_id) == 1

    async def test_another_agent_sees_that_a_call_waits(self, cast: Cast) -> None:
        await parked_on_book(cast)
        other = cast.speaker(text("b1"), name="saturday")
        await other.say("to saturday")
        [result] = other.seen[2].get_content_blocks("tool_result")
        assert result.output == "The call has not run: it waits for the user's consent."

    async def test_same_confirmation_twice_at_once_keeps_both_results(self, service: SessionHistoryService) -> None:
        parked = await park(Speaker(service, call("book", city="Rome")), UserMsg("user", "q1"))
        both = [Speaker(service, text(f"a{number}")) for number in range(2)]
        replies = [speaker.agent.reply(decided(parked, confirmed=True)) for speaker in both]
        assert {reply.id for reply in await asyncio.gather(*replies)} == {parked.reply_id}
        ran = [tool for speaker in both for tool in speaker.tools.ran]
        results = [line for line in told(await logged(service)) if line.startswith("success: booked")]
        assert len(results) == len(ran) == 2
        after = Speaker(service, text("a2"))
        await after.say("q2")
        assert await valid(after.seen)
        assert {"a0", "a1"} <= set(told(after.seen))

    async def test_parked_reply_goes_on_after_another_state_of_its_slot(self, service: SessionHistoryService) -> None:
        first_goes_on, second_goes_on = asyncio.Event(), asyncio.Event()
        one = Speaker(service, [first_goes_on, text("b1")])
        other = Speaker(service, [second_goes_on, call("book", city="Rome")])
        replies = [
            asyncio.create_task(one.say("first")),
            asyncio.create_task(park(other, UserMsg("user", "second"))),
        ]
        await reach(one.model.waiting, replies[0])
        await reach(other.model.waiting, replies[1])
        first_goes_on.set()
        await replies[0]
        second_goes_on.set()
        parked = await replies[1]
        assert isinstance(parked, Parked)
        last = Speaker(service, text("done"))
        reply = await last.agent.reply(decided(parked, confirmed=True))
        assert reply.id == parked.reply_id
        assert last.tools.ran == ["book Rome"]
        assert told(await logged(service)) == ["first", "b1", "second", *BOOKED[1:], "done"]

    async def test_parked_replies_of_two_agents_go_on(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        other = await park(cast.speaker(call("book", city="Oslo"), name="saturday"), UserMsg("user", "q2"))
        for name, waiting, answer in (("friday", parked, "a1"), ("saturday", other, "b1")):
            speaker = cast.speaker(text(answer), name=name)
            reply = await speaker.agent.reply(decided(waiting, confirmed=True))
            assert reply.id == waiting.reply_id
        assert cast.tools.ran == ["book Rome", "book Oslo"]
        expected = [*BOOKED, "a1", "q2", "call book", "success: booked Oslo", "b1"]
        assert await cast.told() == expected


class TestRules:
    async def test_permission_rules_persist(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        await cast.speaker(text("a1")).agent.reply(decided(parked, confirmed=True, always=True))
        third = cast.speaker(call("book", city="Oslo"), text("a2"))
        await third.say("q2")
        assert cast.tools.ran == ["book Rome", "book Oslo"]
        assert list(third.agent.state.permission_context.allow_rules) == ["book"]

    async def test_single_confirmation_is_no_rule(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        await cast.speaker(text("a1")).agent.reply(decided(parked, confirmed=True))
        await park(cast.speaker(call("book", city="Oslo")), UserMsg("user", "q2"))
        assert cast.tools.ran == ["book Rome"]

    async def test_permission_rules_belong_to_one_agent(self, cast: Cast) -> None:
        parked = await parked_on_book(cast)
        await cast.speaker(text("a1")).agent.reply(decided(parked, confirmed=True, always=True))
        await park(cast.speaker(call("book", city="Oslo"), name="saturday"), UserMsg("user", "q2"))
        assert cast.tools.ran == ["book Rome"]


@pytest.mark.parametrize("concurrent", ["reject", "queue"])
async def test_parked_exclusive_reply_leaves_the_session_free(cast: Cast, concurrent: str) -> None:
    parked = await park(cast.speaker(call("book", city="Rome"), concurrent=concurrent), UserMsg("user", "q1"))
    await cast.speaker(text("b1"), name="saturday", concurrent=concurrent).say("q2")
    reply = await cast.speaker(text("a1"), concurrent=concurrent).agent.reply(decided(parked, confirmed=True))
    assert reply.id == parked.reply_id
