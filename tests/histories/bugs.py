"""Bugs planted into the clients, each of which the checker must find."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from session_history.errors import Conflict
from session_history.log import leases, reader, session_log
from session_history.log.cache import EntryRange
from session_history.log.leases import LeaseObserver
from session_history.log.reader import Reader
from session_history.log.session_log import Placed, SessionLog
from session_history.providers.sqlite import SqliteProvider
from session_history.records.record import Author, Record, Status, new_id
from session_history.turns.writer import Writer
from session_history.view.assembly import TurnView
from session_history_hooks import Appended, Entry, Head, Log, Position, SessionKey

SLOW = 0.02
"""Seconds after which an append that is done again under a new id counts as lost."""


def acknowledged_before_it_is_stored() -> None:
    real = SqliteProvider.append
    background = set()

    async def append(self: SqliteProvider, key: SessionKey, entry: Entry, *, at: Position, **options: Any) -> Appended:
        task = asyncio.ensure_future(real(self, key, entry, at=at, **options))
        background.add(task)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return Appended(Position(at.generation, at.seq + 1), replayed=False)

    SqliteProvider.append = append  # type: ignore[method-assign]


def conflict_counts_as_stored() -> None:
    real = SessionLog.append_at

    async def append_at(self: SessionLog, key: SessionKey, entry: Entry, record: Record, *rest: Any, **own: Any) -> Any:
        try:
            return await real(self, key, entry, record, *rest, **own)
        except Conflict as conflict:
            if record.messages and conflict.head and not conflict.head.deleted:
                return conflict.head
            raise

    SessionLog.append_at = append_at  # type: ignore[method-assign]


def slow_append_is_done_again_under_a_new_id() -> None:
    real = SessionLog.append

    async def append(
        self: SessionLog, key: SessionKey, entry: Entry, record: Record, *, known: Head | None, ask: bool = False
    ) -> Placed:
        began = time.monotonic()
        placed = await real(self, key, entry, record, known=known, ask=ask)
        if record.messages and time.monotonic() - began > SLOW:
            placed = await real(self, key, record.entry(new_id()), record, known=placed.head or known)
        return placed

    SessionLog.append = append  # type: ignore[method-assign]


def turn_is_stored_in_two_entries() -> None:
    real = SessionLog.append

    async def append(
        self: SessionLog, key: SessionKey, entry: Entry, record: Record, *, known: Head | None, ask: bool = False
    ) -> Placed:
        if record.by is Author.TURN and record.continues is None and len(record.messages) > 2:
            first = replace(record, messages=record.messages[:1], status=Status.OPEN, turn_id=None)
            known = (await real(self, key, first.entry(new_id()), first, known=known)).head
            record = replace(record, messages=record.messages[1:], inputs=())
            entry = Entry(entry.id, record.encode(), entry.origin)
        return await real(self, key, entry, record, known=known, ask=ask)

    SessionLog.append = append  # type: ignore[method-assign]


def answered_turn_runs_again() -> None:
    async def recorded(*_: Any) -> None: ...

    vars_of(Reader)["_recorded"](recorded)
    vars_of(Writer)["_entry_id"](lambda *_: new_id())


def input_of_a_durable_turn_is_stored_with_its_answer() -> None:
    real = Writer.store

    async def store(self: Writer, status: Status) -> None:
        if status is not Status.OPEN:
            await real(self, status)

    Writer.store = store  # type: ignore[method-assign]


def cache_ignores_the_generation() -> None:
    def followed_by(self: EntryRange, log: Log) -> EntryRange | None:
        if not log.entries:
            return replace(self, head=log.head)
        since = EntryRange.of(log)
        return EntryRange(log.head, self.entries + since.entries, self.size + since.size)

    async def holds(*_: Any) -> bool:
        return True

    EntryRange.followed_by = followed_by  # type: ignore[method-assign]
    SessionLog.holds = holds  # type: ignore[assignment,method-assign]


def cache_ignores_the_origin() -> None:
    def stands_at(self: EntryRange, head: Head) -> bool:
        return self.head.tail == head.tail

    async def holds(*_: Any) -> bool:
        return True

    EntryRange.stands_at = stands_at  # type: ignore[method-assign]
    SessionLog.holds = holds  # type: ignore[assignment,method-assign]


def open_turn_ignores_a_lost_past() -> None:
    async def has_lost_past(*_: Any, **__: Any) -> bool:
        return False

    vars_of(SessionLog)["_has_lost_past"](has_lost_past)


def reads_come_from_the_cache_for_a_while() -> None:
    real = vars(Reader)["_tail"]
    asked: dict[SessionKey, float] = {}

    async def tail(self: Reader, key: SessionKey, last: int | None, entry_id: str | None) -> Any:
        cached = vars(self)["_log"].cache.get(key)
        if cached is not None and cached.has(last) and time.monotonic() - asked.get(key, 0) < 0.1:
            return Log(cached.head, cached.head.tail.seq + 1, ()), cached
        asked[key] = time.monotonic()
        return await real(self, key, last, entry_id)

    vars_of(Reader)["_tail"](tail)


def generation_is_ignored() -> None:
    vars_of(session_log)["_require_same_life"](lambda *_: None)


def leases_are_ignored() -> None:
    async def require_expired(*_: Any) -> None: ...

    vars_of(SessionLog)["_require_expired"](require_expired)


def lease_is_measured_after_the_read() -> None:
    real = LeaseObserver.check_expired

    def check_expired(self: LeaseObserver, head: Head, lease: float, *, asked_at: float) -> None:
        real(self, head, lease, asked_at=time.monotonic())

    LeaseObserver.check_expired = check_expired  # type: ignore[method-assign]


def lease_is_measured_by_the_wall_clock() -> None:
    real = LeaseObserver.check_expired
    leases.time = SimpleNamespace(monotonic=lambda: time.time())  # type: ignore[assignment,attr-defined] # noqa: PLW0108

    def check_expired(self: LeaseObserver, head: Head, lease: float, *, asked_at: float) -> None:
        real(self, head, lease, asked_at=time.time())

    LeaseObserver.check_expired = check_expired  # type: ignore[method-assign]


def failed_turns_are_shown() -> None:
    reader.for_model = lambda turns, turn_id: list(turns)  # type: ignore[attr-defined]


def interrupted_turn_keeps_its_id() -> None:
    TurnView.is_final = property(lambda self: self.status is not Status.FAILED)  # type: ignore[assignment]


def vars_of(owner: Any) -> dict[str, Callable[[Any], None]]:
    """Return what replaces each name of a class or module."""
    return {name: partial(setattr, owner, name) for name in vars(owner)}


BUGS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        acknowledged_before_it_is_stored, conflict_counts_as_stored, slow_append_is_done_again_under_a_new_id,
        turn_is_stored_in_two_entries, answered_turn_runs_again, input_of_a_durable_turn_is_stored_with_its_answer,
        cache_ignores_the_generation, cache_ignores_the_origin, open_turn_ignores_a_lost_past,
        reads_come_from_the_cache_for_a_while, generation_is_ignored, leases_are_ignored,
        lease_is_measured_after_the_read, lease_is_measured_by_the_wall_clock, failed_turns_are_shown,
        interrupted_turn_keeps_its_id,
    )
}  # fmt: skip
