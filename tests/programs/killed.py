"""Kill processes while they append: ``python killed.py PATH MANIFEST``.

Each line on the standard input is the number of a round and a time in seconds. For each line, the program forks a
process that appends to a few sessions without an end, and kills it that many seconds after its first append began.
Then it prints ``killed``. Round 0 counts the seconds from the creation of the file.

The process writes each turn to the manifest, as ``try`` before the append and as ``ok`` after the acknowledgement. A
kill does not take the manifest back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from session_history import SqliteSessionHistoryService

SESSIONS = 3
TASKS = 9


async def append_for_ever(path: str, manifest: int, round_number: int) -> None:
    async with SqliteSessionHistoryService(path) as service:
        await asyncio.gather(*(append_turns(service, manifest, round_number, task) for task in range(TASKS)))


async def append_turns(service: SqliteSessionHistoryService, manifest: int, round_number: int, task: int) -> None:
    session = f"s{task % SESSIONS}"
    for number in count():
        turn_id = f"{round_number}.{task}.{number}"
        async with service.turn("u", session, turn_id=turn_id, last_turns=1, native=True) as turn:
            turn.add([{"turn": turn_id, "part": part, "padding": "x" * (number % 7 * 900)} for part in range(3)])
            os.write(manifest, f"try {session} {turn_id}\n".encode())
        os.write(manifest, f"ok {session} {turn_id}\n".encode())


def kill_one(path: str, manifest: str, round_number: int, seconds: float) -> None:
    size = Path(manifest).stat().st_size
    child = os.fork()
    if child == 0:
        descriptor = os.open(manifest, os.O_WRONLY | os.O_APPEND)
        asyncio.run(append_for_ever(path, descriptor, round_number))
    while not (Path(manifest).stat().st_size > size if round_number else Path(path).exists()):
        time.sleep(0.0002)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    for line in sys.stdin:
        number, pause = line.split()
        kill_one(sys.argv[1], sys.argv[2], int(number), float(pause))
        print("killed", flush=True)
