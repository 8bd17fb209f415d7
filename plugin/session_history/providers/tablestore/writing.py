"""What is written of a session. Each write is conditional, and each that was not acknowledged is looked for."""

from __future__ import annotations

from dataclasses import replace

from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Heads
from session_history.providers.tablestore.known import Known, settled
from session_history.providers.tablestore.memory import Memory
from session_history.providers.tablestore.reading import Reading
from session_history.providers.tablestore.rows import ABSENT, EntryRow, HeadRow, Parts, new_mark, unchanged
from session_history.providers.tablestore.table import Patience, Table
from session_history_hooks import Appended, Conflict, Entry, Head, LimitExceeded, Position, SessionKey, Snapshot

_DONE = Outcome.DONE


class Writing:
    """Writes to a table."""

    def __init__(self, table: Table, reading: Reading, heads: Heads, memory: Memory) -> None:
        self._table = table
        self._reading = reading
        self._heads = heads
        self._memory = memory

    # Append

    async def append(self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
        async with self._heads.alone(key):
            known = self._memory.get(key)
            if known is None or known.place != at or known.seqs(entry.id):
                known = await self._reading.look(key)
                standing = await self._reading.standing(key, known, entry.id, at)
                if standing:
                    await self._cover(key, known, standing, None)
                    return Appended(standing.position, replayed=True)
            if known.place != at:
                raise Conflict(known.head)
            if at.generation > keys.MAX_GENERATION:
                raise LimitExceeded("generations", at.generation, keys.MAX_GENERATION)
            return await self._append(key, entry, at, snapshot, known)

    async def _append(
        self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None, known: Known
    ) -> Appended:
        position = Position(at.generation, at.seq + 1)
        payload = await self._spilled(key, position.generation, entry.payload)
        mine = EntryRow(position, entry.id, payload, known.next_active_us(), new_mark(), new_mark())
        patience = Patience()
        while True:
            head = known.behind(key, mine, snapshot)
            if await self._placed(key, mine, head, known.mark):
                self._memory.keep(key, settled(head))
                return Appended(position, replayed=False)
            known = await self._reading.look(key)
            standing = await self._reading.standing(key, known, entry.id, at)
            if standing:
                won = standing.origin == mine.origin
                if not won:
                    await self._discard(key, payload)
                await self._cover(key, known, standing, snapshot if won and not standing.rewrites else None)
                return Appended(standing.position, replayed=not won)
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

    async def _cover(self, key: SessionKey, known: Known, standing: EntryRow, snapshot: Snapshot | None) -> None:
        """See that the head's row covers an entry that stands there, before anybody hears of it.

        :param snapshot: covers that entry, as it stood at that number of rewrites.
        :raises Conflict: the session was deleted since.
        """
        rewrites = known.living.rewrites if known.living else 0

        def covering(known: Known) -> HeadRow | None:
            living = known.living
            if living is None:
                return None
            if snapshot and known.origin == standing.origin and living.rewrites == rewrites:
                living = replace(living, snapshot=snapshot)
            return None if known.settled and living == known.living else known.changed(living)

        known, _ = await self._heads.change(key, known, covering)
        if not known.lives(standing.position.generation):
            await self._withdraw(key, standing, known)
            raise Conflict(known.head)

    async def _withdraw(self, key: SessionKey, mine: EntryRow, known: Known) -> None:
        """Remove what is left of an append that has no place. In a log that lives, another's entry has that place."""
        patience = Patience()
        while not known.lives(mine.position.generation):
            if await self._table.write([rows.delete_entry(key, mine)]) != [Outcome.UNKNOWN]:
                break  # it is gone, or was never there
            await patience.wait("an entry that is to be withdrawn")
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

    async def _discard(self, key: SessionKey, payload: bytes | Parts | None) -> None:
        if isinstance(payload, Parts):
            await self._table.delete([keys.primary_key(key, payload.place(number)) for number in range(payload.count)])

    # Beat and rewrite

    async def renew(self, key: SessionKey, at: Position) -> bool:
        async with self._heads.alone(key):

            def beating(known: Known) -> HeadRow | None:
                living = known.living
                return (
                    known.changed(replace(living, heartbeat=living.heartbeat + 1))
                    if living and living.tail == at
                    else None
                )

            known, mine = await self._heads.change(key, await self._reading.look(key), beating)
            return mine and known.living is not None and known.living.tail == at

    async def rewrite(
        self, key: SessionKey, entry: Entry, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        """The entry first, so that nobody holds its old payload to be of the new number; then the number."""
        async with self._heads.alone(key):
            known = await self._reading.look(key)
            old = await self._rewritable(key, known, entry.id, at, rewrites)
            payload = await self._spilled(key, at.generation, entry.payload)
            replaced = old.payload if isinstance(old.payload, Parts) else old.replaced
            new = replace(old, payload=payload, mark=new_mark(), rewrites=rewrites + 1, replaced=replaced)
            outcome = await self._replaced(key, old, new)
            gone = outcome is Outcome.REFUSED
            if outcome is _DONE:
                known = await self._numbered(key, known, new, snapshot)
                if known.rewrite == new.mark and known.head is not None and known.lives(at.generation):
                    await self._discard(key, old.payload)
                    await self._discard(key, old.replaced)
                    return known.head
                # another entry was rewritten first
                back = replace(new, payload=old.payload, replaced=old.replaced, mark=new_mark())
                gone = await self._replaced(key, new, back) is _DONE
            known = await self._reading.look(key)
            if gone or not known.lives(at.generation):  # else the next rewrite replaced it, and may have to put it back
                await self._discard(key, payload)
            raise Conflict(known.head)

    async def _rewritable(self, key: SessionKey, known: Known, entry_id: str, at: Position, rewrites: int) -> EntryRow:
        living = known.living
        if living is None or (living.tail.generation, living.rewrites) != (at.generation, rewrites):
            raise Conflict(known.head)
        if not 0 < at.seq <= living.tail.seq:
            raise Conflict(known.head)
        old = await self._reading.entry(key, at)
        if old is None or old.id != entry_id:
            raise Conflict(known.head)
        if old.rewrites > rewrites:  # whoever rewrote it did not come to the number
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

    async def _numbered(self, key: SessionKey, known: Known, entry: EntryRow, snapshot: Snapshot | None) -> Known:
        """Move the head's number to that of an entry that was rewritten."""

        def numbering(known: Known) -> HeadRow | None:
            living = known.living
            if living is None or not known.lives(entry.position.generation) or living.rewrites != entry.rewrites - 1:
                return None
            return known.changed(replace(living, rewrites=entry.rewrites, snapshot=snapshot), rewrite=entry.mark)

        return (await self._heads.change(key, known, numbering)).known
