"""PostgreSQL servers that the tests share, fixtures on them, and helpers."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from servers import pgbouncer
from servers.postgresql import FAST, Machine, Server, running, servers
from servers.proxy import Proxy
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.pool import Pool
from session_history_hooks import Position, SessionHistoryProvider, SessionKey, Unavailable
from session_history_hooks.testing.subject import entry, opened

OUTSIDE = os.environ.get("SESSION_HISTORY_TEST_POSTGRESQL_URL")
"""A database of the user's, in place of ours where no test has to break the server. The user must be a superuser, and
the database is left with many schemas: name one to throw away.
"""

RUNNING = ExitStack()
"""Servers that run until the tests end. Random histories have no fixtures, so they cannot be fixtures."""

atexit.register(RUNNING.close)


@functools.cache
def shared_machine() -> Machine:
    return RUNNING.enter_context(servers())


@functools.cache
def shared_server() -> Server:
    return RUNNING.enter_context(running(shared_machine(), *FAST))


@functools.cache
def fragile_server() -> Server:
    """Start a server that tests may stop; each starts it again."""
    return RUNNING.enter_context(running(shared_machine(), "fsync=off", "full_page_writes=off"))


@functools.cache
def home_url() -> str:
    """Return the URL of a database in which each test has a schema of its own."""
    if pgbouncer.PROGRAM:
        return RUNNING.enter_context(pgbouncer.pooled(shared_server(), pgbouncer.PROGRAM))
    return OUTSIDE or shared_server().url()


def new_schema(url: str) -> str:
    return asyncio.run(create_schema(url))


async def create_schema(url: str) -> str:
    name = f"s{uuid4().hex}"
    await execute(url, f"CREATE SCHEMA {name}")
    return name


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def provider_of(url: str, schema: str | None, **options: Any) -> PostgresqlProvider:
    return PostgresqlProvider(url, schema=schema, **{"durability": "host", "timeout": 5.0, **options})


@asynccontextmanager
async def open_provider_of(url: str, schema: str | None, **options: Any) -> AsyncIterator[PostgresqlProvider]:
    provider = provider_of(url, schema, **options)
    async with opened(lambda: provider):
        yield provider


@asynccontextmanager
async def hurried(
    url: str,
    schema: str | None,
    *,
    timeout: float = 0.5,  # noqa: ASYNC109
    **options: Any,
) -> AsyncIterator[PostgresqlProvider]:
    """Open a provider with a short timeout. Its start, which takes longer, is tried until it succeeds."""
    provider = provider_of(url, schema, timeout=timeout, **options)
    for _ in range(60):
        try:
            await provider.start()
            break
        except Unavailable:
            await asyncio.sleep(0.1)
    try:
        yield provider
    finally:
        await provider.stop()


@asynccontextmanager
async def locked(url: str, schema: str, which: str = "true") -> AsyncIterator[None]:
    """Hold the locks of heads in a transaction that does not end."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT FROM {schema}.session_history_head WHERE {which} FOR UPDATE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def busy(pool: Pool) -> AsyncIterator[None]:
    """Keep one connection of a pool in use."""
    begun, done = asyncio.Event(), asyncio.Event()

    async def hold(_: Connection) -> None:
        begun.set()
        await done.wait()

    holding = asyncio.create_task(pool.run(hold, idempotent=False))
    await begun.wait()
    try:
        yield
    finally:
        done.set()
        await holding


async def fill_sessions(provider: SessionHistoryProvider, user: str, lengths: list[int]) -> None:
    """Append to sessions of a user, s0, s1 …, so many entries each."""
    for number, length in enumerate(lengths):
        for seq in range(length):
            await provider.append(SessionKey(user, f"s{number}"), entry(seq + 1), at=Position(0, seq))


async def on_each_connection(pool: Pool, count: int, statement: str) -> None:
    """Run a statement on ``count`` connections of a pool."""
    barrier = asyncio.Barrier(count)

    async def run(connection: Connection) -> None:
        await barrier.wait()
        await connection.driver.execute(statement)

    await asyncio.gather(*(pool.run(run, idempotent=False) for _ in range(count)))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("the condition did not become true in 30 seconds")


async def backends_waiting_for_lock(admin: Any, count: int = 1) -> list[int]:
    """Wait for ``count`` backends that wait for the lock of a row, and return their process ids."""
    for _ in range(3000):
        rows = await admin.fetch(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%session_history_%'"
        )
        if len(rows) >= count:
            return [row["pid"] for row in rows]
        await asyncio.sleep(0.01)
    pytest.fail("no backend waits for a lock")


async def connections(admin: Any, name: str) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
    return count


async def until_connections(admin: Any, name: str, count: int) -> None:
    for _ in range(500):
        if await connections(admin, name) == count:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"there are {await connections(admin, name)} connections, not {count}")


async def fail_statements(
    admin: Any, schema: str, state: str, *, times: int, at: str = "INSERT ON session_history_entry"
) -> None:
    """Let the server raise an error for the next ``times`` rows that a trigger ``at`` would handle."""
    await admin.execute(
        f"""CREATE SEQUENCE {schema}.failures;
        CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('{schema}.failures') <= {times} THEN
                RAISE EXCEPTION 'payload of %', NEW USING ERRCODE = '{state}';
            END IF;
            RETURN coalesce(NEW, OLD);
        END $$;
        SET search_path TO {schema};
        CREATE TRIGGER failing BEFORE {at} FOR EACH ROW EXECUTE FUNCTION fail();
        RESET search_path"""
    )


def recorded_pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """Return a list that gets each pool which a provider makes from now on."""
    made: list[Pool] = []

    def make(*settings: Any) -> Pool:
        made.append(Pool(*settings))
        return made[-1]

    monkeypatch.setattr("session_history.providers.postgresql.Pool", make)
    return made


class OnServer:
    """Fixtures of tests that use the shared server."""

    @pytest.fixture
    def server(self) -> Server:
        return shared_server()

    @pytest.fixture
    def proxy(self, server: Server) -> Iterator[Proxy]:
        with Proxy(server.port) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, server: Server, proxy: Proxy) -> str:
        """The URL of the server behind its proxy, which does not speak TLS."""
        return f"{server.url(proxy=proxy)}?sslmode=disable"

    @pytest.fixture
    def home(self) -> str:
        return home_url()

    @pytest.fixture
    def name(self) -> str:
        """The name by which the connections of one test are found."""
        return f"n{uuid4().hex}"

    @pytest.fixture
    def named(self, home: str, name: str) -> str:
        """The URL of ``home`` for connections with that name."""
        return f"{home}?application_name={name}"

    @pytest.fixture
    def schema(self, home: str) -> str:
        return new_schema(home)

    @pytest.fixture
    async def provider(self, home: str, schema: str) -> AsyncIterator[PostgresqlProvider]:
        async with open_provider_of(home, schema) as provider:
            yield provider

    @pytest.fixture
    def pools(self, monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
        """The pools of all providers that the test makes from now on."""
        return recorded_pools(monkeypatch)

    @pytest.fixture
    async def admin(self, home: str) -> AsyncIterator[Any]:
        """A connection beside those of the provider."""
        connection = await asyncpg.connect(home)
        yield connection
        await connection.close()


class OnOwnServer(OnServer):
    """The same fixtures for tests that do to a server what the user's database should be spared."""

    @pytest.fixture
    def home(self) -> str:
        return shared_server().url()
