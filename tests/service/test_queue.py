"""Turns that wait for a session get it in a fair order and within their patience; turns that need not wait do not."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from contract import contenders
from service.opening import KEY, opened, recorded, said, say
from session_history import SessionHistoryService
from session_history.errors import Conflict, SessionBusy
from session_history.log import waiting
from session_history_hooks import Appended

SOON = 10.0
"""Seconds in which what nothing holds up is done, also on a busy machine."""


@pytest.fixture
def poll_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a turn that looks at the session a second time look too late. Only rivals are a reason to pause."""
    monkeypatch.setattr(waiting, "POLL_INTERVAL", 3 * SOON)
    monkeypatch.setattr(waiting, "HOLD_SECONDS", (10 * SOON, 10 * SOON))


def watch_reads(service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list to which the time of each read of the store is added."""
    times: list[float] = []
    read = service.provider.read

    async def note(*arguments: Any, **options: Any) -> Any:
        times.append(time.monotonic())
        return await read(*arguments, **options)

    monkeypatch.setattr(service.provider, "read", note)
    return times


def answer_late(service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> None:
    """Let the store take its time to answer each read."""
    read = service.provider.read

    async def late(*arguments: Any, **options: Any) -> Any:
        log = await read(*arguments, **options)
        await asyncio.sleep(seconds)
        return log

    monkeypatch.setattr(service.provider, "read", late)


class TestShares:
    @pytest.mark.xdist_group("contenders")
    @pytest.mark.parametrize("kind", contenders.KINDS)
    def test_contenders_get_at_least_half_their_share(self, kind: str, tmp_path: Path) -> None:
        contest = contenders.Contest(contenders=4, seconds=20.0 if kind == "tablestore" else 5.0)
        assert contenders.hold(kind, tmp_path, contest).flaws() == []

    @pytest.mark.every_store
    @pytest.mark.parametrize("work", [0.001, 0.3])
    async def test_turn_gets_its_turn_beside_a_process_that_never_pauses(
        self, pair: list[SessionHistoryService], work: float
    ) -> None:
        busy, other = pair
        stopped = False

        async def take_all() -> None:
            while not stopped:
                async with opened(busy, concurrent="queue", last_turns=1) as turn:
                    turn.add([said("q")])
                    await asyncio.sleep(work)

        taking = asyncio.create_task(take_all())
        await asyncio.sleep(0.2)
        for _ in range(3):
            await say(other, "q2", concurrent="queue", patience=4.0)
        stopped = True
        await taking
        assert (await recorded(other)).count("q2") == 3

    @pytest.mark.every_store
    async def test_waiting_turns_of_a_service_get_the_session_in_the_order_in_which_they_asked(
        self, service: SessionHistoryService
    ) -> None:
        async def talk(number: int) -> None:
            async with opened(service, concurrent="queue") as turn:
                turn.add([said(f"q{number}")])
                await asyncio.sleep(0.005)

        async with opened(service, concurrent="queue"):
            talks = []
            for number in range(8):
                talks.append(asyncio.create_task(talk(number), context=Context()))
                await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*talks), SOON)
        assert await recorded(service) == [f"q{number}" for number in range(8)]


class TestCost:
    @pytest.mark.usefixtures("poll_seldom")
    @pytest.mark.every_store
    async def test_turns_one_after_the_other_do_not_pause(self, service: SessionHistoryService) -> None:
        async with asyncio.timeout(SOON):
            for number in range(20):
                await say(service, f"q{number}", concurrent="queue")

    @pytest.mark.usefixtures("poll_seldom")
    @pytest.mark.every_store
    async def test_turn_is_told_at_once_that_the_turn_before_it_in_its_service_ended(
        self, service: SessionHistoryService
    ) -> None:
        async with opened(service, concurrent="queue"):
            talks = [
                asyncio.create_task(say(service, f"q{number}", concurrent="queue"), context=Context())
                for number in range(4)
            ]
            await asyncio.sleep(0.1)
        await asyncio.wait_for(asyncio.gather(*talks), SOON)

    @pytest.mark.usefixtures("poll_seldom")
    @pytest.mark.parametrize("released", ["before the look", "during the look", "later"])
    async def test_turn_that_found_a_lease_of_its_own_line_met_no_rivals(self, released: str) -> None:
        line = waiting.WaitingLine(KEY)
        line.take()
        if released == "before the look":
            line.release()
        with waiting.Place(line, patience=0.05) as place:
            if released == "during the look":
                line.release()
            await asyncio.wait_for(place.wait_to_look(), SOON)
            place.succeed()
        assert line.has_rivals is (released == "before the look")

    @pytest.mark.usefixtures("poll_seldom")
    @pytest.mark.every_store
    async def test_store_that_answers_late_makes_no_rivals_of_the_turns_of_a_service(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The turn before has ended when the answer that it has the session comes."""
        async with opened(service, concurrent="queue"):
            answer_late(service, monkeypatch, seconds=0.4)
            talk = asyncio.create_task(say(service, "q1", concurrent="queue"), context=Context())
            await asyncio.sleep(0.1)
        await asyncio.wait_for(talk, SOON)
        await asyncio.wait_for(say(service, "q2", concurrent="queue"), SOON)

    @pytest.mark.every_store
    async def test_process_without_rivals_pauses_ever_more_seldom(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each pause is longer than all of the turns around it."""
        monkeypatch.setattr(waiting, "POLL_INTERVAL", 0.4)
        pauses = 0
        until = time.monotonic() + 6.0
        ended = time.monotonic()
        while time.monotonic() < until:
            async with opened(service, concurrent="queue", last_turns=1) as turn:
                pauses += time.monotonic() - ended > 0.3
                turn.add([said("q")])
                await asyncio.sleep(0.01)
            ended = time.monotonic()
        assert 1 <= pauses <= 4

    async def test_many_waiting_turns_of_a_service_look_as_seldom_as_one(
        self, pair: list[SessionHistoryService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = pair
        async with opened(one, concurrent="queue"):
            talks = [asyncio.create_task(say(other, "q", concurrent="queue"), context=Context()) for _ in "12345678"]
            await asyncio.sleep(0.3)
            reads = watch_reads(other, monkeypatch)
            await asyncio.sleep(1.0)
            looks = len(reads)
            monkeypatch.undo()
        await asyncio.wait_for(asyncio.gather(*talks), SOON)
        assert 1 <= looks <= 21


class TestPatience:
    @pytest.mark.usefixtures("poll_seldom")
    @pytest.mark.every_store
    async def test_each_waiting_turn_gives_up_when_its_patience_ends(self, pair: list[SessionHistoryService]) -> None:
        one, other = pair

        async def give_up(patience: float) -> float:
            began = time.monotonic()
            with pytest.raises(SessionBusy):
                await say(other, "q2", concurrent="queue", patience=patience)
            return time.monotonic() - began

        async with opened(one, concurrent="queue"):
            patiences = (0.8, 0.4, 0.6, 0.0)
            waits = await asyncio.gather(*map(give_up, patiences))
        for patience, wait in zip(patiences, waits, strict=True):
            assert patience <= wait < patience + SOON
        assert await recorded(one) == []

    async def test_turn_that_always_comes_too_late_gives_up_when_its_patience_ends(
        self, service: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Others take the session between its look and its claim, whenever it looks."""
        await say(service, "q1")

        async def conflict(*_: object, **__: object) -> Appended:
            log = await service.provider.read(KEY, last=0)
            raise Conflict(log.head if log else None)

        monkeypatch.setattr(service.provider, "append", conflict)
        with pytest.raises(SessionBusy):
            await asyncio.wait_for(say(service, "q2", concurrent="queue", patience=0.4), SOON)

    async def test_turn_that_waited_in_vain_leaves_the_others_their_places(
        self, service: SessionHistoryService
    ) -> None:
        async with opened(service, concurrent="queue"):
            impatient = asyncio.create_task(say(service, "q1", concurrent="queue", patience=0.2), context=Context())
            cancelled = asyncio.create_task(say(service, "q2", concurrent="queue"), context=Context())
            patient = asyncio.create_task(say(service, "q3", concurrent="queue"), context=Context())
            with pytest.raises(SessionBusy):
                await impatient
            cancelled.cancel()
        await asyncio.wait_for(patient, SOON)
        assert await recorded(service) == ["q3"]


class TestJitter:
    async def test_looks_of_a_waiting_turn_are_not_in_step(
        self, pair: list[SessionHistoryService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = pair
        monkeypatch.setattr(waiting, "POLL_INTERVAL", 0.4)
        async with opened(one, concurrent="queue"):
            waiting_turn = asyncio.create_task(say(other, "q", concurrent="queue", patience=1000), context=Context())
            reads = watch_reads(other, monkeypatch)
            await asyncio.sleep(4.0)
            monkeypatch.undo()
        await waiting_turn
        pauses = [after - before for before, after in pairwise(reads) if after - before > 0.1]
        assert max(pauses) - min(pauses) > 0.05

    async def test_authors_that_others_overtake_do_not_try_again_in_step(
        self, pair: list[SessionHistoryService], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await say(pair[0], "q0")
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def note_pause(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        async def pauses_of(service: SessionHistoryService, text: str) -> list[float]:
            pauses.clear()
            overtake(service, times=6)
            await say(service, text)
            return list(pauses)

        monkeypatch.setattr(asyncio, "sleep", note_pause)
        one, other = await pauses_of(pair[0], "q1"), await pauses_of(pair[1], "q2")
        assert len(one) == len(other) == 6
        assert one[1:] != other[1:]
        assert await recorded(pair[0]) == ["q0", "q1", "q2"]


def overtake(service: SessionHistoryService, *, times: int) -> None:
    """Let the next appends find that another author was faster."""
    provider = service.provider
    real = provider.append
    left = times

    async def append(*arguments: Any, **options: Any) -> Appended:
        nonlocal left
        left -= 1
        if left < 0:
            provider.append = real  # type: ignore[method-assign]
            return await real(*arguments, **options)
        log = await provider.read(KEY, last=0)
        raise Conflict(log.head if log else None)

    provider.append = append  # type: ignore[method-assign]
