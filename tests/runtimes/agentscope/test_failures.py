"""However a reply of AgentScope ends: what the next model call sees, and what the log holds.

Every model call in here refuses messages that a real API would refuse, see ``ScriptedModel``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agentscope.agent import ReActConfig
from agentscope.event import (
    ModelCallEndEvent,
    ModelCallStartEvent,
    ReplyEndEvent,
    ReplyStartEvent,
    TextBlockDeltaEvent,
    ToolCallStartEvent,
    ToolResultEndEvent,
    ToolResultStartEvent,
)
from agentscope.message import UserMsg
from agentscope.state import AgentState

from runtimes.agentscope.support import (
    Boom,
    Cast,
    Json,
    Speaker,
    Step,
    call,
    cancel,
    for_ever,
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
from session_history import SqliteSessionHistoryService
from support import PROGRAMS

CHILD = PROGRAMS / "agentscope_child.py"

SUNNY = ["call weather", "success: sunny in Rome"]


async def next_sees(cast: Cast) -> list[str]:
    """Return the messages of the next model call ahead of the user's. They must be valid."""
    speaker = cast.speaker(text("a2"))
    reply = await speaker.say("q2")
    assert reply.get_text_content() == "a2"
    assert await valid(speaker.seen)
    assert await cast.told() != []
    seen = told(speaker.seen)
    assert seen.pop() == "q2"
    return seen


async def assert_kept(cast: Cast, expected: list[str]) -> None:
    """The log holds what was said, then the turn that followed; each message once."""
    messages = await cast.logged()
    assert told(messages) == [*expected, "q2", "a2"]
    ids = [message["id"] for message in messages]
    assert len(ids) == len(set(ids))


def beginning(messages: list[Json]) -> list[str]:
    return [message["role"] for message in messages]


@pytest.mark.every_cast
class TestModelError:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_model_error_in_the_first_call_keeps_the_input(self, cast: Cast, *, stream: bool) -> None:
        with pytest.raises(Boom):
            await cast.speaker(Boom("no"), stream=stream).say("q1")
        assert await cast.told() == ["q1"]
        assert await next_sees(cast) == []
        await assert_kept(cast, ["q1"])

    async def test_model_error_in_a_later_turn_keeps_the_input(self, cast: Cast) -> None:
        await cast.speaker(call("weather", city="Rome"), text("a0")).say("q0")
        with pytest.raises(Boom):
            await cast.speaker(Boom("no")).say("q1")
        assert await next_sees(cast) == ["q0", *SUNNY, "a0"]
        await assert_kept(cast, ["q0", *SUNNY, "a0", "q1"])

    async def test_model_error_after_a_tool_keeps_the_result(self, cast: Cast) -> None:
        with pytest.raises(Boom):
            await cast.speaker(call("weather", city="Rome"), Boom("no")).say("q1")
        assert await cast.told() == ["q1", *SUNNY]
        assert await next_sees(cast) == ["q1", *SUNNY]
        await assert_kept(cast, ["q1", *SUNNY])

    async def test_model_error_in_mid_stream_hides_the_turn(self, cast: Cast) -> None:
        with pytest.raises(Boom):
            await cast.speaker([text("Half of it"), Boom("no")]).say("q1")
        assert (await cast.told())[:1] == ["q1"]
        assert await next_sees(cast) == []

    async def test_model_error_in_mid_stream_after_a_tool_keeps_the_result(self, cast: Cast) -> None:
        with pytest.raises(Boom):
            await cast.speaker(call("weather", city="Rome"), [text("Half of it"), Boom("no")]).say("q1")
        assert (await cast.told())[:3] == ["q1", *SUNNY]
        assert (await next_sees(cast))[:3] == ["q1", *SUNNY]

    async def test_model_error_in_mid_call_runs_no_tool(self, cast: Cast) -> None:
        with pytest.raises(Boom):
            await cast.speaker([call("weather", city="Rome"), Boom("no")]).say("q1")
        assert await next_sees(cast) == []
        assert cast.tools.ran == []

    async def test_model_errors_in_a_row_keep_every_input(self, cast: Cast) -> None:
        for number in range(3):
            with pytest.raises(Boom):
                await cast.speaker(Boom("no")).say(f"failed {number}")
        assert await next_sees(cast) == []
        await assert_kept(cast, ["failed 0", "failed 1", "failed 2"])

    async def test_model_error_reaches_the_caller_unchanged(self, cast: Cast) -> None:
        error = Boom("no")
        with pytest.raises(Boom) as caught:
            await cast.speaker(error).say("q1")
        assert caught.value is error


