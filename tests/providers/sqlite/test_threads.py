"""The threads of a SQLite provider, when something goes wrong in or around them."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from session_history import SqliteSessionHistoryService
from session_history.errors import Corrupt, SessionHistoryError, Unavailable
from session_history.providers.sqlite import SqliteProvider
from session_history.providers.sqlite.threads import Task, Writer
from session_history.providers.sqlite.turnstile import Turnstile
from session_history_hooks import Entry, Position, SessionKey

KEY = SessionKey("u", "s")


def threads() -> int:
    return sum(thread.name.startswith("session-history") for thread in threading.enumerate())


async def append(provider: SqliteProvider, number: int) -> None:
    await provider.append(SessionKey("u", f"s{number}"), Entry("e", b"x"), at=Position(0, 0))


async def test_a_provider_that_is_dropped_leaves_no_thread_and_no_wal(tmp_path: Path) -> None:
    before = threads()
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    await append(provider, 1)
    assert threads() == before + 2
    del provider
    gc.collect()
    assert threads() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "h.db"]


async def test_a_start_that_fails_leaves_no_thread(tmp_path: Path) -> None:
    before = threads()
    (tmp_path / "h.db").write_text("no database" * 100)
    with pytest.raises(SessionHistoryError):
        await SqliteProvider(tmp_path / "h.db").start()
    assert threads() == before


async def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with SqliteSessionHistoryService("h.db") as service:
        await service.create_session("u", "s")
        monkeypatch.chdir("/")
        assert await service.health()
        await service.stop()
        await service.start()
        assert len(await service.list_sessions("u")) == 1


async def test_a_thread_that_dies_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    # What a thread can not foresee; pytest would take its death for a failure of the test.
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(Writer, "_serve", _die)
    abandon = Writer._abandon

    def abandon_slowly(self: Writer, batch: list[Task[Any]]) -> None:
        abandon(self, batch)
        time.sleep(0.2)  # as on a busy machine: those who waited know before the thread has ended

    monkeypatch.setattr(Writer, "_abandon", abandon_slowly)
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*(append(provider, number) for number in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, (Unavailable, MemoryError)) for outcome in outcomes)
        assert not await provider.health()
        with pytest.raises(Unavailable):
            await append(provider, 9)
        await provider.stop()


async def test_a_failure_at_the_turnstile_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = SqliteProvider(tmp_path / "h.db", busy_timeout=0.5)
    await provider.start()
    real = Turnstile.enter

    def enter(self: Turnstile, connection: sqlite3.Connection, patience: float) -> None:
        real(self, connection, patience)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Turnstile, "enter", enter)
        outcomes = await asyncio.gather(*(append(provider, number) for number in range(4)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(set(map(id, outcomes))) == 4, "each caller has an error of its own"
    other = SqliteProvider(tmp_path / "h.db", busy_timeout=0.5)
    await other.start()
    for each, number in ((other, 5), (provider, 6)):
        await append(each, number)
        await each.stop()


async def test_what_the_rows_should_not_hold_is_corrupt(tmp_path: Path) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    await provider.append(KEY, Entry("e", b"x"), at=Position(0, 0))
    for column, value in [("seq", "many"), ("tail_id", b"hunter2\xff"), ("snapshot_seq", "x"), ("active_us", b"x")]:
        with sqlite3.connect(tmp_path / "h.db") as other:
            kept = other.execute(f"SELECT {column} FROM head").fetchone()
            cast = "CAST(? AS TEXT)" if isinstance(value, bytes) and column == "tail_id" else "?"
            other.execute(f"UPDATE head SET {column} = {cast}", (value,))
        other.close()
        with pytest.raises(Corrupt) as error:
            await provider.read(KEY)
        assert "hunter2" not in str(error.value)
        with sqlite3.connect(tmp_path / "h.db") as other:
            other.execute(f"UPDATE head SET {column} = ?", kept)
        other.close()
        assert await provider.read(KEY)
    await provider.stop()


async def test_what_is_damaged_can_be_deleted_whole(tmp_path: Path) -> None:
    service = SqliteSessionHistoryService(tmp_path / "h.db")
    for name in ("s1", "s2", "s3"):
        await service.create_session("u", name)
    with closing(sqlite3.connect(tmp_path / "h.db", isolation_level=None)) as other:
        other.execute("UPDATE head SET seq = 'many', active_us = 'now', tail_id = x'ff' WHERE session_id != 's2'")
    with pytest.raises(Corrupt):
        await service.get_session("u", "s1")
    await service.delete_session("u", "s3")
    assert await service.get_session("u", "s3") is None
    assert await service.delete_user("u") == 2
    assert await service.list_sessions("u") == []
    await service.create_session("u", "s1")
    await service.stop()


async def test_the_drivers_words_do_not_show_what_is_stored(tmp_path: Path) -> None:
    service = SqliteSessionHistoryService(tmp_path / "h.db")
    await service.append_message(await service.create_session("u", "s"), {"role": "user"})
    with closing(sqlite3.connect(tmp_path / "h.db", isolation_level=None)) as other:
        other.execute("UPDATE entry SET payload = CAST(? AS TEXT) WHERE k & 1 = 0", (b"hunter2\xff",))
    with pytest.raises(Corrupt) as error:
        await service.get_session("u", "s")
    assert "hunter2" not in "".join(traceback.format_exception(error.value))
    await service.stop()


async def test_stop_finishes_what_was_accepted(tmp_path: Path) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    tasks = [asyncio.create_task(append(provider, number)) for number in range(50)]
    await asyncio.sleep(0)
    await provider.stop()
    await asyncio.gather(*tasks)
    await provider.start()
    assert len((await provider.list("u", limit=99)).heads) == 50
    await provider.stop()


async def test_the_loop_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    other = sqlite3.connect(tmp_path / "h.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(append(provider, 1))
    for _ in range(50):
        await asyncio.sleep(0.005)
    assert not waiting.done(), "the loop stood still until the lock was given up on"
    other.execute("ROLLBACK")
    await waiting
    other.close()
    await provider.stop()


def _die(*_: Any) -> None:
    raise MemoryError
