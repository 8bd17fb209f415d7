"""A caller that does not give up: what is to be done by whoever meets ``Unavailable``, as a provider around another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Limits,
    Log,
    Page,
    Position,
    SessionHistoryProvider,
    SessionKey,
    Snapshot,
    Unavailable,
)
from session_history_hooks.testing import Connect

T = TypeVar("T")

Place = tuple[SessionKey, int, str]
"""Session, generation and id of an entry."""

TRIES = 100
"""After which a caller gives up: a call of many requests, after a login of many more, may well fail ten times."""


@dataclass
class Ledger:
    """What the callers of one process know of the entries in a store.

    :ivar sending: how many of them are just about to append an entry.
    :ivar stored: what they have heard to be stored.
    """

    sending: Counter[Place] = field(default_factory=Counter)
    stored: set[Place] = field(default_factory=set)


def insisting(connect: Connect, ledger: Ledger) -> SessionHistoryProvider:
    """A ``connect`` from another one: ``partial(insisting, connect, ledger)``.

    :param ledger: one for all connections to a store.
    """
    return Insisting(connect(), ledger)


class Insisting:
    """Asks again, and the same, where the answer was ``Unavailable``; whatever else goes wrong is handed on.

    Its answers are those of a provider that nothing ever happened to: a write that was done by a try whose answer was
    lost is told as done by this call, and not as found.
    """

    def __init__(self, provider: SessionHistoryProvider, ledger: Ledger) -> None:
        self._provider = provider
        self._ledger = ledger

    def __repr__(self) -> str:
        return f"Insisting({self._provider!r})"

    @property
    def limits(self) -> Limits:
        return self._provider.limits

    async def start(self) -> None:
        await _insist(self._provider.start)

    async def stop(self) -> None:
        await self._provider.stop()

    async def health(self) -> bool:
        for _ in range(TRIES):
            if await self._provider.health():
                return True
        return False

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        return await _insist(lambda: self._provider.read(key, last=last, before=before, after=after, entry_id=entry_id))

    async def append(
        self, key: SessionKey, entry: Entry, *, at: Position, snapshot: Snapshot | None = None
    ) -> Appended:
        """The provider may find the entry that it has stored itself, also without an ``Unavailable``. It was stored by
        this call, if nobody has heard of it before, and nobody else is about to store it.
        """
        place = (key, at.generation, entry.id)
        self._ledger.sending[place] += 1
        try:
            appended = await _insist(lambda: self._provider.append(key, entry, at=at, snapshot=snapshot))
        finally:
            self._ledger.sending[place] -= 1
        found = place in self._ledger.stored or self._ledger.sending[place] > 0
        self._ledger.stored.add(place)
        return replace(appended, replayed=appended.replayed and found)

    async def renew(self, key: SessionKey, *, at: Position) -> bool:
        return await _insist(lambda: self._provider.renew(key, at=at))

    async def rewrite(
        self, key: SessionKey, entry: Entry, *, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        before = await self.read(key, last=0)
        doubts: list[Unavailable] = []
        try:
            return await _insist(
                lambda: self._provider.rewrite(key, entry, at=at, rewrites=rewrites, snapshot=snapshot), doubts
            )
        except Conflict:
            after = await self.read(key, last=0, entry_id=entry.id)
            if not doubts or before is None or after is None or before.head.rewrites != rewrites:
                raise
            if (after.head.rewrites, after.head.snapshot, after.match) != (rewrites + 1, snapshot, (at.seq, entry)):
                raise
            return after.head

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await _insist(lambda: self._provider.list(user_id, limit=limit, cursor=cursor))

    async def delete(self, key: SessionKey) -> bool:
        before = await self.read(key, last=0)
        doubts: list[Unavailable] = []
        deleted = await _insist(lambda: self._provider.delete(key), doubts)
        return deleted or (bool(doubts) and before is not None and not before.head.deleted)

    async def delete_user(self, user_id: str) -> int:
        before = await self._count(user_id)
        doubts: list[Unavailable] = []
        deleted = await _insist(lambda: self._provider.delete_user(user_id), doubts)
        return before - await self._count(user_id) if doubts else deleted

    async def _count(self, user_id: str) -> int:
        """Of the sessions that live."""
        page = await self.list(user_id, limit=self.limits.page)
        count = len(page.heads)
        while page.cursor is not None:
            page = await self.list(user_id, limit=self.limits.page, cursor=page.cursor)
            count += len(page.heads)
        return count


async def _insist(call: Callable[[], Awaitable[T]], doubts: list[Unavailable] | None = None) -> T:
    """:param doubts: gets what was met on the way: the call has perhaps been done by then."""
    doubts = [] if doubts is None else doubts
    while True:
        try:
            return await call()
        except Unavailable as error:
            doubts.append(error)
            if len(doubts) == TRIES:
                raise
