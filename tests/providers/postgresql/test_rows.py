"""Entries and sessions as rows of the tables in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from providers.postgresql.support import (
    OnServer,
    backends_waiting_for_lock,
    fill_sessions,
    open_provider_of,
)
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import (
    Appended,
    Corrupt,
    Entry,
    LimitExceeded,
    Position,
    SessionKey,
    Snapshot,
)
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, read, rewrite


class TestRows(OnServer):
    """Entries and sessions, as rows of the tables."""

    async def test_entry_ids_may_hold_any_character(self, provider: PostgresqlProvider) -> None:
        for seq, name in enumerate(["", "\0", "a\0b", "\ud800", "'; --", "\\x00", "x" * 2048]):
            appended = await provider.append(
                KEY, named(name), at=Position(0, seq), snapshot=Snapshot(seq + 1, "o", b"")
            )
            assert appended == Appended(Position(0, seq + 1), replayed=False)
            log = await read(provider, last=1, entry_id=name)
            assert log.entries == (named(name),)
            assert log.match == (seq + 1, named(name))
            assert log.head.current_snapshot is not None
        with pytest.raises(LimitExceeded, match="entry id bytes: 2049"):
            await provider.append(KEY, Entry("x" * 2049, b""), at=Position(0, 7))
        long = named("x" * 2049)
        with pytest.raises(LimitExceeded, match="entry id bytes: 2049"):
            await provider.restore(replace((await read(provider)).head, tail=Position(0, 1), tail_origin="o"), [long])

    async def test_sessions_of_the_same_activity_are_listed_by_code_point(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        names = ["B", "a", "ab", "b", "é", "\uffff", "\U00010000", "Z", "_"]
        for name in names:
            await provider.append(SessionKey("u", name), entry(1), at=Position(0, 0))
        await admin.execute(f"UPDATE {schema}.session_history_head SET active_us = 5")
        pages = [page async for page in walk(provider, "u", 2)]
        assert [name for page in pages for name in page] == sorted(names)

    async def test_list_continues_from_period_to_period(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        names = [f"s{number}" for number in range(9)]
        for number, name in enumerate(names):
            await provider.append(SessionKey("u", name), entry(1), at=Position(0, 0))
            await admin.execute(
                f"UPDATE {schema}.session_history_head SET active_us = $2::bigint WHERE session_id = $1",
                name,
                number << 29,
            )
        pages = [page async for page in walk(provider, "u", 2)]
        assert [name for page in pages for name in page] == names[::-1]

    async def test_append_between_two_statements_of_a_delete_is_deleted_too(
        self, provider: PostgresqlProvider, admin: Any, home: str, schema: str
    ) -> None:
        await fill(provider, 2)
        other = await asyncpg.connect(home)
        async with other.transaction():
            await other.execute(f"UPDATE {schema}.session_history_head SET seq = 3, tail_origin = 'o3'")
            await other.execute(
                f"INSERT INTO {schema}.session_history_entry SELECT log, 3, part, false, 'e3', 'o3', ''"
                f" FROM {schema}.session_history_head, generate_series(0, 2) part"
            )
            deleting = asyncio.create_task(provider.delete(KEY))
            await backends_waiting_for_lock(admin)
        assert await deleting is True
        await other.close()
        assert await admin.fetchval(f"SELECT count(*) FROM {schema}.session_history_entry") == 0

    @pytest.mark.parametrize("page", [1, 2, 3, 4, 100])
    async def test_delete_in_many_steps_leaves_no_entry(
        self, home: str, admin: Any, schema: str, page: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.PAGE", page)
        monkeypatch.setattr("session_history.providers.postgresql.statements.DELETE_BATCH", 3)
        async with open_provider_of(home, schema) as provider:
            await fill_sessions(provider, "other", [3])
            await fill_sessions(provider, "u", [1, 4, 3, 1, 2, 7, 1])
            await admin.execute(
                f"INSERT INTO {schema}.session_history_entry"
                f" SELECT log, 9, 0, false, 'behind', 'o9', '' FROM {schema}.session_history_head WHERE user_id = 'u'"
            )
            assert await provider.delete(SessionKey("u", "s1")) is True
            assert await provider.delete_user("u") == 6
            assert await provider.delete_user("u") == 0
            assert (await provider.list("u", limit=9)).heads == ()
            assert await admin.fetchval(f"SELECT count(*) FROM {schema}.session_history_entry") == 3

    async def test_deletes_of_a_user_at_once_share_the_sessions(
        self, provider: PostgresqlProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("session_history.providers.postgresql.statements.DELETE_BATCH", 3)
        await fill_sessions(provider, "u", [2] * 20)
        assert sum(await asyncio.gather(*(provider.delete_user("u") for _ in range(4)))) == 20

    async def test_tombstone_and_recreated_session_have_a_head_without_traces(
        self, provider: PostgresqlProvider
    ) -> None:
        await append(provider, 1, covering(1))
        await provider.renew(KEY, at=Position(0, 1))
        await rewrite(provider, 1, snapshot=covering(1))
        await provider.delete(KEY)
        head = (await read(provider)).head
        assert (head.heartbeat, head.rewrite_id, head.snapshot, head.tail_origin) == (0, "", None, "")
        await provider.append(KEY, entry(1), at=Position(1, 0))
        head = (await read(provider)).head
        assert (head.heartbeat, head.rewrite_id, head.snapshot, head.deleted) == (0, "", None, False)

    async def test_database_copy_with_restarted_log_numbers_mixes_no_sessions(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        other = SessionKey("other", "s")
        await provider.append(other, entry(1), at=Position(0, 0))
        await provider.delete(other)
        await admin.execute(f"ALTER TABLE {schema}.session_history_head ALTER log RESTART")
        with pytest.raises(Corrupt, match="one log of two sessions"):
            await append(provider, 1)
        await append(provider, 1)
        assert (await read(provider, other, entry_id="e1")).match is None

    async def test_read_of_a_log_with_a_missing_entry_raises_corrupt(
        self, provider: PostgresqlProvider, admin: Any, schema: str
    ) -> None:
        await fill(provider, 3)
        await admin.execute(f"DELETE FROM {schema}.session_history_entry WHERE seq = 2")
        with pytest.raises(Corrupt, match="lacks entries"):
            await provider.read(KEY)
        assert len((await read(provider, last=1)).entries) == 1


def named(entry_id: str) -> Entry:
    return Entry(entry_id, b"x", origin="o")


async def walk(provider: PostgresqlProvider, user: str, limit: int) -> AsyncIterator[list[str]]:
    cursor = None
    while True:
        page = await provider.list(user, limit=limit, cursor=cursor)
        yield [head.key.session_id for head in page.heads]
        cursor = page.cursor
        if cursor is None:
            return
