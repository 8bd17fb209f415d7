"""Turns inside of turns: nobody waits for himself, and nobody waits without an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.opening import opened, recorded, said
from session_history import SessionHistoryService, with_session_history
from session_history.errors import SessionBusy

pytestmark = pytest.mark.every_store

HERE = {"user_id": "u", "session_id": "s"}
SOON = 5.0
NOW = 1.0


@pytest.mark.parametrize("outer", ["queue", "reject"])
@pytest.mark.parametrize("inner", ["queue", "reject", "keep"])
async def test_turn_inside_an_exclusive_turn_of_the_session_raises_at_once(
    service: SessionHistoryService, outer: str, inner: str
) -> None:
    async with opened(service, concurrent=outer) as recorder:
        recorder.add([said("q")])
        started = time.monotonic()
        with pytest.raises(SessionBusy, match="exclusive turn of this task") as busy:
            await asyncio.wait_for(opened(service, concurrent=inner).__aenter__(), SOON)
        assert busy.value.own
        assert time.monotonic() - started < NOW
        async with opened_elsewhere(service, concurrent=inner) as other:
            other.add([said("other")])
    async with opened(service, concurrent=inner) as recorder:
        recorder.add([said("after")])
    assert await recorded(service) == ["q", "after"]


def opened_elsewhere(service: SessionHistoryService, **options: Any) -> Any:
    return service.record_turn("u", "another session", native=True, **options)


@pytest.mark.parametrize("spread", [False, True], ids=["same task", "task of its own"])
async def test_handler_that_calls_itself_gets_an_error(service: SessionHistoryService, spread: bool) -> None:
    errors: list[SessionBusy] = []

    @with_session_history(service, concurrent="queue")
    async def handler(messages: list[Any], depth: int) -> str:
        if depth:
            again = handler("again", **HERE, depth=depth - 1)
            try:
                await (asyncio.create_task(again) if spread else again)
            except SessionBusy as busy:
                errors.append(busy)
        return "answer"

    assert await asyncio.wait_for(handler("q", **HERE, depth=1), SOON) == "answer"
    assert [busy.own for busy in errors] == [True]
    session = await service.get_session("u", "s")
    assert session is not None
    assert [message.text for message in session.messages] == ["q", "answer"]


async def test_turn_after_a_stream_that_was_left_open_in_the_same_task_raises(service: SessionHistoryService) -> None:
    @with_session_history(service, concurrent="queue")
    async def handler(messages: list[Any]) -> AsyncIterator[str]:
        yield "piece"
        yield "more"

    stream: Any = handler("q", **HERE)
    assert await anext(stream) == "piece"
    with pytest.raises(SessionBusy):
        await asyncio.wait_for(anext(handler("q2", **HERE)), SOON)
    await stream.aclose()
    assert [piece async for piece in handler("q3", **HERE)] == ["piece", "more"]


async def test_turns_of_several_tasks_still_wait_for_each_other(service: SessionHistoryService) -> None:
    async def talk(number: int) -> None:
        async with opened(service, concurrent="queue") as recorder:
            await asyncio.sleep(0.01)
            recorder.add([said(f"q{number}")])

    await asyncio.wait_for(asyncio.gather(*map(talk, range(5))), SOON)
    assert sorted(await recorded(service)) == [f"q{number}" for number in range(5)]


async def test_waiting_ends_with_patience(pair: list[SessionHistoryService]) -> None:
    one, other = pair
    async with AsyncExitStack() as stack:
        await asyncio.create_task(stack.enter_async_context(opened(one, concurrent="queue")))
        started = time.monotonic()
        with pytest.raises(SessionBusy) as busy:
            async with opened(other, concurrent="queue", patience=0.3):
                pytest.fail("the turn was opened")
        assert not busy.value.own
        assert 0.3 <= time.monotonic() - started < SOON


@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf"), "5", None, True])
async def test_patience_that_is_no_number_of_seconds_is_refused(service: SessionHistoryService, patience: Any) -> None:
    with pytest.raises(ValueError, match="patience"):
        opened(service, patience=patience)
    with pytest.raises(ValueError, match="patience"):
        with_session_history(service, patience=patience)


async def test_append_within_the_own_turn_of_another_task_belongs_to_it(service: SessionHistoryService) -> None:
    async with opened(service, concurrent="queue") as recorder:
        recorder.add([said("q")])
        await asyncio.gather(
            *(asyncio.wait_for(service.update_session("u", "s", title=f"t{number}"), SOON) for number in range(5)),
            recorder.checkpoint(),
        )
        recorder.add([said("a")])
    assert await recorded(service) == ["q", "a"]
    session = await service.get_session("u", "s")
    assert session is not None
    assert session.title in {f"t{number}" for number in range(5)}


async def test_stream_that_several_tasks_consume_does_not_wait_for_itself(service: SessionHistoryService) -> None:
    @with_session_history(service, concurrent="queue")
    async def handler(messages: list[Any]) -> AsyncIterator[str]:
        yield "piece"
        session = await service.update_session("u", "s", title="told")
        yield str(session.title)

    stream: Any = handler("q", **HERE)

    async def consume() -> str:
        return str(await anext(stream))

    assert await asyncio.create_task(consume()) == "piece"
    assert await asyncio.wait_for(asyncio.create_task(consume()), SOON) == "told"
    await stream.aclose()
