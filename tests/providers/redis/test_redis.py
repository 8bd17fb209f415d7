"""The contract on real servers, and the number of round trips."""

from __future__ import annotations

from functools import partial
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from providers.redis.support import round_trips, started, url_of
from servers.proxy import Proxy
from servers.valkey import ValkeyServer
from session_history.providers.redis import RedisProvider
from session_history_hooks import Unavailable
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from session_history_hooks.testing.subject import KEY, append, covering, fill, read

# The contract


class TestSingle(ProviderContract):
    @pytest.fixture
    def connect(self, single_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, single_url, prefix=prefix, durability="host")


class TestCluster(ProviderContract):
    """Without a claim beyond the process: contract/test_providers_faults.py has several processes on a cluster."""

    @pytest.fixture
    def connect(self, steady_cluster_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, steady_cluster_url, prefix=prefix)


class TestWithTimeToLive(ProviderContract):
    @pytest.fixture
    def connect(self, single_url: str, prefix: str) -> Connect:
        return partial(RedisProvider, single_url, prefix=prefix, ttl=3600)


def test_random_histories_keep_the_contract(single_url: str) -> None:
    def new_store() -> Connect:
        return partial(RedisProvider, single_url, prefix=uuid4().hex)

    bounds = settings(max_examples=40, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(provider_machine(new_store), settings=bounds)


# Round trips


async def test_read_append_and_list_take_one_round_trip_each(proxy: Proxy, prefix: str) -> None:
    async with started(url_of(proxy), prefix=prefix) as provider:
        await fill(provider, 3)
        await read(provider)
        await provider.list(KEY.user_id, limit=5)  # the server knows every script now
        assert await round_trips(proxy, provider.read(KEY, last=2, entry_id="e1")) == 1
        assert await round_trips(proxy, append(provider, 4, covering(4))) == 1
        assert await round_trips(proxy, provider.list(KEY.user_id, limit=5)) == 1
        assert proxy.connections == 1


async def test_append_that_waits_for_replicas_takes_one_round_trip(proxy: Proxy, prefix: str) -> None:
    url = url_of(proxy)
    async with started(url, prefix=prefix, wait_replicas=1, wait_timeout=0.01) as provider:
        for number in (1, 2):
            with pytest.raises(Unavailable):
                await append(provider, number)
        with pytest.raises(Unavailable, match="0 of 1 replicas"):
            assert await round_trips(proxy, append(provider, 3)) == 1


async def test_forgotten_scripts_are_sent_again(server: ValkeyServer, provider: RedisProvider) -> None:
    await fill(provider, 1)
    with server.client() as client:
        client.script_flush()
    await append(provider, 2)
    assert len((await read(provider)).entries) == 2
