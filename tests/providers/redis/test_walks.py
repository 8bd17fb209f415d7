"""Walks through the users of a store and the tombstones of a user, and the identity of a store."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from redis.crc import key_slot

from providers.redis.support import expire, started
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history.providers.redis.keys import Keys
from session_history_hooks import (
    Corrupt,
    IncompatibleStore,
    InvalidCursor,
    Position,
    SessionKey,
    Shard,
    StoreInfo,
    Unavailable,
)
from session_history_hooks.testing.subject import append, entry

Step = Callable[[str, list[str]], object]


async def create(provider: RedisProvider, *names: str, session: str = "s") -> None:
    for name in names:
        await provider.append(SessionKey(name, session), entry(1), at=Position(0, 0))


async def walk(provider: RedisProvider, limit: int = 100, between: Step = lambda *_: None) -> list[str]:
    """Return the users of all pages.

    :param between: called after each page, with its cursor, and the users found until then.
    """
    found: list[str] = []
    cursor = None
    for _ in range(10_000):
        page = await provider.list_users(limit=limit, cursor=cursor)
        assert len(page.user_ids) <= limit
        found += page.user_ids
        cursor = page.cursor
        if cursor is None:
            return found
        await asyncio.to_thread(between, cursor, found)
    raise AssertionError("the walk does not end")


async def tombstones(provider: RedisProvider, user: str, limit: int) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await provider.list_tombstones(user, limit=limit, cursor=cursor)
        found += [head.key.session_id for head in page.heads]
        cursor = page.cursor
        if cursor is None:
            return found


# Users


async def test_user_whose_sessions_expired_is_listed_only_if_one_was_deleted(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=60) as provider:
        await create(provider, "expired", "deleted", "deleted before", "alive")
        await provider.delete(SessionKey("deleted", "s"))
        await provider.delete(SessionKey("deleted before", "s"))
        await provider.append(SessionKey("deleted before", "s"), entry(1), at=Position(1, 0))
        assert sorted(await walk(provider)) == ["alive", "deleted", "deleted before", "expired"]
        assert await tombstones(provider, "expired", 9) == await tombstones(provider, "deleted before", 9) == []
        for long_ago in (False, True):
            expire(server, prefix, long_ago=long_ago)
            await provider.delete_user("alive")
            await create(provider, "alive", session=f"new {long_ago}")
            assert sorted(await walk(provider)) == ["alive", "deleted"]
        assert await tombstones(provider, "deleted", 9) == ["s"]
        assert await tombstones(provider, "expired", 9) == await tombstones(provider, "deleted before", 9) == []


async def test_user_of_a_session_that_gets_a_ttl_leaves_nothing_behind(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix) as forever, started(server.url, prefix=prefix, ttl=60) as short:
        await create(forever, "user")
        await short.append(SessionKey("user", "s"), entry(2), at=Position(0, 1))
    with server.client() as client:
        assert all(client.pttl(name) > 0 for name in client.scan_iter(f"{prefix}:*"))


async def test_walk_of_a_prefix_finds_no_users_of_others(server: ValkeyServer, prefix: str) -> None:
    prefixes = [prefix + more for more in ("", "*", "?", "[a-z]", "\\", ":x", "^")]
    for name in prefixes:
        async with started(server.url, prefix=name) as provider:
            await create(provider, f"user of {name}")
    for name in prefixes:
        async with started(server.url, prefix=name) as provider:
            assert await walk(provider, 1) == [f"user of {name}"]


@pytest.mark.parametrize("limit", [1, 7, 5000])
async def test_walk_through_a_cluster_lists_each_user_once(cluster: ValkeyCluster, prefix: str, limit: int) -> None:
    names = [f"user {number}" for number in range(50)]
    async with started(cluster.url, prefix=prefix) as provider:
        await create(provider, *names)
        assert sorted(await walk(provider, limit)) == sorted(names)


async def test_walk_begins_again_after_a_restart_of_the_server(own_server: ValkeyServer) -> None:
    names = {f"user {number}" for number in range(60)}
    async with started(own_server.url, durability="host", timeout=20) as provider:
        await create(provider, *names)
        pages = 0

        def restart_once(*_: object) -> None:
            nonlocal pages
            pages += 1
            if pages == 3:
                own_server.restart()

        walked = await walk(provider, 5, restart_once)
        assert set(walked) == names
        assert len(walked) > len(names), "the new process reads cursors differently"


@contextmanager
def moving(cluster: ValkeyCluster, slot: int, source: ValkeyServer, target: ValkeyServer) -> Iterator[None]:
    """Let a slot move from one server to another until the end of the block. Then it belongs to its server again."""
    with source.client() as old, target.client() as new:
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.name(source))
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.name(target))
        try:
            yield
        finally:
            for client in (new, old):
                client.execute_command("CLUSTER SETSLOT", slot, "STABLE")


async def test_walk_finds_the_user_of_a_slot_that_moves_to_a_server_behind_it(
    cluster: ValkeyCluster, prefix: str
) -> None:
    async with started(cluster.url, prefix=prefix, timeout=20) as provider:
        first, *_, last = sorted(cluster.masters(), key=lambda server: server.port)
        names = [f"user {number}" for number in range(30)]
        await create(provider, *names)
        moved: list[str] = []

        def move_once(cursor: str, found: list[str]) -> None:
            _, server, _, found_digests = json.loads(base64.b64decode(cursor, b"-_"))
            if server == 2 and not found_digests and not moved:  # the walk is at the last server
                keys_of = Keys(prefix).user_prefix
                moved.append(next(n for n in names if n not in found and cluster.owner(keys_of(n)) is last))
                slot = key_slot(keys_of(moved[0]))
                with moving(cluster, slot, last, first), last.client() as old, first.client() as new:
                    keys = old.execute_command("CLUSTER GETKEYSINSLOT", slot, 99)
                    old.execute_command("MIGRATE", "127.0.0.1", first.port, "", 0, 5000, "KEYS", *keys)
                    for client in (new, old):
                        client.execute_command("CLUSTER SETSLOT", slot, "NODE", cluster.name(first))

        walked = await walk(provider, 1, move_once)
        assert moved
        assert set(walked) == set(names)
        assert len(walked) > len(names), "the walk begins again"
    cluster.wait_until_ready()


async def test_walk_while_a_slot_moves_raises_unavailable(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix, timeout=1) as provider:
        await create(provider, "user")
        name = Keys(prefix).user_prefix("user")
        source = cluster.owner(name)
        target = cluster.another_master(source)
        with moving(cluster, key_slot(name), source, target), pytest.raises(Unavailable, match="TRYAGAIN"):
            await walk(provider)
        assert await walk(provider) == ["user"]
    cluster.wait_until_ready()


@pytest.mark.parametrize(
    "place",
    [
        [], ["state"], ["state", 0, "0", [], 1], ["state", "0", "0", []], ["state", 0, 0, []], ["state", 0, "x", []],
        ["state", 0, "0", [1]], ["state", 0, "0", None], ["state", True, "0", []], ["state", -1, "0", []],
        ["state", 0, "-1", []], [1, 0, "0", []], {"state": 1}, "state", 7, None,
    ],
)  # fmt: skip
async def test_foreign_cursor_is_refused(provider: RedisProvider, place: object) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    with pytest.raises(InvalidCursor):
        await provider.list_users(limit=1, cursor=cursor)


async def test_walk_with_a_place_beyond_the_servers_begins_again(provider: RedisProvider) -> None:
    await create(provider, "user")
    for place in (["state", 5, "0", []], ["state", 0, str(2**64 - 1), []], ["state", 0, "0", ["junk", "A" * 32]]):
        page = await provider.list_users(limit=9, cursor=base64.urlsafe_b64encode(json.dumps(place).encode()).decode())
        assert page.cursor is not None
        found = [*page.user_ids]
        while page.cursor is not None:  # a page may be empty: the server has keys of other tests
            page = await provider.list_users(limit=9, cursor=page.cursor)
            found += page.user_ids
        assert "user" in found


# Tombstones


@pytest.mark.parametrize("limit", [1, 30, 5000])
async def test_walk_through_many_tombstones_lists_each_once(provider: RedisProvider, limit: int) -> None:
    names = [f"s{number}" for number in range(30 if limit == 1 else 1100)]
    await asyncio.gather(*(create(provider, "user", session=name) for name in names))
    assert await provider.delete_user("user") == len(names)
    await provider.append(SessionKey("user", "s7"), entry(1), at=Position(1, 0))
    page = await provider.list_tombstones("user", limit=limit)
    assert len(page.heads) == min(limit, provider.limits.page, len(names) - 1)
    assert await tombstones(provider, "user", limit) == sorted(set(names) - {"s7"})


# The identity of a store


async def test_store_that_lost_all_keys_is_another_one(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        async with started(own_server.url, timeout=20) as provider:
            infos = [await provider.store_info()]
            own_server.restart()
            assert await provider.store_info() == infos[0]
            client.flushall()
            await append(provider, 1)
            infos.append(await provider.store_info())
    with ValkeyServer() as forgetful:
        async with started(forgetful.url, timeout=20) as provider:
            infos.append(await provider.store_info())
            forgetful.restart()
            infos.append(await provider.store_info())
    assert len({info.incarnation for info in infos}) == len(infos) == 4
    assert {(info.format, info.shard) for info in infos} == {(1, None)}


@pytest.mark.parametrize("url", ["single_url", "cluster_url"])
async def test_first_shard_that_a_store_takes_wins(url: str, prefix: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(url)
    async with started(url, prefix=prefix) as one, started(url, prefix=prefix) as two:
        shards = [Shard(number % 4, 4) for number in range(20)]
        stores = [one, two] * 10
        infos = await asyncio.gather(*(s.store_info(shard=n) for s, n in zip(stores, shards, strict=True)))
        assert len(set(infos)) == 1
        assert infos[0].shard in shards
        assert await two.store_info() == infos[0]
        async with started(url, prefix=prefix + "other") as other:
            assert (await other.store_info()).incarnation != infos[0].incarnation


async def test_store_of_another_format_or_program_is_refused(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix) as provider:
        incarnation = (await provider.store_info(shard=Shard(1, 3))).incarnation
        assert await provider.store_info() == StoreInfo(incarnation, 1, Shard(1, 3))
        with server.client() as client:
            name = f"{prefix}:store"
            for field, value, error in (
                ("format", "300", IncompatibleStore),
                ("format", "x", Corrupt),
                ("shard", "3/3", Corrupt),
                ("shard", "1", Corrupt),
            ):
                kept = client.hget(name, field)
                client.hset(name, field, value)
                with pytest.raises(error):
                    await provider.store_info()
                client.hset(name, field, kept)
            client.delete(name)
            client.set(name, "theirs")
            with pytest.raises(IncompatibleStore):
                await provider.store_info(shard=Shard(0, 1))
            assert client.get(name) == b"theirs"


async def test_full_server_says_which_store_it_is(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        client.config_set("maxmemory", 1)
        async with started(own_server.url) as provider:
            assert await provider.store_info() == await provider.store_info()
