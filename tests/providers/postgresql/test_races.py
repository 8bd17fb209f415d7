"""Writers of one session that wait for each other in the middle of a statement, on PostgreSQL.

A statement that has waited for the lock of a head sees the new head, and all other rows as they were before its wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from providers.postgresql.support import OnServer, backends_waiting_for_lock, locked
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import Appended, Conflict, Entry, Position
from session_history_hooks.testing.subject import KEY, append, entry, fill, read, rewrite

RIVALS = 6


class TestRaces(OnServer):
    @pytest.fixture
    async def other(self, home: str, schema: str) -> AsyncIterator[Any]:
        """A connection for the other writer."""
        connection = await asyncpg.connect(home)
        await connection.execute(f"SET search_path TO {schema}")
        yield connection
        await connection.close()

    async def test_appends_of_one_id_or_key_that_wait_for_each_other_store_it_once(
        self, home: str, schema: str, provider: PostgresqlProvider, admin: Any
    ) -> None:
        await append(provider, 1)
        rivals = [
            Entry("new", b"", keys=()),
            Entry("new", b"", keys=("k",)),
            Entry("other", b"", keys=("k", "new")),
            Entry("k", b"", keys=("other", "new")),
        ]
        for seq in range(1, 6):
            mine = [
                replace(each, id=f"{each.id}{seq}", keys=tuple(f"{key}{seq}" for key in each.keys)) for each in rivals
            ]
            async with locked(home, schema):
                appending = [asyncio.create_task(provider.append(KEY, each, at=Position(0, seq))) for each in mine]
                await backends_waiting_for_lock(admin, len(rivals))
            outcomes = await asyncio.gather(*appending, return_exceptions=True)
            assert outcomes.count(Appended(Position(0, seq + 1), replayed=False)) == 1
            log = await read(provider)
            assert len(log.entries) == seq + 1
            stored = log.entries[-1]
            for each, outcome in zip(mine, outcomes, strict=True):
                if each.id in {stored.id, *stored.keys}:
                    assert isinstance(outcome, Appended)
                    assert outcome.position == Position(0, seq + 1)
                else:
                    assert isinstance(outcome, Conflict)
                    assert outcome.keys == tuple(key for key in each.keys if key in {stored.id, *stored.keys})

    async def test_first_entries_with_one_key_at_once_store_it_once(self, provider: PostgresqlProvider) -> None:
        entries = [Entry(f"e{number}", b"", keys=("k",)) for number in range(RIVALS)]
        outcomes = await asyncio.gather(
            *(provider.append(KEY, each, at=Position(0, 0)) for each in entries), return_exceptions=True
        )
        kinds = Counter(type(each) for each in outcomes)
        assert kinds == {Appended: 1, Conflict: RIVALS - 1}
        assert all(each.keys == ("k",) for each in outcomes if isinstance(each, Conflict))
        assert len((await read(provider)).entries) == 1

    async def test_append_that_waits_for_an_append_of_its_id_finds_it(
        self, provider: PostgresqlProvider, other: Any, admin: Any
    ) -> None:
        await append(provider, 1)
        for each, expected in (
            (Entry("late", b""), Appended(Position(0, 2), replayed=True)),
            (Entry("mine", b"", keys=("x", "late")), ("late",)),
        ):
            async with other.transaction():
                await append_late(other, 2)
                appending = asyncio.create_task(provider.append(KEY, each, at=Position(0, 1)))
                await backends_waiting_for_lock(admin)
            if isinstance(expected, Appended):
                assert await appending == expected
            else:
                with pytest.raises(Conflict) as conflict:
                    await appending
                assert conflict.value.keys == expected
            await other.execute(
                "DELETE FROM session_history_entry WHERE seq = 2;"
                "UPDATE session_history_head SET seq = 1, tail_origin = 'o1'"
            )

    async def test_append_and_rewrite_that_wait_for_a_renewal_are_done(
        self, provider: PostgresqlProvider, other: Any, admin: Any
    ) -> None:
        await append(provider, 1)
        keyed = replace(entry(3), keys=("k1", "k2"))
        for write in (
            lambda: append(provider, 2),
            lambda: provider.append(KEY, keyed, at=Position(0, 2)),
            lambda: rewrite(provider, 1),
        ):
            async with other.transaction():
                await other.execute("UPDATE session_history_head SET heartbeat = heartbeat + 1")
                writing = asyncio.create_task(write())
                await backends_waiting_for_lock(admin)
            await writing
        assert (await read(provider)).entries == (entry(1, b"new"), entry(2), keyed)

    async def test_rewrite_that_waits_for_an_append_is_done(
        self, provider: PostgresqlProvider, other: Any, admin: Any
    ) -> None:
        await append(provider, 1)
        async with other.transaction():
            await append_late(other, 2)
            writing = asyncio.create_task(rewrite(provider, 1))
            await backends_waiting_for_lock(admin)
        assert (await writing).tail == Position(0, 2)
        assert (await read(provider)).entries[0] == entry(1, b"new")

    async def test_restore_that_waits_for_an_append_sees_its_entry(
        self, provider: PostgresqlProvider, other: Any, admin: Any
    ) -> None:
        await fill(provider, 3)
        log = await read(provider)
        longer = replace(log.head, tail=Position(0, 4), tail_origin="o4")
        async with other.transaction():
            await append_late(other, 4)
            restoring = [
                asyncio.create_task(provider.restore(log.head, log.entries)),
                asyncio.create_task(provider.restore(longer, [entry(4)], behind="o3")),
            ]
            await backends_waiting_for_lock(admin, 2)
        assert await restoring[0] is False
        with pytest.raises(Conflict):
            await restoring[1]
        assert [each.id for each in (await read(provider)).entries] == ["e1", "e2", "e3", "late"]

    async def test_restore_that_waits_for_the_first_append_sees_its_entry(
        self, provider: PostgresqlProvider, other: Any, admin: Any
    ) -> None:
        await append(provider, 1)
        log = await read(provider)
        await provider.delete(KEY)
        await other.execute("DELETE FROM session_history_head")
        async with other.transaction():
            await other.execute(
                "INSERT INTO session_history_head (user_id, session_id, generation, seq, tail_origin, deleted,"
                f" heartbeat, rewrite_id, active_us, changed_us) VALUES ('{KEY.user_id}', '{KEY.session_id}', 0, 1,"
                " 'late', false, 0, '', 1, 1)"
            )
            await insert_entry(other, 1)
            restoring = asyncio.create_task(provider.restore(log.head, log.entries))
            await backends_waiting_for_lock(admin)
        with pytest.raises(Conflict) as conflict:
            await restoring
        assert conflict.value.head == (await read(provider)).head

    async def test_appends_during_restores_leave_a_log_without_gaps(self, provider: PostgresqlProvider) -> None:
        await fill(provider, 12)
        log = await read(provider)
        await provider.delete(KEY)
        head = replace(log.head, tail=Position(1, 12))
        for number in range(1, 13):
            page = replace(head, tail=Position(1, number), tail_origin=f"o{number}")
            outcomes = await asyncio.gather(
                provider.restore(page, log.entries[:number]),
                provider.append(KEY, replace(entry(number), origin="mine"), at=Position(1, number - 1)),
                return_exceptions=True,
            )
            tail = (await read(provider)).head.tail
            assert tail == Position(1, number)
            if isinstance(outcomes[0], Conflict):
                assert outcomes[1] == Appended(tail, replayed=False)
                return
        assert (await read(provider)).entries == log.entries


async def append_late(other: Any, seq: int) -> None:
    """Append the entry ``late`` without a commit."""
    await other.execute(f"UPDATE session_history_head SET seq = {seq}, tail_origin = 'late'")
    await insert_entry(other, seq)


async def insert_entry(other: Any, seq: int) -> None:
    await other.execute(
        f"INSERT INTO session_history_entry SELECT log, {seq}, 0, false, 'late', 'late', '' FROM session_history_head"
    )
