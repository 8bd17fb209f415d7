"""The identity that a file keeps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from session_history.errors import Corrupt
from session_history.providers.sqlite import SqliteProvider, file
from session_history_hooks import Entry, Position, SessionKey, Shard, StoreInfo


async def store_info(path: Path, shard: Shard | None = None) -> StoreInfo:
    provider = SqliteProvider(path)
    await provider.start()
    try:
        return await provider.store_info(shard=shard)
    finally:
        await provider.stop()


def run_sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


async def test_each_new_file_has_another_incarnation(tmp_path: Path) -> None:
    infos = [await store_info(tmp_path / "a.db"), await store_info(tmp_path / "b.db")]
    (tmp_path / "a.db").unlink()
    infos.append(await store_info(tmp_path / "a.db"))
    assert len({info.incarnation for info in infos}) == 3
    assert {(info.format, info.shard) for info in infos} == {(len(file.MIGRATIONS), None)}


async def test_copy_of_a_file_keeps_incarnation_and_shard(tmp_path: Path) -> None:
    info = await store_info(tmp_path / "a.db", Shard(2, 4))
    (tmp_path / "b.db").write_bytes((tmp_path / "a.db").read_bytes())
    assert await store_info(tmp_path / "b.db", Shard(0, 4)) == info
    assert info.shard == Shard(2, 4)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM store",
        "DROP TABLE store",
        "UPDATE store SET shard_number = 4, shard_count = 4",
        "UPDATE store SET shard_number = 'x', shard_count = 4",
        "UPDATE store SET incarnation = CAST(x'ff' AS TEXT)",
    ],
)
async def test_damaged_identity_raises_corrupt(tmp_path: Path, statement: str) -> None:
    await store_info(tmp_path / "a.db")
    run_sql(tmp_path / "a.db", statement)
    with pytest.raises(Corrupt):
        await store_info(tmp_path / "a.db", Shard(0, 4))


@pytest.mark.parametrize("keys", ["", "k", "1", "[", '{"k": '])
async def test_read_of_damaged_keys_raises_corrupt(tmp_path: Path, keys: str) -> None:
    provider = SqliteProvider(tmp_path / "a.db")
    await provider.start()
    key = SessionKey("u", "s")
    await provider.append(key, Entry("e", b"x", keys=("hunter2",)), at=Position(0, 0))
    run_sql(tmp_path / "a.db", f"UPDATE entry SET keys = '{keys}'")
    with pytest.raises(Corrupt) as error:
        await provider.read(key)
    assert "hunter2" not in str(error.value)
    await provider.stop()
