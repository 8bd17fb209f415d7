"""Failures in and around the threads of a SQLite provider."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from session_history import SqliteSessionHistoryService
from session_history.errors import Corrupt, SessionHistoryError, Unavailable
from session_history.providers.sqlite import SqliteProvider
from session_history.providers.sqlite.fairness import WriteFairness
from session_history.providers.sqlite.threads import Writer
from session_history_hooks import Entry, Position, SessionKey

KEY = SessionKey("u", "s")


def threads() -> int:
    return sum(thread.name.startswith("session-history") for thread in threading.enumerate())


async def append(provider: SqliteProvider, number: int) -> None:
    await provider.append(SessionKey("u", f"s{number}"), Entry("e", b"x"), at=Position(0, 0))


async def test_dropped_provider_leaves_no_thread_and_no_wal(tmp_path: Path) -> None:
    before = threads()
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    await append(provider, 1)
    assert threads() == before + 2
    del provider
    gc.collect()
    assert threads() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "h.db"]


async def test_failed_start_leaves_no_thread(tmp_path: Path) -> None:
    before = threads()
    (tmp_path / "h.db").write_text("no database" * 100)
    with pytest.raises(SessionHistoryError):
        await SqliteProvider(tmp_path / "h.db").start()
    assert threads() == before


async def test_service_with_relative_path_survives_a_change_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with SqliteSessionHistoryService("h.db") as service:
        await service.create_session("u", "s")
        monkeypatch.chdir("/")
        assert await service.health()
        await service.stop()
        await service.start()
        assert len(await service.list_sessions("u")) == 1


async def test_death_of_the_thread_raises_in_all_waiting_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    # The hook runs in the dying thread. It makes the thread outlive the errors of its callers, as on a busy machine.
    monkeypatch.setattr(threading, "excepthook", lambda _: time.sleep(0.2))
    monkeypatch.setattr(Writer, "serve", _die)
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*(append(provider, number) for number in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, (Unavailable, MemoryError)) for outcome in outcomes)
        assert not await provider.health()
        with pytest.raises(Unavailable):
            await append(provider, 9)
        await provider.stop()


async def test_failure_after_the_begin_of_a_transaction_releases_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = SqliteProvider(tmp_path / "h.db", busy_timeout=0.5)
    await provider.start()
    real_begin = WriteFairness.begin

    def begin_and_fail(self: WriteFairness, connection: sqlite3.Connection, busy_timeout: float) -> None:
        real_begin(self, connection, busy_timeout)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(WriteFairness, "begin", begin_and_fail)
        outcomes = await asyncio.gather(*(append(provider, number) for number in range(4)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(set(map(id, outcomes))) == 4, "callers share an error"
    other = SqliteProvider(tmp_path / "h.db", busy_timeout=0.5)
    await other.start()
    for each, number in ((other, 5), (provider, 6)):
        await append(each, number)
        await each.stop()


DAMAGES: list[tuple[str, object]] = [
    ("seq", "many"),
    ("tail_origin", b"hunter2\xff"),
    ("rewrite_id", b"x"),
    ("snapshot_seq", "x"),
    ("active_us", b"x"),
    ("changed_us", b"x"),
]


@pytest.mark.parametrize(("column", "value"), DAMAGES)
async def test_read_of_head_with_wrong_column_raises_corrupt(tmp_path: Path, column: str, value: object) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    await provider.append(KEY, Entry("e", b"x", "origin"), at=Position(0, 0))
    kept = run_sql(tmp_path, f"SELECT {column} FROM head")
    damage(tmp_path, column, value)
    with pytest.raises(Corrupt) as error:
        await provider.read(KEY)
    assert "hunter2" not in str(error.value)
    run_sql(tmp_path, f"UPDATE head SET {column} = ?", *kept[0])
    assert await provider.read(KEY)
    await provider.stop()


@pytest.mark.parametrize(
    ("column", "value"), [each for each in DAMAGES if each[0] not in ("rewrite_id", "snapshot_seq")]
)
async def test_append_to_head_with_wrong_column_raises_corrupt(tmp_path: Path, column: str, value: object) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    await provider.append(KEY, Entry("e1", b"x", "origin"), at=Position(0, 0))
    damage(tmp_path, column, value)
    before = run_sql(tmp_path, "SELECT seq, CAST(tail_origin AS BLOB), active_us, changed_us FROM head")
    with pytest.raises(Corrupt):
        await provider.append(KEY, Entry("e2", b"x"), at=Position(0, 1), tail_origin="origin")
    assert run_sql(tmp_path, "SELECT seq, CAST(tail_origin AS BLOB), active_us, changed_us FROM head") == before
    await provider.stop()


def damage(folder: Path, column: str, value: object) -> None:
    cast = "CAST(? AS TEXT)" if column == "tail_origin" else "?"
    run_sql(folder, f"UPDATE head SET {column} = {cast}", value)


def run_sql(folder: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "h.db", isolation_level=None)) as other:
        return other.execute(statement, values).fetchall()


async def test_delete_of_damaged_sessions_succeeds(tmp_path: Path) -> None:
    service = SqliteSessionHistoryService(tmp_path / "h.db")
    for name in ("s1", "s2", "s3"):
        await service.create_session("u", name)
    with closing(sqlite3.connect(tmp_path / "h.db", isolation_level=None)) as other:
        other.execute(
            "UPDATE head SET seq = 'many', active_us = 'now', changed_us = 'now', tail_origin = x'ff'"
            " WHERE session_id != 's2'"
        )
    with pytest.raises(Corrupt):
        await service.get_session("u", "s1")
    await service.delete_session("u", "s3")
    assert await service.get_session("u", "s3") is None
    assert await service.delete_user("u") == 2
    assert await service.list_sessions("u") == []
    await service.create_session("u", "s1")
    await service.stop()


async def test_error_of_undecodable_text_shows_no_content(tmp_path: Path) -> None:
    service = SqliteSessionHistoryService(tmp_path / "h.db")
    await service.append_message(await service.create_session("u", "s"), {"role": "user"})
    with closing(sqlite3.connect(tmp_path / "h.db", isolation_level=None)) as other:
        other.execute("UPDATE entry SET payload = CAST(? AS TEXT) WHERE k & 1 = 0", (b"hunter2\xff",))
    with pytest.raises(Corrupt) as error:
        await service.get_session("u", "s")
    assert "hunter2" not in "".join(traceback.format_exception(error.value))
    await service.stop()


async def test_stop_finishes_accepted_appends(tmp_path: Path) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    tasks = [asyncio.create_task(append(provider, number)) for number in range(50)]
    await asyncio.sleep(0)
    await provider.stop()
    await asyncio.gather(*tasks)
    await provider.start()
    assert len((await provider.list("u", limit=99)).heads) == 50
    await provider.stop()


async def test_append_to_locked_file_does_not_block_the_event_loop(tmp_path: Path) -> None:
    provider = SqliteProvider(tmp_path / "h.db")
    await provider.start()
    other = sqlite3.connect(tmp_path / "h.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(append(provider, 1))
    for _ in range(50):
        await asyncio.sleep(0.005)
    assert not waiting.done(), "the append gave up before the loop could run"
    other.execute("ROLLBACK")
    await waiting
    other.close()
    await provider.stop()


def _die(*_: object) -> NoReturn:
    raise MemoryError
