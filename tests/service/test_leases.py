"""A session may belong to one turn at a time: nobody else appends meanwhile, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.opening import (
    KEY,
    Context,
    Recorder,
    append,
    end,
    fail_once,
    fresh,
    heartbeats,
    hold,
    names,
    opened,
    recorded,
    records,
    said,
    say,
    spoken,
    stop_heartbeats,
)
from session_history import SessionHistoryService, SqliteSessionHistoryService, StoredMessage
from session_history.errors import SessionBusy, SessionDeleted, TurnClosed, TurnOvertaken, Unavailable
from session_history.log import leases
from session_history.records.messages import NATIVE
from session_history.records.record import Status
from session_history_hooks import Appended
from support import PROGRAMS

Pair = list[SessionHistoryService]

LEASE_SECONDS = 0.4

SOON = 10.0
"""Seconds in which what nothing holds up is done, also on a busy machine."""

PROGRAM = PROGRAMS / "exclusive.py"


@pytest.fixture(autouse=True)
def _short_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr("session_history.log.waiting.POLL_INTERVAL", 0.01)


def others(service: SessionHistoryService) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return each way to append to a session."""
    return {
        "append": lambda: append(service, "q2"),
        "update": lambda: service.update_session("u", "s", title="new"),
        "turn": lambda: say(service, "q2"),
        "queue": lambda: say(service, "q2", concurrent="queue"),
        "overtaking": lambda: resumed(service),
    }


async def resumed(service: SessionHistoryService) -> None:
    async with opened(service) as other:
        other.add([said("q2")])
        await other.checkpoint()


async def is_free(service: SessionHistoryService) -> bool:
    try:
        async with opened(service, concurrent="reject"):
            return True
    except SessionBusy:
        return False


async def hang(context: Context) -> Recorder:
    """Open an exclusive turn that gives no sign of life, as if its process hung."""
    hung = await asyncio.create_task(context.__aenter__())  # a task of its own, as another process would be
    stop_heartbeats()
    await asyncio.sleep(0)
    return hung


class TestReject:
    @pytest.mark.every_store
    async def test_second_exclusive_turn_raises_session_busy(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, concurrent="reject") as first:
            for service in pair:
                for _ in range(2):
                    with pytest.raises(SessionBusy):
                        async with opened(service, concurrent="reject"):
                            pytest.fail("it began")
            first.add([said("q")])
        assert await is_free(other)
        assert await recorded(other) == await recorded(one) == ["q"]

    async def test_refused_turn_writes_nothing(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, concurrent="reject"):
            before = await records(one)
            assert not await is_free(other)
            assert await records(one) == before

    @pytest.mark.every_store
    async def test_concurrent_exclusive_turns_admit_one(self, pair: Pair) -> None:
        going = 0

        async def talk(service: SessionHistoryService, number: int) -> bool:
            nonlocal going
            try:
                async with opened(service, concurrent="reject") as mine:
                    going += 1
                    assert going == 1
                    await asyncio.sleep(0.05)
                    mine.add([said(f"q{number}")])
                    going -= 1
            except SessionBusy:
                return False
            return True

        done = await asyncio.gather(*(talk(pair[number % 2], number) for number in range(12)))
        assert done.count(True) == 1
        assert await recorded(pair[0]) == [f"q{done.index(True)}"]

    async def test_repeat_of_a_recorded_turn_needs_no_lease(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, turn_id="t", concurrent="reject") as first:
            first.add([said("q")])
        async with opened(one, concurrent="reject"):
            async with opened(other, turn_id="t", concurrent="reject") as again:
                assert names(again.turn.recorded or []) == ["q"]

    async def test_lease_leaves_other_sessions_free(self, service: SessionHistoryService) -> None:
        async with opened(service, concurrent="reject"):
            async with service.turn("u", "s2", concurrent="reject") as other:
                other.add({"role": "user", "content": "q"})

    @pytest.mark.parametrize("concurrent", ["", "Queue", None, 1, ["queue"]])
    def test_turn_with_an_unknown_policy_raises_value_error(
        self, service: SessionHistoryService, concurrent: Any
    ) -> None:
        with pytest.raises(ValueError, match="concurrent"):
            service.turn("u", "s", concurrent=concurrent)


