"""The provider of Redis and Valkey, on real servers."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from providers.redis.support import started
from servers.proxy import Proxy
from servers.valkey import ValkeyServer
from session_history import SessionHistoryService
from session_history.providers.redis import RedisProvider
from session_history_hooks import (
    Unavailable,
)
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from session_history_hooks.testing.subject import KEY, append, covering, fill, read

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
