"""What a hostile reader of the provider for Tablestore tried: rare orders of events, each made on purpose."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from tablestore import Condition, DeleteRowItem, Row, RowExistenceExpectation

from providers.tablestore.support import provider
from servers.tablestore import TablestoreServer
from servers.tablestore_client import async_client
from session_history.providers.tablestore import TablestoreProvider, keys, rows
from session_history.providers.tablestore.errors import Outcome
from session_history_hooks import (
    Conflict,
    Corrupt,
    Entry,
    IncompatibleStore,
    Position,
    SessionKey,
    Snapshot,
    Unavailable,
)

KEY = SessionKey("u", "s")
LARGE = 5_000_000
"""Bytes of a payload in three parts."""

Step = Callable[[], Awaitable[object]]
Make = Callable[[], Awaitable[TablestoreProvider]]


@pytest.fixture
def server() -> Iterator[TablestoreServer]:
    with TablestoreServer() as server:
        yield server


@pytest.fixture
async def make(server: TablestoreServer) -> AsyncIterator[Make]:
    """One more process, as it were."""
    made: list[TablestoreProvider] = []

    async def make() -> TablestoreProvider:
        made.append(provider(server.endpoint))
        await made[-1].start()
        return made[-1]

    yield make
    for each in made:
        await each.stop()


def entry(number: int, payload: bytes = b"payload") -> Entry:
    return Entry(f"e{number}", payload)


def at(seq: int) -> Position:
    return Position(0, seq)


async def begun(provider: TablestoreProvider, *payloads: bytes) -> None:
    for seq, payload in enumerate(payloads):
        await provider.append(KEY, entry(seq + 1, payload), at=at(seq))


def puts(place: int) -> Callable[[Any], bool]:
    """Of the arguments of a write: whether it puts a row at this place."""
    return lambda items: any(rows.place(item.row) == place for item in items)


def before_write(
    provider: TablestoreProvider, wanted: Callable[[Any], bool], step: Step, *, lost: bool = False
) -> None:
    """Let something happen, once, before a write; or after it, and then its answer is lost."""
    real, done = provider._table.write, False

    async def write(items: Any) -> list[Outcome]:
        nonlocal done
        if done or not wanted(items):
            return await real(items)
        done = True
        if lost:
            await real(items)
            await step()
            return [Outcome.UNKNOWN] * len(items)
        await step()
        return await real(items)

    provider._table.write = write  # type: ignore[method-assign]


async def places(made: TablestoreProvider) -> list[int]:
    """Of all rows of the session."""
    ends = [keys.primary_key(KEY, end) for end in (keys.LOWEST, keys.HEAD_PLACE)]
    assert made._opened is not None
    found = await made._opened.thread.run(lambda: made._table.rows(*ends, limit=100, columns=["v"]))
    return [rows.place(row) for row in found.rows]


# Late heads


async def head_late(make: Make, *, of: int, payload: bytes = b"payload") -> None:
    """Store an entry as a process does that dies before its head is."""
    dying = await make()
    await dying.read(KEY)
    real = dying._table.write

    async def write(items: Any) -> list[Outcome]:
        await real(items[:1])
        raise Unavailable("this process died")

    dying._table.write = write  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="died"):
        await dying.append(KEY, entry(of, payload), at=at(of - 1))


async def test_no_old_payload_is_held_to_be_of_a_new_number(make: Make) -> None:
    reader, writer = await make(), await make()
    await begun(writer, b"old")
    await head_late(make, of=2)
    real, pages = reader._table.page, 0

    async def page(*args: Any, **named: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            await writer.rewrite(KEY, entry(1, b"new"), at=at(1), rewrites=0, snapshot=None)
        return await real(*args, **named)

    reader._table.page = page  # type: ignore[method-assign]
    log = await reader.read(KEY)
    assert log is not None
    assert (log.head.rewrites, log.entries[0].payload) in {(0, b"old"), (0, b"new"), (1, b"new")}


async def head_of_loser(make: Make, *, of: int) -> None:
    """Lose a place to an entry of the same id, and die when the head was written and nothing of it was mended."""
    dying = await make()
    await dying.append(KEY, entry(of - 1), at=at(of - 2))  # and so knows where that is
    await head_late(make, of=of)
    real = dying._table.write

    async def write(items: Any) -> list[Outcome]:
        assert await real(items) == [Outcome.REFUSED, Outcome.DONE]
        raise Unavailable("this process died")

    dying._table.write = write  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="died"):
        await dying.append(KEY, entry(of, b"lost"), at=at(of - 1), snapshot=Snapshot(of, f"e{of}", b"lost"))


@pytest.mark.parametrize("behind", [0, 1])
async def test_what_a_loser_under_the_same_id_folded_is_not_kept(make: Make, behind: int) -> None:
    reader = await make()
    await begun(reader, b"")
    await head_of_loser(make, of=3)
    if behind:
        await head_late(make, of=4)
    log = await reader.read(KEY)
    assert log is not None
    assert (log.head.tail, len(log.entries)) == (at(3 + behind), 3 + behind)
    assert log.head.snapshot is None
    await reader.append(KEY, entry(4 + behind), at=at(3 + behind))
    [head] = (await reader.list("u", limit=1)).heads
    assert (head.tail, head.snapshot) == (at(4 + behind), None)


async def test_what_was_folded_before_a_loser_is_kept(make: Make) -> None:
    reader = await make()
    before = Snapshot(1, "e1", b"summary")
    await reader.append(KEY, entry(1), at=at(0), snapshot=before)
    await head_late(make, of=2)
    await head_late(make, of=3)
    log = await reader.read(KEY)
    assert log is not None
    assert (log.head.tail, log.head.snapshot) == (at(3), before)


async def test_a_rewrite_is_not_taken_for_a_loser(make: Make, server: TablestoreServer) -> None:
    writer, reader = await make(), await make()
    await begun(writer, b"", b"old")
    await writer.rewrite(KEY, entry(2, b"new"), at=at(2), rewrites=0, snapshot=Snapshot(2, "e2", b"new"))
    server.requests.clear()
    log = await reader.read(KEY)
    assert log is not None
    assert log.head.current_snapshot == Snapshot(2, "e2", b"new")
    assert [name for name, _ in server.requests] == ["GetRange"]


async def test_activity_never_goes_back(make: Make) -> None:
    """Of a process whose clock is ahead, the head arrived and the entry did not."""
    slow, fast, watcher = await make(), await make(), await make()
    await begun(slow, b"")
    real, seen = slow._table.write, 0

    async def write(items: Any) -> list[Outcome]:
        nonlocal seen
        if seen:
            return await real(items)
        await head_alone(fast, ahead_us=10**9)
        [head] = (await watcher.list("u", limit=1)).heads
        seen = head.active_us
        return [Outcome.UNKNOWN] * len(items)

    slow._table.write = write  # type: ignore[method-assign]
    await slow.append(KEY, entry(2), at=at(1))
    [head] = (await watcher.list("u", limit=1)).heads
    assert head.active_us >= seen


async def head_alone(made: TablestoreProvider, *, ahead_us: int) -> None:
    await made.read(KEY)
    assert made._opened is not None
    known = made._opened.reading._memory.get(KEY)
    assert known is not None
    lost = rows.EntryRow(at(2), "lost", b"", known.next_active_us() + ahead_us, rows.new_mark(), rows.new_mark())
    put = rows.put_head(known.behind(KEY, lost, None), rows.unchanged(known.mark))
    assert await made._opened.thread.run(lambda: made._table.write([put])) == [Outcome.DONE]


async def test_what_a_reader_learns_of_a_head_serves_its_next_append(make: Make, server: TablestoreServer) -> None:
    beating, appending = await make(), await make()
    await begun(beating, b"")
    await appending.read(KEY)
    await beating.renew(KEY, at=at(1))
    await appending.read(KEY, after=1)
    server.requests.clear()
    await appending.append(KEY, entry(2), at=at(1))
    assert [name for name, _ in server.requests] == ["BatchWriteRow"]


# Payloads in parts


async def test_parts_of_an_append_whose_answer_was_lost_stay_if_it_was_rewritten_in_vain(make: Make) -> None:
    appending, first, second = await make(), await make(), await make()
    await begun(appending, b"")
    payload = random.randbytes(LARGE)

    async def wins() -> None:
        await second.rewrite(KEY, entry(1, b"won"), at=at(1), rewrites=0, snapshot=None)

    async def rewritten_in_vain() -> None:
        number = puts(keys.HEAD_PLACE)
        before_write(first, number, wins)
        with pytest.raises(Conflict):
            await first.rewrite(KEY, entry(2, b"lost"), at=at(2), rewrites=0, snapshot=None)

    before_write(appending, puts(keys.place_of(at(2))), rewritten_in_vain, lost=True)
    assert (await appending.append(KEY, entry(2, payload), at=at(1))).position == at(2)
    log = await second.read(KEY, last=1)
    assert log is not None
    assert log.entries == (entry(2, payload),)


async def test_two_rewrites_in_vain_of_one_entry_leave_it_readable(make: Make) -> None:
    """The second stands on the first, and puts that back after the first was undone."""
    writer, first, second, rival = await make(), await make(), await make(), await make()
    await begun(writer, b"", b"old")
    placed, undone = threading.Event(), threading.Event()

    async def rivals(rewrites: int) -> None:
        await rival.rewrite(KEY, entry(1, b"won"), at=at(1), rewrites=rewrites, snapshot=None)

    async def between() -> None:
        await rivals(0)
        assert second._opened is not None
        writing = second._opened.writing
        waiting.append(second._opened.thread.submit(lambda: writing.rewrite(KEY, entry(2, b"2"), at(2), 1, None)))
        await asyncio.to_thread(placed.wait, 10)

    async def after() -> None:
        placed.set()
        await asyncio.to_thread(undone.wait, 10)
        await rivals(1)

    waiting: list[Future[Any]] = []
    before_write(first, puts(keys.HEAD_PLACE), between)
    before_write(second, puts(keys.HEAD_PLACE), after)
    with pytest.raises(Conflict):
        await first.rewrite(KEY, entry(2, bytes(LARGE)), at=at(2), rewrites=0, snapshot=None)
    undone.set()
    with pytest.raises(Conflict):
        await asyncio.wrap_future(waiting[0])
    log = await writer.read(KEY, last=1)
    assert log is not None
    assert log.head.rewrites == 2
    assert log.entries[0].id == "e2"


async def test_parts_of_a_session_that_never_began_are_deleted(make: Make) -> None:
    dying, other = await make(), await make()

    async def die() -> None:
        raise Unavailable("this process died")

    before_write(dying, puts(keys.place_of(at(1))), die)
    with pytest.raises(Unavailable, match="died"):
        await dying.append(KEY, entry(1, bytes(LARGE)), at=at(0))
    assert len(await places(other)) == 3
    assert await other.delete_user("u") == 0
    assert await places(other) == []


async def rewritten(made: TablestoreProvider, new: Entry) -> None:
    """As one does who insists."""
    rewrites = 0
    while True:
        try:
            await made.rewrite(KEY, new, at=at(1), rewrites=rewrites, snapshot=None)
        except Conflict as conflict:
            if conflict.head is None or conflict.head.rewrites <= rewrites:
                raise
            rewrites = conflict.head.rewrites
        else:
            return


DEATHS: dict[str, Callable[[Any], bool]] = {
    "number": puts(keys.HEAD_PLACE),
    "removal": lambda items: isinstance(items[0], DeleteRowItem),
}


@pytest.mark.parametrize("deaths", ["number", "removal", "number removal", "removal removal"])
async def test_parts_that_interrupted_rewrites_left_are_removed_by_the_next(make: Make, deaths: str) -> None:
    writer = await make()
    await begun(writer, bytes(LARGE))

    async def die() -> None:
        raise Unavailable("this process died")

    for death in deaths.split():
        dying = await make()
        before_write(dying, DEATHS[death], die)
        with pytest.raises(Unavailable, match="died"):
            await rewritten(dying, entry(1, b"erased"))
    assert len(await places(writer)) == 4
    await rewritten(writer, entry(1, b"erased"))
    assert await places(writer) == [keys.place_of(at(1))]


@pytest.mark.parametrize(
    ("columns", "error"), [([("v", 1)], Corrupt), ([("v", 1), ("p", 1000)], Corrupt), ([("v", 2)], IncompatibleStore)]
)
async def test_a_part_that_can_not_be_read_is_named(
    make: Make, server: TablestoreServer, columns: list[tuple[str, Any]], error: type[Exception]
) -> None:
    made = await make()
    await begun(made, bytes(LARGE))
    part = (await places(made))[0]
    row = Row([("u", "u"), ("s", "s"), ("q", part)], columns)
    async with async_client(server) as client:
        await client.put_row("session_history", row, Condition(RowExistenceExpectation.IGNORE))
    with pytest.raises(error, match=r"a part of a payload|version 2"):
        await made.read(KEY)


# Arguments


async def test_more_entries_than_an_integer_of_the_protocol_counts_are_all(make: Make) -> None:
    made = await make()
    await begun(made, b"", b"")
    log = await made.read(KEY, last=2**40)
    assert log is not None
    assert len(log.entries) == 2


# The thread


async def test_a_provider_that_the_collector_drops_on_its_own_thread_ends_it(make: Make) -> None:
    made = await make()
    assert made._opened is not None
    thread = made._opened.thread
    thread._loop.call_soon_threadsafe(made._close)
    await asyncio.to_thread(thread._thread.join, 5)
    assert not thread._thread.is_alive()


async def test_a_client_that_can_not_be_closed_keeps_no_thread(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await make()
    assert made._opened is not None
    thread, real = made._opened.thread._thread, made._table._client.close

    async def close() -> None:
        await real()
        raise RuntimeError("of the SDK")

    monkeypatch.setattr(made._table._client, "close", close)
    await made.stop()
    assert not thread.is_alive()


async def test_a_start_that_is_cancelled_ends(server: TablestoreServer) -> None:
    server.ready_after = 3600
    made = provider(server.endpoint)
    starting = asyncio.create_task(made.start())
    await asyncio.sleep(0.3)
    [thread] = [each for each in threading.enumerate() if each.name == "session-history Tablestore"]
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
