"""A PostgreSQL server whose disk is full."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from providers.postgresql.support import execute, provider_of, shared_machine
from servers.postgresql import FAST, Server, running
from session_history import SessionHistoryService
from session_history.errors import StoreFull


class Disk:
    """The disk of a server's database. The rest of its files are on another one."""

    def __init__(self, folder: Path, room: Path) -> None:
        self._folder = folder
        self._room = room

    def fill(self) -> None:
        self._room.write_text(str(sum(file.stat().st_size for file in self._folder.iterdir())))

    def make_room(self) -> None:
        self._room.unlink()


@pytest.fixture
def server_and_disk(disk: Path) -> Iterator[tuple[Server, Disk]]:
    machine = shared_machine()
    library = Path(shutil.copy(disk, machine.folder))  # The server may run as another user.
    library.chmod(0o755)
    with running(machine, *FAST, "autovacuum=off") as server:
        server.stop()
        room = server.data.with_suffix(".room")
        folder = server.data / "base" / "5"  # that of the database postgres
        server.environment = {"LD_PRELOAD": str(library), "DISK_FOLDER": str(folder), "DISK_ROOM": str(room)}
        server.start()
        yield server, Disk(folder, room)


@pytest.fixture
async def service(server_and_disk: tuple[Server, Disk]) -> AsyncIterator[SessionHistoryService]:
    async with SessionHistoryService(provider_of(server_and_disk[0].url(), None)) as service:
        yield service


async def run_turns(service: SessionHistoryService, count: int) -> None:
    for number in range(count):
        async with service.turn("u", f"s{number % 5}") as turn:
            turn.add({"role": "user", "content": "x" * 2000})


async def test_full_disk_is_store_full_and_not_healthy_until_it_has_room(
    server_and_disk: tuple[Server, Disk], service: SessionHistoryService
) -> None:
    _, disk = server_and_disk
    await run_turns(service, 50)
    disk.fill()
    with pytest.raises(StoreFull, match="the disk is full"):
        await run_turns(service, 100)
    assert await service.health() is False
    assert await service.health() is False
    assert len(await service.list_sessions("u", limit=10)) == 5, "loads go on"
    with pytest.raises(StoreFull, match="the disk is full"):
        await service.delete_session("u", "s0")
    assert await service.get_session("u", "s0") is not None, "nothing was deleted"
    disk.make_room()
    assert await service.health() is True
    await service.delete_session("u", "s0")
    await service.create_session("u", "new")


async def test_server_that_is_set_to_read_only_is_not_healthy(
    server_and_disk: tuple[Server, Disk], service: SessionHistoryService
) -> None:
    server, _ = server_and_disk
    assert await service.health() is True
    await execute(server.url(), "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    for _ in range(100):
        if not await service.health():
            break
    else:
        pytest.fail("the service says that it is healthy")
    assert len(await service.list_sessions("u", limit=10)) == 0
