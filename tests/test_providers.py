"""The providers that come with the package keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks.testing import Connect, ProviderContract


class TestMemory(ProviderContract):
    @pytest.fixture
    def connect(self) -> Connect:
        store = MemoryProvider()
        return lambda: store


class TestSqlite(ProviderContract):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return lambda: SqliteProvider(tmp_path / "history.db")


class TestSqliteNormal(ProviderContract):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return lambda: SqliteProvider(tmp_path / "history.db", synchronous="NORMAL")
