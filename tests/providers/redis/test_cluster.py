"""Clusters: slots that move, fail-overs, replicas."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.crc import key_slot

from providers.redis.support import started
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider, scripts
from session_history.providers.redis.client import Client
from session_history.providers.redis.commands import ScriptCall
from session_history.providers.redis.keys import Keys
from session_history.providers.redis.options import Address, RedisOptions
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Conflict,
    Position,
    SessionKey,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, append, entry, read


async def add(provider: RedisProvider, user: str, *numbers: int) -> list[bool]:
    """Append entries to the one session of a user. Return for each whether it was replayed."""
    key = SessionKey(user, "s")
    return [(await provider.append(key, entry(number), at=Position(0, number - 1))).replayed for number in numbers]


async def stored_ids(provider: RedisProvider, user: str) -> list[str]:
    return [each.id for each in (await read(provider, SessionKey(user, "s"))).entries]


def locate(cluster: ValkeyCluster, prefix: str, user: str) -> tuple[ValkeyServer, int, list[bytes]]:
    """Return the server that has a user's slot, the slot, and the keys in it."""
    name = Keys(prefix).user_prefix(user)
    owner = cluster.owner(name)
    with owner.client() as client:
        return owner, key_slot(name), list(client.execute_command("CLUSTER GETKEYSINSLOT", key_slot(name), 99))


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    client = Client(RedisOptions(url=url, **options))
    try:
        yield client
    finally:
        await client.close()


def ask_first(monkeypatch: pytest.MonkeyPatch, server: ValkeyServer) -> None:
    """Let a client that asks for the slots begin with this server."""
    monkeypatch.setattr(random, "shuffle", lambda known: known.sort(key=lambda each: each.port != server.port))


async def test_slot_that_moves_during_writes_loses_no_entry(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as provider, started(cluster.url, prefix=prefix) as bystander:
        await add(provider, prefix, 1, 2, 3)
        await stored_ids(bystander, prefix)
        source, slot, stored = locate(cluster, prefix, prefix)
        target = cluster.another_master(source)
        with source.client() as old, target.client() as new:
            try:
                new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.name(source))
                old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.name(target))
                migrate = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS")
                old.execute_command(*migrate, stored[0])
                appending = asyncio.create_task(add(provider, prefix, 4))
                await asyncio.sleep(0.05)
                assert not appending.done(), "both servers lack keys, so both answer TRYAGAIN"
                old.execute_command(*migrate, *stored[1:])
                await asyncio.sleep(0.05)
                for client in (new, old):
                    client.execute_command("CLUSTER SETSLOT", slot, "NODE", cluster.name(target))
            finally:
                for client in (new, old):
                    client.execute_command("CLUSTER SETSLOT", slot, "STABLE")
            assert await appending == [False]
            old.script_flush()
            new.script_flush()
            assert await add(provider, prefix, 5) == [False]
            for each in (provider, bystander):
                assert await stored_ids(each, prefix) == [f"e{number}" for number in range(1, 6)]
            assert locate(cluster, prefix, prefix)[0] is target
    cluster.wait_until_ready()


def scan_of_one_key(keys: Keys, user: str) -> ScriptCall:
    """Return a scan of the sessions of a user that nobody knows, with one key in the place of each."""
    return ScriptCall(scripts.SCAN_SESSIONS, 3 * keys.of_user(user)[:1], (b"0",))


def set_endpoint_type(cluster: ValkeyCluster, kind: str) -> None:
    for server in cluster.servers:
        with server.client() as client:
            client.config_set("cluster-preferred-endpoint-type", kind)


@pytest.fixture(params=["ip", "unknown-endpoint"])
def endpoint_type(request: pytest.FixtureRequest, cluster: ValkeyCluster) -> Iterator[str]:
    """The kind of host in a redirection. An unknown endpoint is the host that was asked."""
    set_endpoint_type(cluster, request.param)
    yield request.param
    set_endpoint_type(cluster, "ip")


@pytest.mark.usefixtures("endpoint_type")
async def test_call_answered_with_ask_goes_to_the_other_server(cluster: ValkeyCluster, prefix: str) -> None:
    """Only a script with a single key gets ASK. If some of several keys are missing, the answer is TRYAGAIN."""
    async with connected(cluster.url, timeout=0.5) as client:
        source, slot, _ = locate(cluster, prefix, prefix)
        target = cluster.another_master(source)
        with source.client() as old, target.client() as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.name(source))
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.name(target))
            new.script_flush()
            try:
                [answer] = await client.call(scan_of_one_key(Keys(prefix), prefix))
                assert answer[1] == []
            finally:
                for each in (new, old):
                    each.execute_command("CLUSTER SETSLOT", slot, "STABLE")
    cluster.wait_until_ready()


async def test_fail_over_loses_no_entry_that_a_replica_confirmed(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix, timeout=20, wait_replicas=1) as provider:
        await add(provider, prefix, *range(1, 21))
        owner = locate(cluster, prefix, prefix)[0]
        owner.kill()
        with pytest.raises(Unavailable, match="0 of 1 replicas"):  # the new master has no replica yet
            await add(provider, prefix, 21)
        await asyncio.to_thread(owner.start)
        cluster.wait_until_ready()
        assert await add(provider, prefix, 21, 22) == [True, False]
        assert await stored_ids(provider, prefix) == [f"e{number}" for number in range(1, 23)]
        assert locate(cluster, prefix, prefix)[0] is not owner
        assert await provider.health() is True


