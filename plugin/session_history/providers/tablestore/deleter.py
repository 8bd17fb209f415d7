"""Deletes of sessions: first a tombstone replaces the head, then the other rows are removed."""

from __future__ import annotations

from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore import decoding, keys, rows
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Heads, HeadUpdate
from session_history.providers.tablestore.keys import PrimaryKey
from session_history.providers.tablestore.reader import PAGE, Reader
from session_history.providers.tablestore.rows import ALWAYS, HeadRow
from session_history.providers.tablestore.staging import Staging
from session_history.providers.tablestore.state import UNSEEN, SessionState
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Corrupt, IncompatibleStore, InvalidKey, Position, SessionKey


class Deleter:
    """Deletes sessions of a table."""

    def __init__(self, table: Table, reader: Reader, heads: Heads, staging: Staging) -> None:
        self._table = table
        self._reader = reader
        self._heads = heads
        self._staging = staging

    async def delete(self, key: SessionKey) -> bool:
        """Write a tombstone, then remove the other rows.

        The tombstone hides the rows that an interrupted delete leaves. The next delete removes these rows.

        A session that has not begun may already have chunks of its first payload. A tombstone of its generation then
        prevents that it begins without them.
        """
        async with self._heads.lock(key):
            try:
                state = await self._reader.state(key)
            except Corrupt:
                state, applied = await self._replace_corrupt_head(key), True
            else:
                unchanged, staged = HeadUpdate(state, applied=False), state.staged
                state, applied = await self._write_tombstone(key, state) if state.live_head else unchanged
                if staged:
                    state = await self._discard_staged(key)
            newer_chunks = await self._remove_rows(key, state.append_at.generation - 1)
            if newer_chunks and state.live_head is None:
                state, _ = await self._write_tombstone(key, state)
                await self._remove_rows(key, state.append_at.generation - 1)
            return applied

    async def delete_user(self, user_id: str) -> int:
        """Delete all sessions but those that a newer version wrote. :raises IncompatibleStore: there is such a one."""
        count, before = 0, None
        newer: IncompatibleStore | None = None
        while (session_id := await self._reader.previous_session(user_id, before)) is not None:
            try:
                count += await self.delete(SessionKey(user_id, session_id))
            except IncompatibleStore as error:
                newer = error
            except InvalidKey:  # Such an id leads to no session.
                pass
            before = session_id
        if newer:
            raise newer
        return count

    async def _write_tombstone(self, key: SessionKey, state: SessionState) -> HeadUpdate:
        """Replace the head of a live generation. If none lives, refuse the next one, unless it began meanwhile."""
        was_live, generation = state.live_head is not None, state.append_at.generation

        def tombstone(state: SessionState) -> HeadRow | None:
            same = (state.live_head is not None, state.append_at.generation) == (was_live, generation)
            return state.tombstone(key, generation) if same else None

        return await self._heads.update(key, state, tombstone)

    async def _discard_staged(self, key: SessionKey) -> SessionState:
        """Remove what a restore left, also of a session that was never seen, or of a life after this one."""
        backoff = Backoff()
        while (state := await self._reader.state(key)).staged:
            await self._staging.discard(key, state)
            await backoff.wait("a restore of the session is running")
        return state

    async def _replace_corrupt_head(self, key: SessionKey) -> SessionState:
        """Write a tombstone without a condition, so that an unreadable session can be deleted."""
        row = UNSEEN.tombstone(key, await self._reader.newest_generation(key))
        backoff = Backoff()
        while await self._table.write([rows.put_head(row, ALWAYS)]) != [Outcome.DONE]:
            await backoff.wait("the outcome of a delete is unknown")
        return SessionState.of(row)

    async def _remove_rows(self, key: SessionKey, generation: int) -> bool:
        """Remove the entries and chunks up to a generation. Return true if chunks of a later generation are left."""
        later = False
        start: PrimaryKey | None = keys.primary_key(key, keys.LOWEST)
        end = keys.primary_key(key, keys.number_of(Position(generation + 1, 0)))
        while start is not None:
            page = await self._table.page(start, end, limit=PAGE, columns=[col.LAYOUT_VERSION, col.GENERATION])
            old = [
                rows.delete(row.primary_key) for row in page.rows if (decoding.generation_of(row) or 0) <= generation
            ]
            await self._table.delete(old)
            later = later or len(old) < len(page.rows)
            start = page.next_key
        return later
