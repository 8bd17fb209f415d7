"""The head's row of a session: one call of this process at a time, and compare-and-swap against all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple
from weakref import WeakValueDictionary

from session_history.providers.tablestore import rows
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.known import Known, settled
from session_history.providers.tablestore.memory import Memory
from session_history.providers.tablestore.reading import Reading
from session_history.providers.tablestore.rows import HeadRow, unchanged
from session_history.providers.tablestore.table import PATIENCE, Patience, Table
from session_history_hooks import SessionKey, Unavailable


class Changed(NamedTuple):
    """Where a session stands after its head was to be changed, and whether it was."""

    known: Known
    mine: bool


class Heads:
    """Changes the heads of a table."""

    def __init__(self, table: Table, reading: Reading, memory: Memory) -> None:
        self._table = table
        self._reading = reading
        self._memory = memory
        self._turns: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def alone(self, key: SessionKey) -> AsyncIterator[None]:
        """:raises Unavailable: those before have not ended in time, as in an outage."""
        turn = self._turns.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(PATIENCE):
                await turn.acquire()
        except TimeoutError:
            raise Unavailable(f"{key}: other calls on it have not ended within {PATIENCE:.0f} s") from None
        try:
            yield
        finally:
            turn.release()

    async def change(self, key: SessionKey, known: Known, change: Callable[[Known], HeadRow | None]) -> Changed:
        """Put another row in place of the head's, as often as others come between.

        :param change: what is to stand there instead; ``None`` to leave it.
        """
        patience = Patience()
        life = known.place.generation
        tried: set[int | None] = set()
        unsure = False
        while known.mark not in tried:
            row = change(known)
            if row is None:
                return Changed(known, mine=unsure and not known.buries(life))
            [outcome] = await self._table.write([rows.put_head(row, unchanged(known.mark))])
            if outcome is Outcome.DONE:
                self._memory.keep(key, settled(row))
                return Changed(settled(row), mine=True)
            tried.add(row.mark)
            unsure = unsure or outcome is Outcome.UNKNOWN
            await patience.wait("a change of unknown outcome")
            known = await self._reading.look(key)
        return Changed(known, mine=True)
