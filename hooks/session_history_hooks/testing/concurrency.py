"""Tests with several tasks and connections at once."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from session_history_hooks import Appended, Conflict, Position, SessionHistoryProvider
from session_history_hooks.testing.subject import (
    KEY,
    Connect,
    Subject,
    append,
    append_all,
    covering,
    entry,
    fill,
    opened,
    read,
    watch_appends,
)


class ConcurrencyContract(Subject):
    """Races between tasks of one process."""

    async def test_concurrent_appends_at_one_position_let_one_win(self, provider: SessionHistoryProvider) -> None:
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

    async def test_concurrent_appends_of_one_id_store_it_once(self, provider: SessionHistoryProvider) -> None:
        outcomes = await asyncio.gather(*(provider.append(KEY, entry(1), at=Position(0, 0)) for _ in range(16)))
        assert {outcome.position for outcome in outcomes} == {Position(0, 1)}
        assert [outcome.replayed for outcome in outcomes].count(False) <= 1
        assert (await read(provider)).entries == (entry(1),)

    async def test_writers_on_several_connections_lose_no_entry(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as two, opened(connect) as three:
            written = [[f"w{writer}.{number}" for number in range(8)] for writer in range(6)]
            await asyncio.gather(
                *(append_all(provider, names) for provider, names in zip([one, two, three] * 2, written, strict=True))
            )
            stored = [each.id for each in (await read(one, last=49)).entries]
        assert sorted(stored) == sorted(name for names in written for name in names)
        for names in written:
            assert [name for name in stored if name in names] == names

    async def test_acknowledged_append_is_visible_on_another_connection(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            for number in range(1, 11):
                await append(one, number)
                assert (await read(other)).head.tail == Position(0, number)
                assert (await read(other, last=1)).entries == (entry(number),)
            await one.delete(KEY)
            assert (await read(other)).head.deleted

    async def test_concurrent_reader_never_sees_half_an_append(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            if not one.limits.atomic_head:
                pytest.skip("the provider does not claim an atomic head")
            writing = asyncio.create_task(self._append_with_snapshots(one))
            await asyncio.gather(watch_appends(one, writing.done), watch_appends(other, writing.done))
            await writing

    async def test_calls_do_not_block_the_event_loop(self, provider: SessionHistoryProvider) -> None:
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
        assert gaps[len(gaps) // 2] < 0.02, "a call of the provider blocks the event loop"

    @staticmethod
    async def _append_with_snapshots(provider: SessionHistoryProvider) -> None:
        for number in range(1, 41):
            await append(provider, number, covering(number))
