"""The memory and SQLite providers keep the contract. Those of servers are tested in ``tests/providers``."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from contract.searchable import SearchableProvider
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import Restorable, Searchable, Users
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from session_history_hooks.testing.claims import ClaimsContract
from session_history_hooks.testing.lifecycle import LifecycleContract
from session_history_hooks.testing.processes import ProcessesContract


class TestMemory(ProviderContract):
    abilities = (Users, Restorable)

    @pytest.fixture
    def connect(self) -> Connect:
        store = MemoryProvider()
        return lambda: store


class TestSearchable(ProviderContract):
    abilities = (Users, Restorable, Searchable)

    @pytest.fixture
    def connect(self) -> Connect:
        store = SearchableProvider()
        return lambda: store


class TestSqlite(ProviderContract):
    abilities = (Users, Restorable)

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(SqliteProvider, tmp_path / "history.db")


@pytest.mark.asyncio
class TestSqliteNormal(ClaimsContract, LifecycleContract, ProcessesContract):
    """The parts of the contract that synchronous=NORMAL could change."""

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(SqliteProvider, tmp_path / "history.db", synchronous="NORMAL")


def new_memory() -> Connect:
    store = MemoryProvider()
    return lambda: store


def new_sqlite() -> Connect:
    folder = tempfile.mkdtemp()

    def connect() -> SqliteProvider:
        return SqliteProvider(Path(folder) / "history.db", synchronous="NORMAL")

    weakref.finalize(connect, shutil.rmtree, folder, ignore_errors=True)  # a forked child may have been first
    return connect


TestMemoryAtRandom = provider_machine(new_memory).TestCase
TestMemoryAtRandom.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSqliteAtRandom = provider_machine(new_sqlite).TestCase
TestSqliteAtRandom.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
