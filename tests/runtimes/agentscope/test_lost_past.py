"""An agent object that outlives the past of its session: nothing of the old one is shown or stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.test_lost_past import restore_first_backup
from runtimes.agentscope.support import Speaker, reach, text, told
from session_history import SessionHistoryService
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionKey


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return the path of a store whose first backup is empty."""
    path = tmp_path / "history.db"
    async with SessionHistoryService(SqliteProvider(path)):
        restore_first_backup(path)
    return path


@pytest.fixture
async def services(path: Path) -> AsyncIterator[list[SessionHistoryService]]:
    """Two services on one store, as in two processes."""
    services = [SessionHistoryService(SqliteProvider(path)) for _ in range(2)]
    for service in services:
        await service.start()
    yield services
    for service in services:
        await service.stop()


async def logged_by(service: SessionHistoryService) -> str:
    """Return all that the log holds, as text."""
    log = await service.provider.read(SessionKey("u", "s"))
    return b"".join(entry.payload for entry in log.entries).decode() if log else ""


@pytest.mark.parametrize("others", [0, 1, 3])
async def test_agent_shows_and_stores_nothing_of_a_lost_past(
    services: list[SessionHistoryService], path: Path, save: str, others: int
) -> None:
    one, other = services
    speaker = Speaker(one, text("old answer"), text("late answer"), text("last"), save=save)
    await speaker.say("old question")
    speaker.agent.state.summary = "old summary"
    restore_first_backup(path)
    new = [line for number in range(others) for line in (f"q{number}", f"new {number}")]
    for number in range(others):
        await Speaker(other, text(f"new {number}"), save=save).say(f"q{number}")
    await speaker.say("late question")
    assert told(speaker.seen) == [*new, "late question"]
    assert "old" not in speaker.agent.state.model_dump_json()
    await speaker.say("and")
    assert told(speaker.seen) == [*new, "late question", "late answer", "and"]
    assert "old" not in await logged_by(other)


@pytest.mark.parametrize("others", [0, 1, 5])
async def test_reply_that_was_open_while_the_past_was_lost_is_stored_without_it(
    services: list[SessionHistoryService], path: Path, save: str, others: int
) -> None:
    one, other = services
    pause = asyncio.Event()
    speaker = Speaker(one, text("old answer"), [pause, text("late answer")], text("last"), save=save)
    await speaker.say("old question")
    speaker.agent.state.summary = "old summary"
    reply = asyncio.create_task(speaker.say("late question"))
    await reach(speaker.model.waiting, reply)
    restore_first_backup(path)
    new = [line for number in range(others) for line in (f"q{number}", f"new {number}")]
    for number in range(others):
        await Speaker(other, text(f"new {number}"), save=save).say(f"q{number}")
    pause.set()
    if not others:  # a session that is gone looks as a deleted one
        with pytest.raises(LookupError):
            await reply
        assert await logged_by(other) == ""
        return
    await reply
    assert "old" not in await logged_by(other)
    await speaker.say("and")
    assert told(speaker.seen) == [*new, "late question", "late answer", "and"]
    assert "old" not in speaker.agent.state.model_dump_json()
    assert "old" not in await logged_by(other)


async def test_agent_shows_a_rewritten_message_as_it_is_now(services: list[SessionHistoryService], save: str) -> None:
    one, other = services
    speaker = Speaker(one, text("the secret"), text("fine"), save=save)
    await speaker.say("question")
    key = SessionKey("u", "s")
    log = await other.provider.read(key)
    assert log is not None
    for seq, entry in enumerate(log.entries, start=1):
        redacted = replace(entry, payload=entry.payload.replace(b"the secret", b"redacted"))
        await other.provider.rewrite(
            key,
            redacted,
            at=replace(log.head.tail, seq=seq),
            rewrite_id=f"r{seq}",
            last_rewrite_id="" if seq == 1 else f"r{seq - 1}",
            snapshot=log.head.snapshot,
        )
    await speaker.say("and")
    assert told(speaker.seen) == ["question", "redacted", "and"]
