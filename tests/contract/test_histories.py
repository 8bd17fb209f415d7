"""The same random history gives the same answers on every provider."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contract import stores
from session_history.providers.memory import MemoryProvider
from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Log,
    Page,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
)
from session_history_hooks.testing import Connect

STEPS = 400
USERS = ("a", "a:b", "*")
SESSIONS = ("b:c", "c", "会话")

Call = Callable[[SessionHistoryProvider], Awaitable[object]]


@dataclass
class History:
    """Random calls, each near the tail that the log had then, and the answers of the memory provider."""

    seed: int
    calls: list[tuple[str, Call]] = field(default_factory=list)

    async def grow(self) -> list[str]:
        dice, memory = random.Random(self.seed), MemoryProvider()
        await memory.start()
        answers = []
        for number in range(STEPS):
            name, call = await self._next(dice, memory, number)
            self.calls.append((name, call))
            answers.append(await answer(name, call, memory))
            wait_for_the_clock()
        return answers

    async def _next(self, dice: random.Random, memory: MemoryProvider, number: int) -> tuple[str, Call]:
        key = SessionKey(dice.choice(USERS), dice.choice(SESSIONS))
        log = await memory.read(key, last=0)
        tail = log.head.tail if log else Position(0, 0)
        generation = tail.generation + (1 if log and log.head.deleted else 0) + dice.choice([0] * 12 + [-1, 1])
        at = Position(max(generation, 0), max(tail.seq + dice.choice([0] * 8 + [-2, -1, 1]), 0))
        entry = Entry(dice.choice([f"new{number}"] * 6 + ["e1", "E1", "é"]), dice.randbytes(dice.choice([0, 3, 2000])))
        snapshot = Snapshot(at.seq + 1, entry.id, dice.randbytes(9)) if dice.random() < 0.7 else None
        last, before, after = (dice.choice([None, None, 0, 1, 2, 5, 50]) for _ in range(3))
        wanted = dice.choice([None, "e1", "é", f"new{number - 3}"])
        rewrites = (log.head.rewrites if log else 0) + dice.choice([0, 0, 0, 1])
        rewritten = Entry(await entry_id(memory, key, at.seq) or "none", b"rewritten")
        calls: list[tuple[str, Call, int]] = [
            ("append", lambda provider: provider.append(key, entry, at=at, snapshot=snapshot), 12),
            ("read", lambda it: it.read(key, last=last, before=before, after=after, entry_id=wanted), 6),
            ("list", lambda provider: provider.list(key.user_id, limit=dice_limit), 3),
            ("renew", lambda provider: provider.renew(key, at=at), 2),
            (
                "rewrite",
                lambda provider: provider.rewrite(key, rewritten, at=at, rewrites=rewrites, snapshot=snapshot),
                2,
            ),
            ("delete", lambda provider: provider.delete(key), 1),
        ]
        if dice.random() < 0.01:
            calls.append(("delete_user", lambda provider: provider.delete_user(key.user_id), 30))
        dice_limit = dice.randint(1, 4)
        name, call, _ = dice.choices(calls, [weight for *_, weight in calls])[0]
        return f"{number} {name} {key} at {at}", call


async def entry_id(memory: MemoryProvider, key: SessionKey, seq: int) -> str | None:
    log = await memory.read(key, last=1, before=seq + 1)
    return log.entries[0].id if log and log.entries else None


async def answer(name: str, call: Call, provider: SessionHistoryProvider) -> str:
    try:
        return f"{name}: {shown(await call(provider))}"
    except Conflict as conflict:
        return f"{name}: Conflict({shown(conflict.head)})"


def shown(value: Any) -> object:
    """Return an answer without times and heartbeats, which differ between stores."""
    match value:
        case Head():
            return (
                value.key,
                value.tail,
                value.tail_id,
                value.deleted,
                value.rewrites,
                value.snapshot and shown(value.snapshot),
            )
        case Snapshot():
            return (value.seq, value.entry_id, value.summary.hex())
        case Entry():
            return (value.id, value.payload.hex())
        case Log():
            found = value.match and (value.match[0], shown(value.match[1]))
            return (shown(value.head), value.first, [shown(entry) for entry in value.entries], found)
        case Page():
            return ([shown(head) for head in value.heads], value.cursor is not None)
        case Appended() | bool() | int() | None:
            return value
    raise TypeError(type(value).__name__)


def wait_for_the_clock() -> None:
    """Wait for the next microsecond, so that no two sessions are active in the same one."""
    began = time.time_ns() // 1000
    while time.time_ns() // 1000 == began:
        pass


@pytest.fixture(params=stores.KINDS)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    with stores.store(request.param, tmp_path) as connect:
        yield connect


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_history_has_the_same_answers_on_every_store(connect: Connect, seed: int) -> None:
    history = History(seed)
    expected = await history.grow()
    provider = connect()
    await provider.start()
    answers = []
    for name, call in history.calls:
        answers.append(await answer(name, call, provider))
        wait_for_the_clock()
    await provider.stop()
    assert answers == expected
    assert sum("Conflict" in line for line in expected) > STEPS / 20
    assert sum("replayed=True" in line for line in expected) > STEPS / 100


async def test_histories_contain_every_method() -> None:
    names = {name.split()[1] for seed in (1, 2, 3) for name in await names_of(seed)}
    assert names == {"append", "read", "list", "renew", "rewrite", "delete", "delete_user"}


async def names_of(seed: int) -> list[str]:
    history = History(seed)
    await asyncio.wait_for(history.grow(), 60)
    return [name for name, _ in history.calls]
