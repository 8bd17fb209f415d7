"""A backup of a store that is made while clients write to it, and its restore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from session_history import SessionHistoryService
from session_history_hooks.testing import Connect

USER, OTHER = "ada", "bo"

SESSIONS = [(user, f"s{number}") for user in (USER, OTHER) for number in range(3)]

Act = Callable[[], object]
"""Makes a backup, or restores it, in a thread."""


@dataclass
class Writers:
    """Clients that write to one session each, until they are told to stop.

    :ivar acknowledged: the number of turns of each session that the store has acknowledged.
    """

    service: SessionHistoryService
    acknowledged: dict[tuple[str, str], int] = field(default_factory=lambda: dict.fromkeys(SESSIONS, 0))
    _stopping: bool = False
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, more: int) -> dict[tuple[str, str], int]:
        """Wait until each session has so many more turns, and return the numbers that there were before."""
        before = dict(self.acknowledged)
        async with self._progress:
            await self._progress.wait_for(
                lambda: all(self.acknowledged[each] >= before[each] + more for each in SESSIONS)
            )
        return before

    async def write(self, session: tuple[str, str]) -> None:
        for number in count(1):
            if self._stopping:
                return
            assert await run_turn(self.service, session, number), "the turn is a new one"
            async with self._progress:
                self.acknowledged[session] = number
                self._progress.notify_all()

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def writing(service: SessionHistoryService) -> AsyncIterator[Writers]:
    """Let clients write while the context lasts."""
    writers = Writers(service)
    async with asyncio.TaskGroup() as group:
        for session in SESSIONS:
            group.create_task(writers.write(session))
        yield writers
        writers.stop()


async def run_turn(service: SessionHistoryService, session: tuple[str, str], number: int) -> bool:
    """Run a turn, and return whether its handler ran. A recorded turn is not run again."""
    async with service.turn(*session, turn_id=f"t{number}") as turn:
        if turn.recorded is not None:
            return False
        turn.add({"role": "user", "content": f"question {number}"})
        turn.add({"role": "assistant", "content": f"answer {number}"})
    return True


async def turns_of(service: SessionHistoryService, session: tuple[str, str]) -> int:
    """Return the number of turns of a session, which must be whole, and the first ones that were written."""
    shown = await service.get_session(*session)
    assert shown is not None
    texts = [message.text for message in shown.messages]
    turns = len(texts) // 2
    assert texts == [f"{kind} {number}" for number in range(1, turns + 1) for kind in ("question", "answer")]
    return turns


async def check_backup_and_restore(connect: Connect, back_up: Act, restore: Act) -> None:
    """Back a store up while clients write to it, restore it, and check each session.

    :param back_up: makes the backup while the store is used.
    :param restore: restores it while no service is open.
    """
    async with SessionHistoryService(connect()) as service:
        await service.create_session(USER, "deleted later")
        async with writing(service) as writers:
            await writers.until(3)
            at_begin = dict(writers.acknowledged)
            await asyncio.to_thread(back_up)
            at_end = await writers.until(3)
        await service.delete_session(USER, "deleted later")
        await service.create_session(USER, "created later")
    await asyncio.to_thread(restore)
    async with SessionHistoryService(connect()) as service:
        assert await service.health()
        assert {session.id for session in await service.list_sessions(USER, limit=10)} == {
            "s0", "s1", "s2", "deleted later",
        }  # fmt: skip
        await service.delete_session(USER, "deleted later")
        for session in SESSIONS:
            kept = await turns_of(service, session)
            assert at_begin[session] <= kept <= at_end[session] + 1, "a turn may be stored and not yet acknowledged"
            ran = [await run_turn(service, session, number) for number in range(1, writers.acknowledged[session] + 1)]
            assert ran == [number > kept for number in range(1, len(ran) + 1)]
            assert await turns_of(service, session) == writers.acknowledged[session]
    async with SessionHistoryService(connect()) as service:
        assert await service.get_session(USER, "deleted later") is None
        for session in SESSIONS:
            assert await run_turn(service, session, writers.acknowledged[session] + 1)
