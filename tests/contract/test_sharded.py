"""The wrapper ``sharded``: several stores keep the contract as one does."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from session_history import SessionHistoryService
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history.wrappers.sharded import ShardedProvider, shard_number
from session_history_hooks import (
    ConfigurationError,
    Durability,
    Limits,
    Restorable,
    Searchable,
    SessionHistoryProvider,
    Shard,
    Unavailable,
    Users,
    ability,
)
from session_history_hooks.testing import Connect, ProviderContract, provider_machine
from session_history_hooks.testing.subject import KEY, fill, opened, read

SHARDS = 3
USERS = [f"user {number}" for number in range(30)]


class SmallMemoryProvider(MemoryProvider):
    """Has other limits than :class:`MemoryProvider`, none of which the base class keeps."""

    @property
    def limits(self) -> Limits:
        limits = super().limits
        return replace(limits, entry_bytes=1000, summary_bytes=300, entries=50, page=20, remembered_ids=20)


def sharded(folder: Path) -> ShardedProvider:
    return ShardedProvider([SqliteProvider(folder / f"{number}.db") for number in range(SHARDS)])


def different_shards() -> ShardedProvider:
    """Return a small and a large shard; the user of the contract suite is in the large one."""
    shards: list[SessionHistoryProvider] = [SmallMemoryProvider(), SmallMemoryProvider()]
    shards[shard_number(KEY.user_id, 2)] = MemoryProvider()
    return ShardedProvider(shards)


class TestSqliteShards(ProviderContract):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Connect:
        return partial(sharded, tmp_path)


class TestShardsWithDifferentLimits(ProviderContract):
    """The wrapper keeps the limits of the smallest shard, also in the other shards."""

    @pytest.fixture
    def connect(self) -> Connect:
        store = different_shards()
        return lambda: store


def new_store() -> Connect:
    folder = tempfile.mkdtemp()
    connect = partial(sharded, Path(folder))
    weakref.finalize(connect, shutil.rmtree, folder, ignore_errors=True)  # a forked child may have been first
    return connect


TestShardedAtRandom = provider_machine(new_store).TestCase
TestShardedAtRandom.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


async def test_sessions_of_a_user_are_all_in_the_same_shard(tmp_path: Path) -> None:
    async with SessionHistoryService(sharded(tmp_path)) as service:
        for user in USERS:
            for session in ("first", "second"):
                await service.create_session(user, session)
    found: list[str] = []
    for number in range(SHARDS):
        async with opened(partial(SqliteProvider, tmp_path / f"{number}.db")) as shard:
            counts = {user: len((await shard.list(user, limit=9)).heads) for user in USERS}
        assert set(counts.values()) == {0, 2}
        found += [user for user, count in counts.items() if count]
    assert sorted(found) == sorted(USERS)


@pytest.mark.parametrize(
    ("user", "shards", "expected"),
    [("ada", 2, 1), ("ada", 64, 39), ("grace", 2, 1), ("grace", 64, 21), ("会话", 64, 13)],
)
def test_shard_number_never_changes(user: str, shards: int, expected: int) -> None:
    assert shard_number(user, shards) == expected


def test_users_are_spread_over_all_shards() -> None:
    shards = [shard_number(f"user {number}", 16) for number in range(16_000)]
    assert all(800 < shards.count(shard) < 1200 for shard in range(16))


def test_limits_are_the_weakest_of_the_shards(tmp_path: Path) -> None:
    small, sqlite = SmallMemoryProvider(), SqliteProvider(tmp_path / "a.db")
    assert ShardedProvider([sqlite, small]).limits == small.limits
    assert ShardedProvider([sqlite, sqlite]).limits == sqlite.limits
    assert ShardedProvider([sqlite, MemoryProvider()]).limits.durability is Durability.PROCESS


@pytest.mark.parametrize("after", [None, -3, 0, 5, 39, 40, 60])
@pytest.mark.parametrize("before", [None, 0, 3, 27, 41, 60])
async def test_read_without_last_returns_the_smallest_page(before: int | None, after: int | None) -> None:
    store = different_shards()
    await store.start()
    await fill(store, 40)
    low = 1 if after is None else max(after + 1, 1)
    stop = 41 if before is None else min(before, 41)
    seqs = list(range(low, stop))
    expected = seqs[-20:] if after is None else seqs[:20]
    log = await read(store, before=before, after=after)
    assert [entry.id for entry in log.entries] == [f"e{seq}" for seq in expected]
    assert log.first == (expected[0] if expected else 41)


def shard_files(folder: Path, *names: str) -> ShardedProvider:
    return ShardedProvider([SqliteProvider(folder / f"{name}.db") for name in names])


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        ("ba", "shard 0 of 2 is shard 1 of 2"),
        ("abc", "shard 0 of 3 is shard 0 of 2"),
        ("ca", "shard 1 of 2 is shard 0"),
    ],
)
async def test_shard_in_the_wrong_place_is_refused_and_no_other_takes_one(
    tmp_path: Path, names: str, refused: str
) -> None:
    async with opened(lambda: shard_files(tmp_path, "a", "b")):
        pass
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=refused):
            await shard_files(tmp_path, *names).start()
    async with opened(lambda: shard_files(tmp_path, "a", "b")) as store:
        assert await store.health()
    async with opened(lambda: SqliteProvider(tmp_path / "c.db")) as unused:
        assert (await unused.store_info()).shard is None


async def test_store_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="shard 1 of 2 is shard 0 of 2"):
        await shard_files(tmp_path, "a", "a").start()


async def test_single_shard_is_refused_as_a_whole_store(tmp_path: Path) -> None:
    async with opened(lambda: shard_files(tmp_path, "a", "b")):
        pass
    service = SessionHistoryService(SqliteProvider(tmp_path / "b.db"))
    with pytest.raises(ConfigurationError, match=r"shard 1 of 2 of a sharded store"):
        await service.create_session("u")
    await service.stop()


async def test_incarnation_changes_with_that_of_any_shard(tmp_path: Path) -> None:
    incarnations = []
    for lost in (None, None, "a", "b"):
        for file in tmp_path.glob(f"{lost}.db*"):
            file.unlink()
        async with opened(lambda: shard_files(tmp_path, "a", "b")) as store:
            incarnations.append((await store.store_info()).incarnation)
            with pytest.raises(ConfigurationError):
                await store.store_info(shard=Shard(0, 2))
    assert incarnations[0] == incarnations[1]
    assert len(set(incarnations)) == 3


class WithoutAbilities(MemoryProvider):
    def ability(self, kind: object) -> object | None:
        return None


async def test_abilities_are_those_that_all_shards_have() -> None:
    for kind in (Users, Restorable):
        assert ability(ShardedProvider([MemoryProvider(), MemoryProvider()]), kind) is not None
        assert ability(ShardedProvider([MemoryProvider(), WithoutAbilities()]), kind) is None
    assert ability(ShardedProvider([MemoryProvider(), MemoryProvider()]), Searchable) is None


async def test_failed_start_stops_the_shards_that_started(tmp_path: Path) -> None:
    first, missing = SqliteProvider(tmp_path / "0.db"), SqliteProvider(tmp_path / "no folder" / "1.db")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        await ShardedProvider([first, missing]).start()
    with pytest.raises(Unavailable):
        await first.list("ada", limit=1)


class FailingStop(MemoryProvider):
    async def stop(self) -> None:
        raise Unavailable("the connection is lost")


async def test_failed_start_raises_its_error_though_a_stop_fails_too(tmp_path: Path) -> None:
    missing = SqliteProvider(tmp_path / "no folder" / "1.db")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        await ShardedProvider([FailingStop(), missing]).start()


async def test_stop_stops_all_shards_and_raises_the_first_error() -> None:
    shards = [MemoryProvider(), FailingStop(), MemoryProvider()]
    store = ShardedProvider(shards)
    await store.start()
    with pytest.raises(Unavailable, match="the connection is lost"):
        await store.stop()
    assert [await shard.health() for shard in shards] == [False, True, False]


async def test_health_is_false_if_one_shard_is_not_healthy() -> None:
    shards = [MemoryProvider(), MemoryProvider()]
    async with opened(lambda: ShardedProvider(shards)) as store:
        assert await store.health()
        await shards[1].stop()
        assert not await store.health()


def test_no_shards_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one shard"):
        ShardedProvider([])
