"""Several agents of AgentScope on one session, and the state that each of them has."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from agentscope.permission import PermissionBehavior, PermissionRule
from agentscope.state import AgentState
from agentscope.state._state import ReadCacheEntry

from runtimes.agentscope.support import Boom, Cast, Speaker, call, cancel, logged, reach, text, ticks, told, valid
from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import SessionBusy, SessionHistoryError
from session_history_hooks import SessionKey


def tasks(speaker: Speaker) -> list[str]:
    return [task.subject for task in speaker.agent.state.tasks_context.tasks]


async def both(service: SessionHistoryService, first: Speaker, second: Speaker, going_on: asyncio.Event) -> None:
    """The second replies while the model of the first waits."""
    reply = asyncio.create_task(first.say("q1"))
    await reach(first.model.waiting, reply)
    await second.say("q2")
    going_on.set()
    await reply


class TestAtOnce:
    @pytest.mark.parametrize("name", ["friday", "saturday"])
    async def test_both_turns_are_kept_in_commit_order(self, service: SessionHistoryService, name: str) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, [text("a1"), going_on])
        second = Speaker(service, text("a2"), name=name)
        await both(service, first, second, going_on)
        assert told(second.seen) == ["q2"]
        assert told(await logged(service)) == ["q2", "a2", "q1", "a1"]
        for after in (Speaker(service, text("a3")), Speaker(service, text("a4"), name=name)):
            await after.say("q3")
            assert told(after.seen)[:4] == ["q2", "a2", "q1", "a1"]

    @pytest.mark.parametrize("name", ["friday", "saturday"])
    async def test_step_by_step_both_are_kept_whole(self, service: SessionHistoryService, name: str) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, call("weather", city="Rome"), [text("a1"), going_on], save="step")
        second = Speaker(service, call("weather", city="Oslo"), text("a2"), name=name, save="step")
        await both(service, first, second, going_on)
        assert await valid(second.seen)
        rome = ["q1", "call weather", "success: sunny in Rome", "a1"]
        oslo = ["q2", "call weather", "success: sunny in Oslo", "a2"]
        assert told(await logged(service)) in (rome + oslo, oslo + rome)
        after = Speaker(service, text("a3"), save="step")
        await after.say("q3")
        assert sorted(told(after.seen)) == sorted([*rome, *oslo, "q3"])

    async def test_long_lived_agents_see_both(self, service: SessionHistoryService, save: str) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, [text("a1"), going_on], text("a3"), save=save)
        second = Speaker(service, text("a2"), text("a4"), save=save)
        await both(service, first, second, going_on)
        for speaker, asked in ((first, "q3"), (second, "q4")):
            await speaker.say(asked)
            assert {"q1", "a1", "q2", "a2", asked} <= set(told(speaker.seen))
            assert len(told(speaker.seen)) == len(set(told(speaker.seen)))
        said = told(await logged(service))
        assert sorted(said) == sorted(f"{kind}{number}" for kind in "qa" for number in range(1, 5))

    async def test_many_agents_at_once_lose_nothing(self, service: SessionHistoryService, save: str) -> None:
        speakers = [Speaker(service, text(f"a{number}"), name=f"agent {number % 3}", save=save) for number in range(12)]
        await asyncio.gather(*(speaker.say(f"q{number}") for number, speaker in enumerate(speakers)))
        said = told(await logged(service))
        assert sorted(said) == sorted([f"q{number}" for number in range(12)] + [f"a{number}" for number in range(12)])
        assert all(said[said.index(f"q{number}") + 1] == f"a{number}" for number in range(12))

    async def test_of_one_name_the_later_state_is_not_kept(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture
    ) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, call("plan", subject="of the first"), [text("a1"), going_on])
        second = Speaker(service, call("plan", subject="of the second"), text("a2"))
        with caplog.at_level(logging.WARNING, logger="session_history"):
            await both(service, first, second, going_on)
        warnings = [record for record in caplog.records if record.name.startswith("session_history")]
        assert {record.levelno for record in warnings} == {logging.WARNING}
        assert not any("of the first" in record.getMessage() for record in warnings)
        after = Speaker(service, text("a3"))
        await after.say("q3")
        assert tasks(after) == ["of the second"]
        assert len(told(after.seen)) == 9

    async def test_of_two_names_both_states_are_kept(
        self, service: SessionHistoryService, caplog: pytest.LogCaptureFixture, save: str
    ) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, call("plan", subject="of friday"), [text("a1"), going_on], save=save)
        second = Speaker(service, call("plan", subject="of saturday"), text("a2"), name="saturday", save=save)
        with caplog.at_level(logging.WARNING, logger="session_history"):
            await both(service, first, second, going_on)
        assert [record for record in caplog.records if record.name.startswith("session_history")] == []
        for name in ("friday", "saturday"):
            after = Speaker(service, text("a3"), name=name, save=save)
            await after.say("q3")
            assert tasks(after) == [f"of {name}"]


class TestReject:
    @pytest.mark.parametrize("name", ["friday", "saturday"])
    async def test_rejected_reply_calls_no_model(self, service: SessionHistoryService, save: str, name: str) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, [text("a1"), going_on], save=save, concurrent="reject")
        second = Speaker(service, text("a2"), name=name, save=save, concurrent="reject")
        reply = asyncio.create_task(first.say("q1"))
        await reach(first.model.waiting, reply)
        with pytest.raises(SessionBusy) as caught:
            await second.say("q2")
        assert isinstance(caught.value, SessionHistoryError)
        assert second.model.calls == []
        going_on.set()
        await reply
        assert told(await logged(service))[:2] == ["q1", "a1"]
        await second.say("q3")
        assert told(second.seen) == ["q1", "a1", "q3"]

    async def test_other_sessions_are_free(self, service: SessionHistoryService, save: str) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, [text("a1"), going_on], save=save, concurrent="reject")
        second = Speaker(service, text("a2"), session_id="t", save=save, concurrent="reject")
        await both(service, first, second, going_on)
        assert told(await logged(service, session_id="t")) == ["q2", "a2"]


@pytest.mark.parametrize("concurrent", ["reject", "queue"])
class TestFreed:
    """However a reply ends, the session is free for the next."""

    async def test_session_is_free_after_an_error(self, cast: Cast, concurrent: str) -> None:
        with pytest.raises(Boom):
            await cast.speaker(Boom("no"), concurrent=concurrent).say("q1")
        speaker = cast.speaker(text("a2"), concurrent=concurrent)
        await speaker.say("q2")
        assert told(speaker.seen) == ["q2"]

    async def test_session_is_free_after_a_cancellation(self, cast: Cast, concurrent: str) -> None:
        speaker = cast.speaker([text("Half of it"), asyncio.Event()], concurrent=concurrent)
        reply = asyncio.create_task(speaker.say("q1"))
        await reach(speaker.model.waiting, reply)
        await ticks()
        await cancel(reply)
        after = cast.speaker(text("a2"), concurrent=concurrent)
        await after.say("q2")
        assert told(after.seen) == ["q1", "Half of it", "q2"]

    async def test_session_is_free_after_each_reply(self, cast: Cast, concurrent: str) -> None:
        for number in range(3):
            speaker = cast.speaker(call("weather", city="Rome"), text(f"a{number}"), concurrent=concurrent)
            await speaker.say(f"q{number}")
        assert len(await cast.logged()) == 6


class TestQueue:
    @pytest.mark.parametrize("name", ["friday", "saturday"])
    async def test_the_second_waits_and_sees_the_first(
        self, service: SessionHistoryService, save: str, name: str
    ) -> None:
        going_on = asyncio.Event()
        first = Speaker(service, [text("a1"), going_on], save=save, concurrent="queue")
        second = Speaker(service, text("a2"), name=name, save=save, concurrent="queue")
        reply = asyncio.create_task(first.say("q1"))
        await reach(first.model.waiting, reply)
        waiting = asyncio.create_task(second.say("q2"))
        await asyncio.sleep(0.2)
        assert second.model.calls == []
        going_on.set()
        await asyncio.gather(reply, waiting)
        assert told(second.seen) == ["q1", "a1", "q2"]
        assert told(await logged(service)) == ["q1", "a1", "q2", "a2"]

    async def test_of_one_name_both_states_are_kept(self, service: SessionHistoryService, save: str) -> None:
        speakers = [
            Speaker(service, call("plan", subject=f"{number}"), text("a"), save=save, concurrent="queue")
            for number in range(3)
        ]
        await asyncio.gather(*(speaker.say("q") for speaker in speakers))
        after = Speaker(service, text("a"), save=save)
        await after.say("q")
        assert sorted(tasks(after)) == ["0", "1", "2"]


class TestState:
    async def test_tasks_and_tool_groups_come_back(self, cast: Cast) -> None:
        first = cast.speaker(call("plan", subject="one"), call("reset_tools", maps=True), text("a1"))
        await first.say("q1")
        assert first.agent.state.tool_context.activated_groups == ["maps"]
        second = cast.speaker(call("way"), text("a2"))
        await second.say("q2")
        assert tasks(second) == ["one"]
        assert second.agent.state.tool_context.activated_groups == ["maps"]
        assert told(second.seen)[-2:] == ["call way", "success: straight on"]

    async def test_state_goes_on_changing(self, cast: Cast) -> None:
        for number in range(3):
            speaker = cast.speaker(call("plan", subject=f"{number}"), text("a"))
            await speaker.say("q")
            assert tasks(speaker) == [str(before) for before in range(number + 1)]

    async def test_state_changed_between_replies_is_kept_with_the_next(self, cast: Cast) -> None:
        first = cast.speaker(text("a1"), text("a2"))
        await first.say("q1")
        first.agent.state.tool_context.activated_groups.append("maps")
        await first.say("q2")
        assert first.agent.state.tool_context.activated_groups == ["maps"]
        second = cast.speaker(text("a3"))
        await second.say("q3")
        assert second.agent.state.tool_context.activated_groups == ["maps"]

    async def test_states_of_two_agents_do_not_mix(self, cast: Cast) -> None:
        for name in ("friday", "saturday", "friday"):
            speaker = cast.speaker(call("plan", subject=f"of {name}"), text("a"), name=name)
            await speaker.say("q")
        third = cast.speaker(text("a"), name="saturday")
        await third.say("q")
        assert tasks(third) == ["of saturday"]
        assert tasks(speaker) == ["of friday", "of friday"]
        assert tasks(await self.newcomer(cast)) == []

    async def newcomer(self, cast: Cast) -> Speaker:
        speaker = cast.speaker(text("a"), name="sunday")
        await speaker.say("q")
        assert speaker.agent.state.summary == ""
        return speaker

    async def test_state_survives_a_failed_reply(self, cast: Cast) -> None:
        await cast.speaker(call("plan", subject="one"), text("a1")).say("q1")
        with pytest.raises(Boom):
            await cast.speaker(Boom("no")).say("q2")
        third = cast.speaker(text("a3"))
        await third.say("q3")
        assert tasks(third) == ["one"]

    async def test_state_changed_by_a_tool_in_a_failed_reply_is_kept(self, cast: Cast) -> None:
        """The model sees that it planned, see the failure matrix; so the plan must be there."""
        with pytest.raises(Boom):
            await cast.speaker(call("plan", subject="one"), Boom("no")).say("q1")
        second = cast.speaker(text("a2"))
        await second.say("q2")
        assert tasks(second) == ["one"]

    async def test_permission_given_in_the_state_after_a_reply_holds(self, cast: Cast) -> None:
        for city in ("Rome", "Oslo"):
            speaker = cast.speaker(text("a"))
            await speaker.say("q")
            speaker.model.rehearse([call("book", city=city), text("b")])
            speaker.agent.state.permission_context.allow_rules["book"] = [
                PermissionRule(tool_name="book", rule_content=None, behavior=PermissionBehavior.ALLOW, source="test")
            ]
            await speaker.say("q2")
        assert cast.tools.ran == ["book Rome", "book Oslo"]

    async def test_files_that_were_read_are_not_stored(self, tmp_path: Path, save: str) -> None:
        secret = "a line of a file on disk"
        async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
            speaker = Speaker(service, call("plan", subject="one"), text("an answer to find"), text("a2"), save=save)
            entry = ReadCacheEntry(lines=[secret], updated_at=1.0, bytes=0.1, file_path="/a/file")
            speaker.agent.state.tool_context.read_file_cache.append(entry)
            await speaker.say("q1")
            await speaker.say("q2")
            assert speaker.agent.state.tool_context.read_file_cache == [entry]
            other = Speaker(service, text("a3"), save=save)
            await other.say("q3")
            assert other.agent.state.tool_context.read_file_cache == []
            stored = b"".join(path.read_bytes() for path in tmp_path.glob("history.db*"))
        assert b"an answer to find" in stored
        assert secret.encode() not in stored

    async def test_messages_are_stored_once(self, tmp_path: Path, save: str) -> None:
        """The state holds no copy of the context."""
        async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
            for number in range(3):
                await Speaker(service, text(f"a{number}"), save=save).say("the first question" if not number else "q")
            log = await service.provider.read(SessionKey("u", "s"), last=100)
        assert log is not None
        assert sum(entry.payload.count(b"the first question") for entry in log.entries) == 1

    async def test_unknown_fields_of_the_state_are_kept(self, cast: Cast) -> None:
        first = cast.speaker(text("a1"))
        first.agent.state.middle_context["another middleware"] = {"count": 5}
        await first.say("q1")
        second = cast.speaker(text("a2"))
        await second.say("q2")
        assert second.agent.state.middle_context["another middleware"] == {"count": 5}

    async def test_session_id_of_the_agent_stays(self, cast: Cast) -> None:
        speaker = cast.speaker(text("a1"), state=AgentState(session_id="s"))
        await speaker.say("q1")
        assert speaker.agent.state.session_id == "s"
