"""Tests of turns of several entries: every reader sees one turn, in its newest version."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.opening import (
    KEY,
    Context,
    Json,
    Recorder,
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
    said,
    say,
    shown,
    stop_heartbeats,
)
from session_history import SessionHistoryService, TokenBudget
from session_history.errors import Corrupt, Unavailable
from session_history.log.session_log import SessionLog
from session_history.records.messages import NATIVE, StoredMessage
from session_history.records.record import (
    Author,
    Continuation,
    HistoryStart,
    MessageRef,
    Record,
    Revision,
    Slot,
    Status,
)
from session_history.records.summary import SessionSummary
from session_history.records.values import DEPTH, decode, encode
from support import same

Pair = list[SessionHistoryService]


async def begin(service: SessionHistoryService, *texts: str, **options: Any) -> tuple[Context, Recorder]:
    """A turn that said something, which is stored, and that goes on."""
    open_turn = opened(service, **options)
    turn = await open_turn.__aenter__()
    turn.add([said(text) for text in texts])
    await turn.checkpoint()
    return open_turn, turn


async def resume(service: SessionHistoryService, name: str) -> tuple[Context, Recorder]:
    """Go on with a message of the history, and with its turn."""
    open_turn = opened(service)
    turn = await open_turn.__aenter__()
    turn.resume(place(turn, name))
    return open_turn, turn


def extend(turn: Recorder, index: int, *texts: str) -> None:
    """Add blocks to a message of a turn."""
    value = turn.messages[index].value
    turn.revise(index, StoredMessage(NATIVE, value | {"content": [*value["content"], *said(*texts).value["content"]]}))


async def counts(service: SessionHistoryService) -> tuple[int, int]:
    """Turns and messages, as the summary has them."""
    session = await service.get_session("u", "s")
    assert session is not None
    log = await service.provider.read(KEY, last=0)
    assert log is not None
    summary = await SessionLog(service.provider).summary(KEY, log.head)
    assert session.turns == summary.turns
    assert summary == SessionSummary().with_records(enumerate(await records(service), start=1))
    return summary.turns, summary.messages


class TestCheckpoints:
    @pytest.mark.every_store
    async def test_turn_with_checkpoints_is_one_turn_of_several_entries(self, service: SessionHistoryService) -> None:
        async with opened(service) as turn:
            pass
        async with opened(service) as turn:
            for number in range(3):
                turn.add([said(f"q{number}"), said(f"a{number}")])
                await turn.checkpoint()
        assert await recorded(service) == ["q0", "a0", "q1", "a1", "q2", "a2"]
        assert await shown(service) == ["q0", "a0", "q1", "a1", "q2", "a2"]
        assert await recorded(service, last_turns=1) == ["q0", "a0", "q1", "a1", "q2", "a2"]
        assert await counts(service) == (1, 6)
        assert [(each.status, each.continues) for each in await records(service)] == [
            (Status.OPEN, None),
            (Status.OPEN, Continuation(1, 1)),
            (Status.OPEN, Continuation(1, 2)),
            (Status.COMPLETED, Continuation(1, 3)),
        ]

    async def test_checkpointed_messages_are_seen_before_the_turn_ends(self, pair: Pair) -> None:
        one, other = pair
        open_turn, turn = await begin(one, "q")
        assert await recorded(other) == await shown(other) == ["q"]
        turn.add([said("a")])
        assert await recorded(other) == ["q"]
        await end(open_turn)
        assert await recorded(other) == ["q", "a"]

    async def test_checkpoint_without_news_writes_no_entry(self, service: SessionHistoryService) -> None:
        open_turn, turn = await begin(service, "q", "a")
        turn.revise(1, said("a"))
        await turn.checkpoint()
        await turn.checkpoint()
        assert len(await records(service)) == 1
        await end(open_turn)
        assert [each.status for each in await records(service)] == [Status.OPEN, Status.COMPLETED]

    async def test_checkpoint_without_messages_writes_no_entry(self, service: SessionHistoryService) -> None:
        async with opened(service) as turn:
            await turn.checkpoint()
        assert await records(service) == []

    @pytest.mark.parametrize(
        ("error", "status"), [(ZeroDivisionError, Status.FAILED), (asyncio.CancelledError, Status.INTERRUPTED)]
    )
    async def test_status_of_the_last_entry_holds_for_the_whole_turn(
        self, service: SessionHistoryService, error: type[BaseException], status: Status
    ) -> None:
        with pytest.raises(error):
            async with opened(service) as turn:
                turn.add([said("q")])
                await turn.checkpoint()
                turn.add([said("a")])
                raise error
        assert (await records(service))[-1].status is status
        assert await recorded(service) == ["q", "a"]
        assert await shown(service) == ([] if status is Status.FAILED else ["q", "a"])

    async def test_failed_turn_with_a_checkpointed_tool_result_is_shown(self, service: SessionHistoryService) -> None:
        with pytest.raises(ZeroDivisionError):
            async with opened(service) as turn:
                turn.turn.add([{"role": "user", "content": "book it"}, call("c")])
                await turn.checkpoint()
                turn.turn.add({"role": "tool", "tool_call_id": "c", "content": "booked"})
                await turn.checkpoint()
                raise ZeroDivisionError
        async with service.turn("u", "s", native=True) as turn:
            assert [message["role"] for message in turn.history] == ["user", "assistant", "tool"]

    async def test_turn_of_several_entries_stands_at_its_first_entry(self, pair: Pair) -> None:
        one, other = pair
        open_turn, turn = await begin(one, "q1")
        await say(other, "q2", "a2")
        turn.add([said("a1")])
        await turn.checkpoint()
        await append(other, "q3")
        turn.add([said("b1")])
        await end(open_turn)
        await append(other, "a4")  # what was open of plain appends was ended by the turn
        expected = ["q1", "a1", "b1", "q2", "a2", "q3", "a4"]
        for service in (one, other, fresh(one)):
            assert await recorded(service) == expected
            assert await shown(service) == expected
            assert await recorded(service, last_turns=3) == expected[3:]
        assert await counts(one) == (4, 7)


def call(call_id: str) -> Json:
    function = {"name": "book", "arguments": "{}"}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


class TestCrashes:
    async def test_next_process_sees_the_turn_of_a_dead_process_repaired(self, pair: Pair) -> None:
        one, other = pair
        open_turn = opened(one)
        turn = await open_turn.__aenter__()
        turn.turn.add([{"role": "user", "content": "book it"}, call("c")])
        await turn.checkpoint()
        stop_heartbeats()
        async with other.turn("u", "s", native=True) as next_turn:
            assert [message["role"] for message in next_turn.history] == ["user", "assistant", "tool"]
            assert [repair.kind for repair in next_turn.repairs] == ["result added"]
            next_turn.add({"role": "user", "content": "and?"})
        session = await other.get_session("u", "s", native=True)
        assert session is not None
        assert [message["role"] for message in session.messages] == ["user", "assistant", "user"]

    @pytest.mark.parametrize("concurrent", ["keep", "reject"])
    @pytest.mark.parametrize("applied", [True, False])
    @pytest.mark.parametrize("again", [True, False])
    @pytest.mark.every_store
    async def test_checkpoint_with_an_unknown_outcome_is_stored_once(
        self, service: SessionHistoryService, concurrent: str, applied: bool, again: bool
    ) -> None:
        async with opened(service, concurrent=concurrent) as turn:
            turn.add([said("q")])
            fail_once(service, applied=applied)
            with pytest.raises(Unavailable):
                await turn.checkpoint()
            turn.add([said("a")])
            if again:
                await turn.checkpoint()
        for each in (service, fresh(service)):
            assert await recorded(each) == ["q", "a"]
        assert await counts(service) == (1, 2)
        assert [len(each.messages) for each in await records(service) if each.messages] == [1, 1]

    @pytest.mark.parametrize("applied", [True, False])
    async def test_checkpoint_with_an_unknown_outcome_is_stored_once_behind_other_turns(
        self, pair: Pair, applied: bool
    ) -> None:
        one, other = pair
        open_turn = opened(one)
        turn = await open_turn.__aenter__()
        turn.add([said("q1")])
        fail_once(one, applied=applied)
        with pytest.raises(Unavailable):
            await turn.checkpoint()
        one.provider.__dict__.pop("append", None)
        await say(other, "q2")
        extend(turn, 0, "r1")
        await end(open_turn)
        expected = ["q1+r1", "q2"] if applied else ["q2", "q1+r1"]
        assert await recorded(one) == await recorded(other) == expected

    @pytest.mark.parametrize("concurrent", ["keep", "reject"])
    async def test_checkpoint_that_is_cancelled_is_stored(
        self, service: SessionHistoryService, concurrent: str
    ) -> None:
        going, go = hold(service, after_concurrent=concurrent)
        heard: list[list[str]] = []

        async def talk() -> None:
            async with opened(service, concurrent=concurrent) as turn:
                turn.add([said("q")])
                try:
                    await turn.checkpoint()
                finally:
                    heard.append(await recorded(service))
                turn.add([said("never")])

        task = asyncio.create_task(talk())
        await going.wait()
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == [["q"]]  # not before it was stored
        assert await recorded(service) == ["q"]
        assert (await records(service))[-1].status is Status.INTERRUPTED
        assert await shown(service, concurrent="reject") == ["q"]

    @pytest.mark.every_store
    async def test_checkpoint_during_a_stop_is_stored(self, service: SessionHistoryService) -> None:
        going, go = hold(service)
        open_turn = opened(service)
        turn = await open_turn.__aenter__()
        turn.add([said("q")])
        saving = asyncio.create_task(turn.checkpoint())
        await going.wait()
        turn.add([said("a")])  # by another task of the same turn
        extend(turn, 0, "r")
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.02)
        go.set()
        await asyncio.gather(saving, stopping)
        await service.start()
        for each in (service, fresh(service)):
            assert await recorded(each) == ["q+r", "a"]
        assert await counts(service) == (1, 2)
        assert (await records(service))[-1].status is Status.INTERRUPTED

    async def test_concurrent_checkpoints_store_every_message_once(self, service: SessionHistoryService) -> None:
        going, go = hold(service)
        async with opened(service) as turn:
            turn.add([said("q"), said("a")])
            saving = [asyncio.create_task(turn.checkpoint())]
            await going.wait()
            turn.add([said("b")])
            extend(turn, 1, "a2")
            saving.append(asyncio.create_task(turn.checkpoint()))
            await asyncio.sleep(0.02)
            go.set()
            await asyncio.gather(*saving)
            assert await recorded(service) == ["q", "a+a2", "b"]
            extend(turn, 2, "b2")
        assert await recorded(service) == ["q", "a+a2", "b+b2"]
        assert await counts(service) == (1, 3)


class TestRevisions:
    @pytest.mark.every_store
    async def test_newest_version_is_shown_and_only_new_blocks_are_stored(self, pair: Pair) -> None:
        one, other = pair
        async with opened(one) as turn:
            turn.add([said("q"), said("a")])
            await turn.checkpoint()
            for number in range(3):
                extend(turn, 1, f"b{number}")
                await turn.checkpoint()
                assert await recorded(other) == names(turn.turn.messages)
        assert await recorded(other) == await shown(one) == ["q", "a+b0+b1+b2"]
        revisions = [revision for each in await records(one) for revision in each.revisions]
        assert [(revision.ref, revision.kept) for revision in revisions] == [(MessageRef(1, 1), n) for n in (1, 2, 3)]
        assert [names([revision.message.value]) for revision in revisions] == [["b0"], ["b1"], ["b2"]]
        assert await counts(one) == (1, 2)

    @pytest.mark.parametrize(
        "versions",
        [
            [{"content": [1, 2]}, {"content": [1]}],
            [{"content": [1]}, {"content": []}],
            [{"content": [1]}, {"content": [True]}],
            [{"content": [1, {"a": 1, "b": 2}]}, {"content": [1, {"b": 2, "a": 1}]}],
            [{"content": [1]}, {"content": "text"}, {"content": [1]}],
            [{"content": "text"}, {"content": "longer text"}],
            [{"content": [1]}, {}],
            [{}, {"content": [1]}],
            [{"a": 1, "content": [1], "b": 2}, {"b": 2, "content": [1, 2], "a": 1}],
            [{"content": [1], "usage": None}, {"content": [1], "usage": {"tokens": 1}}],
            [{"content": [1, 2]}, {"content": [2, 1]}, {"content": [1, 2, 3]}, {"content": [3]}],
        ],
    )
    async def test_revised_message_comes_back_verbatim(
        self, service: SessionHistoryService, versions: list[Json]
    ) -> None:
        async with opened(service) as turn:
            turn.add([StoredMessage(NATIVE, versions[0])])
            for version in versions:
                turn.revise(0, StoredMessage(NATIVE, version))
                await turn.checkpoint()
                for each in (service, fresh(service)):
                    session = await each.get_session("u", "s", native=True)
                    assert session is not None
                    assert same(session.messages, [version])

    async def test_message_revised_before_its_checkpoint_is_stored_in_its_newest_version(
        self, service: SessionHistoryService
    ) -> None:
        async with opened(service) as turn:
            turn.add([said("q"), said("a")])
            extend(turn, 1, "b")
        assert await recorded(service) == ["q", "a+b"]
        assert [each.revisions for each in await records(service)] == [()]

    async def test_message_revised_back_writes_no_revision(self, service: SessionHistoryService) -> None:
        async with opened(service) as turn:
            turn.add([said("q")])
            await turn.checkpoint()
            extend(turn, 0, "r")
            turn.revise(0, said("q"))
        assert await recorded(service) == ["q"]

    async def test_parked_turn_is_resumed_by_another_process(self, pair: Pair) -> None:
        one, other = pair
        open_turn, turn = await begin(one, "q", "a")
        turn.park()
        await end(open_turn)
        for number in range(40):
            await say(one, f"q{number}")
        stranger = fresh(other)
        open_turn, turn = await resume(stranger, "a")
        extend(turn, 0, "b")
        await turn.checkpoint()
        extend(turn, 0, "c")
        turn.add([said("d")])
        await end(open_turn)
        later = [f"q{number}" for number in range(40)]
        for each in (one, other, stranger, fresh(one)):
            assert await recorded(each) == ["q", "a+b+c", "d", *later]
            assert await recorded(each, last_turns=3) == later[-3:]
        assert (await records(one))[-1].status is Status.COMPLETED
        assert await counts(one) == (41, 43)


class TestContested:
    """Two processes go on with the same turn at once."""

    async def parked(self, service: SessionHistoryService) -> None:
        open_turn, turn = await begin(service, "q", "a")
        turn.park()
        await end(open_turn)

    @pytest.mark.parametrize("order", ["AB", "ABA", "ABB", "ABAA", "ABBB", "AABBAB", "ABABAB", "AABB", "ABAABB"])
    async def test_blocks_of_both_processes_are_kept(self, pair: Pair, order: str) -> None:
        await self.parked(pair[0])
        going = {name: await resume(service, "a") for name, service in zip("AB", pair, strict=True)}
        added = []
        for number, name in enumerate(order):
            open_turn, turn = going[name]
            extend(turn, 0, f"{name}{number}")
            added.append(f"{name}{number}")
            await turn.checkpoint()
        for open_turn, _ in going.values():
            await end(open_turn)
        for each in (*pair, fresh(pair[0])):
            assert await recorded(each) == ["q", "+".join(["a", *added])]

    async def test_block_that_both_processes_add_is_there_once(self, pair: Pair) -> None:
        await self.parked(pair[0])
        going = [await resume(service, "a") for service in pair]
        for number, (_open_turn, turn) in enumerate(going):
            extend(turn, 0, "result", f"b{number}")
            await turn.checkpoint()
        assert await recorded(fresh(pair[0])) == ["q", "a+result+b0+b1"]

    async def test_later_revision_may_remove_blocks(self, pair: Pair) -> None:
        await self.parked(pair[0])
        for open_turn, turn in [await resume(service, "a") for service in pair]:
            extend(turn, 0, f"b{id(turn)}")
            await end(open_turn)
        open_turn, turn = await resume(fresh(pair[0]), "a")
        turn.revise(0, said("a", "c"))
        await end(open_turn)
        for each in (*pair, fresh(pair[0])):
            assert await recorded(each) == ["q", "a+c"]

    async def test_messages_of_both_processes_are_kept(self, pair: Pair) -> None:
        await self.parked(pair[0])
        for number, (open_turn, turn) in enumerate([await resume(service, "a") for service in pair]):
            turn.add([said(f"m{number}")])
            await end(open_turn)
        assert await recorded(fresh(pair[0])) == ["q", "a", "m0", "m1"]

    async def test_revision_across_other_turns_may_remove_blocks(self, pair: Pair) -> None:
        one, other = pair
        open_turn, turn = await begin(one, "q", "a")
        extend(turn, 1, "b", "c")
        await turn.checkpoint()
        await say(other, "q2")
        turn.revise(1, said("a", "c"))
        await end(open_turn)
        assert await recorded(other) == ["q", "a+c", "q2"]


class TestWindows:
    async def long_turn(self, one: SessionHistoryService, other: SessionHistoryService, turns: int) -> None:
        """A turn in whose midst others are held."""
        open_turn, turn = await begin(one, "q", "a")
        for number in range(turns):
            await say(other, f"q{number}")
        turn.add([said("b")])
        extend(turn, 1, "c")
        await end(open_turn)

    @pytest.mark.parametrize("turns", [1, 5, 8, 30])
    async def test_window_that_begins_within_a_turn_shows_whole_turns(self, pair: Pair, turns: int) -> None:
        one, other = pair
        await self.long_turn(one, other, turns)
        everything = ["q", "a+c", "b", *(f"q{number}" for number in range(turns))]
        for each in (one, fresh(one), fresh(one)):
            assert await recorded(each, last_turns=1) == everything[-1:]
            assert await recorded(each, last_turns=turns) == everything[3:]
        for count in (1, 2, 3, 4, 6):
            known = await shown(one, last_turns=count)
            assert known == await shown(fresh(one), last_turns=count)
            assert known == everything[-len(known) :]
            assert len(known) >= min(count, turns)
        for tokens in (1, 2, 5, 10):
            budget = TokenBudget(tokens, count=lambda message: len(message["content"]))
            known = await shown(one, token_budget=budget)
            assert known == await shown(fresh(one), token_budget=budget)
            expected = everything[-min(tokens, turns) :] if tokens < turns + 4 else everything
            assert known == expected

    @pytest.mark.parametrize("appends", range(2, 8))
    async def test_window_that_begins_at_an_empty_end_of_a_turn_shows_plain_appends(
        self, service: SessionHistoryService, appends: int
    ) -> None:
        """The entry that ends a turn does not tell whether the append behind it begins a turn."""
        open_turn, _ = await begin(service, "q")
        await append(service, "q1", "a1")
        await end(open_turn)
        for number in range(appends):
            await append(service, f"b{number}")
        plain = ["q1", "a1", *(f"b{number}" for number in range(appends))]
        for count in (1, 2):
            assert await recorded(fresh(service), last_turns=count) == (["q"] if count == 2 else []) + plain

    @pytest.mark.parametrize("entries", [1, 3, 10])
    async def test_turn_of_many_entries_counts_as_one(self, service: SessionHistoryService, entries: int) -> None:
        starts = set()
        for number in range(20):
            for count in (1, 4):
                known = await shown(service, last_turns=count)
                assert known == await shown(fresh(service), last_turns=count)
                if number >= count:
                    assert count <= len(known) / entries <= count + count // 2
                assert len(known) % entries == 0
                starts.add((count, known[0] if known else None))
            if number > 4:
                budget = TokenBudget(entries * 3 + entries // 2, count=lambda message: len(message["content"]))
                assert len(await shown(fresh(service), token_budget=budget)) == entries * 3
            async with opened(service) as turn:
                for part in range(entries):
                    turn.add([said(f"{number}.{part}")])
                    await turn.checkpoint()
        assert len([start for count, start in starts if count == 4]) <= 20 / 2
        assert await counts(service) == (20, 20 * entries)

    @pytest.mark.parametrize("length", [1, 2, 5])
    @pytest.mark.every_store
    async def test_page_shows_all_entries_of_its_turns(self, pair: Pair, length: int) -> None:
        one, other = pair
        going = [await begin(one, f"q{number}", f"a{number}") for number in range(6)]
        for number, (open_turn, turn) in enumerate(going):
            await say(other, f"q{number + 10}")
            extend(turn, 1, f"b{number}")
            if number % 2:
                await turn.checkpoint()
            turn.add([said(f"c{number}")])
            if number != 3:
                await end(open_turn)
        stop_heartbeats()
        everything = await recorded(other)
        assert everything == [
            *(f"{text}" for n in range(6) for text in (f"q{n}", f"a{n}+b{n}", f"c{n}") if text != "c3"),
            *(f"q{number + 10}" for number in range(6)),
        ]
        for each in (one, other, fresh(one)):
            assert [text for page in await pages(each, length) for text in page] == everything

    async def test_page_before_a_cursor_shows_later_entries_of_its_turns(self, pair: Pair) -> None:
        """When the cursor was made, only the first entry of the turn was stored."""
        one, other = pair
        await say(one, "q0")
        open_turn, turn = await begin(one, "q1")
        await say(other, "q2")
        session = await other.get_session("u", "s", last_turns=1)
        assert session is not None
        turn.add([said("a1")])
        await end(open_turn)
        for each in (one, other, fresh(one)):
            assert await recorded(each, before=session.earlier, last_turns=1) == ["q1", "a1"]


async def pages(service: SessionHistoryService, length: int) -> list[list[str]]:
    found: list[list[str]] = []
    before = None
    while True:
        session = await service.get_session("u", "s", native=True, last_turns=length, before=before)
        assert session is not None
        found.insert(0, names(session.messages))
        before = session.earlier
        if before is None:
            return found


class Model:
    """The turns that a session should show, written as plainly as possible.

    :ivar turns: the blocks' names of the messages of every turn.
    """

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.plain: list[str] | None = None

    def append(self, text: str) -> None:
        if self.plain is None or text.startswith("q"):
            self.plain = []
            self.turns.append(self.plain)
        self.plain.append(text)

    def store(self, turn: list[str], said: list[str]) -> None:
        """A turn stores what it has said."""
        if not any(each is turn for each in self.turns):
            if not said:
                return
            self.turns.append(turn)
        if len(said) > len(turn):
            self.plain = None
        turn[:] = said

    def texts(self, count: int | None = None) -> list[str]:
        turns = self.turns if count is None else self.turns[max(0, len(self.turns) - count) :]
        return [text for turn in turns for text in turn]

    def texts_that_fit(self, size: int) -> list[str]:
        """Return the newest whole turns that fit; of a newest turn that does not, its input and its newest texts."""
        fitting = [number for number in range(len(self.turns) + 1) if len(self.texts(number)) <= size]
        if max(fitting) or not self.turns:
            return self.texts(max(fitting))
        newest = self.turns[-1]
        begun = next((index for index, text in enumerate(newest) if not text.startswith("q")), len(newest))
        begun = begun if begun <= size else 0
        return newest[:begun] + newest[len(newest) - size + begun :]


class History:
    """Several turns of several services go on at once, with checkpoints, revisions, crashes and plain appends."""

    def __init__(self, services: Pair, dice: random.Random) -> None:
        self.services = services
        self.dice = dice
        self.model = Model()
        self.going: list[tuple[SessionHistoryService, Context, Recorder, list[str]]] = []
        self.left: list[list[str]] = []
        self.number = 0

    def name(self, prefix: str) -> str:
        self.number += 1
        return f"{prefix}{self.number}"

    async def step(self) -> None:
        steps = [self.open, self.append]
        if self.going:
            steps += [self.take, self.take, self.revise, self.checkpoint, self.checkpoint, self.end, self.crash]
        if self.left:
            steps += [self.resume]
        await self.dice.choice(steps)()

    async def open(self) -> None:
        if len(self.going) < 4:
            service = self.dice.choice(self.services)
            size = self.dice.choice([None, 2])
            open_turn = opened(service, last_turns=size)
            self.going.append((service, open_turn, await open_turn.__aenter__(), []))

    async def append(self) -> None:
        texts = [self.name(self.dice.choice("qa")) for _ in range(self.dice.randint(1, 3))]
        await append(self.dice.choice(self.services), *texts)
        for text in texts:
            self.model.append(text)

    async def take(self) -> None:
        _, _, turn, _ = self.dice.choice(self.going)
        turn.add([said(self.name(self.dice.choice("qa"))) for _ in range(self.dice.randint(1, 2))])

    async def revise(self) -> None:
        _, _, turn, _ = self.dice.choice(self.going)
        if turn.messages:
            index = self.dice.randrange(len(turn.messages))
            blocks = names([turn.messages[index].value])[0].split("+")
            kept = blocks[: self.dice.randint(1, len(blocks))]
            turn.revise(index, said(*kept, *(self.name("b") for _ in range(self.dice.randint(0, 2)))))

    def stored(self, turn: Recorder, shown: list[str]) -> None:
        texts = names(turn.turn.messages)
        begun = next((i for i, text in enumerate(shown) if texts and text.split("+")[0] == texts[0].split("+")[0]), 0)
        self.model.store(shown, [*shown[:begun], *texts] if shown else texts)

    async def checkpoint(self) -> None:
        _, _open_turn, turn, shown = self.dice.choice(self.going)
        await turn.checkpoint()
        self.stored(turn, shown)

    async def end(self) -> None:
        _service, open_turn, turn, shown = self.going.pop(self.dice.randrange(len(self.going)))
        if self.dice.random() < 0.3:
            await open_turn.__aexit__(TimeoutError, TimeoutError(), None)
        else:
            await end(open_turn)
        self.stored(turn, shown)

    async def crash(self) -> None:
        if self.dice.random() < 0.5:
            _service, _, _turn, shown = self.going.pop(self.dice.randrange(len(self.going)))
            stop_heartbeats()
            self.left += [shown] if shown else []

    async def resume(self) -> None:
        """Go on with the last message of a turn that was left open."""
        if len(self.going) < 4:
            service = self.dice.choice(self.services)
            shown = self.left.pop(self.dice.randrange(len(self.left)))
            open_turn, turn = await resume(service, shown[-1].split("+")[0])
            self.going.append((service, open_turn, turn, shown))

    async def check(self) -> None:
        for service in (*self.services, fresh(self.services[0])):
            assert await recorded(service) == self.model.texts()
        session = await self.services[0].get_session("u", "s", native=True, last_turns=0)
        assert session is not None
        assert session.turns == len(self.model.turns)
        count = self.dice.randint(1, 5)
        for service in (self.dice.choice(self.services), fresh(self.services[0])):
            assert await recorded(service, last_turns=count) == self.model.texts(count)
        windows = [await shown(each, last_turns=count) for each in (*self.services, fresh(self.services[0]))]
        assert windows[0] == windows[1] == windows[2]
        assert windows[0] in [self.model.texts(count + more) for more in range(count // 2 + 1)]
        budget = TokenBudget(count, count=lambda _: 1)
        windows = [await shown(each, token_budget=budget) for each in (*self.services, fresh(self.services[0]))]
        assert windows[0] == windows[1] == windows[2]
        assert windows[0] == self.model.texts_that_fit(count)


HISTORIES = [("memory", seed) for seed in range(15)] + [("sqlite", seed) for seed in range(15, 20)]


@pytest.mark.parametrize(("service_kind", "seed"), HISTORIES)
async def test_random_history_shows_every_service_what_a_plain_model_says(pair: Pair, seed: int) -> None:
    history = History(pair, random.Random(seed))
    await history.append()
    for _ in range(70):
        await history.step()
        await history.check()
    assert [text for page in await pages(pair[0], 3) for text in page] == history.model.texts()
    assert await counts(pair[1]) == (len(history.model.turns), len(history.model.texts()))
    stop_heartbeats()


SECRET = "sesame"


def whole_record() -> Record:
    message = StoredMessage(NATIVE, {"role": "user", "content": [SECRET]})
    return Record(
        Author.TURN,
        base=7,
        messages=(message, message),
        status=Status.OPEN,
        turn_id="t",
        changes={"title": SECRET},
        continues=Continuation(3, 5),
        revisions=(Revision(MessageRef(3, 0), 2, message), Revision(MessageRef(4, 1), 0, message)),
        slots={
            "a": Slot({"x": SECRET}, 0),
            "b": Slot({}, 4, HistoryStart(MessageRef(0, 0), 0)),
            "c": Slot({"y": [1, 1.0, True]}, 5, HistoryStart(MessageRef(6, 1), 3)),
        },
        lease=30.0,
    )


class TestRecords:
    def test_record_with_every_field_comes_back(self) -> None:
        record = whole_record()
        back = Record.decode(record.encode(), KEY, 1)
        assert back == record
        assert back.encode() == record.encode()
        assert Record.decode_all([record.encode()] * 3, KEY, 1) == [record] * 3

    @given(
        part=st.none() | st.builds(Continuation, st.integers(1, 9), st.integers(1, 9)),
        lease=st.none() | st.floats(0.1, 99),
        begin=st.none()
        | st.builds(HistoryStart, st.builds(MessageRef, st.integers(0, 9), st.integers(0, 9)), st.integers(0, 3)),
        on=st.integers(0, 9),
        revised=st.lists(st.builds(MessageRef, st.integers(1, 9), st.integers(0, 9)), max_size=3),
        slots=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3),
    )
    def test_record_with_random_fields_comes_back(
        self,
        part: Continuation | None,
        lease: float | None,
        begin: HistoryStart | None,
        on: int,
        revised: list[MessageRef],
        slots: list[str],
    ) -> None:
        record = Record(
            Author.TURN,
            base=0,
            status=Status.COMPLETED,
            continues=part,
            lease=lease,
            revisions=tuple(Revision(place, on, StoredMessage(NATIVE, {"role": "user"})) for place in revised),
            slots={name: Slot({"n": on}, on, begin) for name in slots},
        )
        assert Record.decode(record.encode(), KEY, 1) == record

    def test_record_and_summary_without_newer_fields_are_read(self) -> None:
        payload = (
            b'{"v":1,"by":"turn","base":2,"at":1700000000000000,"status":"completed","inputs":1,"shape":"text",'
            b'"answer":[1],"turn":"t","runs":[["json/1",[{"role":"user"},{"role":"assistant"}]]]}'
        )
        record = Record.decode(payload, KEY, 3)
        assert (record.continues, record.revisions, record.slots, record.lease) == (None, (), {}, None)
        assert (record.turn_id, record.status, len(record.messages)) == ("t", Status.COMPLETED, 2)
        assert record.encode() == payload
        summary = SessionSummary.decode(
            b'{"v":1,"title":"t","metadata":{},"turns":2,"messages":3,"created_us":5,"plain":true}', KEY
        )
        assert (summary.slots, summary.lease, summary.turns, summary.plain) == ({}, None, 2, True)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("continues", 1),
            ("continues", [1]),
            ("continues", [1, 2, 3]),
            ("revisions", 1),
            ("revisions", [[1, 2, 3, "json/1"]]),
            ("revisions", [[1, 2, 3, "json/1", []]]),
            ("slots", []),
            ("slots", {"a": {}}),
            ("slots", {"a": [[], 0, None]}),
            ("slots", {"a": [{}, 0, [1, 2]]}),
        ],
    )
    def test_record_with_a_wrong_field_raises_corrupt(self, field: str, value: Any) -> None:
        document = decode(whole_record().encode()) | {field: value}
        with pytest.raises(Corrupt):
            Record.decode(encode(document, "entry"), KEY, 1)

    @pytest.mark.parametrize(("field", "value"), [("slots", []), ("lease", "30"), ("lease", True)])
    def test_summary_with_a_wrong_field_raises_corrupt(self, field: str, value: Any) -> None:
        document = decode(SessionSummary(slots={"a": 1}, lease=30.0).encode()) | {field: value}
        with pytest.raises(Corrupt):
            SessionSummary.decode(encode(document, "summary"), KEY)

    async def test_repr_shows_no_content(self, service: SessionHistoryService) -> None:
        record = whole_record()
        async with opened(service, slot="agent") as turn:
            turn.turn.add({"role": "user", "content": SECRET})
            turn.turn.state = {"secret": SECRET}
            await turn.checkpoint()
        async with opened(service, slot="agent") as turn:
            things = (
                record,
                record.revisions,
                record.slots,
                turn,
                turn.turn,
                turn.stored_state,
                turn.messages,
            )
            assert SECRET not in "".join(map(repr, things))

    async def test_revision_may_be_as_deep_as_a_message(self, service: SessionHistoryService) -> None:
        deep: Any = 1
        for _ in range(DEPTH - 2):
            deep = [deep]
        async with opened(service) as turn:
            turn.turn.add({"role": "user", "content": [0]})
            await turn.checkpoint()
            turn.revise(0, StoredMessage(NATIVE, {"role": "user", "content": [0, deep]}))
        session = await fresh(service).get_session("u", "s", native=True)
        assert session is not None
        assert same(session.messages, [{"role": "user", "content": [0, deep]}])
