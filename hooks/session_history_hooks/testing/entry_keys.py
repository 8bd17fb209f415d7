"""Tests of the keys of entries: further ids, which are checked and remembered like the entry's own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from session_history_hooks import ENTRY_KEYS, Appended, Conflict, Entry, Position, SessionHistoryProvider, SessionKey
from session_history_hooks.testing.subject import KEY, Connect, Subject, append, entry, fill, opened, read, rewrite

SAMPLE = 70
"""Number of entries with which the memory of keys is tested."""


class EntryKeysContract(Subject):
    """Keys that come again, keys that come first, and look-ups by key."""

    async def test_keys_are_stored_and_returned_in_their_order(self, connect: Connect) -> None:
        keyed = with_keys(2, "z", "a", "A", "é", "e\u0301", "a ", " a", "a:b", "k" * 512)
        async with opened(connect) as one, opened(connect) as other:
            await append(one, 1)
            assert await put(one, keyed) == Appended(Position(0, 2), replayed=False)
            for provider in (one, other):
                assert (await read(provider, entry_id="e2")).match == (2, keyed)
                assert (await read(provider)).entries == (entry(1), keyed)

    async def test_as_many_and_as_long_keys_as_possible_are_stored(self, provider: SessionHistoryProvider) -> None:
        keyed = with_keys(1, *(f"{number}é".rjust(511, "k") for number in range(ENTRY_KEYS)))
        await put(provider, keyed)
        assert (await read(provider)).entries == (keyed,)
        claimed = provider.limits.remembered_ids
        if claimed is None or claimed > ENTRY_KEYS:
            assert (await read(provider, last=0, entry_id=keyed.keys[0])).match == (1, keyed)
            assert (await refused(provider, with_keys(2, *reversed(keyed.keys)))).keys == keyed.keys[::-1]

    async def test_append_with_a_stored_key_raises_conflict_with_the_key(
        self, provider: SessionHistoryProvider
    ) -> None:
        await put(provider, with_keys(1, "k1", "k2"))
        before = await read(provider)
        conflict = await refused(provider, with_keys(2, "k2"))
        assert (conflict.head, conflict.keys) == (before.head, ("k2",))
        assert await read(provider) == before
        assert await put(provider, with_keys(2, "K2", "k")) == Appended(Position(0, 2), replayed=False)

    async def test_conflict_has_all_stored_keys_in_the_order_of_the_entry(
        self, provider: SessionHistoryProvider
    ) -> None:
        await put(provider, with_keys(1, "a", "b", "c"))
        await put(provider, with_keys(2, "d"))
        assert (await refused(provider, with_keys(3, "c", "new", "d", "e1", "a", "e2"))).keys == (
            *("c", "d", "e1", "a", "e2"),
        )
        assert (await refused(provider, with_keys(3, "new", "b"))).keys == ("b",)

    async def test_key_that_is_the_id_of_an_entry_raises_conflict(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        assert (await refused(provider, with_keys(3, "e1"))).keys == ("e1",)

    async def test_append_whose_id_is_a_stored_key_is_a_replay(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        await put(provider, with_keys(2, "k2"))
        before = await read(provider)
        for name, seq in (("k1", 1), ("k2", 2)):
            for at in (Position(0, 0), Position(0, 1), Position(0, 2), Position(0, 5)):
                again = await provider.append(KEY, Entry(name, b"other", keys=("other",)), at=at)
                assert again == Appended(Position(0, seq), replayed=True)
        assert await read(provider) == before
        assert (await read(provider, entry_id="other")).match is None

    async def test_append_of_a_stored_id_with_stored_keys_is_a_replay(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        await put(provider, with_keys(2, "k2", "k3"))
        before = await read(provider)
        for again in (with_keys(2, "k2", "k3"), with_keys(2, "k1"), with_keys(2, "new"), with_keys(2)):
            for at in (Position(0, 1), Position(0, 2)):
                assert await provider.append(KEY, again, at=at) == Appended(Position(0, 2), replayed=True)
        assert await read(provider) == before

    async def test_conflict_at_a_wrong_position_has_the_stored_keys(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        await put(provider, with_keys(2, "k2"))
        for seq in (0, 1, 3, 9):
            conflict = await refused(provider, with_keys(3, "new", "k2", "k1"), at=Position(0, seq))
            assert conflict.keys == ("k2", "k1")
            assert (await refused(provider, with_keys(3, "new"), at=Position(0, seq))).keys == ()
        behind_another = await refused(provider, with_keys(3, "k1"), at=Position(0, 2), tail_origin="other")
        assert behind_another.keys == ("k1",)

    async def test_conflict_of_another_generation_has_no_keys(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        for at in (Position(1, 0), Position(1, 1), Position(2, 1)):
            assert (await refused(provider, with_keys(2, "k1"), at=at)).keys == ()
        await provider.delete(KEY)
        for at in (Position(0, 0), Position(0, 1)):
            assert (await refused(provider, with_keys(2, "k1"), at=at)).keys == ()
        await put(provider, with_keys(1, "k1"), at=Position(1, 0))
        for at in (Position(0, 0), Position(0, 1), Position(2, 0)):
            assert (await refused(provider, with_keys(2, "k1"), at=at)).keys == ()

    async def test_keys_are_forgotten_with_their_generation(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1", "k2"))
        await provider.delete(KEY)
        assert (await read(provider, entry_id="k1")).match is None
        begun = await put(provider, with_keys(2, "k2", "e1"), at=Position(1, 0))
        assert begun == Appended(Position(1, 1), replayed=False)
        assert (await read(provider, entry_id="k1")).match is None
        again = await put(provider, Entry("k1", b"x"), at=Position(1, 1))
        assert again == Appended(Position(1, 2), replayed=False)

    async def test_same_key_in_another_session_is_stored(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        for other in (SessionKey(KEY.user_id, "other"), SessionKey("other", KEY.session_id)):
            appended = await provider.append(other, with_keys(1, "k1"), at=Position(0, 0))
            assert appended == Appended(Position(0, 1), replayed=False)

    async def test_refused_entry_leaves_no_key(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        await refused(provider, with_keys(2, "new", "k1"))
        await refused(provider, with_keys(3, "newer"), at=Position(0, 0))
        for name in ("e2", "new", "e3", "newer"):
            assert (await read(provider, entry_id=name)).match is None
        assert await put(provider, with_keys(2, "new", "newer")) == Appended(Position(0, 2), replayed=False)

    async def test_key_is_matched_by_reads(self, provider: SessionHistoryProvider) -> None:
        entries = [with_keys(1, "k1", "k2"), entry(2), with_keys(3, "k3")]
        for each in entries:
            await put(provider, each)
        for name, seq in {"k1": 1, "k2": 1, "e1": 1, "e2": 2, "k3": 3, "e3": 3}.items():
            for last in (0, 1, 3):
                assert (await read(provider, last=last, entry_id=name)).match == (seq, entries[seq - 1])
        assert (await read(provider, entry_id="K1")).match is None

    async def test_rewrite_keeps_the_keys(self, provider: SessionHistoryProvider) -> None:
        keyed = replace(with_keys(1, "k1", "k2"), bookkeeping=True)
        await put(provider, keyed)
        await rewrite(provider, 1, b"new")
        new = replace(keyed, payload=b"new")
        assert (await read(provider)).entries == (new,)
        assert (await read(provider, entry_id="k2")).match == (1, new)
        assert (await refused(provider, with_keys(2, "k2"))).keys == ("k2",)
        assert (await put(provider, Entry("k1", b""))).replayed is True

    async def test_keys_of_a_rewritten_entry_are_not_added(self, provider: SessionHistoryProvider) -> None:
        await put(provider, with_keys(1, "k1"))
        other = replace(with_keys(1, "k2"), payload=b"new")
        await provider.rewrite(KEY, other, at=Position(0, 1), rewrite_id="r1", last_rewrite_id="", snapshot=None)
        assert (await read(provider, entry_id="k2")).match is None
        assert (await read(provider)).entries == (replace(with_keys(1, "k1"), payload=b"new"),)

    async def test_ids_and_keys_are_remembered_together_as_far_as_claimed(
        self, provider: SessionHistoryProvider
    ) -> None:
        limits = provider.limits
        count = min(SAMPLE, limits.entries - 1)
        entries = [with_keys(number, *(f"k{number}.{part}" for part in range(3))) for number in range(1, count + 1)]
        for each in entries:
            await put(provider, each)
        claimed = count if limits.remembered_ids is None else min(limits.remembered_ids // 4, count)
        before = await read(provider, last=0)
        for each in entries[count - claimed :]:
            number = entries.index(each) + 1
            assert (await refused(provider, Entry("new", b"", keys=each.keys))).keys == each.keys
            assert await put(provider, each) == Appended(Position(0, number), replayed=True)
            assert (await read(provider, last=0, entry_id=each.keys[2])).match == (number, each)
        assert await read(provider, last=0) == before

    async def test_retry_with_keys_is_a_replay_on_every_connection(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await put(one, with_keys(1, "k1"))
            await put(one, with_keys(2, "k2"), at=Position(0, 1))  # Its author never gets the answer.
            await put(other, with_keys(3, "k3"), at=Position(0, 2))
            for provider in (one, other):
                again = await put(provider, with_keys(2, "k2"), at=Position(0, 1))
                assert again == Appended(Position(0, 2), replayed=True)
                assert (await refused(provider, with_keys(4, "k2"))).keys == ("k2",)

    async def test_concurrent_appends_with_the_same_key_store_one(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            for seq in range(5):
                at, key = Position(0, seq), f"key {seq}"
                rivals = [Entry(f"r{seq}.{number}", b"", keys=("x", key)[1:]) for number in range(8)]
                outcomes = await asyncio.gather(
                    *(
                        provider.append(KEY, rival, at=at)
                        for provider, rival in zip([one, other] * 4, rivals, strict=True)
                    ),
                    return_exceptions=True,
                )
                conflicts = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
                assert [outcome for outcome in outcomes if not isinstance(outcome, BaseException)] == [
                    Appended(Position(0, seq + 1), replayed=False)
                ]
                assert [conflict.keys for conflict in conflicts] == [(key,)] * 7
                assert {each.head.tail.seq for each in conflicts if each.head} == {seq + 1}

    async def test_key_that_is_delivered_twice_is_stored_once(self, connect: Connect) -> None:
        """Each of two authors retries behind the current tail, until its key is there."""
        async with opened(connect) as one, opened(connect) as other:
            await asyncio.gather(*(self._deliver(each, who) for each, who in ((one, "a"), (other, "b"))))
            stored = [key for each in (await read(one, last=99)).entries for key in each.keys]
        assert sorted(stored) == sorted(f"message {number}" for number in range(12))

    @staticmethod
    async def _deliver(provider: SessionHistoryProvider, author: str) -> None:
        at = Position(0, 0)
        for number in range(12):
            delivered = Entry(f"{author}{number}", b"", keys=(f"message {number}",))
            while True:
                found = (await asyncio.gather(provider.append(KEY, delivered, at=at), return_exceptions=True))[0]
                if isinstance(found, Appended):
                    at = found.position
                    break
                assert isinstance(found, Conflict)
                assert found.head is not None
                at = found.head.tail
                if found.keys:
                    assert found.keys == delivered.keys
                    break


def with_keys(number: int, *keys: str) -> Entry:
    """Entry ``number`` with keys."""
    return replace(entry(number), keys=keys)


async def put(provider: SessionHistoryProvider, new: Entry, at: Position | None = None) -> Appended:
    """Append an entry, at the current tail if no position is given."""
    return await provider.append(KEY, new, at=at or await tail(provider))


async def refused(
    provider: SessionHistoryProvider, new: Entry, at: Position | None = None, tail_origin: str | None = None
) -> Conflict:
    """Return the conflict of an append, at the current tail if no position is given."""
    with pytest.raises(Conflict) as conflict:
        await provider.append(KEY, new, at=at or await tail(provider), tail_origin=tail_origin)
    return conflict.value


async def tail(provider: SessionHistoryProvider) -> Position:
    log = await provider.read(KEY, last=0)
    return log.head.tail if log else Position(0, 0)
