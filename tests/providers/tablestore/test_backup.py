"""The backup of ``docs/how-to/backup-and-restore.md`` on Tablestore: a copy in another store, while services write."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from contract.backups import check_backup_and_restore, run_turn, turns_of
from providers.tablestore.support import provider
from servers.tablestore import TablestoreServer
from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionHistoryProvider
from support import ROOT

SCRIPT = ROOT / "examples" / "copy_store.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as a module."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return __import__(SCRIPT.stem)


async def test_restored_copy_shows_each_session_up_to_the_backup(script: ModuleType, tmp_path: Path) -> None:
    with TablestoreServer() as server:
        tables = ["first"]

        def connect(table: str = "") -> SessionHistoryProvider:
            return provider(server.endpoint, table=table or tables[-1])

        def copy(source: Callable[[], SessionHistoryProvider], target: Callable[[], SessionHistoryProvider]) -> None:
            copied, failed = asyncio.run(copied_between(script, source(), target()))
            assert (copied, failed) == (7, [])

        backup = partial(SqliteProvider, tmp_path / "backup.db")

        def restore() -> None:
            copy(backup, partial(connect, "second"))
            tables.append("second")

        await check_backup_and_restore(connect, partial(copy, connect, backup), restore)


async def copied_between(
    script: ModuleType, source: SessionHistoryProvider, target: SessionHistoryProvider
) -> tuple[int, list[str]]:
    async with SessionHistoryService(source), SessionHistoryService(target):
        result: tuple[int, list[str]] = await script.copy_store(source, target)
        return result


async def test_copy_that_is_repeated_adds_what_is_new(tmp_path: Path) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    async with SqliteSessionHistoryService(one) as service:
        await run_turn(service, ("u", "s"), 1)
        await service.create_session("u", "deleted")
        await service.append_message(await service.create_session("u", "gone"), {"role": "user", "content": "x"})
        await service.delete_session("u", "gone")
        assert "Copied 3 sessions and tombstones." in run(one, other)
        await run_turn(service, ("u", "s"), 2)
        assert "Copied 3 sessions and tombstones." in run(one, other)
    async with SqliteSessionHistoryService(other) as service:
        assert await turns_of(service, ("u", "s")) == 2
        assert not await run_turn(service, ("u", "s"), 2)
        assert await service.get_session("u", "gone") is None


def run(source: Path, target: Path) -> str:
    command = [sys.executable, str(SCRIPT), f"sqlite:///{source}", f"sqlite:///{target}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


async def test_session_that_is_deleted_while_it_is_copied_is_named(script: ModuleType) -> None:
    source, target = MemoryProvider(), MemoryProvider()
    async with SessionHistoryService(source) as service, SessionHistoryService(target):
        await run_turn(service, ("u", "s"), 1)
        head = (await source.list("u", limit=1)).heads[0]
        await service.delete_session("u", "s")
        with pytest.raises(script.Changed):
            await script.copy_session(source, target, head)
