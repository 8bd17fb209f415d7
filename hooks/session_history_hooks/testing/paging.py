"""Tests of the bytes that a page may hold."""

from __future__ import annotations

import pytest

from session_history_hooks import Entry, Position, SessionHistoryProvider
from session_history_hooks.testing.subject import KEY, Subject, read

LARGE_PAGE = 128 * 2**20
"""Bytes of a page that are too many to exceed in a test."""


class PagingContract(Subject):
    """Reads without ``last``, of more bytes than a page holds."""

    async def test_page_holds_no_more_bytes_than_claimed(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        size = limits.page_bytes * 5 // 16
        if size > limits.entry_bytes or limits.page_bytes > LARGE_PAGE:
            pytest.skip(f"{limits.page_bytes:,} bytes of a page are too many to exceed in a test")
        for seq in range(4):
            large = Entry(f"e{seq + 1}", bytes([seq]) * size)
            await provider.append(KEY, large, at=Position(0, seq))
        for after, expected in ((None, [2, 3, 4]), (0, [1, 2, 3]), (2, [3, 4])):
            log = await read(provider, after=after)
            assert (log.first, [each.id for each in log.entries]) == (expected[0], [f"e{seq}" for seq in expected])
            assert [(len(each.payload), each.payload[-1]) for each in log.entries] == [(size, n - 1) for n in expected]
            assert log.head.tail == Position(0, 4)
