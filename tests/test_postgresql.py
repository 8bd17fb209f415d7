"""PostgreSQL keeps the contract, and what is special about it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
from contextlib import ExitStack
from functools import partial
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings

from postgresql_server import FAST, Server, running, servers
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks.testing import Connect, ProviderContract, provider_machine

OUTSIDE = os.environ.get("SESSION_HISTORY_TEST_POSTGRESQL_URL")
"""A server of the user's, in place of ours where no test has to break it."""

RUNNING = ExitStack()
"""What all tests share; random histories have no fixtures."""

atexit.register(RUNNING.close)


@functools.cache
def shared_server() -> Server:
    return RUNNING.enter_context(running(RUNNING.enter_context(servers()), *FAST))


def home_url() -> str:
    """A database that tests may use, each with a schema of its own."""
    return OUTSIDE or shared_server().url()


@pytest.fixture
def home() -> str:
    return home_url()


@pytest.fixture
def schema(home: str) -> str:
    return new_schema(home)


def new_schema(url: str) -> str:
    name = f"s{uuid4().hex}"
    asyncio.run(execute(url, f"CREATE SCHEMA {name}"))
    return name


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class TestPostgresql(ProviderContract):
    @pytest.fixture
    def connect(self, home: str, schema: str) -> Connect:
        return partial(PostgresqlProvider, home, schema=schema, durability="host")


def new_store() -> Connect:
    url = home_url()
    return partial(PostgresqlProvider, url, schema=new_schema(url), durability="host")


TestPostgresqlAtRandom = provider_machine(new_store).TestCase
TestPostgresqlAtRandom.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