class TestQueue:
    @pytest.mark.every_store
    async def test_queued_turn_sees_the_turns_before_it(self, pair: Pair) -> None:
        async def talk(service: SessionHistoryService, number: int) -> list[str]:
            async with opened(service, concurrent="queue") as mine:
                await asyncio.sleep(0.005)
                mine.add([said(f"q{number}")])
                return spoken(mine)

        histories = await asyncio.gather(*(talk(pair[number % 2], number) for number in range(8)))
        everything = await recorded(pair[0])
        assert sorted(everything) == [f"q{number}" for number in range(8)]
        assert sorted(histories, key=len) == [everything[:length] for length in range(8)]

    @pytest.mark.every_store
    async def test_queued_turn_that_is_cancelled_writes_nothing(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, concurrent="queue") as first:
            waiting = asyncio.create_task(say(other, "q2", concurrent="queue"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(waiting, SOON)
            first.add([said("q1")])
        assert await recorded(one) == ["q1"]
        assert await is_free(other)

    async def test_queued_turn_raises_unavailable_at_a_stop(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, concurrent="queue"):
            waiting = asyncio.create_task(say(other, "q2", concurrent="queue"))
            await asyncio.sleep(0.05)
            await asyncio.wait_for(other.stop(), SOON)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(waiting, SOON)
            await one.start()  # they may share a store
        await other.start()
        assert await recorded(other) == []


class TestOthersWait:
    @pytest.mark.parametrize("how", ["append", "update", "turn", "queue", "overtaking"])
    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.every_store
    async def test_append_waits_until_the_exclusive_turn_ends(self, pair: Pair, how: str, known: bool) -> None:
        one, other = pair
        await say(one, "q0")
        if known:
            await recorded(other)
        async with opened(one, concurrent="reject") as first:
            waiting = asyncio.ensure_future(others(other)[how]())
            for number in range(3):
                first.add([said(f"a{number}")])
                await asyncio.sleep(0.02)
                await first.checkpoint()
                assert not waiting.done()
        await asyncio.wait_for(waiting, SOON)
        said_then = [] if how == "update" else ["q2"]
        for each in (*pair, fresh(one)):
            assert await recorded(each) == ["q0", "a0", "a1", "a2", *said_then]

    @pytest.mark.parametrize("how", ["append", "update", "turn", "queue", "overtaking"])
    async def test_append_waits_through_several_terms_of_the_lease(self, pair: Pair, how: str) -> None:
        one, other = pair
        await say(one, "q0")
        async with opened(one, concurrent="reject") as first:
            first.add([said("q1")])
            waiting = asyncio.ensure_future(others(other)[how]())
            await asyncio.sleep(3 * LEASE_SECONDS)
            assert not waiting.done()
        await asyncio.wait_for(waiting, SOON)
        assert (await recorded(one))[:2] == ["q0", "q1"]

    async def test_append_in_the_own_exclusive_turn_belongs_to_it(self, service: SessionHistoryService) -> None:
        await say(service, "q0")
        async with opened(service, concurrent="queue") as turn:
            turn.add([said("q1")])
            await asyncio.wait_for(service.update_session("u", "s", title="new"), SOON)
            await asyncio.wait_for(append(service, "q2"), SOON)
            await turn.checkpoint()
            await asyncio.wait_for(append(service, "q3"), SOON)
            turn.add([said("a1")])
        assert await recorded(service) == ["q0", "q2", "q1", "a1", "q3"]
        session = await service.get_session("u", "s")
        assert session is not None
        assert session.title == "new"
        assert await is_free(service)

    async def test_append_with_an_old_head_waits_for_a_living_turn(self, pair: Pair) -> None:
        one, other = pair
        await say(one, "q0")
        async with opened(one, concurrent="reject") as first:
            session = await other.get_session("u", "s", native=True)
            assert session is not None
            assert not await is_free(other)
            await asyncio.sleep(2 * LEASE_SECONDS)
            waiting = asyncio.create_task(other.append_message(session, said("q2").value))
            await asyncio.sleep(LEASE_SECONDS / 2)
            assert not waiting.done()
            first.add([said("q1")])
        await waiting
        assert await recorded(one) == ["q0", "q1", "q2"]

    async def test_delete_does_not_wait_for_an_exclusive_turn(self, pair: Pair) -> None:
        one, other = pair
        with pytest.raises(SessionDeleted):
            async with opened(one, concurrent="reject") as first:
                first.add([said("q")])
                await other.delete_session("u", "s")
        assert await other.get_session("u", "s") is None
        await other.create_session("u", "s")
        assert await is_free(other)

    async def test_lease_survives_a_heartbeat_that_failed(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        one, other = pair
        real = one.provider.renew
        async with opened(one, concurrent="reject") as first:

            async def renew(*_: object, **__: object) -> bool:
                raise Unavailable("the network")

            monkeypatch.setattr(one.provider, "renew", renew)
            assert not await is_free(other)
            await asyncio.sleep(LEASE_SECONDS / 2)
            monkeypatch.setattr(one.provider, "renew", real)
            for _ in range(20):
                await asyncio.sleep(LEASE_SECONDS / 10)
                assert not await is_free(other)
            first.add([said("q")])
        assert await recorded(other) == ["q"]


class TestReleased:
    @pytest.mark.parametrize("error", [None, ZeroDivisionError, asyncio.CancelledError, TimeoutError, GeneratorExit])
    @pytest.mark.parametrize("speaks", [True, False])
    @pytest.mark.parametrize("checkpoint", [True, False])
    async def test_lease_ends_with_every_end_of_the_turn(
        self, pair: Pair, error: type[BaseException] | None, speaks: bool, checkpoint: bool
    ) -> None:
        one, other = pair

        async def talk() -> None:
            async with opened(one, concurrent="reject") as mine:
                if speaks:
                    mine.add([said("q")])
                if checkpoint:
                    await mine.checkpoint()
                if error is not None:
                    raise error

        if error is None:
            await talk()
        else:
            with pytest.raises(error):
                await talk()
        assert await is_free(other)
        assert await recorded(other) == (["q"] if speaks else [])
        assert (await records(one))[-1].lease is None

    @pytest.mark.every_store
    async def test_lease_ends_when_the_task_is_cancelled(self, pair: Pair) -> None:
        one, other = pair

        async def talk() -> None:
            async with opened(one, concurrent="reject") as mine:
                mine.add([said("q")])
                await asyncio.sleep(60)

        task = asyncio.create_task(talk())
        await asyncio.sleep(0.05)
        assert not await is_free(other)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await is_free(other)
        assert await recorded(other) == ["q"]

    async def test_lease_ends_when_the_stream_is_left(self, pair: Pair) -> None:
        one, other = pair

        async def stream() -> AsyncGenerator[str, None]:
            async with opened(one, concurrent="reject") as mine:
                for number in range(3):
                    mine.add([said(f"q{number}")])
                    yield "piece"

        streaming = stream()
        assert await anext(streaming) == "piece"
        assert not await is_free(other)
        await streaming.aclose()
        assert await is_free(other)
        assert await recorded(other) == ["q0"]

    async def test_lease_ends_when_the_service_is_stopped(self, pair: Pair) -> None:
        one, other = pair
        with pytest.raises(Unavailable):
            async with opened(one, concurrent="reject") as mine:
                mine.add([said("q")])
                await one.stop()
        await other.start()  # they may share a store
        assert await is_free(other)
        assert await recorded(other) == ["q"]

    @pytest.mark.parametrize("how", ["cancel", "stop"])
    async def test_lease_ends_when_its_claim_is_cancelled_or_stopped(self, pair: Pair, how: str) -> None:
        one, other = pair
        going, go = hold(one)
        task = asyncio.create_task(say(one, "q", concurrent="reject"))
        await going.wait()
        stopping = asyncio.create_task(one.stop()) if how == "stop" else None
        if how == "cancel":
            task.cancel()
        await asyncio.sleep(0.02)
        go.set()
        with pytest.raises((asyncio.CancelledError, Unavailable)):
            await task
        if stopping:
            await stopping
            await one.start()
        assert await is_free(other)
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert heartbeats() == []

    @pytest.mark.every_store
    async def test_session_is_free_after_a_stop_during_a_claim(self, pair: Pair) -> None:
        one, other = pair
        real = one.provider.append
        claimed, go = asyncio.Event(), asyncio.Event()

        async def append(*arguments: Any, **options: Any) -> Appended:
            appended = await real(*arguments, **options)
            claimed.set()
            await go.wait()  # the store has the claim, and its answer is under way
            return appended

        one.provider.append = append  # type: ignore[method-assign]
        task = asyncio.create_task(say(one, "q", concurrent="reject"))
        await claimed.wait()
        stopping = asyncio.create_task(one.stop())
        await asyncio.sleep(0.02)
        go.set()
        with pytest.raises(Unavailable):
            await task
        await stopping
        await other.start()  # in memory, both have one provider
        assert await is_free(other)

    async def test_lease_ends_when_the_turn_is_parked(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, concurrent="reject") as mine:
            mine.add([said("q")])
            mine.park()
        assert await is_free(other)

    async def test_lease_ends_with_a_final_checkpoint(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, concurrent="reject") as mine:
            mine.add([said("q")])
            await mine.checkpoint(Status.COMPLETED)
            assert await is_free(other)
            await say(other, "q2")
            mine.add([said("a")])
        assert await recorded(other) == ["q", "a", "q2"]

    async def test_heartbeats_end_when_the_turn_cannot_be_stored(self, pair: Pair) -> None:
        one, other = pair
        with pytest.raises(Unavailable):
            async with opened(one, concurrent="reject") as mine:
                mine.add([said("q")])
                fail_once(one, applied=False)
        await asyncio.sleep(0)
        assert heartbeats() == []
        await say(other, "q2", concurrent="queue")
        assert await recorded(other) == ["q2"]

    async def test_heartbeats_end_with_the_turn(self, pair: Pair) -> None:
        for service in pair:
            await say(service, "q", concurrent="queue")
        await asyncio.sleep(0)
        assert heartbeats() == []


class TestTheDead:
    @pytest.mark.parametrize("how", ["append", "update", "turn", "queue", "overtaking"])
    @pytest.mark.every_store
    async def test_dead_turn_is_taken_over_after_its_term(self, pair: Pair, how: str) -> None:
        one, other = pair
        await say(one, "q0")
        open_turn = opened(one, concurrent="reject")
        dead = await hang(open_turn)
        dead.add([said("q1")])
        await dead.checkpoint()
        stop_heartbeats()
        began = time.monotonic()
        await asyncio.wait_for(others(other)[how](), 3 * LEASE_SECONDS)
        assert time.monotonic() - began >= LEASE_SECONDS
        assert await recorded(other) == ["q0", "q1", *([] if how == "update" else ["q2"])]
        assert await is_free(other)

    @pytest.mark.parametrize("ending", [None, ZeroDivisionError])
    async def test_overtaken_turn_raises_turn_overtaken_and_is_not_stored(
        self, pair: Pair, ending: type[BaseException] | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other = pair
        with pytest.raises(ending or TurnOvertaken) as error:
            async with opened(one, concurrent="reject") as dead:
                stop_heartbeats()
                await say(other, "q2", concurrent="queue")
                dead.add([said("q1")])
                if ending:
                    raise ending
        if ending:
            assert "TurnOvertaken" in "".join(error.value.__notes__)
            assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert await recorded(other) == await recorded(one) == ["q2"]
        with pytest.raises(TurnClosed):
            dead.add([said("q1")])

    @pytest.mark.parametrize("early", [False, True], ids=["at the end", "at a checkpoint"])
    async def test_tool_result_of_an_overtaken_turn_is_known_to_the_next_turn(self, pair: Pair, early: bool) -> None:
        one, other = pair
        charged = StoredMessage(NATIVE, {"role": "tool", "tool_call_id": "c", "content": "charged"})
        with pytest.raises(TurnOvertaken):
            async with opened(one, concurrent="reject", turn_id="t") as dead:
                stop_heartbeats()
                await say(other, "q2", concurrent="queue")
                dead.add([said("q1"), charged])
                if early:
                    with pytest.raises(TurnOvertaken):
                        await dead.checkpoint()
                dead.add([said("a1")], answer=True)
        for service in pair:
            session = await service.get_session("u", "s", native=True)
            assert session is not None
            assert [message["content"] for message in session.messages].count("charged") == 1
        assert [record.status for record in await records(one)][-1] is Status.INTERRUPTED
        async with opened(other, turn_id="t") as again:
            assert not again.is_replay
        assert await is_free(one)

    async def test_checkpoint_of_an_overtaken_turn_raises_turn_overtaken(self, pair: Pair) -> None:
        one, other = pair
        with pytest.raises(TurnOvertaken):
            async with opened(one, concurrent="reject") as dead:
                dead.add([said("q1")])
                await dead.checkpoint()
                stop_heartbeats()
                await say(other, "q2", concurrent="queue")
                dead.add([said("a1")])
                with pytest.raises(TurnOvertaken):
                    await dead.checkpoint()
                dead.add([said("b1")])
        assert await recorded(other) == await recorded(one) == ["q1", "q2"]
        assert await is_free(one)

    async def test_overtaken_turn_cannot_renew_its_lease(self, pair: Pair) -> None:
        one, other = pair
        open_turn = opened(one, concurrent="reject")
        await hang(open_turn)
        log = await one.provider.read(KEY, last=0)
        assert log is not None
        async with opened(other, concurrent="queue"):
            assert not await one.provider.renew(KEY, at=log.head.tail)
            with pytest.raises(TurnOvertaken):
                await end(open_turn)
            assert not await is_free(one)
        assert await is_free(one)

    async def test_queued_turns_take_a_dead_lease_one_by_one(self, pair: Pair) -> None:
        await hang(opened(pair[0], concurrent="reject"))
        going = 0

        async def talk(service: SessionHistoryService, number: int) -> None:
            nonlocal going
            async with opened(service, concurrent="queue") as mine:
                going += 1
                assert going == 1
                await asyncio.sleep(0.01)
                mine.add([said(f"q{number}")])
                going -= 1

        await asyncio.wait_for(
            asyncio.gather(*(talk(pair[number % 2], number) for number in range(6))), 4 * LEASE_SECONDS
        )
        assert sorted(await recorded(pair[0])) == [f"q{number}" for number in range(6)]

    async def test_waiter_that_was_suspended_between_two_looks_does_not_overtake_a_living_owner(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The look at the head is older than the pause, during which the owner sent heartbeats."""
        one, other = pair
        read = other.provider.read

        async def read_then_pause(*arguments: Any, **options: Any) -> Any:
            found = await read(*arguments, **options)
            if options.get("last") == 0:  # the look at the head
                await asyncio.sleep(1.5 * LEASE_SECONDS)  # the process, or its network
            return found

        async with opened(one, concurrent="reject") as living:
            assert not await is_free(other)
            monkeypatch.setattr(other.provider, "read", read_then_pause)
            assert not await is_free(other)
            monkeypatch.undo()
            living.add([said("q1")])
        assert await recorded(one) == ["q1"]

    @pytest.mark.parametrize("applied", [False, True])
    async def test_claim_of_unknown_outcome_does_not_lock_the_session_for_its_own_process(
        self, service: SessionHistoryService, applied: bool
    ) -> None:
        await say(service, "q0")
        fail_once(service, applied=applied)
        with pytest.raises(Unavailable):
            async with opened(service, concurrent="queue"):
                pytest.fail("the turn was opened")
        started = time.monotonic()
        await say(service, "q1", concurrent="reject")
        await append(service, "q2")
        assert time.monotonic() - started < LEASE_SECONDS
        assert await recorded(service) == ["q0", "q1", "q2"]

    async def test_observer_counts_time_from_its_first_look(self, pair: Pair) -> None:
        """The time before the first look does not count."""
        one, other = pair
        await hang(opened(one, concurrent="reject"))
        await asyncio.sleep(2 * LEASE_SECONDS)
        assert not await is_free(other)
        await asyncio.sleep(1.2 * LEASE_SECONDS)
        assert await is_free(other)

    async def test_takeover_after_a_failed_append_needs_no_second_term(self, pair: Pair) -> None:
        one, other = pair
        await hang(opened(one, concurrent="reject"))
        assert not await is_free(other)
        await asyncio.sleep(1.2 * LEASE_SECONDS)
        real = other.provider.append

        async def fail(*_: object, **__: object) -> Appended:
            raise Unavailable("the network")

        other.provider.append = fail  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await is_free(other)
        other.provider.append = real  # type: ignore[method-assign]
        assert await is_free(other)


def test_event_loops_on_one_service_queue_for_the_session(tmp_path: Path) -> None:
    service = SqliteSessionHistoryService(tmp_path / "h.db")

    async def count() -> None:
        for _ in range(5):
            async with service.turn("u", "s", slot="counter", concurrent="queue") as one:
                number = (one.state or {"n": 0})["n"] + 1
                await asyncio.sleep(0.002)
                one.state = {"n": number}

    async def all_of_them() -> int:
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, count()) for _ in range(4)))
        async with service.turn("u", "s", slot="counter") as one:
            assert one.state is not None
            number: int = one.state["n"]
        await service.stop()
        return number

    assert asyncio.run(all_of_them()) == 20


class TestProcesses:
    def start(self, path: Path, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", str(PROGRAM), str(path), *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    @pytest.fixture
    async def service(self, tmp_path: Path) -> AsyncIterator[SqliteSessionHistoryService]:
        async with SqliteSessionHistoryService(tmp_path / "h.db") as service:
            yield service

    async def test_processes_that_queue_lose_no_count(
        self, service: SqliteSessionHistoryService, tmp_path: Path
    ) -> None:
        processes = [self.start(tmp_path / "h.db", 30, "count", 10) for _ in range(4)]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        codes = [await asyncio.to_thread(process.wait, 120) for process in processes]
        for process in processes:
            process.communicate()
        assert codes == [0] * 4
        async with service.turn("u", "s", slot="counter") as one:
            assert one.state == {"n": 40}
            assert [message.text for message in one.history] == [f"{number}" for number in range(1, 41)]

    async def test_session_of_a_killed_process_is_taken_over(
        self, service: SqliteSessionHistoryService, tmp_path: Path
    ) -> None:
        process = self.start(tmp_path / "h.db", LEASE_SECONDS, "hold")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert await asyncio.to_thread(process.stdout.readline) == "mine\n"
        for _ in range(10):
            assert not await is_free(service)
            await asyncio.sleep(LEASE_SECONDS / 5)
        began = time.monotonic()
        process.kill()
        await asyncio.to_thread(process.communicate)
        async with service.turn("u", "s", concurrent="queue") as mine:
            assert time.monotonic() - began > LEASE_SECONDS / 2
            assert [message.text for message in mine.history] == ["stored"]
            mine.add({"role": "user", "content": "went on"})
        session = await service.get_session("u", "s")
        assert session is not None
        assert [message.text for message in session.messages] == ["stored", "went on"]
