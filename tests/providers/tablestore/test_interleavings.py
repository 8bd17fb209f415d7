"""Rare orders of events on Tablestore, each made on purpose by a client that pauses, fails or loses answers."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from tablestore import Condition, Row, RowExistenceExpectation

from providers.tablestore.support import (
    DIED,
    TABLE,
    HookedClient,
    Make,
    MakeHooked,
    Send,
    Step,
    all_rows,
    deletes,
    die,
    provider,
    provider_threads,
    puts,
    row_numbers,
)
from servers.tablestore import TablestoreServer
from servers.tablestore_client import async_client, sync_client
from session_history.providers.tablestore import TablestoreProvider, keys, rows
from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.table import Table
from session_history_hooks import (
    Conflict,
    Corrupt,
    Entry,
    Head,
    IncompatibleStore,
    Position,
    Snapshot,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, entry, read, rewrite

LARGE = 5_000_000
"""Bytes of a payload in three chunks."""


def at(seq: int) -> Position:
    return Position(0, seq)


async def begin(provider: TablestoreProvider, *payloads: bytes) -> None:
    for seq, payload in enumerate(payloads):
        await provider.append(KEY, entry(seq + 1, payload), at=at(seq))


async def listed_head(provider: TablestoreProvider) -> Head:
    [head] = (await provider.list(KEY.user_id, limit=1)).heads
    return head


# Late heads


async def leave_late_head(make_hooked: MakeHooked, *, seq: int, bookkeeping: bool = False) -> None:
    """Append an entry and die before the head is written."""
    dying, client = await make_hooked()
    await dying.read(KEY)

    async def write_entry(items: list[Any], send: Send) -> None:
        await send(items[:1])
        await die()

    client.on_write = write_entry
    with pytest.raises(Unavailable, match=DIED):
        await dying.append(KEY, replace(entry(seq), bookkeeping=bookkeeping), at=at(seq - 1))


async def leave_head_of_loser(make_hooked: MakeHooked, *, seq: int) -> None:
    """Lose a position to an entry of the same id, and die as soon as the head of the lost entry is written."""
    dying, client = await make_hooked()
    await dying.append(KEY, entry(seq - 1), at=at(seq - 2))
    await leave_late_head(make_hooked, seq=seq)

    async def write(items: list[Any], send: Send) -> None:
        answer = await send(items)
        assert [row.is_ok for row in answer.get_put_by_table(TABLE)] == [False, True]
        await die()

    client.on_write = write
    with pytest.raises(Unavailable, match=DIED):
        await dying.append(
            KEY, Entry(f"e{seq}", b"lost", origin="lost"), at=at(seq - 1), snapshot=Snapshot(seq, "lost", b"lost")
        )


async def test_read_during_rewrite_never_shows_its_id_with_the_old_payload(make: Make, make_hooked: MakeHooked) -> None:
    (reader, client), writer = await make_hooked(), await make()
    await begin(writer, b"old")
    await leave_late_head(make_hooked, seq=2)
    reads = 0

    async def read_range(read_now: Step) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            await rewrite(writer, 1, b"new")
        return await read_now()

    client.on_range = read_range
    log = await reader.read(KEY)
    assert log is not None
    assert (log.head.rewrite_id, log.entries[0].payload) in {("", b"old"), ("", b"new"), ("r1", b"new")}


@pytest.mark.parametrize("later_entries", [0, 1])
async def test_snapshot_of_a_loser_under_the_same_id_is_dropped(
    make: Make, make_hooked: MakeHooked, later_entries: int
) -> None:
    reader = await make()
    await begin(reader, b"")
    await leave_head_of_loser(make_hooked, seq=3)
    if later_entries:
        await leave_late_head(make_hooked, seq=4)
    tail = 3 + later_entries
    log = await reader.read(KEY)
    assert log is not None
    assert (log.head.tail, len(log.entries)) == (at(tail), tail)
    assert log.head.snapshot is None
    await reader.append(KEY, entry(tail + 1), at=at(tail))
    head = await listed_head(reader)
    assert (head.tail, head.snapshot) == (at(tail + 1), None)


async def test_entry_that_lost_a_position_and_won_a_later_one_is_the_tail(make: Make, make_hooked: MakeHooked) -> None:
    """Its author keeps the origin, so a head that names the lost position has the origin of the tail as well."""
    (rebasing, client), rival = await make_hooked(), await make()
    await begin(rebasing, b"")
    await rival.append(KEY, entry(2), at=at(1))
    rebased = Entry("rebased", b"")

    async def write(items: list[Any], send: Send) -> None:
        await send(items if puts(keys.number_of(at(2)))(items) else items[:1])
        await die()

    client.on_write = write
    for seq in (1, 2):
        with pytest.raises(Unavailable, match=DIED):
            await rebasing.append(KEY, rebased, at=at(seq))
        await rebasing.read(KEY)
    for each in (rival, await make()):
        log = await read(each, last=1)
        assert (log.head.tail, log.entries) == (at(3), (rebased,))


async def test_snapshot_before_late_heads_is_kept(make: Make, make_hooked: MakeHooked) -> None:
    reader = await make()
    before = Snapshot(1, "o1", b"summary")
    await reader.append(KEY, entry(1), at=at(0), snapshot=before)
    await leave_late_head(make_hooked, seq=2)
    await leave_late_head(make_hooked, seq=3)
    log = await reader.read(KEY)
    assert log is not None
    assert (log.head.tail, log.head.snapshot) == (at(3), before)


@pytest.mark.parametrize("bookkeeping", [[True], [True, True], [False, True], [True, False], [False, True, True]])
async def test_times_behind_late_heads_are_those_of_the_entries(
    make: Make, make_hooked: MakeHooked, bookkeeping: list[bool]
) -> None:
    reader = await make()
    await begin(reader, b"")
    times = [await listed_head(reader)]
    for seq, each in enumerate(bookkeeping, start=2):
        await leave_late_head(make_hooked, seq=seq, bookkeeping=each)
        times.append((await read(await make())).head)
    for before, after, each in zip(times, times[1:], bookkeeping, strict=False):
        assert after.changed_us > before.changed_us
        assert after.active_us == (before.active_us if each else after.changed_us)
    seq = len(times)
    await reader.append(KEY, replace(entry(seq + 1), bookkeeping=True), at=at(seq))
    head = await listed_head(reader)
    assert head == (await read(reader)).head
    assert (head.active_us, head.changed_us > times[-1].changed_us) == (times[-1].active_us, True)


async def test_read_after_rewrite_of_the_tail_takes_one_request(make: Make, server: TablestoreServer) -> None:
    writer, reader = await make(), await make()
    await begin(writer, b"", b"old")
    await rewrite(writer, 2, b"new", snapshot=Snapshot(2, "o2", b"new"))
    server.requests.clear()
    log = await reader.read(KEY)
    assert log is not None
    assert log.head.current_snapshot == Snapshot(2, "o2", b"new")
    assert [name for name, _ in server.requests] == ["GetRange"]


async def write_only_head(server: TablestoreServer, *, ahead_us: int) -> None:
    """Write the head of an append whose entry is lost, by a clock that is ahead."""
    client = async_client(server)
    table = Table(client, TABLE, 10)
    state = await Reader(table, ChunkStore(table), StateCache()).state(KEY)
    lost = rows.EntryRow(at(2), Entry("lost", b""), None, rows.random_id(), state.next_us() + ahead_us)
    put = rows.put_head(state.head_after(KEY, lost, None), rows.unchanged(state.etag))
    assert await table.write([put]) == [Outcome.DONE]
    await client.close()


async def test_activity_never_goes_back_to_a_slower_clock(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    (slow, client), watcher = await make_hooked(), await make()
    await begin(slow, b"")
    seen = 0

    async def write(items: list[Any], send: Send) -> Any:
        nonlocal seen
        if seen:
            return await send(items)
        await write_only_head(server, ahead_us=10**9)
        seen = (await listed_head(watcher)).active_us
        raise ConnectionResetError

    client.on_write = write
    await slow.append(KEY, entry(2), at=at(1))
    assert (await listed_head(watcher)).active_us >= seen


async def test_append_after_a_read_that_saw_a_renewal_takes_one_request(make: Make, server: TablestoreServer) -> None:
    renewing, appending = await make(), await make()
    await begin(renewing, b"")
    await appending.read(KEY)
    await renewing.renew(KEY, at=at(1))
    await appending.read(KEY, after=1)
    server.requests.clear()
    await appending.append(KEY, entry(2), at=at(1))
    assert [name for name, _ in server.requests] == ["BatchWriteRow"]


async def test_read_whose_answer_is_late_does_not_hide_a_later_append(
    make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    provider, client = await make_hooked()
    await begin(provider, b"")

    async def read_range(read_now: Step) -> Any:
        answer = await read_now()
        client.on_range = read_now_only
        await provider.append(KEY, entry(2), at=at(1))
        return answer

    async def read_now_only(read_now: Step) -> Any:
        return await read_now()

    client.on_range = read_range
    assert (await read(provider)).head.tail == at(1)
    server.requests.clear()
    await provider.append(KEY, entry(3), at=at(2))
    assert [name for name, _ in server.requests] == ["BatchWriteRow"]


# Another log in the place of the one that a process knew


def again(number: int) -> Entry:
    """Entry ``number``, appended again after the table lost it."""
    return replace(entry(number), origin=f"again{number}")


async def run_again(server: TablestoreServer, provider: TablestoreProvider, count: int) -> None:
    """Remove all rows of the session, and append entries under the same ids."""
    for row in all_rows(server):
        sync_client(server).delete_row(TABLE, row, None)
    for number in range(1, count + 1):
        await provider.append(KEY, again(number), at=at(number - 1))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
async def test_append_to_another_log_raises_conflict(make: Make, server: TablestoreServer, count: int) -> None:
    knowing, other = await make(), await make()
    await begin(knowing, b"", b"")
    await run_again(server, other, count)
    before = row_numbers(server)
    with pytest.raises(Conflict) as conflict:
        await knowing.append(KEY, entry(9), at=at(2), tail_origin="o2")
    log = await other.read(KEY)
    assert conflict.value.head == (log.head if log else None)
    assert (log.entries if log else ()) == tuple(map(again, range(1, count + 1)))
    assert row_numbers(server) == before
    await knowing.append(KEY, entry(9), at=at(count), tail_origin=f"again{count}")
    assert (await read(other)).entries[-1] == entry(9)


async def test_append_without_an_expected_origin_follows_another_log_of_the_same_length(
    make: Make, server: TablestoreServer
) -> None:
    knowing, other = await make(), await make()
    await begin(knowing, b"", b"")
    await run_again(server, other, 2)
    assert (await knowing.append(KEY, entry(3), at=at(2))).position == at(3)
    log = await read(other)
    assert log.entries == (again(1), again(2), entry(3))
    assert log.head == await listed_head(knowing)


async def test_key_that_another_log_has_raises_conflict(make: Make, server: TablestoreServer) -> None:
    """The process that knew the old log does not remember the key."""
    knowing, other = await make(), await make()
    await begin(knowing, b"", b"")
    await run_again(server, other, 1)
    await other.append(KEY, replace(again(2), keys=("k",)), at=at(1))
    with pytest.raises(Conflict) as conflict:
        await knowing.append(KEY, replace(entry(3), keys=("k",)), at=at(2))
    assert conflict.value.keys == ("k",)
    assert (await knowing.append(KEY, Entry("k", b""), at=at(2))).position == at(2)
    assert len((await read(other)).entries) == 2


@pytest.mark.parametrize("moment", ["before the state is read", "before the removal"])
async def test_entry_behind_another_log_stays_if_a_writer_has_appended_behind_it(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, moment: str
) -> None:
    (knowing, client), other = await make_hooked(), await make()
    await begin(knowing, b"", b"")
    await run_again(server, other, 2)

    async def append_behind() -> None:
        await other.append(KEY, entry(4), at=at(3))

    if moment == "before the removal":
        client.before_write(deletes, append_behind)
    else:
        client.after_write(puts(keys.number_of(at(3))), append_behind)
    assert (await knowing.append(KEY, entry(3), at=at(2), tail_origin="o2")).position == at(3)
    log = await read(await make())
    assert log.entries == (again(1), again(2), entry(3), entry(4))
    assert log.head == await listed_head(other)


async def test_generation_that_another_log_never_reached_is_not_begun(make: Make, server: TablestoreServer) -> None:
    knowing, other = await make(), await make()
    await begin(knowing, b"")
    await knowing.delete(KEY)
    await run_again(server, other, 1)
    with pytest.raises(Conflict) as conflict:
        await knowing.append(KEY, entry(1), at=Position(1, 0))
    log = await read(other)
    assert (conflict.value.head, log.entries) == (log.head, (again(1),))
    assert row_numbers(server) == [keys.number_of(at(1)), keys.HEAD_NUMBER]


async def test_append_after_a_read_of_another_log_takes_one_request(make: Make, server: TablestoreServer) -> None:
    knowing, other = await make(), await make()
    await begin(knowing, b"", b"", b"")
    await run_again(server, other, 1)
    await knowing.read(KEY)
    server.requests.clear()
    await knowing.append(KEY, entry(2), at=at(1), tail_origin="again1")
    assert [name for name, _ in server.requests] == ["BatchWriteRow"]


async def test_entry_that_two_calls_append_is_stored_once(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    """Both attempts have the same origin, and only one of them has stored the chunks that are read."""
    (one, client), other = await make_hooked(), await make()
    await begin(one, b"")
    same = entry(2, random.randbytes(LARGE))

    async def append_first() -> None:
        assert not (await other.append(KEY, same, at=at(1), snapshot=Snapshot(2, "o2", b"summary"))).replayed

    client.before_write(puts(keys.number_of(at(2))), append_first)
    assert (await one.append(KEY, same, at=at(1))).replayed
    assert sum(number < 0 for number in row_numbers(server)) == 3
    log = await read(await make())
    assert log.entries == (entry(1, b""), same)
    assert log.head.current_snapshot == Snapshot(2, "o2", b"summary")


# Rewrites


async def test_rewrite_whose_answer_is_lost_stands_though_another_one_follows(
    make: Make, make_hooked: MakeHooked
) -> None:
    (one, client), other = await make_hooked(), await make()
    await begin(one, b"old", b"old")

    async def follow() -> None:
        await rewrite(other, 1, b"other", rewrite_id="r2", last="r1")

    client.after_write(puts(keys.HEAD_NUMBER), follow)
    head = await rewrite(one, 2, b"erased")
    log = await read(other)
    assert (head, head.rewrite_id) == (log.head, "r2")
    assert log.entries == (entry(1, b"other"), entry(2, b"erased"))


async def test_rewrite_whose_request_is_lost_is_undone_if_another_one_is_first(
    make: Make, make_hooked: MakeHooked
) -> None:
    (one, client), other = await make_hooked(), await make()
    await begin(one, b"old", b"old")

    async def write(items: list[Any], send: Send) -> Any:
        if not puts(keys.HEAD_NUMBER)(items):
            return await send(items)
        client.on_write = lambda items, send: send(items)
        await rewrite(other, 1, b"other", rewrite_id="r2")
        raise ConnectionResetError

    client.on_write = write
    with pytest.raises(Conflict):
        await rewrite(one, 2, b"erased")
    assert (await read(other)).entries == (entry(1, b"other"), entry(2, b"old"))
    # The row still names the rewrite that was undone, so the next try of it must not take it for done.
    await rewrite(one, 2, b"erased", last="r2")
    assert (await read(other)).entries == (entry(1, b"other"), entry(2, b"erased"))


@pytest.mark.parametrize("number", [keys.number_of(at(2)), keys.HEAD_NUMBER], ids=["entry", "head"])
async def test_two_tries_of_one_rewrite_both_succeed(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, number: int
) -> None:
    (one, client), other = await make_hooked(), await make()
    await begin(one, b"", bytes(LARGE))
    new = random.randbytes(LARGE)
    heads: list[Head] = []

    async def try_first() -> None:
        heads.append(await rewrite(other, 2, new))

    client.before_write(puts(number), try_first)
    heads.append(await rewrite(one, 2, new))
    log = await read(await make())
    assert heads == [log.head] * 2
    assert log.entries == (entry(1, b""), entry(2, new))
    assert sum(number < 0 for number in row_numbers(server)) == 3


# Payloads in chunks


async def test_chunks_of_an_append_with_lost_answer_survive_a_failed_rewrite(
    make: Make, make_hooked: MakeHooked
) -> None:
    (appending, appending_client), (losing, losing_client), winning = (
        await make_hooked(),
        await make_hooked(),
        await make(),
    )
    await begin(appending, b"")
    payload = random.randbytes(LARGE)

    async def win() -> None:
        await rewrite(winning, 1, b"won")

    async def lose() -> None:
        losing_client.before_write(puts(keys.HEAD_NUMBER), win)
        with pytest.raises(Conflict):
            await rewrite(losing, 2, b"lost", rewrite_id="r2")

    appending_client.after_write(puts(keys.number_of(at(2))), lose)
    assert (await appending.append(KEY, entry(2, payload), at=at(1))).position == at(2)
    log = await winning.read(KEY, last=1)
    assert log is not None
    assert log.entries == (entry(2, payload),)


async def test_two_failed_rewrites_of_one_entry_leave_it_readable(make: Make, make_hooked: MakeHooked) -> None:
    """The second one replaces the entry of the first, and puts it back after the first one was undone."""
    (first, first_client), (second, second_client) = await make_hooked(), await make_hooked()
    writer, rival = await make(), await make()
    await begin(writer, b"", b"old")
    placed, undone = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    rewrites_of_second: list[Future[Head]] = []

    async def before_first_is_named() -> None:
        await rewrite(rival, 1, b"won", rewrite_id="r1")
        second_rewrite = rewrite(second, 2, b"2", rewrite_id="second", last="r1")
        rewrites_of_second.append(asyncio.run_coroutine_threadsafe(second_rewrite, loop))
        await asyncio.to_thread(placed.wait, 10)

    async def before_second_is_named() -> None:
        placed.set()
        await asyncio.to_thread(undone.wait, 10)
        await rewrite(rival, 1, b"won", rewrite_id="r2", last="r1")

    first_client.before_write(puts(keys.HEAD_NUMBER), before_first_is_named)
    second_client.before_write(puts(keys.HEAD_NUMBER), before_second_is_named)
    with pytest.raises(Conflict):
        await rewrite(first, 2, bytes(LARGE), rewrite_id="first")
    undone.set()
    with pytest.raises(Conflict):
        await asyncio.wrap_future(rewrites_of_second[0])
    log = await writer.read(KEY, last=1)
    assert log is not None
    assert log.head.rewrite_id == "r2"
    assert log.entries[0].id == "e2"


async def test_delete_user_removes_chunks_of_a_session_that_never_began(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    (dying, client), other = await make_hooked(), await make()
    client.before_write(puts(keys.number_of(at(1))), die)
    with pytest.raises(Unavailable, match=DIED):
        await dying.append(KEY, entry(1, bytes(LARGE)), at=at(0))
    assert len(row_numbers(server)) == 3
    assert await other.delete_user(KEY.user_id) == 0
    assert row_numbers(server) == [keys.HEAD_NUMBER]


async def erase(made: TablestoreProvider, rewrite_id: str) -> None:
    """Rewrite the first entry, and try again with the rewrite that a conflict shows."""
    last = ""
    while True:
        try:
            await rewrite(made, 1, b"erased", rewrite_id=rewrite_id, last=last)
        except Conflict as conflict:
            if conflict.head is None or conflict.head.rewrite_id == last:
                raise
            last = conflict.head.rewrite_id
        else:
            return


DEATHS: dict[str, Callable[[Any], bool]] = {"name": puts(keys.HEAD_NUMBER), "removal": deletes}
"""The writes of a rewrite, before which it is interrupted."""


@pytest.mark.parametrize("deaths", ["name", "removal", "name removal", "removal removal"])
@pytest.mark.parametrize("is_retry", [False, True], ids=["other rewrite", "retry"])
async def test_rewrite_removes_chunks_that_interrupted_rewrites_left(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, deaths: str, *, is_retry: bool
) -> None:
    writer = await make()
    await begin(writer, bytes(LARGE))
    for number, death in enumerate(deaths.split()):
        dying, client = await make_hooked()
        client.before_write(DEATHS[death], die)
        with pytest.raises(Unavailable, match=DIED):
            await erase(dying, "r" if is_retry else f"r{number}")
    assert len(row_numbers(server)) == 5
    await erase(writer, "r")
    assert row_numbers(server) == [keys.number_of(at(1)), keys.HEAD_NUMBER]
    log = await writer.read(KEY)
    assert log is not None
    assert (log.head.rewrite_id, log.entries) == ("r", (entry(1, b"erased"),))


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ([(col.LAYOUT_VERSION, 1)], Corrupt),
        ([(col.LAYOUT_VERSION, 1), (col.PAYLOAD, 1000)], Corrupt),
        ([(col.LAYOUT_VERSION, 2)], IncompatibleStore),
    ],
)
async def test_read_of_an_unreadable_chunk_raises_an_error_that_names_it(
    make: Make, server: TablestoreServer, columns: list[tuple[str, Any]], error: type[Exception]
) -> None:
    made = await make()
    await begin(made, bytes(LARGE))
    row = Row(keys.primary_key(KEY, row_numbers(server)[0]), columns)
    async with async_client(server) as client:
        await client.put_row(TABLE, row, Condition(RowExistenceExpectation.IGNORE))
    with pytest.raises(error, match=r"a chunk of a payload|version 2"):
        await made.read(KEY)


# The thread


async def test_stop_ends_the_thread_though_the_client_fails_to_close(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = HookedClient(server)
    close = client.close

    async def fail() -> None:
        await close()
        raise RuntimeError("of the SDK")

    monkeypatch.setattr(client, "close", fail)
    made = TablestoreProvider(client)
    before = provider_threads()
    await made.start()
    [thread] = provider_threads() - before
    await made.stop()
    assert not thread.is_alive()


async def test_cancelled_start_ends_the_thread(server: TablestoreServer) -> None:
    server.ready_after = 3600
    before = provider_threads()
    starting = asyncio.create_task(provider(server.endpoint).start())
    await asyncio.sleep(0.3)
    [thread] = provider_threads() - before
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
