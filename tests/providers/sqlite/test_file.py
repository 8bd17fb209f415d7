"""Errors of a file that is read-only, damaged, full, foreign or newer. The file stays as it is."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import (
    ConfigurationError,
    Corrupt,
    IncompatibleStore,
    SessionDeleted,
    SessionHistoryError,
    Unavailable,
)
from session_history.providers.sqlite import SqliteProvider, file
from session_history_hooks import SessionKey
from support import preloaded

HELLO = {"role": "user", "content": "Hello"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


async def fill(path: Path, turns: int = 3) -> None:
    async with SqliteSessionHistoryService(path) as service:
        for number in range(turns):
            async with service.turn("u", "s") as turn:
                turn.add([{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}])


async def texts(service: SessionHistoryService) -> list[str]:
    session = await service.get_session("u", "s")
    assert session is not None
    return [message.text for message in session.messages]


def contents(folder: Path) -> dict[str, bytes]:
    # The first connection to open a file rebuilds its -shm, which holds no data.
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


async def refused(path: Path, kind: type[SessionHistoryError]) -> str:
    """Check that a start raises an error of this kind and leaves the file as it is. Return the error's text."""
    before = contents(path.parent)
    service = SqliteSessionHistoryService(path)
    with pytest.raises(kind) as refusal:
        await service.start()
    assert await service.health() is False
    with pytest.raises(kind):
        await service.get_session("u", "s")
    await service.stop()
    assert contents(path.parent) == before
    assert str(path) in str(refusal.value)
    return str(refusal.value)


def run_sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


