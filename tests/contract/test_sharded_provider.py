"""``examples/sharded_provider.py``: many databases keep the contract as one does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from session_history import SessionHistoryService
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import ConfigurationError, SessionHistoryProvider, Unavailable
from session_history_hooks.testing import Connect, ProviderContract
from sharded_provider import ShardedProvider

SHARDS = 3


def sharded(folder: Path) -> ShardedProvider:
    return ShardedProvider([SqliteProvider(folder / f"{number}.db") for number in range(SHARDS)])


class TestSharded(ProviderContract):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(sharded, tmp_path)


async def test_every_user_is_in_one_shard_and_every_shard_has_some(tmp_path: Path) -> None:
    users = [f"user {number}" for number in range(30)]
    async with SessionHistoryService(sharded(tmp_path)) as service:
        for user in users:
            for session in ("first", "second"):
                await service.create_session(user, session)
    found: list[str] = []
    for number in range(SHARDS):
        async with SessionHistoryService(SqliteProvider(tmp_path / f"{number}.db")) as shard:
            here = [user for user in users if len(await shard.list_sessions(user)) == 2]
        assert here
        found += here
    assert sorted(found) == sorted(users)


async def test_a_shard_that_does_not_start_leaves_none_open(tmp_path: Path) -> None:
    first, missing = SqliteProvider(tmp_path / "0.db"), SqliteProvider(tmp_path / "no folder" / "1.db")
    with pytest.raises(ConfigurationError):
        await ShardedProvider([first, missing]).start()
    with pytest.raises(Unavailable):
        await first.list("ada", limit=1)


def test_shards_that_promise_different_things_are_refused(tmp_path: Path) -> None:
    different: list[SessionHistoryProvider] = [SqliteProvider(tmp_path / "0.db"), MemoryProvider()]
    for shards in ([], different):
        with pytest.raises(ConfigurationError, match="same limits"):
            ShardedProvider(shards)
