"""Tests of appends: entries, ids and snapshots."""

from __future__ import annotations

import time

import pytest

from session_history_hooks import Appended, Conflict, Entry, Position, SessionHistoryProvider, SessionKey, Snapshot
from session_history_hooks.testing.subject import KEY, Subject, append, entry, fill, read


class AppendingContract(Subject):
    """Appends, ids and snapshots."""

    async def test_read_of_unseen_session_returns_none_and_creates_nothing(
        self, provider: SessionHistoryProvider
    ) -> None:
        assert await provider.read(KEY) is None
        assert await provider.read(KEY, last=5, entry_id="e1") is None
        assert (await provider.list(KEY.user_id, limit=5)).heads == ()

    async def test_append_at_the_tail_returns_the_next_position(self, provider: SessionHistoryProvider) -> None:
        assert await append(provider, 1) == Appended(Position(0, 1), replayed=False)
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)
        log = await read(provider)
        assert log.first == 1
        assert log.entries == (entry(1), entry(2))
        assert (log.head.key, log.head.tail, log.head.tail_origin) == (KEY, Position(0, 2), "o2")
        assert (log.head.deleted, log.head.rewrite_id) == (False, "")

    @pytest.mark.parametrize("at", [Position(0, 0), Position(0, 1), Position(0, 3), Position(1, 0), Position(1, 2)])
    async def test_append_at_another_position_raises_conflict_with_the_head(
        self, provider: SessionHistoryProvider, at: Position
    ) -> None:
        await fill(provider, 2)
        before = await read(provider)
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, entry(3), at=at)
        assert conflict.value.head == before.head
        assert await read(provider) == before

    @pytest.mark.parametrize("at", [Position(0, 1), Position(1, 0), Position(1, 1)])
    async def test_first_append_at_another_position_raises_conflict(
        self, provider: SessionHistoryProvider, at: Position
    ) -> None:
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, entry(1), at=at)
        assert conflict.value.head is None
        assert await provider.read(KEY) is None

    async def test_same_id_in_another_session_is_not_a_replay(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        for other in (SessionKey(KEY.user_id, "other"), SessionKey("other", KEY.session_id)):
            assert (await provider.append(other, entry(1), at=Position(0, 0))).replayed is False

    async def test_ids_that_differ_in_case_or_normal_form_are_different(self, provider: SessionHistoryProvider) -> None:
        for seq, name in enumerate(["a", "A", "é", "e\u0301", "a ", " a"]):
            appended = await provider.append(KEY, Entry(name, b"x"), at=Position(0, seq))
            assert appended == Appended(Position(0, seq + 1), replayed=False)

    @pytest.mark.parametrize("payload", [b"", bytes(range(256)), b"\0" * 3, b"x" * 3_000_000])
    async def test_payload_is_returned_byte_for_byte(self, provider: SessionHistoryProvider, payload: bytes) -> None:
        payload = payload[: provider.limits.entry_bytes]
        await provider.append(KEY, Entry("e", payload), at=Position(0, 0))
        assert (await read(provider)).entries[0].payload == payload

    async def test_activity_grows_with_each_append_even_if_the_clock_goes_back(
        self, provider: SessionHistoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        for number in range(1, 6):
            await append(provider, number)
            seen.append((await read(provider)).head.active_us)
            if number == 2:
                monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
        await provider.delete(KEY)
        seen.append((await read(provider)).head.active_us)
        assert seen == sorted(set(seen))

    async def test_snapshot_of_an_append_covers_its_entry(self, provider: SessionHistoryProvider) -> None:
        snapshot = Snapshot(1, "o1", bytes(range(256)))
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=snapshot)
        head = (await read(provider)).head
        assert head.snapshot == head.current_snapshot == snapshot

    async def test_append_without_snapshot_leaves_a_stale_snapshot(self, provider: SessionHistoryProvider) -> None:
        snapshot = Snapshot(1, "o1", b"summary")
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=snapshot)
        await append(provider, 2)
        head = (await read(provider)).head
        assert head.snapshot == snapshot
        assert head.current_snapshot is None

    async def test_replay_and_conflict_do_not_change_the_snapshot(self, provider: SessionHistoryProvider) -> None:
        snapshot = Snapshot(1, "o1", b"summary")
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=snapshot)
        await provider.append(KEY, entry(1), at=Position(0, 1), snapshot=Snapshot(2, "o1", b"wrong"))
        with pytest.raises(Conflict):
            await provider.append(KEY, entry(2), at=Position(0, 0), snapshot=Snapshot(1, "o2", b"wrong"))
        assert (await read(provider)).head.snapshot == snapshot
