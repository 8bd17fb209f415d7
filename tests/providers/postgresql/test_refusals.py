"""A PostgreSQL server that accepts no more connections: the pool shares those that it has."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from providers.postgresql.support import (
    RUNNING,
    busy,
    create_schema,
    execute,
    open_provider_of,
    provider_of,
    recorded_pools,
    shared_machine,
)
from servers.postgresql import FAST, Server, running
from session_history import SessionHistoryService
from session_history.providers.postgresql.errors import too_many_connections
from session_history.providers.postgresql.hosts import Hosts
from session_history.providers.postgresql.pool import Pool
from session_history.providers.postgresql.refusals import LONGEST_PAUSE, Refusals
from session_history_hooks import SessionKey, Unavailable
from session_history_hooks.testing.subject import append, read

CONNECTIONS = 8

KEYS = [SessionKey("user", f"s{number}") for number in range(20)]


@functools.cache
def small_server() -> Server:
    """Start a server that accepts few connections."""
    settings = (f"max_connections={CONNECTIONS}", "superuser_reserved_connections=0", "max_wal_senders=0")
    return RUNNING.enter_context(running(shared_machine(), *FAST, *settings))


@pytest.fixture
def home() -> str:
    return small_server().url()


@pytest.fixture
async def schema(home: str) -> str:
    await until_free(home)
    return await create_schema(home)


async def until_free(url: str) -> None:
    """Wait until the connections of the test before are gone."""
    admin = await asyncpg.connect(url)
    await until_connected(admin, 1)
    await admin.close()


async def until_connected(admin: Any, count: int) -> None:
    """Wait until the server has so many connections: it ends one some time after its client has closed it."""
    for _ in range(500):
        if await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the server has other connections than the test")


@asynccontextmanager
async def held(url: str, count: int = 0, *, beside: int = 0) -> AsyncIterator[list[Any]]:
    """Hold connections, as other clients: so many, or all that the server still accepts.

    :param beside: the connections that the test has. Others are about to end, so the server would accept more later.
    """
    async with AsyncExitStack() as stack:
        others: list[Any] = []
        for _ in range(count or CONNECTIONS - beside):
            others.append(await connected(url))
            stack.push_async_callback(others[-1].close)
        await until_connected(others[0], len(others) + beside)
        yield others


async def connected(url: str) -> Any:
    """Connect, once the server has ended enough connections that were closed."""
    for _ in range(500):
        with suppress(asyncpg.TooManyConnectionsError):
            return await asyncpg.connect(url)
        await asyncio.sleep(0.02)
    raise AssertionError("the server accepts no connection")


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which a pool asks for a connection."""
    asked: list[float] = []
    connect = Hosts.connect

    async def noted(self: Hosts, *arguments: Any, **options: Any) -> Any:
        asked.append(asyncio.get_running_loop().time())
        return await connect(self, *arguments, **options)

    monkeypatch.setattr(Hosts, "connect", noted)
    return asked


@pytest.fixture
def asked_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool does not pause after a refusal, and the server takes its time to refuse."""
    connect = Hosts.connect

    async def slowly(self: Hosts, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.05)
        return await connect(self, *arguments, **options)

    monkeypatch.setattr(Hosts, "connect", slowly)
    monkeypatch.setattr(Refusals, "recent", False)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Is set when a pool has noted that the server accepts no more connections."""
    event = asyncio.Event()
    add = Refusals.add

    def noted(self: Refusals, error: Exception) -> None:
        add(self, error)
        event.set()

    monkeypatch.setattr(Refusals, "add", noted)
    return event


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """The pools of all providers that the test makes from now on."""
    return recorded_pools(monkeypatch)


async def run_turn(service: SessionHistoryService, number: int) -> None:
    async with service.turn("u", f"s{number}") as turn:
        turn.add({"role": "user", "content": f"question {number}"})


@pytest.mark.parametrize("free", [1, 3])
async def test_forty_turns_share_the_connections_that_the_server_accepts(
    home: str, schema: str, attempts: list[float], free: int
) -> None:
    async with held(home, CONNECTIONS - free), SessionHistoryService(provider_of(home, schema)) as service:
        await asyncio.gather(*(run_turn(service, number) for number in range(40)))
        page = await service.list_sessions("u", limit=100)
        assert len(page) == 40
    assert len(attempts) < 30, "the server was asked again and again"


async def test_calls_at_a_full_server_get_returned_connections_in_turn(
    pools: list[Pool], refused: asyncio.Event, home: str, schema: str
) -> None:
    await check_order(pools, refused, home, schema)


