"""A provider around another one, which retries every call that raises ``Unavailable``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from session_history_hooks import (
    Appended,
    Entry,
    Head,
    Limits,
    Log,
    Page,
    Position,
    Restorable,
    SessionHistoryProvider,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    UserPage,
    Users,
    ability,
)
from session_history_hooks.testing import Connect

A = TypeVar("A")
T = TypeVar("T")

EntryKey = tuple[SessionKey, int, str]
"""Session and generation of an entry, and its id or one of its keys."""

TRIES = 100
"""The most tries of a call. A call of many requests, after a login of many more, may fail ten times in a row."""


@dataclass
class Ledger:
    """Knowledge about the entries in a store that the callers of one process share.

    :ivar sending: number of callers that are sending this entry now.
    :ivar stored: the entries that a provider has acknowledged.
    """

    sending: Counter[EntryKey] = field(default_factory=Counter)
    stored: set[EntryKey] = field(default_factory=set)


def retrying(connect: Connect, ledger: Ledger) -> SessionHistoryProvider:
    """Make a ``connect`` from another one: ``partial(retrying, connect, ledger)``.

    :param ledger: one ledger for all connections to a store.
    """
    return RetryingProvider(connect(), ledger)


class RetryingProvider:
    """Retries a call that raises ``Unavailable``, with the same arguments; passes on any other error.

    It returns the results of a provider without outages: if a try was stored and its answer was lost, the retry
    reports the entry as stored by this call, not as replayed.
    """

    def __init__(self, provider: SessionHistoryProvider, ledger: Ledger) -> None:
        self._provider = provider
        self._ledger = ledger

    def __repr__(self) -> str:
        return f"RetryingProvider({self._provider!r})"

    @property
    def limits(self) -> Limits:
        return self._provider.limits

    async def start(self) -> None:
        await _retry(self._provider.start)

    async def stop(self) -> None:
        await self._provider.stop()

    async def health(self) -> bool:
        for _ in range(TRIES):
            if await self._provider.health():
                return True
        return False

    def ability(self, kind: object) -> object | None:
        return self if kind in (Users, Restorable) else None

    async def store_info(self, *, shard: Shard | None = None) -> StoreInfo:
        return await _retry(lambda: self._provider.store_info(shard=shard))

    async def read(
        self,
        key: SessionKey,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        entry_id: str | None = None,
    ) -> Log | None:
        return await _retry(lambda: self._provider.read(key, last=last, before=before, after=after, entry_id=entry_id))

    async def append(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        tail_origin: str | None = None,
        snapshot: Snapshot | None = None,
    ) -> Appended:
        """Append, and report a replay only if another call stored the entry.

        The provider may find an entry that this call stored itself, also without an ``Unavailable``. This call stored
        the entry if no call has reported it before and no other call is sending it.
        """
        entry_key = (key, at.generation, entry.id)
        self._ledger.sending[entry_key] += 1
        try:
            appended = await _retry(
                lambda: self._provider.append(key, entry, at=at, tail_origin=tail_origin, snapshot=snapshot)
            )
        finally:
            self._ledger.sending[entry_key] -= 1
        found = entry_key in self._ledger.stored or self._ledger.sending[entry_key] > 0
        self._store(key, at, [entry])
        return replace(appended, replayed=appended.replayed and found)

    async def renew(self, key: SessionKey, *, at: Position, tail_origin: str | None = None) -> bool:
        return await _retry(lambda: self._provider.renew(key, at=at, tail_origin=tail_origin))

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        *,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        return await _retry(
            lambda: self._provider.rewrite(
                key, entry, at=at, rewrite_id=rewrite_id, last_rewrite_id=last_rewrite_id, snapshot=snapshot
            )
        )

    async def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        return await _retry(lambda: self._provider.list(user_id, limit=limit, cursor=cursor))

    async def delete(self, key: SessionKey) -> bool:
        before = await self.read(key, last=0)
        outages: list[Unavailable] = []
        deleted = await _retry(lambda: self._provider.delete(key), outages)
        return deleted or (bool(outages) and before is not None and not before.head.deleted)

    async def delete_user(self, user_id: str) -> int:
        before = await self._count(user_id)
        outages: list[Unavailable] = []
        deleted = await _retry(lambda: self._provider.delete_user(user_id), outages)
        return before - await self._count(user_id) if outages else deleted

    async def list_users(self, *, limit: int, cursor: str | None = None) -> UserPage:
        users = self._ability(Users)
        return await _retry(lambda: users.list_users(limit=limit, cursor=cursor))

    async def list_tombstones(self, user_id: str, *, limit: int, cursor: str | None = None) -> Page:
        users = self._ability(Users)
        return await _retry(lambda: users.list_tombstones(user_id, limit=limit, cursor=cursor))

    async def restore(self, head: Head, entries: Sequence[Entry] = (), *, behind: str = "") -> bool:
        """Restore, and report whether the session has changed since before the first try."""
        restorable = self._ability(Restorable)
        before = await self.read(head.key, last=0)
        written = await _retry(lambda: restorable.restore(head, entries, behind=behind))
        self._store(head.key, head.tail, entries)
        if written:
            return True
        after = await self.read(head.key, last=0)  # A try may have written without an ``Unavailable``, too.
        return (before and before.head) != (after and after.head)

    def _store(self, key: SessionKey, at: Position, entries: Sequence[Entry]) -> None:
        names = (name for entry in entries for name in (entry.id, *entry.keys))
        self._ledger.stored.update((key, at.generation, name) for name in names)

    def _ability(self, kind: Callable[..., A]) -> A:
        found = ability(self._provider, kind)
        assert found is not None
        return found

    async def _count(self, user_id: str) -> int:
        """Return the number of sessions that are not deleted."""
        page = await self.list(user_id, limit=self.limits.page)
        count = len(page.heads)
        while page.cursor is not None:
            page = await self.list(user_id, limit=self.limits.page, cursor=page.cursor)
            count += len(page.heads)
        return count


async def _retry(call: Callable[[], Awaitable[T]], outages: list[Unavailable] | None = None) -> T:
    """Call until the answer is not ``Unavailable``.

    :param outages: receives each ``Unavailable``. If there is one, an earlier try may have done the work.
    """
    outages = [] if outages is None else outages
    while True:
        try:
            return await call()
        except Unavailable as error:
            outages.append(error)
            if len(outages) == TRIES:
                raise
