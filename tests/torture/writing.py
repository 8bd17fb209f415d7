"""A process that appends turns until it is killed: ``python -m torture.writing URL MANIFEST NAME``.

Its tasks share a few sessions. A turn that the store could not take is tried again, with the same id, until it can.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from session_history import SessionHistoryService
from session_history.errors import Unavailable
from torture.manifest import USER, Pen

SESSIONS = 3
TASKS = 6
PAUSE = 0.02
"""Seconds before a turn is tried again."""


async def take_turn(service: SessionHistoryService, pen: Pen, session_id: str, turn_id: str, padding: str) -> None:
    while True:
        try:
            async with service.turn(USER, session_id, turn_id=turn_id, last_turns=1, native=True) as turn:
                if turn.recorded is None:
                    turn.add([{"turn": turn_id, "part": part, "padding": padding} for part in range(3)])
                    pen.attempt(session_id, turn_id)
        except Unavailable:
            await asyncio.sleep(PAUSE)
        else:
            pen.acknowledged(session_id, turn_id)
            return


async def take_turns(service: SessionHistoryService, pen: Pen, writer: str, session_id: str) -> None:
    for number in count():
        await take_turn(service, pen, session_id, f"{writer}/{number}", "x" * (number % 7 * 900))


async def main(url: str, manifest: Path, name: str) -> None:
    pen = Pen(manifest)
    async with SessionHistoryService.from_url(url) as service:
        print("ready", flush=True)
        await asyncio.gather(
            *(take_turns(service, pen, f"{name}.{task}", f"s{task % SESSIONS}") for task in range(TASKS))
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
