"""A backup is the whole store at one moment, and a restore shows exactly that."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from session_history import InMemorySessionHistoryService, SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import BackupExists, ConfigurationError, StoreFull, StoreReadOnly, Unavailable, Unsupported
from session_history.providers.sqlite import SqliteProvider, backup
from session_history.wrappers.sharded import ShardedProvider


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder / "history.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "backup.db"


async def say(service: SessionHistoryService, session_id: str, *texts: str) -> None:
    async with service.turn("u", session_id, last_turns=1) as turn:
        turn.add([{"role": "user", "content": text} for text in texts])


async def texts(service: SessionHistoryService, session_id: str = "s") -> list[str]:
    session = await service.get_session("u", session_id)
    return [message.text for message in session.messages] if session else []


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return found


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def fill(service: SessionHistoryService, megabytes: int = 8) -> None:
    for number in range(megabytes):
        await say(service, f"large{number}", "x" * 1_000_000)


class TestBackup:
    async def test_backup_during_turns_holds_a_prefix_of_whole_turns(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service, SqliteSessionHistoryService(path) as other:
            await fill(service)
            copied = asyncio.Event()

            async def talk(service: SessionHistoryService, session_id: str) -> int:
                for number in count():
                    if copied.is_set():
                        return number
                    await say(service, session_id, f"{number}", f"{number}")
                raise AssertionError

            talks = [asyncio.ensure_future(talk(*each)) for each in ((service, "a"), (other, "b"))]
            held = []
            for number in range(3):
                file = target.with_name(f"{number}.db")
                begun = len(await texts(service, "a")), len(await texts(service, "b"))
                await service.backup(file)
                ended = len(await texts(service, "a")), len(await texts(service, "b"))
                assert integrity(file) == "ok"
                async with SqliteSessionHistoryService(file) as restored:
                    for index, session_id in enumerate("ab"):
                        found = await texts(restored, session_id)
                        assert found == [f"{number // 2}" for number in range(len(found))]
                        assert begun[index] <= len(found) <= ended[index]
                        assert len(found) % 2 == 0, "a turn is torn"
                        held.append(len(found))
            copied.set()
            assert await asyncio.gather(*talks) >= [1, 1]
            assert held[-1] > held[0], "nothing was written during the backups"

    async def test_restored_store_shows_what_the_backup_holds(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "s", "one")
            await say(service, "deleted", "secret")
            await service.delete_session("u", "deleted")
            await service.backup(target)
            await say(service, "s", "two")
            await say(service, "later", "three")
            await service.delete_session("u", "s")
        shutil.copyfile(target, path)
        async with SqliteSessionHistoryService(path) as service:
            assert await texts(service) == ["one"]
            assert [session.id for session in await service.list_sessions("u")] == ["s"]
            assert await service.get_session("u", "deleted") is None
            await say(service, "s", "four")
            assert await texts(service) == ["one", "four"]
        assert b"secret" not in target.read_bytes(), "deleted messages are not copied"

    @pytest.mark.parametrize("overwritten", [True, False])
    async def test_backup_put_in_the_place_of_an_open_store_is_refused(
        self, path: Path, target: Path, overwritten: bool
    ) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "s", "one")
            await service.backup(target)
            await say(service, "s", "two")
            left = path.parent.with_name("left")
            shutil.copytree(path.parent, left)  # What a kill leaves.
        if not overwritten:
            (left / path.name).unlink()
        shutil.copyfile(target, left / path.name)
        with pytest.raises(ConfigurationError, match="put in the place of another"):
            await SqliteSessionHistoryService(left / path.name).start()

    async def test_backup_is_another_store(self, path: Path, target: Path) -> None:
        first, second = SqliteProvider(path), SqliteProvider(target)
        async with SessionHistoryService(first) as service:
            await service.backup(target)
            async with SessionHistoryService(second):
                one, other = await first.store_info(), await second.store_info()
        assert one.incarnation != other.incarnation
        assert (one.format, one.shard) == (other.format, other.shard)

    @pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
    @pytest.mark.parametrize("mode", [0o600, 0o660])
    async def test_backup_has_the_mode_of_the_store(
        self, path: Path, target: Path, mode: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: set[int] = set()
        vacuum = backup.vacuum

        def watched(*arguments: Any, **options: Any) -> None:
            vacuum(*arguments, **options)
            seen.update(stat.S_IMODE(file.stat().st_mode) for file in target.parent.iterdir())

        monkeypatch.setattr(backup, "vacuum", watched)
        async with SqliteSessionHistoryService(path, access="owner" if mode == 0o600 else "group") as service:
            await service.backup(target)
        assert seen == {mode}
        assert stat.S_IMODE(target.stat().st_mode) == mode

    async def test_event_loop_and_turns_go_on_during_a_backup(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await fill(service, 30)
            copy = asyncio.ensure_future(service.backup(target))
            turns = 0
            while not copy.done():
                await asyncio.wait_for(say(service, "s", "meanwhile"), 5)
                turns += 1
            await copy
            assert turns >= 2


class TestRefused:
    async def test_backup_to_existing_file_raises_backup_exists(self, path: Path, target: Path) -> None:
        target.write_bytes(b"mine")
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "s", "one")
            with pytest.raises(BackupExists, match="overwrite") as refusal:
                await service.backup(target)
            assert isinstance(refusal.value, FileExistsError)
            assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)
            assert target.read_bytes() == b"mine"
            await service.backup(target, overwrite=True)
            assert integrity(target) == "ok"
            await service.backup(str(target), overwrite=True)
        assert files(target.parent) == ["backup.db"]

    async def test_backup_to_file_that_appears_meanwhile_raises_backup_exists(
        self, path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vacuum = backup.vacuum

        def late(*arguments: Any, **options: Any) -> None:
            vacuum(*arguments, **options)
            target.write_bytes(b"mine")

        monkeypatch.setattr(backup, "vacuum", late)
        async with SqliteSessionHistoryService(path) as service:
            with pytest.raises(BackupExists):
                await service.backup(target)
        assert target.read_bytes() == b"mine"
        assert files(target.parent) == ["backup.db"]

    async def test_backup_over_a_store_in_use_raises_backup_exists(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service, SqliteSessionHistoryService(target) as other:
            await say(other, "s", "other")
            for overwrite in (True, False):
                with pytest.raises(BackupExists, match="-wal exists"):
                    await service.backup(target, overwrite=overwrite)
            assert await texts(other) == ["other"]

    @pytest.mark.parametrize("name", ["history.db", "history.db-wal", "history.db-shm", "link.db"])
    async def test_backup_to_file_of_the_store_raises_configuration_error(self, path: Path, name: str) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "s", "one")
            path.with_name("link.db").symlink_to(path)
            for overwrite in (True, False):
                with pytest.raises(ConfigurationError, match="the store itself"):
                    await service.backup(path.with_name(name), overwrite=overwrite)
            assert await texts(service) == ["one"]

    async def test_backup_to_impossible_path_raises_configuration_error(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            for wrong in (target.parent, target.parent / "none" / "b.db", "", "a\0b", target.with_name("x" * 300)):
                with pytest.raises(ConfigurationError):
                    await service.backup(wrong)
        assert files(target.parent) == []

    @pytest.mark.parametrize(
        ("number", "kind"), [(errno.EACCES, StoreReadOnly), (errno.ENOSPC, StoreFull), (errno.EIO, Unavailable)]
    )
    async def test_backup_that_cannot_be_written_raises_our_error(
        self, path: Path, target: Path, number: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path) -> None:
            raise OSError(number, os.strerror(number))

        async with SqliteSessionHistoryService(path) as service:
            monkeypatch.setattr(backup, "_sync", fail)
            with pytest.raises(kind, match="cannot be written"):
                await service.backup(target)
            await say(service, "s", "one")
        assert files(target.parent) == []

    async def test_backup_by_replaced_store_raises_unavailable(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            path.rename(path.with_name("moved"))
            with pytest.raises(Unavailable, match="replaced"):
                await service.backup(target)
        assert files(target.parent) == []

    async def test_backup_by_stopped_service_raises_unavailable(self, path: Path, target: Path) -> None:
        service = SqliteSessionHistoryService(path)
        await service.start()
        await service.stop()
        with pytest.raises(Unavailable):
            await service.backup(target)

    @pytest.mark.parametrize("sharded", [True, False])
    async def test_backup_of_another_store_raises_unsupported(self, path: Path, target: Path, sharded: bool) -> None:
        shards = [SqliteProvider(path), SqliteProvider(path.with_name("other.db"))]
        service = SessionHistoryService(ShardedProvider(shards)) if sharded else InMemorySessionHistoryService()
        async with service:
            with pytest.raises(Unsupported, match="'Backup and restore'") as refusal:
                await service.backup(target)
        assert isinstance(refusal.value, NotImplementedError)


class Held:
    """Holds each copy at its begin, until it is stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        vacuum = backup.vacuum

        def slow(path: Path, target: Path, *, timeout: float, stopped: Callable[[], bool]) -> None:
            self.begun.set()
            while not stopped():
                time.sleep(0.001)
            vacuum(path, target, timeout=timeout, stopped=stopped)

        monkeypatch.setattr(backup, "vacuum", slow)


