"""Tablestore while requests fail, answers get lost, and processes die or race."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from tablestore import OTSClient

from programs.tablestore_killed import LARGE
from providers.tablestore.support import (
    TABLE,
    HookedClient,
    Script,
    Send,
    all_rows,
    assert_only_tombstones,
    connect_to,
    provider_threads,
    service_on,
)
from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.faults import Kind
from servers.tablestore_client import batch, sync_client
from session_history import SessionHistoryService
from session_history.errors import SessionDeleted, SessionExists
from session_history.providers.tablestore import TablestoreProvider
from session_history.providers.tablestore import rows as layout
from session_history.providers.tablestore.digests import IdDigests
from session_history.providers.tablestore.rows import ABSENT, ALWAYS, EntryRow, HeadRow, random_id
from session_history_hooks import Appended, Conflict, Entry, Head, Position, Shard, Snapshot
from session_history_hooks.testing import Connect, provider_machine
from session_history_hooks.testing.restorable_logs import made, tombstone
from session_history_hooks.testing.subject import KEY, covering, entry, opened, read, rewrite
from support import PROGRAMS

KINDS: tuple[Kind, ...] = (
    "before", "after", "drop before", "drop after", "row before", "row after", "refused", "delay"
)  # fmt: skip


def counts(server: TablestoreServer) -> str:
    return f"{server.faults.injected if server.faults else 0} faults in {len(server.requests)} requests"


# Many writers

WRITERS = 4
TURNS = 30
"""The turns of each writer."""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", *IGNORED, str(PROGRAMS / program), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


IGNORED = ["-W", "ignore::ImportWarning", "-W", "ignore::ResourceWarning"]
"""The warnings of the SDK that pyproject.toml ignores."""


async def test_writers_in_many_processes_with_faults_lose_no_turn(server: TablestoreServer) -> None:
    async with service_on(server):
        pass  # creates the table
    running = {
        f"w{number}": start("tablestore_appending.py", server.endpoint, f"w{number}", TURNS)
        for number in range(WRITERS)
    }
    for process in running.values():
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    server.faults = Faults(KINDS, share=1 / 3, seed=1, delay=0.02)
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = {
        name: (await asyncio.to_thread(process.communicate, timeout=300))[0] for name, process in running.items()
    }
    assert {process.returncode for process in running.values()} == {0}
    print(f"{WRITERS * TURNS} turns: {counts(server)}")
    assert server.faults.injected > WRITERS * TURNS / 3
    assert all(json.loads(text) == list(range(TURNS)) for text in printed.values())
    server.faults = None

    async with service_on(server) as service, opened(connect_to(server)) as provider:
        session = await service.get_session("u", "s", native=True)
        log = await provider.read(KEY_OF_WRITERS, last=10**4)
    assert session is not None
    assert log is not None
    assert log.head.tail == Position(0, WRITERS * TURNS)
    assert log.head.current_snapshot is not None
    assert len({each.id for each in log.entries}) == len(log.entries) == WRITERS * TURNS == session.turns
    by_writer: defaultdict[str, list[int]] = defaultdict(list)
    for first in range(0, len(session.messages), 3):
        turn = session.messages[first : first + 3]
        assert turn == [{**turn[0], "part": part} for part in range(3)]
        by_writer[turn[0]["by"]].append(turn[0]["turn"])
    assert by_writer == {name: list(range(TURNS)) for name in running}


KEY_OF_WRITERS = type(KEY)("u", "s")


class Witness:
    """A record of turns and deletes with their times, and a check of what must be stored afterwards.

    :ivar appended: for each turn, its session, its begin and end, and true if it was acknowledged.
    """

    def __init__(self) -> None:
        self.appended: dict[str, tuple[str, float, float, bool]] = {}
        self.deleted: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    async def turn(self, service: SessionHistoryService, session: str, name: str) -> None:
        began = time.monotonic()
        try:
            async with service.turn("u", session, last_turns=2, native=True) as turn:
                turn.add([{"turn": name, "part": part} for part in range(3)])
        except SessionDeleted:
            self.appended[name] = session, began, time.monotonic(), False
            with suppress(SessionExists):
                await service.create_session("u", session)
        else:
            self.appended[name] = session, began, time.monotonic(), True

    async def delete(self, service: SessionHistoryService, session: str) -> None:
        began = time.monotonic()
        await service.delete_session("u", session)
        self.deleted[session].append((began, time.monotonic()))

    def check(self, session: str, messages: list[dict[str, Any]]) -> None:
        turns = [messages[first : first + 3] for first in range(0, len(messages), 3)]
        assert all(turn == [{"turn": turn[0]["turn"], "part": part} for part in range(3)] for turn in turns)
        seen = [turn[0]["turn"] for turn in turns]
        assert len(set(seen)) == len(seen)
        for name, (where, began, ended, acknowledged) in self.appended.items():
            if where != session:
                assert name not in seen
            elif name in seen:
                assert acknowledged, "a refused turn is stored"
                assert not any(ended < begin for begin, _ in self.deleted[session]), "a deleted turn is stored"
            elif acknowledged:
                assert any(began < end for _, end in self.deleted[session]), "an acknowledged turn is lost"


@pytest.mark.parametrize("seed", [1, 2])
async def test_deletes_and_appends_at_once_with_faults_keep_every_acknowledged_turn(
    server: TablestoreServer, seed: int
) -> None:
    witness, chance = Witness(), random.Random(seed)
    server.apart, server.any_order = 0.005, True
    sessions = ["a", "b", "c"]

    async def work(service: SessionHistoryService, name: str) -> None:
        for number in range(22):
            session = chance.choice(sessions)
            if chance.random() < 0.25:
                await witness.delete(service, session)
            else:
                await witness.turn(service, session, f"{name}.{number}")

    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(service_on(server)) for _ in range(4)]
        server.faults = Faults(KINDS, share=1 / 3, seed=seed, delay=0.01)
        await asyncio.gather(*(work(service, f"w{number}") for number, service in enumerate(services)))
        print(f"{len(witness.appended)} turns, {sum(map(len, witness.deleted.values()))} deletes: {counts(server)}")
        async with service_on(server) as fresh:
            for service in (*services, fresh):
                for session in sessions:
                    found = await service.get_session("u", session, native=True)
                    witness.check(session, found.messages if found else [])
        await services[0].delete_user("u")
        for service in services:
            assert await service.list_sessions("u") == []
        assert_only_tombstones(server)


# Random histories


def store_with_faults() -> Connect:
    server = TablestoreServer()
    server.__enter__()
    server.apart = 0.002
    server.faults = Faults(KINDS, share=1 / 5, seed=random.getrandbits(32), delay=0.001)
    connect = connect_to(server)
    STORES.append(server)
    return connect


STORES: list[TablestoreServer] = []


@pytest.fixture(scope="module", autouse=True)
def _stores_are_closed() -> Iterator[None]:
    yield
    while STORES:
        STORES.pop().__exit__(None, None, None)


TestTablestoreAtRandom = provider_machine(store_with_faults).TestCase
TestTablestoreAtRandom.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)


# Rows of a dead writer


class Remains:
    """The rows that a writer left when it died.

    :ivar kept: the entries that were stored before.
    :ivar stored: true if the entry of the dead writer is stored.
    """

    def __init__(self, kept: int, *, stored: bool = False, payload: bytes | None = None) -> None:
        self.kept = kept
        self.stored = stored
        self.seq = kept + 1
        self.entry = entry(self.seq, payload)


REMAINS = {
    "an entry without its head": Remains(2, stored=True),
    "a head without its entry": Remains(2),
    "a generation without a head": Remains(0, stored=True),
    "chunks without an entry": Remains(2, payload=LARGE),
}

FaultStep = tuple[str, Kind | None, int]

KILLED: dict[str, tuple[str, list[FaultStep]]] = {
    "an entry without its head": ("third", [("BatchWriteRow", "row before", 1), ("GetRange", "delay", 0)]),
    "chunks without an entry": ("large", [("BatchWriteRow", None, 0)] * 2 + [("BatchWriteRow", "delay", 0)]),
}
"""For a state that a killed process leaves: its work, and its requests up to the one during which it is killed.