class TestForeign:
    @pytest.mark.parametrize(
        "statements",
        [
            ["CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('mine')"],
            ["PRAGMA journal_mode = WAL", "CREATE TABLE notes (text TEXT)"],
            ["CREATE TABLE head (log INTEGER)", "CREATE TABLE entry (k INTEGER)"],
            ["PRAGMA user_version = 1"],
            ["PRAGMA application_id = 7"],
            [f"PRAGMA user_version = {2**31 - 1}"],
        ],
        ids=["a table", "WAL", "tables of our names", "a version", "an application id", "a high version"],
    )
    async def test_start_on_database_of_another_application_raises_incompatible_store(
        self, path: Path, statements: list[str]
    ) -> None:
        run_sql(path, *statements)
        assert "another application" in await refused(path, IncompatibleStore)

    async def test_start_on_foreign_database_with_a_wal_leaves_the_wal(self, path: Path) -> None:
        """The last connection that closes a file moves the WAL into it, and must not do so here."""
        with closing(sqlite3.connect(path, isolation_level=None)) as owner:
            owner.execute("PRAGMA journal_mode = WAL")
            owner.execute("CREATE TABLE notes (text TEXT)")
            left = contents(path.parent)
        assert len(left) == 2
        for name, content in left.items():
            path.with_name(name).write_bytes(content)
        await refused(path, IncompatibleStore)

    @pytest.mark.parametrize(
        "content", [b"no database", b"x" * 100_000, b"SQLite format 3\0"], ids=["text", "long", "a header cut short"]
    )
    async def test_start_on_file_without_a_database_raises_incompatible_store(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        await refused(path, IncompatibleStore)

    @pytest.mark.parametrize("version", [0, -1])
    async def test_start_on_our_application_id_with_a_wrong_version_raises_corrupt(
        self, path: Path, version: int
    ) -> None:
        run_sql(
            path,
            f"PRAGMA application_id = {file.APPLICATION_ID}",
            f"PRAGMA user_version = {version}",
            "CREATE TABLE notes (text TEXT)",
        )
        await refused(path, Corrupt)

    async def test_start_on_empty_file_creates_the_schema(self, path: Path) -> None:
        path.touch()
        await fill(path)
        async with SqliteSessionHistoryService(path) as service:
            assert len(await texts(service)) == 6

    async def test_start_on_folder_raises_configuration_error(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(ConfigurationError, match="is a folder"):
            await SqliteSessionHistoryService(path).start()


class TestVersions:
    async def test_start_on_newer_schema_version_raises_incompatible_store(self, path: Path) -> None:
        await fill(path)
        run_sql(path, f"PRAGMA user_version = {len(file.MIGRATIONS) + 1}")
        assert "Upgrade" in await refused(path, IncompatibleStore)

    async def test_simultaneous_starts_migrate_the_file_once_while_an_older_service_uses_it(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fill(path)
        older = SqliteSessionHistoryService(path)
        await older.start()
        # Each statement fails if it is run twice.
        monkeypatch.setattr(file, "MIGRATIONS", (*file.MIGRATIONS, ("ALTER TABLE head ADD COLUMN colour TEXT",)))
        newer = [SqliteSessionHistoryService(path) for _ in range(8)]
        await asyncio.gather(*(service.start() for service in newer))
        for service in (*newer, older):
            await service.append_message(await service.create_session("u"), HELLO)
        assert len(await texts(newer[0])) == 6
        assert len(await older.list_sessions("u")) == 10
        monkeypatch.undo()
        with pytest.raises(IncompatibleStore):
            await SqliteSessionHistoryService(path).start()
        for service in (*newer, older):
            await service.stop()

    async def test_failed_migration_leaves_the_file_unchanged(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fill(path)
        before = contents(path.parent)
        step = ("ALTER TABLE head ADD COLUMN colour TEXT", "no statement")
        monkeypatch.setattr(file, "MIGRATIONS", (*file.MIGRATIONS, step))
        with pytest.raises(SessionHistoryError):
            await SqliteSessionHistoryService(path).start()
        monkeypatch.undo()
        assert contents(path.parent) == before
        await fill(path)

    def test_simultaneous_processes_create_the_file_once(self, path: Path) -> None:
        code = (
            "import asyncio, sys; from session_history import SqliteSessionHistoryService as Service\n"
            "async def main():\n"
            "    async with Service(sys.argv[1]) as service: await service.create_session('u')\n"
            "asyncio.run(main())"
        )
        with ThreadPoolExecutor(8) as pool:
            runs = pool.map(lambda _: subprocess.run([sys.executable, "-c", code, path], check=True), range(8))
            assert len(list(runs)) == 8
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM head").fetchone() == (8,)


class TestDamaged:
    async def fill_and_find(self, path: Path, needle: bytes) -> int:
        """Return the offset of a text in the file."""
        await fill(path, turns=200)
        return path.read_bytes().index(needle)

    async def test_read_of_overwritten_page_raises_corrupt(self, path: Path) -> None:
        middle = await self.fill_and_find(path, b"q100")
        content = bytearray(path.read_bytes())
        page = slice(middle - middle % 4096, middle - middle % 4096 + 4096)
        content[page] = os.urandom(4096)
        path.write_bytes(content)
        async with SqliteSessionHistoryService(path) as service:
            with pytest.raises(Corrupt):
                await service.get_session("u", "s")
        assert path.read_bytes()[page] == content[page]

    async def test_read_of_truncated_file_raises_corrupt(self, path: Path) -> None:
        middle = await self.fill_and_find(path, b"q150")
        os.truncate(path, middle - middle % 4096)
        content = path.read_bytes()
        service = SqliteSessionHistoryService(path)
        with pytest.raises(Corrupt):
            await service.get_session("u", "s")
        await service.stop()
        assert path.read_bytes() == content

    @pytest.mark.parametrize("payload", ["x'00'", "'{'", "'{\"v\":1}'", "'[]'", "''"])
    async def test_read_of_invalid_payload_raises_corrupt(self, path: Path, payload: str) -> None:
        await fill(path)
        run_sql(path, f"UPDATE entry SET payload = CAST({payload} AS BLOB) WHERE k & 0xffffff = 1")
        provider = SqliteProvider(path)
        async with SessionHistoryService(provider) as service:
            before = await provider.read(SessionKey("u", "s"))
            with pytest.raises(Corrupt, match="entry 1 of"):
                await service.get_session("u", "s")
            with pytest.raises(Corrupt):
                async with service.turn("u", "s"):
                    pytest.fail("a damaged session passed for a new one")
            # Another session is not damaged.
            await service.append_message(await service.create_session("u"), HELLO)
            assert await provider.read(SessionKey("u", "s")) == before

    @pytest.mark.parametrize("statement", ["DELETE FROM entry WHERE k & 0xffffff = 2", "DROP TABLE entry"])
    async def test_read_of_log_with_missing_entries_raises_corrupt(self, path: Path, statement: str) -> None:
        await fill(path)
        run_sql(path, statement)
        async with SqliteSessionHistoryService(path) as service:
            with pytest.raises(Corrupt):
                await service.get_session("u", "s")

    @pytest.mark.parametrize(
        ("damage", "unreadable", "unnamed"),
        [
            ("heartbeat = 'x'", ("s1",), 0),
            ("active_us = 'x'", ("s1",), 0),
            ("active_us = -5", ("s1",), 0),
            ("changed_us = 9000000000000000000", ("s1",), 0),
            ("deleted = 7", ("s1",), 0),
            ("tail_origin = CAST(x'ff' AS TEXT)", ("s1",), 0),
            ("session_id = x'ff'", (), 1),
            ("session_id = CAST(x'ff' AS TEXT)", (), 1),
        ],
    )
    @pytest.mark.parametrize("limit", [1, 2, None])
    async def test_list_with_a_damaged_head_shows_the_others_and_names_it(
        self, path: Path, damage: str, unreadable: tuple[str, ...], unnamed: int, limit: int | None
    ) -> None:
        async with SqliteSessionHistoryService(path) as service:
            for number in range(4):
                await service.create_session("u", f"s{number}", title=str(number))
            run_sql(path, f"UPDATE head SET {damage} WHERE session_id = 's1'")
            shown: list[str] = []
            found: list[str] = []
            count, cursor = 0, None
            while True:
                page = await service.list_sessions("u", limit=limit, cursor=cursor)
                shown += [session.id for session in page]
                found += page.unreadable
                count, cursor = count + page.unnamed, page.next_cursor
                if cursor is None:
                    break
            assert (shown, tuple(found), count) == (["s3", "s2", "s0"], unreadable, unnamed)
            for session_id in unreadable:
                with pytest.raises(Corrupt, match="s1"):
                    await service.get_session("u", session_id)
                await service.delete_session("u", session_id)
                assert await service.get_session("u", session_id) is None
                assert (await service.create_session("u", session_id)).id == session_id
            assert await service.delete_user("u") == 4

    async def test_generation_that_was_lost_refuses_the_turn_in_flight(self, path: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            session = await service.create_session("u", "s")
            run_sql(path, "UPDATE head SET generation = 'x'")
            await service.delete_session("u", "s")
            with pytest.raises(SessionDeleted):
                await service.append_message(session, HELLO)
            await service.create_session("u", "s")
            with pytest.raises(SessionDeleted):
                await service.append_message(session, HELLO)


AS_NOBODY = """
import asyncio, os, sys
from session_history import SqliteSessionHistoryService
from session_history.errors import StoreReadOnly

async def use(path):
    async with SqliteSessionHistoryService(path) as service:
        await service.append_message(await service.create_session("u"), {"role": "user", "content": "x"})

asyncio.run(use(sys.argv[1]))  # Imports all modules that the other user could not read.
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    asyncio.run(use(sys.argv[2]))
except StoreReadOnly as error:
    print(error)
"""


class TestReadOnly:
    @pytest.fixture
    def public_folder(self) -> Iterator[Path]:
        """A folder that any user can reach. The folders of pytest are private."""
        with tempfile.TemporaryDirectory() as folder:
            public_folder = Path(folder)
            public_folder.chmod(0o755)
            yield public_folder
            public_folder.chmod(0o755)

    def error_of_another_user(self, tmp_path: Path, path: Path) -> str:
        command = [sys.executable, "-c", AS_NOBODY, str(tmp_path / "other.db"), str(path)]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert run.stderr == ""
        return run.stdout

    @pytest.mark.parametrize("mode", [0o444, 0o000])
    async def test_start_on_unwritable_file_raises_store_read_only(
        self, tmp_path: Path, public_folder: Path, mode: int
    ) -> None:
        path = public_folder / "history.db"
        await fill(path)
        before = contents(public_folder)
        public_folder.chmod(0o777)
        path.chmod(mode)
        assert str(path) in self.error_of_another_user(tmp_path, path)
        path.chmod(0o600)
        assert contents(public_folder) == before

    async def test_start_in_unwritable_folder_raises_store_read_only(self, tmp_path: Path, public_folder: Path) -> None:
        path = public_folder / "history.db"
        await fill(path)
        path.chmod(0o666)
        public_folder.chmod(0o555)
        before = contents(public_folder)
        assert str(path) in self.error_of_another_user(tmp_path, path)
        assert contents(public_folder) == before

    async def test_start_in_missing_folder_raises_configuration_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="there is no folder"):
            await SqliteSessionHistoryService(tmp_path / "nowhere" / "history.db").start()


ON_A_FULL_DISK = """
import asyncio, os, sys
from session_history import SqliteSessionHistoryService
from session_history.errors import StoreFull

async def main(path, full):
    async with SqliteSessionHistoryService(path) as service:
        session = await service.create_session("u", "s")
        for number in range(3):
            await service.append_message(session, {"role": "user", "content": f"{number}"})
        open(full, "w").close()
        for _ in range(2):
            try:
                await service.append_message(session, {"role": "user", "content": "x" * 100_000})
            except StoreFull as error:
                print(error)
        print(len((await service.get_session("u", "s")).messages), len(session.messages))
        os.remove(full)
        await service.append_message(session, {"role": "user", "content": "3"})

asyncio.run(main(*sys.argv[1:]))
"""


def test_append_on_full_disk_raises_store_full(path: Path, tmp_path: Path, disk: Path) -> None:
    full = tmp_path / "full"
    environment = {**preloaded(disk), "DISK_FOLDER": str(path.parent), "DISK_FULL": str(full)}
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(path), str(full)]
    run = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=60)
    *errors, counts = run.stdout.splitlines()
    assert [("full" in error, str(path) in error) for error in errors] == [(True, True)] * 2
    assert counts == "3 3"
    assert asyncio.run(texts(SqliteSessionHistoryService(path))) == ["0", "1", "2", "3"]


def delete(path: Path) -> None:
    path.unlink()


def delete_wal(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def swap_wal(path: Path) -> None:
    delete_wal(path)
    path.with_name(f"{path.name}-wal").touch()


def move(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))


def swap(path: Path) -> None:
    """Put a copy in the place of the file."""
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


class TestLost:
    @pytest.mark.parametrize("replaced", [True, False])
    async def test_append_to_moved_or_replaced_file_raises_unavailable(self, path: Path, replaced: bool) -> None:
        async with SqliteSessionHistoryService(path) as service:
            session = await service.create_session("u", "s")
            await service.append_message(session, HELLO)
            for each in list(path.parent.iterdir()):
                each.rename(each.with_name(f"moved-{each.name}"))
            if replaced:
                path.touch()
            with pytest.raises(Unavailable, match="deleted or replaced"):
                await service.append_message(session, HELLO)
            assert len(session.messages) == 1
            await service.stop()
            path.unlink(missing_ok=True)
            await service.start()
            await service.append_message(await service.create_session("u", "s"), HELLO)
            assert len(await texts(service)) == 1

    @pytest.mark.parametrize("change", [delete, delete_wal, swap_wal, move, swap])
    async def test_reads_of_deleted_or_replaced_file_raise_unavailable(
        self, path: Path, change: Callable[[Path], None]
    ) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await service.append_message(await service.create_session("u", "s"), HELLO)
            for _ in range(2):
                assert await texts(service) == ["Hello"]  # The second time in place, on the event loop.
            assert await service.health() is True
            change(path)
            for _ in range(2):
                with pytest.raises(Unavailable, match="deleted or replaced"):
                    await texts(service)  # The service has the session in its cache.
                with pytest.raises(Unavailable, match="deleted or replaced"):
                    await service.get_session("u", "unknown")
                with pytest.raises(Unavailable, match="deleted or replaced"):
                    await service.list_sessions("u")
                with pytest.raises(Unavailable, match="deleted or replaced"):
                    await service.delete_session("u", "s")
                with pytest.raises(Unavailable, match="deleted or replaced"):
                    async with service.turn("u", "s"):
                        pytest.fail("a turn began on a file that was replaced")
            assert await service.health() is False

    async def test_read_in_place_of_the_file_put_back_goes_on(self, path: Path) -> None:
        async with SqliteSessionHistoryService(path) as service:
            await service.append_message(await service.create_session("u", "s"), HELLO)
            path.rename(path.with_suffix(".away"))
            with pytest.raises(Unavailable):
                await texts(service)
            path.with_suffix(".away").rename(path)
            assert await texts(service) == ["Hello"]


class TestLocked:
    async def test_append_to_locked_file_raises_unavailable_after_the_busy_timeout(self, path: Path) -> None:
        await fill(path)
        async with SqliteSessionHistoryService(path, busy_timeout=0.2) as service:
            session = await service.get_session("u", "s")
            assert session is not None
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(Unavailable, match="locked"):
                    await service.append_message(session, HELLO)
                assert len(session.messages) == len(await texts(service)) == 6
                other.execute("ROLLBACK")
            await service.append_message(session, HELLO)
            assert len(await texts(service)) == 7

    async def test_start_on_locked_file_waits_for_the_lock(self, path: Path) -> None:
        await fill(path)
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            asyncio.get_running_loop().call_later(0.3, other.execute, "ROLLBACK")
            async with SqliteSessionHistoryService(path) as service:
                assert len(await texts(service)) == 6


def test_forked_child_cannot_open_a_file_that_its_parent_has_open(path: Path) -> None:
    code = (
        "import asyncio, os, sys; from session_history import SqliteSessionHistoryService as Service\n"
        "async def use(service): await service.append_message(await service.create_session('u'), {'role': 'user'})\n"
        "one = Service(sys.argv[1]); asyncio.run(use(one))\n"
        "if not os.fork():\n"
        "    for service in (one, Service(sys.argv[1])):\n"
        "        try: asyncio.run(use(service))\n"
        "        except ConnectionError as error: print(type(error).__name__, 'fork' in str(error), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); asyncio.run(use(one)); print(len(asyncio.run(one.list_sessions('u'))))"
    )
    run = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ["Unavailable True", "Unavailable True", "2"]
