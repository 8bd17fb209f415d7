"""A process with exclusive turns on one session: ``python exclusive.py PATH LEASE_SECONDS count TURNS``, or ``… hold``.

The process prints ``ready`` and waits for a line on its standard input. With ``count`` it counts its turns in the state
of the session. With ``hold`` it takes the session, prints ``mine``, and keeps the session until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from session_history import SqliteSessionHistoryService
from session_history.log import leases


async def count(service: SqliteSessionHistoryService, turns: int) -> None:
    for _ in range(turns):
        async with service.turn("u", "s", slot="counter", concurrent="queue") as one:
            number = (one.state or {"n": 0})["n"] + 1
            one.add({"role": "user", "content": f"{number}"})
            await asyncio.sleep(0.001)
            one.state = {"n": number}


async def hold(service: SqliteSessionHistoryService) -> None:
    async with service.record_turn("u", "s", concurrent="reject") as recorder:
        recorder.turn.add({"role": "user", "content": "stored"})
        await recorder.checkpoint()
        recorder.turn.add({"role": "user", "content": "never stored"})
        print("mine", flush=True)
        await asyncio.sleep(600)


async def main(path: str, seconds: str, what: str, *turns: str) -> None:
    leases.LEASE_SECONDS = float(seconds)
    async with SqliteSessionHistoryService(path) as service:
        print("ready", flush=True)
        sys.stdin.readline()
        await (count(service, int(turns[0])) if what == "count" else hold(service))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
