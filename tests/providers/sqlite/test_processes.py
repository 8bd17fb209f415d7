"""Several processes on one file lose nothing, and each of them gets its turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path
from typing import Any

from session_history import SessionHistoryService
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks import SessionKey
from support import PROGRAMS

PROGRAM = PROGRAMS / "appending.py"

PROCESSES = 4
TASKS = 16
TURNS = 16


def start(path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(PROGRAM), str(path), name, str(TASKS), str(TURNS)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_together(path: Path) -> dict[str, dict[str, float]]:
    """Let all processes append at the same time. Return the times that each process reports."""
    running = {name: start(path, name) for name in "abcd"[:PROCESSES]}
    for process in running.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = {name: process.communicate(timeout=120)[0] for name, process in running.items()}
    assert {process.returncode for process in running.values()} == {0}
    return {name: json.loads(text) for name, text in printed.items()}


def run_lengths(names: list[str]) -> list[int]:
    """Return the numbers of entries in a row from one process."""
    return [len(list(run)) for _, run in groupby(names)]


async def test_tasks_of_several_processes_append_fairly_to_one_session(tmp_path: Path) -> None:
    times = run_together(tmp_path / "history.db")
    provider = SqliteProvider(tmp_path / "history.db")
    async with SessionHistoryService(provider) as service:
        session = await service.get_session("u", "s", native=True)
        log = await provider.read(SessionKey("u", "s"), last=10**6)
    assert log is not None
    ids = [entry.id for entry in log.entries]
    assert session is not None
    turns = [session.messages[start : start + 3] for start in range(0, len(session.messages), 3)]
    assert len(ids) == len(set(ids)) == len(turns) == session.turns == PROCESSES * TASKS * TURNS
    assert_whole(turns)
    assert_order_of_each_task(turns)

    order = [turn[0]["by"].split(".")[0] for turn in turns]
    runs = run_lengths(order)
    slowest = {name: f"{report['slowest']:.3f} s" for name, report in times.items()}
    print(f"{len(turns)} turns in {max(report['seconds'] for report in times.values()):.2f} s;", end=" ")
    print(f"{len(runs)} changes of process, at most {max(runs)} turns of one in a row; slowest appends: {slowest}")

    # While all four processes append, each has a share of any sequence that is a few rounds of all tasks long.
    length = 4 * PROCESSES * TASKS
    for begin in range(0, len(order) // 2 - length + 1, TASKS):
        shares = Counter(order[begin : begin + length])
        assert len(shares) == PROCESSES, f"a process has none of the turns {begin} to {begin + length}: {shares}"
    assert len(runs) > len(turns) / 8
    assert max(report["slowest"] for report in times.values()) < 5


def assert_whole(turns: list[list[dict[str, Any]]]) -> None:
    for turn in turns:
        assert [message["part"] for message in turn] == [0, 1, 2]
        assert len({(message["by"], message["turn"]) for message in turn}) == 1


def assert_order_of_each_task(turns: list[list[dict[str, Any]]]) -> None:
    numbers_of: defaultdict[str, list[int]] = defaultdict(list)
    for turn in turns:
        numbers_of[turn[0]["by"]].append(turn[0]["turn"])
    assert set(numbers_of) == {f"{name}.{task}" for name in "abcd"[:PROCESSES] for task in range(TASKS)}
    assert all(numbers == list(range(TURNS)) for numbers in numbers_of.values())
