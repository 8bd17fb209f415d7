"""Servers of Redis that are slow or gone, and callers that do not wait."""

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
from itertools import chain, repeat
from typing import Any

import pytest
from redis import Redis

from providers.redis.support import names, started
from servers.proxy import Mishap, Proxy
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history.providers.redis.deadlines import Deadlines
from session_history_hooks import (
    Appended,
    Entry,
    Position,
    SessionKey,
    StoreFull,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, append, entry, fill, opened, read


@pytest.mark.parametrize("loss", [Mishap.CUT_BEFORE, Mishap.CUT_AFTER])
async def test_what_was_lost_is_settled_before_the_caller_hears_of_it(
    between: Proxy, prefix: str, loss: Mishap
) -> None:
    async with started(f"redis://127.0.0.1:{between.port}", prefix=prefix) as provider:
        await fill(provider, 3)
        await provider.rewrite(KEY, entry(1), at=Position(0, 1), rewrites=0, snapshot=None)
        await provider.delete(SessionKey("user", "none"))  # every script is known
        between.mishaps = iter([loss])
        assert await append(provider, 4) == Appended(Position(0, 4), replayed=loss is Mishap.CUT_AFTER)
        between.mishaps = iter([loss])
        assert len((await read(provider)).entries) == 4
        between.mishaps = iter([loss])
        new = Entry("e2", b"new")
        assert (await provider.rewrite(KEY, new, at=Position(0, 2), rewrites=1, snapshot=None)).rewrites == 2
        assert (await read(provider)).entries == (entry(1), new, entry(3), entry(4))
        between.mishaps = iter([loss])
        assert await provider.delete(KEY) is True
        assert await provider.delete(KEY) is False
        await provider.append(KEY, entry(1), at=Position(1, 0))
        between.mishaps = iter([loss])
        assert await provider.delete_user(KEY.user_id) == 1
        assert between.connections >= 5, "nothing was lost"


async def test_an_append_whose_answer_was_lost_before_the_memory_was_full_is_known(own: ValkeyServer) -> None:
    with Proxy(own.port) as between, own.client() as client:
        async with started(f"redis://127.0.0.1:{between.port}", timeout=60) as provider:
            await fill(provider, 1)
            entries = names(own, "sh")["entries"]
            between.mishaps = chain([Mishap.CUT_AFTER], repeat(Mishap.CUT_BEFORE))
            appending = asyncio.create_task(append(provider, 2))
            await asyncio.to_thread(own.wait_until, lambda: client.llen(entries) == 2)
            client.config_set("maxmemory", 1)
            between.mishaps = repeat(None)
            assert await appending == Appended(Position(0, 2), replayed=True)
            with pytest.raises(StoreFull):
                await append(provider, 3)
        client.config_set("maxmemory", 0)
        async with started(own.url, wait_replicas=1, wait_timeout=0.05) as provider:
            with pytest.raises(Unavailable, match="0 of 1 replicas"):
                await append(provider, 3)
            client.config_set("maxmemory", 1)
            with pytest.raises(Unavailable, match="the entry is stored, but without memory"):
                await append(provider, 3)
            with pytest.raises(StoreFull):
                await append(provider, 4)


@pytest.mark.parametrize("ttl", [None, 60])
@pytest.mark.parametrize("lives", [1, 2])
@pytest.mark.parametrize("whole_user", [False, True])
async def test_a_delete_that_is_sent_again_spares_the_life_that_began_since(
    between: Proxy, server: ValkeyServer, prefix: str, ttl: int | None, lives: int, whole_user: bool
) -> None:
    """Also if that one was deleted, too, and another began."""

    async def delete(user: str) -> int:
        key = SessionKey(user, KEY.session_id)
        return await (provider.delete_user(user) if whole_user else provider.delete(key))  # type: ignore[no-any-return]

    async with (
        started(f"redis://127.0.0.1:{between.port}", prefix=prefix, ttl=ttl, timeout=20) as provider,
        started(server.url, prefix=prefix, ttl=ttl) as other,
    ):
        await fill(provider, 2)
        await provider.append(SessionKey("warm", KEY.session_id), entry(1), at=Position(0, 0))
        assert await delete("warm") == 1  # every script is known
        between.mishaps = chain([None] * whole_user, [Mishap.CUT_AFTER], repeat(Mishap.CUT_BEFORE))
        deleting = asyncio.create_task(delete(KEY.user_id))
        await until_deleted(other)
        for generation in range(1, lives + 1):
            if generation > 1:
                assert await other.delete(KEY) is True
            await other.append(KEY, Entry("new", b"kept"), at=Position(generation, 0))
        between.mishaps = repeat(None)
        assert await deleting == 1
        log = await read(other)
        assert (log.head.tail, [each.id for each in log.entries]) == (Position(lives, 1), ["new"])
        assert await other.delete(KEY) is True


async def until_deleted(provider: RedisProvider) -> None:
    deadline = time.monotonic() + 5
    while not (await read(provider)).head.deleted:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "unrelated", [ssl.SSLCertVerificationError(), socket.gaierror(socket.EAI_NONAME, ""), ConnectionRefusedError()]
)
async def test_what_the_caller_is_about_to_handle_is_no_cause(
    between: Proxy, prefix: str, unrelated: Exception
) -> None:
    async with started(f"redis://127.0.0.1:{between.port}", prefix=prefix) as provider:
        await fill(provider, 1)
        try:
            raise unrelated  # as by the call of a model
        except OSError:
            between.mishaps = iter([Mishap.CUT_BEFORE])
            assert (await append(provider, 2)).position == Position(0, 2)
            between.mishaps = iter([Mishap.CUT_BEFORE])
            async with started(f"redis://127.0.0.1:{between.port}", prefix=prefix):
                pass


