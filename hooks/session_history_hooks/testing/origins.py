"""Tests of origins, which tell an append from another one with the same id and position."""

from __future__ import annotations

from dataclasses import replace

import pytest

from session_history_hooks import Appended, Conflict, Entry, Position, SessionHistoryProvider, Snapshot
from session_history_hooks.testing.subject import KEY, Connect, Subject, append, entry, fill, opened, read

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
"""All visible ASCII characters."""


class OriginsContract(Subject):
    """Origins of entries, of the tail, and of snapshots."""

    @pytest.mark.parametrize("origin", [VISIBLE[:64], VISIBLE[-64:]])
    async def test_origin_is_stored_and_returned(self, connect: Connect, origin: str) -> None:
        snapshot = Snapshot(1, origin, b"summary")
        async with opened(connect) as one, opened(connect) as other:
            await one.append(KEY, Entry("e", b"x", origin=origin), at=Position(0, 0), snapshot=snapshot)
            for provider in (one, other):
                log = await read(provider, entry_id="e")
                assert log.match is not None
                assert log.entries[0].origin == log.match[1].origin == log.head.tail_origin == origin
                assert log.head.current_snapshot == snapshot

    async def test_head_names_the_origin_of_the_newest_entry(self, provider: SessionHistoryProvider) -> None:
        for number in range(1, 4):
            await append(provider, number)
            assert (await read(provider, last=0)).head.tail_origin == f"o{number}"
        await provider.delete(KEY)
        assert (await read(provider)).head.tail_origin == ""
        await provider.append(KEY, replace(entry(1), origin="new"), at=Position(1, 0))
        assert (await read(provider)).head.tail_origin == "new"
        (listed,) = (await provider.list(KEY.user_id, limit=1)).heads
        assert listed.tail_origin == "new"

    async def test_snapshot_of_another_origin_is_not_current(self, provider: SessionHistoryProvider) -> None:
        other = Snapshot(1, "other", b"summary")
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=other)
        head = (await read(provider)).head
        assert head.snapshot == other
        assert head.current_snapshot is None

    async def test_append_behind_the_expected_origin_is_stored(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        appended = await provider.append(KEY, entry(3), at=Position(0, 2), tail_origin="o2")
        assert appended == Appended(Position(0, 3), replayed=False)
        assert (await read(provider)).entries == (entry(1), entry(2), entry(3))

    async def test_append_behind_another_origin_raises_conflict(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        before = await read(provider)
        for origin in ("o1", "O2", "o", "o22", "e2", ""):
            with pytest.raises(Conflict) as conflict:
                await provider.append(KEY, entry(3), at=Position(0, 2), tail_origin=origin)
            assert (conflict.value.head, conflict.value.keys) == (before.head, ())
        assert await read(provider) == before
        assert (await append(provider, 3)).replayed is False

    async def test_origin_is_not_compared_where_a_generation_begins(self, provider: SessionHistoryProvider) -> None:
        for generation in (0, 1):
            begun = await provider.append(KEY, entry(1), at=Position(generation, 0), tail_origin="any")
            assert begun == Appended(Position(generation, 1), replayed=False)
            await provider.delete(KEY)

    async def test_replay_is_found_behind_any_origin(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 3)
        before = await read(provider)
        for number in (1, 2, 3):
            for at in (Position(0, number - 1), Position(0, 3)):
                again = await provider.append(KEY, entry(number), at=at, tail_origin="other")
                assert again == Appended(Position(0, number), replayed=True)
        assert await read(provider) == before

    async def test_replay_with_another_origin_leaves_the_entry(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        before = await read(provider)
        for number in (1, 2):
            other = replace(entry(number, b"other"), origin="other")
            again = await provider.append(KEY, other, at=Position(0, number - 1))
            assert again == Appended(Position(0, number), replayed=True)
        assert await read(provider) == before

    async def test_renew_compares_the_origin(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        before = await read(provider)
        for origin in ("o1", "O2", "other", ""):
            assert await provider.renew(KEY, at=Position(0, 2), tail_origin=origin) is False
        assert await provider.renew(KEY, at=Position(0, 1), tail_origin="o1") is False
        assert await read(provider) == before
        assert await provider.renew(KEY, at=Position(0, 2), tail_origin="o2") is True
        assert (await read(provider)).head.heartbeat != before.head.heartbeat
