"""The cost of a read: it does not grow with what lies behind an open turn, nor with turns that no model sees."""

from __future__ import annotations

import contextlib
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.opening import opened, said
from session_history import SessionHistoryService, TokenBudget
from session_history.records import summary as summaries
from session_history.records.record import Status
from session_history.records.summary import NEAR
from session_history_hooks import Log

pytestmark = pytest.mark.every_store

MARGIN = 4 + NEAR


class Counted:
    """Counts the entries that are read from a store."""

    def __init__(self, service: SessionHistoryService, patch: pytest.MonkeyPatch) -> None:
        self.entries = 0
        self._read = service.provider.read
        patch.setattr(service.provider, "read", self._counting)

    async def _counting(self, *args: Any, **options: Any) -> Log | None:
        log = await self._read(*args, **options)
        self.entries += len(log.entries) if log else 0
        return log


@pytest.fixture
async def other(pair: list[SessionHistoryService]) -> SessionHistoryService:
    """Return a second service on the store of ``service``, with a cache of its own."""
    return pair[1]


@pytest.fixture
async def service(pair: list[SessionHistoryService]) -> SessionHistoryService:
    return pair[0]


async def say(service: SessionHistoryService, name: str, **options: Any) -> None:
    async with opened(service, last_turns=0, **options) as turn:
        turn.add([said(f"q {name}"), said(f"a {name}")])


async def fail(service: SessionHistoryService, name: str) -> None:
    with contextlib.suppress(RuntimeError):
        async with opened(service, last_turns=0) as turn:
            turn.add([said(f"q {name}")])
            raise RuntimeError


async def texts(service: SessionHistoryService, **options: Any) -> tuple[list[str], int]:
    """Return what a model gets, and how many messages are left out."""
    async with service.turn("u", "s", native=True, **options) as turn:
        return [message["content"][0]["id"] for message in turn.history], turn.omitted


async def page(service: SessionHistoryService, count: int, behind: int) -> list[str]:
    """Return the page of ``count`` turns ahead of the newest ``behind``."""
    newest = await service.get_session("u", "s", native=True, last_turns=behind)
    assert newest is not None
    session = await service.get_session("u", "s", native=True, last_turns=count, before=newest.earlier)
    assert session is not None
    return [block["id"] for message in session.messages for block in message["content"]]


