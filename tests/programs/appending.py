"""Append to a session together with other processes: ``python appending.py PATH NAME TASKS TURNS``.

The program prints ``ready`` and waits for a line on its standard input, so that all processes begin at the same time.
At the end it prints its times as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from session_history import SqliteSessionHistoryService


async def append_turns(service: SqliteSessionHistoryService, writer: str, turns: int) -> list[float]:
    """Return the seconds that the save of each turn took."""
    times = []
    for number in range(turns):
        said = [{"by": writer, "turn": number, "part": part} for part in range(3)]
        async with service.turn("u", "s", last_turns=2, native=True) as turn:
            turn.add(said)
            began = time.monotonic()
        times.append(time.monotonic() - began)
    return times


async def main(path: str, name: str, tasks: int, turns: int) -> None:
    async with SqliteSessionHistoryService(path) as service:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        times = await asyncio.gather(*(append_turns(service, f"{name}.{task}", turns) for task in range(tasks)))
        print(json.dumps({"seconds": time.monotonic() - began, "slowest": max(map(max, times))}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
