"""Tests of reads."""

from __future__ import annotations

from copy import deepcopy
from itertools import product

import pytest

from session_history_hooks import Conflict, Position, SessionHistoryProvider, select_seqs
from session_history_hooks.testing.subject import KEY, Subject, append, covering, entry, fill, read, rewrite


class ReadingContract(Subject):
    """Ranges, look-ups by id, and returned values."""

    async def test_read_returns_the_selected_seqs(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 5)
        marks = [None, 0, 1, 3, 5, 6, 9]
        for last, before, after in product([None, 0, 1, 2, 5, 9], marks, marks):
            log = await read(provider, last=last, before=before, after=after)
            expected = select_seqs(5, provider.limits.page, last=last, before=before, after=after)
            assert log.entries == tuple(entry(seq) for seq in expected), (last, before, after)
            assert log.first == (expected[0] if expected else 6)
            assert log.head.tail == Position(0, 5)

    async def test_entry_id_is_matched_inside_and_outside_the_range(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 4)
        assert (await read(provider, last=0, entry_id="e2")).match == (2, entry(2))
        assert (await read(provider, last=4, entry_id="e4")).match == (4, entry(4))
        assert (await read(provider, last=1, entry_id="e9")).match is None
        assert (await read(provider, last=1)).match is None

    async def test_returned_values_never_change(self, provider: SessionHistoryProvider) -> None:
        await append(provider, 1, covering(1))
        await append(provider, 2, covering(2))
        with pytest.raises(Conflict) as conflict:
            await append(provider, 4)
        returned = [await read(provider), await read(provider, last=0, entry_id="e1")]
        heads = [conflict.value.head, *(await provider.list(KEY.user_id, limit=9)).heads]
        heads.append(await rewrite(provider, 1, snapshot=covering(2)))
        before = deepcopy((returned, heads))
        await append(provider, 3, covering(3))
        await provider.renew(KEY, at=Position(0, 3))
        await rewrite(provider, 1, b"newer", rewrite_id="r2", last="r1")
        await provider.delete(KEY)
        await provider.append(KEY, entry(1), at=Position(1, 0))
        await read(provider)
        assert (returned, heads) == before

    async def test_returned_values_have_the_declared_types(self, provider: SessionHistoryProvider) -> None:
        await append(provider, 1, covering(1))
        log = await read(provider, entry_id="e1")
        page = await provider.list(KEY.user_id, limit=9)
        assert (type(log.entries), type(log.match), type(page.heads)) == (tuple, tuple, tuple)
        assert log.match is not None
        assert log.head.snapshot is not None
        for each in (log.entries[0], log.match[1]):
            assert (type(each.id), type(each.payload), type(each.origin)) == (str, bytes, str)
            assert (type(each.keys), type(each.bookkeeping)) == (tuple, bool)
        assert type(log.head.snapshot.summary) is bytes
        assert (type(log.head.active_us), type(log.head.changed_us)) == (int, int)
        assert (type(log.head.tail_origin), type(log.head.rewrite_id)) == (str, str)
