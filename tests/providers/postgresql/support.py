"""A PostgreSQL server that the tests share, and fixtures on it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from servers import pgbouncer
from servers.postgresql import FAST, Server, running, servers
from servers.proxy import Proxy
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks.testing.subject import opened

OUTSIDE = os.environ.get("SESSION_HISTORY_TEST_POSTGRESQL_URL")
"""A database of the user's, in place of ours where no test has to break the server. The user must be a superuser, and
the database is left with many schemas: name one to throw away.
"""

RUNNING = ExitStack()
"""What all tests share; random histories have no fixtures."""

atexit.register(RUNNING.close)


@functools.cache
def shared_server() -> Server:
    return RUNNING.enter_context(running(RUNNING.enter_context(servers()), *FAST))


@functools.cache
def home_url() -> str:
    """A database that tests may use, each with a schema of its own."""
    if pgbouncer.PROGRAM:
        return RUNNING.enter_context(pgbouncer.pooled(shared_server(), pgbouncer.PROGRAM))
    return OUTSIDE or shared_server().url()


def new_schema(url: str) -> str:
    return asyncio.run(a_schema(url))


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
async def locked(url: str, schema: str, which: str = "true") -> AsyncIterator[None]:
    """Heads are locked by a transaction that does not end."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT FROM {schema}.session_history_head WHERE {which} FOR UPDATE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def hurried(provider: PostgresqlProvider, timeout: float = 0.5) -> AsyncIterator[PostgresqlProvider]:  # noqa: ASYNC109
    """Open it, and from then on give each of its calls so many seconds."""
    async with opened(lambda: provider):
        provider._pool().timeout = timeout
        yield provider


async def waiting(admin: Any, count: int = 1) -> list[int]:
    """The backends that wait for a lock, as soon as there are so many."""
    for _ in range(3000):
        rows = await admin.fetch(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%session_history_head%'"
        )
        if len(rows) >= count:
            return [row["pid"] for row in rows]
        await asyncio.sleep(0.01)
    pytest.fail("nobody waits for a lock")


async def a_schema(url: str) -> str:
    name = f"s{uuid4().hex}"
    await execute(url, f"CREATE SCHEMA {name}")
    return name


class OnServer:
    """The fixtures of tests that use the shared server."""

    @pytest.fixture
    def server(self) -> Server:
        return shared_server()

    @pytest.fixture
    def proxy(self, server: Server) -> Iterator[Proxy]:
        with Proxy(server.port) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, server: Server, proxy: Proxy) -> str:
        """The URL of the server behind its proxy, which can not speak TLS."""
        return f"{server.url(proxy=proxy)}?sslmode=disable"

    @pytest.fixture
    def home(self) -> str:
        return home_url()

    @pytest.fixture
    def schema(self, home: str) -> str:
        return new_schema(home)

    @pytest.fixture
    async def provider(self, home: str, schema: str) -> AsyncIterator[PostgresqlProvider]:
        async with opened(lambda: provider_of(home, schema)) as provider:
            assert isinstance(provider, PostgresqlProvider)
            yield provider

    @pytest.fixture
    async def admin(self, home: str) -> AsyncIterator[Any]:
        """A connection beside the provider's."""
        connection = await asyncpg.connect(home)
        yield connection
        await connection.close()


class OnOwnServer(OnServer):
    """As above, for tests that do to a server what the user's should be spared."""

    @pytest.fixture
    def home(self) -> str:
        return shared_server().url()


async def connections(admin: Any, name: str) -> int:
    count: int = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name)
    return count


async def until_connections(admin: Any, name: str, count: int) -> None:
    for _ in range(500):
        if await connections(admin, name) == count:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{await connections(admin, name)} connections are there, not {count}")
