"""Outages: servers that hang, die, restart or move, lost connections, and callers that give up."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotConnected

from providers.redis.support import started, stored_keys, until, url_of
from servers.proxy import Mishap, Proxy
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history_hooks import (
    Appended,
    Entry,
    Position,
    SessionKey,
    StoreFull,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, append, entry, fill, opened, read, rewrite


@pytest.mark.parametrize("loss", [Mishap.CUT_BEFORE, Mishap.CUT_AFTER])
async def test_calls_on_a_lost_connection_are_done_exactly_once(proxy: Proxy, prefix: str, loss: Mishap) -> None:
    async with started(url_of(proxy), prefix=prefix) as provider:
        await fill(provider, 3)
        await rewrite(provider, 1)
        await provider.delete(SessionKey("user", "none"))  # the server knows every script now
        proxy.mishaps = iter([loss])
        assert await append(provider, 4) == Appended(Position(0, 4), replayed=loss is Mishap.CUT_AFTER)
        proxy.mishaps = iter([loss])
        assert len((await read(provider)).entries) == 4
        proxy.mishaps = iter([loss])
        assert (await rewrite(provider, 2, rewrite_id="r2", last="r1")).rewrite_id == "r2"
        assert (await read(provider)).entries == (entry(1, b"new"), entry(2, b"new"), entry(3), entry(4))
        proxy.mishaps = iter([loss])
        assert await provider.delete(KEY) is True
        assert await provider.delete(KEY) is False
        await provider.append(KEY, entry(1), at=Position(1, 0))
        proxy.mishaps = iter([loss])
        assert await provider.delete_user(KEY.user_id) == 1
        assert proxy.connections >= 5, "nothing was lost"


async def test_repeated_append_to_a_full_server_is_a_replay(own_server: ValkeyServer) -> None:
    with Proxy(own_server.port) as proxy, own_server.client() as client:
        async with started(url_of(proxy), timeout=60) as provider:
            await fill(provider, 1)
            entries = stored_keys(own_server, "sh")["entries"]
            proxy.mishaps = chain([Mishap.CUT_AFTER], repeat(Mishap.CUT_BEFORE))
            appending = asyncio.create_task(append(provider, 2))
            await asyncio.to_thread(own_server.wait_until, lambda: client.llen(entries) == 2)
            client.config_set("maxmemory", 1)
            proxy.mishaps = repeat(None)
            assert await appending == Appended(Position(0, 2), replayed=True)
            with pytest.raises(StoreFull):
                await append(provider, 3)
        client.config_set("maxmemory", 0)
        async with started(own_server.url, wait_replicas=1, wait_timeout=0.05) as provider:
            with pytest.raises(Unavailable, match="0 of 1 replicas"):
                await append(provider, 3)
            client.config_set("maxmemory", 1)
            with pytest.raises(Unavailable, match="the server is out of memory"):
                await append(provider, 3)
            with pytest.raises(StoreFull):
                await append(provider, 4)


@pytest.mark.parametrize("ttl", [None, 60])
@pytest.mark.parametrize("lives", [1, 2])
@pytest.mark.parametrize("whole_user", [False, True])
async def test_repeated_delete_spares_a_session_created_since(
    proxy: Proxy, server: ValkeyServer, prefix: str, ttl: int | None, lives: int, whole_user: bool
) -> None:
    """The second time, the session created since was deleted, too, and another one was created."""

    async def delete(user: str) -> int:
        key = SessionKey(user, KEY.session_id)
        return await (provider.delete_user(user) if whole_user else provider.delete(key))  # type: ignore[no-any-return]

    async with (
        started(url_of(proxy), prefix=prefix, ttl=ttl, timeout=20) as provider,
        started(server.url, prefix=prefix, ttl=ttl) as other,
    ):
        await fill(provider, 2)
        await provider.append(SessionKey("warm", KEY.session_id), entry(1), at=Position(0, 0))
        assert await delete("warm") == 1  # the server knows every script now
        proxy.mishaps = chain([None] * whole_user, [Mishap.CUT_AFTER], repeat(Mishap.CUT_BEFORE))
        deleting = asyncio.create_task(delete(KEY.user_id))
        await until(lambda: is_deleted(other))
        for generation in range(1, lives + 1):
            if generation > 1:
                assert await other.delete(KEY) is True
            await other.append(KEY, Entry("new", b"kept"), at=Position(generation, 0))
        proxy.mishaps = repeat(None)
        assert await deleting == 1
        log = await read(other)
        assert (log.head.tail, [each.id for each in log.entries]) == (Position(lives, 1), ["new"])
        assert await other.delete(KEY) is True


async def is_deleted(provider: RedisProvider) -> bool:
    return (await read(provider)).head.deleted


@pytest.mark.parametrize(
    "unrelated", [ssl.SSLCertVerificationError(), socket.gaierror(socket.EAI_NONAME, ""), ConnectionRefusedError()]
)
async def test_exception_that_the_caller_is_handling_does_not_stop_a_retry(
    proxy: Proxy, prefix: str, unrelated: Exception
) -> None:
    async with started(url_of(proxy), prefix=prefix) as provider:
        await fill(provider, 1)
        try:
            raise unrelated  # as the call of a model does
        except OSError:
            proxy.mishaps = iter([Mishap.CUT_BEFORE])
            assert (await append(provider, 2)).position == Position(0, 2)
            proxy.mishaps = iter([Mishap.CUT_BEFORE])
            async with started(url_of(proxy), prefix=prefix):
                pass


async def test_append_waits_for_a_killed_server_to_restart(own_server: ValkeyServer) -> None:
    async with started(own_server.url, durability="host") as provider:
        await asyncio.gather(*(provider.append(SessionKey("u", f"{n}"), entry(1), at=Position(0, 0)) for n in range(9)))
        await fill(provider, 3)
        own_server.kill()
        assert await provider.health() is False
        appending = asyncio.create_task(append(provider, 4))
        await asyncio.sleep(0.2)
        assert not appending.done()
        await asyncio.to_thread(own_server.start)
        assert (await appending).position == Position(0, 4)
        assert await provider.health() is True
        assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 5))


async def has_grown(names: list[str], size: int) -> bool:
    return len(names) >= size


async def test_killed_server_keeps_all_acknowledged_entries(own_server: ValkeyServer) -> None:
    async with started(own_server.url, durability="host", timeout=20) as provider:
        acknowledged: list[str] = []

        async def writing() -> None:
            for number in range(1, 10**9):
                await append(provider, number)
                acknowledged.append(f"e{number}")

        task = asyncio.create_task(writing())
        for enough in (30, 60, 90, 120):
            await until(partial(has_grown, acknowledged, enough), 60)
            await asyncio.to_thread(own_server.restart)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        stored = [each.id for each in (await read(provider, last=10**6)).entries]
        assert stored[: len(acknowledged)] == acknowledged
        assert len(stored) - len(acknowledged) in {0, 1}


async def test_hanging_server_raises_unavailable_after_the_timeout(own_server: ValkeyServer) -> None:
    async with started(own_server.url, timeout=0.5) as provider:
        await fill(provider, 1)
        with own_server.frozen():
            begun = time.monotonic()
            with pytest.raises(Unavailable, match=r"0\.5 s"):
                await append(provider, 2)
            assert await provider.health() is False
            with pytest.raises(Unavailable):
                await RedisProvider(own_server.url, timeout=0.1).start()
            assert time.monotonic() - begun < 3
        assert (await append(provider, 2)).position == Position(0, 2)


async def test_answer_that_arrived_while_the_event_loop_stood_still_counts(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, timeout=1) as provider:
        await fill(provider, 1)
        appending = asyncio.create_task(append(provider, 2))
        await asyncio.sleep(0)
        block_event_loop(server, stored_keys(server, prefix)["entries"], seconds=1.3)
        assert await appending == Appended(Position(0, 2), replayed=False)


def block_event_loop(server: ValkeyServer, entries: str, *, seconds: float) -> None:
    """Return after so many seconds, and not before the server has stored two entries."""
    begun = time.monotonic()
    with server.client() as client:
        while client.llen(entries) < 2 or time.monotonic() < begun + seconds:
            assert time.monotonic() < begun + 60
            time.sleep(0.05)


@pytest.fixture
def missing_hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Names of hosts, each with the number of lookups that will not find it. Later ones find this machine."""
    unknown: dict[str, int] = {}
    found = asyncio.BaseEventLoop.getaddrinfo

    async def look_up(loop: asyncio.BaseEventLoop, host: str, *args: Any, **options: Any) -> Any:
        if host in unknown:
            unknown[host] -= 1
            if unknown[host] >= 0:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return await found(loop, host, *args, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    return unknown


async def test_start_with_an_unknown_host_name_fails_at_once(
    missing_hosts: dict[str, int], cluster: ValkeyCluster
) -> None:
    missing_hosts["nowhere.test"] = 10**9
    begun = time.monotonic()
    for url in ("redis://nowhere.test", "redis+cluster://nowhere.test,nowhere.test:1"):
        with pytest.raises(Unavailable, match="its host name is unknown"):
            await RedisProvider(url, timeout=60).start()
    assert time.monotonic() - begun < 30
    async with started(f"redis+cluster://nowhere.test,127.0.0.1:{cluster.servers[0].port}") as provider:
        assert await provider.health() is True


async def test_start_without_a_listening_server_fails_at_once(cluster: ValkeyCluster) -> None:
    begun = time.monotonic()
    for place in (
        "redis://127.0.0.1:1",
        "redis://localhost:1",
        "rediss://127.0.0.1:1",
        "redis+cluster://127.0.0.1:1,localhost:2",
    ):
        with pytest.raises(Unavailable, match="nobody listens there"):
            await RedisProvider(place, timeout=60).start()
    assert time.monotonic() - begun < 30
    async with started(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.servers[0].port}") as provider:
        assert await provider.health() is True


async def test_start_waits_while_a_cluster_replaces_a_dead_master(cluster: ValkeyCluster) -> None:
    gone = cluster.masters()[0]
    gone.kill()
    provider = RedisProvider(cluster.url, timeout=20)
    try:
        await provider.start()
        assert await provider.health() is True
    finally:
        await provider.stop()
        await asyncio.to_thread(gone.start)
        cluster.wait_until_ready()


async def test_append_waits_while_the_host_name_is_unknown(
    missing_hosts: dict[str, int], own_server: ValkeyServer
) -> None:
    missing_hosts["host.test"] = 0
    async with started(f"redis://host.test:{own_server.port}", timeout=20) as provider:
        await fill(provider, 1)
        await asyncio.to_thread(own_server.restart)
        missing_hosts["host.test"] = 3
        assert (await append(provider, 2)).position == Position(0, 2)
        assert missing_hosts["host.test"] < 0


async def test_append_follows_a_host_name_to_the_new_master(own_server: ValkeyServer) -> None:
    with ValkeyServer(appendonly="yes") as other, own_server.client() as client, other.client() as heir:
        heir.config_set("repl-diskless-sync-delay", 0)
        heir.replicaof("127.0.0.1", str(own_server.port))
        with Proxy(own_server.port) as proxy:
            async with started(url_of(proxy), timeout=60) as provider:
                await asyncio.gather(*(provider.read(SessionKey("u", f"{n}")) for n in range(4)))
                await fill(provider, 1)
                own_server.wait_until(lambda: bool(client.incr("tries") and client.wait(1, 100)))
                heir.replicaof("NO", "ONE")
                client.replicaof("127.0.0.1", str(other.port))
                appending = asyncio.create_task(append(provider, 2))
                await asyncio.to_thread(own_server.wait_until, lambda: refusals(client, "READONLY") > 2)
                proxy.target = other.port
                assert (await appending).position == Position(0, 2)
                assert len((await read(provider)).entries) == 2


def refusals(client: Redis, code: str) -> int:
    """Return the number of answers of the server with this error."""
    stats = client.info("errorstats")
    assert isinstance(stats, dict)
    return int(stats.get(f"errorstat_{code}", {"count": 0})["count"])


async def test_append_waits_while_the_master_lacks_replicas(own_server: ValkeyServer) -> None:
    async with started(own_server.url, timeout=60) as provider:
        await fill(provider, 1)
        with own_server.client() as client:
            client.config_set("min-replicas-to-write", 1)
            appending = asyncio.create_task(append(provider, 2))
            await asyncio.to_thread(own_server.wait_until, lambda: refusals(client, "NOREPLICAS") > 1)
            client.config_set("min-replicas-to-write", 0)
            assert (await appending).position == Position(0, 2)


async def test_silent_connections_fail_only_one_call(proxy: Proxy, prefix: str) -> None:
    async with started(url_of(proxy), prefix=prefix, timeout=0.5) as provider:
        await asyncio.gather(*(provider.read(SessionKey("u", f"{n}")) for n in range(9)))
        assert proxy.connections == 9
        proxy.mute()
        with pytest.raises(Unavailable, match="no answer"):
            await append(provider, 1)
        assert (await append(provider, 1)).position == Position(0, 1)


async def test_cancelled_call_leaves_no_answer_to_other_calls(server: ValkeyServer, prefix: str) -> None:
    keys = [SessionKey("user", f"s{number}") for number in range(20)]

    async def check(key: SessionKey) -> None:
        log = await read(provider, key)
        assert [each.payload for each in log.entries] == [key.session_id.encode()]

    cancelled = 0
    async with started(server.url, prefix=prefix, timeout=60) as provider:
        with server.client() as client:
            for key in keys:
                await provider.append(key, Entry("e1", key.session_id.encode()), at=Position(0, 0))
            for turn in range(200):
                if turn % 3 == 0:
                    # Some calls must be cancelled while they connect.
                    client.client_kill_filter(_type="normal", skipme=True)
                tasks = [asyncio.create_task(check(key)) for key in random.sample(keys, 5)]
                for _ in range(turn % 9):
                    await asyncio.sleep(0)
                if turn % 2:
                    await asyncio.sleep(random.uniform(0, 0.001))
                tasks[0].cancel()
                tasks[3].cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                cancelled += sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
                assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert cancelled > 30


async def test_connections_stay_below_the_limit_and_end_with_the_provider(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        async with started(own_server.url, max_connections=4) as provider:
            await asyncio.gather(*(provider.read(SessionKey("u", f"{n}")) for n in range(40)))
            assert len(client.client_list()) == 4 + 1
            await asyncio.to_thread(asyncio.run, provider.read(KEY))
            own_server.wait_until(lambda: len(client.client_list()) == 4 + 1)
        own_server.wait_until(lambda: len(client.client_list()) == 1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Python warns of the loops, and is right to do so
def test_closed_event_loops_leave_no_connections(own_server: ValkeyServer) -> None:
    async def call() -> None:
        await provider.start()
        await provider.read(KEY)

    provider = RedisProvider(own_server.url)
    for _ in range(9):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        loop.close()
    gc.collect()
    with own_server.client() as client:
        own_server.wait_until(lambda: len(client.client_list()) == 1 + 1)  # the connection of the last loop
        asyncio.run(provider.stop())
        gc.collect()
        own_server.wait_until(lambda: len(client.client_list()) == 1)


async def test_stop_waits_for_running_calls(server: ValkeyServer, prefix: str) -> None:
    provider = RedisProvider(server.url, prefix=prefix)
    await provider.start()
    calls = [
        asyncio.create_task(provider.append(SessionKey("u", f"{n}"), entry(1), at=Position(0, 0))) for n in range(9)
    ]
    await asyncio.sleep(0)
    await provider.stop()
    assert {call.result().position for call in calls} == {Position(0, 1)}
    with pytest.raises(Unavailable):
        await provider.read(KEY)


async def test_stop_during_a_health_check_leaves_no_connection(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        provider = RedisProvider(own_server.url)
        await provider.start()
        asking = asyncio.create_task(provider.health())
        await asyncio.sleep(0)
        await provider.stop()
        assert await asking is True
        own_server.wait_until(lambda: len(client.client_list()) == 1)


async def test_stop_while_the_event_loop_of_a_thread_ends_leaves_no_connection(own_server: ValkeyServer) -> None:
    calling = threading.Event()

    async def call_and_leave() -> None:
        await asyncio.gather(provider.read(KEY), provider.read(KEY))  # one of two connections will be idle
        os.kill(own_server.pid, signal.SIGSTOP)
        calls = asyncio.create_task(provider.read(KEY))
        await asyncio.sleep(0)
        calling.set()
        deadline = time.monotonic() + 60
        while len(asyncio.all_tasks()) < 3:  # until the stop has begun
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert not calls.done()

    provider = RedisProvider(own_server.url, timeout=30)
    await provider.start()
    with ThreadPoolExecutor() as thread:
        leaving = thread.submit(asyncio.run, call_and_leave())
        try:
            await asyncio.to_thread(calling.wait, 30)
            await provider.stop()
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
            await asyncio.wrap_future(leaving)
    with own_server.client() as client:
        own_server.wait_until(lambda: len(client.client_list()) == 1)


async def test_concurrent_starts_leave_one_connection(own_server: ValkeyServer) -> None:
    provider = RedisProvider(own_server.url)
    await asyncio.gather(*(provider.start() for _ in range(5)))
    with own_server.client() as client:
        own_server.wait_until(lambda: len(client.client_list()) == 1 + 1)
        await provider.stop()
        own_server.wait_until(lambda: len(client.client_list()) == 1)


async def test_forked_child_cannot_use_the_connections_of_its_parent(provider: RedisProvider) -> None:
    async def child() -> bool:
        with pytest.raises(Unavailable, match="fork"):
            await provider.read(KEY)
        await provider.stop()
        async with opened(lambda: provider):
            return len((await read(provider)).entries) == 1

    await fill(provider, 1)
    assert await asyncio.to_thread(succeeds_in_a_fork, child)
    assert len((await read(provider)).entries) == 1


def succeeds_in_a_fork(work: Callable[[], Coroutine[None, None, bool]]) -> bool:
    process = os.fork()
    if not process:
        done = False
        try:
            done = asyncio.run(work())
        finally:
            os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


async def test_start_waits_while_the_server_loads_its_append_only_file() -> None:
    settings = {"appendonly": "yes", "appendfsync": "always", "key_load_delay": 100}  # microseconds for each key
    with ValkeyServer(**settings) as server:
        with server.client() as client, client.pipeline(transaction=False) as pipeline:
            for number in range(40_000):  # between a thousand of them, the server answers
                pipeline.set(f"other application {number}", "x")
            pipeline.execute()
        server.kill()
        loaded = asyncio.create_task(asyncio.to_thread(server.start))
        await asyncio.to_thread(until_loading, server)
        async with started(server.url, durability="disk", timeout=20) as provider:
            with server.client() as client:
                assert client.info("persistence")["loading"] == 0
            await fill(provider, 1)
        await loaded


def until_loading(server: ValkeyServer) -> None:
    def is_loading() -> bool:
        with suppress(NotConnected), server.client() as client:
            return bool(client.info("persistence")["loading"])
        return False

    server.wait_until(is_loading)
