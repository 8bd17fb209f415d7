"""Restores on Tablestore that are interrupted, or that meet other writers, and their requests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from providers.tablestore.support import (
    DIED,
    Make,
    MakeHooked,
    Send,
    assert_only_tombstones,
    die,
    puts,
    requests_since,
    row_numbers,
)
from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.faults import Kind
from session_history.providers.tablestore import TablestoreProvider, keys
from session_history_hooks import Appended, Conflict, Entry, Head, Position, SessionKey, Unavailable
from session_history_hooks.testing.restorable_logs import COPY, made, restore, tombstone
from session_history_hooks.testing.subject import entry, read

LARGE = 2_500_000
"""Bytes of a payload in two chunks."""

HEAD = puts(keys.HEAD_NUMBER)


def puts_entry(seq: int, generation: int = 0) -> Callable[[list[Any]], bool]:
    return puts(keys.number_of(Position(generation, seq)))


def log_of(count: int, generation: int = 0, size: int = 10) -> tuple[Head, tuple[Entry, ...]]:
    head, entries = made(count)
    entries = tuple(replace(each, payload=random.randbytes(size)) for each in entries)
    return replace(head, tail=Position(generation, count)), entries


async def assert_stored(provider: TablestoreProvider, head: Head, entries: Sequence[Entry]) -> None:
    log = await read(provider, COPY)
    assert (log.head, log.entries) == (head, tuple(entries))
    assert (await provider.list(COPY.user_id, limit=9)).heads == (head,)


# Interrupted restores

PLACES = {"a new session": 0, "a later generation": 3, "behind a page": 0, "behind a tombstone": 2}
"""Where a restore is interrupted, and the generation of the log."""


async def prepare(provider: TablestoreProvider, place: str, log: tuple[Head, Sequence[Entry]]) -> int:
    """Return the seq of the first entry that is to be restored."""
    if place == "behind a page":
        assert await restore(provider, *log, 1, 3)
        return 4
    if place == "behind a tombstone":
        assert await provider.restore(tombstone(1))
    return 1


async def die_at(make_hooked: MakeHooked, wanted: Callable[[list[Any]], bool], work: Callable[[Any], Any]) -> None:
    """Do a work and die before the first write of wanted rows."""
    dying, client = await make_hooked()
    client.before_write(wanted, die)
    with pytest.raises(Unavailable, match=DIED):
        await work(dying)


async def interrupt(
    make_hooked: MakeHooked, log: tuple[Head, Sequence[Entry]], first: int, wanted: Callable[[list[Any]], bool]
) -> None:
    await die_at(make_hooked, wanted, lambda dying: restore(dying, *log, first))


@pytest.mark.parametrize("place", PLACES)
async def test_interrupted_restore_shows_nothing_and_can_be_repeated(
    make: Make, make_hooked: MakeHooked, place: str
) -> None:
    provider, log = await make(), log_of(6, PLACES[place])
    first = await prepare(provider, place, log)
    before = await provider.read(COPY)
    await interrupt(make_hooked, log, first, HEAD)
    for each in (provider, await make()):
        assert await each.read(COPY) == before
        assert await each.read(COPY, last=1) == await provider.read(COPY, last=1)
        if before and not before.head.deleted:
            assert await each.read(COPY, after=before.head.tail.seq) == replace(before, first=4, entries=())
            assert (await read(each, COPY, entry_id="e5")).match is None
    assert await restore(provider, *log, first) is True
    await assert_stored(await make(), *log)


async def test_repeated_restore_leaves_no_chunks_of_the_interrupted_one(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    log = log_of(2, size=LARGE)
    await interrupt(make_hooked, log, 1, HEAD)
    assert await restore(await make(), *log) is True
    assert sum(number < 0 for number in row_numbers(server)) == 2 * 2
    await assert_stored(await make(), *log)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("knows", [False, True], ids=["knows nothing", "knows the log"])
async def test_append_after_an_interrupted_restore_removes_what_it_left(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, place: str, *, knows: bool
) -> None:
    provider, log = await make(), log_of(6, PLACES[place], LARGE)
    first = await prepare(provider, place, log)
    if place == "a later generation":  # an append cannot begin it
        log = (replace(log[0], tail=Position(0, 6)), log[1])
    if knows:
        await provider.read(COPY)
    await interrupt(make_hooked, log, first, HEAD)
    appending = provider if knows else await make()
    at = Position(log[0].tail.generation, first - 1)
    appended = await appending.append(COPY, Entry("new", b"new"), at=at)
    assert appended == Appended(replace(at, seq=first), replayed=False)
    assert await appending.append(COPY, Entry("newer", b""), at=appended.position)
    for each in (provider, await make()):
        copy = await read(each, COPY)
        assert [entry.id for entry in copy.entries] == [*(f"e{n}" for n in range(1, first)), "new", "newer"]
        assert copy.head == (await each.list(COPY.user_id, limit=9)).heads[0]
    assert sum(number < 0 for number in row_numbers(server)) == 2 * (first - 1)
    with pytest.raises(Conflict):
        await restore(provider, *log, first)
    assert await provider.delete(COPY) is True
    assert_only_tombstones(server)


async def test_append_below_an_interrupted_restore_removes_what_it_left(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    """The restore was of a later generation, so its rows are not in the way of the append."""
    provider = await make()
    await interrupt(make_hooked, log_of(6, 3), 1, HEAD)
    await provider.append(COPY, entry(1), at=Position(0, 0))
    assert (await read(provider, COPY)).entries == (entry(1),)
    await provider.append(COPY, entry(2), at=Position(0, 1))
    assert row_numbers(server) == [1, 2, keys.HEAD_NUMBER]


@pytest.mark.parametrize("place", PLACES)
async def test_delete_after_an_interrupted_restore_removes_what_it_left(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, place: str
) -> None:
    provider, log = await make(), log_of(6, PLACES[place], LARGE)
    first = await prepare(provider, place, log)
    await interrupt(make_hooked, log, first, HEAD)
    assert await provider.delete_user(COPY.user_id) == (place == "behind a page")
    assert_only_tombstones(server)
    copy = await provider.read(COPY)
    assert copy is None or copy.head.deleted


async def test_deleted_remains_of_a_restore_are_no_tombstone(make: Make, make_hooked: MakeHooked) -> None:
    provider, log = await make(), log_of(3, 2)
    await interrupt(make_hooked, log, 1, HEAD)
    assert await provider.delete(COPY) is False
    assert await provider.read(COPY) is None
    assert (await provider.list_tombstones(COPY.user_id, limit=9)).heads == ()
    with pytest.raises(Conflict) as conflict:
        await provider.append(COPY, entry(1), at=Position(1, 0))
    assert conflict.value.head is None
    assert await restore(await make(), *log) is True
    await assert_stored(provider, *log)


# Restores that meet other writers

Act = Callable[[TablestoreProvider], Awaitable[object]]


async def meet(
    make: Make,
    make_hooked: MakeHooked,
    log: tuple[Head, Sequence[Entry]],
    moment: Callable[[list[Any]], bool],
    act: Act,
) -> object:
    """Restore the entries behind the first three, while another process acts before a write."""
    (restoring, client), other = await make_hooked(), await make()
    await restore(restoring, *log, 1, 3)
    await other.read(COPY)
    client.before_write(moment, lambda: act(other))
    [answer] = await asyncio.gather(restore(restoring, *log, 4), return_exceptions=True)
    return answer


MOMENTS = {"before the entries": puts_entry(4), "before the head": HEAD}
each_moment = pytest.mark.parametrize("moment", MOMENTS)


@each_moment
@pytest.mark.parametrize("knows", [False, True], ids=["knows nothing", "knows the log"])
async def test_append_during_a_restore_wins(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, moment: str, *, knows: bool
) -> None:
    log, new = log_of(6, size=LARGE), Entry("new", b"new")

    async def append(other: TablestoreProvider) -> None:
        other = other if knows else await make()
        assert await other.append(COPY, new, at=Position(0, 3)) == Appended(Position(0, 4), replayed=False)

    answer = await meet(make, make_hooked, log, MOMENTS[moment], append)
    copy = await read(await make(), COPY)
    assert isinstance(answer, Conflict)
    assert answer.head == copy.head
    assert copy.entries == (*log[1][:3], new)
    assert row_numbers(server)[6:] == [1, 2, 3, 4, keys.HEAD_NUMBER]


@each_moment
async def test_delete_during_a_restore_wins(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, moment: str
) -> None:
    answer = await meet(make, make_hooked, log_of(6, size=LARGE), MOMENTS[moment], lambda it: it.delete(COPY))
    assert isinstance(answer, Conflict)
    assert answer.head is not None
    assert answer.head.deleted
    assert_only_tombstones(server)


@each_moment
async def test_heartbeat_during_a_restore_does_not_stop_it(make: Make, make_hooked: MakeHooked, moment: str) -> None:
    log = log_of(6)
    renew: Act = lambda other: other.renew(COPY, at=Position(0, 3))  # noqa: E731
    assert await meet(make, make_hooked, log, MOMENTS[moment], renew) is True
    await assert_stored(await make(), *log)


@each_moment
async def test_same_restore_by_two_processes_is_done_once(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer, moment: str
) -> None:
    log = log_of(6, size=LARGE)
    written: list[bool] = []

    async def restore_too(other: TablestoreProvider) -> None:
        written.append(await restore(other, *log, 4))

    assert await meet(make, make_hooked, log, MOMENTS[moment], restore_too) is False
    assert written == [True]
    await assert_stored(await make(), *log)
    assert row_numbers(server)[12:] == [1, 2, 3, 4, 5, 6, keys.HEAD_NUMBER]


async def test_restore_that_ends_before_an_append_removes_its_entries_is_kept(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    """The append has seen the staged entries, and the restore ends before the append writes the head."""
    (restoring, client), (appending, appending_client) = await make_hooked(), await make_hooked()
    log = log_of(3)
    staged, seen, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait_until_seen() -> None:
        loop.call_soon_threadsafe(staged.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(seen.wait(), loop))

    async def wait_until_ended() -> None:
        loop.call_soon_threadsafe(seen.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ended.wait(), loop))

    client.before_write(HEAD, wait_until_seen)
    appending_client.before_write(HEAD, wait_until_ended)
    restored = asyncio.create_task(restore(restoring, *log))
    await staged.wait()
    appended = asyncio.create_task(appending.append(COPY, Entry("new", b""), at=Position(0, 0)))
    assert await restored is True
    ended.set()
    with pytest.raises(Conflict) as conflict:
        await appended
    assert conflict.value.head == log[0]
    await assert_stored(await make(), *log)
    assert row_numbers(server) == [1, 2, 3, keys.HEAD_NUMBER]


async def test_entries_that_are_staged_again_after_an_append_are_not_shown(
    make: Make, make_hooked: MakeHooked, server: TablestoreServer
) -> None:
    """The batch of a restore arrives when another writer has already appended at its first position."""
    log = log_of(6)
    (restoring, client), other = await make_hooked(), await make()
    await restore(restoring, *log, 1, 3)

    async def write_and_die(items: list[Any], send: Send) -> None:
        if puts_entry(4)(items):
            await other.append(COPY, Entry("new", b""), at=Position(0, 3))
            await send(items)
            await die()

    client.on_write = write_and_die
    with pytest.raises(Unavailable, match=DIED):
        await restore(restoring, *log, 4)
    assert row_numbers(server) == [1, 2, 3, 4, 5, 6, keys.HEAD_NUMBER]
    for each in (other, await make()):
        copy = await read(each, COPY)
        assert [entry.id for entry in copy.entries] == ["e1", "e2", "e3", "new"]
        assert (await read(each, COPY, after=3)).entries == copy.entries[3:]
    await other.append(COPY, Entry("newer", b""), at=Position(0, 4))
    assert row_numbers(server) == [1, 2, 3, 4, 5, keys.HEAD_NUMBER]


async def test_rewrite_of_a_restored_log_keeps_it_restored(make: Make) -> None:
    provider, log = await make(), log_of(3)
    await restore(provider, *log)
    new = replace(log[1][2], payload=b"new")
    head = await provider.rewrite(COPY, new, at=Position(0, 3), rewrite_id="r", last_rewrite_id="", snapshot=None)
    await assert_stored(await make(), head, (*log[1][:2], new))
    following = log_of(4)[1][3]
    behind = replace(head, tail=Position(0, 4), tail_origin=following.origin)
    assert await provider.restore(behind, [following], behind="o3") is True
    await assert_stored(await make(), behind, (*log[1][:2], new, following))


# Faults

KINDS: tuple[Kind, ...] = ("before", "after", "drop before", "drop after", "row before", "row after", "refused")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("lost", ["entries", "head"])
async def test_restore_without_an_answer_is_done(
    make_hooked: MakeHooked, server: TablestoreServer, lost: str, *, after: bool
) -> None:
    provider, client = await make_hooked()
    log = log_of(6, 2, LARGE)

    async def nothing() -> None:
        return

    async def fail() -> None:
        raise ConnectionResetError

    wanted = HEAD if lost == "head" else puts_entry(1, 2)
    if after:
        client.after_write(wanted, nothing)
    else:
        client.before_write(wanted, fail)
    assert await restore(provider, *log) is True
    await assert_stored(provider, *log)
    assert sum(number < 0 for number in row_numbers(server)) == 12


@pytest.mark.parametrize(("seed", "size"), [(0, 10), (1, 10), (2, 10), (3, 100_000), (4, LARGE)])
async def test_restores_with_faults_at_once_write_the_log_once(
    make: Make, server: TablestoreServer, seed: int, size: int
) -> None:
    server.apart, server.any_order = 0.003, True
    log = log_of(4 if size == LARGE else 30, seed, size)
    one, other = await make(), await make()
    server.faults = Faults(KINDS, share=0.25, seed=seed, delay=0.003)
    answers = []
    for first, last in ((1, 3), (4, 30)):
        answers.append(await asyncio.gather(*(restore(each, *log, first, last) for each in (one, other))))
    server.faults = None
    assert all(any(written) for written in answers)
    for each in (one, other):
        await assert_stored(each, *log)
    assert await one.delete(COPY) is True
    assert_only_tombstones(server)


@pytest.mark.parametrize("seed", range(6))
async def test_append_and_restore_with_faults_at_once_leave_one_of_both(
    make: Make, server: TablestoreServer, seed: int
) -> None:
    server.apart, server.any_order = 0.003, True
    log, new = log_of(20), Entry("new", b"new")
    one, other = await make(), await make()
    await restore(one, *log, 1, 3)
    await read(other, COPY)
    server.faults = Faults((*KINDS, "delay"), share=0.3, seed=seed, delay=0.004)
    restored, appended = await asyncio.gather(
        restore(one, *log, 4), other.append(COPY, new, at=Position(0, 3)), return_exceptions=True
    )
    server.faults = None
    copy = await read(one, COPY)
    if isinstance(appended, Appended):
        assert isinstance(restored, Conflict)
        assert copy.entries == (*log[1][:3], new)
    else:
        assert (restored, type(appended)) == (True, Conflict)
        assert copy.entries == log[1]
    following = Entry("following", b"")
    await other.append(COPY, following, at=copy.head.tail)
    assert (await read(one, COPY)).entries == (*copy.entries, following)
    assert [number for number in row_numbers(server) if number > copy.head.tail.seq + 1] == [keys.HEAD_NUMBER]


# Requests


async def test_restore_takes_few_requests(make: Make, server: TablestoreServer) -> None:
    provider = await make()
    small, page = log_of(1), log_of(1000)

    async def requests(work: Awaitable[object]) -> list[str]:
        before = len(server.requests)
        await work
        return requests_since(server, before)

    assert await requests(restore(provider, *small)) == ["GetRange", "BatchWriteRow", "BatchWriteRow"]
    assert await requests(restore(provider, *small)) == ["GetRange", "GetRange"]
    head = replace(page[0], key=SessionKey("copy", "other"))
    assert await requests(provider.restore(head, page[1])) == ["GetRange"] + ["BatchWriteRow"] * (5 + 1)
    taken = await requests(provider.append(head.key, Entry("new", b""), at=Position(0, 1000), tail_origin="o1000"))
    assert taken == ["BatchWriteRow"]
    assert await requests(provider.restore(replace(tombstone(4), key=SessionKey("copy", "deleted")))) == [
        "GetRange",
        "BatchWriteRow",
    ]
