"""Tests of ``renew`` and ``rewrite``, which change a session without an append."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from session_history_hooks import Conflict, Entry, Head, Position, SessionHistoryProvider, Snapshot
from session_history_hooks.testing.subject import (
    KEY,
    Connect,
    Subject,
    append,
    covering,
    entry,
    fill,
    opened,
    read,
    rewrite,
)


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
        new = entry(2, b"erased")
        head = await rewrite(provider, 2, b"erased", snapshot=Snapshot(3, "o3", b"summary"))
        log = await read(provider, entry_id="e2")
        assert log.entries == (entry(1), new, entry(3))
        assert log.match == (2, new)
        assert log.head == head
        assert head.active_us == active_us, "a rewrite must not change active_us"
        assert (head.rewrite_id, head.current_snapshot) == ("r1", Snapshot(3, "o3", b"summary"))
        assert (await rewrite(provider, 2, rewrite_id="r2", last="r1")).snapshot is None

    async def test_retry_of_a_rewrite_returns_the_head_and_changes_nothing(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await fill(one, 3)
            head = await rewrite(one, 2, b"erased", snapshot=covering(3))
            before = await read(one)
            for provider in (one, other):
                assert await rewrite(provider, 2, b"erased", snapshot=covering(3)) == head
                assert await rewrite(provider, 1, b"other", last="other") == head
                assert await read(provider) == before

    async def test_retry_of_a_rewrite_after_an_append_returns_the_current_head(
        self, provider: SessionHistoryProvider
    ) -> None:
        await fill(provider, 2)
        await rewrite(provider, 2, b"erased", snapshot=covering(2))
        await append(provider, 3)
        await provider.renew(KEY, at=Position(0, 3))
        before = await read(provider)
        assert before.head.rewrite_id == "r1"
        assert await rewrite(provider, 2, b"erased", snapshot=covering(2)) == before.head
        assert await read(provider) == before

    async def test_retry_of_a_rewrite_after_another_one_raises_conflict(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        await rewrite(provider, 1, b"first")
        await rewrite(provider, 1, b"second", rewrite_id="r2", last="r1")
        before = await read(provider)
        with pytest.raises(Conflict) as conflict:
            await rewrite(provider, 1, b"first")
        assert conflict.value.head == before.head
        assert await read(provider) == before

    async def test_retry_of_a_rewrite_after_delete_raises_conflict(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        await rewrite(provider, 1)
        await provider.delete(KEY)
        with pytest.raises(Conflict):
            await rewrite(provider, 1)
        await provider.append(KEY, entry(1), at=Position(1, 0))
        before = await read(provider)
        assert before.head.rewrite_id == ""
        with pytest.raises(Conflict) as conflict:
            await rewrite(provider, 1)
        assert conflict.value.head == before.head
        assert await read(provider) == before
        again = await provider.rewrite(
            KEY, entry(1, b"new"), at=Position(1, 1), rewrite_id="r1", last_rewrite_id="", snapshot=None
        )
        assert again.rewrite_id == "r1"
        assert (await read(provider)).entries == (entry(1, b"new"),)

    async def test_concurrent_tries_of_one_rewrite_do_it_once(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await fill(one, 2)
            tries = [rewrite(provider, 1, b"new", snapshot=covering(2)) for provider in [one, other] * 4]
            heads = await asyncio.gather(*tries)
            assert heads == [(await read(one)).head] * 8
            assert (await read(other)).entries == (entry(1, b"new"), entry(2))

    async def test_concurrent_rewrites_let_one_win(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await fill(one, 2)
            rivals = [
                rewrite(provider, number % 2 + 1, f"{number}".encode(), rewrite_id=f"r{number}")
                for number, provider in enumerate([one, other] * 4)
            ]
            outcomes = await asyncio.gather(*rivals, return_exceptions=True)
            (won,) = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Head)]
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 7
            log = await read(other)
            assert log.head == outcomes[won]
            assert log.head.rewrite_id == f"r{won}"
            changed = won % 2 + 1
            assert log.entries == tuple(
                entry(seq, f"{won}".encode()) if seq == changed else entry(seq) for seq in (1, 2)
            )

    async def test_rewritten_entry_keeps_its_keys_and_bookkeeping(self, provider: SessionHistoryProvider) -> None:
        old = replace(entry(2), keys=("k1", "k2"), bookkeeping=True)
        await append(provider, 1)
        await provider.append(KEY, old, at=Position(0, 1))
        await rewrite(provider, 2, b"new")
        new = replace(old, payload=b"new")
        log = await read(provider, entry_id="k1")
        assert (log.entries, log.match) == ((entry(1), new), (2, new))
        await rewrite(provider, 2, b"", rewrite_id="r2", last="r1")
        assert (await read(provider)).entries == (entry(1), replace(old, payload=b""))

    async def test_second_of_two_rewrites_that_saw_the_same_head_raises_conflict(
        self, provider: SessionHistoryProvider
    ) -> None:
        await fill(provider, 3)
        await rewrite(provider, 2, b"erased", rewrite_id="r1")
        with pytest.raises(Conflict):
            await rewrite(provider, 3, b"erased", rewrite_id="r2")
        assert (await read(provider)).entries == (entry(1), entry(2, b"erased"), entry(3))

    async def test_rewrite_of_an_entry_of_another_origin_raises_conflict(
        self, provider: SessionHistoryProvider
    ) -> None:
        await fill(provider, 2)
        before = await read(provider)
        other = replace(entry(2, b"new"), origin="other")
        with pytest.raises(Conflict):
            await provider.rewrite(KEY, other, at=Position(0, 2), rewrite_id="r1", last_rewrite_id="", snapshot=None)
        assert await read(provider) == before

    @pytest.mark.parametrize(
        ("name", "at", "last"),
        [
            ("e2", Position(0, 2), "r0"),
            ("e2", Position(0, 1), ""),
            ("e9", Position(0, 2), ""),
            ("e2", Position(0, 9), ""),
            ("e2", Position(0, 0), ""),
            ("e2", Position(1, 2), ""),
        ],
    )
    async def test_rewrite_of_another_entry_raises_conflict(
        self, provider: SessionHistoryProvider, name: str, at: Position, last: str
    ) -> None:
        await fill(provider, 3)
        before = await read(provider)
        with pytest.raises(Conflict) as conflict:
            await provider.rewrite(
                KEY,
                Entry(name, b"new", origin="o2"),
                at=at,
                rewrite_id="r1",
                last_rewrite_id=last,
                snapshot=None,
            )
        assert conflict.value.head == before.head
        assert await read(provider) == before

    async def test_rewrite_of_missing_or_deleted_session_raises_conflict(
        self, provider: SessionHistoryProvider
    ) -> None:
        with pytest.raises(Conflict) as conflict:
            await rewrite(provider, 1)
        assert conflict.value.head is None
        await fill(provider, 1)
        await provider.delete(KEY)
        with pytest.raises(Conflict):
            await rewrite(provider, 1)