class TestToolError:
    async def test_tool_error_is_a_result(self, cast: Cast) -> None:
        reply = await cast.speaker(call("broken"), text("It is broken.")).say("q1")
        assert reply.get_text_content() == "It is broken."
        expected = ["q1", "call broken", "error: the tool is broken", "It is broken."]
        assert await next_sees(cast) == expected
        await assert_kept(cast, expected)

    async def test_tool_error_of_one_of_two_is_a_result(self, cast: Cast) -> None:
        await cast.speaker([call("broken"), call("weather", city="Rome")], text("Half of it.")).say("q1")
        called, results, said = ["call broken", "call weather"], ["error: the tool is broken", SUNNY[1]], "Half of it."
        seen = await next_sees(cast)
        assert (seen[:3], sorted(seen[3:5]), seen[5:]) == (["q1", *called], results, [said])

    async def test_tool_that_is_missing_is_an_error_result(self, cast: Cast) -> None:
        await cast.speaker(call("nothing"), text("There is no such tool.")).say("q1")
        seen = await next_sees(cast)
        assert seen[:2] == ["q1", "call nothing"]
        assert seen[2].startswith("error: ")
        assert seen[3:] == ["There is no such tool."]

    async def test_tool_error_that_ends_the_reply_keeps_the_call(self, cast: Cast) -> None:
        with pytest.raises(ExceptionGroup):
            await cast.speaker([call("faulty"), call("weather", city="Rome")]).say("q1")
        seen = await next_sees(cast)
        assert seen[:3] == ["q1", "call faulty", "call weather"]
        assert SUNNY[1] in seen[3:]
        assert len(seen) == 5
        assert cast.tools.ran == ["faulty", "weather Rome"]


@pytest.fixture(params=["swallowed", "raised"])
def react(request: pytest.FixtureRequest) -> ReActConfig:
    """A cancellation that AgentScope swallows, as by default, or raises."""
    return ReActConfig(interruption_raise_cancelled_error=request.param == "raised")


async def cancelled(speaker: Speaker, at: Any, said: str = "q1") -> None:
    reply = asyncio.create_task(speaker.say(said))
    await reach(at.waiting, reply)
    await ticks()
    await cancel(reply)
    assert reply.cancelled() == speaker.agent.react_config.interruption_raise_cancelled_error


