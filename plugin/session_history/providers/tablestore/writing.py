"""What is written of a session. Each write is conditional, and each that was not acknowledged is looked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakValueDictionary

from session_history.providers.tablestore import rows
from session_history.providers.tablestore.known import Known, settled
from session_history.providers.tablestore.memory import Memory
from session_history.providers.tablestore.reading import PAGE, Reading
from session_history.providers.tablestore.rows import ABSENT, ALWAYS, EntryRow, HeadRow, Parts, new_mark, unchanged
from session_history.providers.tablestore.table import PATIENCE, ROWS_PER_WRITE, Outcome, Patience, PrimaryKey, Table
from session_history_hooks import (
    Appended,
    Conflict,
    Corrupt,
    Entry,
    Fold,
    Head,
    LimitExceeded,
    Position,
    SessionKey,
    Unavailable,
)

_DONE = Outcome.DONE


class Changed(NamedTuple):
    """Where a session stands after its head was to be changed, and whether it was."""

    known: Known
    mine: bool


class Writing:
    """Writes to a table. Of the calls of this process on a session, one goes at a time."""

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

    # Append

    async def append(self, key: SessionKey, entry: Entry, at: Position, fold: Fold | None) -> Appended:
        async with self.alone(key):
            known = self._memory.get(key)
            if known is None or known.place != at or known.seqs(entry.id):
                known = await self._reading.look(key)
                standing = await self._reading.standing(key, known, entry.id, at)
                if standing:
                    await self._cover(key, known, standing, None)
                    return Appended(standing.position, replayed=True)
            if known.place != at:
                raise Conflict(known.head)
            if at.generation > rows.MAX_GENERATION:
                raise LimitExceeded("generations", at.generation, rows.MAX_GENERATION)
            return await self._append(key, entry, at, fold, known)

    async def _append(self, key: SessionKey, entry: Entry, at: Position, fold: Fold | None, known: Known) -> Appended:
        position = Position(at.generation, at.seq + 1)
        payload = await self._spilled(key, position.generation, entry.payload)
        mine = EntryRow(position, entry.id, payload, known.next_active_us(), new_mark())
        patience = Patience()
        while True:
            head = known.behind(key, mine, fold)
            if await self._placed(key, mine, head, known.mark):
                self._memory.keep(key, settled(head))
                return Appended(position, replayed=False)
            known = await self._reading.look(key)
            standing = await self._reading.standing(key, known, entry.id, at)
            if standing:
                if standing.mark != mine.mark and not standing.edits:  # a rewrite may have been on top of mine
                    await self._discard(key, payload)
                await self._cover(key, known, standing, fold)
                return Appended(standing.position, replayed=standing.mark != mine.mark)
            if known.place != at:
                await self._withdraw(key, mine, known)
                raise Conflict(known.head)
            await patience.wait("an append of unknown outcome")

    async def _placed(self, key: SessionKey, entry: EntryRow, head: HeadRow, mark: int | None) -> bool:
        """Write an entry and its head in one request. The head of a new life comes second: it must not stand alone."""
        entry_item = rows.put_entry(key, entry, ABSENT)
        head_item = rows.put_head(head, unchanged(mark))
        if entry.position.seq > 1:
            return await self._table.write([entry_item, head_item]) == [_DONE, _DONE]
        return await self._table.write([entry_item]) == [_DONE] and await self._table.write([head_item]) == [_DONE]

    async def _cover(self, key: SessionKey, known: Known, standing: EntryRow, fold: Fold | None) -> None:
        """See that the head's row covers an entry that stands there, before anybody hears of it.

        :param fold: covers that entry.
        :raises Conflict: the session was deleted since.
        """

        def covering(known: Known) -> HeadRow | None:
            living = known.living
            if living is None or known.settled:
                return None
            is_tail = (living.tail, living.tail_id) == (standing.position, standing.id)
            return known.changed(replace(living, fold=fold) if fold and is_tail else living)

        known, _ = await self._change(key, known, covering)
        if not known.lives(standing.position.generation):
            await self._withdraw(key, standing, known)
            raise Conflict(known.head)

    async def _withdraw(self, key: SessionKey, mine: EntryRow, known: Known) -> None:
        """Remove what is left of an append that has no place. In a log that lives, another's entry has that place."""
        if not known.lives(mine.position.generation):
            await self._table.write([rows.delete_entry(key, mine)])
        await self._discard(key, mine.payload)

    # Parts

    async def _spilled(self, key: SessionKey, generation: int, payload: bytes) -> bytes | Parts:
        """The payload if a row holds it; else it is written in parts, which nobody sees until an entry names them."""
        if len(payload) <= rows.CELL_BYTES:
            return payload
        parts = Parts.new(len(payload))
        patience = Patience()
        for number in range(parts.count):
            item = rows.put_part(key, generation, parts, number, payload)
            while await self._table.write([item]) != [_DONE]:
                await patience.wait("a part of a large payload")
        return parts

    async def _discard(self, key: SessionKey, payload: bytes | Parts) -> None:
        if isinstance(payload, Parts):
            await self._delete([rows.primary_key(key, payload.place(number)) for number in range(payload.count)])

    # Beat and rewrite

    async def renew(self, key: SessionKey, at: Position) -> bool:
        async with self.alone(key):

            def beating(known: Known) -> HeadRow | None:
                living = known.living
                return known.changed(replace(living, beat=living.beat + 1)) if living and living.tail == at else None

            known, mine = await self._change(key, await self._reading.look(key), beating)
            return mine and known.living is not None and known.living.tail == at

    async def rewrite(self, key: SessionKey, entry: Entry, at: Position, edits: int, fold: Fold | None) -> Head:
        """The entry first, so that nobody holds its old payload to be of the new number; then the number."""
        async with self.alone(key):
            known = await self._reading.look(key)
            old = await self._rewritable(key, known, entry.id, at, edits)
            payload = await self._spilled(key, at.generation, entry.payload)
            new = replace(old, payload=payload, mark=new_mark(), edits=edits + 1)
            outcome = await self._replaced(key, old, new)
            gone = outcome is Outcome.REFUSED
            if outcome is _DONE:
                known = await self._numbered(key, known, new, fold)
                if known.rewrite == new.mark and known.head is not None and known.lives(at.generation):
                    await self._discard(key, old.payload)
                    return known.head
                back = replace(new, payload=old.payload, mark=new_mark())  # another entry was rewritten first
                gone = await self._replaced(key, new, back) is _DONE
            known = await self._reading.look(key)
            if gone or not known.lives(at.generation):  # else the next rewrite replaced it, and may have to put it back
                await self._discard(key, payload)
            raise Conflict(known.head)

    async def _rewritable(self, key: SessionKey, known: Known, entry_id: str, at: Position, edits: int) -> EntryRow:
        living = known.living
        if living is None or (living.tail.generation, living.edits) != (at.generation, edits):
            raise Conflict(known.head)
        if not 0 < at.seq <= living.tail.seq:
            raise Conflict(known.head)
        old = await self._reading.entry(key, at)
        if old is None or old.id != entry_id:
            raise Conflict(known.head)
        if old.edits > edits:  # whoever rewrote it did not come to the number
            raise Conflict((await self._numbered(key, known, old, None)).head)
        return old

    async def _replaced(self, key: SessionKey, old: EntryRow, new: EntryRow) -> Outcome:
        """Put an entry in place of one that was read.

        :returns: refused, if another stands there and the new one never did; unknown, if it may have.
        """
        patience, lost = Patience(), Outcome.REFUSED
        while True:
            [outcome] = await self._table.write([rows.put_entry(key, new, unchanged(old.mark))])
            standing = None if outcome is _DONE else await self._reading.entry(key, new.position)
            if outcome is _DONE or (standing and standing.mark == new.mark):
                return _DONE
            lost = outcome if outcome is Outcome.UNKNOWN else lost
            if standing is None or standing.mark != old.mark:
                return lost
            await patience.wait("a rewrite of unknown outcome")

    async def _numbered(self, key: SessionKey, known: Known, entry: EntryRow, fold: Fold | None) -> Known:
        """Move the head's number to that of an entry that was rewritten."""

        def numbering(known: Known) -> HeadRow | None:
            living = known.living
            if living is None or not known.lives(entry.position.generation) or living.edits != entry.edits - 1:
                return None
            return known.changed(replace(living, edits=entry.edits, fold=fold), rewrite=entry.mark)

        return (await self._change(key, known, numbering)).known

    # Delete

    async def delete(self, key: SessionKey) -> bool:
        """The tombstone first: what an interrupted delete leaves is not seen, and the next one removes it.

        Of a life that did not begin, parts of its first payload may be there. It shall not begin, since they are to go.
        """
        async with self.alone(key):
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

        return await self._change(key, known, burying)

    async def _bury_damaged(self, key: SessionKey) -> Known:
        """What can not be read can be deleted."""
        row = Known(None, None, b"", settled=True).tombstone(key, await self._reading.newest_generation(key))
        patience = Patience()
        while await self._table.write([rows.put_head(row, ALWAYS)]) != [_DONE]:
            await patience.wait("a delete of unknown outcome")
        return settled(row)

    async def _sweep(self, key: SessionKey, generation: int) -> bool:
        """Remove all that a generation and those before it have left; whether there are parts for a later one."""
        later = False
        start: PrimaryKey | None = rows.primary_key(key, rows.LOWEST)
        end = rows.primary_key(key, rows.place_of(Position(generation + 1, 0)))
        while start is not None:
            found = await self._table.page(start, end, limit=PAGE, columns=["v", "g"])
            old = [row.primary_key for row in found.rows if rows.generation(row) <= generation]
            await self._delete(old)
            later = later or len(old) < len(found.rows)
            start = found.next_key
        return later

    async def _delete(self, keys: list[PrimaryKey]) -> None:
        patience = Patience()
        while keys:
            batch = keys[:ROWS_PER_WRITE]
            outcomes = await self._table.write(rows.delete_rows(batch))
            left = [key for key, outcome in zip(batch, outcomes, strict=True) if outcome is not _DONE]
            if len(left) == len(batch):
                await patience.wait("a delete of unknown outcome")
            keys = left + keys[ROWS_PER_WRITE:]

    # The head

    async def _change(self, key: SessionKey, known: Known, change: Callable[[Known], HeadRow | None]) -> Changed:
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
            if outcome is _DONE:
                self._memory.keep(key, settled(row))
                return Changed(settled(row), mine=True)
            tried.add(row.mark)
            unsure = unsure or outcome is Outcome.UNKNOWN
            await patience.wait("a change of unknown outcome")
            known = await self._reading.look(key)
        return Changed(known, mine=True)
