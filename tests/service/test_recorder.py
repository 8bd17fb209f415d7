"""The recorder: what the driver of a turn may rely on, checkpoints of turns with an id first of all."""

from __future__ import annotations

import asyncio

import pytest

from service.opening import (
    Recorder,
    end,
    fail_once,
    fresh,
    names,
    opened,
    recorded,
    records,
    said,
    shown,
    spoken,
    stop_heartbeats,
)
from session_history import SessionHistoryService
from session_history.errors import InvalidMessage, TurnClosed, TurnIdReused, Unavailable
from session_history.records.record import Status

Pair = list[SessionHistoryService]


async def ask(recorder: Recorder, question: str, *pieces: str) -> None:
    """Drive a turn that stores its input, then each piece of its answer."""
    recorder.add_input([said(question)])
    await recorder.checkpoint()
    for piece in pieces:
        recorder.add_piece(piece)
        await recorder.checkpoint()


async def statuses(service: SessionHistoryService) -> list[Status | None]:
    return [record.status for record in await records(service)]


class TestCheckpointOfATurnWithAnId:
    async def test_repeat_of_a_completed_turn_gets_the_whole_answer(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one, turn_id="t") as recorder:
            await ask(recorder, "q", "Once ", "upon ", "a time.")
        for service in (one, other, fresh(one)):
            async with opened(service, turn_id="t") as recorder:
                assert recorder.is_replay
                recorder.add_input([said("q")])
                assert recorder.replay() == ["Once upon a time."]
                assert recorder.turn.recorded_status == "completed"
                assert len(recorder.turn.recorded or ()) == 2
        assert (await statuses(one))[-1] is Status.COMPLETED
        assert Status.COMPLETED not in (await statuses(one))[:-1]
        assert len(await records(one)) == 5

    async def test_repeat_with_another_input_is_refused(self, service: SessionHistoryService) -> None:
        async with opened(service, turn_id="t") as recorder:
            await ask(recorder, "q", "a")
        before = len(await records(service))
        with pytest.raises(TurnIdReused):
            async with opened(service, turn_id="t") as recorder:
                recorder.add_input([said("q2")])
        assert len(await records(service)) == before

    async def test_repeat_after_a_crash_runs_again_and_hides_the_first_attempt(self, pair: Pair) -> None:
        one, other = pair
        context = opened(one, turn_id="t")
        await ask(await context.__aenter__(), "q", "half")
        stop_heartbeats()  # and nobody ends the turn
        async with opened(other, turn_id="t") as recorder:
            assert not recorder.is_replay
            assert spoken(recorder) == []
            await ask(recorder, "q", "whole")
        async with opened(one, turn_id="t") as recorder:
            assert recorder.replay() == ["whole"]
        assert await statuses(one) == [Status.OPEN, Status.OPEN, Status.OPEN, Status.OPEN, Status.COMPLETED]
        async with other.turn("u", "s", native=True) as turn:
            assert [message["content"] for message in turn.history[1:]] == ["whole"]

    async def test_attempt_in_which_a_tool_acted_is_shown_to_the_repeat(self, service: SessionHistoryService) -> None:
        call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]}
        context = opened(service, turn_id="t")
        recorder = await context.__aenter__()
        recorder.add_input([said("q")])
        recorder.turn.add([call, {"role": "tool", "tool_call_id": "c", "content": "booked"}])
        await recorder.checkpoint()
        async with opened(fresh(service), turn_id="t") as repeat:
            assert [message.get("content") for message in repeat.turn.history][1:] == [None, "booked"]

    async def test_failed_turn_leaves_its_id_free(self, service: SessionHistoryService) -> None:
        with pytest.raises(ZeroDivisionError):
            async with opened(service, turn_id="t") as recorder:
                await ask(recorder, "q", "half")
                raise ZeroDivisionError
        async with opened(service, turn_id="t") as recorder:
            assert not recorder.is_replay
            await ask(recorder, "q", "whole")
        async with opened(service, turn_id="t") as recorder:
            assert recorder.replay() == ["whole"]

    async def test_interrupted_turn_gives_its_partial_answer(self, service: SessionHistoryService) -> None:
        with pytest.raises(asyncio.CancelledError):
            async with opened(service, turn_id="t") as recorder:
                await ask(recorder, "q", "half")
                raise asyncio.CancelledError
        async with opened(fresh(service), turn_id="t") as recorder:
            assert recorder.replay() == ["half"]
            assert recorder.turn.recorded_status == "interrupted"

    async def test_of_two_runs_at_once_the_first_to_end_is_the_answer(self, pair: Pair) -> None:
        one, other = pair
        first, second = opened(one, turn_id="t"), opened(other, turn_id="t")
        mine, yours = await first.__aenter__(), await second.__aenter__()
        await ask(mine, "q", "mine")
        await ask(yours, "q", "yours")
        await end(second)
        await end(first)
        assert mine.is_replay
        assert mine.replay() == ["yours"]
        assert await statuses(one) == [Status.OPEN] * 4 + [Status.COMPLETED, Status.INTERRUPTED]
        for service in (one, other, fresh(one)):
            async with service.turn("u", "s", native=True) as turn:
                assert [message["content"] for message in turn.history[1:]] == ["yours"]

    async def test_of_two_runs_at_once_one_with_another_input_is_told(self, pair: Pair) -> None:
        one, other = pair
        first = opened(one, turn_id="t")
        mine = await first.__aenter__()
        await ask(mine, "q1", "mine")
        async with opened(other, turn_id="t") as yours:
            await ask(yours, "q2", "yours")
        with pytest.raises(TurnIdReused):
            await end(first)

    @pytest.mark.parametrize("applied", [True, False])
    async def test_append_of_unknown_outcome_is_stored_once(
        self, service: SessionHistoryService, *, applied: bool
    ) -> None:
        context = opened(service, turn_id="t")
        recorder = await context.__aenter__()
        recorder.add_input([said("q")])
        fail_once(service, applied=applied)
        with pytest.raises(Unavailable):
            await recorder.checkpoint()
        await recorder.checkpoint()
        recorder.add_piece("a")
        await end(context)
        assert await statuses(service) == [Status.OPEN, Status.COMPLETED]
        async with opened(fresh(service), turn_id="t") as recorder:
            assert recorder.replay() == ["a"]

    async def test_exclusive_turn_keeps_its_lease_until_it_ends(self, service: SessionHistoryService) -> None:
        async with opened(service, turn_id="t", concurrent="reject") as recorder:
            await ask(recorder, "q", "a")
            assert [record.lease is not None for record in await records(service)] == [True, True, True]
        assert (await records(service))[-1].lease is None
        async with opened(service, turn_id="t", concurrent="reject") as recorder:
            assert recorder.replay() == ["a"]

    async def test_answer_in_several_entries_comes_back_in_its_shape(self, service: SessionHistoryService) -> None:
        items = ["To ", {"role": "assistant", "content": "x", "kind": "card"}, "be ", "or"]
        async with opened(service, turn_id="t") as recorder:
            recorder.add_input([said("q")])
            for item in items:
                recorder.add_piece(item)
                await recorder.checkpoint()
        async with opened(fresh(service), turn_id="t") as recorder:
            assert recorder.replay() == ["To ", items[1], "be or"]


