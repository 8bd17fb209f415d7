"""Tests of the ability ``Restorable``: logs and tombstones that are written as they were elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from session_history_hooks import Appended, Conflict, Entry, Position, Restorable, SessionHistoryProvider, SessionKey
from session_history_hooks.testing.restorable_logs import (
    BUILDERS,
    COPY,
    FUTURE_US,
    build_mixed,
    check_shown,
    made,
    restore,
    restore_all,
    tombstone,
    upto,
    whole,
)
from session_history_hooks.testing.subject import Connect, Subject, covering, entry, opened, read, require


class RestoringContract(Subject):
    """Copies of logs and tombstones, whole and in pages, and appends that follow."""

    @pytest.fixture
    def restorable(self, provider: SessionHistoryProvider) -> Restorable:
        return require(provider, Restorable)

    @pytest.mark.parametrize("page", [1, 99])
    @pytest.mark.parametrize("kind", BUILDERS)
    async def test_log_is_restored_as_it_was(
        self, provider: SessionHistoryProvider, restorable: Restorable, kind: str, page: int
    ) -> None:
        await BUILDERS[kind](provider)
        head, entries = await whole(provider)
        assert any(await restore_all(restorable, head, entries, page))
        assert await whole(provider, COPY) == (head, entries)
        await check_shown(provider, head)
        assert not any(await restore_all(restorable, head, entries, page)), "a repeated restore writes nothing"
        assert await whole(provider, COPY) == (head, entries)

    async def test_restored_log_is_visible_on_another_connection(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            restorable = require(one, Restorable)
            await build_mixed(one)
            head, entries = await whole(one)
            assert all(await restore_all(restorable, head, entries, 2))
            assert await whole(other, COPY) == (head, entries)
            assert not any(await restore_all(require(other, Restorable), head, entries, 2))

    async def test_interrupted_restore_can_be_repeated_from_any_page(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(6)
        assert await restore(restorable, head, entries, 1, 2) is True
        assert await whole(provider, COPY) == (upto(head, entries, 2), entries[:2])
        assert await restore(restorable, head, entries, 1, 1) is False
        assert await restore(restorable, head, entries, 3, 4) is True
        assert await whole(provider, COPY) == (upto(head, entries, 4), entries[:4])
        assert await restore(restorable, head, entries, 2, 3) is False
        assert await whole(provider, COPY) == (upto(head, entries, 4), entries[:4])
        assert await restore(restorable, head, entries, 3, 5) is True
        assert await restore(restorable, head, entries, 1, 6) is True
        assert await whole(provider, COPY) == (head, entries)
        assert not any(await restore_all(restorable, head, entries, 4))

    async def test_every_page_leaves_the_head_that_it_names(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        _, entries = made(3)
        for seq in (1, 2, 3):
            head = replace(
                made(seq)[0], heartbeat=seq * 7, active_us=seq * 10**15, changed_us=seq * 10**15 + 5, rewrite_id="r"
            )
            assert await restore(restorable, head, entries, seq, seq) is True
            assert (await read(provider, COPY)).head == head
            assert (await provider.list(COPY.user_id, limit=9)).heads == (head,)

    async def test_restored_sessions_are_listed_by_their_own_activity(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        heads = []
        for number, active_us in enumerate([3 * 10**15, 10**15, FUTURE_US, 2 * 10**15]):
            head, entries = made(2, SessionKey(COPY.user_id, f"s{number}"))
            heads.append(replace(head, active_us=active_us, changed_us=FUTURE_US + number))
            await restore(restorable, heads[-1], entries)
        newest_first = tuple(heads[number] for number in (2, 0, 3, 1))
        assert (await provider.list(COPY.user_id, limit=9)).heads == newest_first
        first = await provider.list(COPY.user_id, limit=2)
        rest = await provider.list(COPY.user_id, limit=9, cursor=first.cursor)
        assert first.heads + rest.heads == newest_first

    async def test_append_behind_a_restored_log_goes_on_normally(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(3)
        head = replace(head, tail=Position(5, 3), active_us=FUTURE_US, changed_us=FUTURE_US + 3, heartbeat=4)
        await restore(restorable, head, entries)
        for at in (Position(5, 2), Position(0, 3), Position(6, 0)):
            with pytest.raises(Conflict) as conflict:
                await provider.append(COPY, entry(4), at=at)
            assert conflict.value.head == head
        note = replace(entry(4), bookkeeping=True)
        appended = await provider.append(COPY, note, at=Position(5, 3), tail_origin="o3")
        assert appended == Appended(Position(5, 4), replayed=False)
        noted = (await read(provider, COPY)).head
        assert (noted.active_us, noted.changed_us) == (FUTURE_US, FUTURE_US + 4)
        await provider.append(COPY, entry(5), at=Position(5, 4), snapshot=covering(5))
        after = (await read(provider, COPY)).head
        assert after.active_us == after.changed_us == FUTURE_US + 5
        assert after.current_snapshot == covering(5)
        assert await provider.renew(COPY, at=Position(5, 5), tail_origin="o5") is True
        assert (await read(provider, COPY)).head.heartbeat != after.heartbeat
        assert (await read(provider, COPY)).entries == (*entries, note, entry(5))

    async def test_restored_session_can_be_rewritten_deleted_and_recreated(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(2)
        head = replace(head, tail=Position(3, 2), rewrite_id="r9")
        await restore(restorable, head, entries)
        new = replace(entries[0], payload=b"new")
        rewritten = await provider.rewrite(
            COPY, new, at=Position(3, 1), rewrite_id="r10", last_rewrite_id="r9", snapshot=None
        )
        assert rewritten == replace(head, rewrite_id="r10", snapshot=None)
        assert (await read(provider, COPY)).entries == (new, entries[1])
        assert await provider.delete(COPY) is True
        deleted = (await read(provider, COPY)).head
        assert (deleted.tail, deleted.rewrite_id) == (Position(3, 0), "")
        assert deleted.changed_us > head.changed_us
        assert (await provider.append(COPY, entry(1), at=Position(4, 0))).position == Position(4, 1)
        assert await provider.delete_user(COPY.user_id) == 1

    async def test_restored_ids_and_keys_are_remembered(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head, entries = made(4)
        entries = tuple(replace(each, keys=(f"k{each.id}", f"K{each.id}")) for each in entries)
        await restore_all(restorable, head, entries, 3)
        for number, each in enumerate(entries, start=1):
            for name in (each.id, *each.keys):
                assert (await read(provider, COPY, last=0, entry_id=name)).match == (number, each)
                again = await provider.append(COPY, Entry(name, b"other"), at=Position(0, 4))
                assert again == Appended(Position(0, number), replayed=True)
        with pytest.raises(Conflict) as conflict:
            await provider.append(COPY, Entry("new", b"", keys=("ke4", "new key", "Ke1", "e2")), at=Position(0, 4))
        assert conflict.value.keys == ("ke4", "Ke1", "e2")
        assert await whole(provider, COPY) == (head, entries)

    @pytest.mark.parametrize("page", [1, 2, 99])
    async def test_restored_log_may_have_an_id_twice(
        self, provider: SessionHistoryProvider, restorable: Restorable, page: int
    ) -> None:
        """The source did not remember the older one; the newest entry has the id."""
        head, (first, *between, last) = made(4)
        entries = (replace(first, keys=("k", "e3")), *between, replace(last, id="e1", keys=("k",)))
        await restore_all(restorable, head, entries, page)
        assert await whole(provider, COPY) == (head, entries)
        for name in ("e1", "k"):
            assert (await read(provider, COPY, entry_id=name)).match == (4, entries[3])
            again = await provider.append(COPY, Entry(name, b"other"), at=Position(0, 4))
            assert again == Appended(Position(0, 4), replayed=True)
        assert (await read(provider, COPY, entry_id="e3")).match == (3, entries[2])
        new = replace(entries[0], payload=b"new")
        await provider.rewrite(COPY, new, at=Position(0, 1), rewrite_id="r1", last_rewrite_id="", snapshot=None)
        assert (await read(provider, COPY)).entries == (new, *entries[1:])
        assert await provider.delete(COPY) is True
        assert (await provider.append(COPY, entry(1), at=Position(1, 0))).replayed is False

    async def test_restored_text_is_not_read(self, provider: SessionHistoryProvider, restorable: Restorable) -> None:
        head, entries = made(2)
        assert await restorable.restore(head, [replace(each, text="words") for each in entries]) is True
        log = await read(provider, COPY, entry_id=entries[0].id)
        assert [each.text for each in (*log.entries, log.match[1] if log.match else entries[0])] == [None] * 3

    async def test_tombstone_is_restored_over_one_of_other_times(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        head = tombstone(2)
        assert await restorable.restore(head) is True
        later = replace(head, active_us=head.active_us + 5, changed_us=head.changed_us + 5)
        for each in (later, head):
            assert await restorable.restore(each) is True
            assert (await read(provider, COPY)).head == each
            assert await restorable.restore(each) is False

    async def test_tombstone_is_restored(self, provider: SessionHistoryProvider, restorable: Restorable) -> None:
        head = tombstone(7)
        assert await restorable.restore(head) is True
        assert await restorable.restore(head) is False
        assert await whole(provider, COPY) == (head, ())
        await check_shown(provider, head)
        with pytest.raises(Conflict) as conflict:
            await provider.append(COPY, entry(1), at=Position(7, 0))
        assert conflict.value.head == head
        assert await provider.delete(COPY) is False
        assert (await provider.append(COPY, entry(1), at=Position(8, 0))).position == Position(8, 1)
        assert (await read(provider, COPY)).head.active_us > head.active_us

    async def test_tombstone_or_log_is_restored_over_an_older_tombstone(
        self, provider: SessionHistoryProvider, restorable: Restorable
    ) -> None:
        for generation in (0, 2):
            assert await restorable.restore(tombstone(generation)) is True
            assert (await read(provider, COPY)).head == tombstone(generation)
        head, entries = made(2)
        head = replace(head, tail=Position(3, 2))
        assert await restore(restorable, head, entries) is True
        assert await whole(provider, COPY) == (head, entries)
        await check_shown(provider, head)

    async def test_concurrent_restores_of_one_log_write_it_once(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            restorables = [require(provider, Restorable) for provider in (one, other)]
            head, entries = made(9)
            written = await asyncio.gather(*(restore_all(each, head, entries, 2) for each in restorables * 2))
            for page in zip(*written, strict=True):
                assert any(page)
            assert await whole(one, COPY) == await whole(other, COPY) == (head, entries)
            assert (await one.list(COPY.user_id, limit=9)).heads == (head,)

    async def test_concurrent_restores_of_different_logs_write_one_of_them(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            restorables = [require(provider, Restorable) for provider in (one, other)]
            logs = [made(4, author=author) for author in ("a", "b", "c", "d")]
            outcomes = await asyncio.gather(
                *(restore(each, *log) for each, log in zip(restorables * 2, logs, strict=True)),
                return_exceptions=True,
            )
            assert outcomes.count(True) == 1
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 3
            assert await whole(other, COPY) == logs[outcomes.index(True)]