The rows of the other states are written directly.
"""


async def killed(server: TablestoreServer, work: str, *steps: FaultStep) -> None:
    """Kill a process when one of its requests is held."""
    process = start("tablestore_killed.py", server.endpoint, work)
    try:
        faults = server.faults = Script(delay=300, steps=list(steps))
        assert steps[-1][1] == "delay"
        deadline = time.monotonic() + 30
        while faults.steps and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            assert process.poll() is None, "the process ended before the request"
        assert not faults.steps
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        server.faults = None
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("state", REMAINS)
async def test_session_of_a_dead_writer_is_corrected(server: TablestoreServer, state: str) -> None:
    remains = REMAINS[state]
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, remains.kept)
    if state in KILLED:
        work, steps = KILLED[state]
        await killed(server, work, *steps)
    else:
        write_remains(sync_client(server), state)
    await assert_corrected(server, remains)


async def fill_covered(provider: Any, count: int) -> None:
    for number in range(1, count + 1):
        await provider.append(KEY, entry(number), at=Position(0, number - 1), snapshot=covering(number))


def write_remains(client: OTSClient, state: str) -> None:
    """Write the rows of a dead writer with only the SDK."""
    remains = REMAINS[state]
    if state == "a head without its entry":
        ids = IdDigests()
        for number in range(1, remains.seq + 1):
            ids = ids.add([f"e{number}"])
        items = [layout.put_head(HeadRow(made(remains.seq, KEY)[0], ids, random_id()), ALWAYS)]
    else:
        row = EntryRow(Position(0, remains.seq), remains.entry, None, random_id(), 2 * 10**15)
        items = [layout.put_entry(KEY, row, ABSENT)]
    written = client.batch_write_row(batch(TABLE, items))
    assert written.is_all_succeed()


async def assert_corrected(server: TablestoreServer, remains: Remains) -> None:
    connect = connect_to(server)
    seen = remains.kept + remains.stored
    at = Position(0, remains.kept)
    for _ in range(2):
        async with opened(connect) as provider:
            log = await provider.read(KEY, entry_id=remains.entry.id)
            assert (log.head.tail if log else Position(0, 0)) == Position(0, seen)
            if log is not None:
                assert [each.id for each in log.entries] == [f"e{number}" for number in range(1, seen + 1)]
                assert log.head.tail_origin == f"o{seen}"
                assert log.match == ((remains.seq, remains.entry) if remains.stored else None)
                assert log.head.snapshot in (None, covering(log.head.snapshot.seq if log.head.snapshot else 0))
                assert log.head.snapshot is None or log.head.snapshot.seq <= seen
            assert len((await provider.list(KEY.user_id, limit=9)).heads) <= 1

    for seq in range(1, remains.kept + 1):  # the ids are still remembered
        async with opened(connect) as provider:
            again = await provider.append(KEY, entry(seq), at=Position(0, seen))
            assert again == Appended(Position(0, seq), replayed=True)
            assert (await read(provider, last=0, entry_id=entry(seq).id)).match == (seq, entry(seq))
    async with opened(connect) as provider:
        again = await provider.append(KEY, remains.entry, at=at, snapshot=covering(remains.seq))
        assert again == Appended(Position(0, remains.seq), replayed=remains.stored)
        [listed] = (await provider.list(KEY.user_id, limit=9)).heads
        assert (listed.tail, listed.tail_origin) == (Position(0, remains.seq), remains.entry.origin)
        assert listed == (await read(provider)).head
    async with opened(connect) as provider:
        again = await provider.append(KEY, remains.entry, at=at)
        assert again == Appended(Position(0, remains.seq), replayed=True)
        following = entry(remains.seq + 1)
        await provider.append(KEY, following, at=Position(0, remains.seq), snapshot=covering(remains.seq + 1))
        log = await read(provider)
        assert log.entries == (*map(entry, range(1, remains.kept + 1)), remains.entry, following)
        assert log.head.current_snapshot == covering(remains.seq + 1)
    async with opened(connect) as provider:
        assert await provider.delete(KEY) is True
        assert_only_tombstones(server)
        assert len(all_rows(server)) == 1


@pytest.mark.parametrize(
    "state", ["an entry without its head", "a generation without a head", "a head without its entry"]
)
async def test_rows_of_a_dead_writer_can_be_appended_to_and_deleted_at_once(
    server: TablestoreServer, state: str
) -> None:
    remains = REMAINS[state]
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, remains.kept)
        write_remains(sync_client(server), state)
        tail = Position(0, remains.kept + remains.stored)
        other = Entry("other", b"other")
        assert await provider.append(KEY, other, at=tail) == Appended(Position(0, tail.seq + 1), replayed=False)
        log = await read(provider)
        assert [each.id for each in log.entries] == [*(f"e{n}" for n in range(1, tail.seq + 1)), "other"]
        assert await provider.delete(KEY) is True
        assert_only_tombstones(server)
    async with opened(connect_to(server)) as provider:
        await provider.append(KEY, entry(1), at=Position(1, 0))
        row = EntryRow(Position(1, 2), entry(2), None, random_id(), 2 * 10**15)
        sync_client(server).batch_write_row(batch(TABLE, [layout.put_entry(KEY, row, ABSENT)]))
        assert await provider.delete(KEY) is True
        assert_only_tombstones(server)


@pytest.mark.parametrize("state", ["an entry without its head", "a head without its entry"])
async def test_read_after_the_known_tail_shows_the_entry_of_a_dead_writer(server: TablestoreServer, state: str) -> None:
    remains = REMAINS[state]
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, remains.kept)
        write_remains(sync_client(server), state)
        log = await read(provider, after=remains.kept)
        assert log.head.tail == Position(0, remains.kept + remains.stored)
        assert log.entries == ((remains.entry,) if remains.stored else ())


async def assert_deleted_for_good(server: TablestoreServer) -> None:
    async with opened(connect_to(server)) as provider:
        log = await read(provider, entry_id="e1")
        assert (log.head.deleted, log.entries, log.match) == (True, (), None)
        assert (await provider.list(KEY.user_id, limit=9)).heads == ()
        with pytest.raises(Conflict):
            await provider.append(KEY, entry(4), at=Position(0, 3))
        await provider.append(KEY, entry(1), at=Position(1, 0))
        assert (await read(provider)).entries == (entry(1),)
        assert await provider.delete(KEY) is True
        assert await provider.delete(KEY) is False
        assert_only_tombstones(server)
        assert len(all_rows(server)) == 1


async def test_delete_completes_a_killed_delete(server: TablestoreServer) -> None:
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, 3)
    await killed(server, "delete", ("BatchWriteRow", None, 0), ("GetRange", "delay", 0))
    assert len(all_rows(server)) == 4
    async with opened(connect_to(server)) as provider:
        assert await provider.delete(KEY) is False
        assert_only_tombstones(server)


async def test_session_with_tombstone_and_entries_is_deleted(server: TablestoreServer) -> None:
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, 3)
    row = HeadRow(replace(tombstone(0), key=KEY), IdDigests(), random_id())
    sync_client(server).batch_write_row(batch(TABLE, [layout.put_head(row, ALWAYS)]))
    assert len(all_rows(server)) == 4
    await assert_deleted_for_good(server)


async def test_rewrite_after_an_interrupted_one_names_it_and_raises_conflict(server: TablestoreServer) -> None:
    """Readers may or may not see an interrupted rewrite."""
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, 3)
    row = EntryRow(Position(0, 2), entry(2, b"erased"), None, random_id(), 2 * 10**15, rewrite_id="r1")
    sync_client(server).batch_write_row(batch(TABLE, [layout.put_entry(KEY, row, ALWAYS)]))
    async with opened(connect_to(server)) as provider:
        log = await read(provider)
        assert log.entries == (entry(1), entry(2, b"erased"), entry(3))
        assert log.head.rewrite_id == ""
        assert (await provider.append(KEY, entry(3), at=Position(0, 2))).replayed
        assert not (await provider.append(KEY, entry(4), at=Position(0, 3))).replayed
        with pytest.raises(Conflict) as conflict:
            await rewrite(provider, 2, b"again", rewrite_id="r2")
        assert conflict.value.head is not None
        assert conflict.value.head.rewrite_id == "r1"
        assert (await rewrite(provider, 2, b"again", rewrite_id="r2", last="r1")).rewrite_id == "r2"
        assert (await read(provider)).entries == (entry(1), entry(2, b"again"), entry(3), entry(4))
        assert await provider.delete(KEY) is True
        assert_only_tombstones(server)


# Rivals


async def exhausted(script: Script) -> None:
    """Wait until all faults were injected."""
    while script.steps:  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.001)


async def together(*works: Awaitable[Any]) -> list[Any]:
    """Return the answers, and the Conflict of each refused call."""
    answers = await asyncio.gather(*works, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Conflict):
            raise answer
    return answers


async def test_head_of_a_loser_is_replaced_before_the_winner_is_answered(server: TablestoreServer) -> None:
    """The head of the winner is lost, and the head of the loser is written. Only the entries show the winner."""
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        await fill_covered(one, 2)
        await read(other)
        script = server.faults = Script(delay=0.4, steps=[("BatchWriteRow", "row before", 1), ("GetRange", "delay", 0)])
        winning = asyncio.create_task(one.append(KEY, entry(3), at=Position(0, 2), snapshot=covering(3)))
        await exhausted(script)
        with pytest.raises(Conflict) as conflict:
            rival = Entry("x", b"x")
            await other.append(KEY, rival, at=Position(0, 2), snapshot=Snapshot(3, rival.origin, b"of x"))
        assert not winning.done()
        head = conflict.value.head
        assert head is not None
        assert (head.tail, head.tail_origin) == (Position(0, 3), "o3")
        assert head.snapshot is None or head.snapshot.origin != rival.origin
        assert await winning == Appended(Position(0, 3), replayed=False)
        async with opened(connect_to(server)) as fresh:
            for provider in (one, other, fresh):
                [listed] = (await provider.list(KEY.user_id, limit=9)).heads
                assert listed == (await read(provider)).head
                assert (listed.tail_origin, listed.current_snapshot) == ("o3", covering(3))


async def test_rivals_for_one_position_have_one_winner(server: TablestoreServer) -> None:
    server.apart = 0.005
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        for seq in range(1, 26):
            at = Position(0, seq - 1)
            names = [f"{seq}.{number}" for number in range(2)]
            server.faults = Faults(KINDS, share=0.5, seed=seq, delay=0.003)
            answers = await together(
                *(
                    each.append(KEY, Entry(name, b"", origin=name), at=at, snapshot=Snapshot(seq, name, name.encode()))
                    for each, name in zip((one, other), names, strict=True)
                )
            )
            server.faults = None
            [winner] = [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Appended)]
            for each in (one, other):
                [listed] = (await each.list(KEY.user_id, limit=9)).heads
                log = await read(each, last=1)
                assert [item.id for item in log.entries] == [winner]
                assert log.head == listed
                assert listed.current_snapshot == Snapshot(seq, winner, winner.encode())


@pytest.mark.parametrize(("kinds", "any_order"), [((), False), ((), True), (KINDS, False), (KINDS, True)])
async def test_rivals_under_one_id_store_one_entry(
    server: TablestoreServer, kinds: tuple[Kind, ...], *, any_order: bool
) -> None:
    """One turn reached two processes. The snapshot is that of the stored entry."""
    server.apart, server.any_order = 0.01, any_order
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        for seq in range(1, 26):
            server.faults, at = Faults(kinds, share=0.5, seed=seq, delay=0.003), Position(0, seq - 1)
            answers = await asyncio.gather(
                *(
                    each.append(KEY, Entry(f"e{seq}", by, by.decode()), at=at, snapshot=Snapshot(seq, by.decode(), by))
                    for each, by in ((one, b"one"), (other, b"other"))
                )
            )
            server.faults = None
            assert sorted(answer.replayed for answer in answers) == [False, True]
            for each in (one, other):
                [listed] = (await each.list(KEY.user_id, limit=9)).heads
                log = await read(each, last=1)
                assert log.entries[0].payload == (b"other" if answers[0].replayed else b"one")
                snapshot = Snapshot(seq, log.entries[0].origin, log.entries[0].payload)
                assert log.head.current_snapshot in (snapshot, None)
                if not any_order:  # in any order, the loser's head may be written after the winner's, before its entry
                    assert log.head == listed
                    assert listed.current_snapshot == snapshot


@pytest.mark.parametrize("any_order", [False, True])
async def test_entry_from_two_processes_is_stored_once(server: TablestoreServer, *, any_order: bool) -> None:
    """Both have the origin of its author. Only the answers differ."""
    server.apart, server.any_order = 0.01, any_order
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        for seq in range(1, 26):
            server.faults, at = Faults(KINDS, share=0.5, seed=seq, delay=0.003), Position(0, seq - 1)
            works = [each.append(KEY, entry(seq), at=at, snapshot=covering(seq)) for each in (one, other)]
            answers = await asyncio.gather(*works)
            server.faults = None
            assert sorted(answer.replayed for answer in answers) == [False, True]
            for each in (one, other):
                [listed] = (await each.list(KEY.user_id, limit=9)).heads
                log = await read(each, last=1)
                assert (log.entries, log.head) == ((entry(seq),), listed)
                assert listed.current_snapshot == covering(seq)


@pytest.mark.parametrize("any_order", [False, True])
async def test_message_that_two_processes_deliver_is_stored_once(server: TablestoreServer, *, any_order: bool) -> None:
    server.apart, server.any_order = 0.01, any_order
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        for seq in range(1, 26):
            server.faults, at = Faults(KINDS, share=0.5, seed=seq, delay=0.003), Position(0, seq - 1)
            rivals = [Entry(f"{seq}{by}", b"", keys=(f"new {by}{seq}", f"message {seq}")) for by in "ab"]
            answers = await together(
                *(each.append(KEY, rival, at=at) for each, rival in zip((one, other), rivals, strict=True))
            )
            server.faults = None
            [winner] = [rival for rival, answer in zip(rivals, answers, strict=True) if isinstance(answer, Appended)]
            [conflict] = [answer for answer in answers if isinstance(answer, Conflict)]
            assert conflict.keys == (f"message {seq}",)
            assert (await read(one, last=1)).entries == (await read(other, last=1)).entries == (winner,)


@pytest.mark.parametrize("seed", range(3))
async def test_store_has_one_identity_and_one_place_though_requests_fail(server: TablestoreServer, seed: int) -> None:
    server.faults = Faults(KINDS, share=0.4, seed=seed, delay=0.003)
    providers = [connect_to(server)() for _ in range(4)]
    await asyncio.gather(*(each.start() for each in providers))
    infos = [await each.store_info() for each in providers]
    claims = [Shard(number, 4) for number in range(4)]
    claimed = await asyncio.gather(
        *(each.store_info(shard=claim) for each, claim in zip(providers, claims, strict=True))
    )
    server.faults = None
    assert len(set(infos)) == len(set(claimed)) == 1
    assert claimed[0] == replace(infos[0], shard=claimed[0].shard)
    assert claimed[0].shard in claims
    for each in providers:
        await each.stop()


async def test_rivals_for_a_new_generation_have_one_winner(server: TablestoreServer) -> None:
    server.apart = 0.005
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        for generation in range(15):
            names = [f"{generation}.{number}" for number in range(2)]
            server.faults = Faults(KINDS, share=0.5, seed=generation, delay=0.003)
            answers = await together(
                *(
                    each.append(
                        KEY,
                        Entry(name, b"", origin=name),
                        at=Position(generation, 0),
                        snapshot=Snapshot(1, name, name.encode()),
                    )
                    for each, name in zip((one, other), names, strict=True)
                )
            )
            server.faults = None
            [winner] = [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Appended)]
            [listed] = (await other.list(KEY.user_id, limit=9)).heads
            assert listed.current_snapshot == Snapshot(1, winner, winner.encode())
            assert (await read(one)).head == listed
            assert await one.delete(KEY) is True


ROUNDS = 20


async def repeat(
    server: TablestoreServer,
    race: Callable[[TablestoreProvider, TablestoreProvider, int], Awaitable[None]],
    kinds: tuple[Kind, ...],
) -> None:
    async with opened(connect_to(server)) as one, opened(connect_to(server)) as other:
        assert isinstance(one, TablestoreProvider)
        assert isinstance(other, TablestoreProvider)
        for number in range(ROUNDS):
            server.faults = Faults(kinds, share=0.5, seed=number, delay=random.Random(number).uniform(0.0005, 0.006))
            await race(one, other, number)


WITH_DELAYS: tuple[Kind, ...] = ("delay",)
each_kind = pytest.mark.parametrize("kinds", [WITH_DELAYS, KINDS], ids=["delays", "faults"])


@each_kind
async def test_two_rewrites_at_once_have_one_winner(server: TablestoreServer, kinds: tuple[Kind, ...]) -> None:
    """Rewrites of different entries compete as well, because the head names one rewrite only."""
    async with opened(connect_to(server)) as provider:
        await fill_covered(provider, 3)
    payloads = {2: b"payload 2", 3: b"payload 3"}
    last = ""

    async def race(one: TablestoreProvider, other: TablestoreProvider, number: int) -> None:
        nonlocal last
        tries = [(2, f"{number}a"), (2 + number % 2, f"{number}b")]
        answers = await together(
            *(
                rewrite(each, seq, rewrite_id.encode(), rewrite_id=rewrite_id, last=last)
                for each, (seq, rewrite_id) in zip((one, other), tries, strict=True)
            )
        )
        server.faults = None
        won = [made for made, answer in zip(tries, answers, strict=True) if isinstance(answer, Head)]
        assert len(won) == 1
        for seq, rewrite_id in won:
            payloads[seq], last = rewrite_id.encode(), rewrite_id
        assert [answer.rewrite_id for answer in answers if isinstance(answer, Head)] == [last]
        for each in (one, other):
            log = await read(each)
            assert {seq: log.entries[seq - 1].payload for seq in payloads} == payloads
            assert log.head.rewrite_id == last

    await repeat(server, race, kinds)


@each_kind
async def test_two_deletes_at_once_have_one_winner(server: TablestoreServer, kinds: tuple[Kind, ...]) -> None:
    async def race(one: TablestoreProvider, other: TablestoreProvider, number: int) -> None:
        faults, server.faults = server.faults, None
        for seq in (1, 2):
            await one.append(KEY, entry(seq), at=Position(number, seq - 1))
        server.faults = faults
        assert sorted(await together(one.delete(KEY), other.delete(KEY))) == [False, True]
        server.faults = None
        assert_only_tombstones(server)
        assert (await read(other)).head.tail == Position(number, 0)

    await repeat(server, race, kinds)


@each_kind
async def test_delete_and_append_at_once_leave_the_session_deleted(
    server: TablestoreServer, kinds: tuple[Kind, ...]
) -> None:
    async def race(one: TablestoreProvider, other: TablestoreProvider, number: int) -> None:
        faults, server.faults = server.faults, None
        before = await one.read(KEY, last=0)
        head = before.head if before else None
        generation = 0 if head is None else head.tail.generation + (1 if head.deleted else 0)
        if head is None or head.deleted:
            await one.append(KEY, entry(1), at=Position(generation, 0))
        await read(other)
        server.faults = faults
        writing = other.append(KEY, entry(2), at=Position(generation, 1), snapshot=covering(2))
        deleted, written = await together(one.delete(KEY), writing)
        assert deleted is True
        server.faults = None
        assert written == Appended(Position(generation, 2), replayed=False) or isinstance(written, Conflict)
        for each in (one, other):
            log = await read(each)
            assert log.head.deleted, "one delete, and no append to a new generation"
            assert log.entries == ()
        assert_only_tombstones(server)

    await repeat(server, race, kinds)


@each_kind
async def test_renewal_and_append_at_once_both_succeed(server: TablestoreServer, kinds: tuple[Kind, ...]) -> None:
    async def race(one: TablestoreProvider, other: TablestoreProvider, number: int) -> None:
        at = Position(0, number)
        if number:
            heartbeat = (await read(other, last=0)).head.heartbeat
        renewed, written = await together(
            one.renew(KEY, at=at), other.append(KEY, entry(number + 1), at=at, snapshot=covering(number + 1))
        )
        server.faults = None
        assert written == Appended(Position(0, number + 1), replayed=False)
        log = await read(one, last=1)
        assert log.entries == (entry(number + 1),)
        assert log.head == (await read(other, last=0)).head
        if number and kinds is WITH_DELAYS:
            assert log.head.heartbeat == heartbeat + renewed
        elif number and not renewed:  # the heartbeat may be stored though the answer denies it
            assert log.head.heartbeat in (heartbeat, heartbeat + 1)
        assert log.head.current_snapshot in (None, covering(number + 1))

    await repeat(server, race, kinds)


# Without a stop


@pytest.mark.parametrize("where", ["its own thread", "another thread"])
async def test_dropped_provider_finishes_its_write_and_ends_its_thread(server: TablestoreServer, where: str) -> None:
    """Any thread may collect garbage, also the thread of the provider, which cannot wait for itself."""
    client, dropped = HookedClient(server), threading.Event()

    async def write_and_collect(items: list[Any], send: Send) -> Any:
        answer = await send(items)
        await asyncio.to_thread(dropped.wait, 10)
        if where == "its own thread":
            gc.collect()
        return answer

    provider: Any = TablestoreProvider(client)
    before = provider_threads()
    await provider.start()
    [thread] = provider_threads() - before
    provider.itself = provider  # only the garbage collector ends a cycle
    client.on_write = write_and_collect
    server.requests.clear()
    writing = asyncio.create_task(provider.append(KEY, entry(1), at=Position(0, 0)))
    while not server.count("BatchWriteRow"):  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.001)
    writing.cancel()
    await asyncio.wait([writing])
    del provider, writing
    dropped.set()
    if where == "another thread":
        await asyncio.wait_for(asyncio.to_thread(gc.collect), 10)
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    async with opened(connect_to(server)) as fresh:
        assert (await read(fresh)).entries == (entry(1),)
