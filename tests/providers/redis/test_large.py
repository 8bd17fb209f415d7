"""Large entries: their pieces, and what happens to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any

import pytest
from redis.crc import key_slot

from providers.redis.support import expire, started, stored_keys, url_of
from servers.proxy import Mishap, Proxy
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history.providers.redis.codec import Stub
from session_history.providers.redis.commands import Command
from session_history.providers.redis.pieces import INLINE_BYTES, PIECE_BYTES, STAGED_SECONDS, Pieces, Upload
from session_history.providers.redis.pool import ServerPool
from session_history.providers.redis.runner import ScriptRunner
from session_history_hooks import (
    Appended,
    Conflict,
    Corrupt,
    Entry,
    Position,
    SessionKey,
    StoreFull,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, append, entry, fill, read, rewrite

SMALL = {"heads", "index", "tombstones", "entries", "ids"}
"""Keys of a session without large entries."""


def large(number: int, pieces: float = 2.5) -> Entry:
    """Return entry ``number``, with a random payload of so many pieces."""
    return entry(number, random.Random(number).randbytes(int(PIECE_BYTES * pieces)))


async def append_large(provider: RedisProvider, number: int, pieces: float = 2.5) -> Appended:
    return await provider.append(KEY, large(number, pieces), at=Position(0, number - 1))


def staged(server: ValkeyServer, prefix: str) -> list[bytes]:
    with server.client() as client:
        return list(client.scan_iter(f"{prefix}:*:staged:*"))


# Round trips and time


async def test_only_large_entries_take_more_than_one_round_trip(
    provider: RedisProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, made = ServerPool.execute, 0

    async def counted(pool: ServerPool, commands: Sequence[Command]) -> list[Any]:
        nonlocal made
        made += 1
        return await execute(pool, commands)

    async def round_trips(call: Awaitable[object]) -> int:
        before = made
        await call
        return made - before

    await append_large(provider, 1)
    await rewrite(provider, 1, b"small")
    await read(provider)
    await provider.delete(SessionKey("user", "none"))  # the server knows every script now
    monkeypatch.setattr(ServerPool, "execute", counted)
    assert await round_trips(provider.append(KEY, entry(2, bytes(INLINE_BYTES)), at=Position(0, 1))) == 1
    assert await round_trips(read(provider, last=1)) == 1
    assert await round_trips(provider.append(KEY, entry(3, bytes(INLINE_BYTES + 1)), at=Position(0, 2))) == 2
    assert await round_trips(read(provider, last=2)) == 2
    assert await round_trips(read(provider, last=0)) == 1
    assert await round_trips(append_large(provider, 4)) == 1 + 3 + 1, "a question, three pieces, the entry"
    assert await round_trips(append_large(provider, 4)) == 1, "a repeated append uploads nothing"
    assert await round_trips(read(provider, last=2)) == 1 + 1, "up to 4 MiB at a time"
    await append_large(provider, 5)
    assert await round_trips(read(provider, last=2)) == 1 + 2
    assert await round_trips(rewrite(provider, 5, large(6).payload, rewrite_id="r2", last="r1")) == 1 + 3 + 1
    assert await round_trips(provider.delete(KEY)) == 2
    for number in range(1, 21):
        await provider.append(KEY, entry(number, bytes(INLINE_BYTES + 1)), at=Position(1, number - 1))
    assert await round_trips(read(provider)) == 2, "many pieces of up to 4 MiB together"


async def test_restore_that_is_repeated_uploads_nothing(own_server: ValkeyServer) -> None:
    async with started(own_server.url) as provider:
        await append_large(provider, 1, 3)
        await append(provider, 2)
        await append_large(provider, 3, 1)
        log = await read(provider)
        copy = replace(log.head, key=SessionKey("user", "copy"))
        with own_server.client() as client:
            for expected in (True, False):
                client.config_resetstat()
                assert await provider.restore(copy, log.entries) is expected
                assert (int(client.info("stats")["total_net_input_bytes"]) > PIECE_BYTES / 2) is expected
        assert (await read(provider, copy.key)).entries == log.entries


# Keys


async def test_pieces_live_and_end_with_their_entry(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await append_large(provider, 1)
    await append(provider, 2)
    assert stored_keys(server, prefix).keys() == {*SMALL, "1"}
    with server.client() as client:
        assert {client.ttl(name) for name in stored_keys(server, prefix).values()} == {-1}
    await rewrite(provider, 1, b"small")
    assert stored_keys(server, prefix).keys() == SMALL
    assert (await read(provider)).entries == (entry(1, b"small"), entry(2))
    for number, payload in enumerate((large(5).payload, large(6, 1).payload)):
        await rewrite(provider, 2, payload, rewrite_id=f"s{number}", last=f"s{number - 1}" if number else "r1")
        assert stored_keys(server, prefix).keys() == {*SMALL, "2"}
        assert (await read(provider)).entries == (entry(1, b"small"), entry(2, payload))
    assert await provider.delete(KEY) is True
    assert stored_keys(server, prefix).keys() == {"tombstones"}
    await provider.append(KEY, large(7), at=Position(1, 0))
    await provider.append(SessionKey("user", "other"), entry(1), at=Position(0, 0))
    assert await provider.delete_user("user") == 2
    assert stored_keys(server, prefix).keys() == {"tombstones"}


async def test_pieces_of_a_writer_that_died_expire(
    server: ValkeyServer, provider: RedisProvider, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, pieces = ScriptRunner.run_commands, 0

    async def die_after_two(runner: ScriptRunner, *commands: Command, **options: bool) -> Sequence[Any]:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            raise Unavailable("the writer died")
        return await run(runner, *commands, **options)

    await append(provider, 1)
    monkeypatch.setattr(ScriptRunner, "run_commands", die_after_two)
    with pytest.raises(Unavailable, match="died"):
        await append_large(provider, 2)
    [name] = staged(server, prefix)
    with server.client() as client:
        assert client.hlen(name) == 2
        assert 0 < client.pttl(name) <= (STAGED_SECONDS + 2 * 5.0) * 1000
    assert (await read(provider)).entries == (entry(1),)


async def test_refused_appends_and_rewrites_leave_no_pieces(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    await append_large(provider, 1, 1)
    for pieces in (1, 2):
        assert (await provider.append(KEY, large(1, pieces), at=Position(0, 0))).replayed is True
        with pytest.raises(Conflict):
            await append_large(provider, 3, pieces)
        with pytest.raises(Conflict):
            await provider.append(KEY, replace(large(2, pieces), keys=("e1",)), at=Position(0, 1))
        with pytest.raises(Conflict):
            await rewrite(provider, 1, large(1, pieces).payload, last="other")
    assert staged(server, prefix) == []
    assert (await read(provider)).entries == (large(1, 1),)


async def test_writers_of_one_large_entry_store_it_once(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    answers = await asyncio.gather(*(append_large(provider, 1, pieces) for pieces in (1, 2, 1, 3)))
    assert sorted(each.replayed for each in answers) == [False, True, True, True]
    assert staged(server, prefix) == []
    assert stored_keys(server, prefix).keys() == {*SMALL, "1"}
    assert (await read(provider)).entries[0] in [large(1, pieces) for pieces in (1, 2, 3)]


@pytest.mark.parametrize("loss", [Mishap.CUT_BEFORE, Mishap.CUT_AFTER])
async def test_large_entry_is_stored_once_over_lost_connections(
    server: ValkeyServer, proxy: Proxy, prefix: str, loss: Mishap
) -> None:
    async with started(url_of(proxy), prefix=prefix) as provider:
        await append_large(provider, 1)
        for number, lost in enumerate(range(5), start=2):
            proxy.mishaps = chain([None] * lost, [loss], repeat(None))
            stored = await append_large(provider, number)
            assert stored.position == Position(0, number)
        for lost in range(7):
            proxy.mishaps = chain([None] * lost, [loss], repeat(None))
            assert (await read(provider, last=2)).entries == (large(5), large(6))
        for lost in range(5):
            proxy.mishaps = chain([None] * lost, [loss], repeat(None))
            new, last = large(10 + lost).payload, f"r{lost - 1}" if lost else ""
            await rewrite(provider, 1, new, rewrite_id=f"r{lost}", last=last)
            assert (await read(provider, last=0, entry_id="e1")).match == (1, entry(1, new))
    assert staged(server, prefix) == []


async def test_keys_of_large_entries_share_the_slot_of_their_user(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix, ttl=60, wait_replicas=1) as provider:
        await append_large(provider, 1)
        await append(provider, 2)
        assert (await read(provider)).entries == (large(1), entry(2))
    stored: set[bytes] = set()
    for server in cluster.masters():
        with server.client() as client:
            stored |= set(client.scan_iter(f"{prefix}:*"))
    assert len(stored) == len(SMALL) + 1
    assert len({key_slot(name) for name in stored}) == 1


# Pieces that are lost, or that another call removes

Removal = Callable[[RedisProvider], Awaitable[object]]


def interrupt_fetch(monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], Awaitable[object]]) -> None:
    """Let something happen between the look at the list of entries and the first fetch of pieces."""
    fetch = Pieces.fetch

    async def interrupted(pieces: Pieces, key: SessionKey, stubs: Mapping[int, Stub]) -> Mapping[int, bytes] | None:
        monkeypatch.setattr(Pieces, "fetch", fetch)
        await interrupt()
        return await fetch(pieces, key, stubs)

    monkeypatch.setattr(Pieces, "fetch", interrupted)


async def re_create(provider: RedisProvider) -> None:
    await provider.delete(KEY)
    await provider.append(KEY, large(9), at=Position(1, 0))


@pytest.mark.parametrize(
    ("remove", "expected"),
    [
        (lambda provider: provider.delete(KEY), ()),
        (re_create, (large(9),)),
        (lambda provider: rewrite(provider, 1, b"small"), (entry(1, b"small"), entry(2))),
        (lambda provider: rewrite(provider, 1, large(3).payload), (entry(1, large(3).payload), entry(2))),
    ],
)
async def test_read_begins_again_if_another_call_removes_the_pieces(
    provider: RedisProvider, monkeypatch: pytest.MonkeyPatch, remove: Removal, expected: tuple[Entry, ...]
) -> None:
    await append_large(provider, 1)
    await append(provider, 2)
    interrupt_fetch(monkeypatch, lambda: remove(provider))
    assert (await read(provider)).entries == expected


async def test_session_with_evicted_pieces_is_corrupt(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    await append_large(provider, 1)
    await append(provider, 2)
    with server.client() as client:
        name = stored_keys(server, prefix)["1"]
        client.hset(name, client.hkeys(name)[0], "cut")
        with pytest.raises(Corrupt, match="cut off"):
            await read(provider)
        client.delete(name)
    with pytest.raises(Corrupt, match="lacks pieces"):
        await read(provider)
    assert (await read(provider, last=1)).entries == (entry(2),)
    assert await provider.delete(KEY) is True


async def test_staged_pieces_that_the_server_lost_are_staged_again(
    server: ValkeyServer, provider: RedisProvider, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, losses = Pieces._stage, [1, 3]  # noqa: SLF001 - the moment between two calls

    async def forgetful(pieces: Pieces, key: SessionKey, upload: Upload) -> None:
        await stage(pieces, key, upload)
        if losses:
            with server.client() as client:
                name = staged(server, prefix)[0]
                client.hdel(name, *client.hkeys(name)[: losses.pop()])

    monkeypatch.setattr(Pieces, "_stage", forgetful)
    await append_large(provider, 1)
    assert (await read(provider)).entries == (large(1),)
    losses += [1] * 9
    with pytest.raises(Unavailable, match="pieces of a large entry"):
        await append_large(provider, 2)
    assert (await read(provider)).entries == (large(1),)


async def test_full_server_keeps_no_pieces_of_a_refused_entry(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        async with started(own_server.url) as provider:
            await append_large(provider, 1)
            await append_large(provider, 2, 1)
            used = int(client.info("memory")["used_memory"])
            client.config_set("maxmemory", used + 3 * PIECE_BYTES)
            with pytest.raises(StoreFull):
                await append_large(provider, 3, 30)
            assert staged(own_server, "sh") == []
            await append(provider, 3)
            client.config_set("maxmemory", 1)
            for number, pieces in ((1, 2.5), (2, 1)):
                again = await provider.append(KEY, large(number, pieces), at=Position(0, 3))
                assert again == Appended(Position(0, number), replayed=True)
            assert (await read(provider)).entries == (large(1), large(2, 1), entry(3))
            assert await provider.delete(KEY) is True
            assert stored_keys(own_server, "sh").keys() == {"tombstones"}


# Sessions that expire


async def test_pieces_expire_with_their_session(server: ValkeyServer, prefix: str) -> None:
    def ends() -> dict[str, int]:
        with server.client() as client:
            return {part: client.pexpiretime(name) for part, name in stored_keys(server, prefix).items()}

    async with started(server.url, prefix=prefix, ttl=100) as provider:
        await append_large(provider, 1)
        await append_large(provider, 2, 1)
        before = ends()
        assert before["1"] == before["2"] == before["entries"] == before["ids"]
        await append(provider, 3)
        after = ends()
        assert before["1"] < after["1"] == after["2"] == after["entries"]
        await rewrite(provider, 2, large(4).payload)
        await rewrite(provider, 3, large(5).payload, rewrite_id="r2", last="r1")
        assert ends()["2"] == ends()["3"] == after["entries"]
        async with started(server.url, prefix=prefix) as forever:
            await append(forever, 4)
        assert set(ends().values()) == {-1}
        await append_large(provider, 5)
        assert ends()["1"] == ends()["3"] == ends()["5"] == ends()["entries"] > 0
        numbers = {1: large(1), 2: entry(2, large(4).payload), 3: entry(3, large(5).payload), 4: entry(4), 5: large(5)}
        assert (await read(provider)).entries == tuple(numbers.values())
        expire(server, prefix)
        assert await provider.read(KEY) is None
        await append_large(provider, 1)
        assert stored_keys(server, prefix).keys() == {*SMALL, "1"}


async def test_restored_session_gets_its_time_to_live_from_now(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=100) as provider:
        await append_large(provider, 1)
        await append(provider, 2)
        log = await read(provider)
        past = replace(log.head, key=SessionKey("other", "s"), active_us=10**15, changed_us=10**15)
        first = replace(past, tail=Position(0, 1), tail_origin="o1", snapshot=None)
        assert await provider.restore(first, log.entries[:1]) is True
        assert await provider.restore(past, log.entries[1:], behind="o1") is True
        assert (await read(provider, past.key)).head == past
        with server.client() as client:
            names = [name for name in client.scan_iter(f"{prefix}:*:*") if name.rpartition(b":")[2] in {b"1", b"ids"}]
            assert len(names) == 4
            assert all(90_000 < client.pttl(name) <= 100_000 for name in names)
        assert (await provider.list("other", limit=1)).heads == (past,)


async def test_append_after_a_large_one_extends_the_life_of_pieces_it_did_not_know(
    server: ValkeyServer, prefix: str
) -> None:
    """The script names the entries in pieces, and is called again with their keys."""
    async with started(server.url, prefix=prefix, ttl=100) as one, started(server.url, prefix=prefix, ttl=50) as other:
        for number in range(1, 30):
            await append_large(one, number, 0.1)
        await append(other, 30)
        with server.client() as client:
            lives = [client.pttl(name) for part, name in stored_keys(server, prefix).items() if part.isdigit()]
        assert len(lives) == 29
        assert all(0 < life <= 50_000 for life in lives)


async def test_delete_of_many_large_entries_leaves_no_pieces(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    await fill(provider, 2)
    for number in range(3, 40):
        await append_large(provider, number, 0.1)
    assert [each.id for each in (await read(provider, last=5)).entries] == [f"e{number}" for number in range(35, 40)]
    assert await provider.delete_user("user") == 1
    assert stored_keys(server, prefix).keys() == {"tombstones"}
