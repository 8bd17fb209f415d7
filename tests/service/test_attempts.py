"""Several attempts at one turn: its answer stays, and what came to nothing neither hides it nor fills the window."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from session_history import Message, SessionHistoryService, with_session_history

HERE = {"user_id": "u", "session_id": "s"}


async def shown(service: SessionHistoryService, **options: Any) -> list[str]:
    async with service.turn("u", "s", **options) as turn:
        return [message.text for message in turn.history]


async def fail_once(service: SessionHistoryService, turn_id: str) -> None:
    with pytest.raises(TimeoutError):
        async with service.turn("u", "s", turn_id=turn_id) as turn:
            turn.add({"role": "user", "content": "again?"})
            raise TimeoutError


@pytest.mark.parametrize("ending", ["error", "cancellation"])
@pytest.mark.parametrize("last_turns", [None, 4])
async def test_answer_stays_after_a_second_attempt_without_a_result(
    service: SessionHistoryService, ending: str, last_turns: int | None
) -> None:
    answered = asyncio.Event()

    @with_session_history(service)
    async def handler(messages: list[Message], *, number: int) -> str:
        if number == 1:
            return "answer"
        await answered.wait()
        if ending == "error":
            raise ZeroDivisionError
        await asyncio.sleep(60)
        return "never"

    slow = asyncio.create_task(handler("q", **HERE, turn_id="t", number=2))
    await asyncio.sleep(0.05)
    assert await handler("q", **HERE, turn_id="t", number=1) == "answer"
    answered.set()
    await asyncio.sleep(0.05)
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert await shown(service, last_turns=last_turns) == ["q", "answer"]


@pytest.mark.parametrize("attempts", [1, 3, 7, 30])
async def test_earlier_attempts_take_no_place_in_a_window(service: SessionHistoryService, attempts: int) -> None:
    for number in range(10):
        async with service.turn("u", "s") as turn:
            turn.add({"role": "user", "content": f"q{number}"})
    for _ in range(attempts):
        await fail_once(service, "t")
    for options in ({}, {"turn_id": "t"}):
        window = await shown(service, last_turns=4, **options)
        said = [text for text in window if text != "again?"]
        assert 4 - 1 <= len(said) <= 6
        assert said[-1] == "q9"
        assert len(window) >= 4


async def test_last_attempt_is_shown_until_the_next_attempt(service: SessionHistoryService) -> None:
    for _ in range(3):
        await fail_once(service, "t")
    assert await shown(service) == ["again?"]
    assert await shown(service, turn_id="t") == []
    async with service.turn("u", "s", turn_id="t") as turn:
        turn.add([{"role": "user", "content": "again?"}, {"role": "assistant", "content": "yes"}])
    assert await shown(service) == ["again?", "yes"]
    async with service.turn("u", "s", turn_id="t") as turn:
        assert turn.history == []
        assert turn.recorded is not None
        assert [message.text for message in turn.recorded] == ["again?", "yes"]


async def test_repeat_tells_the_status_of_the_recorded_answer(service: SessionHistoryService) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> Any:
        yield "half"
        yield "whole"

    async with aclosing(handler("q", **HERE, turn_id="left")) as stream:
        assert await anext(stream) == "half"
    assert [piece async for piece in handler("q", **HERE, turn_id="heard")] == ["half", "whole"]
    for turn_id, status in (("left", "interrupted"), ("heard", "completed"), ("new", None)):
        async with service.turn("u", "s", turn_id=turn_id) as turn:
            assert turn.recorded_status == status


async def test_empty_interrupted_stream_is_no_answer(service: SessionHistoryService) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message], *, text: str) -> Any:
        yield ""
        if not text:
            raise TimeoutError
        yield text

    with pytest.raises(TimeoutError):
        assert [piece async for piece in handler("q", **HERE, turn_id="t", text="")] == [""]
    assert [piece async for piece in handler("q", **HERE, turn_id="t", text="a")] == ["", "a"]
    assert [piece async for piece in handler("q", **HERE, turn_id="t", text="b")] == ["a"]
