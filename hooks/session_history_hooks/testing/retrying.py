"""Tests of retries: the author of an append that got no answer retries at the same position."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from session_history_hooks import Appended, Conflict, Entry, Position, SessionHistoryProvider
from session_history_hooks.testing.subject import (
    KEY,
    Connect,
    Subject,
    append,
    covering,
    entry,
    fill,
    opened,
    read,
)


class RetryingContract(Subject):
    """Retries and cancellations."""

    @pytest.mark.parametrize("at", [Position(0, 0), Position(0, 1), Position(0, 3), Position(0, 7)])
    @pytest.mark.parametrize("repeated", [1, 2, 3])
    async def test_append_of_a_stored_id_is_a_replay_at_any_position(
        self, provider: SessionHistoryProvider, repeated: int, at: Position
    ) -> None:
        await fill(provider, 3)
        before = await read(provider)
        again = Entry(f"e{repeated}", b"other")
        assert await provider.append(KEY, again, at=at) == Appended(Position(0, repeated), replayed=True)
        assert await read(provider) == before

    async def test_retry_is_a_replay_even_if_others_appended_since(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await append(one, 1)
            await append(one, 2, covering(2))  # Its author never gets the answer.
            await append(other, 3, covering(3))
            before = await read(one)
            for provider in (one, other):
                assert await append(provider, 2, covering(2)) == Appended(Position(0, 2), replayed=True)
            assert await read(one) == before

    async def test_retry_of_a_lost_request_raises_conflict_with_the_head(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            await append(one, 1)
            await append(other, 2)
            with pytest.raises(Conflict) as conflict:
                await one.append(KEY, Entry("lost", b""), at=Position(0, 1))
            assert conflict.value.head == (await read(other)).head
            assert await one.append(KEY, Entry("lost", b""), at=Position(0, 2)) == Appended(Position(0, 3), False)

    async def test_retry_after_delete_raises_conflict(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, 2)
        await provider.delete(KEY)
        for number in (1, 2):
            with pytest.raises(Conflict):
                await append(provider, number)
        assert (await read(provider)).head.deleted

    async def test_retry_of_a_cancelled_append_stores_it_once(self, provider: SessionHistoryProvider) -> None:
        for number in range(1, 21):
            await cancelled_append(provider, number, steps=number % 4)
            await provider.read(KEY)
            # The retry finds the entry, or stores it.
            assert (await append(provider, number)).position == Position(0, number)
        assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 21))

    async def test_retry_on_another_connection_stores_a_cancelled_append_once(self, connect: Connect) -> None:
        async with opened(connect) as one, opened(connect) as other:
            for number in range(1, 21):
                await cancelled_append(one, number, steps=number % 4)
                assert (await append(other, number)).position == Position(0, number)
            assert (await read(one)).entries == tuple(entry(number) for number in range(1, 21))

    async def test_cancelled_append_is_never_stored_after_a_later_one(self, provider: SessionHistoryProvider) -> None:
        for number in range(1, 11):
            await cancelled_append(provider, number, steps=number % 4)
            rival = Entry(f"rival{number}", b"")
            with suppress(Conflict):
                await provider.append(KEY, rival, at=Position(0, number - 1))
            log = await read(provider)
            assert log.entries[number - 1 :] in {(entry(number),), (rival,)}


async def cancelled_append(provider: SessionHistoryProvider, number: int, *, steps: int) -> None:
    """Begin an append of entry ``number`` and cancel it after ``steps`` steps of the event loop."""
    task = asyncio.create_task(append(provider, number))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
