"""A cluster: slots that move, fail-overs, replicas."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from providers.redis.support import started
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history.providers.redis.options import Address
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Conflict,
    Position,
    SessionKey,
    Unavailable,
)
from session_history_hooks.testing.subject import append, entry, read


async def add(provider: RedisProvider, user: str, *numbers: int) -> list[bool]:
    """Append entries to the one session of a user, who has a slot alone; whether each was replayed."""
    key = SessionKey(user, "s")
    return [(await provider.append(key, entry(number), at=Position(0, number - 1))).replayed for number in numbers]


async def stored_by(provider: RedisProvider, user: str) -> list[str]:
    return [each.id for each in (await read(provider, SessionKey(user, "s"))).entries]


def located(cluster: ValkeyCluster, provider: RedisProvider, user: str) -> tuple[ValkeyServer, int, list[bytes]]:
    """The server of a user's slot, the slot, and the keys in it."""
    name = provider._keys.slot(user)
    owner = cluster.owner(name)
    with owner.client() as client:
        return owner, key_slot(name), list(client.execute_command("CLUSTER GETKEYSINSLOT", key_slot(name), 99))


async def test_a_slot_that_moves_while_sessions_are_written(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as provider, started(cluster.url, prefix=prefix) as bystander:
        await add(provider, prefix, 1, 2, 3)
        await stored_by(bystander, prefix)
        source, slot, stored = located(cluster, provider, prefix)
        target = cluster.another_master(source)
        with source.client() as old, target.client() as new:
            try:
                new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.name(source))
                old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.name(target))
                appending = asyncio.create_task(add(provider, prefix, 4))
                await asyncio.sleep(0.05)
                assert not appending.done(), "some keys are not there yet, and the servers know no better"
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *stored)
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
                assert await stored_by(each, prefix) == [f"e{number}" for number in range(1, 6)]
            assert located(cluster, provider, prefix)[0] is target
    cluster.wait_until_ready()


def say_where(cluster: ValkeyCluster, kind: str) -> None:
    for server in cluster.servers:
        with server.client() as client:
            client.config_set("cluster-preferred-endpoint-type", kind)


@pytest.fixture(params=["ip", "unknown-endpoint"])
def endpoint(request: pytest.FixtureRequest, cluster: ValkeyCluster) -> Iterator[str]:
    """What the servers say of where they are: in the second case that it is the host that was asked."""
    say_where(cluster, request.param)
    yield request.param
    say_where(cluster, "ip")


@pytest.mark.usefixtures("endpoint")
async def test_a_call_that_is_asked_to_go_elsewhere_goes_there(cluster: ValkeyCluster, prefix: str) -> None:
    """ASK, for the one script that has a single key: where some of several are missing, a server says TRYAGAIN."""
    async with started(cluster.url, prefix=prefix, timeout=0.5) as provider:
        source, slot, _ = located(cluster, provider, prefix)
        target = cluster.another_master(source)
        with source.client() as old, target.client() as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.name(source))
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.name(target))
            new.script_flush()
            try:
                assert await provider.delete_user(prefix) == 0
            finally:
                for client in (new, old):
                    client.execute_command("CLUSTER SETSLOT", slot, "STABLE")
    cluster.wait_until_ready()


async def test_a_fail_over_loses_nothing_that_a_replica_confirmed(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix, timeout=20, wait_replicas=1) as provider:
        await add(provider, prefix, *range(1, 21))
        owner = located(cluster, provider, prefix)[0]
        owner.kill()
        with pytest.raises(Unavailable, match="0 of 1 replicas"):  # the one that took over has none of its own
            await add(provider, prefix, 21)
        await asyncio.to_thread(owner.start)
        cluster.wait_until_ready()
        assert await add(provider, prefix, 21, 22) == [True, False]
        assert await stored_by(provider, prefix) == [f"e{number}" for number in range(1, 23)]
        assert located(cluster, provider, prefix)[0] is not owner
        assert await provider.health() is True


async def test_too_few_replicas_leave_an_outcome_that_is_found_by_its_id(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, wait_replicas=1, wait_timeout=0.05) as provider:
        for _ in range(2):
            with pytest.raises(Unavailable, match="0 of 1 replicas"):
                await append(provider, 1)
        with pytest.raises(Conflict):
            await append(provider, 7)
    async with started(server.url, prefix=prefix) as provider:
        assert await append(provider, 1) == Appended(Position(0, 1), replayed=True)


async def test_a_replica_that_lags_is_waited_for_by_a_repeat_too(own: ValkeyServer, prefix: str) -> None:
    options = {"prefix": prefix, "wait_replicas": 1, "wait_timeout": 1}
    with ValkeyServer() as replica, replica.client() as follower, own.client() as client:
        client.config_set("repl-diskless-sync-delay", 0)
        follower.replicaof("127.0.0.1", str(own.port))
        own.wait_until(lambda: bool(client.incr("tries") and client.wait(1, 100)))
        async with started(own.url, **options) as provider:
            await append(provider, 1)
            with replica.frozen():
                with pytest.raises(Unavailable, match="0 of 1 replicas"):
                    await append(provider, 2)
                async with started(own.url, **options) as another:  # whose connection has written nothing yet
                    with pytest.raises(Unavailable, match="0 of 1 replicas"):
                        await append(another, 2)
            assert (await append(provider, 2)).replayed is True


async def test_a_server_that_hangs_holds_up_nobody_else(
    cluster: ValkeyCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(cluster.url, prefix=prefix, timeout=0.8) as provider:
        owner = located(cluster, provider, prefix)[0]
        others = [f"{n}" for n in range(99) if cluster.owner(provider._keys.slot(f"{n}")) is not owner][:20]
        for user in (prefix, *others):
            await add(provider, user, 1)
        monkeypatch.setattr(random, "shuffle", lambda known: known.sort(key=lambda each: each.port != owner.port))
        with owner.frozen():
            with pytest.raises(Unavailable):
                await add(provider, prefix, 2)
            begun = time.monotonic()
            for user in others:
                (await provider._servers())._owners = []  # as when another call has failed
                await stored_by(provider, user)
            assert time.monotonic() - begun < 0.2 * len(others) / 2, "the one that hangs is asked first"
    cluster.wait_until_ready()


async def test_a_server_of_the_url_that_left_the_cluster_is_not_believed(
    cluster: ValkeyCluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ValkeyServer(cluster_enabled="yes") as left:
        monkeypatch.setattr(random, "shuffle", lambda known: known.sort(key=lambda each: each.port != left.port))
        url = f"redis+cluster://127.0.0.1:{left.port},127.0.0.1:{cluster.servers[0].port}"
        with pytest.raises(ConfigurationError, match="appendfsync always"):
            await RedisProvider(url, durability="disk", timeout=20).start()
        async with started(url, prefix=prefix, timeout=20) as provider:
            await add(provider, prefix, 1)
            (await provider._servers())._owners = []  # as when a call has failed
            await add(provider, prefix, 2)
        with pytest.raises(Unavailable):
            await RedisProvider(f"redis+cluster://127.0.0.1:{left.port}", timeout=0.2).start()


async def test_servers_that_left_are_asked_no_more(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as provider:
        servers = await provider._servers()
        known = set(servers._servers)
        servers._at(Address("127.0.0.1", 1))
        owner = located(cluster, provider, prefix)[0]
        await add(provider, prefix, 1)
        owner.restart()  # whoever is asked next learns of the slots anew
        await add(provider, prefix, 2)
        assert set(servers._servers) <= known | {Address("127.0.0.1", each.port) for each in cluster.servers}
    cluster.wait_until_ready()
