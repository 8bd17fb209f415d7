"""The provider under test, and the helpers that the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, TypeVar

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
    ability,
)

A = TypeVar("A")

Connect = Callable[[], SessionHistoryProvider]
"""Makes a provider that is not started. Each call connects to the same store.

If the store outlives its process, the suite sends this function to other processes, so it must be picklable:
``functools.partial(MyProvider, path)`` is, a lambda is not.
"""

KEY = SessionKey("user", "session")


class Subject:
    """The fixtures that every part of the contract uses.

    :cvar abilities: the abilities that the provider has, such as ``(Users, Restorable)``. One that it has without
        naming it is tested, too; one that it names and lacks is a failure.
    """

    abilities: ClassVar[tuple[Callable[..., object], ...]] = ()

    @pytest.fixture
    def connect(self) -> Connect:
        raise NotImplementedError("define a fixture `connect` that connects to the store of your provider")

    @pytest_asyncio.fixture
    async def provider(self, connect: Connect) -> AsyncIterator[SessionHistoryProvider]:
        async with opened(connect) as provider:
            yield provider


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[SessionHistoryProvider]:
    """Start a provider, and stop it at the end of the block."""
    provider = connect()
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


def require(provider: SessionHistoryProvider, kind: Callable[..., A]) -> A:
    """Return an ability of the provider, or skip the test."""
    found = ability(provider, kind)
    if found is None:
        pytest.skip(f"the provider lacks the ability {getattr(kind, '__name__', kind)}")
    return found


def entry(number: int, payload: bytes | None = None) -> Entry:
    """Entry ``number``, which always has the same id and origin."""
    return Entry(f"e{number}", f"payload {number}".encode() if payload is None else payload, origin=f"o{number}")


def covering(number: int) -> Snapshot:
    """A snapshot that covers entry ``number``."""
    return Snapshot(number, f"o{number}", f"summary {number}".encode())


async def append(provider: SessionHistoryProvider, number: int, snapshot: Snapshot | None = None) -> Appended:
    """Append entry ``number`` to a log whose last entry is the one before."""
    return await provider.append(KEY, entry(number), at=Position(0, number - 1), snapshot=snapshot)


async def fill(provider: SessionHistoryProvider, count: int) -> None:
    """Append entries 1 to ``count`` to a log without entries."""
    for number in range(1, count + 1):
        await append(provider, number)


async def rewrite(
    provider: SessionHistoryProvider,
    number: int,
    payload: bytes = b"new",
    *,
    rewrite_id: str = "r1",
    last: str = "",
    snapshot: Snapshot | None = None,
) -> Head:
    """Rewrite entry ``number``, which stands at its number."""
    return await provider.rewrite(
        KEY,
        entry(number, payload),
        at=Position(0, number),
        rewrite_id=rewrite_id,
        last_rewrite_id=last,
        snapshot=snapshot,
    )


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


async def append_all(provider: SessionHistoryProvider, names: Sequence[str]) -> None:
    """Append one entry for each name, in order; after a conflict retry behind the current tail."""
    for name in names:
        head = await current_head(provider)
        while True:
            at = head.tail if head else Position(0, 0)
            try:
                await provider.append(KEY, Entry(name, name.encode()), at=at)
            except Conflict as conflict:
                head = conflict.head
                assert head is not None, "a Conflict must carry the current head"
                assert head.tail != at, "a Conflict must carry the current head, not the one that the append expected"
            else:
                break


async def current_head(provider: SessionHistoryProvider) -> Head | None:
    log = await provider.read(KEY, last=0)
    return log.head if log else None


async def watch_appends(provider: SessionHistoryProvider, done: Callable[[], bool]) -> None:
    """Read repeatedly while others append entries 1, 2, 3 … with snapshots that cover them.

    Each read must show one moment: no gap, no entry without its head, no head without its entry or its snapshot. No
    read may show an earlier moment than the read before it.
    """
    seen = 0
    finished = False
    while not finished:
        finished = done()  # Asked before the read: the last read then sees all appends.
        log = await provider.read(KEY, last=1000, entry_id="e1")
        if log is not None:
            tail = log.head.tail.seq
            assert tail >= seen, "a read shows less than the one before"
            assert [each.id for each in log.entries] == [f"e{number}" for number in range(1, tail + 1)]
            assert (log.head.tail_origin, log.head.current_snapshot) == (f"o{tail}", covering(tail))
            assert log.match == (1, entry(1))
            seen = tail
        await asyncio.sleep(0)
