"""Tests of the claims in ``limits``. A power cut is not tested: no test that runs everywhere can cause one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from session_history_hooks import (
    ENTRY_KEYS,
    Appended,
    Conflict,
    Durability,
    Entry,
    LimitExceeded,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    WaitingOrder,
)
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

SAMPLE = 200
"""Number of entries with which a claim is tested that has no smaller limit."""


class ClaimsContract(Subject):
    """One claim or more of each field of :class:`~session_history_hooks.Limits`."""

    async def test_limits_are_valid_before_start_and_never_change(self, connect: Connect) -> None:
        unopened = connect().limits
        async with opened(connect) as provider:
            await fill(provider, 1)
            assert provider.limits == unopened
        sizes = (unopened.entry_bytes, unopened.summary_bytes, unopened.entries, unopened.page, unopened.page_bytes)
        assert min(sizes) >= 1
        assert unopened.remembered_ids is None or unopened.remembered_ids >= 0
        assert isinstance(unopened.durability, Durability)
        assert isinstance(unopened.atomic_head, bool)
        assert isinstance(unopened.waiting, WaitingOrder)

    async def test_append_over_a_limit_raises_and_stores_nothing(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        large_entry = Entry("e1", bytes(limits.entry_bytes + 1))
        large_summary = Snapshot(1, "o1", bytes(limits.summary_bytes + 1))
        with pytest.raises(LimitExceeded) as refusal:
            await provider.append(KEY, large_entry, at=Position(0, 0))
        assert (refusal.value.size, refusal.value.limit) == (limits.entry_bytes + 1, limits.entry_bytes)
        with pytest.raises(LimitExceeded) as refusal:
            await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=large_summary)
        assert (refusal.value.size, refusal.value.limit) == (limits.summary_bytes + 1, limits.summary_bytes)
        assert await provider.read(KEY) is None

    async def test_rewrite_over_a_limit_raises_and_changes_nothing(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        await fill(provider, 1)
        before = await read(provider)
        for payload, summary in ((limits.entry_bytes + 1, 0), (0, limits.summary_bytes + 1)):
            with pytest.raises(LimitExceeded):
                await rewrite(provider, 1, bytes(payload), snapshot=Snapshot(1, "o1", bytes(summary)))
        assert await read(provider) == before

    async def test_append_of_the_largest_entry_and_summary_is_stored(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        keys = tuple(f"k{number}" for number in range(ENTRY_KEYS))
        largest = replace(entry(1, b"\xff" * limits.entry_bytes), keys=keys)
        snapshot = Snapshot(1, "o1", b"\xff" * limits.summary_bytes)
        await provider.append(KEY, largest, at=Position(0, 0), snapshot=snapshot)
        log = await read(provider)
        assert log.entries == (largest,)
        assert log.head.snapshot == snapshot
        await append(provider, 2)
        if len(largest.payload) + len(entry(2).payload) > limits.page_bytes:
            assert (await read(provider)).entries == (entry(2),)
            assert (await read(provider, after=0)).entries == (largest,), "a page holds at least one entry"

    async def test_append_to_a_full_log_raises_limit_exceeded(self, provider: SessionHistoryProvider) -> None:
        full = provider.limits.entries
        if full > 1000:
            pytest.skip(f"filling a log would take {full} entries")
        await fill(provider, full)
        before = await read(provider, last=1)
        assert before.head.tail == Position(0, full)
        with pytest.raises(LimitExceeded) as refusal:
            await append(provider, full + 1)
        assert refusal.value.limit == full
        assert await read(provider, last=1) == before
        assert (await rewrite(provider, full)).rewrite_id == "r1"
        await provider.delete(KEY)
        assert await provider.append(KEY, entry(1), at=Position(1, 0)) == Appended(Position(1, 1), replayed=False)

    async def test_append_beyond_the_entry_limit_is_refused(self, provider: SessionHistoryProvider) -> None:
        for seq in (provider.limits.entries, 2 * provider.limits.entries, 2**32, 2**63, 2**70):
            with pytest.raises((LimitExceeded, Conflict)):
                await provider.append(KEY, entry(1), at=Position(0, seq))
        assert await provider.read(KEY) is None

    async def test_read_without_last_returns_at_most_a_page(self, provider: SessionHistoryProvider) -> None:
        page = min(provider.limits.page, provider.limits.entries - 2)
        await fill(provider, page + 2)
        newest = await read(provider)
        oldest = await read(provider, after=0)
        if page == provider.limits.page:
            assert (newest.first, len(newest.entries)) == (3, page)
            assert (oldest.first, len(oldest.entries)) == (1, page)
        assert newest.entries[-1] == entry(page + 2)
        assert oldest.entries[0] == entry(1)

    async def test_listing_page_holds_at_most_the_claimed_number(self, provider: SessionHistoryProvider) -> None:
        keys = {SessionKey("user", f"s{number}") for number in range(provider.limits.page + 2)}
        await asyncio.gather(*(provider.append(key, entry(1), at=Position(0, 0), snapshot=covering(1)) for key in keys))
        shown: list[SessionKey] = []
        cursor = None
        for _ in range(len(keys)):
            page = await provider.list("user", limit=len(keys), cursor=cursor)
            assert len(page.heads) <= provider.limits.page
            shown += [head.key for head in page.heads]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(shown) == len(keys)
        assert set(shown) == keys

    async def test_append_of_a_remembered_id_is_a_replay(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        count = min(SAMPLE, limits.entries - 1)
        await fill(provider, count)
        claimed = count if limits.remembered_ids is None else min(limits.remembered_ids, count)
        before = await read(provider, last=0)
        for number in range(count - claimed + 1, count + 1):
            again = await provider.append(KEY, Entry(f"e{number}", b"other"), at=Position(0, count))
            assert again == Appended(Position(0, number), replayed=True)
            assert (await read(provider, last=0, entry_id=f"e{number}")).match == (number, entry(number))
        assert await read(provider, last=0) == before

    async def test_append_of_the_id_right_behind_its_position_is_a_replay(
        self, provider: SessionHistoryProvider
    ) -> None:
        count = min(SAMPLE, provider.limits.entries)
        await fill(provider, count)
        for number in range(1, count + 1):
            again = await provider.append(KEY, Entry(f"e{number}", b"other"), at=Position(0, number - 1))
            assert again == Appended(Position(0, number), replayed=True)
        assert (await read(provider, last=0)).head.tail == Position(0, count)