async def test_append_with_too_few_replicas_raises_unavailable_and_is_stored(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, wait_replicas=1, wait_timeout=0.05) as provider:
        for _ in range(2):
            with pytest.raises(Unavailable, match="0 of 1 replicas"):
                await append(provider, 1)
        with pytest.raises(Conflict):
            await append(provider, 7)
    async with started(server.url, prefix=prefix) as provider:
        assert await append(provider, 1) == Appended(Position(0, 1), replayed=True)


async def test_restore_with_too_few_replicas_raises_unavailable_and_is_stored(
    server: ValkeyServer, prefix: str
) -> None:
    async with started(server.url, prefix=prefix) as provider:
        await append(provider, 1)
        log = await read(provider)
        copy = replace(log.head, key=SessionKey("user", "copy"))
        await provider.delete(KEY)
        deleted = replace((await read(provider)).head, key=SessionKey("user", "deleted"))
    async with started(server.url, prefix=prefix, wait_replicas=1, wait_timeout=0.05) as provider:
        for _ in range(2):
            with pytest.raises(Unavailable, match="0 of 1 replicas"):
                await provider.restore(copy, log.entries)
            with pytest.raises(Unavailable, match="0 of 1 replicas"):
                await provider.restore(deleted)
        assert (await read(provider, copy.key)).head == copy
        assert (await read(provider, deleted.key)).head == deleted


async def test_repeated_append_or_restore_waits_for_a_replica_that_lags(own_server: ValkeyServer, prefix: str) -> None:
    options = {"prefix": prefix, "wait_replicas": 1, "wait_timeout": 1}
    with ValkeyServer() as replica, replica.client() as follower, own_server.client() as client:
        client.config_set("repl-diskless-sync-delay", 0)
        follower.replicaof("127.0.0.1", str(own_server.port))
        own_server.wait_until(lambda: bool(client.incr("tries") and client.wait(1, 100)))
        async with started(own_server.url, **options) as provider:
            await append(provider, 1)
            with replica.frozen():
                with pytest.raises(Unavailable, match="0 of 1 replicas"):
                    await append(provider, 2)
                async with started(own_server.url, **options) as other:  # its connection has written nothing yet
                    with pytest.raises(Unavailable, match="0 of 1 replicas"):
                        await append(other, 2)
                log = await read(provider)
                copy = replace(log.head, key=SessionKey("user", "copy"))
                with pytest.raises(Unavailable, match="0 of 1 replicas"):
                    await provider.restore(copy, log.entries)
                async with started(own_server.url, **options) as other:
                    with pytest.raises(Unavailable, match="0 of 1 replicas"):
                        await other.restore(copy, log.entries)
            assert await provider.restore(copy, log.entries) is False
            assert (await append(provider, 2)).replayed is True


async def test_hanging_server_delays_no_call_to_the_others(
    cluster: ValkeyCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(prefix)
    calls = [scan_of_one_key(keys, f"{number}") for number in range(60)]
    hanging = cluster.masters()[0]
    owners = [cluster.owner(call.keys[0]) for call in calls]
    others = [call for call, owner in zip(calls, owners, strict=True) if owner is not hanging][:20]
    ask_first(monkeypatch, hanging)
    async with connected(cluster.url, timeout=0.8) as client:
        assert len(await client.masters()) == 3
        assert await client.ping() is True
        with hanging.frozen():
            with pytest.raises(Unavailable):
                await client.call(calls[owners.index(hanging)])
            begun = time.monotonic()
            for call in others:
                client.forget_slots()  # as another call does when it fails
                await client.call(call)
            assert time.monotonic() - begun < 0.2 * len(others) / 2, "the hanging server is asked first each time"
    cluster.wait_until_ready()


async def test_server_of_the_url_that_left_the_cluster_is_skipped(
    cluster: ValkeyCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ValkeyServer(cluster_enabled="yes") as left:
        ask_first(monkeypatch, left)
        url = f"redis+cluster://127.0.0.1:{left.port},127.0.0.1:{cluster.servers[0].port}"
        with pytest.raises(ConfigurationError, match="appendfsync always"):
            await RedisProvider(url, durability="disk", timeout=20).start()
        async with connected(url, timeout=20) as client:
            for _ in range(2):
                assert {pool.address.port for pool in await client.masters()} == {
                    server.port for server in cluster.masters()
                }
                client.forget_slots()
        with pytest.raises(Unavailable):
            await RedisProvider(f"redis+cluster://127.0.0.1:{left.port}", timeout=0.2).start()


async def test_client_retires_servers_that_left_the_cluster(cluster: ValkeyCluster) -> None:
    async with connected(cluster.url) as client:
        client.pool(Address("127.0.0.1", 1))
        await client.masters()
        assert client.addresses <= {Address("127.0.0.1", server.port) for server in cluster.servers}