async def test_page_with_a_turn_left_open_reads_no_more_than_itself(
    service: SessionHistoryService, other: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(19):
        await say(service, f"{number}")
    async with opened(service, last_turns=0) as turn:
        turn.add([said("q open")])
        turn.park()
    for number in range(300):
        await say(service, f"later {number}")
    newest = await other.get_session("u", "s", last_turns=300)
    assert newest is not None
    counted = Counted(other, monkeypatch)
    session = await other.get_session("u", "s", native=True, last_turns=20, before=newest.earlier)
    assert session is not None
    assert len(session.messages) == 39
    assert counted.entries <= 20 + MARGIN


@pytest.mark.parametrize("distance", [1, NEAR, NEAR + 1, 200])
@pytest.mark.parametrize("ends", [1, 3, 70])
async def test_page_shows_a_turn_with_all_that_continued_it_later(
    service: SessionHistoryService,
    other: SessionHistoryService,
    monkeypatch: pytest.MonkeyPatch,
    distance: int,
    ends: int,
) -> None:
    """Also if more parts came late than the summary notes."""
    async with opened(service, last_turns=0) as turn:
        turn.add([said("q open")])
        turn.park()
    for end in range(ends):
        for number in range(distance if end in {0, ends - 1} else NEAR + 1):
            await say(service, f"{end} {number}")
        async with opened(service) as turn:
            turn.resume(turn.history[0][0])
            turn.add([said(f"a end {end}")])
            turn.park()
    await say(service, "last")
    behind = (await service.get_session("u", "s")).turns - 1  # type: ignore[union-attr]
    counted = Counted(other, monkeypatch)
    assert await page(other, 1, behind) == ["q open", *(f"a end {end}" for end in range(ends))]
    if ends < 70:
        assert counted.entries <= behind + ends + 4 + (ends + 1) * (NEAR + 1) + MARGIN


@pytest.mark.parametrize("window", [{"last_turns": 4}, {"token_budget": TokenBudget(9, lambda _: 1)}, {}])
async def test_window_behind_many_failed_turns_costs_what_it_shows(
    service: SessionHistoryService,
    other: SessionHistoryService,
    monkeypatch: pytest.MonkeyPatch,
    window: dict[str, Any],
) -> None:
    for number in range(12):
        await say(service, f"{number}")
    for number in range(150):
        await fail(service, f"lost {number}")
    await say(service, "between")
    for number in range(150):
        await fail(service, f"lost {number}")
    expected = [line for name in [*map(str, range(12)), "between"] for line in (f"q {name}", f"a {name}")]
    for each in (service, other):
        counted = Counted(each, monkeypatch)
        shown, omitted = await texts(each, **window)
        assert shown == expected[-len(shown) :]
        assert len(shown) >= 8
        assert omitted == len(expected) - len(shown)
        if window:
            assert len(shown) < len(expected)
            assert counted.entries <= 60
    session = await other.get_session("u", "s", native=True)
    assert session is not None
    assert len(session.messages) == 26 + 300
    last = await other.get_session("u", "s", native=True, last_turns=200)
    assert last is not None
    assert len(last.messages) == 150 + 2 + 49


async def test_window_behind_failed_turns_and_many_exclusive_ones_costs_what_it_shows(
    service: SessionHistoryService, other: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        await say(service, f"{number}")
    for number in range(150):
        await fail(service, f"lost {number}")
    for number in range(10):
        await say(service, f"alone {number}", concurrent="reject")
    counted = Counted(other, monkeypatch)
    shown, _ = await texts(other, last_turns=14)
    assert len(shown) >= 28
    assert "lost" not in "".join(shown)
    assert counted.entries <= 80


async def test_failed_turn_in_which_a_tool_may_have_run_is_shown_among_many_others(
    service: SessionHistoryService, other: SessionHistoryService
) -> None:
    await say(service, "first")
    for number in range(80):
        await fail(service, f"lost {number}")
    call = {"type": "function", "id": "c", "function": {"name": "pay", "arguments": "{}"}}
    with contextlib.suppress(RuntimeError):
        async with service.turn("u", "s", native=True, last_turns=0) as turn:
            turn.add([said("q pay").value, {"role": "assistant", "content": None, "tool_calls": [call]}])
            raise RuntimeError
    for number in range(80):
        await fail(service, f"lost {number}")
    async with other.turn("u", "s", native=True, last_turns=2) as turn:
        assert [message.get("tool_calls") for message in turn.history].count([call]) == 1


async def test_window_behind_a_mixture_of_failed_turns_looks_at_a_bounded_number(
    service: SessionHistoryService, other: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed turns that stand in two entries each are no run: then a window may show fewer turns."""
    monkeypatch.setattr("session_history.view.selection.FARTHEST", 60)
    await say(service, "first")
    for number in range(200):
        with contextlib.suppress(RuntimeError):
            async with service.turn(
                "u", "s", native=True, last_turns=0, input=[said(f"q{number}").value], durable=True
            ):
                raise RuntimeError
    counted = Counted(other, monkeypatch)
    assert (await texts(other, last_turns=3))[0] == []
    assert counted.entries < 300


@pytest.mark.parametrize("seed", range(12))
async def test_windows_and_pages_are_those_of_a_reader_that_reads_all(
    service: SessionHistoryService, other: SessionHistoryService, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    near = dice.choice([1, 2])
    monkeypatch.setattr(summaries, "LONG_RUN", 2)
    monkeypatch.setattr(summaries, "NEAR", near)
    await grow(service, dice)
    monkeypatch.setattr("session_history.log.turn_parts.NEAR", near)
    bounded = await windows_and_pages(SessionHistoryService(other.provider))
    monkeypatch.setattr(summaries.SessionSummary, "long_runs", ())
    monkeypatch.setattr("session_history.log.turn_parts.NEAR", 10**6)
    assert bounded == await windows_and_pages(SessionHistoryService(other.provider))


async def windows_and_pages(service: SessionHistoryService) -> list[list[str]]:
    found = []
    for count in range(1, 9):
        budget = TokenBudget(count, lambda _: 1)
        for window in ({"last_turns": count}, {"token_budget": budget}):
            found.append((await texts(service, **window))[0])
        found += [await page(service, count, behind) for behind in range(0, 20, 3)]
    return found


async def grow(service: SessionHistoryService, dice: random.Random) -> None:
    """Fill a session with turns of every kind, some of which overlap."""
    async with AsyncExitStack() as stack:
        open_turns = []
        for number in range(60):
            match dice.choice(["say", "fail", "fail", "fail", "title", "plain", "open", "part", "claim"]):
                case "say":
                    await say(service, f"{number}")
                case "fail":
                    await fail(service, f"{number}")
                case "title":
                    with contextlib.suppress(LookupError):
                        await service.update_session("u", "s", title=f"{number}")
                case "plain":
                    session = await service.get_session("u", "s", native=True, last_turns=0)
                    assert session is not None
                    role = dice.choice(["q", "a"])
                    await service.append_message(session, [said(f"{role} plain {number}").value])
                case "open":
                    turn = await stack.enter_async_context(opened(service))
                    turn.add([said(f"q open {number}")])
                    await turn.checkpoint()
                    open_turns.append(turn)
                case "part" if open_turns:
                    turn = dice.choice(open_turns)
                    turn.add([said(f"a part {number}")])
                    await turn.checkpoint()
                case "claim":
                    await say(service, f"alone {number}", concurrent="queue")


async def test_page_shows_a_turn_that_went_on_behind_it_after_it_had_ended(service: SessionHistoryService) -> None:
    async with service.record_turn("u", "s") as recorder:
        recorder.add([said("q")])
        await recorder.checkpoint(Status.COMPLETED)
        await say(service, "1")
        recorder.add([said("more")])
        await recorder.checkpoint(Status.COMPLETED)
        await say(service, "2")
        await say(service, "3")
        recorder.add([said("end")])
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    for count in (1, 2):
        shown: list[Any] = []
        part = await service.get_session("u", "s", native=True, last_turns=count)
        while part is not None:
            shown = [*part.messages, *shown]
            before = part.earlier
            part = await service.get_session("u", "s", native=True, last_turns=count, before=before) if before else None
        assert shown == session.messages


async def test_window_of_no_turns_behind_failed_ones_tells_how_much_it_leaves_out(
    service: SessionHistoryService, other: SessionHistoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "LONG_RUN", 8)
    await say(service, "1")
    for number in range(12):
        await fail(service, f"{number}")
    assert (await texts(other, last_turns=0))[1] == 14
