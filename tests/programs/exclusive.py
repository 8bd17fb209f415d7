"""A process with exclusive turns on one session: ``python exclusive.py PATH LEASE_SECONDS count TURNS``, or ``… hold``.

It says ``ready`` and waits for a line on its standard input. Then it counts its turns in the state of the session, one
turn after the other; or it says ``mine`` when it has the session, and keeps it until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from session_history import SqliteSessionHistoryService
from session_history.log import leases
from session_history.turns import turn
from session_history_hooks import SessionKey


async def count(service: SqliteSessionHistoryService, turns: int) -> None:
    for _ in range(turns):
        async with service.turn("u", "s", slot="counter", concurrent="queue") as one:
            number = (one.state or {"n": 0})["n"] + 1
            one.add({"role": "user", "content": f"{number}"})
            await asyncio.sleep(0.001)
            one.state = {"n": number}


async def hold(service: SqliteSessionHistoryService) -> None:
    open_turn = service._open_turn(
        SessionKey("u", "s"), turn_id=None, size=None, native=True, slot=None, concurrent="reject"
    )
    async with open_turn as one:
        one.add({"role": "user", "content": "stored"})
        await open_turn.checkpoint()
        one.add({"role": "user", "content": "never stored"})
        print("mine", flush=True)
        await asyncio.sleep(600)


async def main(path: str, term: str, what: str, *turns: str) -> None:
    for module in (leases, turn):
        vars(module)["LEASE_SECONDS"] = float(term)
    async with SqliteSessionHistoryService(path) as service:
        print("ready", flush=True)
        sys.stdin.readline()
        await (count(service, int(turns[0])) if what == "count" else hold(service))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
