"""Tests of ``renew`` and ``rewrite``, which change a session without an append."""

from __future__ import annotations

import pytest

from session_history_hooks import Conflict, Entry, Position, SessionHistoryProvider, Snapshot
from session_history_hooks.testing.subject import KEY, Subject, entry, fill, read


class RewritingContract(Subject):
    """Heartbeats and rewritten entries."""

    async def test_renew_changes_only_the_heartbeat(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        before = await read(provider)
        assert await provider.renew(KEY, at=Position(0, 2)) is True
        after = await read(provider)
        assert after.head.heartbeat != before.head.heartbeat
        assert (after.entries, after.head.tail) == (before.entries, before.head.tail)
        assert after.head.active_us == before.head.active_us, "a heartbeat must not change active_us"
        for at in (Position(0, 1), Position(0, 3), Position(1, 2)):
            assert await provider.renew(KEY, at=at) is False
        assert await read(provider) == after

    async def test_renew_of_missing_or_deleted_session_returns_false(self, provider: SessionHistoryProvider) -> None:
        assert await provider.renew(KEY, at=Position(0, 0)) is False
        assert await provider.read(KEY) is None
        await fill(provider, 1)
        await provider.delete(KEY)
        assert await provider.renew(KEY, at=Position(0, 0)) is False

    async def test_rewrite_replaces_one_payload(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 3)
        active_us = (await read(provider)).head.active_us
        new = Entry("e2", b"erased")
        head = await provider.rewrite(KEY, new, at=Position(0, 2), rewrites=0, snapshot=Snapshot(3, "e3", b"summary"))
        log = await read(provider, entry_id="e2")
        assert log.entries == (entry(1), new, entry(3))
        assert log.match == (2, new)
        assert log.head == head
        assert head.active_us == active_us, "a rewrite must not change active_us"
        assert (head.rewrites, head.current_snapshot) == (1, Snapshot(3, "e3", b"summary"))
        assert (await provider.rewrite(KEY, new, at=Position(0, 2), rewrites=1, snapshot=None)).snapshot is None

    @pytest.mark.parametrize(
        ("name", "at", "rewrites"),
        [
            ("e2", Position(0, 2), 1),
            ("e2", Position(0, 1), 0),
            ("e9", Position(0, 2), 0),
            ("e2", Position(0, 9), 0),
            ("e2", Position(1, 2), 0),
        ],
    )
    async def test_rewrite_of_another_entry_raises_conflict(
        self, provider: SessionHistoryProvider, name: str, at: Position, rewrites: int
    ) -> None:
        await fill(provider, 3)
        before = await read(provider)
        with pytest.raises(Conflict) as conflict:
            await provider.rewrite(KEY, Entry(name, b"new"), at=at, rewrites=rewrites, snapshot=None)
        assert conflict.value.head == before.head
        assert await read(provider) == before

    async def test_rewrite_of_missing_or_deleted_session_raises_conflict(
        self, provider: SessionHistoryProvider
    ) -> None:
        with pytest.raises(Conflict) as conflict:
            await provider.rewrite(KEY, entry(1), at=Position(0, 1), rewrites=0, snapshot=None)
        assert conflict.value.head is None
        await fill(provider, 1)
        await provider.delete(KEY)
        with pytest.raises(Conflict):
            await provider.rewrite(KEY, entry(1), at=Position(0, 1), rewrites=0, snapshot=None)
