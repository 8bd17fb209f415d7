"""A server acknowledges an append after an fsync of its log. A library in the server's process counts the fsyncs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers.postgresql import running, servers
from servers.valkey import ValkeyServer
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history_hooks import Entry, Position, SessionHistoryProvider, SessionKey

KEY = SessionKey("u", "s")
APPENDS = 50


class Watch:
    """Counts the fsyncs of the files in a folder, by the library ``programs/disk.c`` in the server's process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, disk: Path) -> None:
        folder.chmod(0o755)
        library = Path(shutil.copy2(disk, folder))
        library.chmod(0o755)
        self._syncs = folder / "syncs"
        self._syncs.touch()
        self._syncs.chmod(0o666)
        monkeypatch.setenv("DISK_FOLDER", str(folder))
        monkeypatch.setenv("DISK_SYNCS", str(self._syncs))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def count(self, of: str) -> int:
        return sum(of in line for line in self._syncs.read_text().splitlines())


async def synced_appends(provider: SessionHistoryProvider, watch: Watch, log: str) -> int:
    """Return how many appends saw an fsync of the log between their request and their acknowledgement."""
    await provider.start()
    synced = 0
    for seq in range(APPENDS):
        before = watch.count(log)
        await provider.append(KEY, Entry(f"e{seq}", b"payload"), at=Position(0, seq))
        synced += watch.count(log) > before
    await provider.stop()
    return synced


@contextmanager
def postgresql(disk: Path, *settings: str) -> Iterator[tuple[str, Watch]]:
    with servers() as machine, pytest.MonkeyPatch.context() as monkeypatch:
        watch = Watch(machine.folder, monkeypatch, disk)
        with running(machine, *settings) as server:
            monkeypatch.undo()
            yield server.url(), watch


@contextmanager
def valkey(disk: Path, **settings: str) -> Iterator[tuple[str, Watch]]:
    server = ValkeyServer(**settings)
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch = Watch(server.folder, monkeypatch, disk)
        with server:
            monkeypatch.undo()
            yield server.url, watch


async def test_postgresql_syncs_its_log_before_it_acknowledges(disk: Path) -> None:
    with postgresql(disk) as (url, watch):
        assert await synced_appends(PostgresqlProvider(url), watch, "pg_wal/") == APPENDS


@pytest.mark.parametrize("setting", ["fsync=off", "synchronous_commit=off"])
async def test_postgresql_without_sync_acknowledges_before_the_fsync(disk: Path, setting: str) -> None:
    with postgresql(disk, setting) as (url, watch):
        assert await synced_appends(PostgresqlProvider(url, durability="host"), watch, "pg_wal/") < APPENDS / 2


async def test_valkey_syncs_its_log_before_it_acknowledges(disk: Path) -> None:
    with valkey(disk, appendonly="yes", appendfsync="always") as (url, watch):
        provider = RedisProvider(url, durability="disk")
        assert await synced_appends(provider, watch, "appendonlydir/") == APPENDS


@pytest.mark.parametrize("when", ["no", "everysec"])
async def test_valkey_that_answers_first_is_found_out(disk: Path, when: str) -> None:
    with valkey(disk, appendonly="yes", appendfsync=when) as (url, watch):
        assert await synced_appends(RedisProvider(url), watch, "appendonlydir/") < APPENDS / 2
