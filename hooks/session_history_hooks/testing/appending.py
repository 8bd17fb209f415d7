"""Entries and folds: what an append does, and what it leaves alone."""

from __future__ import annotations

import time

import pytest

from session_history_hooks import Appended, Conflict, Entry, Position, SessionHistoryProvider, SessionKey, Snapshot
from session_history_hooks.testing.subject import KEY, Subject, append, entry, fill, read


class AppendingContract(Subject):
    """Appends, ids and folds."""

    # Appending

    async def test_what_was_never_seen_is_none_and_a_read_does_not_change_that(
        self, provider: SessionHistoryProvider
    ) -> None:
        assert await provider.read(KEY) is None
        assert await provider.read(KEY, last=5, entry_id="e1") is None
        assert (await provider.list(KEY.user_id, limit=5)).heads == ()

    async def test_entries_stand_behind_each_other(self, provider: SessionHistoryProvider) -> None:
        assert await append(provider, 1) == Appended(Position(0, 1), replayed=False)
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)
        log = await read(provider)
        assert log.first == 1
        assert log.entries == (entry(1), entry(2))
        assert (log.head.key, log.head.tail, log.head.tail_id) == (KEY, Position(0, 2), "e2")
        assert (log.head.deleted, log.head.rewrites) == (False, 0)

    @pytest.mark.parametrize("at", [Position(0, 0), Position(0, 1), Position(0, 3), Position(1, 0), Position(1, 2)])
    async def test_another_position_is_a_conflict_that_shows_the_head(
        self, provider: SessionHistoryProvider, at: Position
    ) -> None:
        await fill(provider, 2)
        before = await read(provider)
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, entry(3), at=at)
        assert conflict.value.head == before.head
        assert await read(provider) == before

    @pytest.mark.parametrize("at", [Position(0, 1), Position(1, 0), Position(1, 1)])
    async def test_what_was_never_seen_begins_at_the_beginning(
        self, provider: SessionHistoryProvider, at: Position
    ) -> None:
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, entry(1), at=at)
        assert conflict.value.head is None
        assert await provider.read(KEY) is None

    async def test_an_id_belongs_to_its_session(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        for other in (SessionKey(KEY.user_id, "other"), SessionKey("other", KEY.session_id)):
            assert (await provider.append(other, entry(1), at=Position(0, 0))).replayed is False

    async def test_ids_differ_in_case_and_in_normal_form(self, provider: SessionHistoryProvider) -> None:
        for seq, name in enumerate(["a", "A", "é", "e\u0301", "a ", " a"]):
            appended = await provider.append(KEY, Entry(name, b"x"), at=Position(0, seq))
            assert appended == Appended(Position(0, seq + 1), replayed=False)

    @pytest.mark.parametrize("payload", [b"", bytes(range(256)), b"\0" * 3, b"x" * 3_000_000])
    async def test_a_payload_comes_back_to_the_byte(self, provider: SessionHistoryProvider, payload: bytes) -> None:
        payload = payload[: provider.limits.entry_bytes]
        await provider.append(KEY, Entry("e", payload), at=Position(0, 0))
        assert (await read(provider)).entries[0].payload == payload

    async def test_activity_grows_with_every_append_also_when_the_clock_goes_back(
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

    # Folds

    async def test_a_fold_covers_the_entry_it_came_with(self, provider: SessionHistoryProvider) -> None:
        snapshot = Snapshot(1, "e1", bytes(range(256)))
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=snapshot)
        head = (await read(provider)).head
        assert head.snapshot == head.current_snapshot == snapshot

    async def test_without_a_fold_the_old_one_stays_and_is_stale(self, provider: SessionHistoryProvider) -> None:
        snapshot = Snapshot(1, "e1", b"summary")
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=snapshot)
        await append(provider, 2)
        head = (await read(provider)).head
        assert head.snapshot == snapshot
        assert head.current_snapshot is None

    async def test_a_replay_and_a_conflict_leave_the_fold_alone(self, provider: SessionHistoryProvider) -> None:
        snapshot = Snapshot(1, "e1", b"summary")
        await provider.append(KEY, entry(1), at=Position(0, 0), snapshot=snapshot)
        await provider.append(KEY, entry(1), at=Position(0, 1), snapshot=Snapshot(2, "e1", b"wrong"))
        with pytest.raises(Conflict):
            await provider.append(KEY, entry(2), at=Position(0, 0), snapshot=Snapshot(1, "e2", b"wrong"))
        assert (await read(provider)).head.snapshot == snapshot
