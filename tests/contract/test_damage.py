"""Damage: any stored value may be anything. Each call answers rightly, or raises an error that says so.

``SESSION_HISTORY_TEST_DAMAGES`` is the number of values that each store gets, ``0`` for all of them, and
``SESSION_HISTORY_TEST_SEED`` the seed by which they are chosen.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from contract.damage import Cell, Damaged, DamagedPostgresql, DamagedSqlite, DamagedTablestore, DamagedValkey, damages
from contract.stores import valkey_url
from servers.tablestore import TablestoreServer
from session_history import SessionHistoryService
from session_history.errors import (
    Corrupt,
    IncompatibleStore,
    SessionHistoryError,
    Unavailable,
)
from session_history.providers.tablestore import rows
from session_history_hooks import Entry, Log, Position, SessionHistoryProvider, SessionKey, Users, ability, new_origin

COUNTS = {"sqlite": 80, "postgresql": 40, "valkey": 80, "tablestore": 40}
"""The values that a store gets in about half a minute."""

WANTED = os.environ.get("SESSION_HISTORY_TEST_DAMAGES")
SEED = int(os.environ.get("SESSION_HISTORY_TEST_SEED", "14"))

LONGEST = 20.0
"""Seconds after which a call hangs."""

USER = "u"
IDS = ("talk", "again", "gone", "large", "erased")
KEYS = [SessionKey(USER, each) for each in IDS]

LARGE = {"sqlite": 1000, "postgresql": 1000, "valkey": 100_000, "tablestore": 50_000}
"""Characters of a message that a store keeps in pieces."""

HIDING = {"user_id", "session_id", "deleted", "log", "name", "value", "r"}
"""Values with which a session may seem to be another one, or to be deleted or expired."""

READS: tuple[dict[str, Any], ...] = (
    {"last": 0}, {"last": 2}, {"last": 2, "before": 3}, {"after": 1}, {"after": 99}, {"before": 2}
)  # fmt: skip

Logs = dict[SessionKey, Log | None]


@asynccontextmanager
async def damaged_store(kind: str, folder: Path) -> AsyncIterator[Damaged]:
    """Make a store of one kind, with sessions of two users."""
    store: Damaged
    with ExitStack() as stack:
        match kind:
            case "sqlite":
                store = DamagedSqlite(folder)
            case "postgresql":
                store = DamagedPostgresql()
                await store.make()
            case "valkey":
                store = DamagedValkey(stack.enter_context(Redis.from_url(valkey_url(kind))))
            case _:
                store = DamagedTablestore(stack.enter_context(TablestoreServer()))
        async with SessionHistoryService(store.connect()) as service:
            await fill(service, LARGE[kind])
        await store.keep()
        yield store


async def fill(service: SessionHistoryService, large: int) -> None:
    await service.create_session(USER, "talk", title="talk", metadata={"a": 1})
    for number in range(3):
        await say(service, "talk", f"t{number}")
    for session_id in ("again", "gone"):
        await say(service, session_id, "first")
        await service.delete_session(USER, session_id)
    await service.create_session(USER, "again")
    await say(service, "again", "second")
    await say(service, "large", "large", "x" * large)
    await say(service, "erased", "erased")
    log = await service.provider.read(SessionKey(USER, "erased"))
    assert log is not None
    await service.provider.rewrite(
        log.head.key, log.entries[0], at=Position(0, 1), rewrite_id="r1", last_rewrite_id="", snapshot=log.head.snapshot
    )
    async with service.turn("v", "other", input={"role": "user", "content": "other"}, native=True):
        pass


async def say(service: SessionHistoryService, session_id: str, turn_id: str, text: str = "Hello") -> None:
    message = {"role": "user", "content": text, "id": f"m{turn_id}"}
    async with service.turn(USER, session_id, input=message, turn_id=turn_id, native=True) as turn:
        turn.add({"role": "assistant", "content": "Hi"})


class Case:
    """The calls on a store with one damaged value."""

    def __init__(self, provider: SessionHistoryProvider, sound: Logs, *, may_hide: bool) -> None:
        self.provider = provider
        self.service = SessionHistoryService(provider)
        self.sound = sound
        self.may_hide = may_hide
        self.flaws: list[str] = []

    async def call(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer of a call, or its error. Any error but ours is a flaw."""
        try:
            async with asyncio.timeout(LONGEST):
                return await call()
        except Unavailable as error:
            self.flaws.append(f"{name}: {error!r} for a store that is there")
            return error
        except SessionHistoryError as error:
            return error
        except BaseException as error:
            self.flaws.append(f"{name}: {error!r}")
            return error

    async def run(self) -> None:
        logs = [await self.reads(key) for key in KEYS]
        await self.lists()
        for key, log in zip(KEYS, logs, strict=True):
            await self.writes(key, log)
        for key in KEYS:
            await self.deletes(key)
        deleted = await self.call("delete_user", lambda: self.provider.delete_user(USER))
        left = await self.call("list", lambda: self.provider.list(USER, limit=9))
        is_newer = isinstance(deleted, IncompatibleStore)  # That session is kept.
        if not isinstance(left, SessionHistoryError) and len(left.heads) > is_newer:
            self.flaws.append("list: sessions are left after delete_user")

    async def reads(self, key: SessionKey) -> Any:
        read = self.provider.read
        for options in READS:
            await self.call(f"read {options}", partial(read, key, **options))
        for entry_id in ("t1", "mt1", "second", "never"):
            found = await self.call("read of an id", partial(read, key, last=1, entry_id=entry_id))
            if isinstance(found, Log) and found.match and entry_id not in (found.match[1].id, *found.match[1].keys):
                self.flaws.append("read of an id: another entry")
        for last_turns in (None, 1):
            await self.call("get", partial(self.service.get_session, USER, key.session_id, last_turns=last_turns))
        return await self.call("read", lambda: read(key))

    async def lists(self) -> None:
        """Walk with all sizes of pages: no walk repeats a session, and an undamaged session is there or named."""
        for limit in (1, 2, 9):
            shown = await self.walk(
                f"list {limit}", lambda cursor, limit=limit: self.provider.list(USER, limit=limit, cursor=cursor)
            )
            living = [key for key, log in self.sound.items() if log and not log.head.deleted]
            missing = [] if shown is None else [key.session_id for key in living if key not in shown]
            if len(missing) > self.may_hide:
                self.flaws.append(f"list {limit}: {missing} are missing")
        users = ability(self.provider, Users)
        assert users is not None
        await self.walk("tombstones", partial(users.list_tombstones, USER, limit=1))
        await self.call("users", lambda: users.list_users(limit=1))
        listed = await self.call("list_sessions", lambda: self.service.list_sessions(USER))
        info = await self.call("store_info", self.provider.store_info)
        if isinstance(listed, SessionHistoryError) and not isinstance(info, SessionHistoryError):
            self.flaws.append(f"list_sessions: {listed!r}")
        await self.call("health", self.service.health)

    async def walk(self, name: str, page: Callable[..., Awaitable[Any]]) -> set[SessionKey] | None:
        """Return what a walk shows or names; ``None`` if it also counts sessions without a name."""
        shown: list[SessionKey] = []
        cursor, unnamed = None, 0
        for _ in range(30):
            found = await self.call(name, partial(page, cursor=cursor))
            if isinstance(found, BaseException):
                self.flaws.append(f"{name}: {found!r} takes the listing away")
                return None
            shown += [*(head.key for head in found.heads), *found.unreadable]
            cursor, unnamed = found.cursor, unnamed + found.unnamed
            if cursor is None:
                break
        else:
            self.flaws.append(f"{name}: no end")
        if len(set(shown)) < len(shown):
            self.flaws.append(f"{name}: a session twice")
        return None if unnamed else set(shown)

    async def writes(self, key: SessionKey, log: Any) -> None:
        provider, service, session_id = self.provider, self.service, key.session_id
        sound = self.sound[key]
        assert sound is not None
        head, at = sound.head, sound.head.tail
        entry = Entry("new", b"{}")
        await self.call("renew", lambda: provider.renew(key, at=at, tail_origin=head.tail_origin))
        await self.call("append elsewhere", lambda: provider.append(key, entry, at=Position(at.generation, 1)))
        await self.call("append again", lambda: provider.append(key, Entry("t1", b"{}"), at=Position(0, 1)))
        await self.call("turn", lambda: say(service, session_id, "new"))
        await self.call("turn again", lambda: say(service, session_id, "t1"))
        await self.call("update", lambda: service.update_session(USER, session_id, title="new"))
        await self.call("create", lambda: service.create_session(USER, session_id))
        if sound.entries:
            old = sound.entries[-1]
            options: dict[str, Any] = {"rewrite_id": new_origin(), "last_rewrite_id": head.rewrite_id, "snapshot": None}
            await self.call("rewrite", lambda: provider.rewrite(key, old, at=at, **options))
        await self.call("append", lambda: provider.append(key, entry, at=at, tail_origin=head.tail_origin))
        restore = getattr(provider, "restore")  # noqa: B009 - an ability
        await self.call("restore", lambda: restore(head, sound.entries))

    async def deletes(self, key: SessionKey) -> None:
        """A damaged session can be deleted, unless it seems to be of a newer version."""
        deleted = await self.call("delete", lambda: self.provider.delete(key))
        if isinstance(deleted, IncompatibleStore):
            return
        log = await self.call("read after delete", lambda: self.provider.read(key))
        if isinstance(deleted, SessionHistoryError) or isinstance(log, SessionHistoryError):
            self.flaws.append(f"delete: {key.session_id} {deleted!r}, then {log!r}")
        elif log is not None and not log.head.deleted:
            self.flaws.append("delete: the session is still there")


