"""An agent's state is stored with its turn, and never in place of one that its author had not seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.opening import (
    KEY,
    append,
    end,
    fail_once,
    fresh,
    hold,
    names,
    opened,
    place,
    recorded,
    records,
    rewrite,
    said,
    say,
    shown,
    spoken,
    stop_heartbeats,
)
from session_history import SessionHistoryService
from session_history.errors import Corrupt, InvalidKey, NotStorable, TurnClosed, Unavailable
from session_history.records.record import Author, HistoryStart, MessageRef, Record, Slot, Status
from session_history.records.summary import SessionSummary
from session_history.records.values import DEPTH
from session_history_hooks import Position, Snapshot
from support import same

Pair = list[SessionHistoryService]

AGENT = {"slot": "agent"}


async def keep(service: SessionHistoryService, state: Any, *texts: str, slot: str = "agent") -> bool | None:
    """A turn with a state; whether it was kept."""
    async with opened(service, slot=slot) as turn:
        turn.add([said(text) for text in texts])
        turn.turn.state = state
    return turn.turn.state_kept


async def state(service: SessionHistoryService, slot: str = "agent") -> Any:
    async with service.turn("u", "s", slot=slot) as turn:
        return turn.state


@pytest.mark.every_store
async def test_state_of_a_turn_is_read_by_the_next(pair: Pair) -> None:
    one, other = pair
    assert await state(one) is None
    for number, service in enumerate([one, other, other, one]):
        assert await keep(service, {"n": number}, f"q{number}")
        for each in (*pair, fresh(one)):
            assert await state(each) == {"n": number}
    assert await recorded(one) == ["q0", "q1", "q2", "q3"]


async def test_state_that_is_not_set_stays(service: SessionHistoryService) -> None:
    await keep(service, {"n": 1})
    async with service.turn("u", "s", slot="agent") as turn:
        turn.add({"role": "user", "content": "q"})
    assert turn.state_kept is None
    assert [len(each.slots) for each in await records(service)] == [1, 0]
    assert await state(service) == {"n": 1}


async def test_state_without_messages_is_no_turn(service: SessionHistoryService) -> None:
    await say(service, "q1")
    assert await keep(service, {})
    session = await service.get_session("u", "s")
    assert session is not None
    assert session.turns == 1
    assert await recorded(service) == await shown(service) == await recorded(service, last_turns=2) == ["q1"]
    assert await state(service) == {}


async def test_state_without_messages_does_not_end_plain_appends(service: SessionHistoryService) -> None:
    await append(service, "q1")
    await keep(service, {"n": 1})
    await append(service, "a1")
    for each in (service, fresh(service)):
        assert await recorded(each, last_turns=1) == ["q1", "a1"]


@pytest.mark.every_store
async def test_later_of_two_concurrent_states_is_not_kept(pair: Pair) -> None:
    one, other = pair
    await keep(one, {"by": "nobody"})
    async with opened(one, **AGENT) as first, opened(other, **AGENT) as second:
        assert first.turn.state_kept is second.turn.state_kept is None
        first.add([said("q1")])
        second.add([said("q2")])
        first.turn.state = {"by": "first"}
        second.turn.state = {"by": "second"}
    # the inner one ends first
    assert [first.turn.state_kept, second.turn.state_kept] == [False, True]
    for each in (*pair, fresh(one)):
        assert await state(each) == {"by": "second"}
        assert await recorded(each) == ["q2", "q1"]
    assert await keep(one, {"by": "third"})
    assert await state(other) == {"by": "third"}


async def test_state_that_lost_its_slot_stays_out_at_later_checkpoints(pair: Pair) -> None:
    one, other = pair
    async with opened(one, **AGENT) as turn:
        assert await keep(other, {"by": "other"})
        for number in range(2):
            turn.turn.state = {"by": "one", "n": number}
            await turn.checkpoint()
            assert turn.turn.state_kept is False
    assert await state(one) == await state(other) == {"by": "other"}


async def test_states_of_one_turn_replace_each_other(pair: Pair) -> None:
    one, other = pair
    await keep(one, {"n": -1})
    async with opened(one, **AGENT) as turn:
        for number in range(3):
            turn.add([said(f"q{number}")])
            turn.turn.state = {"n": number}
            await turn.checkpoint()
            assert turn.turn.state_kept is True
            assert await state(other) == await state(one) == {"n": number}
            await say(other, f"q{number + 10}")
        turn.turn.state = {"n": 3}
    assert turn.turn.state_kept is True
    assert await state(other) == {"n": 3}


async def test_states_of_two_slots_are_both_kept(pair: Pair) -> None:
    one, other = pair
    async with opened(one, slot="a") as first, opened(other, slot="b") as second:
        first.turn.state = {"by": "a"}
        second.turn.state = {"by": "b"}
    assert first.turn.state_kept is second.turn.state_kept is True
    assert [await state(fresh(one), slot) for slot in "abc"] == [{"by": "a"}, {"by": "b"}, None]


@pytest.mark.parametrize("turns", [3, 30, 300])
@pytest.mark.parametrize("size", [None, 2])
async def test_state_far_back_is_found(pair: Pair, turns: int, size: int | None) -> None:
    one, other = pair
    await keep(one, {"n": 1}, "q")
    for number in range(turns):
        await say(one, f"q{number}", last_turns=size)
    for each in (*pair, fresh(one)):
        async with opened(each, last_turns=size, **AGENT) as turn:
            assert turn.turn.state == {"n": 1}
    assert await keep(other, {"n": 2})


async def test_re_created_session_has_no_state(pair: Pair) -> None:
    one, other = pair
    await keep(one, {"n": 1}, "q")
    await other.delete_session("u", "s")
    await other.create_session("u", "s")
    assert await state(one) is None
    assert await keep(one, {"n": 2})
    assert await state(other) == {"n": 2}


async def test_snapshot_without_the_slot_is_rebuilt(service: SessionHistoryService) -> None:
    await keep(service, {"n": 1}, "q")
    log = await service.provider.read(KEY)
    assert log is not None
    for snapshot in (None, Snapshot(1, log.entries[0].origin, b"{}")):
        await rewrite(service.provider, KEY, 1, None, snapshot)
        assert await state(fresh(service)) == {"n": 1}


async def test_summary_that_names_an_entry_without_a_state_raises_corrupt(service: SessionHistoryService) -> None:
    record = Record(Author.TURN, base=0, messages=(said("q"),), status=Status.COMPLETED)
    entry = record.entry("e1")
    wrong = Snapshot(1, entry.origin, SessionSummary(slots={"agent": 1}).encode())
    await service.provider.append(KEY, entry, at=Position(0, 0), snapshot=wrong)
    with pytest.raises(Corrupt, match="state"):
        await state(service)


async def test_changed_state_objects_change_no_stored_state(service: SessionHistoryService) -> None:
    mine: Any = {"list": [{"n": 1}]}
    async with service.turn("u", "s", slot="agent") as turn:
        turn.state = mine
        mine["list"][0]["n"] = 2
        got = turn.state
        assert got is not None
        got["list"].append(3)
    for _ in range(2):
        got = await state(service)
        assert got == {"list": [{"n": 1}]}
        got["list"].clear()


async def test_unstorable_state_raises_not_storable(service: SessionHistoryService) -> None:
    async with service.turn("u", "s", slot="agent") as turn:
        turn.state = {"n": 1}
        wrong: Any
        for wrong in (None, 1, [], "x", {"a": {1}}, {"a": float("nan")}, {1: 2}, {"a": "\ud800"}):
            with pytest.raises(NotStorable) as error:
                turn.state = wrong
            assert error.value.path.startswith("state")
        assert turn.state == {"n": 1}
    assert await state(service) == {"n": 1}
    with pytest.raises(TurnClosed):
        turn.state = {"n": 2}
    assert await state(service) == {"n": 1}


@pytest.mark.parametrize("slot", ["", 1, "\ud800", "x" * 5000])
def test_turn_with_an_unfit_slot_raises_invalid_key(service: SessionHistoryService, slot: Any) -> None:
    with pytest.raises(InvalidKey):
        service.turn("u", "s", slot=slot)


async def test_turn_without_a_slot_raises_lookup_error(service: SessionHistoryService) -> None:
    async with service.turn("u", "s") as turn:
        with pytest.raises(LookupError, match="slot"):
            _ = turn.state
        with pytest.raises(LookupError, match="slot"):
            turn.state = {}
    assert await records(service) == []


async def test_state_may_be_as_deep_as_a_message(service: SessionHistoryService) -> None:
    deep: Any = {"n": [1, 1.0, True, None, 2**64]}
    for _ in range(DEPTH - 2):
        deep = {"x": deep}
    assert await keep(service, deep)
    assert same(await state(fresh(service)), deep)


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_failed_or_interrupted_turn_keeps_its_state(
    service: SessionHistoryService, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        async with opened(service, **AGENT) as turn:
            turn.turn.state = {"n": 1}
            raise error
    assert turn.turn.state_kept is True
    assert await state(service) == {"n": 1}


async def test_repeated_turn_stores_no_second_state(service: SessionHistoryService) -> None:
    for number in range(2):
        async with service.turn("u", "s", turn_id="t", slot="agent") as turn:
            turn.add([{"role": "user", "content": "q"}])
            turn.state = {"n": number}
    assert turn.state_kept is None
    assert await state(service) == {"n": 0}


@pytest.mark.parametrize("applied", [True, False])
async def test_state_with_an_unknown_outcome_is_stored_once(service: SessionHistoryService, applied: bool) -> None:
    async with opened(service, **AGENT) as turn:
        turn.turn.state = {"n": 1}
        fail_once(service, applied=applied)
        with pytest.raises(Unavailable):
            await turn.checkpoint()
        assert turn.turn.state_kept is None
    assert turn.turn.state_kept is True
    assert await state(fresh(service)) == {"n": 1}
    assert len([each for each in await records(service) if each.slots]) == 1


@pytest.mark.parametrize("applied", [True, False])
async def test_state_set_after_a_failed_checkpoint_is_stored(service: SessionHistoryService, applied: bool) -> None:
    async with opened(service, **AGENT) as turn:
        turn.add([said("q")])
        turn.turn.state = {"n": 1}
        fail_once(service, applied=applied)
        with pytest.raises(Unavailable):
            await turn.checkpoint()
        turn.add([said("a"), said("b")])
        turn.save_state({"n": 2}, start=HistoryStart(turn.ref(2), 0))
    assert turn.turn.state_kept is True
    for each in (service, fresh(service)):
        async with opened(each, **AGENT) as turn:
            assert turn.turn.state == {"n": 2}
            assert names(message.value for _, message in turn.history) == ["b"]


@pytest.mark.parametrize("begin", [0, 1])
async def test_state_set_during_a_checkpoint_is_stored(service: SessionHistoryService, begin: int) -> None:
    going, go = hold(service)
    async with opened(service, **AGENT) as turn:
        turn.add([said("q"), said("a")])
        turn.turn.state = {"n": 1}
        saving = asyncio.create_task(turn.checkpoint())
        await going.wait()
        turn.save_state({"n": 2}, start=HistoryStart(turn.ref(begin), 0))
        go.set()
        await saving
    assert turn.turn.state_kept is True
    for each in (service, fresh(service)):
        async with opened(each, **AGENT) as turn:
            assert turn.turn.state == {"n": 2}
            assert names(message.value for _, message in turn.history) == ["q", "a"][begin:]


class TestOwnHistory:
    """Where the history begins that an agent keeps word by word; the rest is in its summary."""

    async def summarize(self, service: SessionHistoryService, name: str, skip: int = 0) -> None:
        async with opened(service, **AGENT) as turn:
            turn.save_state({"summary": f"until {name}"}, start=HistoryStart(place(turn, name), skip))

    async def own(self, service: SessionHistoryService, **options: Any) -> list[str]:
        async with opened(service, **AGENT, **options) as turn:
            history = spoken(turn)
            assert history == names(message.value for _, message in turn.history)
            return history

    @pytest.mark.parametrize("turns", [3, 12, 60])
    async def test_history_begins_at_the_start_of_the_state(self, pair: Pair, turns: int) -> None:
        one, other = pair
        texts = []
        for number in range(turns):
            await say(one, f"q{number}", f"a{number}")
            texts += [f"q{number}", f"a{number}"]
        for name in ("q0", "a0", "q1", f"q{turns - 1}", f"a{turns - 1}"):
            await keep(other, {}, f"x{name}")
            texts.append(f"x{name}")
            await self.summarize(one, name)
            for each in (*pair, fresh(one)):
                assert await self.own(each) == texts[texts.index(name) :]
            assert await recorded(one) == await shown(one) == texts

    async def test_skipped_blocks_are_left_out(self, service: SessionHistoryService) -> None:
        async with opened(service) as turn:
            turn.add([said("q"), said("a", "b", "c"), said("d")])
        for skip, expected in ((0, ["a+b+c", "d"]), (1, ["b+c", "d"]), (3, ["d"])):
            async with opened(service, **AGENT) as turn:
                turn.save_state({"skip": skip}, start=HistoryStart(MessageRef(1, 1), skip))
            for each in (service, fresh(service)):
                assert await self.own(each) == expected
        assert await recorded(service) == ["q", "a+b+c", "d"]

    async def test_history_may_begin_in_the_turn_that_stores_the_state(self, service: SessionHistoryService) -> None:
        await say(service, "q0")
        async with opened(service, **AGENT) as turn:
            turn.add([said("q1"), said("a1", "b1")])
            await turn.checkpoint()
            turn.add([said("c1"), said("d1")])
            turn.save_state({"n": 1}, start=HistoryStart(turn.ref(3), 0))
            await turn.checkpoint()
            assert await self.own(service) == await self.own(fresh(service)) == ["d1"]
            turn.save_state({"n": 2}, start=HistoryStart(turn.ref(1), 1))
        for each in (service, fresh(service)):
            assert await self.own(each) == ["b1", "c1", "d1"]

    async def test_start_stays_when_only_the_state_changes(self, service: SessionHistoryService) -> None:
        await say(service, "q0", "a0", "b0")
        async with opened(service, **AGENT) as turn:
            turn.add([said("q1"), said("a1")])
            turn.save_state({"n": 1}, start=HistoryStart(turn.ref(1), 0))
            await turn.checkpoint()
        for number in range(3):
            assert await keep(service, {"n": number}, f"q{number + 2}")
        assert await self.own(service) == await self.own(fresh(service)) == ["a1", "q2", "q3", "q4"]

    async def test_window_may_be_shorter_than_the_own_history(self, service: SessionHistoryService) -> None:
        for number in range(40):
            await say(service, f"q{number}")
        await self.summarize(service, "q30")
        for each in (service, fresh(service)):
            assert await self.own(each, last_turns=4) == [f"q{number}" for number in range(36, 40)]
            assert await self.own(each, last_turns=20) == [f"q{number}" for number in range(30, 40)]

    async def test_turn_stored_meanwhile_is_shown_ahead_of_the_start(self, pair: Pair) -> None:
        one, other = pair
        await say(one, "q0", "a0")
        async with opened(one, **AGENT) as turn:
            await say(other, "q1", "a1")
            turn.add([said("q2"), said("a2")])
            turn.save_state({"n": 1}, start=HistoryStart(turn.ref(1), 0))
        for each in (*pair, fresh(one)):
            assert await self.own(each) == ["q1", "a1", "q2", "a2"]

    async def test_messages_added_meanwhile_to_an_earlier_turn_are_shown(self, pair: Pair) -> None:
        one, other = pair
        await say(one, "q0", "a0")
        open_turn = opened(other)
        going = await open_turn.__aenter__()
        going.add([said("q1")])
        await going.checkpoint()
        async with opened(one, **AGENT) as turn:
            going.add([said("a1")])
            await end(open_turn)
            turn.add([said("q2"), said("a2")])
            turn.save_state({"n": 1}, start=HistoryStart(turn.ref(1), 0))
        for each in (*pair, fresh(one)):
            assert "a1" in await self.own(each)

    @pytest.mark.parametrize("turns", [1, 10, 40])
    async def test_history_may_begin_in_a_later_entry_of_a_turn(self, pair: Pair, turns: int) -> None:
        one, other = pair
        async with opened(one, **AGENT) as turn:
            turn.add([said("q"), said("a")])
            await turn.checkpoint()
            for number in range(turns):
                await say(other, f"q{number}")
            turn.add([said("b")])
            await turn.checkpoint()
        async with opened(one, **AGENT) as turn:
            turn.save_state({"n": 1}, start=HistoryStart(place(turn, "b"), 0))
        for each in (*pair, fresh(one)):
            assert await self.own(each) == ["b", *(f"q{number}" for number in range(turns))]

    async def test_turn_that_began_before_the_start_is_resumed(self, pair: Pair) -> None:
        """A parked reply whose beginning is in the summary."""
        one, other = pair
        open_turn = opened(one, **AGENT)
        turn = await open_turn.__aenter__()
        turn.add([said("q"), said("a", "b", "c")])
        turn.save_state({"n": 1}, start=HistoryStart(turn.ref(1), 2))
        turn.park()
        await end(open_turn)
        assert await self.own(other) == ["c"]
        async with opened(other, **AGENT) as turn:
            index = turn.resume(turn.history[0][0])
            assert names(turn.turn.messages) == ["a+b+c"]
            turn.revise(index, said("a", "b", "c", "d"))
        for each in (*pair, fresh(one)):
            assert await self.own(each) == ["c+d"]
            assert await recorded(each) == ["q", "a+b+c+d"]


def test_repr_of_a_slot_shows_no_state() -> None:
    assert "sesame" not in repr(Slot({"x": "sesame"}, 0))


async def test_state_of_a_checkpoint_survives_a_crash(pair: Pair) -> None:
    one, other = pair
    open_turn = opened(one, **AGENT)
    turn = await open_turn.__aenter__()
    turn.turn.state = {"n": 1}
    turn.add([said("q")])
    await turn.checkpoint()
    turn.turn.state = {"n": 2}
    stop_heartbeats()
    assert await state(other) == {"n": 1}
