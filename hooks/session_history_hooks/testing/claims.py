"""The claims of ``limits``, put to the test. What a power cut leaves is beyond a test that runs everywhere."""

from __future__ import annotations

import asyncio

import pytest

from session_history_hooks import (
    Appended,
    Conflict,
    Durability,
    Entry,
    LimitExceeded,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
)
from session_history_hooks.testing.subject import KEY, Connect, Subject, append, covering, entry, fill, opened, read

MANY = 200
"""How far a claim is followed that reaches further than a test can go."""


class ClaimsContract(Subject):
    """Each field of :class:`~session_history_hooks.Limits`."""

    async def test_the_limits_are_known_from_the_start_and_stay(self, connect: Connect) -> None:
        unopened = connect().limits
        async with opened(connect) as provider:
            await fill(provider, 1)
            assert provider.limits == unopened
        assert min(unopened.entry_bytes, unopened.summary_bytes, unopened.entries, unopened.page) >= 1
        assert unopened.remembered_ids is None or unopened.remembered_ids >= 0
        assert isinstance(unopened.durability, Durability)
        assert isinstance(unopened.atomic_head, bool)

    async def test_what_is_too_large_is_refused_and_leaves_nothing(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        too_large = Entry("e1", bytes(limits.entry_bytes + 1))
        too_wide = Snapshot(1, "e1", bytes(limits.summary_bytes + 1))
        with pytest.raises(LimitExceeded) as refusal:
            await provider.append(KEY, too_large, at=Position(0, 0))
        assert (refusal.value.size, refusal.value.limit) == (limits.entry_bytes + 1, limits.entry_bytes)
        with pytest.raises(LimitExceeded) as refusal:
            await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=too_wide)
        assert (refusal.value.size, refusal.value.limit) == (limits.summary_bytes + 1, limits.summary_bytes)
        assert await provider.read(KEY) is None

    async def test_a_rewrite_keeps_the_limits_too(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        await fill(provider, 1)
        before = await read(provider)
        for payload, summary in ((limits.entry_bytes + 1, 0), (0, limits.summary_bytes + 1)):
            with pytest.raises(LimitExceeded):
                await provider.rewrite(
                    KEY,
                    Entry("e1", bytes(payload)),
                    at=Position(0, 1),
                    rewrites=0,
                    snapshot=Snapshot(1, "e1", bytes(summary)),
                )
        assert await read(provider) == before

    async def test_what_is_just_not_too_large_is_stored(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        largest = Entry("e1", b"\xff" * limits.entry_bytes)
        snapshot = Snapshot(1, "e1", b"\xff" * limits.summary_bytes)
        await provider.append(KEY, largest, at=Position(0, 0), snapshot=snapshot)
        log = await read(provider)
        assert log.entries == (largest,)
        assert log.head.snapshot == snapshot

    async def test_a_log_that_is_full_takes_no_more(self, provider: SessionHistoryProvider) -> None:
        full = provider.limits.entries
        if full > 1000:
            pytest.skip(f"it would take {full} entries to fill a log")
        await fill(provider, full)
        before = await read(provider, last=1)
        assert before.head.tail == Position(0, full)
        with pytest.raises(LimitExceeded) as refusal:
            await append(provider, full + 1)
        assert refusal.value.limit == full
        assert await read(provider, last=1) == before
        last = Entry(f"e{full}", b"new")
        assert (await provider.rewrite(KEY, last, at=Position(0, full), rewrites=0, snapshot=None)).rewrites == 1
        await provider.delete(KEY)
        assert await provider.append(KEY, entry(1), at=Position(1, 0)) == Appended(Position(1, 1), replayed=False)

    async def test_no_entry_stands_beyond_the_limit(self, provider: SessionHistoryProvider) -> None:
        for seq in (provider.limits.entries, 2 * provider.limits.entries, 2**32, 2**63, 2**70):
            with pytest.raises((LimitExceeded, Conflict)):
                await provider.append(KEY, entry(1), at=Position(0, seq))
        assert await provider.read(KEY) is None

    async def test_a_read_without_a_number_is_a_page(self, provider: SessionHistoryProvider) -> None:
        page = min(provider.limits.page, provider.limits.entries - 2)
        await fill(provider, page + 2)
        newest = await read(provider)
        oldest = await read(provider, after=0)
        if page == provider.limits.page:
            assert (newest.first, len(newest.entries)) == (3, page)
            assert (oldest.first, len(oldest.entries)) == (1, page)
        assert newest.entries[-1] == entry(page + 2)
        assert oldest.entries[0] == entry(1)

    async def test_a_page_of_a_listing_has_its_limit_too(self, provider: SessionHistoryProvider) -> None:
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

    async def test_ids_are_remembered_as_far_as_claimed(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        count = min(MANY, limits.entries - 1)
        await fill(provider, count)
        claimed = count if limits.remembered_ids is None else min(limits.remembered_ids, count)
        before = await read(provider, last=0)
        for number in range(count - claimed + 1, count + 1):
            again = await provider.append(KEY, Entry(f"e{number}", b"other"), at=Position(0, count))
            assert again == Appended(Position(0, number), replayed=True)
            assert (await read(provider, last=0, entry_id=f"e{number}")).match == (number, entry(number))
        assert await read(provider, last=0) == before

    async def test_the_id_right_behind_the_place_is_always_checked(self, provider: SessionHistoryProvider) -> None:
        count = min(MANY, provider.limits.entries)
        await fill(provider, count)
        for number in range(1, count + 1):
            again = await provider.append(KEY, Entry(f"e{number}", b"other"), at=Position(0, number - 1))
            assert again == Appended(Position(0, number), replayed=True)
        assert (await read(provider, last=0)).head.tail == Position(0, count)