async def sound_logs(store: Damaged) -> Logs:
    provider = store.connect()
    await provider.start()
    logs = {key: await provider.read(key) for key in KEYS}
    await provider.stop()
    return logs


async def cases(store: Damaged, count: int, chance: random.Random) -> list[tuple[Cell, Any]]:
    cells = await store.cells()
    values = {cell: await store.get(cell) for cell in cells}
    others = {name: [values[cell] for cell in cells if cell.name == name] for name in {cell.name for cell in cells}}
    found = [(cell, value) for cell in cells for value in damages(values[cell], others[cell.name], chance)]
    return chance.sample(found, count or len(found))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "valkey", "tablestore"])
async def test_store_with_a_damaged_value_answers_rightly_or_says_so(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CELL_BYTES", 20_000)  # Chunks of two megabytes would take most of the time.
    flaws: list[str] = []
    count = COUNTS[kind] if WANTED is None else int(WANTED)
    async with damaged_store(kind, tmp_path) as store:
        await store.reset()
        sound = await sound_logs(store)
        for cell, value in await cases(store, count, random.Random(SEED)):
            await store.reset()
            try:
                await store.set(cell, value)
            except Exception:  # the database takes no such value
                continue
            flaws += [f"{cell} = {repr(value)[:60]}: {flaw}" for flaw in await flaws_of(store, sound, cell)]
    assert not flaws, "\n".join(flaws)


async def flaws_of(store: Damaged, sound: Logs, cell: Cell) -> list[str]:
    provider = store.connect()
    try:
        await provider.start()
    except (Corrupt, IncompatibleStore):
        await provider.stop()
        return []
    case = Case(provider, sound, may_hide=cell.name in HIDING)
    try:
        await case.run()
    finally:
        await case.service.stop()
    return case.flaws
