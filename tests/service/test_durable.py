"""Durable turns: the input is in the store before the handler runs, and survives the death of the process."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from service.opening import records
from session_history import SessionHistoryService, SqliteSessionHistoryService, Status, with_session_history
from session_history.errors import Unavailable
from session_history.providers.memory import MemoryProvider
from support import ROOT

HERE = {"user_id": "u", "session_id": "s"}

Json = dict[str, Any]


@pytest.mark.every_store
async def test_input_stands_in_the_store_while_the_handler_runs(pair: list[SessionHistoryService]) -> None:
    one, other = pair

    @with_session_history(one, native=True, durable=True)
    async def handler(messages: list[Json]) -> str:
        session = await other.get_session("u", "s", native=True)
        assert session is not None
        assert session.messages == [{"role": "user", "content": "question"}]
        async with other.turn("u", "s", native=True) as turn:
            assert turn.history == [{"role": "user", "content": "question"}], "an open turn is seen as interrupted"
        return "answer"

    assert await handler("question", **HERE) == "answer"
    session = await other.get_session("u", "s", native=True)
    assert session is not None
    assert [message["content"] for message in session.messages] == ["question", "answer"]
    assert session.turns == 1
    assert [record.status for record in await records(one)] == [Status.OPEN, Status.COMPLETED]


@pytest.mark.every_store
async def test_repeat_of_a_durable_turn_gets_its_answer(service: SessionHistoryService) -> None:
    calls = 0

    @with_session_history(service, durable=True)
    async def handler(messages: list[Any]) -> str:
        nonlocal calls
        calls += 1
        return f"answer {calls}"

    for _ in range(3):
        assert await handler("question", **HERE, turn_id="t") == "answer 1"
    assert len(await records(service)) == 2


@pytest.mark.parametrize("kind", ["turn", "handler", "stream"])
async def test_question_of_a_killed_process_is_shown_and_its_turn_can_run_again(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "h.db"
    program = ROOT / "tests" / "programs" / "durable.py"
    killed = await asyncio.create_subprocess_exec(sys.executable, program, kind, path)
    assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
    async with SqliteSessionHistoryService(path) as service:
        async with service.turn("u", "s", native=True) as turn:
            assert turn.history == [{"role": "user", "content": "question"}]
        if kind == "stream":
            return  # its lease has to lapse first, see test_leases
        async with service.turn("u", "s", native=True, turn_id="t", input="question", durable=True) as turn:
            assert turn.recorded is None
            assert turn.history == []
            turn.add({"role": "assistant", "content": "answer"})
        async with service.turn("u", "s", native=True) as turn:
            assert [message["content"] for message in turn.history] == ["question", "answer"]


async def test_durable_turn_without_input_is_refused() -> None:
    service = SessionHistoryService(MemoryProvider())
    with pytest.raises(ValueError, match="input="):
        service.turn("u", "s", durable=True)


async def test_handler_does_not_run_if_the_input_cannot_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MemoryProvider()

    async def refuse(*_: Any, **__: Any) -> Any:
        raise Unavailable("down")

    @with_session_history(SessionHistoryService(provider), durable=True)
    async def handler(messages: list[Any]) -> str:
        pytest.fail("the handler was called")

    await provider.start()
    monkeypatch.setattr(provider, "append", refuse)
    with pytest.raises(Unavailable):
        await handler("question", **HERE)
