"""One agent object that is used for several sessions: nothing that belongs to one enters another."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from agentscope.event import ReplyStartEvent, TextBlockDeltaEvent, ToolResultStartEvent
from agentscope.message import Msg, UserMsg
from agentscope.middleware import MiddlewareBase
from agentscope.permission import PermissionBehavior, PermissionContext, PermissionMode, PermissionRule
from agentscope.state import AgentState
from agentscope.state._state import ReadCacheEntry

from runtimes.agentscope.support import (
    Speaker,
    call,
    cancel,
    decided,
    for_ever,
    leave,
    logged,
    park,
    reach,
    text,
    ticks,
    told,
)
from runtimes.agentscope.test_compaction import CONTEXT
from session_history import InMemorySessionHistoryService, SessionHistoryService
from session_history.errors import SessionBusy, TurnClosed
from session_history.runtimes.agentscope import SessionHistoryMiddleware

pytestmark = pytest.mark.every_store

Change = Callable[[Speaker], Awaitable[None]]


async def only_session(speaker: Speaker) -> None:
    speaker.agent.state.session_id = "bob"


async def new_context(speaker: Speaker) -> None:
    speaker.agent.state.session_id = "bob"
    speaker.agent.state.context = []


async def context_cleared_in_place(speaker: Speaker) -> None:
    speaker.agent.state.context.clear()
    speaker.agent.state.session_id = "bob"


async def context_cut_in_place(speaker: Speaker) -> None:
    del speaker.agent.state.context[0]
    speaker.agent.state.session_id = "bob"


async def markers_cleared(speaker: Speaker) -> None:
    speaker.agent.state.session_id = "bob"
    speaker.agent.state.middle_context.clear()


async def message_observed(speaker: Speaker) -> None:
    await speaker.agent.observe(UserMsg("user", "alice's note"))
    speaker.agent.state.session_id = "bob"


async def new_state(speaker: Speaker) -> None:
    speaker.agent.state = AgentState(session_id="bob")


CHANGES = [
    only_session,
    new_context,
    context_cleared_in_place,
    context_cut_in_place,
    markers_cleared,
    message_observed,
    new_state,
]


@pytest.fixture(params=CHANGES, ids=lambda change: change.__name__)
def change(request: pytest.FixtureRequest) -> Change:
    """Return a way in which an app gives an agent to another session."""
    chosen: Change = request.param
    return chosen


async def leave_open(speaker: Speaker, said: str = "alice's question") -> AsyncGenerator[Any, None]:
    """Leave a reply in mid-stream, and keep it, so that nobody closes it."""
    stream = speaker.agent.reply_stream(UserMsg("user", said))
    async for event in stream:
        if isinstance(event, TextBlockDeltaEvent | ToolResultStartEvent):
            return stream
    raise AssertionError("the reply ended before that")


def alice(service: SessionHistoryService | None, *script: Any, **options: Any) -> Speaker:
    return Speaker(service, *script, session_id="alice", **options)


async def said_in(service: SessionHistoryService, session_id: str, user_id: str = "u") -> list[str]:
    return told(await logged(service, user_id, session_id))


LEFT = ["alice's question", "alice's"]
BOB = ["bob's question", "bob's answer"]


class TestLeft:
    async def test_left_turn_is_settled_in_its_session(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        speaker = alice(service, [text("alice's secret"), for_ever()], text("bob's answer"), save=save)
        stream = await leave_open(speaker)
        await change(speaker)
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "bob") == BOB
        assert await said_in(service, "alice") == LEFT
        session = await service.get_session("u", "alice")
        assert session is not None
        assert session.turns == 1
        await stream.aclose()

    async def test_late_close_changes_nothing(self, service: SessionHistoryService, save: str, change: Change) -> None:
        speaker = alice(
            service, [text("alice's secret"), for_ever()], text("bob's answer"), text("bob's second"), save=save
        )
        stream = await leave_open(speaker)
        await change(speaker)
        await speaker.say("bob's question")
        before = speaker.agent.state.model_dump(mode="json")
        await stream.aclose()
        await ticks()
        assert speaker.agent.state.model_dump(mode="json") == before
        await speaker.say("more")
        assert told(speaker.seen) == [*BOB, "more"]
        assert await said_in(service, "bob") == [*BOB, "more", "bob's second"]
        assert await said_in(service, "alice") == LEFT

    async def test_close_before_the_next_turn_stores_it_in_its_session(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        speaker = alice(service, [text("alice's secret"), for_ever()], text("bob's answer"), save=save)
        stream = await leave_open(speaker)
        await change(speaker)
        await stream.aclose()
        await ticks()
        assert await said_in(service, "alice") == LEFT
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "bob") == BOB

    async def test_stream_that_goes_on_after_the_next_turn_raises(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        speaker = alice(service, [text("alice's secret"), text("alice's other")], text("bob's answer"), save=save)
        stream = await leave_open(speaker)
        await change(speaker)
        await speaker.say("bob's question")
        with pytest.raises(TurnClosed):
            async for _ in stream:
                pass
        assert await said_in(service, "bob") == BOB
        assert await said_in(service, "alice") == LEFT

    async def test_tool_that_ends_in_the_next_turn_adds_nothing_to_it(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        going_on = asyncio.Event()
        speaker = alice(service, call("endless", id="c1"), [text("bob's answer"), going_on], text("b"), save=save)
        stream = await leave_open(speaker)
        await reach(speaker.tools.waiting, asyncio.create_task(ticks()))
        await change(speaker)
        reply = asyncio.create_task(speaker.say("bob's question"))
        await reach(speaker.model.waiting, reply)
        speaker.tools.release.set()
        await ticks()
        going_on.set()
        await reply
        await speaker.say("more")
        assert told(speaker.seen) == [*BOB, "more"]
        assert await said_in(service, "bob") == [*BOB, "more", "b"]
        assert await said_in(service, "alice") == ["alice's question", "call endless"]
        await stream.aclose()

    async def test_tool_that_ends_before_the_next_turn_adds_nothing_to_it(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        speaker = alice(service, call("endless", id="c1"), text("bob's answer"), save=save)
        stream = await leave_open(speaker)
        await reach(speaker.tools.waiting, asyncio.create_task(ticks()))
        await change(speaker)
        speaker.tools.release.set()
        await ticks()
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "bob") == BOB
        assert (await said_in(service, "alice"))[:2] == ["alice's question", "call endless"]
        await stream.aclose()

    async def test_left_turn_of_the_same_session_is_seen_by_the_next(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = alice(service, [text("alice's secret"), for_ever()], text("a2"), save=save)
        stream = await leave_open(speaker)
        await speaker.agent.observe(UserMsg("user", "a note"))
        await speaker.say("q2")
        assert told(speaker.seen) == [*LEFT, "a note", "q2"]
        assert await said_in(service, "alice") == [*LEFT, "a note", "q2", "a2"]
        await stream.aclose()


class Dispatcher(MiddlewareBase):
    """Has one middleware of the session history per user, on one agent object."""

    def __init__(self, *middlewares: SessionHistoryMiddleware) -> None:
        self.middlewares = list(middlewares)

    def on_reply(self, agent: Any, input_kwargs: Any, next_handler: Any) -> AsyncGenerator[Any, None]:
        return self.middlewares[0].on_reply(agent, input_kwargs, next_handler)

    def on_acting(self, agent: Any, input_kwargs: Any, next_handler: Any) -> AsyncGenerator[Any, None]:
        return self.middlewares[0].on_acting(agent, input_kwargs, next_handler)

    async def on_compress_context(self, agent: Any, input_kwargs: Any, next_handler: Any) -> None:
        await self.middlewares[0].on_compress_context(agent, input_kwargs, next_handler)

    async def on_check_permission(self, agent: Any, input_kwargs: Any, next_handler: Any) -> Any:
        return await self.middlewares[0].on_check_permission(agent, input_kwargs, next_handler)


@pytest.fixture
def users(service: SessionHistoryService, save: Any) -> Dispatcher:
    return Dispatcher(*(SessionHistoryMiddleware(service, user_id=user, save=save) for user in ("alice", "bob")))


class TestUsers:
    """Two users have sessions of one id, and one agent object."""

    async def test_left_turn_of_another_user_is_settled_there(
        self, service: SessionHistoryService, users: Dispatcher
    ) -> None:
        speaker = Speaker(None, [text("alice's secret"), for_ever()], text("bob's answer"), middlewares=[users])
        stream = await leave_open(speaker)
        users.middlewares.reverse()
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "s", "bob") == BOB
        assert await said_in(service, "s", "alice") == LEFT
        await stream.aclose()
        assert await said_in(service, "s", "bob") == BOB

    async def test_users_take_turns(self, service: SessionHistoryService, users: Dispatcher) -> None:
        speaker = Speaker(None, *map(text, ("a1", "b1", "a2", "b2")), middlewares=[users])
        seen = []
        for question in ("qa1", "qb1", "qa2", "qb2"):
            await speaker.say(question)
            seen.append(told(speaker.seen))
            users.middlewares.reverse()
        assert seen == [["qa1"], ["qb1"], ["qa1", "a1", "qa2"], ["qb1", "b1", "qb2"]]
        assert await said_in(service, "s", "alice") == ["qa1", "a1", "qa2", "a2"]
        assert await said_in(service, "s", "bob") == ["qb1", "b1", "qb2", "b2"]

    async def test_tool_of_another_user_that_ends_late_adds_nothing(
        self, service: SessionHistoryService, users: Dispatcher
    ) -> None:
        going_on = asyncio.Event()
        speaker = Speaker(None, call("endless"), [text("bob's answer"), going_on], middlewares=[users])
        stream = await leave_open(speaker)
        await reach(speaker.tools.waiting, asyncio.create_task(ticks()))
        users.middlewares.reverse()
        reply = asyncio.create_task(speaker.say("bob's question"))
        await reach(speaker.model.waiting, reply)
        speaker.tools.release.set()
        await ticks()
        going_on.set()
        await reply
        assert told(speaker.agent.state.context) == BOB
        assert await said_in(service, "s", "bob") == BOB
        await stream.aclose()

    async def test_user_ids_are_not_in_the_state(self, users: Dispatcher) -> None:
        speaker = Speaker(None, text("a1"), middlewares=[users], session_id="a-session")
        await speaker.say("q1")
        assert "alice" not in str(speaker.agent.state.middle_context)


class TestChange:
    async def test_ended_turn_is_not_seen_by_another_session(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        speaker = alice(service, text("alice's secret"), text("alice's other"), text("bob's answer"), save=save)
        await speaker.say("alice's question")
        await speaker.say("alice's second")
        await change(speaker)
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "bob") == BOB
        assert len(await said_in(service, "alice")) == 4

    async def test_turn_that_was_left_at_once_is_not_seen_by_another_session(
        self, service: SessionHistoryService, save: str, change: Change
    ) -> None:
        speaker = alice(service, text("bob's answer"), save=save)
        stream = speaker.agent.reply_stream(UserMsg("user", "alice's question"))
        assert isinstance(await anext(stream), ReplyStartEvent)
        await change(speaker)
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "bob") == BOB
        assert await said_in(service, "alice") == ["alice's question"]
        await stream.aclose()

    async def test_agent_gets_back_what_each_session_holds(self, service: SessionHistoryService, save: str) -> None:
        speaker = alice(service, call("plan", subject="of alice"), text("a1"), text("b1"), text("a2"), save=save)
        await speaker.say("q1")
        speaker.agent.state.session_id = "bob"
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        assert speaker.agent.state.tasks_context.tasks == []
        speaker.agent.state.session_id = "alice"
        await speaker.say("q3")
        assert told(speaker.seen) == ["q1", "call plan", "success: planned", "a1", "q3"]
        assert [task.subject for task in speaker.agent.state.tasks_context.tasks] == ["of alice"]

    async def test_files_groups_summary_and_middlewares_state_are_dropped(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = alice(service, call("reset_tools", maps=True), text("a1"), text("b1"), save=save)
        await speaker.say("q1")
        state = speaker.agent.state
        entry = ReadCacheEntry(lines=["secret"], updated_at=1.0, bytes=0.1, file_path="/a/file")
        state.tool_context.read_file_cache.append(entry)
        state.tool_context.max_cache_files = 7
        state.middle_context["another middleware"] = {"user": "alice"}
        state.summary = "alice said it"
        state.session_id = "bob"
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        assert (state.tool_context.read_file_cache, state.tool_context.activated_groups) == ([], [])
        assert state.tool_context.max_cache_files == 7
        assert (state.summary, "another middleware" in state.middle_context) == ("", False)
        assert b"alice" not in await raw(service, "bob")

    async def test_messages_that_were_not_stored_are_counted(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture
    ) -> None:
        speaker = alice(service, text("a1"), text("b1"))
        await speaker.say("q1")
        await speaker.agent.observe([UserMsg("user", "a secret note"), UserMsg("user", "another")])
        speaker.agent.state.session_id = "bob"
        with caplog.at_level(logging.WARNING, logger="session_history"):
            await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        (warning,) = [each.getMessage() for each in caplog.records if each.name == "session_history"]
        assert "2 messages" in warning
        assert "secret" not in warning

    async def test_change_without_loss_is_silent(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture
    ) -> None:
        speaker = alice(service, text("a1"), text("b1"))
        await speaker.say("q1")
        speaker.agent.state.session_id = "bob"
        with caplog.at_level(logging.WARNING, logger="session_history"):
            await speaker.say("q2")
        assert [each for each in caplog.records if each.name == "session_history"] == []

    async def test_parked_reply_stays_in_its_session(self, service: SessionHistoryService, save: str) -> None:
        speaker = alice(service, call("book", city="Rome"), text("b1"), text("a1"), save=save)
        parked = await park(speaker, UserMsg("user", "q1"))
        speaker.agent.state.session_id = "bob"
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        speaker.agent.state.session_id = "alice"
        await speaker.agent.reply(decided(parked, confirmed=True))
        assert told(speaker.seen) == ["q1", "call book", "success: booked Rome"]
        assert await said_in(service, "alice") == ["q1", "call book", "success: booked Rome", "a1"]
        assert await said_in(service, "bob") == ["q2", "b1"]

    async def test_state_of_another_session_that_the_app_kept_is_dropped(
        self, service: SessionHistoryService, save: str
    ) -> None:
        """Also in another process, where nothing is known of the agent but its state."""
        first = alice(service, text("a1"), save=save)
        await first.say("q1")
        state = AgentState.model_validate_json(first.agent.state.model_dump_json())
        state.session_id = "bob"
        second = Speaker(service, text("b1"), state=state, save=save)
        await second.say("q2")
        assert told(second.seen) == ["q2"]
        assert await said_in(service, "bob") == ["q2", "b1"]

    async def test_compression_between_replies_belongs_to_the_new_session(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = alice(service, text("alice's answer"), text("b1"), save=save)
        await speaker.say("q1")
        speaker.agent.state.session_id = "bob"
        await speaker.agent.compress_context(CONTEXT)
        assert speaker.model.compressed == []
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]
        assert await said_in(service, "alice") == ["q1", "alice's answer"]

    async def test_reply_while_another_session_is_replied_to_raises_session_busy(
        self, service: SessionHistoryService, save: str
    ) -> None:
        going_on = asyncio.Event()
        speaker = alice(service, [text("a1"), going_on], text("b1"), save=save)
        reply = asyncio.create_task(speaker.say("q1"))
        await reach(speaker.model.waiting, reply)
        speaker.agent.state.session_id = "bob"
        with pytest.raises(SessionBusy, match="another session") as caught:
            await speaker.say("q2")
        assert "alice" not in str(caught.value)
        going_on.set()
        await reply
        assert await said_in(service, "alice") == ["q1", "a1"]
        await speaker.say("q3")
        assert told(speaker.seen) == ["q3"]

    async def test_reply_after_a_cancelled_one_belongs_to_the_new_session(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = alice(service, [text("alice's secret"), for_ever()], text("bob's answer"), save=save)
        reply = asyncio.create_task(speaker.say("alice's question"))
        await reach(speaker.model.waiting, reply)
        await ticks()
        await cancel(reply)
        speaker.agent.state.session_id = "bob"
        await speaker.say("bob's question")
        assert told(speaker.seen) == ["bob's question"]
        assert await said_in(service, "bob") == BOB


async def raw(service: SessionHistoryService, session_id: str) -> bytes:
    """Return the bytes that the store has of a session."""
    session = await service.get_session("u", session_id, native=True)
    return str(session).encode()


def rule(tool: str, behavior: PermissionBehavior) -> PermissionRule:
    return PermissionRule(tool_name=tool, rule_content=None, behavior=behavior, source="test")


def host_permissions() -> PermissionContext:
    return PermissionContext(
        mode=PermissionMode.ACCEPT_EDITS,
        allow_rules={"weather": [rule("weather", PermissionBehavior.ALLOW)]},
        deny_rules={"way": [rule("way", PermissionBehavior.DENY)]},
    )


class TestPermissions:
    """Consents of alice do not reach bob; what the host set does."""

    async def consented(self, service: SessionHistoryService, *script: Any, save: str) -> Speaker:
        state = AgentState(session_id="alice", permission_context=host_permissions())
        speaker = Speaker(service, call("book", city="Rome"), text("a1"), *script, state=state, save=save)
        parked = await park(speaker, UserMsg("user", "q1"))
        await speaker.agent.reply(decided(parked, confirmed=True, always=True))
        assert "book" in speaker.agent.state.permission_context.allow_rules
        speaker.agent.state.permission_context.mode = PermissionMode.BYPASS
        return speaker

    @pytest.mark.parametrize("replaced", [False, True])
    async def test_consent_of_one_session_is_asked_for_again_in_another(
        self, service: SessionHistoryService, save: str, *, replaced: bool
    ) -> None:
        speaker = await self.consented(service, call("book", city="Oslo"), save=save)
        before = speaker.agent.state
        if replaced:
            speaker.agent.state = AgentState(session_id="bob")
        speaker.agent.state.session_id = "bob"
        await park(speaker, UserMsg("user", "q2"))
        assert speaker.tools.ran == ["book Rome"]
        permissions = speaker.agent.state.permission_context
        assert permissions.mode is PermissionMode.ACCEPT_EDITS
        assert (set(permissions.allow_rules), set(permissions.deny_rules)) == ({"weather"}, {"way"})
        if replaced:
            assert "book" in before.permission_context.allow_rules

    async def test_states_that_take_turns_keep_their_permissions(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = await self.consented(service, text("b1"), call("book", city="Oslo"), text("a2"), save=save)
        states = {"alice": speaker.agent.state, "bob": AgentState(session_id="bob")}
        speaker.agent.state = states["bob"]
        await speaker.say("q2")
        speaker.agent.state = states["alice"]
        await speaker.say("q3")
        assert speaker.tools.ran == ["book Rome", "book Oslo"]
        assert "book" not in states["bob"].permission_context.allow_rules

    async def test_permissions_of_a_state_of_unknown_origin_permit_nothing(
        self, service: SessionHistoryService, save: str
    ) -> None:
        speaker = await self.consented(service, save=save)
        state = AgentState.model_validate_json(speaker.agent.state.model_dump_json())
        state.session_id = "bob"
        other = Speaker(service, call("book", city="Oslo"), state=state, tools=speaker.tools, save=save)
        await park(other, UserMsg("user", "q2"))
        assert speaker.tools.ran == ["book Rome"]
        assert (state.permission_context.mode, state.permission_context.allow_rules) == (PermissionMode.DEFAULT, {})
        assert set(state.permission_context.deny_rules) == {"way"}


class TestTwoStores:
    """Two middlewares of one agent keep the same conversation in two stores."""

    @pytest.mark.parametrize("users", [("u", "u"), ("u", "v")])
    async def test_both_stores_hold_each_message_once(
        self, service: SessionHistoryService, save: Any, users: tuple[str, str]
    ) -> None:
        async with InMemorySessionHistoryService() as other:
            pairs = list(zip((service, other), users, strict=True))

            def speaker(*script: Any) -> Speaker:
                made = [SessionHistoryMiddleware(each, user_id=user, save=save) for each, user in pairs]
                return Speaker(None, *script, middlewares=made)

            first = speaker(
                text("a1"), call("weather", city="Rome"), text("a2"), [text("Half"), for_ever()], text("a4")
            )
            await first.say("q1")
            await first.say("q2")
            await leave(first, "q3", lambda event: isinstance(event, TextBlockDeltaEvent) and event.delta == "lf")
            await first.say("q4")
            second = speaker(text("a5"))
            await second.say("q5")
            expected = [
                "q1",
                "a1",
                "q2",
                "call weather",
                "success: sunny in Rome",
                "a2",
                "q3",
                "Half",
                "q4",
                "a4",
                "q5",
            ]
            assert told(second.seen) == expected
            for each, user in pairs:
                assert await said_in(each, "s", user) == [*expected, "a5"]

    async def test_parked_reply_goes_on_in_both_stores(self, service: SessionHistoryService, save: Any) -> None:
        async with InMemorySessionHistoryService() as other:

            def speaker(*script: Any) -> Speaker:
                made = [SessionHistoryMiddleware(each, user_id="u", save=save) for each in (service, other)]
                return Speaker(None, *script, middlewares=made)

            parked = await park(speaker(call("book", city="Rome")), UserMsg("user", "q1"))
            await speaker(text("a1")).agent.reply(decided(parked, confirmed=True))
            for each in (service, other):
                assert await said_in(each, "s") == ["q1", "call book", "success: booked Rome", "a1"]
                messages: list[Msg] = [Msg.model_validate(message) for message in await logged(each)]
                assert [message.role for message in messages] == ["user", "assistant"]


async def test_permission_that_is_refused_late_adds_nothing_to_another_session(
    service: SessionHistoryService, save: Any
) -> None:
    release, going_on = asyncio.Event(), asyncio.Event()

    class Slow(MiddlewareBase):
        async def on_check_permission(self, agent: Any, input_kwargs: Any, next_handler: Any) -> Any:
            decision = await next_handler(**input_kwargs)
            if input_kwargs["tool_call"].name == "endless":
                return decision
            await release.wait()
            return replace(decision, behavior=PermissionBehavior.DENY)

    calls = [call("weather", city="Rome"), call("endless")]
    made = [SessionHistoryMiddleware(service, user_id="u", save=save), Slow()]
    speaker = alice(None, calls, [text("bob's answer"), going_on], middlewares=made)
    stream = await leave_open(speaker)
    speaker.agent.state.session_id = "bob"
    reply = asyncio.create_task(speaker.say("bob's question"))
    await reach(speaker.model.waiting, reply)
    release.set()
    await ticks()
    going_on.set()
    await reply
    assert told(speaker.agent.state.context) == BOB
    assert await said_in(service, "bob") == BOB
    await stream.aclose()


async def test_agent_is_not_kept_after_its_reply(service: SessionHistoryService, save: str) -> None:
    """AgentScope's app makes an agent for every turn."""
    speaker = Speaker(service, text("a1"), [text("Half of it"), for_ever()], save=save)
    await speaker.say("q1")
    await leave(speaker, "q2", lambda event: isinstance(event, TextBlockDeltaEvent))
    await ticks()
    agent = weakref.ref(speaker.agent)
    del speaker
    for _ in range(10):
        gc.collect()
        await asyncio.sleep(0)
    assert agent() is None
