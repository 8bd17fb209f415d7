"""An agent of AgentScope remembers: what the second model call sees, and what the log holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from agentscope.agent import InjectionConfig
from agentscope.event import ReplyEndEvent, ReplyStartEvent
from agentscope.message import AssistantMsg, HintBlock, Msg, UserMsg
from agentscope.state import AgentState
from pydantic import BaseModel

from runtimes.agentscope.support import (
    Cast,
    Json,
    Speaker,
    call,
    image,
    logged,
    text,
    thought,
    ticks,
    told,
    valid,
)
from session_history import SessionHistoryService, SqliteSessionHistoryService, TokenBudget
from session_history.configured import _configured_service
from session_history.errors import InvalidKey, NotStorable, SessionDeleted, Unavailable
from session_history.runtimes.agentscope import SessionHistoryMiddleware, app_middlewares
from support import PROGRAMS, json_lines, same

CHILD = PROGRAMS / "agentscope_child.py"

ROME = ["How is Rome?", "Let me see.", "call weather", "success: sunny in Rome", "It is sunny."]


class Forecast(BaseModel):
    city: str
    degrees: int


def child(*arguments: str) -> Any:
    command = [sys.executable, "-W", "error", str(CHILD), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


def rome() -> list[Any]:
    return [
        [thought("I should look.", "signed"), text("Let me see."), call("weather", city="Rome")],
        text("It is sunny."),
    ]


async def refused(speaker: Speaker, said: str, error: type[Exception]) -> None:
    """Its model is not called."""
    with pytest.raises(error):
        await speaker.say(said)
    assert speaker.model.calls == []


class TestRoundTrip:
    async def test_a_second_agent_sees_what_the_first_one_saw(self, cast: Cast) -> None:
        first = cast.speaker(*rome())
        await first.say("How is Rome?")
        before = first.context
        second = cast.speaker(text("Warm, too."))
        await second.say("Is it warm?")
        assert [message.model_dump(mode="json") for message in second.seen[1:3]] == before
        assert told(second.seen) == [*ROME, "Is it warm?"]
        assert await valid(second.seen)

    async def test_the_log_holds_every_message_as_it_is(self, cast: Cast) -> None:
        for script, said in ((rome(), "How is Rome?"), ([text("Warm, too.")], "Is it warm?")):
            speaker = cast.speaker(*script)
            await speaker.say(said)
            assert same(await cast.logged(), speaker.context)
        assert len(await cast.logged()) == 4

    async def test_optional_fields_of_messages_are_kept(self, cast: Cast) -> None:
        speaker = cast.speaker(
            [thought("I should look.", "signed"), call("weather", id="c1", city="Rome")], text("Sunny.")
        )
        asked = UserMsg("ann", "How is Rome?", metadata={"channel": {"id": 5, "tags": ["a", None]}})
        reply = await speaker.agent.reply(asked)
        question, answer = await cast.logged()
        assert same(question, asked.model_dump(mode="json"))
        assert (answer["id"], answer["name"], answer["role"]) == (reply.id, "friday", "assistant")
        kinds = [block["type"] for block in answer["content"]]
        assert kinds == ["hint", "thinking", "tool_call", "tool_result", "text"]
        hint, thinking, called, result, _ = answer["content"]
        assert "<current-time>" in hint["hint"]
        assert thinking["signature"] == "signed"
        assert (called["id"], called["state"]) == (result["id"], "finished") == ("c1", "finished")
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (14, 6)

    async def test_the_signature_reaches_the_next_model_call(self, cast: Cast) -> None:
        await cast.speaker(*rome()).say("How is Rome?")
        second = cast.speaker(text("Warm, too."))
        await second.say("Is it warm?")
        [thinking] = second.seen[2].get_content_blocks("thinking")
        assert (thinking.thinking, thinking.model_extra) == ("I should look.", {"signature": "signed"})

    async def test_the_time_is_told_once_and_stays_a_hint(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).say("q1")
        second = cast.speaker(text("a2"))
        await second.say("q2")
        hints = [block for message in second.seen for block in message.content if isinstance(block, HintBlock)]
        assert [hint.source for hint in hints] == [InjectionConfig().injection_source]

    async def test_history_of_many_turns_is_complete(self, cast: Cast) -> None:
        expected: list[str] = []
        for number in range(6):
            speaker = cast.speaker(call("weather", city=f"c{number}"), text(f"a{number}"))
            await speaker.say(f"q{number}")
            assert told(speaker.model.calls[0]) == [*expected, f"q{number}"]
            expected += [f"q{number}", "call weather", f"success: sunny in c{number}", f"a{number}"]
        assert await cast.told() == expected
        assert len(await cast.logged()) == 12

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_model_that_streams_and_one_that_does_not(
        self, service: SessionHistoryService, *, stream: bool
    ) -> None:
        await Speaker(service, *rome(), stream=stream).say("How is Rome?")
        second = Speaker(service, text("Warm."), stream=stream)
        await second.say("Is it warm?")
        assert told(second.seen) == [*ROME, "Is it warm?"]

    async def test_a_completed_reply_is_one_turn(self, cast: Cast) -> None:
        await cast.speaker(*rome()).say("How is Rome?")
        await cast.speaker(text("Warm.")).say("Is it warm?")
        session = await cast.service.get_session("u", "s")
        assert session is not None
        assert session.turns == 2
        newest = await cast.service.get_session("u", "s", last_turns=1, native=True)
        assert newest is not None
        assert told(newest.messages) == ["Is it warm?", "Warm."]

    async def test_reply_is_saved_before_its_end_event(self, cast: Cast) -> None:
        speaker = cast.speaker(*rome())
        async for event in speaker.agent.reply_stream(UserMsg("user", "How is Rome?")):
            if isinstance(event, ReplyEndEvent):
                assert await cast.told() == ROME
                break
        else:
            pytest.fail("there was no end")

    async def test_every_event_reaches_the_consumer(self, service: SessionHistoryService) -> None:
        with_history = Speaker(service, *rome())
        without = Speaker(None, *rome(), middlewares=[])
        for speaker in (with_history, without):
            speaker.events = [  # type: ignore[attr-defined]
                type(event).__name__
                async for event in speaker.agent.reply_stream(UserMsg("user", "q"), yield_final_msg=True)
            ]
        assert with_history.events == without.events  # type: ignore[attr-defined]

    @pytest.mark.parametrize("save", ["turn", "step"])
    async def test_another_process_continues_the_conversation(self, tmp_path: Path, save: str) -> None:
        path = tmp_path / "history.db"
        context = child(str(path), save, "reply")
        async with SqliteSessionHistoryService(path) as service:
            assert same(await logged(service), context)
            speaker = Speaker(service, text("Warm."), save=save)
            await speaker.say("Is it warm?")
            assert [message.model_dump(mode="json") for message in speaker.seen[1:3]] == context
            assert told(speaker.seen) == [*ROME, "Is it warm?"]

    async def test_users_and_sessions_are_apart(self, service: SessionHistoryService) -> None:
        await Speaker(service, text("a1")).say("q1")
        for user_id, session_id in (("v", "s"), ("u", "t")):
            other = Speaker(service, text("a2"), user_id=user_id, session_id=session_id)
            await other.say("q2")
            assert told(other.seen) == ["q2"]
        assert told(await logged(service)) == ["q1", "a1"]

    async def test_middleware_serves_many_sessions(self, service: SessionHistoryService) -> None:
        shared = SessionHistoryMiddleware(service, user_id="u")
        for name in ("s", "t", "s", "t"):
            speaker = Speaker(service, text(f"a {name}"), session_id=name, middlewares=[shared])
            await speaker.say(f"q {name}")
        assert told(await logged(service, session_id="t")) == ["q t", "a t"] * 2


class TestRealMessages:
    def messages(self, shared: Path) -> list[list[Json]]:
        sessions = json_lines(shared / "data" / "agentscope-msgs" / "sessions.jsonl")
        return [session["messages"] for session in sessions if session["format"] == "agentscope.msg.v2"]

    async def test_messages_of_the_corpus_come_back_equal(self, service: SessionHistoryService, shared: Path) -> None:
        conversations = self.messages(shared)
        assert conversations
        for number, messages in enumerate(conversations):
            context = [Msg.model_validate(message) for message in messages]
            expected = [message.model_dump(mode="json") for message in context]
            state = AgentState(session_id=f"s{number}", context=context)
            await Speaker(service, text("a"), state=state).say("q")
            assert same((await logged(service, session_id=f"s{number}"))[:-2], expected)
            fresh = Speaker(service, text("a2"), session_id=f"s{number}")
            await fresh.say("q2")
            assert [message.model_dump(mode="json") for message in fresh.seen[1 : 1 + len(expected)]] == expected


class TestInputs:
    async def test_input_list_is_recorded_message_by_message(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).agent.reply([UserMsg("user", "q1"), UserMsg("user", "q2")])
        second = cast.speaker(text("a2"))
        await second.say("q3")
        assert told(second.seen) == ["q1", "q2", "a1", "q3"]
        assert len(await cast.logged()) == 5

    async def test_input_of_another_agent_is_recorded(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).agent.reply(AssistantMsg("saturday", "I am here, too."))
        second = cast.speaker(text("a2"))
        await second.say("q2")
        assert told(second.seen) == ["I am here, too.", "a1", "q2"]
        assert [(message["role"], message["name"]) for message in await cast.logged()] == [
            ("assistant", "saturday"),
            ("assistant", "friday"),
            ("user", "user"),
            ("assistant", "friday"),
        ]

    async def test_reply_without_an_input_is_recorded(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).say("q1")
        second = cast.speaker(text("a2"))
        await second.agent.reply(None)
        assert told(second.seen) == ["q1", "a1"]
        third = cast.speaker(text("a3"))
        await third.say("q3")
        assert told(third.seen) == ["q1", "a1", "a2", "q3"]
        assert await cast.told() == ["q1", "a1", "a2", "q3", "a3"]

    async def test_input_image_is_recorded(self, cast: Cast) -> None:
        asked = UserMsg("user", [image("one"), text("What is it?")])
        await cast.speaker(text("a1")).agent.reply(asked)
        second = cast.speaker(text("a2"))
        await second.say("q2")
        assert second.seen[1].model_dump(mode="json") == asked.model_dump(mode="json") == (await cast.logged())[0]

    async def test_message_of_the_caller_stays_unchanged(self, cast: Cast) -> None:
        asked = UserMsg("user", "q1")
        before = asked.model_dump(mode="json")
        await cast.speaker(text("a1")).agent.reply(asked)
        assert asked.model_dump(mode="json") == before

    async def test_structured_output_is_recorded(self, cast: Cast) -> None:
        output = call("GenerateStructuredOutput", city="Rome", degrees=31)
        first = cast.speaker(call("weather", city="Rome"), output)
        reply = await first.agent.reply(UserMsg("user", "q1"), structured_schema=Forecast)
        assert reply.structured_output == {"city": "Rome", "degrees": 31}
        assert same(await cast.logged(), first.context)
        second = cast.speaker(text("a2"))
        said = await second.say("q2")
        assert said.structured_output is None
        assert await valid(second.seen)
        assert told(second.seen)[1:4] == ["call weather", "success: sunny in Rome", "call GenerateStructuredOutput"]
        assert told(second.seen)[-1] == "q2"


class TestObserved:
    async def test_observed_message_is_recorded_with_the_next_reply(self, cast: Cast) -> None:
        speaker = cast.speaker(text("a1"))
        await speaker.agent.observe(UserMsg("user", "a note"))
        await speaker.say("q1")
        assert told(speaker.seen) == ["a note", "q1"]
        second = cast.speaker(text("a2"))
        await second.say("q2")
        assert told(second.seen) == ["a note", "q1", "a1", "q2"]
        assert await cast.told() == ["a note", "q1", "a1", "q2", "a2"]

    async def test_message_observed_between_two_replies_is_recorded(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).say("q1")
        second = cast.speaker(text("a2"))
        await second.agent.observe([UserMsg("user", "one note"), AssistantMsg("saturday", "another")])
        await second.say("q2")
        assert told(second.seen)[:2] == ["q1", "a1"]
        assert told(second.seen) == (await cast.told())[:-1] == ["q1", "a1", "one note", "another", "q2"]

    async def test_observed_message_is_recorded_by_a_reply_without_an_input(self, cast: Cast) -> None:
        speaker = cast.speaker(text("a1"))
        await speaker.agent.observe(UserMsg("user", "a note"))
        await speaker.agent.reply(None)
        assert told(speaker.seen) == ["a note"]
        assert await cast.told() == ["a note", "a1"]

    async def test_message_observed_while_another_process_replied_is_recorded(
        self, service: SessionHistoryService, save: str
    ) -> None:
        first = Speaker(service, text("a1"), text("a3"), save=save)
        await first.say("q1")
        await Speaker(service, text("a2"), save=save).say("q2")
        await first.agent.observe(UserMsg("user", "a note"))
        await first.say("q3")
        assert sorted(told(first.seen)) == sorted(["q1", "a1", "q2", "a2", "a note", "q3"])
        assert sorted(told(await logged(service))) == sorted(["q1", "a1", "q2", "a2", "a note", "q3", "a3"])

    async def test_context_older_than_the_middleware_is_recorded(self, cast: Cast) -> None:
        older = Speaker(None, *rome(), middlewares=[])
        await older.say("How is Rome?")
        state = AgentState.model_validate_json(
            older.agent.state.model_copy(update={"session_id": "s"}).model_dump_json()
        )
        first = cast.speaker(text("Warm."), state=state)
        await first.say("Is it warm?")
        assert told(first.seen) == [*ROME, "Is it warm?"]
        assert same(await cast.logged(), first.context)
        second = cast.speaker(text("a"))
        await second.say("q")
        assert told(second.seen) == [*ROME, "Is it warm?", "Warm.", "q"]


class TestLongLived:
    async def test_lasting_agent_sees_turns_of_another_process(self, service: SessionHistoryService, save: str) -> None:
        first = Speaker(service, text("a1"), text("a3"), save=save)
        await first.say("q1")
        await Speaker(service, text("a2"), save=save).say("q2")
        await first.say("q3")
        assert told(first.seen) == ["q1", "a1", "q2", "a2", "q3"]
        assert told(await logged(service)) == ["q1", "a1", "q2", "a2", "q3", "a3"]

    async def test_lasting_agent_sees_a_re_created_session_empty(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = Speaker(service, text("a1"), text("a2"), save=save)
        await speaker.say("q1")
        await service.delete_session("u", "s")
        await service.create_session("u", "s")
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        assert told(await logged(service)) == ["q2", "a2"]

    async def test_lasting_agent_with_another_session_id_sees_another_session(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = Speaker(service, text("a1"), text("a2"), save=save)
        await speaker.say("q1")
        speaker.agent.state.session_id = "t"
        await speaker.say("q2")
        assert told(await logged(service, session_id="s")) == ["q1", "a1"]


class TestWindows:
    async def test_the_newest_turns_are_shown_and_all_are_kept(self, cast: Cast) -> None:
        for number in range(9):
            speaker = cast.speaker(text(f"a{number}"), last_turns=2)
            await speaker.say(f"q{number}")
            shown = told(speaker.seen)
            whole = [said for turn in range(number) for said in (f"q{turn}", f"a{turn}")]
            assert shown == [*whole, f"q{number}"][-len(shown) :]
            assert 2 * min(2, number) <= len(shown) - 1 <= 2 * 3
        assert await cast.told() == [said for turn in range(9) for said in (f"q{turn}", f"a{turn}")]

    async def test_window_with_a_token_budget_shows_what_fits(self, cast: Cast) -> None:
        for number in range(5):
            speaker = cast.speaker(text(f"a{number}"), token_budget=TokenBudget(4, lambda message: 1))
            await speaker.say(f"q{number}")
        assert told(speaker.seen) == ["q2", "a2", "q3", "a3", "q4"]
        assert len(await cast.told()) == 10

    async def test_window_of_no_turns_is_empty(self, cast: Cast) -> None:
        for number in range(3):
            speaker = cast.speaker(text(f"a{number}"), last_turns=0)
            await speaker.say(f"q{number}")
            assert told(speaker.seen) == [f"q{number}"]
        assert len(await cast.told()) == 6

    @pytest.mark.parametrize("no_service", ["sqlite:///history.db", SessionHistoryService])
    def test_middleware_with_another_object_as_service_raises_type_error(self, no_service: Any) -> None:
        with pytest.raises(TypeError, match=r"must be a SessionHistoryService, not (str|the class)"):
            SessionHistoryMiddleware(no_service, user_id="u")

    def test_two_measures_are_refused(self, service: SessionHistoryService) -> None:
        with pytest.raises(ValueError, match="last_turns"):
            SessionHistoryMiddleware(service, user_id="u", last_turns=1, token_budget=TokenBudget(4, lambda message: 1))


class TestRefused:
    async def test_reply_with_an_unstorable_message_raises_not_storable(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).say("q1")
        before = await cast.logged()
        bad = UserMsg("user", "bad")
        bad.content[0].text = "half a pair \ud800"  # type: ignore[union-attr]
        speaker = cast.speaker(text("never"))
        with pytest.raises(NotStorable) as caught:
            await speaker.agent.reply(bad)
        assert "half a pair" not in str(caught.value)
        assert speaker.model.calls == []
        assert await cast.logged() == before
        after = cast.speaker(text("a2"))
        await after.say("q2")
        assert told(after.seen) == ["q1", "a1", "q2"]
        assert await cast.told() == ["q1", "a1", "q2", "a2"]

    async def test_message_that_contains_itself_raises_not_storable(self, cast: Cast) -> None:
        endless: Json = {}
        endless["again"] = endless
        speaker = cast.speaker(text("never"))
        with pytest.raises(NotStorable):
            await speaker.agent.reply(UserMsg("user", "q1", metadata=endless))
        assert speaker.model.calls == []

    async def test_state_that_contains_itself_is_left_out(self, cast: Cast) -> None:
        speaker = cast.speaker(text("a1"))
        endless = speaker.agent.state.middle_context
        endless["again"] = endless
        await speaker.say("q1")
        assert await cast.told() == ["q1", "a1"]

    async def test_reply_in_a_deleted_session_raises_session_deleted(self, cast: Cast) -> None:
        await cast.speaker(text("a1")).say("q1")
        await cast.service.delete_session("u", "s")
        await refused(cast.speaker(text("never")), "q2", SessionDeleted)
        assert await cast.service.get_session("u", "s") is None

    async def test_reply_in_a_session_deleted_meanwhile_raises_session_deleted(
        self, service: SessionHistoryService, save: str
    ) -> None:
        await Speaker(service, text("a1")).say("q1")
        speaker = Speaker(service, call("weather", city="Rome"), text("a2"), save=save)
        with pytest.raises(SessionDeleted):
            async for event in speaker.agent.reply_stream(UserMsg("user", "q2")):
                if isinstance(event, ReplyStartEvent):
                    await service.delete_session("u", "s")
        assert await service.get_session("u", "s") is None

    async def test_middleware_with_a_wrong_user_id_raises(self, service: SessionHistoryService) -> None:
        with pytest.raises(InvalidKey):
            await Speaker(service, text("never"), user_id="").say("q")

    async def test_reply_without_a_readable_store_raises_unavailable(
        self, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await cast.speaker(text("a1")).say("q1")
        with monkeypatch.context() as patched:
            speaker = cast.speaker(text("never"))
            break_store(patched, speaker, "read")
            await refused(speaker, "q2", Unavailable)
        after = cast.speaker(text("a3"))
        await after.say("q3")
        assert told(after.seen)[:2] == ["q1", "a1"]
        assert told(after.seen)[-1] == "q3"

    async def test_reply_without_a_writable_store_raises_unavailable(
        self, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await cast.speaker(text("a1")).say("q1")
        with monkeypatch.context() as patched:
            speaker = cast.speaker(call("weather", city="Rome"), text("a2"))
            break_store(patched, speaker, "append")
            with pytest.raises(Unavailable):
                await speaker.say("q2")
        assert await cast.told() == ["q1", "a1"]
        after = cast.speaker(text("a3"))
        await after.say("q3")
        assert told(after.seen)[:2] == ["q1", "a1"]
        assert told(after.seen)[-1] == "q3"
        assert (await cast.told())[-2:] == ["q3", "a3"]

    async def test_reply_that_was_not_saved_has_no_end_event(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speaker = Speaker(service, text("a1"))
        break_store(monkeypatch, speaker, "append", service)
        events = []
        with pytest.raises(Unavailable):
            async for event in speaker.agent.reply_stream(UserMsg("user", "q1")):
                events.append(event)
        assert events
        assert not any(isinstance(event, ReplyEndEvent) for event in events)

    async def test_reply_with_a_stopped_service_raises_unavailable(self, service: SessionHistoryService) -> None:
        speaker = Speaker(service, text("never"))
        await service.stop()
        await refused(speaker, "q1", Unavailable)


def break_store(
    monkeypatch: pytest.MonkeyPatch, speaker: Speaker, method: str, service: SessionHistoryService | None = None
) -> None:
    async def unavailable(*_: Any, **__: Any) -> Any:
        raise Unavailable("the store is away")

    used = service or speaker.service
    assert used is not None
    monkeypatch.setattr(used.provider, method, unavailable)


class TestChosen:
    async def test_middleware_without_a_service_uses_the_configuration(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SESSION_HISTORY_URL", f"sqlite:///{tmp_path / 'history.db'}")
        _configured_service.cache_clear()
        try:
            for number in range(2):
                speaker = Speaker(None, text(f"a{number}"))
                await speaker.say(f"q{number}")
            assert told(speaker.seen) == ["q0", "a0", "q1"]
            await _configured_service().stop()
        finally:
            _configured_service.cache_clear()
        async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
            assert told(await logged(service)) == ["q0", "a0", "q1", "a1"]

    async def test_middlewares_for_an_app(self, service: SessionHistoryService, save: Literal["turn", "step"]) -> None:
        make = app_middlewares(service, save=save)
        for number in range(2):
            [middleware] = await make("u", "an agent", "s")
            assert isinstance(middleware, SessionHistoryMiddleware)
            speaker = Speaker(service, text(f"a{number}"), middlewares=[middleware])
            await speaker.say(f"q{number}")
        assert told(speaker.seen) == ["q0", "a0", "q1"]
        assert told(await logged(service)) == ["q0", "a0", "q1", "a1"]

    async def test_middleware_repr_shows_no_content(self, service: SessionHistoryService) -> None:
        middleware = SessionHistoryMiddleware(service, user_id="u")
        await Speaker(service, text("secret"), middlewares=[middleware]).say("secret")
        await ticks()
        assert "secret" not in repr(middleware)
