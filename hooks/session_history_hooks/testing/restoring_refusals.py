"""Tests of restores that are refused: what stands there is another log, or what shall be written is not one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from session_history_hooks import (
    Conflict,
    Entry,
    Head,
    InvalidKey,
    LimitExceeded,
    Position,
    Restorable,
    SessionHistoryProvider,
)
from session_history_hooks.testing.restorable_logs import COPY, made, restore, tombstone, upto
from session_history_hooks.testing.subject import Subject, entry, read, require


class RestoringRefusalsContract(Subject):
    """Conflicts and errors of ``restore``; none of them writes anything."""

    @pytest.fixture
    def restorable(self, provider: SessionHistoryProvider) -> Restorable:
        return require(provider, Restorable)

    @pytest.mark.parametrize("differs", [1, 2, 3])
    async def test_restore_of_a_log_that_begins_otherwise_raises_conflict(
        self, provider: SessionHistoryProvider, restorable: Restorable, differs: int
    ) -> None:
        head, entries = made(5)
        await restore(restorable, head, entries, 1, 3)
        other = list(entries)
        other[differs - 1] = replace(entries[differs - 1], origin="other")
        for last in range(differs, 6):
            await check_conflict(provider, restorable, upto(head, other, last), other[:last])
        for first in range(2, differs + 2):  # The entry that differs is one of them, or the one ahead of them.
            await check_conflict(provider, restorable, head, other[first - 1 :], other[first - 2].origin)

    async def test_restore_of_a_shorter_log_over_a_longer_one_writes_nothing(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(3)
        await restore(restorable, head, entries)
        await provider.append(COPY, entry(4), at=Position(0, 3))
        before = await read(provider, COPY)
        for first, last in ((1, 3), (1, 1), (2, 2), (2, 3), (3, 3)):
            assert await restore(restorable, head, entries, first, last) is False
        assert await read(provider, COPY) == before
        longer = (*entries, replace(entry(4), origin="other"), entry(5))
        await check_conflict(provider, restorable, made(5)[0], longer)

    async def test_restore_with_a_gap_raises_conflict(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(5)
        await check_conflict(provider, restorable, head, entries[1:], "o1")
        await restorable.restore(tombstone(0))
        later = replace(head, tail=Position(1, 5))
        await check_conflict(provider, restorable, later, entries[1:], "o1")
        await restore(restorable, later, entries, 1, 2)
        await check_conflict(provider, restorable, later, entries[3:], "o3")
        await check_conflict(provider, restorable, later, entries[4:], "o4")
        assert await restorable.restore(later, entries[2:], behind="o2") is True

    async def test_restore_of_another_life_over_a_living_session_raises_conflict(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(2)
        await restore(restorable, replace(head, tail=Position(1, 2)), entries)
        for generation in (0, 2):
            await check_conflict(provider, restorable, replace(head, tail=Position(generation, 2)), entries)
        for generation in (0, 1, 2):
            await check_conflict(provider, restorable, tombstone(generation))

    async def test_restore_over_a_later_tombstone_raises_conflict(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(2)
        await restorable.restore(tombstone(1))
        for generation in (0, 1):
            await check_conflict(provider, restorable, replace(head, tail=Position(generation, 2)), entries)
        await check_conflict(provider, restorable, tombstone(0))
        await restorable.restore(replace(head, tail=Position(2, 2)), entries)
        await provider.delete(COPY)
        await check_conflict(provider, restorable, replace(head, tail=Position(2, 2)), entries)
        await check_conflict(provider, restorable, tombstone(1))

    async def test_restore_of_a_log_with_another_rewrite_raises_conflict(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(3)
        await restore(restorable, replace(head, rewrite_id="r1"), entries, 1, 2)
        for rewrite_id in ("", "r2"):
            other = replace(head, rewrite_id=rewrite_id)
            await check_conflict(provider, restorable, other, entries)
            await check_conflict(provider, restorable, other, entries[2:], "o2")
            await check_conflict(provider, restorable, upto(other, entries, 2), entries[:2])
        assert await restore(restorable, replace(head, rewrite_id="r1"), entries) is True

    async def test_restore_over_a_limit_is_refused(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        limits = provider.limits
        head, entries = made(1)
        large_summary = replace(head.snapshot, summary=bytes(limits.summary_bytes + 1)) if head.snapshot else None
        cases: list[tuple[Head, Sequence[Entry], str]] = [
            (head, [replace(entries[0], payload=bytes(limits.entry_bytes + 1))], ""),
            (replace(head, snapshot=large_summary), entries, ""),
            (made(limits.page + 1)[0], made(limits.page + 1)[1], ""),
        ]
        for each in cases:
            await check_refused(provider, restorable, LimitExceeded, *each)
        behind_a_full_log = replace(head, tail=Position(0, limits.entries + 1))
        await check_refused(provider, restorable, (LimitExceeded, Conflict), behind_a_full_log, entries, "o0")

    @pytest.mark.parametrize("invalid", [{"origin": ""}, {"origin": "a b"}, {"keys": ("k", "k")}, {"keys": ("e1",)}])
    async def test_restore_of_an_invalid_entry_is_refused(
        self, provider: SessionHistoryProvider, restorable: Restorable, invalid: dict[str, object]
    ) -> None:
        head, (only,) = made(1)
        changed = replace(only, **invalid)  # type: ignore[arg-type]
        await check_refused(provider, restorable, InvalidKey, replace(head, tail_origin=changed.origin), [changed])

    async def test_restore_whose_head_does_not_end_with_its_entries_is_refused(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(3)
        dead = tombstone(0)
        cases: list[tuple[Head, Sequence[Entry], str]] = [
            (head, (), ""),
            (head, entries[:2], ""),
            (head, entries, "o0"),
            (head, entries[1:], ""),
            (replace(head, tail=Position(0, 2)), entries, ""),
            (replace(head, tail_origin="other"), entries, ""),
            (dead, entries, ""),
            (dead, (), "o3"),
            (replace(dead, tail=Position(0, 3)), (), ""),
            (replace(dead, tail_origin="o3"), (), ""),
        ]
        for each in cases:
            await check_refused(provider, restorable, ValueError, *each)


async def check_conflict(
    provider: SessionHistoryProvider,
    restorable: Restorable,
    head: Head,
    entries: Sequence[Entry] = (),
    behind: str = "",
) -> None:
    """Check that a restore is a conflict with the current head and changes nothing."""
    before = await provider.read(COPY)
    with pytest.raises(Conflict) as conflict:
        await restorable.restore(head, entries, behind=behind)
    assert conflict.value.head == (before.head if before else None)
    assert await provider.read(COPY) == before


async def check_refused(
    provider: SessionHistoryProvider,
    restorable: Restorable,
    error: type[Exception] | tuple[type[Exception], ...],
    head: Head,
    entries: Sequence[Entry],
    behind: str = "",
) -> None:
    """Check that a restore raises an error and changes nothing."""
    with pytest.raises(error):
        await restorable.restore(head, entries, behind=behind)
    assert await provider.read(COPY) is None
