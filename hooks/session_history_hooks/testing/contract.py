"""What every provider must do, one test a promise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from itertools import pairwise, product

import pytest
import pytest_asyncio

from session_history_hooks import (
    Appended,
    Conflict,
    Durability,
    Entry,
    Fold,
    Head,
    InvalidCursor,
    LimitExceeded,
    Log,
    Position,
    SessionHistoryProvider,
    SessionKey,
    stretch,
)

Connect = Callable[[], SessionHistoryProvider]
"""Makes a provider that is not started, on one and the same store each time it is called."""

KEY = SessionKey("user", "session")

NEIGHBOURS = [
    SessionKey("a", "b:c"),
    SessionKey("a:b", "c"),
    SessionKey("a", "b/c"),
    SessionKey("a/b", "c"),
    SessionKey("a", "*"),
    SessionKey("*", "a"),
    SessionKey("a%", "_"),
    SessionKey("a", "%"),
    SessionKey("a'", '"'),
    SessionKey("a\n", "\t b"),
    SessionKey("a", "é"),
    SessionKey("a", "e\u0301"),
    SessionKey("A", "e\u0301"),
    SessionKey("{a}", "[b]"),
    SessionKey("会话", "历史"),
    SessionKey("u" * 512, "s" * 512),
]
"""Keys that a store may take for one another."""


class ProviderContract:
    """The contract of :class:`~session_history_hooks.SessionHistoryProvider`."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def connect(self) -> Connect:
        raise NotImplementedError("a subclass says how to connect to its provider's store")

    @pytest_asyncio.fixture
    async def provider(self, connect: Connect) -> AsyncIterator[SessionHistoryProvider]:
        opened = connect()
        await opened.start()
        yield opened
        await opened.stop()

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
        assert (log.head.deleted, log.head.edits) == (False, 0)

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

    @pytest.mark.parametrize("at", [Position(0, 0), Position(0, 1), Position(0, 3), Position(0, 7)])
    @pytest.mark.parametrize("repeated", [1, 2, 3])
    async def test_an_id_is_stored_once(self, provider: SessionHistoryProvider, repeated: int, at: Position) -> None:
        await fill(provider, 3)
        before = await read(provider)
        again = Entry(f"e{repeated}", b"other")
        assert await provider.append(KEY, again, at=at) == Appended(Position(0, repeated), replayed=True)
        assert await read(provider) == before

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
        fold = Fold(1, "e1", bytes(range(256)))
        await provider.append(KEY, entry(1), at=Position(0, 0), fold=fold)
        head = (await read(provider)).head
        assert head.fold == head.folded == fold

    async def test_without_a_fold_the_old_one_stays_and_is_stale(self, provider: SessionHistoryProvider) -> None:
        fold = Fold(1, "e1", b"card")
        await provider.append(KEY, entry(1), at=Position(0, 0), fold=fold)
        await append(provider, 2)
        head = (await read(provider)).head
        assert head.fold == fold
        assert head.folded is None

    async def test_a_replay_and_a_conflict_leave_the_fold_alone(self, provider: SessionHistoryProvider) -> None:
        fold = Fold(1, "e1", b"card")
        await provider.append(KEY, entry(1), at=Position(0, 0), fold=fold)
        await provider.append(KEY, entry(1), at=Position(0, 1), fold=Fold(2, "e1", b"wrong"))
        with pytest.raises(Conflict):
            await provider.append(KEY, entry(2), at=Position(0, 0), fold=Fold(1, "e2", b"wrong"))
        assert (await read(provider)).head.fold == fold

    # Reading

    async def test_every_stretch(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 5)
        marks = [None, 0, 1, 3, 5, 6, 9]
        for last, before, after in product([None, 0, 1, 2, 5, 9], marks, marks):
            log = await read(provider, last=last, before=before, after=after)
            expected = stretch(5, provider.limits.page, last=last, before=before, after=after)
            assert log.entries == tuple(entry(seq) for seq in expected), (last, before, after)
            assert log.first == (expected[0] if expected else 6)
            assert log.head.tail == Position(0, 5)

    async def test_an_entry_is_found_by_id_also_outside_the_stretch(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 4)
        assert (await read(provider, last=0, entry_id="e2")).found == (2, entry(2))
        assert (await read(provider, last=4, entry_id="e4")).found == (4, entry(4))
        assert (await read(provider, last=1, entry_id="e9")).found is None
        assert (await read(provider, last=1)).found is None

    async def test_a_read_without_a_number_is_a_page(self, provider: SessionHistoryProvider) -> None:
        page = provider.limits.page
        await fill(provider, page + 2)
        newest = await read(provider)
        assert (newest.first, len(newest.entries)) == (3, page)
        oldest = await read(provider, after=0)
        assert (oldest.first, len(oldest.entries)) == (1, page)
        assert oldest.entries[-1] == entry(page)

    # Deleting

    async def test_a_tombstone_has_no_content(self, provider: SessionHistoryProvider) -> None:
        await provider.append(KEY, entry(1), at=Position(0, 0), fold=Fold(1, "e1", b"card"))
        active_us = (await read(provider)).head.active_us
        assert await provider.delete(KEY) is True
        log = await read(provider, entry_id="e1")
        assert (log.head.deleted, log.head.tail, log.head.tail_id) == (True, Position(0, 0), "")
        assert (log.head.fold, log.entries, log.found) == (None, (), None)
        assert log.head.active_us > active_us

    async def test_deleting_nothing(self, provider: SessionHistoryProvider) -> None:
        assert await provider.delete(KEY) is False
        assert await provider.read(KEY) is None
        await fill(provider, 1)
        assert await provider.delete(KEY) is True
        assert await provider.delete(KEY) is False

    @pytest.mark.parametrize("at", [Position(0, 0), Position(0, 1), Position(0, 2), Position(1, 1), Position(2, 0)])
    async def test_a_deleted_session_takes_nothing_from_its_old_life(
        self, provider: SessionHistoryProvider, at: Position
    ) -> None:
        await fill(provider, 2)
        await provider.delete(KEY)
        before = await read(provider)
        for late in (entry(1), entry(3)):
            with pytest.raises(Conflict) as conflict:
                await provider.append(KEY, late, at=at)
            assert conflict.value.head == before.head
        assert await read(provider) == before

    async def test_a_new_life_is_a_new_generation(self, provider: SessionHistoryProvider) -> None:
        for generation in range(3):
            begun = await provider.append(KEY, entry(1), at=Position(generation, 0))
            assert begun == Appended(Position(generation, 1), replayed=False)
            assert (await read(provider)).entries == (entry(1),)
            assert (await read(provider)).head.fold is None
            await provider.delete(KEY)
        assert (await read(provider)).head.tail == Position(2, 0)

    async def test_an_append_to_an_old_generation_is_a_conflict_though_the_id_is_known(
        self, provider: SessionHistoryProvider
    ) -> None:
        await fill(provider, 1)
        await provider.delete(KEY)
        await provider.append(KEY, entry(1), at=Position(1, 0))
        for at in (Position(0, 0), Position(0, 1)):
            with pytest.raises(Conflict):
                await provider.append(KEY, entry(1), at=at)

    async def test_deleting_a_user(self, provider: SessionHistoryProvider) -> None:
        mine = [SessionKey("user", name) for name in ("a", "b", "c")]
        for key in [*mine, SessionKey("user2", "a"), SessionKey("%", "a"), SessionKey("*", "a")]:
            await provider.append(key, entry(1), at=Position(0, 0))
        await provider.delete(mine[0])
        assert await provider.delete_user("user") == 2
        assert await provider.delete_user("user") == 0
        assert await provider.delete_user("nobody") == 0
        assert (await provider.list("user", limit=9)).heads == ()
        for user in ("user2", "%", "*"):
            assert len((await provider.list(user, limit=9)).heads) == 1
        assert await provider.delete_user("*") == 1
        assert len((await provider.list("%", limit=9)).heads) == 1

    # Leases and rewriting

    async def test_a_beat_moves_the_head_and_not_the_log(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        before = await read(provider)
        assert await provider.renew(KEY, at=Position(0, 2)) is True
        after = await read(provider)
        assert after.head.beat != before.head.beat
        assert (after.entries, after.head.tail) == (before.entries, before.head.tail)
        for at in (Position(0, 1), Position(0, 3), Position(1, 2)):
            assert await provider.renew(KEY, at=at) is False
        assert await read(provider) == after

    async def test_nothing_beats_where_nothing_lives(self, provider: SessionHistoryProvider) -> None:
        assert await provider.renew(KEY, at=Position(0, 0)) is False
        assert await provider.read(KEY) is None
        await fill(provider, 1)
        await provider.delete(KEY)
        assert await provider.renew(KEY, at=Position(0, 0)) is False

    async def test_a_rewrite_replaces_one_payload(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 3)
        new = Entry("e2", b"erased")
        head = await provider.rewrite(KEY, new, at=Position(0, 2), edits=0, fold=Fold(3, "e3", b"card"))
        log = await read(provider, entry_id="e2")
        assert log.entries == (entry(1), new, entry(3))
        assert log.found == (2, new)
        assert log.head == head
        assert (head.edits, head.folded) == (1, Fold(3, "e3", b"card"))
        assert (await provider.rewrite(KEY, new, at=Position(0, 2), edits=1, fold=None)).fold is None

    @pytest.mark.parametrize(
        ("name", "at", "edits"),
        [
            ("e2", Position(0, 2), 1),
            ("e2", Position(0, 1), 0),
            ("e9", Position(0, 2), 0),
            ("e2", Position(0, 9), 0),
            ("e2", Position(1, 2), 0),
        ],
    )
    async def test_a_rewrite_of_something_else_is_a_conflict(
        self, provider: SessionHistoryProvider, name: str, at: Position, edits: int
    ) -> None:
        await fill(provider, 3)
        before = await read(provider)
        with pytest.raises(Conflict):
            await provider.rewrite(KEY, Entry(name, b"new"), at=at, edits=edits, fold=None)
        assert await read(provider) == before

    async def test_what_is_not_there_can_not_be_rewritten(self, provider: SessionHistoryProvider) -> None:
        with pytest.raises(Conflict) as conflict:
            await provider.rewrite(KEY, entry(1), at=Position(0, 1), edits=0, fold=None)
        assert conflict.value.head is None
        await fill(provider, 1)
        await provider.delete(KEY)
        with pytest.raises(Conflict):
            await provider.rewrite(KEY, entry(1), at=Position(0, 1), edits=0, fold=None)

    # Limits

    async def test_what_is_too_large_is_refused_and_leaves_nothing(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        too_large = Entry("e1", bytes(limits.entry_bytes + 1))
        too_wide = Fold(1, "e1", bytes(limits.card_bytes + 1))
        with pytest.raises(LimitExceeded, match="entry bytes"):
            await provider.append(KEY, too_large, at=Position(0, 0))
        with pytest.raises(LimitExceeded, match="card bytes"):
            await provider.append(KEY, entry(1), at=Position(0, 0), fold=too_wide)
        assert await provider.read(KEY) is None
        await fill(provider, 1)
        with pytest.raises(LimitExceeded):
            await provider.rewrite(KEY, too_large, at=Position(0, 1), edits=0, fold=None)
        assert (await read(provider)).entries == (entry(1),)

    async def test_what_is_just_not_too_large_is_stored(self, provider: SessionHistoryProvider) -> None:
        limits = provider.limits
        largest = Entry("e1", b"\xff" * limits.entry_bytes)
        fold = Fold(1, "e1", b"\xff" * limits.card_bytes)
        await provider.append(KEY, largest, at=Position(0, 0), fold=fold)
        log = await read(provider)
        assert log.entries == (largest,)
        assert log.head.fold == fold

    # Keys

    async def test_keys_that_look_alike_are_different(self, provider: SessionHistoryProvider) -> None:
        for number, key in enumerate(NEIGHBOURS):
            appended = await provider.append(key, entry(number), at=Position(0, 0))
            assert appended == Appended(Position(0, 1), replayed=False), key
        for number, key in enumerate(NEIGHBOURS):
            assert (await read(provider, key)).entries == (entry(number),)
        for user in {key.user_id for key in NEIGHBOURS}:
            listed = {head.key for head in (await provider.list(user, limit=99)).heads}
            assert listed == {key for key in NEIGHBOURS if key.user_id == user}

    async def test_deleting_one_of_them_leaves_the_others(self, provider: SessionHistoryProvider) -> None:
        for number, key in enumerate(NEIGHBOURS):
            await provider.append(key, entry(number), at=Position(0, 0))
        for number, key in enumerate(NEIGHBOURS):
            assert await provider.delete(key) is True
            alive = [other for other in NEIGHBOURS if not (await read(provider, other)).head.deleted]
            assert alive == NEIGHBOURS[number + 1 :]

    # Listing

    async def test_the_newest_activity_comes_first(self, provider: SessionHistoryProvider) -> None:
        keys = await begin(provider, 5)
        await provider.append(keys[1], entry(2), at=Position(0, 1))
        await provider.delete(keys[3])
        page = await provider.list(KEY.user_id, limit=9)
        assert [head.key for head in page.heads] == [keys[1], keys[4], keys[2], keys[0]]
        assert page.cursor is None
        for head in page.heads:
            assert head == (await read(provider, head.key)).head

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
    async def test_a_walk_shows_every_session_once(self, provider: SessionHistoryProvider, limit: int) -> None:
        keys = await begin(provider, 7)
        pages = await walk(provider, limit)
        assert [key for page in pages for key in page] == keys[::-1]
        assert all(len(page) == limit for page in pages[:-1])

    async def test_a_touched_session_shows_at_most_once_and_the_others_exactly_once(
        self, provider: SessionHistoryProvider
    ) -> None:
        keys = await begin(provider, 9)
        first = await provider.list(KEY.user_id, limit=4)
        seen, unseen = first.heads[1].key, keys[0]
        await provider.append(seen, entry(2), at=Position(0, 1))
        await provider.append(unseen, entry(2), at=Position(0, 1))
        await provider.delete(keys[1])
        await provider.append(SessionKey(KEY.user_id, "new"), entry(1), at=Position(0, 0))
        rest = [key for page in await walk(provider, 4, cursor=first.cursor) for key in page]
        shown = [head.key for head in first.heads] + rest
        assert len(shown) == len(set(shown))
        assert set(keys) - {seen, unseen, keys[1]} <= set(shown)

    async def test_a_session_that_lived_twice_is_listed_once(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        await provider.delete(KEY)
        await provider.append(KEY, entry(2), at=Position(1, 0))
        assert [head.tail for head in (await provider.list(KEY.user_id, limit=9)).heads] == [Position(1, 1)]

    async def test_a_cursor_never_leads_to_another_user(self, provider: SessionHistoryProvider) -> None:
        await begin(provider, 3)
        other = SessionKey("other", "theirs")
        await provider.append(other, entry(1), at=Position(0, 0))
        cursor = (await provider.list(KEY.user_id, limit=1)).cursor
        assert cursor is not None
        assert {head.key for head in (await provider.list("other", limit=9, cursor=cursor)).heads} <= {other}

    @pytest.mark.parametrize("cursor", ["", " ", "x", "e30=", "bnVsbA==", "WzEsMl0=", "'; --", "\0", "é", "A" * 5000])
    async def test_what_is_no_cursor_is_refused(self, provider: SessionHistoryProvider, cursor: str) -> None:
        await begin(provider, 2)
        with pytest.raises(InvalidCursor):
            await provider.list(KEY.user_id, limit=1, cursor=cursor)

    # Several at once

    async def test_one_of_many_wins_a_position(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 1)
        rivals = [provider.append(KEY, entry(number), at=Position(0, 1)) for number in range(2, 34)]
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert won == [Appended(Position(0, 2), replayed=False)]
        assert len(lost) == len(outcomes) - 1
        log = await read(provider)
        assert len(log.entries) == 2
        assert all(conflict.head == log.head for conflict in lost)

    async def test_an_id_sent_many_times_at_once_is_stored_once(self, provider: SessionHistoryProvider) -> None:
        outcomes = await asyncio.gather(*(provider.append(KEY, entry(1), at=Position(0, 0)) for _ in range(16)))
        assert {outcome.position for outcome in outcomes} == {Position(0, 1)}
        assert [outcome.replayed for outcome in outcomes].count(False) <= 1
        assert (await read(provider)).entries == (entry(1),)

    async def test_writers_on_several_connections_lose_nothing(self, connect: Connect) -> None:
        providers = [connect() for _ in range(3)]
        for each in providers:
            await each.start()
        names = [f"w{writer}.{number}" for writer in range(6) for number in range(8)]
        await asyncio.gather(
            *(insist(providers[writer % 3], [f"w{writer}.{number}" for number in range(8)]) for writer in range(6))
        )
        log = await read(providers[0], last=len(names) + 1)
        stored = [each.id for each in log.entries]
        assert sorted(stored) == sorted(names)
        for writer in range(6):
            assert [name for name in stored if name.startswith(f"w{writer}.")] == names[writer * 8 : writer * 8 + 8]
        for each in providers:
            await each.stop()

    async def test_what_is_acknowledged_is_seen_on_another_connection(self, connect: Connect) -> None:
        one, other = connect(), connect()
        await one.start()
        await other.start()
        for number in range(1, 11):
            await append(one, number)
            assert (await read(other)).head.tail == Position(0, number)
            assert (await read(other, last=1)).entries == (entry(number),)
        await one.stop()
        await other.stop()

    async def test_a_reader_never_sees_half_an_append(self, provider: SessionHistoryProvider) -> None:
        if not provider.limits.atomic_head:
            pytest.skip("the provider does not claim that head and entry appear together")

        async def look() -> None:
            while len(seen) < 40:
                log = await provider.read(KEY, entry_id="e1")
                if log is not None:
                    assert len(log.entries) == log.head.tail.seq
                    assert log.entries[-1].id == log.head.tail_id
                    assert log.found == (1, entry(1))
                await asyncio.sleep(0)

        seen: list[int] = []
        looking = asyncio.create_task(look())
        for number in range(1, 41):
            await append(provider, number)
            seen.append(number)
        await looking

    async def test_the_event_loop_goes_on(self, provider: SessionHistoryProvider) -> None:
        async def tick() -> None:
            while True:
                ticks.append(time.perf_counter())
                await asyncio.sleep(0.001)

        ticks: list[float] = []
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        for number in range(1, 21):
            await append(provider, number)
            await read(provider)
            await asyncio.sleep(0.002)
        ticking.cancel()
        gaps = sorted(later - earlier for earlier, later in pairwise(ticks))
        assert gaps[len(gaps) // 2] < 0.02, "calls of the provider block the event loop"

    async def test_a_cancelled_append_is_there_or_not(self, provider: SessionHistoryProvider) -> None:
        for number in range(1, 21):
            task = asyncio.create_task(append(provider, number))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await provider.read(KEY)
            # Tried again at the same place, it is found or stored.
            assert (await append(provider, number)).position == Position(0, number)
        assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 21))

    # Life cycle

    async def test_starting_and_stopping_twice(self, connect: Connect) -> None:
        provider = connect()
        await provider.start()
        await provider.start()
        assert await provider.health() is True
        await fill(provider, 1)
        await provider.stop()
        await provider.stop()
        assert await provider.health() is False

    async def test_what_is_acknowledged_outlives_the_connection(self, connect: Connect) -> None:
        first = connect()
        if first.limits.durability is Durability.PROCESS:
            pytest.skip("the provider claims nothing beyond the process")
        await first.start()
        await fill(first, 3)
        await first.delete(SessionKey("user", "never"))
        before = await read(first)
        await first.stop()
        second = connect()
        await second.start()
        assert await read(second) == before
        assert await append(second, 4) == Appended(Position(0, 4), replayed=False)
        await second.stop()

    async def test_event_loops_in_turn(self, connect: Connect) -> None:
        provider = connect()
        await provider.start()
        for number in range(1, 4):
            await asyncio.to_thread(asyncio.run, append(provider, number))
        assert (await read(provider)).head.tail == Position(0, 3)
        await asyncio.to_thread(asyncio.run, provider.stop())

    async def test_no_payload_in_a_repr(self, provider: SessionHistoryProvider) -> None:
        secret = b"hunter2"
        await provider.append(KEY, Entry("e1", secret), at=Position(0, 0), fold=Fold(1, "e1", secret))
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, Entry("e2", secret), at=Position(0, 0))
        for shown in (await read(provider), conflict.value, provider):
            assert "hunter2" not in repr(shown) + str(shown)


def entry(number: int) -> Entry:
    return Entry(f"e{number}", f"payload {number}".encode())


async def append(provider: SessionHistoryProvider, number: int) -> Appended:
    """Append entry ``number`` to a log that has one less."""
    return await provider.append(KEY, entry(number), at=Position(0, number - 1))


async def fill(provider: SessionHistoryProvider, count: int) -> None:
    for number in range(1, count + 1):
        await append(provider, number)


async def read(
    provider: SessionHistoryProvider,
    key: SessionKey = KEY,
    *,
    last: int | None = None,
    before: int | None = None,
    after: int | None = None,
    entry_id: str | None = None,
) -> Log:
    log = await provider.read(key, last=last, before=before, after=after, entry_id=entry_id)
    assert log is not None
    return log


async def begin(provider: SessionHistoryProvider, count: int) -> list[SessionKey]:
    """Sessions of one user, the oldest first."""
    keys = [SessionKey(KEY.user_id, f"s{number}") for number in range(count)]
    for key in keys:
        await provider.append(key, entry(1), at=Position(0, 0))
        await asyncio.sleep(0.001)  # so that their activities differ
    return keys


async def walk(
    provider: SessionHistoryProvider, limit: int, cursor: str | None = None
) -> Sequence[Sequence[SessionKey]]:
    pages: list[Sequence[SessionKey]] = []
    while True:
        assert len(pages) < 50, "the walk does not end"
        page = await provider.list(KEY.user_id, limit=limit, cursor=cursor)
        pages.append([head.key for head in page.heads])
        if page.cursor is None:
            return pages
        cursor = page.cursor


async def insist(provider: SessionHistoryProvider, names: Sequence[str]) -> None:
    """Append entries one behind the other, behind whatever stands there."""
    for name in names:
        head = await _head(provider)
        while True:
            try:
                await provider.append(KEY, Entry(name, name.encode()), at=head.tail if head else Position(0, 0))
            except Conflict as conflict:
                head = conflict.head
            else:
                break


async def _head(provider: SessionHistoryProvider) -> Head | None:
    log = await provider.read(KEY, last=0)
    return log.head if log else None