class TestEnded:
    async def ended(
        self,
        path: Path,
        target: Path,
        end: Callable[[SessionHistoryService, asyncio.Task[None]], Awaitable[object]],
        kind: type[BaseException],
        held: Held,
    ) -> None:
        service = SqliteSessionHistoryService(path)
        await say(service, "s", "one")
        copy = asyncio.create_task(service.backup(target))
        await asyncio.to_thread(held.begun.wait)
        await end(service, copy)
        with pytest.raises(kind):
            await copy
        assert files(target.parent) == []
        await service.stop()
        assert files(path.parent) == ["history.db"], "a connection was left open"
        async with SqliteSessionHistoryService(path) as service:
            assert await texts(service) == ["one"]

    async def test_cancelled_backup_leaves_no_file(
        self, path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def cancel(_: SessionHistoryService, copy: asyncio.Task[None]) -> None:
            copy.cancel()
            await asyncio.sleep(0)
            copy.cancel()

        await self.ended(path, target, cancel, asyncio.CancelledError, Held(monkeypatch))

    async def test_backup_ends_with_the_service(
        self, path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.ended(path, target, lambda service, _: service.stop(), Unavailable, Held(monkeypatch))

    async def test_cancelled_backup_of_a_large_store_ends_soon(self, path: Path, target: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await fill(service, 40)
            copy = asyncio.create_task(service.backup(target))
            while not any(file.stat().st_size for file in target.parent.iterdir()):  # noqa: ASYNC110 - SQLite signals nothing
                await asyncio.sleep(0)
            copy.cancel()
            with pytest.raises(asyncio.CancelledError):
                await copy
            assert files(target.parent) == []
            await service.backup(target)
            assert integrity(target) == "ok"
