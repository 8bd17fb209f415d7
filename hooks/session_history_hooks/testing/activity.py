"""Tests of bookkeeping, and of the two times of a head."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from session_history_hooks import Head, Position, SessionHistoryProvider, SessionKey
from session_history_hooks.testing.listing import create_sessions, list_pages
from session_history_hooks.testing.subject import KEY, Connect, Subject, append, entry, fill, opened, read, rewrite


class ActivityContract(Subject):
    """``active_us``, ``changed_us``, and entries in which nothing was said."""

    async def test_append_sets_both_times(self, provider: SessionHistoryProvider) -> None:
        for number in (1, 2):
            await append(provider, number)
            head = await current(provider)
            assert head.active_us == head.changed_us
        assert abs(head.changed_us / 1e6 - time.time()) < 3600, "the times must be microseconds since the epoch"

    async def test_bookkeeping_is_stored_and_returned(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await append(one, 1)
            await note(one, 2)
            await append(one, 3)
            for provider in (one, other):
                log = await read(provider, entry_id="e2")
                assert [each.bookkeeping for each in log.entries] == [False, True, False]
                assert log.match == (2, replace(entry(2), bookkeeping=True))

    async def test_bookkeeping_changes_changed_us_but_not_active_us(self, provider: SessionHistoryProvider) -> None:
        await append(provider, 1)
        first = await current(provider)
        changed = [first.changed_us]
        for number in (2, 3):
            await note(provider, number)
            head = await current(provider)
            assert head.active_us == first.active_us
            changed.append(head.changed_us)
        await append(provider, 4)
        head = await current(provider)
        assert head.active_us == head.changed_us
        assert [*changed, head.changed_us] == sorted({*changed, head.changed_us})

    async def test_first_entry_of_a_generation_sets_both_times(self, provider: SessionHistoryProvider) -> None:
        earlier = 0
        for generation in (0, 1):
            await note(provider, 1, Position(generation, 0))
            head = await current(provider)
            assert head.active_us == head.changed_us > earlier
            await provider.delete(KEY)
            earlier = (await current(provider)).changed_us

    async def test_delete_after_bookkeeping_sets_both_times(self, provider: SessionHistoryProvider) -> None:
        await append(provider, 1)
        await note(provider, 2)
        before = await current(provider)
        await provider.delete(KEY)
        after = await current(provider)
        assert after.active_us == after.changed_us > before.changed_us

    async def test_replay_renew_and_rewrite_change_neither_time(self, provider: SessionHistoryProvider) -> None:
        await append(provider, 1)
        await note(provider, 2)
        before = await current(provider)
        await append(provider, 1)
        await note(provider, 2)
        await provider.renew(KEY, at=Position(0, 2))
        await rewrite(provider, 1)
        after = await current(provider)
        assert (after.active_us, after.changed_us) == (before.active_us, before.changed_us)

    async def test_changed_us_grows_even_if_the_clock_goes_back(
        self, provider: SessionHistoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changed, active = [], []
        for number in range(1, 9):
            await (note if number % 3 == 2 else append)(provider, number)
            head = await current(provider)
            changed.append(head.changed_us)
            active.append(head.active_us)
            if number == 3:
                monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
        assert changed == sorted(set(changed))
        assert [now == then for now, then in zip(active, changed, strict=True)] == [n % 3 != 2 for n in range(1, 9)]
        assert (active[1], active[4], active[7]) == (active[0], active[3], active[6])

    async def test_bookkeeping_does_not_move_a_session_in_the_listing(self, provider: SessionHistoryProvider) -> None:
        keys = await create_sessions(provider, 4)
        await note(provider, 2, key=keys[1])
        assert (await list_pages(provider, 9))[0] == keys[::-1]
        await provider.append(keys[1], entry(3), at=Position(0, 2))
        assert (await list_pages(provider, 9))[0] == [keys[1], keys[3], keys[2], keys[0]]

    async def test_listing_shows_the_head_that_bookkeeping_left(self, provider: SessionHistoryProvider) -> None:
        keys = await create_sessions(provider, 2)
        await note(provider, 2, key=keys[0])
        for head in (await provider.list(KEY.user_id, limit=9)).heads:
            assert head == (await read(provider, head.key)).head

    async def test_session_with_bookkeeping_during_the_walk_is_listed_once(
        self, provider: SessionHistoryProvider
    ) -> None:
        keys = await create_sessions(provider, 5)
        first = await provider.list(KEY.user_id, limit=2)
        for key in keys:
            await note(provider, 2, key=key)
        rest = await list_pages(provider, 2, cursor=first.cursor)
        shown = [head.key for head in first.heads] + [key for page in rest for key in page]
        assert shown == keys[::-1]

    async def test_bookkeeping_on_one_connection_is_visible_on_another(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await fill(one, 1)
            before = await current(other)
            await note(one, 2)
            after = await current(other)
            assert (after.tail.seq, after.active_us) == (2, before.active_us)
            assert after.changed_us > before.changed_us


async def note(
    provider: SessionHistoryProvider, number: int, at: Position | None = None, key: SessionKey = KEY
) -> None:
    """Append entry ``number`` as bookkeeping."""
    bookkeeping = replace(entry(number), bookkeeping=True)
    await provider.append(key, bookkeeping, at=at or Position(0, number - 1))


async def current(provider: SessionHistoryProvider) -> Head:
    return (await read(provider, last=0)).head