@pytest.mark.every_cast
class TestCancelled:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_cancellation_before_the_model_speaks_keeps_the_input(
        self, cast: Cast, react: ReActConfig, *, stream: bool
    ) -> None:
        speaker = cast.speaker(for_ever(), stream=stream, react=react)
        await cancelled(speaker, speaker.model)
        assert await cast.told() == ["q1"]
        assert await next_sees(cast) == ["q1"]
        await assert_kept(cast, ["q1"])

    async def test_cancellation_while_the_model_speaks_keeps_the_text(self, cast: Cast, react: ReActConfig) -> None:
        speaker = cast.speaker([thought("Hm.", "signed"), text("Half of it"), for_ever()], react=react)
        await cancelled(speaker, speaker.model)
        assert await next_sees(cast) == ["q1", "Half of it"]
        await assert_kept(cast, ["q1", "Half of it"])

    async def test_cancellation_while_the_model_calls_closes_the_call(self, cast: Cast, react: ReActConfig) -> None:
        speaker = cast.speaker([text("I look."), call("weather", city="Rome"), for_ever()], react=react)
        await cancelled(speaker, speaker.model)
        assert await next_sees(cast) == ["q1", "I look.", "call weather", "interrupted"]
        assert cast.tools.ran == []

    async def test_cancellation_in_the_second_model_call_keeps_the_result(self, cast: Cast, react: ReActConfig) -> None:
        speaker = cast.speaker(call("weather", city="Rome"), [text("It is"), for_ever()], react=react)
        await cancelled(speaker, speaker.model)
        assert await next_sees(cast) == ["q1", *SUNNY, "It is"]
        await assert_kept(cast, ["q1", *SUNNY, "It is"])

    @pytest.mark.parametrize("tool", ["endless", "endless_alone"])
    async def test_cancellation_in_a_tool_closes_the_call(self, cast: Cast, react: ReActConfig, tool: str) -> None:
        speaker = cast.speaker([text("I look."), call(tool)], react=react)
        await cancelled(speaker, speaker.tools)
        assert await next_sees(cast) == ["q1", "I look.", f"call {tool}", "interrupted"]
        await assert_kept(cast, ["q1", "I look.", f"call {tool}", "interrupted"])

    async def test_cancellation_in_one_of_two_tools_keeps_the_other_result(
        self, cast: Cast, react: ReActConfig
    ) -> None:
        speaker = cast.speaker([call("weather", city="Rome"), call("endless")], react=react)
        await cancelled(speaker, speaker.tools)
        assert await next_sees(cast) == ["q1", "call weather", "call endless", SUNNY[1], "interrupted"]

    async def test_cancelled_reply_is_one_message(self, cast: Cast, react: ReActConfig) -> None:
        speaker = cast.speaker(call("weather", city="Rome"), [text("It is"), for_ever()], react=react)
        await cancelled(speaker, speaker.model)
        assert beginning(await cast.logged()) == ["user", "assistant"]
        await next_sees(cast)
        assert beginning(await cast.logged()) == ["user", "assistant"] * 2

    async def test_time_limit_interrupts_the_reply(self, cast: Cast) -> None:
        speaker = cast.speaker(
            [text("Half of it"), for_ever()], react=ReActConfig(interruption_raise_cancelled_error=True)
        )
        limit = asyncio.timeout(None)

        async def expire() -> None:
            await speaker.model.waiting.wait()
            limit.reschedule(0)

        expiring = asyncio.create_task(expire())
        with pytest.raises(TimeoutError):
            async with limit:
                await speaker.say("q1")
        await expiring
        assert await next_sees(cast) == ["q1", "Half of it"]


