"""A full disk: deletes use the room that is kept for them, and the store says that it is full."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from session_history import SqliteSessionHistoryService
from session_history.providers.sqlite.reserve import BYTES, Reserve
from support import preloaded

FILLED = """
import asyncio, json, os, sys
from session_history import SqliteSessionHistoryService
from session_history.errors import StoreFull

folder, room, size, turns, scenario = sys.argv[1:]
path = os.path.join(folder, "history.db")
report = {}

async def turn(service, number):
    async with service.turn("u", f"s{number % 10}") as turn:
        turn.add({"role": "user", "content": "x" * int(size)})

async def succeeds(call):
    try:
        await call
    except StoreFull as error:
        report["error"] = str(error)
        return False
    return True

async def fill(service):
    for number in range(int(turns)):
        await turn(service, number)
    sizes = [os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)]
    with open(room, "w") as file:
        file.write(str(sum(sizes)))
    while await succeeds(turn(service, 0)):
        pass

async def deletes(service):
    report["deleted"] = [await succeeds(service.delete_session("u", f"s{number}")) for number in range(10)]

async def deletes_user(service):
    report["deleted"] = [await succeeds(service.delete_user("u"))]

async def deletes_beside_appends(service):
    calls = [turn(service, 9), service.delete_session("u", "s0"), turn(service, 8), service.delete_session("u", "s1")]
    report["done"] = await asyncio.gather(*map(succeeds, calls))

async def deletes_without_reserve(service):
    os.truncate(path + "-reserve", 0)
    os.remove(room)
    with open(room, "w") as file:
        file.write("0")
    await deletes(service)

async def main():
    async with SqliteSessionHistoryService(path) as service:
        report["healthy"] = [await service.health()]
        await fill(service)
        report["healthy"].append(await service.health())
        await globals()[scenario](service)
        report["left"] = sorted(session.id for session in await service.list_sessions("u", limit=100))
        os.remove(room)
        report["healthy"].append(await service.health())
        report["reserve"] = os.path.getsize(path + "-reserve")
        await service.create_session("u", "after")
    report["files"] = sorted(os.listdir(folder))

asyncio.run(main())
print(json.dumps(report))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def on_full_disk(folder: Path, disk: Path, scenario: str, *, size: int = 500, turns: int = 40) -> dict[str, Any]:
    room = folder.with_name("room")
    environment = {**preloaded(disk), "DISK_FOLDER": str(folder), "DISK_ROOM": str(room)}
    command = [sys.executable, "-c", FILLED, str(folder), str(room), str(size), str(turns), scenario]
    run = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    return report


@pytest.mark.parametrize(("size", "turns"), [(500, 300), (30_000, 100)])
@pytest.mark.parametrize("scenario", ["deletes", "deletes_user"])
def test_delete_on_a_full_disk_deletes(folder: Path, disk: Path, scenario: str, size: int, turns: int) -> None:
    report = on_full_disk(folder, disk, scenario, size=size, turns=turns)
    assert all(report["deleted"])
    assert report["left"] == []
    assert report["files"] == ["history.db"], "the files beside the database are gone after the stop"


def test_delete_beside_appends_on_a_full_disk_deletes(folder: Path, disk: Path) -> None:
    report = on_full_disk(folder, disk, "deletes_beside_appends")
    assert (report["done"][1], report["done"][3]) == (True, True)
    assert not {"s0", "s1"} & set(report["left"])


def test_delete_on_a_full_disk_without_reserve_raises_store_full(folder: Path, disk: Path) -> None:
    report = on_full_disk(folder, disk, "deletes_without_reserve")
    assert report["deleted"] == [False] * 10
    assert "the disk is full" in report["error"]
    assert report["left"] == sorted(f"s{number}" for number in range(10)), "nothing was deleted"


def test_health_is_false_while_the_disk_is_full(folder: Path, disk: Path) -> None:
    report = on_full_disk(folder, disk, "deletes")
    assert report["healthy"] == [True, False, True]
    assert report["reserve"] == BYTES, "a healthy store has its reserve again"


async def test_reserve_is_as_private_as_the_file_and_gone_after_the_last_stop(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    reserve = tmp_path / "history.db-reserve"
    async with SqliteSessionHistoryService(path), SqliteSessionHistoryService(path) as other:
        assert reserve.stat().st_size == BYTES
        assert reserve.stat().st_mode & 0o777 == 0o600
        await other.stop()
        assert reserve.exists()
    assert list(tmp_path.iterdir()) == [path]


async def test_start_beside_a_reserve_that_cannot_be_kept_succeeds(tmp_path: Path) -> None:
    (tmp_path / "history.db-reserve").mkdir()
    async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
        assert await service.health()
        await service.create_session("u", "s")
        await service.delete_session("u", "s")


def test_reserve_can_be_released_once(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        reserve = Reserve(tmp_path / "history.db", "owner")
        assert not reserve.release(connection)
        reserve.keep()
        assert reserve.release(connection)
        assert not reserve.release(connection)


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
async def test_file_of_somebody_else_in_the_place_of_the_reserve_is_not_touched(tmp_path: Path, link: str) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    getattr(tmp_path / "history.db-reserve", link)(other)
    async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
        async with service.turn("u", "s") as turn:
            turn.add({"role": "user", "content": "?"})
        reserve = Reserve(tmp_path / "history.db", "owner")
        with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
            assert not reserve.release(connection)
        assert other.read_text() == "precious"
    assert other.read_text() == "precious"