@pytest.mark.usefixtures("asked_always")
async def test_call_that_comes_while_the_line_moves_on_does_not_pass_it(
    pools: list[Pool], refused: asyncio.Event, home: str, schema: str
) -> None:
    await check_order(pools, refused, home, schema)


async def check_order(pools: list[Pool], refused: asyncio.Event, home: str, schema: str) -> None:
    done: list[int] = []

    async def call(number: int) -> None:
        await provider.read(KEYS[number])
        done.append(number)

    async with open_provider_of(home, schema, pool_size=6) as provider:
        await append(provider, 1)
        async with held(home, beside=1):
            async with busy(pools[0]):
                calls = [asyncio.create_task(call(0))]
                await asyncio.wait_for(refused.wait(), 5)  # before that, calls ask at the same time
                calls += [asyncio.create_task(call(number)) for number in range(1, 20)]
                await asyncio.sleep(0.1)
            await asyncio.gather(*calls)
    assert done == list(range(20))


async def test_pool_without_a_connection_waits_until_the_server_accepts_one(home: str, schema: str) -> None:
    async with open_provider_of(home, schema) as provider:
        await append(provider, 1)
    async with held(home) as others:
        provider = provider_of(home, schema)
        starting = asyncio.create_task(provider.start())
        await asyncio.sleep(0.5)
        assert not starting.done()
        await others[0].close()
        await starting
        assert len((await read(provider)).entries) == 1
        await provider.stop()


async def test_call_that_gets_no_connection_in_time_raises_unavailable_with_the_cause(
    home: str, schema: str, attempts: list[float]
) -> None:
    async with held(home):
        provider = provider_of(home, schema, timeout=1.5)
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"accepts no more connections \(53300\)"):
            await provider.start()
        assert 1.4 < asyncio.get_running_loop().time() - began < 3
        assert not await provider.health()
        await provider.stop()
    assert 2 <= len(attempts) <= 15


async def test_pool_grows_again_when_the_server_accepts_more(
    pools: list[Pool], home: str, schema: str, attempts: list[float]
) -> None:
    async with open_provider_of(home, schema, pool_size=4) as provider:
        async with held(home, beside=1):
            await asyncio.gather(*(provider.read(key) for key in KEYS))
        before = len(attempts)
        await asyncio.sleep(LONGEST_PAUSE)
        async with busy(pools[0]):
            await asyncio.wait_for(provider.read(KEYS[0]), 5)
        assert len(attempts) == before + 1


async def test_call_that_is_cancelled_at_a_full_server_leaves_the_turn_to_the_next(
    pools: list[Pool], home: str, schema: str
) -> None:
    async with open_provider_of(home, schema, pool_size=4) as provider:
        await append(provider, 1)
        async with held(home, beside=1), busy(pools[0]):
            calls = [asyncio.create_task(provider.read(KEYS[number])) for number in range(3)]
            await asyncio.sleep(0.1)
            for each in calls[:2]:
                each.cancel()
            await asyncio.wait(calls[:2])
            assert not calls[2].done()
        assert await calls[2] is None


async def test_role_with_a_connection_limit_shares_its_connections(home: str, schema: str) -> None:
    role = f"r{schema}"
    await execute(
        home,
        f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2' CONNECTION LIMIT 2",
        f"GRANT ALL ON SCHEMA {schema} TO {role}",
    )
    own = small_server().url(user=role, password="hunter2")
    async with SessionHistoryService(provider_of(own, schema)) as service:
        await asyncio.gather(*(run_turn(service, number) for number in range(40)))


@pytest.mark.parametrize(
    ("kind", "text", "full"),
    [
        (asyncpg.TooManyConnectionsError, "desolé, trop de clients sont déjà connectés", True),
        (asyncpg.ProtocolViolationError, "no more connections allowed (max_client_conn)", True),
        (asyncpg.ProtocolViolationError, "client connections exceeded (max_db_client_connections)", True),
        (asyncpg.ProtocolViolationError, "server login has been failing: sorry, too many clients already", True),
        (asyncpg.InternalServerError, "Max client connections reached", True),
        (asyncpg.ProtocolViolationError, "server login has been failing, try again later", False),
        (asyncpg.CannotConnectNowError, "the database system is starting up", False),
    ],
)
def test_refusals_of_servers_and_poolers_are_told_from_other_errors(
    kind: type[asyncpg.PostgresError], text: str, full: bool
) -> None:
    assert too_many_connections(kind(text)) is full
