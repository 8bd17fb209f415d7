"""Tests of deletes: tombstones, and appends that follow."""

from __future__ import annotations

import pytest

from session_history_hooks import Appended, Conflict, Position, SessionHistoryProvider, SessionKey, Snapshot
from session_history_hooks.testing.subject import KEY, Subject, entry, fill, read


class DeletingContract(Subject):
    """Tombstones and generations."""

    async def test_tombstone_has_no_content(self, provider: SessionHistoryProvider) -> None:
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=Snapshot(1, "o1", b"summary"))
        active_us = (await read(provider)).head.active_us
        assert await provider.delete(KEY) is True
        log = await read(provider, entry_id="e1")
        assert (log.head.deleted, log.head.tail, log.head.tail_origin) == (True, Position(0, 0), "")
        assert (log.head.snapshot, log.entries, log.match) == (None, (), None)
        assert log.head.active_us == log.head.changed_us > active_us

    async def test_delete_of_missing_session_returns_false(self, provider: SessionHistoryProvider) -> None:
        assert await provider.delete(KEY) is False
        assert await provider.read(KEY) is None
        await fill(provider, 1)
        assert await provider.delete(KEY) is True
        assert await provider.delete(KEY) is False

    @pytest.mark.parametrize("at", [Position(0, 0), Position(0, 1), Position(0, 2), Position(1, 1), Position(2, 0)])
    async def test_append_to_a_deleted_generation_raises_conflict(
        self, provider: SessionHistoryProvider, at: Position
    ) -> None:
        await fill(provider, 2)
        await provider.delete(KEY)
        before = await read(provider)
        for late in (entry(1), entry(3)):
            with pytest.raises(Conflict) as conflict:
                await provider.append(KEY, late, at=at)
            assert conflict.value.head == before.head
        assert await read(provider) == before

    async def test_append_after_delete_begins_the_next_generation(self, provider: SessionHistoryProvider) -> None:
        active: list[int] = []
        for generation in range(3):
            begun = await provider.append(KEY, entry(1), at=Position(generation, 0))
            assert begun == Appended(Position(generation, 1), replayed=False)
            assert (await read(provider)).entries == (entry(1),)
            assert (await read(provider)).head.snapshot is None
            active.append((await read(provider)).head.active_us)
            await provider.delete(KEY)
            active.append((await read(provider)).head.active_us)
        assert (await read(provider)).head.tail == Position(2, 0)
        assert active == sorted(set(active)), "active_us must grow with each append and delete, also across generations"

    async def test_append_of_a_known_id_to_an_old_generation_raises_conflict(
        self, provider: SessionHistoryProvider
    ) -> None:
        await fill(provider, 1)
        await provider.delete(KEY)
        await provider.append(KEY, entry(1), at=Position(1, 0))
        for at in (Position(0, 0), Position(0, 1)):
            with pytest.raises(Conflict):
                await provider.append(KEY, entry(1), at=at)

    async def test_delete_user_deletes_only_sessions_of_this_user(self, provider: SessionHistoryProvider) -> None:
        mine = [SessionKey("user", name) for name in ("a", "b", "c")]
        for key in [*mine, SessionKey("user2", "a"), SessionKey("%", "a"), SessionKey("*", "a")]:
            await provider.append(key, entry(1), at=Position(0, 0))
        await provider.delete(mine[0])
        assert await provider.delete_user("user") == 2
        assert await provider.delete_user("user") == 0
        assert await provider.delete_user("nobody") == 0
        assert (await provider.list("user", limit=9)).heads == ()
        for user in ("user2", "%", "*"):
            assert len((await provider.list(user, limit=9)).heads) == 1
        assert await provider.delete_user("*") == 1
        assert len((await provider.list("%", limit=9)).heads) == 1