async def test_a_server_that_was_killed_is_found_again(own: ValkeyServer) -> None:
    async with started(own.url, durability="host") as provider:
        await asyncio.gather(*(provider.append(SessionKey("u", f"{n}"), entry(1), at=Position(0, 0)) for n in range(9)))
        await fill(provider, 3)
        own.kill()
        assert await provider.health() is False
        appending = asyncio.create_task(append(provider, 4))
        await asyncio.sleep(0.2)
        assert not appending.done()
        await asyncio.to_thread(own.start)
        assert (await appending).position == Position(0, 4)
        assert await provider.health() is True
        assert (await read(provider)).entries == tuple(entry(number) for number in range(1, 5))


async def test_nothing_acknowledged_is_lost_when_a_server_is_killed_in_mid_write(own: ValkeyServer) -> None:
    async with started(own.url, durability="host", timeout=20) as provider:
        acknowledged: list[str] = []

        async def writing() -> None:
            for number in range(1, 10**9):
                await append(provider, number)
                acknowledged.append(f"e{number}")

        task = asyncio.create_task(writing())
        for enough in (30, 60, 90, 120):
            await until_grown(acknowledged, enough)
            await asyncio.to_thread(own.restart)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        stored = [each.id for each in (await read(provider, last=10**6)).entries]
        assert stored[: len(acknowledged)] == acknowledged
        assert len(stored) - len(acknowledged) in {0, 1}


async def until_grown(names: list[str], size: int) -> None:
    deadline = time.monotonic() + 60
    while len(names) < size:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_a_server_that_hangs_is_unavailable_in_time(own: ValkeyServer) -> None:
    async with started(own.url, timeout=0.5) as provider:
        await fill(provider, 1)
        with own.frozen():
            begun = time.monotonic()
            with pytest.raises(Unavailable, match=r"0\.5 s"):
                await append(provider, 2)
            assert await provider.health() is False
            with pytest.raises(Unavailable):
                await RedisProvider(own.url, timeout=0.1).start()
            assert time.monotonic() - begun < 3
        assert (await append(provider, 2)).position == Position(0, 2)


