"""A turn in parts, of which the restored backup of its store has some."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from service.opening import names, opened, recorded, said
from session_history import SessionHistoryService, StoredMessage
from session_history.providers.sqlite import SqliteProvider
from session_history.records.messages import NATIVE

Copy = Callable[[], None]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[SessionHistoryService]:
    async with SessionHistoryService(SqliteProvider(tmp_path / "h.db")) as service:
        yield service


@pytest.fixture
def backup(tmp_path: Path) -> Copy:
    return lambda: copy(tmp_path / "h.db", tmp_path / "backup.db")


@pytest.fixture
def restore(tmp_path: Path) -> Copy:
    return lambda: copy(tmp_path / "backup.db", tmp_path / "h.db")


def copy(source: Path, target: Path) -> None:
    """Copy a store through SQLite's backup API, as an open store allows."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


async def model_sees(service: SessionHistoryService) -> list[str]:
    async with SessionHistoryService(service.provider).turn("u", "s", native=True) as turn:
        return names(turn.history)


@pytest.mark.parametrize("others", [0, 1, 4])
async def test_turn_whose_parts_the_backup_has_is_stored_once(
    service: SessionHistoryService, backup: Copy, restore: Copy, others: int
) -> None:
    async with opened(service) as turn:
        turn.add([said("q zero"), said("zero")])
    async with opened(service, turn_id="t") as turn:
        turn.add([said("q")])
        await turn.checkpoint()
        backup()
        turn.add([said("part")])
        await turn.checkpoint()
        restore()
        for number in range(others):
            async with opened(SessionHistoryService(service.provider)) as other:
                other.add([said(f"q {number}"), said(f"{number}")])
        turn.add([said("end")], answer=True)
    between = [name for number in range(others) for name in (f"q {number}", f"{number}")]
    expected = ["q zero", "zero", "q", "part", "end", *between]
    assert await recorded(service) == await model_sees(service) == expected
    async with opened(service, turn_id="t") as repeat:
        assert repeat.is_replay
        assert names(repeat.turn.recorded or ()) == ["q", "part", "end"]


async def test_message_that_was_revised_in_a_lost_part_is_stored_as_it_is(
    service: SessionHistoryService, backup: Copy, restore: Copy
) -> None:
    async with opened(service) as turn:
        turn.add([said("q"), said("a")])
        await turn.checkpoint()
        backup()
        for texts in (("a", "b"), ("a", "b", "c")):
            turn.revise(1, StoredMessage(NATIVE, said(*texts).value))
            await turn.checkpoint()
        restore()
        turn.add([said("end")])
    assert await recorded(service) == ["q", "a+b+c", "end"]


async def test_resumed_message_that_the_backup_has_is_stored_once(
    service: SessionHistoryService, backup: Copy, restore: Copy
) -> None:
    async with opened(service) as turn:
        turn.add([said("q"), said("call")])
        turn.park()
    backup()
    async with opened(service) as turn:
        index = turn.resume(turn.history[1][0])
        turn.revise(index, StoredMessage(NATIVE, said("call", "result").value))
        await turn.checkpoint()
        restore()
        turn.add([said("end")])
    assert await recorded(service) == await model_sees(service) == ["q", "call+result", "end"]