@pytest.mark.every_cast
class TestLeft:
    """The consumer breaks out of ``reply_stream`` and does not close it."""

    async def test_stream_left_while_the_model_speaks_keeps_the_text(self, cast: Cast) -> None:
        speaker = cast.speaker([text("Half of it"), text(", and more"), for_ever()])
        await leave(speaker, "q1", lambda event: isinstance(event, TextBlockDeltaEvent) and event.delta == "of it")
        await ticks()
        assert await cast.told() == ["q1", "Half of it"]
        assert await next_sees(cast) == ["q1", "Half of it"]
        await assert_kept(cast, ["q1", "Half of it"])

    async def test_stream_left_after_the_model_spoke_keeps_the_text(self, cast: Cast) -> None:
        """AgentScope has told of the end of the call, and has not yet taken the text into its context."""
        await leave(cast.speaker(text("a1")), "q1", lambda event: isinstance(event, ModelCallEndEvent))
        await ticks()
        assert await next_sees(cast) == ["q1", "a1"]
        await assert_kept(cast, ["q1", "a1"])

    async def test_stream_left_in_the_second_model_call_keeps_the_result(self, cast: Cast) -> None:
        speaker = cast.speaker([text("I look."), call("weather", city="Rome")], [text("It is sunny"), for_ever()])
        await leave(speaker, "q1", lambda event: isinstance(event, TextBlockDeltaEvent) and event.delta == "It is")
        await ticks()
        expected = ["q1", "I look.", *SUNNY, "It is"]
        assert await next_sees(cast) == expected
        await assert_kept(cast, expected)
        assert beginning(await cast.logged()) == ["user", "assistant"] * 2

    async def test_stream_left_while_the_model_calls_closes_the_call(self, cast: Cast) -> None:
        speaker = cast.speaker([text("I look."), call("weather", city="Rome"), for_ever()])
        await leave(speaker, "q1", lambda event: isinstance(event, ToolCallStartEvent))
        await ticks()
        seen = await next_sees(cast)
        assert seen[:2] == ["q1", "I look."]
        assert seen[2:] in ([], ["call weather", "interrupted"])
        assert cast.tools.ran == []

    @pytest.mark.parametrize("tool", ["endless", "endless_alone"])
    async def test_stream_left_in_a_tool_closes_the_call(self, cast: Cast, tool: str) -> None:
        speaker = cast.speaker([text("I look."), call(tool)])
        await leave(speaker, "q1", lambda event: isinstance(event, ToolResultStartEvent))
        await ticks()
        before = await cast.logged()
        assert told(before)[:3] == ["q1", "I look.", f"call {tool}"]
        assert await next_sees(cast) == ["q1", "I look.", f"call {tool}", "interrupted"]
        assert (await cast.logged())[:2] == before

    async def test_stream_left_after_a_tool_keeps_the_result(self, cast: Cast) -> None:
        speaker = cast.speaker(call("weather", city="Rome"), text("never"))
        await leave(speaker, "q1", lambda event: isinstance(event, ToolResultEndEvent))
        await ticks()
        assert await next_sees(cast) == ["q1", *SUNNY]
        await assert_kept(cast, ["q1", *SUNNY])

    async def test_stream_left_between_two_tools_closes_the_second_call(self, cast: Cast) -> None:
        speaker = cast.speaker([call("plan", subject="one"), call("plan", subject="two")])
        await leave(speaker, "q1", lambda event: isinstance(event, ToolResultEndEvent))
        await ticks()
        assert await next_sees(cast) == ["q1", "call plan", "call plan", "success: planned", "interrupted"]
        assert cast.tools.ran == ["plan one"]

    async def test_stream_left_at_once_keeps_the_input(self, cast: Cast) -> None:
        await leave(cast.speaker(text("never")), "q1", lambda event: isinstance(event, ReplyStartEvent))
        await ticks()
        assert await cast.told() == ["q1"]
        assert await next_sees(cast) == ["q1"]
        await assert_kept(cast, ["q1"])

    async def test_stream_left_before_the_model_call_keeps_the_input(self, cast: Cast) -> None:
        await leave(cast.speaker(text("never")), "q1", lambda event: isinstance(event, ModelCallStartEvent))
        await ticks()
        assert await next_sees(cast) == ["q1"]
        await assert_kept(cast, ["q1"])

    async def test_stream_left_at_its_end_is_complete(self, cast: Cast) -> None:
        speaker = cast.speaker(call("weather", city="Rome"), text("a1"))
        await leave(speaker, "q1", lambda event: isinstance(event, ReplyEndEvent))
        assert await cast.told() == ["q1", *SUNNY, "a1"]
        assert await next_sees(cast) == ["q1", *SUNNY, "a1"]
        await assert_kept(cast, ["q1", *SUNNY, "a1"])

    async def test_stream_that_is_closed_is_interrupted(self, cast: Cast) -> None:
        speaker = cast.speaker([text("Half of it"), for_ever()])
        stream = speaker.agent.reply_stream(UserMsg("user", "q1"))
        async for event in stream:
            if isinstance(event, TextBlockDeltaEvent) and event.delta == "of it":
                break
        await stream.aclose()
        await ticks()
        assert await next_sees(cast) == ["q1", "Half of it"]

    async def test_next_reply_after_a_left_stream_begins_at_once(self, cast: Cast) -> None:
        speaker = cast.speaker([text("Half of it"), for_ever()])
        await leave(speaker, "q1", lambda event: isinstance(event, TextBlockDeltaEvent) and event.delta == "of it")
        seen = await next_sees(cast)
        assert set(seen) <= {"q1", "Half of it"}
        await ticks()
        assert sorted(await cast.told()) == sorted(["q1", "Half of it", "q2", "a2"])
        third = cast.speaker(text("a3"))
        await third.say("q3")
        assert sorted(told(third.seen)) == sorted(["q1", "Half of it", "q2", "a2", "q3"])

    async def test_tool_that_ends_after_its_stream_was_left_changes_nothing(self, cast: Cast) -> None:
        speaker = cast.speaker(call("endless"))
        await leave(speaker, "q1", lambda event: isinstance(event, ToolResultStartEvent))
        await ticks()
        cast.tools.release.set()
        await ticks()
        seen = await next_sees(cast)
        assert seen[:2] == ["q1", "call endless"]
        assert seen[2:] in (["interrupted"], ["success: at last"])

    async def test_tool_that_ends_during_the_next_reply_changes_nothing(self, cast: Cast) -> None:
        speaker = cast.speaker(call("endless"))
        await leave(speaker, "q1", lambda event: isinstance(event, ToolResultStartEvent))
        await ticks()
        going_on = asyncio.Event()
        second = cast.speaker([text("a2, "), going_on, text("whole")])
        reply = asyncio.create_task(second.say("q2"))
        await reach(second.model.waiting, reply)
        cast.tools.release.set()
        await ticks()
        going_on.set()
        await reply
        third = cast.speaker(text("a3"))
        await third.say("q3")
        assert await valid(third.seen)
        assert told(third.seen)[:2] == ["q1", "call endless"]
        assert set(told(third.seen)) >= {"q2", "a2, ", "whole", "q3"}

    async def test_stop_during_a_reply_stores_it_as_interrupted(self, tmp_path: Path, save: str) -> None:
        path = tmp_path / "history.db"
        async with SqliteSessionHistoryService(path) as service:
            speaker = Speaker(service, [text("Half of it"), for_ever()], save=save)
            stream = speaker.agent.reply_stream(UserMsg("user", "q1"))
            async for event in stream:
                if isinstance(event, TextBlockDeltaEvent) and event.delta == "of it":
                    break
            await service.stop()
        async with SqliteSessionHistoryService(path) as service:
            after = Speaker(service, text("a2"), save=save)
            await after.say("q2")
            assert told(after.seen) == ["q1", "Half of it", "q2"]
        await stream.aclose()


