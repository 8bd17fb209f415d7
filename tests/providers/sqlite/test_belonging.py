"""A start refuses a WAL of another file, and never the one that a killed process left."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from programs import marking
from session_history import SqliteSessionHistoryService
from session_history.errors import ConfigurationError, Unavailable
from session_history.providers.sqlite.belonging import require_own_wal

TALK = """
import asyncio, sys
from session_history import SqliteSessionHistoryService

async def main(path):
    service = SqliteSessionHistoryService(path)
    async def say(text):
        async with service.turn("u", "s") as turn:
            turn.add([{"role": "user", "content": text}])
    for line in sys.stdin:
        command, text = line.split()
        await {"say": say, "delete": lambda name: service.delete_session("u", name)}[command](text)
        print("done", flush=True)

asyncio.run(main(sys.argv[1]))
"""


class Talker:
    """Another process with a service on the file."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", TALK, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, command: str, text: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command} {text}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder / "history.db"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


@pytest.fixture
def talker(path: Path) -> Iterator[Talker]:
    talker = Talker(path)
    yield talker
    talker.kill()


async def say(service: SqliteSessionHistoryService, *texts: str) -> None:
    for text in texts:
        async with service.turn("u", "s") as turn:
            turn.add([{"role": "user", "content": text}])


async def texts(path: Path) -> list[str]:
    async with SqliteSessionHistoryService(path) as service:
        session = await service.get_session("u", "s")
        return [message.text for message in session.messages] if session else []


def copy_with_sqlite(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)


def copy_with_vacuum(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(path)) as source:
        source.execute("VACUUM INTO ?", (str(backup),))


def copy_over(backup: Path, path: Path) -> None:
    """Overwrite the file, which stays the same inode."""
    shutil.copyfile(backup, path)


def move_over(backup: Path, path: Path) -> None:
    Path(shutil.copy(backup, path.with_name("new"))).replace(path)


COPIES = pytest.mark.parametrize("copy", [copy_with_sqlite, copy_with_vacuum])
PUTS = pytest.mark.parametrize("put", [copy_over, move_over])

Put = Callable[[Path, Path], None]


async def refused_then_restored(path: Path) -> list[str]:
    """Check that a start refuses the file, and names what to remove. Do that, and return what the file holds."""
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="put in the place of another") as refusal:
            await texts(path)
        assert before == {each.name: each.read_bytes() for each in path.parent.iterdir()}
    for name in (f"{path.name}-wal", f"{path.name}-shm"):
        assert name in str(refusal.value)
        path.with_name(name).unlink()
    found = await texts(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return found


class TestPutInThePlaceOfAnother:
    @COPIES
    @PUTS
    async def test_backup_of_a_running_store_put_over_a_killed_one_is_refused(
        self, path: Path, backup: Path, talker: Talker, copy: Put, put: Put
    ) -> None:
        talker.tell("say", "one")
        copy(path, backup)
        talker.tell("say", "two")
        talker.kill()
        put(backup, path)
        assert await refused_then_restored(path) == ["one"]

    @PUTS
    async def test_copy_of_a_stopped_store_put_over_a_killed_one_is_refused(
        self, path: Path, backup: Path, talker: Talker, put: Put
    ) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "one")
        shutil.copyfile(path, backup)
        talker.tell("say", "two")
        talker.tell("delete", "s")
        talker.kill()
        put(backup, path)
        assert await refused_then_restored(path) == ["one"]

    async def test_copy_without_the_wal_of_a_killed_store_is_refused_once_a_service_has_started(
        self, path: Path, backup: Path
    ) -> None:
        first, second = Talker(path), None
        try:
            first.tell("say", "one")
            first.kill()
            shutil.copyfile(path, backup)
            second = Talker(path)
            second.tell("say", "two")
        finally:
            for talker in filter(None, (first, second)):
                talker.kill()
        copy_over(backup, path)
        assert await refused_then_restored(path) == []

    @PUTS
    async def test_file_of_another_application_put_over_a_killed_one_is_refused(
        self, path: Path, backup: Path, talker: Talker, put: Put
    ) -> None:
        with closing(sqlite3.connect(backup)) as connection:
            connection.execute("CREATE TABLE notes (text)")
        talker.tell("say", "one")
        talker.kill()
        put(backup, path)
        content = path.read_bytes()
        with pytest.raises(ConfigurationError, match="put in the place of another"):
            await texts(path)
        assert path.read_bytes() == content

    @COPIES
    async def test_replacement_of_an_open_store_is_refused_by_a_new_start(
        self, path: Path, backup: Path, copy: Put
    ) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "one")
            copy(path, backup)
            await say(service, "two")
            move_over(backup, path)
            with pytest.raises(ConfigurationError, match="put in the place of another"):
                await texts(path)
            with pytest.raises(Unavailable, match="replaced"):
                await say(service, "three")
        assert await refused_then_restored(path) == ["one"]

    async def test_old_file_put_back_keeps_the_changes(self, path: Path, backup: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        copy_with_sqlite(path, backup)
        talker.tell("say", "two")
        talker.kill()
        kept = path.rename(path.with_name("kept"))
        shutil.copy(backup, path)
        with pytest.raises(ConfigurationError, match="put back the file"):
            await texts(path)
        kept.rename(path)
        assert await texts(path) == ["one", "two"]

    async def test_backup_of_an_earlier_wal_is_refused(self, path: Path, backup: Path) -> None:
        """The service stays open; only the WAL restarts."""
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "one")
            shutil.copyfile(path, backup)  # Without its WAL, but a whole database.
            for _ in range(4):
                await say(service, "x" * 2_000_000)
            await say(service, "last")  # Then the mark of the newest WAL is confirmed.
            left = path.parent.with_name("left")
            shutil.copytree(path.parent, left)
        shutil.copyfile(backup, left / path.name)
        await refused_then_restored(left / path.name)


