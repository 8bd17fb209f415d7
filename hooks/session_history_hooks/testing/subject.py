"""The provider under test, and the few words that the tests say things with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Log,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
)

Connect = Callable[[], SessionHistoryProvider]
"""Makes a provider that is not started, on one and the same store each time it is called.

It goes to other processes too, if the store outlives its process: ``functools.partial(MyProvider, path)`` can be
pickled, a lambda can not.
"""

KEY = SessionKey("user", "session")


class Subject:
    """The fixtures of every part of the contract."""

    @pytest.fixture
    def connect(self) -> Connect:
        raise NotImplementedError("a subclass says how to connect to its provider's store")

    @pytest_asyncio.fixture
    async def provider(self, connect: Connect) -> AsyncIterator[SessionHistoryProvider]:
        async with opened(connect) as provider:
            yield provider


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[SessionHistoryProvider]:
    provider = connect()
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


def entry(number: int) -> Entry:
    return Entry(f"e{number}", f"payload {number}".encode())


def covering(number: int) -> Snapshot:
    """A snapshot that covers entry ``number``."""
    return Snapshot(number, f"e{number}", f"summary {number}".encode())


async def append(provider: SessionHistoryProvider, number: int, snapshot: Snapshot | None = None) -> Appended:
    """Append entry ``number`` to a log that has one less."""
    return await provider.append(KEY, entry(number), at=Position(0, number - 1), snapshot=snapshot)


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


async def insist(provider: SessionHistoryProvider, names: Sequence[str]) -> None:
    """Append entries one behind the other, behind whatever stands there."""
    for name in names:
        head = await newest(provider)
        while True:
            at = head.tail if head else Position(0, 0)
            try:
                await provider.append(KEY, Entry(name, name.encode()), at=at)
            except Conflict as conflict:
                head = conflict.head
                assert head is not None, "a Conflict must carry the head that stands there now"
                assert head.tail != at, (
                    "a Conflict must carry the head that stands there now, not the one that was tried"
                )
            else:
                break


async def newest(provider: SessionHistoryProvider) -> Head | None:
    log = await provider.read(KEY, last=0)
    return log.head if log else None


async def look(provider: SessionHistoryProvider, done: Callable[[], bool]) -> None:
    """Read again and again while others append entries 1, 2, 3 … with folds that cover them.

    What is seen must be of one moment: no gap, no entry without its head, no head without its entry or its snapshot; and
    never an earlier moment than before.
    """
    seen = 0
    finished = False
    while not finished:
        finished = done()  # asked first, so that the last look is at the end
        log = await provider.read(KEY, last=1000, entry_id="e1")
        if log is not None:
            tail = log.head.tail.seq
            assert tail >= seen, "a read shows less than the one before"
            assert [each.id for each in log.entries] == [f"e{number}" for number in range(1, tail + 1)]
            assert (log.head.tail_id, log.head.current_snapshot) == (f"e{tail}", covering(tail))
            assert log.match == (1, entry(1))
            seen = tail
        await asyncio.sleep(0)
