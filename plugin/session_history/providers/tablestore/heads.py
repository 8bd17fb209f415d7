"""Changes of heads: calls of this process take turns, and a compare-and-swap decides against other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple
from weakref import WeakValueDictionary

from session_history.providers.tablestore import rows, table
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.rows import HeadRow, unchanged
from session_history.providers.tablestore.state import SessionState
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import SessionKey, Unavailable


class HeadUpdate(NamedTuple):
    """The result of :meth:`Heads.update`.

    :ivar state: the state of the session afterwards.
    :ivar applied: true if this call changed the head, or if it may have.
    """

    state: SessionState
    applied: bool


class Heads:
    """Changes the heads of a table."""

    def __init__(self, table: Table, reader: Reader, cache: StateCache) -> None:
        self._table = table
        self._reader = reader
        self._cache = cache
        self._locks: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def lock(self, key: SessionKey) -> AsyncIterator[None]:
        """Wait until earlier calls of this process on the session have ended.

        :raises Unavailable: they did not end in time, for example because of an outage.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        seconds = table.RETRY_TIMEOUT
        try:
            async with asyncio.timeout(seconds):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable(f"{key}: earlier calls on this session did not end within {seconds:.0f} s") from None
        try:
            yield
        finally:
            lock.release()

    async def replace(self, row: HeadRow, etag: int | None) -> Outcome:
        """Replace the row of a head if it still has this etag; for ``None``, if there is still no row."""
        [outcome] = await self._table.write([rows.put_head(row, unchanged(etag))])
        if outcome is Outcome.DONE:
            self._cache.put(row.head.key, SessionState.of(row))
        return outcome

    async def update(
        self, key: SessionKey, state: SessionState, change: Callable[[SessionState], HeadRow | None]
    ) -> HeadUpdate:
        """Replace the row of a head, and start over on the new state if another process changed it first.

        :param state: the state as this process knows it.
        :param change: returns the new row for a state, or ``None`` to leave the row as it is.
        """
        backoff = Backoff()
        generation = state.append_at.generation
        written_etags: set[int | None] = set()
        outcome_unknown = False
        while state.etag not in written_etags:
            row = change(state)
            if row is None:
                # An attempt of unknown outcome made the change unnecessary, or another process did the same.
                return HeadUpdate(state, applied=outcome_unknown and not state.is_tombstone_of(generation))
            outcome = await self.replace(row, state.etag)
            if outcome is Outcome.DONE:
                return HeadUpdate(SessionState.of(row), applied=True)
            written_etags.add(row.etag)
            outcome_unknown = outcome_unknown or outcome is Outcome.UNKNOWN
            await backoff.wait("the outcome of a write to the head is unknown")
            state = await self._reader.state(key)
        return HeadUpdate(state, applied=True)
