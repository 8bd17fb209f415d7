"""The requests of each call, counted by the server, and what depends on their number and order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from tablestore import PutRowItem, TableOptions

from providers.tablestore.support import (
    TABLE,
    all_rows,
    assert_only_tombstones,
    connect_to,
    requests_since,
    row_numbers,
    service_on,
)
from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.faults import Kind
from servers.tablestore.signatures import Account
from servers.tablestore_client import batch, sync_client
from session_history import SessionHistoryService
from session_history.providers.tablestore import LIMITS, TablestoreProvider, reader
from session_history.providers.tablestore import rows as layout
from session_history.providers.tablestore.digests import REMEMBERED_IDS, IdDigests
from session_history.providers.tablestore.rows import ALWAYS, EntryRow, HeadRow, random_id
from session_history_hooks import (
    ENTRY_KEYS,
    Appended,
    Conflict,
    Entry,
    Head,
    LimitExceeded,
    Position,
    SessionHistoryError,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    Users,
)
from session_history_hooks.testing import Connect, provider_machine
from session_history_hooks.testing.restorable_logs import made
from session_history_hooks.testing.subject import KEY, entry, opened, read, require, rewrite
from session_history_hooks.testing.users import walk_tombstones, walk_users

LOAD = ["GetRange"]
APPEND = ["BatchWriteRow"]
MB = 2**20


@pytest.fixture
async def service(server: TablestoreServer) -> AsyncIterator[SessionHistoryService]:
    async with service_on(server) as service:
        yield service


@pytest.fixture
async def provider(server: TablestoreServer) -> AsyncIterator[SessionHistoryProvider]:
    async with opened(connect_to(server)) as provider:
        yield provider


class Count:
    """The requests to a server since it was made."""

    def __init__(self, server: TablestoreServer) -> None:
        self._server = server
        self._before = len(server.requests)

    def taken(self) -> list[str]:
        """Return the requests since the last call of this method."""
        made = requests_since(self._server, self._before)
        self._before += len(made)
        return made


# A turn


async def say(service: SessionHistoryService, count: int, session_id: str = "s") -> None:
    for number in range(count):
        async with service.turn("u", session_id, native=True) as turn:
            turn.add({"role": "user", "content": f"{number}"})


async def test_a_turn_is_one_load_and_one_append(server: TablestoreServer, service: SessionHistoryService) -> None:
    count = Count(server)
    await say(service, 1)
    first = count.taken()
    print("the first turn of a session:", *first)
    assert len(first) <= 4
    for options in ({}, {"last_turns": 2}, {"turn_id": "mine"}, {"slot": "agent"}):
        count.taken()
        async with service.turn("u", "s", native=True, **options) as turn:
            assert count.taken() == LOAD
            turn.add({"role": "user", "content": "x"})
            assert turn.history
        assert count.taken() == APPEND


async def test_turn_costs_the_documented_capacity_units(
    server: TablestoreServer, service: SessionHistoryService
) -> None:
    """docs/reference/tablestore.md names these units for a turn of some 1,000 bytes."""

    async def units(service: SessionHistoryService) -> tuple[int, int]:
        before = server.units
        async with service.turn("u", "s", native=True) as turn:
            turn.add([{"role": "user", "content": "?" * 190}, {"role": "assistant", "content": "!" * 806}])
        spent = server.units - before
        return spent["read"], spent["write"]

    assert [await units(service) for _ in range(30)] == [(3, 2)] * 30
    async with service_on(server) as other:
        assert await units(other) == (10 + 2, 2)


@pytest.mark.parametrize("options", [{}, {"last_turns": 2}, {"turn_id": "mine"}, {"slot": "agent"}], ids=str)
async def test_turn_in_a_process_that_did_not_see_the_session_is_one_load_and_one_append(
    server: TablestoreServer, service: SessionHistoryService, options: dict[str, Any]
) -> None:
    await say(service, 20)
    async with service_on(server) as other:
        count = Count(server)
        async with other.turn("u", "s", native=True, **options) as turn:
            assert count.taken() == LOAD
            turn.add({"role": "user", "content": "x"})
        assert count.taken() == APPEND
        await say(other, 1)
        assert count.taken() == [*LOAD, *APPEND]
    await say(service, 1)  # another process appended meanwhile: a second load finds where the session stands
    assert count.taken() == [*LOAD, *LOAD, *APPEND]


async def test_repeated_turn_is_one_load(server: TablestoreServer, service: SessionHistoryService) -> None:
    async with service.turn("u", "s", turn_id="mine", native=True) as turn:
        turn.add({"role": "user", "content": "x"})
    async with service_on(server) as other:
        count = Count(server)
        async with other.turn("u", "s", turn_id="mine", native=True) as turn:
            assert turn.recorded == [{"role": "user", "content": "x"}]
        assert count.taken() == LOAD


async def test_get_session_is_one_load_and_append_message_one_append(
    server: TablestoreServer, service: SessionHistoryService
) -> None:
    await say(service, 20)
    async with service_on(server) as other:
        for last_turns in (None, 1, 3):
            count = Count(server)
            session = await other.get_session("u", "s", last_turns=last_turns)
            assert count.taken() == LOAD
            assert session is not None
            await other.append_message(session, {"role": "user", "content": "x"})
            assert count.taken() == APPEND
            await other.append_message(session, {"role": "user", "content": "y"})
            assert count.taken() == APPEND
    await service.update_session("u", "s", title="a title")
    assert count.taken() == [*LOAD, *APPEND]


async def test_create_list_and_delete_take_few_requests(
    server: TablestoreServer, service: SessionHistoryService
) -> None:
    count = Count(server)
    session = await service.create_session("u", "s", title="a title")
    created = count.taken()
    print("create:", *created)
    assert len(created) <= 3
    await service.append_message(session, {"role": "user", "content": "x"})
    assert count.taken() == APPEND
    await service.list_sessions("u")
    assert count.taken() == ["GetRange"]
    await service.list_sessions("u", limit=1)
    assert count.taken() == ["GetRange"]
    await service.delete_session("u", "s")
    deleted = count.taken()
    print("delete:", *deleted)
    assert len(deleted) <= 4
    async with service.turn("u", "s2", native=True) as turn:
        turn.add({"role": "user", "content": "x"})
    async with service.turn("nobody", "s2"):
        pass
    count.taken()
    assert await service.get_session("nobody", "s2") is not None
    assert count.taken() == LOAD


async def test_exclusive_turn_is_one_load_and_two_appends(
    server: TablestoreServer, service: SessionHistoryService
) -> None:
    await say(service, 3)
    async with service_on(server) as other:
        for each in (service, other):
            count = Count(server)
            async with each.turn("u", "s", concurrent="reject", native=True) as turn:
                assert count.taken() == [*LOAD, *APPEND]
                turn.add({"role": "user", "content": "x"})
            assert count.taken() == APPEND


async def test_turn_with_checkpoints_is_one_append_each(
    server: TablestoreServer, service: SessionHistoryService
) -> None:
    await say(service, 3)
    count = Count(server)
    async with service.record_turn("u", "s", native=True) as recorder:
        assert count.taken() == LOAD
        for number in range(4):
            recorder.turn.add({"role": "assistant", "content": f"{number}"})
            await recorder.checkpoint()
            assert count.taken() == APPEND
        recorder.turn.add({"role": "assistant", "content": "the end"})
    assert count.taken() == APPEND


# Long sessions


async def test_session_of_250_turns_is_read_and_deleted_in_few_requests(
    server: TablestoreServer, service: SessionHistoryService
) -> None:
    await say(service, 250)
    said = [f"{number}" for number in range(250)]
    async with service_on(server) as other:
        count = Count(server)
        whole = await other.get_session("u", "s", native=True)
        assert count.taken() == LOAD
        assert whole is not None
        assert [message["content"] for message in whole.messages] == said
    async with service_on(server) as other:
        count = Count(server)
        found: list[str] = []
        cursor = None
        pages = 0
        while True:
            page = await other.get_session("u", "s", last_turns=50, before=cursor, native=True)
            taken = count.taken()
            assert len(taken) <= (2 if cursor else 1)
            assert page is not None
            found[:0] = [message["content"] for message in page.messages]
            cursor, pages = page.earlier, pages + 1
            if cursor is None:
                break
        assert found == said
        assert pages == 5
        await other.list_sessions("u")
        assert count.taken() == ["GetRange"]
        await other.delete_session("u", "s")
        deleted = count.taken()
        print(f"250 entries deleted in {len(deleted)} requests")
        assert len(deleted) <= 3 + 2
    assert_only_tombstones(server)


def fill_directly(server: TablestoreServer, entries: list[Entry]) -> None:
    """Write the rows of a session without the provider."""
    client = sync_client(server)
    for start in range(0, len(entries), 100):
        items = [
            layout.put_entry(KEY, EntryRow(Position(0, seq), each, None, random_id(), seq), ALWAYS)
            for seq, each in enumerate(entries[start : start + 100], start=start + 1)
        ]
        assert client.batch_write_row(batch(TABLE, items)).is_all_succeed()
    ids = IdDigests()
    for each in entries:
        ids = ids.add([each.id])
    items = [layout.put_head(HeadRow(made(len(entries), KEY)[0], ids, random_id()), ALWAYS)]
    assert client.batch_write_row(batch(TABLE, items)).is_all_succeed()


async def test_session_of_5000_entries_is_read_and_deleted_in_few_requests(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    entries = [entry(number) for number in range(1, 5001)]
    fill_directly(server, entries)
    count = Count(server)
    log = await read(provider, last=5000)
    assert log.entries == tuple(entries)
    assert len(count.taken()) <= 2, "a page has 5,000 rows at most"
    for last in (2**31, 2**63, 10**30):
        assert (await read(provider, last=last)).entries == tuple(entries)
        assert len(count.taken()) <= 2
    assert (await read(provider, last=20)).entries == tuple(entries[-20:])
    assert count.taken() == LOAD
    assert (await read(provider)).entries == tuple(entries[-LIMITS.page :])
    assert count.taken() == LOAD
    assert (await read(provider, last=100, before=2000)).entries == tuple(entries[1899:1999])
    assert len(count.taken()) <= 2
    assert (await read(provider, after=10)).entries == tuple(entries[10 : 10 + LIMITS.page])
    assert len(count.taken()) <= 2
    assert (await read(provider, last=0, before=2**70)).first == 5001
    assert (await read(provider, after=2**70)).entries == ()
    count.taken()
    await provider.append(KEY, entry(5001), at=Position(0, 5000))
    assert count.taken() == APPEND
    assert (await read(provider, after=5001)).entries == ()
    assert count.taken() == LOAD
    [head] = (await provider.list(KEY.user_id, limit=9)).heads
    assert head.tail == Position(0, 5001)
    assert count.taken() == ["GetRange"]
    assert await provider.delete(KEY) is True
    deleted = count.taken()
    print(f"5,001 entries deleted in {len(deleted)} requests")
    assert len(deleted) <= 2 + 6 + 26 + 5  # the head, the tombstone, pages of 1,000, batches of 200 in each page
    assert_only_tombstones(server)


@contextmanager
def refused_after(server: TablestoreServer, writes: int) -> Iterator[None]:
    """Refuse the credentials after this many writes, so that a provider does not repeat the next one."""
    account, seen = server.account, 0

    def when(api: str, _table: str) -> bool:
        nonlocal seen
        seen += api == "BatchWriteRow"
        if seen == writes:
            server.account = Account(account.instance, "other", "other", None)
        return False

    server.faults = Faults(kinds=("before",), when=when)
    try:
        yield
    finally:
        server.faults, server.account = None, account


@pytest.mark.parametrize("writes", [1, 2, 3])
async def test_session_of_an_interrupted_delete_is_deleted(
    server: TablestoreServer, provider: SessionHistoryProvider, writes: int
) -> None:
    fill_directly(server, [entry(number) for number in range(1, 901)])
    with refused_after(server, writes), pytest.raises(SessionHistoryError):
        await provider.delete(KEY)
    assert len(all_rows(server)) == 901 - 200 * (writes - 1)
    async with opened(connect_to(server)) as other:
        for each in (provider, other):
            log = await read(each, entry_id="e900")
            assert (log.head.deleted, log.entries, log.match) == (True, (), None)
            assert (await each.list(KEY.user_id, limit=9)).heads == ()
        assert await other.delete(KEY) is False
    assert_only_tombstones(server)
    assert len(all_rows(server)) == 1


async def test_new_generation_after_an_interrupted_delete_shows_only_its_entries(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    fill_directly(server, [entry(number) for number in range(1, 901)])
    with refused_after(server, 2), pytest.raises(SessionHistoryError):
        await provider.delete(KEY)
    async with opened(connect_to(server)) as other:
        new = Entry("new", b"new")
        await other.append(KEY, new, at=Position(1, 0))
        await other.append(KEY, entry(900), at=Position(1, 1))
        for each in (provider, other):
            log = await read(each, entry_id="e3")
            assert (log.entries, log.match) == ((new, entry(900)), None)
        assert await other.delete(KEY) is True
    assert_only_tombstones(server)


async def test_delete_during_a_large_first_append_refuses_the_append(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    """The delete cannot tell these chunks from those of a dead writer, so it prevents the generation."""
    await provider.append(KEY, entry(1), at=Position(0, 0))
    await provider.delete(KEY)
    large = Entry("large", b"x" * (4 * MB + 1))
    async with opened(connect_to(server)) as other:
        held = Faults(kinds=("delay",), delay=0.4, when=third_write(), times=1)
        server.faults = held
        beginning = asyncio.create_task(provider.append(KEY, large, at=Position(1, 0)))
        while not held.injected:  # noqa: ASYNC110 - the server runs in another thread
            await asyncio.sleep(0.005)
        assert await other.delete(KEY) is False
        with pytest.raises(Conflict) as conflict:
            await beginning
        assert conflict.value.head == (await read(other)).head
        assert await other.append(KEY, large, at=Position(2, 0)) == Appended(Position(2, 1), replayed=False)
        assert (await read(other)).entries == (large,)
        assert await other.delete(KEY) is True
    assert_only_tombstones(server)


def third_write() -> Callable[[str, str], bool]:
    writes = 0

    def when(api: str, _table: str) -> bool:
        nonlocal writes
        writes += api == "BatchWriteRow"
        return writes == 3

    return when


# Large payloads


def chunks(server: TablestoreServer) -> int:
    return sum(number < 0 for number in row_numbers(server))


SIZES = [2 * MB - 1, 2 * MB, 2 * MB + 1, 4 * MB, 9 * MB]


@pytest.mark.parametrize("size", SIZES)
async def test_large_payload_comes_back(server: TablestoreServer, size: int) -> None:
    large = Entry("large", bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    needed = 0 if size <= 2 * MB else -(-size // (2 * MB))
    summary = b"c" * LIMITS.summary_bytes
    async with opened(connect_to(server)) as provider:
        await provider.append(KEY, entry(1), at=Position(0, 0))
        await provider.append(KEY, large, at=Position(0, 1), snapshot=Snapshot(2, large.origin, summary))
        await provider.append(KEY, entry(3), at=Position(0, 2))
    assert chunks(server) == needed
    async with opened(connect_to(server)) as provider:
        assert (await read(provider, entry_id="large")).entries == (entry(1), large, entry(3))
        assert (await read(provider, last=1, entry_id="large")).match == (2, large)
        assert (await provider.append(KEY, large, at=Position(0, 1))).replayed
        assert chunks(server) == needed
        await provider.delete(KEY)
    assert_only_tombstones(server)


async def test_payload_above_the_limit_is_refused_without_a_request(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    largest = Entry("largest", b"x" * LIMITS.entry_bytes)
    await provider.append(KEY, entry(1), at=Position(0, 0))
    count = Count(server)
    for larger in (Entry("e2", b"x" * (LIMITS.entry_bytes + 1)), Entry("e2", b"x")):
        snapshot = Snapshot(2, "e2", b"x" * (LIMITS.summary_bytes + 1)) if len(larger.payload) == 1 else None
        with pytest.raises(LimitExceeded):
            await provider.append(KEY, larger, at=Position(0, 1), snapshot=snapshot)
        with pytest.raises(LimitExceeded):
            await rewrite(provider, 1, larger.payload, snapshot=snapshot)
    with pytest.raises(LimitExceeded):
        await provider.append(KEY, entry(2), at=Position(0, LIMITS.entries))
    assert count.taken() == []
    await provider.append(KEY, largest, at=Position(0, 1))
    assert (await read(provider, last=1)).entries == (largest,)
    assert await provider.delete(KEY) is True
    assert_only_tombstones(server)


async def test_rewrite_between_small_and_large_payloads_leaves_no_chunks(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    await provider.append(KEY, entry(1), at=Position(0, 0))
    await provider.append(KEY, entry(2), at=Position(0, 1))
    last = ""
    for size in (5 * MB, 3 * MB, 7, 2 * MB + 1, 0, 4 * MB, 1):
        new = entry(1, b"y" * size)
        head = await rewrite(provider, 1, new.payload, rewrite_id=f"r{size}", last=last)
        last = head.rewrite_id
        assert last == f"r{size}"
        assert (await read(provider)).entries == (new, entry(2))
        assert chunks(server) == (-(-size // (2 * MB)) if size > 2 * MB else 0)


async def test_large_payload_that_loses_a_race_leaves_no_chunks(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    async with opened(connect_to(server)) as other:
        await provider.append(KEY, entry(1), at=Position(0, 0))
        await read(other)
        await provider.append(KEY, entry(2), at=Position(0, 1))
        large = Entry("large", b"x" * (5 * MB))
        with pytest.raises(Conflict):  # it knows an older tail
            await other.append(KEY, large, at=Position(0, 1))
        assert chunks(server) == 0
        await read(other)
        await rewrite(provider, 1)
        with pytest.raises(Conflict):
            await rewrite(other, 1, large.payload, rewrite_id="r2")
        assert chunks(server) == 0
        await provider.delete(KEY)
        with pytest.raises(Conflict):  # it knows the session before the delete
            await other.append(KEY, large, at=Position(0, 2))
        assert_only_tombstones(server)


async def test_rivals_with_large_payloads_leave_only_the_chunks_of_the_winner(server: TablestoreServer) -> None:
    size = 2 * MB + 1
    kinds: list[Kind] = ["delay", "row before", "row after", "before", "after"]
    async with AsyncExitStack() as stack:
        each = [await stack.enter_async_context(opened(connect_to(server))) for _ in range(3)]
        for seq in range(1, 6):
            server.faults = Faults(kinds, share=0.3, seed=seq, delay=0.01)
            entries = [Entry(f"{seq}.{number}", b"x" * size) for number in range(3)]
            answers = await asyncio.gather(
                *(one.append(KEY, mine, at=Position(0, seq - 1)) for one, mine in zip(each, entries, strict=True)),
                return_exceptions=True,
            )
            server.faults = None
            assert sum(isinstance(answer, Appended) for answer in answers) == 1
            assert sum(isinstance(answer, Conflict) for answer in answers) == 2
            assert chunks(server) == 2 * seq


async def test_rewrites_at_once_with_large_payloads_leave_only_the_chunks_of_the_winner(
    server: TablestoreServer,
) -> None:
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        await one.append(KEY, entry(1), at=Position(0, 0))
        await one.append(KEY, entry(2), at=Position(0, 1))
        lost, last = 0, ""
        for number in range(6):
            server.faults = Faults(("delay",), share=0.5, seed=number, delay=0.005)
            works = [
                rewrite(each, 1, b"y" * (3 * MB), rewrite_id=f"{number}{name}", last=last)
                for each, name in ((one, "a"), (other, "b"))
            ]
            answers = await asyncio.gather(*works, return_exceptions=True)
            [last] = [answer.rewrite_id for answer in answers if isinstance(answer, Head)]
            lost += sum(isinstance(answer, Conflict) for answer in answers)
            assert chunks(server) == 2
        assert lost == 6


# Listings


def put_listed(session_id: str, active_us: int) -> PutRowItem:
    """Put the head of a session of one entry."""
    head = replace(made(1, SessionKey("u", session_id))[0], active_us=active_us)
    return layout.put_head(HeadRow(head, IdDigests().add(["e1"]), random_id()), ALWAYS)


async def walked(provider: SessionHistoryProvider, user_id: str, limit: int) -> list[Head]:
    heads: list[Head] = []
    cursor = None
    while True:
        page = await provider.list(user_id, limit=limit, cursor=cursor)
        assert len(page.heads) <= limit
        heads += page.heads
        cursor = page.cursor
        if cursor is None:
            return heads


async def test_listing_of_2500_sessions_shows_each_once(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    client = sync_client(server)
    keys = [SessionKey("u", f"s{number}") for number in range(2500)]
    for start in range(0, 2500, 200):
        page = list(enumerate(keys))[start : start + 200]
        items = [put_listed(key.session_id, 10**15 + number // 7) for number, key in page]  # many tie
        assert client.batch_write_row(batch(TABLE, items)).is_all_succeed()
    count = Count(server)
    for limit, scan_limit in ((1000, 5000), (10**6, 5000), (333, 5000), (10**10, 100)):
        server.scan_limit = scan_limit
        heads = await walked(provider, "u", limit)
        order = [(-head.active_us, head.key.session_id) for head in heads]
        assert order == sorted(order)
        assert len(heads) == 2500
        assert {head.key for head in heads} == set(keys)
        assert len(count.taken()) <= -(-2500 // min(limit, LIMITS.page, scan_limit)) + 1


async def test_listing_of_sessions_with_large_summaries_shows_each_once(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    summary = b"c" * LIMITS.summary_bytes
    for number in range(11):
        await provider.append(
            SessionKey("u", f"s{number}"), entry(1), at=Position(0, 0), snapshot=Snapshot(1, "o1", summary)
        )
    count = Count(server)
    heads = await walked(provider, "u", 1000)
    assert [head.key.session_id for head in heads] == [f"s{number}" for number in reversed(range(11))]
    assert all(head.snapshot == Snapshot(1, "o1", summary) for head in heads)
    assert 2 < len(count.taken()) <= 5, "pages of 4 MB"


async def test_listing_goes_on_after_a_page_without_rows(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    """A table with a time to live has such pages: the service reads expired rows, but does not return them."""
    client = sync_client(server)
    now = time.time()
    server.clock = lambda: now
    for number in range(12):
        if number == 6:
            server.clock = lambda: now + 5 * 86400
        assert client.batch_write_row(batch(TABLE, [put_listed(f"s{number}", 10**15 - number)])).is_all_succeed()
    client.update_table(TABLE, TableOptions(time_to_live=86400, max_version=1, allow_update=False))
    server.scan_limit = 2
    heads = await walked(provider, "u", 5)
    assert [head.key.session_id for head in heads] == [f"s{number}" for number in range(6, 12)]


# Pages of one row


STORES: list[TablestoreServer] = []


def store_of_one_row_pages() -> Connect:
    server = TablestoreServer()
    server.scan_limit = 1
    STORES.append(server.__enter__())
    return connect_to(server)


@pytest.fixture(scope="module", autouse=True)
def _stores_are_closed() -> Iterator[None]:
    yield
    while STORES:
        STORES.pop().__exit__(None, None, None)


TestPagesOfOneRowAtRandom = provider_machine(store_of_one_row_pages).TestCase
TestPagesOfOneRowAtRandom.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)


# Ids


async def test_repeat_of_the_oldest_remembered_id_is_found_by_a_new_process(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    assert LIMITS.remembered_ids is not None
    total = LIMITS.remembered_ids + 40
    fill_directly(server, [entry(number) for number in range(1, total + 1)])
    oldest = total - LIMITS.remembered_ids + 1
    tail = Position(0, total)
    for seq in (oldest, oldest + 1, total - 1, total):
        async with opened(connect_to(server)) as fresh:
            count = Count(server)
            assert await fresh.append(KEY, entry(seq), at=tail) == Appended(Position(0, seq), replayed=True)
            made = count.taken()
            print(f"{total - seq + 1} entries back:", *made)
            assert len(made) <= 3
            assert (await read(fresh, last=1, entry_id=f"e{seq}")).match == (seq, entry(seq))
            assert len(count.taken()) <= 2
    # an id after `at` is found at any distance
    async with opened(connect_to(server)) as fresh:
        count = Count(server)
        assert await fresh.append(KEY, entry(3), at=Position(0, 2)) == Appended(Position(0, 3), replayed=True)
        assert len(count.taken()) <= 3
    assert len((await read(provider)).entries) == total


async def test_entry_with_keys_takes_one_request(server: TablestoreServer, provider: SessionHistoryProvider) -> None:
    await provider.append(KEY, entry(1), at=Position(0, 0))
    count = Count(server)
    keys = tuple(f"k{number}" for number in range(ENTRY_KEYS))
    await provider.append(KEY, replace(entry(2), keys=keys), at=Position(0, 1), tail_origin="o1")
    await provider.append(KEY, entry(3), at=Position(0, 2), tail_origin="o2")
    assert count.taken() == [*APPEND, *APPEND]
    with pytest.raises(Conflict) as conflict:
        await provider.append(KEY, replace(entry(4), keys=("new", *keys[:9])), at=Position(0, 3))
    assert conflict.value.keys == keys[:9]
    assert count.taken() == ["GetRange", "GetRange"]
    assert (await read(provider, last=0, entry_id="k9")).match == (2, replace(entry(2), keys=keys))
    assert count.taken() == ["GetRange", "GetRange"]


async def test_forgotten_keys_behind_the_position_are_found(
    server: TablestoreServer, provider: SessionHistoryProvider
) -> None:
    entries = [entry(number) for number in range(1, REMEMBERED_IDS + 41)]
    entries[9] = replace(entries[9], keys=("a", "b"))
    fill_directly(server, entries)
    for at in (Position(0, 9), Position(0, 3)):
        with pytest.raises(Conflict) as conflict:
            await provider.append(KEY, Entry("new", b"", keys=("e300", "b", "c", "a")), at=at)
        assert conflict.value.keys == ("b", "a")
        assert (await provider.append(KEY, Entry("b", b""), at=at)).position == Position(0, 10)
    assert (await read(provider, entry_id="a")).match is not None  # it is in the page that was read
    assert (await read(provider, last=1, entry_id="a")).match is None
    stored = await provider.append(KEY, Entry("new", b"", keys=("a",)), at=Position(0, len(entries)))
    assert stored.replayed is False
    await provider.append(KEY, Entry("newer", b""), at=stored.position)
    for last in (None, 0, 400):  # two entries have the key, and the newest is found
        found = await read(provider, last=last, entry_id="a")
        assert found.match is not None
        assert found.match[0] == stored.position.seq
    assert (await read(provider, last=20, before=20, entry_id="a")).match == found.match


# Pages


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAGE_BYTES", 6 * MB)


@pytest.mark.usefixtures("_small_pages")
@pytest.mark.parametrize(("size", "total"), [(MB, 24), (3 * MB, 10)], ids=["rows", "chunks"])
async def test_page_reads_no_more_than_it_holds(
    server: TablestoreServer, provider: SessionHistoryProvider, size: int, total: int
) -> None:
    held = 6 * MB // size
    entries = [entry(number, bytes([number]) * size) for number in range(1, total + 1)]
    for number, each in enumerate(entries):
        await provider.append(KEY, each, at=Position(0, number))
    windows: list[tuple[dict[str, Any], int]] = [
        ({}, total - held),
        ({"before": 9}, 8 - held),
        ({"after": 0}, 0),
        ({"after": 5}, 5),
        ({"after": 2, "before": 4}, 2),
    ]
    for window, skipped in windows:
        count = Count(server)
        log = await read(provider, **window)
        shown = min(held, window.get("before", 99) - 1 - skipped)
        assert (log.first, log.entries) == (skipped + 1, tuple(entries[skipped : skipped + shown]))
        assert len(count.taken()) <= 4
    log = await read(provider, last=7)
    assert log.entries == tuple(entries[-7:])


@pytest.mark.usefixtures("_small_pages")
async def test_page_has_an_entry_that_is_larger_than_a_page(provider: SessionHistoryProvider) -> None:
    entries = [entry(1), entry(2, b"x" * 7 * MB), entry(3)]
    for number, each in enumerate(entries):
        await provider.append(KEY, each, at=Position(0, number))
    windows: dict[int, dict[str, Any]] = {3: {}, 2: {"before": 3}, 1: {"after": 0}}
    for seq, window in windows.items():
        assert (await read(provider, **window)).entries == (entries[seq - 1],)


# Walks


async def test_walks_take_few_requests(server: TablestoreServer, provider: SessionHistoryProvider) -> None:
    assert isinstance(provider, TablestoreProvider)
    fill_directly(server, [entry(number) for number in range(1, 5001)])
    keys = [SessionKey(KEY.user_id, f"t{number:03}") for number in range(60)]
    for key in keys:
        await provider.append(key, entry(1), at=Position(0, 0))
        if key in keys[:40]:
            await provider.delete(key)
    for number in range(10):
        await provider.append(SessionKey(f"user {number}", "s"), entry(1), at=Position(0, 0))
    count = Count(server)
    found, cursor = await provider.list_users(limit=99), None
    assert (sorted(found.user_ids), found.cursor) == (["user", *(f"user {number}" for number in range(10))], None)
    assert count.taken() == ["GetRange"] * (11 + 2)  # the row of the store, and the end
    heads: list[Head] = []
    while True:
        page = await provider.list_tombstones(KEY.user_id, limit=30, cursor=cursor)
        heads += page.heads
        cursor = page.cursor
        if cursor is None:
            break
    assert [head.key for head in heads] == keys[:40]
    assert count.taken() == ["GetRange"] * 3  # the first one ends in the long session, and the second one with 30 heads


@pytest.mark.parametrize("scan_limit", [1, 2, 7])
async def test_walks_go_on_behind_short_pages(
    server: TablestoreServer, provider: SessionHistoryProvider, scan_limit: int
) -> None:
    users = require(provider, Users)
    for user in ("a", "b"):
        for session in ("s1", "s2", "s3"):
            for number in range(1, 4):
                await provider.append(SessionKey(user, session), entry(number), at=Position(0, number - 1))
    await provider.delete(SessionKey("b", "s1"))
    await provider.delete(SessionKey("b", "s3"))
    server.scan_limit = scan_limit
    assert await walk_users(users, 9) == {"a", "b"}
    assert await walk_tombstones(users, "a", 9) == {}
    assert {key.session_id for key in await walk_tombstones(users, "b", 1)} == {"s1", "s3"}
