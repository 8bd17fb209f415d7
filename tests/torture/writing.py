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
from session_history_hooks import Conflict, Entry, Position, SessionHistoryProvider, SessionKey
from torture.manifest import MESSAGES, USER, Pen

MESSAGE_LOG = SessionKey(USER, MESSAGES)
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


async def deliver_messages(provider: SessionHistoryProvider, pen: Pen, writer: str) -> None:
    """Append messages that the other processes deliver, too: their keys tell whether one is there already."""
    at, number = await newest_message(provider)
    while True:
        number += 1
        entry = Entry(f"{writer}/{number}", b"x" * (number % 7 * 900), keys=(f"message {number}",))
        pen.attempt(MESSAGES, entry.id, entry.origin)
        stored = False
        while not stored:
            try:
                at = (await provider.append(MESSAGE_LOG, entry, at=at)).position
                stored = True
                pen.acknowledged(MESSAGES, entry.id)
            except Conflict as conflict:
                at = conflict.head.tail if conflict.head else Position(0, 0)
                stored = bool(conflict.keys)
            except Unavailable:
                await asyncio.sleep(PAUSE)
        await asyncio.sleep(PAUSE)


async def newest_message(provider: SessionHistoryProvider) -> tuple[Position, int]:
    """Return the tail of the log of messages, and the number of its newest one."""
    while True:
        try:
            log = await provider.read(MESSAGE_LOG, last=1)
        except Unavailable:
            await asyncio.sleep(PAUSE)
        else:
            if log is None:
                return Position(0, 0), 0
            return log.head.tail, int(log.entries[0].keys[0].split()[1])


async def main(url: str, manifest: Path, name: str) -> None:
    pen = Pen(manifest)
    async with SessionHistoryService.from_url(url) as service:
        print("ready", flush=True)
        await asyncio.gather(
            *(take_turns(service, pen, f"{name}.{task}", f"s{task % SESSIONS}") for task in range(TASKS)),
            deliver_messages(service.provider, pen, f"{name}.{TASKS}"),
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
