"""Sessions of all sorts in one store: made by a service as far as it can, and by calls of the contract."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice

from session_history import SessionHistoryService, StoredMessage
from session_history.records.messages import NATIVE
from session_history_hooks import Entry, Position, SessionHistoryProvider, SessionKey, Snapshot
from session_history_hooks.testing import Connect

USERS = ("user", "User", "user:1", "用户", "%", "é", "e\u0301")
"""Users with sessions. Further users have one tombstone each, and nothing else."""


@dataclass(frozen=True)
class Workshop:
    """The means to make sessions.

    :ivar open_turns: ends the turns that are still open.
    :ivar large: bytes of a large entry.
    """

    service: SessionHistoryService
    open_turns: AsyncExitStack
    dice: random.Random
    large: int

    @property
    def provider(self) -> SessionHistoryProvider:
        return self.service.provider

    async def turns(self, key: SessionKey, count: int = 3) -> None:
        for number in range(count):
            async with self.service.turn(key.user_id, key.session_id, native=True) as turn:
                turn.add(
                    [{"role": "user", "content": f"{number}"}, {"role": "assistant", "content": "x" * number * 99}]
                )

    async def append(self, key: SessionKey, entry: Entry, seq: int, snapshot: Snapshot | None = None) -> None:
        """Append an entry without the service."""
        await self.provider.append(key, entry, at=Position(0, seq), snapshot=snapshot)


async def make_turns(workshop: Workshop, key: SessionKey) -> None:
    await workshop.turns(key)
    await workshop.service.update_session(key.user_id, key.session_id, title="a title")


async def make_states(workshop: Workshop, key: SessionKey) -> None:
    for slot in ("agent", "other", "agent"):
        async with workshop.service.turn(key.user_id, key.session_id, native=True, slot=slot) as turn:
            turn.add([{"role": "assistant", "content": slot}])
            turn.state = {"by": slot, "numbers": [workshop.dice.random() for _ in range(9)]}


async def make_failed_turn(workshop: Workshop, key: SessionKey) -> None:
    with suppress(ZeroDivisionError):
        async with workshop.service.turn(key.user_id, key.session_id, native=True) as turn:
            turn.add([{"role": "user", "content": "divide"}])
            raise ZeroDivisionError


async def make_open_turn(workshop: Workshop, key: SessionKey) -> None:
    """Leave a turn open, with a part of it stored, and with a lease."""
    await workshop.turns(key, 1)
    context = workshop.service.record_turn(key.user_id, key.session_id, concurrent="reject")
    recorder = await workshop.open_turns.enter_async_context(context)
    recorder.add([StoredMessage(NATIVE, {"role": "assistant", "content": "so far"})])
    await recorder.checkpoint()


async def make_lease(workshop: Workshop, key: SessionKey) -> None:
    """Leave an exclusive turn open that has said nothing yet."""
    context = workshop.service.turn(key.user_id, key.session_id, native=True, concurrent="queue")
    await workshop.open_turns.enter_async_context(context)


async def make_deleted(workshop: Workshop, key: SessionKey) -> None:
    await workshop.turns(key, 2)
    await workshop.service.delete_session(key.user_id, key.session_id)


async def make_recreated(workshop: Workshop, key: SessionKey) -> None:
    for _ in range(2):
        await make_deleted(workshop, key)
        await workshop.service.create_session(key.user_id, key.session_id, title="again")
    await workshop.turns(key, 1)


async def make_large(workshop: Workshop, key: SessionKey) -> None:
    for seq, size in enumerate((workshop.large, 0, workshop.large // 2 + 1)):
        await workshop.append(key, Entry(f"e{seq}", workshop.dice.randbytes(size)), seq)


async def make_keyed(workshop: Workshop, key: SessionKey) -> None:
    for seq in range(9):
        entry = Entry(
            f" e{seq}",
            workshop.dice.randbytes(seq * 40),
            keys=tuple(f"k{seq}.{number}é" for number in range(seq % 4)),
            bookkeeping=seq % 3 == 2,
        )
        await workshop.append(key, entry, seq, Snapshot(seq + 1, entry.origin, b"\0\xff") if seq % 2 else None)


async def make_rewritten(workshop: Workshop, key: SessionKey) -> None:
    await make_keyed(workshop, key)
    last = ""
    for seq in (3, 9, 1):
        log = await workshop.provider.read(key, last=1, before=seq + 1)
        assert log is not None
        new = Entry(log.entries[0].id, b"rewritten", origin=log.entries[0].origin)
        snapshot = Snapshot(9, log.head.tail_origin, b"new") if seq == 9 else None
        await workshop.provider.rewrite(
            key, new, at=Position(0, seq), rewrite_id=f"r{seq}", last_rewrite_id=last, snapshot=snapshot
        )
        last = f"r{seq}"


async def make_gone_user(workshop: Workshop, key: SessionKey) -> None:
    await make_deleted(workshop, SessionKey(f"gone {key.session_id}", key.session_id))


MAKERS: tuple[Callable[[Workshop, SessionKey], Awaitable[None]], ...] = (
    make_turns,
    make_states,
    make_failed_turn,
    make_open_turn,
    make_lease,
    make_deleted,
    make_recreated,
    make_keyed,
    make_rewritten,
    make_gone_user,
)


@asynccontextmanager
async def mixed_sessions(
    connect: Connect, count: int, *, large: int, long: int
) -> AsyncIterator[SessionHistoryProvider]:
    """Fill a store, and yield its provider. Some turns stay open until the end of the block.

    :param count: the number of sessions, tombstones included.
    :param large: bytes of the largest entry.
    :param long: entries of the longest session.
    """
    async with SessionHistoryService(connect()) as service, AsyncExitStack() as open_turns:
        workshop = Workshop(service, open_turns, random.Random(count), large)
        await make_large(workshop, SessionKey(USERS[0], "large"))
        for seq in range(long):
            await workshop.append(SessionKey(USERS[1], "long"), Entry(f"e{seq}", bytes(seq % 50)), seq)
        users = cycle(USERS)
        for number, make in enumerate(islice(cycle(MAKERS), count - 2)):
            await make(workshop, SessionKey(next(users), f"s{number}"))
        yield service.provider
