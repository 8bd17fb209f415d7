"""Entries that are stored before the head names them: those of a restore, and those of an append that fails."""

from __future__ import annotations

from collections.abc import Sequence

from session_history.providers.tablestore import rows
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.rows import ABSENT, EntryRow
from session_history.providers.tablestore.state import SessionState
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import SessionKey


class Staging:
    """Writes and removes entries without a head."""

    def __init__(self, table: Table, reader: Reader, chunks: ChunkStore) -> None:
        self._table = table
        self._reader = reader
        self._chunks = chunks

    async def stage(self, key: SessionKey, entries: Sequence[EntryRow]) -> bool:
        """Store restored entries, neighbours, in few requests. Return false if another entry stands at a position."""
        missing, backoff = list(entries), Backoff()
        while missing and not await self._put_all(key, missing):
            first, last = entries[0].position, entries[-1].position
            found = await self._reader.entries(key, first.generation, range(first.seq, last.seq + 1))
            etags = {row.position: row.etag for row in found}
            if any(etags.get(row.position, row.etag) != row.etag for row in entries):
                return False
            missing = [row for row in entries if row.position not in etags]
            await backoff.wait("the outcome of a write of restored entries is unknown")
        return True

    async def _put_all(self, key: SessionKey, entries: Sequence[EntryRow]) -> bool:
        outcomes: set[Outcome] = set()
        for batch in rows.batches(rows.put_entry(key, row, ABSENT) for row in entries):
            outcomes.update(await self._table.write(batch))
        return outcomes == {Outcome.DONE}

    async def delete(self, key: SessionKey, entries: Sequence[EntryRow]) -> None:
        """Delete those of these entries that nothing changed. Their chunks stay."""
        await self._table.delete([rows.delete_entry(key, row) for row in entries])

    async def remove(self, key: SessionKey, entries: Sequence[EntryRow]) -> None:
        """Delete those of these entries that nothing changed, and the chunks of all of them."""
        await self.delete(key, entries)
        await self._chunks.delete(key, *(row.chunks for row in entries))

    async def discard(self, key: SessionKey, state: SessionState) -> SessionState:
        """Remove staged entries, which may be left from a restore that was interrupted. Return the new state.

        A restore may be about to end, and its head would then name entries that are gone. It expects the head that it
        saw before it staged them, so the head is written first, and only as it was before this process saw the entries.
        """
        fence = rows.put_head(state.with_other_etag(key), rows.unchanged(state.etag))
        if await self._table.write([fence]) == [Outcome.DONE]:
            await self.remove(key, state.staged)
        return await self._reader.state(key)