async def test_an_answer_that_came_while_the_loop_stood_still_is_in_time(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    await fill(provider, 1)
    (await provider._servers())._deadlines = Deadlines(0.2)
    appending = asyncio.create_task(append(provider, 2))
    await asyncio.sleep(0)
    stand_still(server, names(server, prefix)["entries"])
    assert await appending == Appended(Position(0, 2), replayed=False)


def stand_still(server: ValkeyServer, entries: str) -> None:
    """Until the server has answered, and longer than a call may take."""
    begun = time.monotonic()
    with server.client() as client:
        while client.llen(entries) < 2 or time.monotonic() < begun + 0.5:
            assert time.monotonic() < begun + 60
            time.sleep(0.01)


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a host of this name is still not found."""
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


async def test_a_name_that_is_unknown_at_the_start_is_not_waited_for(
    nameless: dict[str, int], cluster: ValkeyCluster
) -> None:
    nameless["nowhere.test"] = 10**9
    begun = time.monotonic()
    for url in ("redis://nowhere.test", "redis+cluster://nowhere.test,nowhere.test:1"):
        with pytest.raises(Unavailable, match="its host name is unknown"):
            await RedisProvider(url, timeout=60).start()
    assert time.monotonic() - begun < 30
    async with started(f"redis+cluster://nowhere.test,127.0.0.1:{cluster.servers[0].port}") as provider:
        assert await provider.health() is True


async def test_a_start_where_nobody_listens_says_so_at_once(cluster: ValkeyCluster) -> None:
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


async def test_a_start_waits_for_a_cluster_of_which_one_master_is_gone(cluster: ValkeyCluster) -> None:
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


async def test_a_name_that_is_unknown_for_a_while_is_waited_for(nameless: dict[str, int], own: ValkeyServer) -> None:
    nameless["host.test"] = 0
    async with started(f"redis://host.test:{own.port}", timeout=20) as provider:
        await fill(provider, 1)
        await asyncio.to_thread(own.restart)
        nameless["host.test"] = 3
        assert (await append(provider, 2)).position == Position(0, 2)
        assert nameless["host.test"] < 0


async def test_a_master_whose_name_leads_to_another_by_now(own: ValkeyServer) -> None:
    with ValkeyServer(appendonly="yes") as other, own.client() as client, other.client() as heir:
        heir.config_set("repl-diskless-sync-delay", 0)
        heir.replicaof("127.0.0.1", str(own.port))
        with Proxy(own.port) as between:
            async with started(f"redis://127.0.0.1:{between.port}", timeout=60) as provider:
                await asyncio.gather(*(provider.read(SessionKey("u", f"{n}")) for n in range(4)))
                await fill(provider, 1)
                own.wait_until(lambda: bool(client.incr("tries") and client.wait(1, 100)))
                heir.replicaof("NO", "ONE")
                client.replicaof("127.0.0.1", str(other.port))
                appending = asyncio.create_task(append(provider, 2))
                await asyncio.to_thread(own.wait_until, lambda: refusals(client, "READONLY") > 2)
                between.target = other.port
                assert (await appending).position == Position(0, 2)
                assert len((await read(provider)).entries) == 2


def refusals(client: Redis, code: str) -> int:
    """How often the server has answered with an error."""
    stats = client.info("errorstats")
    assert isinstance(stats, dict)
    return int(stats.get(f"errorstat_{code}", {"count": 0})["count"])


async def test_a_master_that_misses_its_replicas_for_a_while(own: ValkeyServer) -> None:
    async with started(own.url, timeout=60) as provider:
        await fill(provider, 1)
        with own.client() as client:
            client.config_set("min-replicas-to-write", 1)
            appending = asyncio.create_task(append(provider, 2))
            await asyncio.to_thread(own.wait_until, lambda: refusals(client, "NOREPLICAS") > 1)
            client.config_set("min-replicas-to-write", 0)
            assert (await appending).position == Position(0, 2)


async def test_connections_that_fell_silent_cost_one_call(between: Proxy, prefix: str) -> None:
    async with started(f"redis://127.0.0.1:{between.port}", prefix=prefix, timeout=0.5) as provider:
        await asyncio.gather(*(provider.read(SessionKey("u", f"{n}")) for n in range(9)))
        assert between.connections == 9
        between.mute()
        with pytest.raises(Unavailable, match="no answer"):
            await append(provider, 1)
        assert (await append(provider, 1)).position == Position(0, 1)


async def test_nobody_listens() -> None:
    provider = RedisProvider("redis://127.0.0.1:1", timeout=0.2)
    with pytest.raises(Unavailable):
        await provider.start()
    with pytest.raises(Unavailable, match="not open"):
        await provider.read(KEY)


async def test_cancelled_calls_leave_no_answers_to_others(provider: RedisProvider) -> None:
    keys = [SessionKey("user", f"s{number}") for number in range(20)]
    for key in keys:
        await provider.append(key, Entry("e1", key.session_id.encode()), at=Position(0, 0))

    async def look(key: SessionKey) -> None:
        log = await read(provider, key)
        assert [each.payload for each in log.entries] == [key.session_id.encode()]

    cancelled = 0
    [connections] = (await provider._servers())._servers.values()
    for turn in range(200):
        if turn % 3 == 0:
            await connections.give_up()  # so that calls are also cancelled while they connect
        tasks = [asyncio.create_task(look(key)) for key in random.sample(keys, 5)]
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


async def test_connections_are_few_and_end_with_the_provider(own: ValkeyServer) -> None:
    with own.client() as client:
        async with started(own.url, max_connections=4) as provider:
            await asyncio.gather(*(provider.read(SessionKey("u", f"{n}")) for n in range(40)))
            assert len(client.client_list()) == 4 + 1
            await asyncio.to_thread(asyncio.run, provider.read(KEY))
            own.wait_until(lambda: len(client.client_list()) == 4 + 1)
        own.wait_until(lambda: len(client.client_list()) == 1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # which is right, but not what is asked here
def test_loops_that_are_just_closed_leave_no_connections(own: ValkeyServer) -> None:
    async def call() -> None:
        await provider.start()
        await provider.read(KEY)

    provider = RedisProvider(own.url)
    for _ in range(9):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        loop.close()
    gc.collect()
    with own.client() as client:
        own.wait_until(lambda: len(client.client_list()) == 1 + 1)  # that of the last loop
        asyncio.run(provider.stop())
        gc.collect()
        own.wait_until(lambda: len(client.client_list()) == 1)


async def test_a_stop_waits_for_the_calls_that_go_on(server: ValkeyServer, prefix: str) -> None:
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


async def test_a_stop_while_the_health_is_asked_for_leaves_no_connection(own: ValkeyServer) -> None:
    with own.client() as client:
        provider = RedisProvider(own.url)
        await provider.start()
        asking = asyncio.create_task(provider.health())
        await asyncio.sleep(0)
        await provider.stop()
        assert await asking is True
        own.wait_until(lambda: len(client.client_list()) == 1)


async def test_a_stop_while_the_loop_of_a_thread_ends(own: ValkeyServer) -> None:
    calling = threading.Event()

    async def call_and_leave() -> None:
        await asyncio.gather(provider.read(KEY), provider.read(KEY))  # one connection will be idle
        os.kill(own.pid, signal.SIGSTOP)
        calls = asyncio.create_task(provider.read(KEY))
        await asyncio.sleep(0)
        calling.set()
        deadline = time.monotonic() + 60
        while len(asyncio.all_tasks()) < 3:  # the stop has not come yet
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert not calls.done()

    provider = RedisProvider(own.url, timeout=30)
    await provider.start()
    with ThreadPoolExecutor() as thread:
        leaving = thread.submit(asyncio.run, call_and_leave())
        try:
            await asyncio.to_thread(calling.wait, 30)
            await provider.stop()
        finally:
            os.kill(own.pid, signal.SIGCONT)
            await asyncio.wrap_future(leaving)
    with own.client() as client:
        own.wait_until(lambda: len(client.client_list()) == 1)


async def test_of_several_starts_at_once_one_counts(own: ValkeyServer) -> None:
    provider = RedisProvider(own.url)
    await asyncio.gather(*(provider.start() for _ in range(5)))
    with own.client() as client:
        own.wait_until(lambda: len(client.client_list()) == 1 + 1)
        await provider.stop()
        own.wait_until(lambda: len(client.client_list()) == 1)


async def test_a_forked_child_may_not_use_the_connections_of_its_parent(provider: RedisProvider) -> None:
    async def child() -> bool:
        with pytest.raises(Unavailable, match="fork"):
            await provider.read(KEY)
        await provider.stop()
        async with opened(lambda: provider):
            return len((await read(provider)).entries) == 1

    await fill(provider, 1)
    assert await asyncio.to_thread(_in_a_fork, child)
    assert len((await read(provider)).entries) == 1


def _in_a_fork(work: Callable[[], Coroutine[None, None, bool]]) -> bool:
    process = os.fork()
    if not process:
        done = False
        try:
            done = asyncio.run(work())
        finally:
            os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
