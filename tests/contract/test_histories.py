"""The same random history gives the same answers on every provider."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

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
    Restorable,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    Users,
    ability,
)
from session_history_hooks.testing import Connect
from session_history_hooks.testing.users import walk_tombstones, walk_users

A = TypeVar("A")

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
        names = dice.choice([[]] * 6 + [["k1"], ["K1", f"key {number}"], ["e1", "k1", "é"]])
        entry_id = dice.choice([f"new{number}"] * 6 + ["e1", "E1", "é", "k1"])
        entry = Entry(
            entry_id,
            dice.randbytes(dice.choice([0, 3, 2000])),
            origin=f"o{number}",
            keys=tuple(name for name in names if name != entry_id),
            bookkeeping=dice.random() < 0.2,
        )
        snapshot = Snapshot(at.seq + 1, entry.origin, dice.randbytes(9)) if dice.random() < 0.7 else None
        tail_origin = dice.choice([None, None, log.head.tail_origin if log else "none", "other"])
        last, before, after = (dice.choice([None, None, 0, 1, 2, 5, 50]) for _ in range(3))
        wanted = dice.choice([None, "e1", "é", "k1", f"new{number - 3}"])
        last_rewrite_id = dice.choice([log.head.rewrite_id if log else ""] * 3 + ["other"])
        stored = await stored_entry(memory, key, at.seq)
        rewritten = replace(stored or entry, payload=b"rewritten")
        head, entries, behind = await part(memory, key, dice)
        calls: list[tuple[str, Call, int]] = [
            ("append", lambda it: it.append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot), 12),
            ("read", lambda it: it.read(key, last=last, before=before, after=after, entry_id=wanted), 6),
            ("list", lambda it: it.list(key.user_id, limit=dice_limit), 3),
            ("renew", lambda it: it.renew(key, at=at, tail_origin=tail_origin), 2),
            (
                "rewrite",
                lambda it: it.rewrite(
                    key, rewritten, at=at, rewrite_id=f"r{number}", last_rewrite_id=last_rewrite_id, snapshot=snapshot
                ),
                2,
            ),
            ("delete", lambda it: it.delete(key), 1),
            ("list_users", lambda it: walk_users(found(it, Users), dice_limit), 1),
            ("list_tombstones", lambda it: walk_tombstones(found(it, Users), key.user_id, dice_limit), 1),
        ]
        if head is not None:
            copy = replace(head, key=SessionKey(key.user_id, dice.choice(SESSIONS)))
            calls.append(("restore", lambda it: found(it, Restorable).restore(copy, entries, behind=behind), 4))
        if dice.random() < 0.01:
            calls.append(("delete_user", lambda it: it.delete_user(key.user_id), 30))
        dice_limit = dice.randint(1, 4)
        name, call, _ = dice.choices(calls, [weight for *_, weight in calls])[0]
        return f"{number} {name} {key} at {at}", call


async def stored_entry(memory: MemoryProvider, key: SessionKey, seq: int) -> Entry | None:
    log = await memory.read(key, last=1, before=seq + 1)
    return log.entries[0] if log and log.entries else None


async def part(
    memory: MemoryProvider, key: SessionKey, dice: random.Random
) -> tuple[Head | None, tuple[Entry, ...], str]:
    """Return a part of a session to restore: a head, its last entries, and the origin ahead of them.

    The times are the same on every store, so that a repeated restore has the same answer.
    """
    log = await memory.read(key, last=dice.choice([1, 2, 1000]))
    if log is None:
        return None, (), ""
    head = replace(log.head, active_us=10**15 + log.head.tail.seq, changed_us=10**15 + log.head.tail.seq)
    ahead = await stored_entry(memory, key, log.first - 1)
    return head, log.entries, ahead.origin if ahead and log.first > 1 and log.entries else ""


def found(provider: SessionHistoryProvider, kind: Callable[..., A]) -> A:
    ability_of = ability(provider, kind)
    assert ability_of is not None
    return ability_of


async def answer(name: str, call: Call, provider: SessionHistoryProvider) -> str:
    try:
        return f"{name}: {shown(await call(provider))}"
    except Conflict as conflict:
        return f"{name}: Conflict({shown(conflict.head)}, {conflict.keys})"


def shown(value: Any) -> object:
    """Return an answer without times and heartbeats, which differ between stores."""
    match value:
        case Head():
            marks = (value.tail, value.tail_origin, value.deleted, value.rewrite_id)
            return (value.key, *marks, value.active_us == value.changed_us, shown(value.snapshot))
        case Log():
            matched = value.match and (value.match[0], shown(value.match[1]))
            return (shown(value.head), value.first, [shown(entry) for entry in value.entries], matched)
        case Page():
            return ([shown(head) for head in value.heads], value.cursor is not None)
        case dict():
            return [shown(value[key]) for key in sorted(value)]
        case set():
            return sorted(value)
    assert isinstance(value, Entry | Snapshot | Appended | bool | int | None)
    return astuple(value) if isinstance(value, Entry | Snapshot) else value


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
    assert any(line.endswith("('k1',))") for line in expected)


async def test_histories_contain_every_method() -> None:
    names = {name.split()[1] for seed in (1, 2, 3) for name in await names_of(seed)}
    calls = {"append", "read", "list", "renew", "rewrite", "delete", "delete_user"}
    assert names == {*calls, "list_users", "list_tombstones", "restore"}


async def names_of(seed: int) -> list[str]:
    history = History(seed)
    await asyncio.wait_for(history.grow(), 60)
    return [name for name, _ in history.calls]
