"""Repeats of a turn: other input is refused, an interrupted turn is replayed or runs again, and a route sees which."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from session_history import SessionHistoryService, Turn, with_session_history
from session_history.errors import TurnIdReused

pytestmark = pytest.mark.every_store

HERE = {"user_id": "u", "session_id": "s"}

Json = dict[str, Any]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


async def texts(service: SessionHistoryService) -> list[Any]:
    async with service.turn("u", "s", native=True) as turn:
        return [message["content"] for message in turn.history]


async def cut(service: SessionHistoryService, turn_id: str = "t", *, with_result: bool = False) -> None:
    """Store a turn whose consumer left after the first piece."""

    @with_session_history(service, native=True)
    async def handler(messages: list[Json]) -> AsyncIterator[Any]:
        if with_result:
            yield {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}
            yield {"role": "tool", "tool_call_id": "c", "content": "charged"}
        yield "half an "
        yield "answer"

    stream: Any = handler("question", **HERE, turn_id=turn_id)
    async with aclosing(stream):
        async for piece in stream:
            if piece == "half an ":
                break


class Repeater:
    """A decorated stream that counts its runs."""

    def __init__(self, service: SessionHistoryService, **options: Any) -> None:
        self.runs = 0
        self.seen: list[list[Json]] = []

        @with_session_history(service, native=True, **options)  # type: ignore[untyped-decorator]
        async def handler(messages: list[Json]) -> AsyncIterator[str]:
            self.runs += 1
            self.seen.append(messages)
            yield "whole "
            yield "answer"

        self.handler = handler

    async def ask(self, turn_id: str = "t", text: str = "question") -> str:
        stream: Any = self.handler(text, **HERE, turn_id=turn_id)
        return "".join([piece async for piece in stream])


async def test_interrupted_turn_is_replayed_by_default(service: SessionHistoryService) -> None:
    await cut(service)
    repeater = Repeater(service)
    assert await repeater.ask() == "half an "
    assert repeater.runs == 0


async def test_interrupted_turn_runs_again_and_its_answer_counts_from_then_on(service: SessionHistoryService) -> None:
    await cut(service)
    again = Repeater(service, on_repeat="rerun")
    assert await again.ask() == "whole answer"
    assert again.seen == [[user("question")]], "the attempt that was cut is not shown to the next one"
    for options in ({}, {"on_repeat": "rerun"}):
        repeater = Repeater(service, **options)
        assert await repeater.ask() == "whole answer"
        assert repeater.runs == 0
    assert await texts(service) == ["question", "whole answer"]


async def test_turn_that_was_cut_twice_runs_a_third_time(service: SessionHistoryService) -> None:
    await cut(service)
    again = Repeater(service, on_repeat="rerun")
    stream: Any = again.handler("question", **HERE, turn_id="t")
    async with aclosing(stream):
        assert await anext(stream) == "whole "
    assert await Repeater(service).ask() == "whole "
    assert await again.ask() == "whole answer"
    assert again.runs == 2
    assert await Repeater(service).ask() == "whole answer"
    assert await texts(service) == ["question", "whole answer"]


async def test_tool_result_of_the_cut_attempt_is_shown_to_the_next_one(service: SessionHistoryService) -> None:
    await cut(service, with_result=True)
    again = Repeater(service, on_repeat="rerun")
    assert await again.ask() == "whole answer"
    assert "charged" in [message["content"] for message in again.seen[0]]
    assert "charged" in await texts(service)


async def test_reruns_at_once_store_one_answer(pair: list[SessionHistoryService]) -> None:
    await cut(pair[0])
    repeaters = [Repeater(service, on_repeat="rerun") for service in (*pair, *pair)]
    answers = await asyncio.gather(*(repeater.ask() for repeater in repeaters))
    assert set(answers) == {"whole answer"}
    assert await texts(pair[0]) == ["question", "whole answer"]


def charge(call_id: str) -> list[Json]:
    """Return a call of a tool, and its result."""
    call = {"id": call_id, "type": "function", "function": {"name": "charge", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": f"charged {call_id}"},
    ]


@pytest.mark.parametrize("durable", [False, True])
async def test_tools_of_both_of_two_runs_at_once_are_known_to_the_next_turn(
    pair: list[SessionHistoryService], durable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = pair
    options: Any = {"native": True, "turn_id": "t", "input": "pay", "durable": durable}
    async with one.turn("u", "s", **options) as slow:
        slow.add(charge("a"))
        async with other.turn("u", "s", **options) as quick:
            quick.add([*charge("b"), assistant("done")])
        slow.add(assistant("done, too"))
    assert slow.recorded is not None
    shown = await texts(one)
    assert {"charged a", "charged b"} <= set(shown)
    assert not caplog.records
    async with other.turn("u", "s", **options) as again:
        assert again.recorded is not None
        assert [message["content"] for message in again.recorded] == ["pay", None, "charged b", "done"]


async def test_other_input_under_the_id_of_an_interrupted_turn_is_refused(service: SessionHistoryService) -> None:
    await cut(service)
    with pytest.raises(TurnIdReused):
        await Repeater(service).ask(text="another question")


async def test_route_sees_whether_a_replayed_answer_is_whole(service: SessionHistoryService) -> None:
    def replayed(turn: Turn[Any], answer: Any) -> Any:
        return [f"{turn.recorded_status}: ", *answer]

    await cut(service)
    assert await Repeater(service, on_replay=replayed).ask() == "interrupted: half an "
    whole = Repeater(service, on_replay=replayed)
    assert await whole.ask("t2") == "whole answer"
    assert await whole.ask("t2") == "completed: whole answer"


async def test_handler_that_returns_is_replayed_through_on_replay(service: SessionHistoryService) -> None:
    @with_session_history(service, on_replay=lambda turn, answer: (turn.recorded_status, answer))
    async def handler(messages: list[Any]) -> str:
        return "answer"

    assert await handler("q", **HERE, turn_id="t") == "answer"
    again: Any = await handler("q", **HERE, turn_id="t")
    assert again == ("completed", "answer")


async def test_turn_with_a_known_id_and_other_words_raises(service: SessionHistoryService) -> None:
    async with service.turn("u", "s", native=True, turn_id="t") as turn:
        turn.add([user("question"), assistant("answer")])
    with pytest.raises(TurnIdReused):
        async with service.turn("u", "s", native=True, turn_id="t") as turn:
            turn.add(user("another question"))
    with pytest.raises(TurnIdReused):
        async with service.turn("u", "s", native=True, turn_id="t") as turn:
            turn.add([user("question"), user("and more"), assistant("answer")])
    with pytest.raises(TurnIdReused):
        async with service.turn("u", "s", native=True, turn_id="t", input="another question"):
            pytest.fail("the turn was opened")
    assert await texts(service) == ["question", "answer"]


async def test_turn_with_a_known_id_and_the_same_words_stores_nothing_and_says_so(
    service: SessionHistoryService, caplog: pytest.LogCaptureFixture
) -> None:
    for answer in ("answer", "answer", "another answer"):
        async with service.turn("u", "s", native=True, turn_id="t") as turn:
            turn.add(user("question"))
            turn.add(assistant(answer))
    assert await texts(service) == ["question", "answer"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "answer" not in warnings[0].replace("answered", "")


async def test_turn_at_once_with_the_same_id_and_other_words_raises(pair: list[SessionHistoryService]) -> None:
    one, other = pair
    with pytest.raises(TurnIdReused):
        async with one.turn("u", "s", native=True, turn_id="t") as slow:
            slow.add(user("question"))
            async with other.turn("u", "s", native=True, turn_id="t") as quick:
                quick.add([user("another question"), assistant("answer")])
    assert await texts(one) == ["another question", "answer"]


async def test_rerun_of_a_turn_without_a_decorator(service: SessionHistoryService) -> None:
    with suppress(asyncio.CancelledError):
        async with service.turn("u", "s", native=True, turn_id="t", input="question") as turn:
            turn.add(assistant("half"))
            raise asyncio.CancelledError
    async with service.turn("u", "s", native=True, turn_id="t", input="question", on_repeat="rerun") as turn:
        assert turn.recorded is None
        turn.add(assistant("whole"))
    assert await texts(service) == ["question", "whole"]


@pytest.mark.parametrize("policy", ["again", "", None])
async def test_unknown_policy_is_refused(service: SessionHistoryService, policy: Any) -> None:
    with pytest.raises(ValueError, match="on_repeat must be one of 'replay', 'rerun'"):
        service.turn("u", "s", on_repeat=policy)
    with pytest.raises(ValueError, match="on_repeat"):
        with_session_history(service, on_repeat=policy)


async def test_option_of_a_call_is_no_option_of_the_decorator(service: SessionHistoryService) -> None:
    for name in ("input", "turn_id", "speed"):
        with pytest.raises(TypeError, match=name):
            with_session_history(service, **{name: "x"})  # type: ignore[call-overload]


async def test_repeat_of_a_turn_without_words_of_the_user_stores_nothing(service: SessionHistoryService) -> None:
    for text in ("hello", "another hello"):
        async with service.turn("u", "s", native=True, turn_id="greeting") as turn:
            turn.add({"role": "assistant", "content": text})
    assert turn.recorded == [{"role": "assistant", "content": "hello"}]


async def test_tool_result_of_a_run_with_other_input_that_came_second_is_known(
    pair: list[SessionHistoryService],
) -> None:
    one, other = pair
    charged = {"role": "tool", "tool_call_id": "c", "content": "charged"}
    with pytest.raises(TurnIdReused):
        async with one.turn("u", "s", native=True, turn_id="t", input="another question") as slow:
            slow.add([{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}, charged])
            async with other.turn("u", "s", native=True, turn_id="t", input="question") as quick:
                quick.add(assistant("answer"))
    assert "charged" in await texts(one)
