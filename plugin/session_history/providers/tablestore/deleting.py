"""How sessions are deleted: a tombstone first, then what it covers."""

from __future__ import annotations

from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Changed, Heads
from session_history.providers.tablestore.keys import PrimaryKey
from session_history.providers.tablestore.known import UNSEEN, Known, settled
from session_history.providers.tablestore.reading import PAGE, Reading
from session_history.providers.tablestore.rows import ALWAYS, HeadRow
from session_history.providers.tablestore.table import Patience, Table
from session_history_hooks import Corrupt, Position, SessionKey


class Deleting:
    """Deletes sessions of a table."""

    def __init__(self, table: Table, reading: Reading, heads: Heads) -> None:
        self._table = table
        self._reading = reading
        self._heads = heads

    async def delete(self, key: SessionKey) -> bool:
        """The tombstone first: what an interrupted delete leaves is not seen, and the next one removes it.

        Of a life that did not begin, parts of its first payload may be there. It shall not begin, since they are to go.
        """
        async with self._heads.alone(key):
            try:
                known = await self._reading.look(key)
            except Corrupt:
                known, mine = await self._bury_damaged(key), True
            else:
                known, mine = await self._bury(key, known) if known.living else Changed(known, mine=False)
            if await self._sweep(key, known.place.generation - 1) and known.living is None:
                unborn, _ = await self._bury(key, known)
                await self._sweep(key, unborn.place.generation - 1)
            return mine

    async def delete_user(self, user_id: str) -> int:
        count, below = 0, None
        while key := await self._reading.session_below(user_id, below):
            count += await self.delete(key)
            below = key.session_id
        return count

    async def _bury(self, key: SessionKey, known: Known) -> Changed:
        """The tombstone of the life that is, or else of the next one, if that has not begun meanwhile."""
        lives, generation = known.living is not None, known.place.generation

        def burying(known: Known) -> HeadRow | None:
            same = (known.living is not None, known.place.generation) == (lives, generation)
            return known.tombstone(key, generation) if same else None

        return await self._heads.change(key, known, burying)

    async def _bury_damaged(self, key: SessionKey) -> Known:
        """What can not be read can be deleted."""
        row = UNSEEN.tombstone(key, await self._reading.newest_generation(key))
        patience = Patience()
        while await self._table.write([rows.put_head(row, ALWAYS)]) != [Outcome.DONE]:
            await patience.wait("a delete of unknown outcome")
        return settled(row)

    async def _sweep(self, key: SessionKey, generation: int) -> bool:
        """Remove all that a generation and those before it have left; whether there are parts for a later one."""
        later = False
        start: PrimaryKey | None = keys.primary_key(key, keys.LOWEST)
        end = keys.primary_key(key, keys.place_of(Position(generation + 1, 0)))
        while start is not None:
            found = await self._table.page(start, end, limit=PAGE, columns=["v", "g"])
            old = [row.primary_key for row in found.rows if rows.generation(row) <= generation]
            await self._table.delete(old)
            later = later or len(old) < len(found.rows)
            start = found.next_key
        return later
