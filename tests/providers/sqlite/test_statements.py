"""The statements that a call costs, and what they leave in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from session_history.errors import Corrupt
from session_history.providers.sqlite import SqliteProvider, rows, users
from session_history_hooks import Entry, Limits, Position, SessionKey, Snapshot

KEY = SessionKey("u", "s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "h.db"


@pytest.fixture
async def provider(path: Path) -> AsyncIterator[SqliteProvider]:
    provider = SqliteProvider(path)
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
def connection(provider: SqliteProvider, path: Path) -> Iterator[sqlite3.Connection]:
    """A second connection to the provider's file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def append(provider: SqliteProvider, *entries: Entry, key: SessionKey = KEY) -> None:
    log = await provider.read(key, last=0)
    seq = log.head.tail.seq if log else 0
    for number, entry in enumerate(entries, seq):
        await provider.append(key, entry, at=Position(0, number))


def statements(connection: sqlite3.Connection, job: Callable[[], object]) -> list[str]:
    """Run a job and return the first two words of its statements."""
    traced: list[str] = []
    connection.set_trace_callback(lambda text: traced.append(" ".join(text.split()[:2])))
    job()
    connection.set_trace_callback(None)
    return traced


def steps(connection: sqlite3.Connection, job: Callable[[], object]) -> int:
    """Run a job and return how many instructions SQLite needed."""
    counted = [0]

    def count() -> None:
        counted[0] += 1

    connection.set_progress_handler(count, 1)
    job()
    connection.set_progress_handler(None, 0)
    return counted[0]


async def test_entry_without_keys_costs_five_statements(
    provider: SqliteProvider, connection: sqlite3.Connection
) -> None:
    await append(provider, Entry("e1", b"x", keys=("k1", "k2")))
    entry = Entry("e2", b"x")
    snapshot = Snapshot(2, entry.origin, b"summary")
    traced = statements(connection, lambda: rows.append(connection, KEY, entry, Position(0, 1), None, snapshot))
    assert traced == ["SELECT generation,", "SELECT seq", "UPDATE head", "INSERT INTO", "INSERT OR"]


async def test_deleted_session_leaves_only_its_tombstone(
    provider: SqliteProvider, connection: sqlite3.Connection
) -> None:
    other = SessionKey("u", "other")
    await append(provider, Entry("e1", b"x", keys=("k1", "k2")), Entry("e2", b"x"))
    await append(provider, Entry("e1", b"x", keys=("k1",)), key=other)
    await provider.delete(KEY)
    log = connection.execute("SELECT log FROM head WHERE session_id = 'other'").fetchone()[0]
    assert connection.execute("SELECT log, id FROM entry_id ORDER BY id").fetchall() == [(log, "e1"), (log, "k1")]
    assert connection.execute("SELECT count(*) FROM entry").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM head").fetchone() == (2,)


async def test_entry_with_keys_stores_no_text(provider: SqliteProvider, connection: sqlite3.Connection) -> None:
    await append(provider, Entry("e1", b"x", keys=("k1",), text="hunter2"))
    assert "hunter2" not in "".join(connection.iterdump())


class TestWalks:
    async def test_list_of_users_skips_their_sessions(
        self, provider: SqliteProvider, connection: sqlite3.Connection
    ) -> None:
        for user in "abc":
            await append(provider, Entry("e", b"x"), key=SessionKey(user, "s"))
        few = steps(connection, lambda: users.list_users(connection, 10, None))
        insert_sessions(connection, "b", 10_000)
        assert users.list_users(connection, 10, None).user_ids == ("a", "b", "c")
        assert steps(connection, lambda: users.list_users(connection, 10, None)) <= few

    async def test_list_of_tombstones_skips_living_sessions(
        self, provider: SqliteProvider, connection: sqlite3.Connection
    ) -> None:
        await append(provider, Entry("e", b"x"), key=SessionKey("b", "zz"))
        await provider.delete(SessionKey("b", "zz"))
        few = steps(connection, lambda: users.list_tombstones(connection, "b", 10, None))
        insert_sessions(connection, "b", 10_000)
        assert len(users.list_tombstones(connection, "b", 10, None).heads) == 1
        assert steps(connection, lambda: users.list_tombstones(connection, "b", 10, None)) <= few


def small_pages(limits: Limits, size: int) -> Limits:
    return replace(limits, page_bytes=size)


def insert_sessions(connection: sqlite3.Connection, user_id: str, count: int) -> None:
    connection.execute(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
        " INSERT INTO head (user_id, session_id, generation, seq, tail_origin, deleted, heartbeat, rewrite_id,"
        " active_us, changed_us) SELECT ?, 's' || n, 0, 1, 'o', 0, 0, '', n, n FROM numbers",
        (count, user_id),
    )


class TestPages:
    @pytest.mark.parametrize("after", [None, 0])
    async def test_page_reads_only_the_entries_that_it_holds(
        self, provider: SqliteProvider, connection: sqlite3.Connection, after: int | None
    ) -> None:
        await append(provider, *(Entry(f"e{number}", b"x" * 1000) for number in range(100)))
        limits = small_pages(provider.limits, 3000)
        whole = steps(connection, lambda: rows.read(connection, KEY, provider.limits, None, None, after, None))
        part = steps(connection, lambda: rows.read(connection, KEY, limits, None, None, after, None))
        log = rows.read(connection, KEY, limits, None, None, after, None)
        assert log is not None
        assert len(log.entries) == 3
        assert part < whole / 5

    async def test_read_after_corrupt_entry_sees_later_entries(
        self, provider: SqliteProvider, connection: sqlite3.Connection
    ) -> None:
        """A traceback that is kept holds the frames of the read, and so would hold its statement."""
        await append(provider, *(Entry(f"e{number}", b"x") for number in range(10)))
        connection.execute("DELETE FROM entry WHERE k & 0xffffff = 5")
        with pytest.raises(Corrupt, match="lacks its entry 5") as error:
            await provider.read(KEY, after=0)
        await append(provider, Entry("later", b"x"))
        log = await provider.read(KEY, last=1)
        assert log is not None
        assert log.entries[0].id == "later"
        assert error.value.__traceback__