class TestText:
    async def test_text_streamed_around_checkpoints_is_one_message(self, service: SessionHistoryService) -> None:
        async with opened(service) as recorder:
            for piece in ("a", "", "b", "c"):
                recorder.add_piece(piece)
                await recorder.checkpoint()
        session = await fresh(service).get_session("u", "s", native=True)
        assert session is not None
        assert [message["content"] for message in session.messages] == ["abc"]

    async def test_text_is_seen_elsewhere_at_each_checkpoint(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one) as recorder:
            for so_far in ("a", "ab", "abc"):
                recorder.add_piece(so_far[-1])
                await recorder.checkpoint()
                session = await other.get_session("u", "s", native=True)
                assert session is not None
                assert [message["content"] for message in session.messages] == [so_far]


class TestErrors:
    @pytest.mark.parametrize(
        ("item", "error"), [(object(), InvalidMessage), (b"\xff", InvalidMessage), (3, InvalidMessage)]
    )
    async def test_piece_that_cannot_be_stored_is_refused_and_the_rest_is_kept(
        self, service: SessionHistoryService, item: object, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            async with opened(service) as recorder:
                recorder.add([said("q")])
                recorder.add_piece("a")
                recorder.add_piece(item)
        assert len(await records(service)) == 1

    async def test_recorder_takes_nothing_after_the_end(self, service: SessionHistoryService) -> None:
        async with opened(service, slot="agent") as recorder:
            recorder.add([said("q")])
        for late in (
            lambda: recorder.add([said("a")]),
            lambda: recorder.add_piece("a"),
            lambda: recorder.add_answer("a"),
            lambda: recorder.add_input([said("q")]),
            lambda: recorder.revise(0, said("r")),
            lambda: recorder.save_state({}),
        ):
            with pytest.raises(TurnClosed):
                late()
        with pytest.raises(TurnClosed):
            await recorder.checkpoint()
        assert await recorded(service) == ["q"]

    async def test_resume_of_a_message_that_is_not_in_the_history(self, service: SessionHistoryService) -> None:
        async with opened(service) as recorder:
            recorder.add([said("q")])
        async with opened(service) as recorder:
            ref, _ = recorder.history[0]
            with pytest.raises(LookupError, match="no message"):
                recorder.resume(ref._replace(seq=9))

    async def test_replay_without_a_recorded_answer(self, service: SessionHistoryService) -> None:
        async with opened(service, turn_id="t") as recorder:
            with pytest.raises(LookupError, match="not answered"):
                recorder.replay()


async def test_prompt_converts_the_history_and_repairs_it_with_the_input(service: SessionHistoryService) -> None:
    async with opened(service) as recorder:
        recorder.add([said("q"), said("a")])
    async with opened(service) as recorder:
        messages = recorder.prompt([said("q2")], convert=lambda message: said(message.value["content"][0]["id"] + "x"))
        assert names([message.value for message in messages]) == ["qx", "ax", "q2"]
    assert await shown(service) == ["q", "a"]


async def test_abandoned_turn_is_interrupted_and_its_end_stores_nothing_more(service: SessionHistoryService) -> None:
    context = opened(service)
    recorder = await context.__aenter__()
    recorder.add([said("q")])
    await recorder.abandon()
    await end(context)
    assert await statuses(service) == [Status.INTERRUPTED]


@pytest.mark.every_store
async def test_callback_adds_what_is_left_when_the_service_stops(service: SessionHistoryService) -> None:
    context = opened(service)
    recorder = await context.__aenter__()
    recorder.add([said("q")])
    recorder.on_stop(lambda error: recorder.turn.add({"role": "assistant", "content": [{"id": type(error).__name__}]}))
    await service.stop()
    with pytest.raises(Unavailable):
        await end(context)
    await service.start()
    if service.provider.limits.durability != "process":
        assert await recorded(service) == ["q", "Unavailable"]


async def test_change_of_a_loaded_state_or_message_does_not_reach_the_cache(service: SessionHistoryService) -> None:
    async with opened(service, slot="agent") as recorder:
        recorder.add([said("q")])
        recorder.save_state({"notes": ["one"]})
    for _ in range(2):
        async with opened(service, slot="agent") as recorder:
            assert recorder.stored_state is not None
            assert recorder.stored_state.value == {"notes": ["one"]}
            _, message = recorder.history[0]
            assert names([message.to_dict()]) == ["q"]
            recorder.stored_state.value["notes"].append("two")
            message.to_dict()["content"].clear()


async def test_repeat_with_a_part_of_the_input_is_refused_at_the_replay(service: SessionHistoryService) -> None:
    async with opened(service, turn_id="t") as recorder:
        recorder.add_input([said("q1"), said("q2")])
        recorder.add_answer("a")
    async with opened(service, turn_id="t") as recorder:
        recorder.add_input([said("q1")])
        with pytest.raises(TurnIdReused):
            recorder.replay()
        recorder.add_input([said("q2")])
        assert recorder.replay() == "a"


@pytest.mark.parametrize("resumes_another", [True, False])
async def test_resume_behind_added_messages_or_of_a_second_turn_is_refused(
    service: SessionHistoryService, *, resumes_another: bool
) -> None:
    for name in ("a", "b"):
        async with opened(service) as recorder:
            recorder.add([said(name)])
            recorder.park()
    async with opened(service) as recorder:
        if resumes_another:
            recorder.resume(recorder.history[1][0])
        else:
            recorder.add([said("q")])
        with pytest.raises(ValueError, match="before you add"):
            recorder.resume(recorder.history[0][0])
    assert await recorded(service) == ["a", "b"] + ([] if resumes_another else ["q"])


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.INTERRUPTED, Status.FAILED])
async def test_checkpoint_that_ends_a_turn_with_an_id_is_refused(
    service: SessionHistoryService, status: Status
) -> None:
    async with opened(service, turn_id="t") as recorder:
        recorder.add_input([said("q")])
        with pytest.raises(ValueError, match="ends with its context"):
            await recorder.checkpoint(status)
        recorder.add_piece("a")
    async with opened(service, turn_id="t") as recorder:
        assert recorder.replay() == ["a"]