class TestOfItsOwn:
    async def test_file_of_a_killed_process_starts(self, path: Path) -> None:
        for number in range(3):
            talker = Talker(path)
            talker.tell("say", str(number))
            talker.kill()
        assert await texts(path) == ["0", "1", "2"]

    async def test_folder_copied_after_a_kill_starts(self, path: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        talker.kill()
        copied = path.parent.with_name("copied")
        shutil.copytree(path.parent, copied)
        (copied / f"{path.name}-shm").unlink()
        assert await texts(copied / path.name) == ["one"]

    async def test_file_starts_while_another_process_uses_it(self, path: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        for _ in range(3):
            assert await texts(path) == ["one"]

    async def test_file_behind_a_link_starts_after_a_kill(self, path: Path, tmp_path: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        talker.kill()
        (tmp_path / "link.db").symlink_to(path)
        assert await texts(tmp_path / "link.db") == ["one"]

    async def test_wal_of_a_deleted_file_is_dropped(self, path: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        talker.kill()
        path.unlink()
        assert await texts(path) == []

    async def test_schema_changed_by_an_operator_starts_after_a_kill(self, path: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE INDEX mine ON head (changed_us)")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        talker.kill()
        assert await texts(path) == ["one"]

    async def test_vacuumed_file_starts_after_a_kill(self, path: Path, talker: Talker) -> None:
        talker.tell("say", "one")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM")
            talker.tell("say", "two")
        talker.kill()
        assert await texts(path) == ["one", "two"]

    async def test_file_of_an_earlier_version_starts_after_a_kill(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = path.parent.with_name("left")
        async with SqliteSessionHistoryService(path) as service:
            await say(service, "one")
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DROP TABLE wal_mark")
                connection.execute("PRAGMA user_version = 1")
                connection.commit()
            shutil.copytree(path.parent, left)
        assert await texts(left / path.name) == ["one"]


class Writers:
    """Processes that write to a file with short WALs."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._seed = 0
        self._pids = [self._fork() for _ in range(count)]

    def _fork(self) -> int:
        self._seed += 1
        ready, opened = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(opened, sys.stdout.fileno())
                marking.main(self._path, self._seed)
            finally:
                os._exit(1)
        os.close(opened)
        with os.fdopen(ready) as lines:
            assert lines.readline() == "open\n"
        return pid

    def copy(self, folder: Path) -> Path:
        """Copy the files at one moment: what a kill of all would leave."""
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
        folder.mkdir()
        for name in (self._path.name, f"{self._path.name}-wal"):
            shutil.copyfile(self._path.with_name(name), folder / name)
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)
        return folder / self._path.name

    def kill_one(self, number: int) -> None:
        os.kill(self._pids[number], signal.SIGKILL)
        os.waitpid(self._pids[number], 0)
        self._pids[number] = self._fork()

    def close(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_file_left_by_kills_at_any_moment_is_never_refused(path: Path, tmp_path: Path) -> None:
    dice = random.Random(0)
    writers = Writers(path, 2)
    images: list[Path] = []
    try:
        for number in range(60):
            asyncio.run(asyncio.sleep(dice.uniform(0, 0.02)))
            images.append(writers.copy(tmp_path / str(number)))
            require_own_wal(images[-1])
            require_own_wal(path)
            if number % 6 == 5:
                writers.kill_one(dice.randrange(2))
    finally:
        writers.close()
    require_own_wal(path)
    refused = 0
    for older, newer in zip(images[:-20], images[20:], strict=True):
        shutil.copyfile(older, newer)
        try:
            require_own_wal(newer)
        except ConfigurationError:
            refused += 1
    print(f"{refused} of {len(images) - 20} older files were refused")
    assert refused > len(images) / 3, "the check refuses nothing"


SWITCH = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
connection.execute("SELECT count(*) FROM head")
print(connection.execute("PRAGMA journal_mode = DELETE").fetchone())
"""


async def test_check_of_an_open_file_keeps_the_locks_of_this_process(path: Path) -> None:
    """A process that closes a file in any way but SQLite's loses its locks on it. Others would remove the WAL."""
    async with SqliteSessionHistoryService(path) as service:
        await say(service, "one")
        require_own_wal(path)
        assert await texts(path) == ["one"]
        command = [sys.executable, "-c", SWITCH, str(path)]
        run = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
        assert "database is locked" in run.stderr
