"""Acknowledged appends survive a kill and a power cut."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from programs import power
from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionKey
from support import PROGRAMS, preloaded

KILLS = 100


@dataclass
class Manifest:
    """The reports of a killed process on each session, from a file that survives the kill."""

    tried: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        manifest = cls()
        for line in path.read_text().splitlines():
            event, session_id, turn_id = line.split()
            turns = manifest.tried if event == "try" else manifest.acknowledged
            turns[session_id].append(turn_id)
        return manifest


class Victims:
    """Processes that append until they are killed."""

    def __init__(self, path: Path, manifest: Path) -> None:
        command = [sys.executable, str(PROGRAMS / "killed.py"), str(path), str(manifest)]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill_one(self, round_number: int, seconds: float) -> None:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(f"{round_number} {seconds}\n")
        self._parent.stdin.flush()
        assert self._parent.stdout.readline() == "killed\n"

    def close(self) -> None:
        self._parent.communicate(timeout=30)
        assert self._parent.returncode == 0


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest"
    path.touch()
    return path


@pytest.fixture
def victims(tmp_path: Path, manifest: Path) -> Iterator[Victims]:
    victims = Victims(tmp_path / "history.db", manifest)
    yield victims
    victims.close()


async def recorded(service: SessionHistoryService, session_id: str) -> list[str]:
    """Return the ids of the turns in the log, and check that each turn is whole."""
    session = await service.get_session("u", session_id, native=True)
    assert session is not None
    messages = session.messages
    for start in range(0, len(messages), 3):
        assert [message["part"] for message in messages[start : start + 3]] == [0, 1, 2]
        assert len({message["turn"] for message in messages[start : start + 3]}) == 1
    return [message["turn"] for message in messages[::3]]


async def check(provider: SqliteProvider, session_id: str, manifest: Manifest) -> None:
    """Compare a log with the reports of its writers."""
    turns = await recorded(SessionHistoryService(provider), session_id)
    log = await provider.read(SessionKey("u", session_id), last=10**6)
    assert log is not None
    assert [entry.id for entry in log.entries] == turns, "log and messages differ"
    assert len(set(turns)) == len(turns)
    stored, acknowledged = set(turns), set(manifest.acknowledged[session_id])
    assert acknowledged <= stored <= set(manifest.tried[session_id])
    by_task: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for turn_id in turns:
        *task, number = turn_id.split(".")
        by_task[tuple(task)].append(int(number))
    assert all(numbers == list(range(len(numbers))) for numbers in by_task.values())


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return found


async def test_kill_of_appending_process_loses_no_acknowledged_turn(
    tmp_path: Path, manifest: Path, victims: Victims
) -> None:
    path = tmp_path / "history.db"
    dice = random.Random(0)
    in_doubt = 0
    for round_number in range(1, KILLS + 1):
        await asyncio.to_thread(victims.kill_one, round_number, dice.uniform(0, 0.05))
        reports = Manifest.read(manifest)
        in_doubt += sum(
            turn_id.startswith(f"{round_number}.")
            for session_id in reports.tried
            for turn_id in set(reports.tried[session_id]) - set(reports.acknowledged[session_id])
        )
        provider = SqliteProvider(path)
        async with SessionHistoryService(provider) as service:
            listed = {session.id for session in await service.list_sessions("u")}
            assert listed >= {session_id for session_id, turns in reports.acknowledged.items() if turns}
            for session_id in listed:
                await check(provider, session_id, reports)
    assert integrity(path) == "ok"
    acknowledged = sum(map(len, reports.acknowledged.values()))
    print(f"{KILLS} kills, {acknowledged} acknowledged turns, {in_doubt} in doubt when a kill came")
    assert min(acknowledged, in_doubt) > KILLS, "the kills did not hit processes that were appending"


async def test_kill_during_creation_of_the_file_leaves_a_usable_file(
    tmp_path: Path, manifest: Path, victims: Victims
) -> None:
    path = tmp_path / "history.db"
    created, seconds = 0, 0.005
    for _ in range(30):
        await asyncio.to_thread(victims.kill_one, 0, seconds)
        was_created = version(path) > 0
        created += was_created
        seconds *= 2 / 3 if was_created else 3 / 2  # Stays close to the moment of creation on a busy machine too.
        provider = SqliteProvider(path)
        async with SessionHistoryService(provider) as service:
            for session in await service.list_sessions("u"):
                await check(provider, session.id, Manifest.read(manifest))
            await service.create_session("v")
        assert integrity(path) == "ok"
        for file in tmp_path.glob("history.db*"):
            file.unlink()
        manifest.write_text("")
    assert 0 < created < 30, "the kills came too late or too early to hit the creation of the file"


def run_power(tmp_path: Path, disk: Path, synchronous: str) -> Path:
    """Run ``power.py`` on a disk that can lose its power. Return the path of the shadows."""
    folder, shadow = tmp_path / "folder", tmp_path / "shadow"
    folder.mkdir()
    shadow.mkdir()
    environment = {**preloaded(disk), "DISK_FOLDER": str(folder), "DISK_SHADOW": str(shadow)}
    command = [sys.executable, str(PROGRAMS / "power.py"), str(folder), str(shadow), synchronous]
    subprocess.run(command, check=True, env=environment, timeout=120)
    return shadow


async def lost_by_power_cuts(shadow: Path) -> list[int]:
    """Return the number of lost appends for a power cut after each acknowledged append."""
    lost = []
    for number in range(power.APPENDS):
        left = shadow.with_name(f"{shadow.name}-{number}")
        async with SqliteSessionHistoryService(left / "history.db") as service:
            session = await service.get_session("u", "s")
            assert session is not None
            texts = [message.text for message in session.messages]
        assert texts == [str(text) for text in range(len(texts))]
        lost.append(number + 1 - len(texts))
        shutil.rmtree(left)
    return lost


async def test_power_cut_with_full_sync_loses_no_acknowledged_append(tmp_path: Path, disk: Path) -> None:
    shadow = run_power(tmp_path, disk, "FULL")
    assert await lost_by_power_cuts(shadow) == [0] * power.APPENDS


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_power_cut_without_fsync_per_commit_loses_appends(tmp_path: Path, disk: Path, synchronous: str) -> None:
    """Show that the test above can fail, and that the documentation of NORMAL is right."""
    shadow = run_power(tmp_path, disk, synchronous)
    lost = await lost_by_power_cuts(shadow)
    print(synchronous, lost)
    assert max(lost) > 0


APPEND_AT_ONCE = """
import asyncio, sys
from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.providers.sqlite import SqliteProvider

async def main():
    async with SqliteSessionHistoryService(sys.argv[1]) as service:
        sessions = [await service.create_session("u", f"s{number}") for number in range(64)]
        before = len(open(sys.argv[2]).readlines())
        await asyncio.gather(*[service.append_message(session, {"role": "user"}) for session in sessions])
        print(len(open(sys.argv[2]).readlines()) - before)

asyncio.run(main())
"""


def test_simultaneous_appends_share_fsyncs(tmp_path: Path, disk: Path) -> None:
    syncs = tmp_path / "syncs"
    environment = {**preloaded(disk), "DISK_FOLDER": str(tmp_path), "DISK_SYNCS": str(syncs)}
    command = [sys.executable, "-c", APPEND_AT_ONCE, str(tmp_path / "history.db"), str(syncs)]
    run = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=60)
    print(f"64 appends at once: {run.stdout.strip()} fsyncs")
    assert 1 <= int(run.stdout) <= 8