class TestKilled:
    """SIGKILL of a process between two steps."""

    def kill(self, path: Path, save: str, where: str) -> None:
        command = [sys.executable, "-W", "error", str(CHILD), str(path), save, where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL

    @pytest.mark.parametrize(
        ("save", "where", "expected"),
        [
            ("turn", "model", []),
            ("turn", "tool", []),
            ("step", "model", ["How is Rome?", "Let me see.", *SUNNY]),
            ("step", "tool", ["How is Rome?", "Let me see.", *SUNNY, "call endless_alone"]),
        ],
    )
    async def test_killed_process_leaves_what_it_saved(
        self, tmp_path: Path, save: str, where: str, expected: list[str]
    ) -> None:
        path = tmp_path / "history.db"
        self.kill(path, save, where)
        async with SqliteSessionHistoryService(path) as service:
            before = await logged(service)
            assert told(before) == expected
            assert beginning(before) == (["user", "assistant"] if expected else [])
            speaker = Speaker(service, text("a2"), text("a3"), save=save)
            await speaker.say("q2")
            closed = ["interrupted"] if where == "tool" and expected else []
            assert told(speaker.seen) == [*expected, *closed, "q2"]
            assert await valid(speaker.seen)
            assert (await logged(service))[: len(before)] == before
            await speaker.say("q3")
            assert told(speaker.seen) == [*expected, *closed, "q2", "a2", "q3"]
            assert told(await logged(service)) == [*expected, "q2", "a2", "q3", "a3"]


class TestSteps:
    """Tests of the moments at which a reply is saved."""

    async def saved_during(self, cast: Cast, *script: Step) -> list[list[str]]:
        speaker = cast.speaker(*script)
        saved = []
        async for event in speaker.agent.reply_stream(UserMsg("user", "q1")):
            if isinstance(event, ModelCallStartEvent | ToolResultEndEvent):
                saved.append(await cast.told())
        return saved

    async def test_step_saves_before_each_reasoning_and_acting(self, cast: Cast) -> None:
        saved = await self.saved_during(
            cast, [text("One."), call("weather", city="Rome")], [text("Two."), call("weather", city="Rome")], text("a1")
        )
        first = ["q1", "One.", "call weather"]
        second = [*first, SUNNY[1], "Two.", "call weather"]
        expected = [["q1"], first, [*first, SUNNY[1]], second, [*second, SUNNY[1]]]
        assert saved == (expected if cast.save == "step" else [[]] * 5)
        assert await cast.told() == [*second, SUNNY[1], "a1"]

    async def test_reply_saved_by_step_is_one_turn_and_one_message(self, cast: Cast) -> None:
        await self.saved_during(cast, *[call("weather", city="Rome") for _ in range(4)], text("a1"))
        session = await cast.service.get_session("u", "s", native=True)
        assert session is not None
        assert (session.turns, beginning(session.messages)) == (1, ["user", "assistant"])

    async def test_open_turn_of_a_failed_process_is_seen_by_a_window(self, cast: Cast) -> None:
        with pytest.raises(Boom):
            await cast.speaker(call("weather", city="Rome"), Boom("no")).say("q1")
        session = await cast.service.get_session("u", "s", last_turns=1, native=True)
        assert session is not None
        assert told(session.messages) == ["q1", *SUNNY]


class TestNewMessageWhileParked:
    async def test_message_to_a_parked_agent_raises_and_is_kept(self, cast: Cast) -> None:
        await park(cast.speaker(call("book", city="Rome")), UserMsg("user", "q0"))
        with pytest.raises(ValueError, match="waiting"):
            await cast.speaker(text("never")).say("q1")
        assert sorted(await cast.told()) == sorted(["q0", "call book", "q1"])
        assert cast.tools.ran == []

    async def test_messages_to_a_parked_agent_are_both_kept(self, cast: Cast) -> None:
        await park(cast.speaker(call("book", city="Rome")), UserMsg("user", "q0"))
        for said in ("q1", "q2"):
            with pytest.raises(ValueError, match="waiting"):
                await cast.speaker(text("never")).say(said)
        assert sorted(await cast.told()) == sorted(["q0", "call book", "q1", "q2"])

    async def test_message_observed_before_is_kept_beside_it(self, cast: Cast) -> None:
        await park(cast.speaker(call("book", city="Rome")), UserMsg("user", "q0"))
        speaker = cast.speaker(text("never"))
        await speaker.agent.observe(UserMsg("user", "a note"))
        with pytest.raises(ValueError, match="waiting"):
            await speaker.say("q1")
        assert sorted(await cast.told()) == sorted(["q0", "call book", "a note", "q1"])

    async def test_message_of_another_agent_does_not_block_it(self, cast: Cast) -> None:
        await park(cast.speaker(call("book", city="Rome")), UserMsg("user", "q0"))
        other = cast.speaker(text("a1"), name="saturday")
        await other.say("q1")
        assert told(other.seen) == ["q0", "call book", "interrupted", "q1"]


@pytest.mark.every_cast
class TestStateAfterFailure:
    async def test_iteration_limit_counts_from_zero_after_a_failure(self, cast: Cast) -> None:
        react = ReActConfig(max_iters=2)
        with pytest.raises(Boom):
            await cast.speaker(call("weather", city="Rome"), Boom("no"), react=react).say("q1")
        speaker = cast.speaker(call("weather", city="Rome"), text("a2"), react=react)
        assert (await speaker.say("q2")).get_text_content() == "a2"

    async def test_a_state_without_a_session_is_another_session(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).say("q1")
        other = Speaker(cast.service, text("a2"), state=AgentState(), save=cast.save)
        await other.say("q2")
        assert told(other.seen) == ["q2"]
