"""Rewrites of entries. The row of the entry is replaced first, and then the head names the rewrite.

In this order no reader sees the head of a rewrite with the old payload.
"""

from __future__ import annotations

from dataclasses import replace

from session_history.providers.tablestore import rows
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Heads, HeadUpdate
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.rows import EntryRow, HeadRow, random_id, unchanged
from session_history.providers.tablestore.state import SessionState
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Conflict, Entry, Head, Position, SessionKey, Snapshot

_DONE = Outcome.DONE


class Rewriter:
    """Rewrites entries of a table."""

    def __init__(self, table: Table, reader: Reader, heads: Heads, chunks: ChunkStore) -> None:
        self._table = table
        self._reader = reader
        self._heads = heads
        self._chunks = chunks

    async def rewrite(
        self,
        key: SessionKey,
        entry: Entry,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        """Rewrite an entry. A retry goes on where an interrupted rewrite ended.

        If another rewrite comes first, this one puts the old entry back.
        """
        async with self._heads.lock(key):
            state = await self._reader.state(key)
            if state.live_head and _is_done(state, at.generation, rewrite_id):
                await self._remove_replaced(key, state, at, rewrite_id)
                return state.live_head
            old = await self._entry_to_rewrite(key, state, entry, at, rewrite_id, last_rewrite_id)
            new = old
            if (old.rewrite_id, old.previous_rewrite_id) != (rewrite_id, last_rewrite_id):
                new = await self._replace(key, old, entry.payload, rewrite_id, last_rewrite_id)
            state, applied = await self._name_rewrite(key, state, new, snapshot)
            if state.live_head and _is_done(state, at.generation, rewrite_id, later=True):
                await self._chunks.delete(key, new.replaced, old.replaced)
                return state.live_head
            if new is not old and (not applied or _previous(state) == last_rewrite_id):
                await self._put_back(key, old, new)
            raise Conflict((await self._reader.state(key)).head)

    async def _remove_replaced(self, key: SessionKey, state: SessionState, at: Position, rewrite_id: str) -> None:
        """Remove the chunks that an interrupted try of a rewrite left."""
        if 0 < at.seq <= state.append_at.seq:
            stored = await self._reader.entry(key, at)
            if stored and stored.rewrite_id == rewrite_id:
                await self._chunks.delete(key, stored.replaced)

    async def _entry_to_rewrite(
        self, key: SessionKey, state: SessionState, entry: Entry, at: Position, rewrite_id: str, last_rewrite_id: str
    ) -> EntryRow:
        head = state.live_head
        if head is None or (head.tail.generation, head.rewrite_id) != (at.generation, last_rewrite_id):
            raise Conflict(state.head)
        if not 0 < at.seq <= head.tail.seq:
            raise Conflict(state.head)
        old = await self._reader.entry(key, at)
        if old is None or (old.entry.id, old.entry.origin) != (entry.id, entry.origin):
            raise Conflict(state.head)
        if old.rewrite_id not in ("", rewrite_id) and old.previous_rewrite_id == last_rewrite_id:
            # Another rewrite was interrupted after it replaced the entry, which readers may have seen.
            raise Conflict((await self._name_rewrite(key, state, old, None)).state.head)
        return old

    async def _replace(
        self, key: SessionKey, old: EntryRow, payload: bytes, rewrite_id: str, last_rewrite_id: str
    ) -> EntryRow:
        """Replace the row of an entry, or return the row that another try of this rewrite stored.

        :raises Conflict: another rewrite replaced the row, or the session was deleted.
        """
        chunks = await self._chunks.store(key, old.position.generation, payload)
        new = replace(
            old,
            entry=replace(old.entry, payload=b"" if chunks else payload),
            chunks=chunks,
            etag=random_id(),
            rewrite_id=rewrite_id,
            previous_rewrite_id=last_rewrite_id,
            replaced=old.chunks or old.replaced,
        )
        outcome = await self._replace_row(key, old, new)
        if outcome is _DONE:
            return new
        state = await self._reader.state(key)
        # A later rewrite that replaced the new row may have to put it back, so its chunks must stay.
        if outcome is Outcome.REFUSED or not state.is_live(old.position.generation):
            await self._chunks.delete(key, new.chunks)
        stored = await self._reader.entry(key, old.position)
        if stored and (stored.rewrite_id, stored.previous_rewrite_id) == (rewrite_id, last_rewrite_id):
            return stored
        raise Conflict(state.head)

    async def _replace_row(self, key: SessionKey, old: EntryRow, new: EntryRow) -> Outcome:
        """Replace the row of an entry if nothing changed it since it was read.

        :returns: REFUSED if another row stands there and the new one never did; UNKNOWN if the new one may have.
        """
        backoff, lost = Backoff(), Outcome.REFUSED
        while True:
            [outcome] = await self._table.write([rows.put_entry(key, new, unchanged(old.etag))])
            stored = None if outcome is _DONE else await self._reader.entry(key, new.position)
            if outcome is _DONE or (stored and stored.etag == new.etag):
                return _DONE
            lost = outcome if outcome is Outcome.UNKNOWN else lost
            if stored is None or stored.etag != old.etag:
                return lost
            await backoff.wait("the outcome of a rewrite is unknown")

    async def _name_rewrite(
        self, key: SessionKey, state: SessionState, entry: EntryRow, snapshot: Snapshot | None
    ) -> HeadUpdate:
        """Write the id of the rewrite of this entry into the head, unless the head has another one by now."""
        generation, previous = entry.position.generation, entry.previous_rewrite_id

        def named(state: SessionState) -> HeadRow | None:
            row = state.live_row
            if row is None or not state.is_live(generation) or row.head.rewrite_id != previous:
                return None
            head = replace(row.head, rewrite_id=entry.rewrite_id, snapshot=snapshot)
            return replace(row, head=head, etag=random_id(), previous_rewrite_id=previous)

        return await self._heads.update(key, state, named)

    async def _put_back(self, key: SessionKey, old: EntryRow, new: EntryRow) -> None:
        """Put the old payload back. The row still names the rewrite, so that the author of its append knows the row."""
        restored = replace(new, entry=old.entry, chunks=old.chunks, replaced=old.replaced, etag=random_id())
        is_back = await self._replace_row(key, new, restored) is _DONE
        # A later rewrite that replaced the new row may have to put it back, so its chunks must stay.
        if is_back or not (await self._reader.state(key)).is_live(new.position.generation):
            await self._chunks.delete(key, new.chunks)


def _is_done(state: SessionState, generation: int, rewrite_id: str, *, later: bool = False) -> bool:
    """Return whether the head names this rewrite.

    :param later: another rewrite may have followed it.
    """
    ids = [state.live_head.rewrite_id if state.live_head else "", _previous(state) if later else ""]
    return state.is_live(generation) and rewrite_id in ids


def _previous(state: SessionState) -> str:
    return state.live_row.previous_rewrite_id if state.live_row else ""
