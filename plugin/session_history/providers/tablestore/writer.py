"""Writes to sessions. Each write is conditional, and a write without an answer is looked up before it is repeated."""

from __future__ import annotations

from dataclasses import replace

from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Heads
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.rows import ABSENT, Chunks, EntryRow, HeadRow, random_id, unchanged
from session_history.providers.tablestore.state import SessionState
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Appended, Conflict, Entry, Head, LimitExceeded, Position, SessionKey, Snapshot

_DONE = Outcome.DONE


class Writer:
    """Writes to a table."""

    def __init__(self, table: Table, reader: Reader, heads: Heads, cache: StateCache) -> None:
        self._table = table
        self._reader = reader
        self._heads = heads
        self._cache = cache

    # Append

    async def append(self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None) -> Appended:
        async with self._heads.lock(key):
            state = self._cache.get(key)
            if state is None or state.append_at != at or state.seqs_of(entry.id):
                state = await self._reader.state(key)
                stored = await self._reader.find_entry(key, state, entry.id, at)
                if stored:
                    await self._correct_head(key, state, stored, None)
                    return Appended(stored.position, replayed=True)
            if state.append_at != at:
                raise Conflict(state.head)
            if at.generation > keys.MAX_GENERATION:
                raise LimitExceeded("generations", at.generation, keys.MAX_GENERATION)
            return await self._append(key, entry, at, snapshot, state)

    async def _append(
        self, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None, state: SessionState
    ) -> Appended:
        position = Position(at.generation, at.seq + 1)
        payload = await self._store_chunks(key, position.generation, entry.payload)
        own = EntryRow(position, entry.id, payload, state.next_active_us(), random_id(), random_id())
        backoff = Backoff()
        while True:
            head = state.head_after(key, own, snapshot)
            if await self._write_entry(key, own, head, state.etag):
                self._cache.put(key, SessionState.of(head))
                return Appended(position, replayed=False)
            state = await self._reader.state(key)
            stored = await self._reader.find_entry(key, state, entry.id, at)
            if stored:
                won = stored.origin == own.origin
                if not won:
                    await self._delete_chunks(key, payload)
                await self._correct_head(key, state, stored, snapshot if won and not stored.rewrites else None)
                return Appended(stored.position, replayed=not won)
            if state.append_at != at:
                await self._remove_entry(key, own, state)
                raise Conflict(state.head)
            await backoff.wait("the outcome of an append is unknown")

    async def _write_entry(self, key: SessionKey, entry: EntryRow, head: HeadRow, head_etag: int | None) -> bool:
        """Write an entry and the head, in one request. Return true if both are stored."""
        entry_item = rows.put_entry(key, entry, ABSENT)
        head_item = rows.put_head(head, unchanged(head_etag))
        if entry.position.seq > 1:
            return await self._table.write([entry_item, head_item]) == [_DONE, _DONE]
        # The head of a new generation must never be stored without an entry, so it takes a request of its own.
        return await self._table.write([entry_item]) == [_DONE] and await self._table.write([head_item]) == [_DONE]

    async def _correct_head(
        self, key: SessionKey, state: SessionState, entry: EntryRow, snapshot: Snapshot | None
    ) -> None:
        """Make the head current before a caller learns that this entry is stored.

        :param snapshot: covers this entry. It is stored only if the session was not rewritten since.
        :raises Conflict: the session was deleted meanwhile.
        """
        rewrites = state.live_head.rewrites if state.live_head else 0

        def corrected(state: SessionState) -> HeadRow | None:
            head = state.live_head
            if head is None:
                return None
            if snapshot and state.origin == entry.origin and head.rewrites == rewrites:
                head = replace(head, snapshot=snapshot)
            return None if state.head_is_current and head == state.live_head else state.with_head(head)

        state, _ = await self._heads.update(key, state, corrected)
        if not state.is_live(entry.position.generation):
            await self._remove_entry(key, entry, state)
            raise Conflict(state.head)

    async def _remove_entry(self, key: SessionKey, entry: EntryRow, state: SessionState) -> None:
        """Remove an entry and its chunks after its append failed.

        In a live generation only the chunks are left: the row at this position is the entry of another append.
        """
        backoff = Backoff()
        while not state.is_live(entry.position.generation):
            if await self._table.write([rows.delete_entry(key, entry)]) != [Outcome.UNKNOWN]:
                break  # the row was removed, or it was never stored
            await backoff.wait("the removal of a failed append has an unknown outcome")
        await self._delete_chunks(key, entry.payload)

    # Chunks

    async def _store_chunks(self, key: SessionKey, generation: int, payload: bytes) -> bytes | Chunks:
        """Store a payload that is too large for a row in chunks. Readers ignore them until an entry names them."""
        if len(payload) <= rows.CELL_BYTES:
            return payload
        chunks = Chunks.new(len(payload))
        backoff = Backoff()
        for index in range(chunks.count):
            item = rows.put_chunk(key, generation, chunks, index, payload)
            while await self._table.write([item]) != [_DONE]:
                await backoff.wait("the outcome of a write of a large payload is unknown")
        return chunks

    async def _delete_chunks(self, key: SessionKey, payload: bytes | Chunks | None) -> None:
        if isinstance(payload, Chunks):
            await self._table.delete([keys.primary_key(key, payload.number(index)) for index in range(payload.count)])

    # Heartbeat and rewrite

    async def renew(self, key: SessionKey, at: Position) -> bool:
        def renewed(state: SessionState) -> HeadRow | None:
            head = state.live_head
            if head is None or head.tail != at:
                return None
            return state.with_head(replace(head, heartbeat=head.heartbeat + 1))

        async with self._heads.lock(key):
            state, applied = await self._heads.update(key, await self._reader.state(key), renewed)
            return applied and state.live_head is not None and state.live_head.tail == at

    async def rewrite(
        self, key: SessionKey, entry: Entry, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        """Replace the entry, then count the rewrite. In this order no reader sees the new count with the old payload.

        If another rewrite was counted first, this one puts the old entry back.
        """
        async with self._heads.lock(key):
            state = await self._reader.state(key)
            old = await self._entry_to_rewrite(key, state, entry.id, at, rewrites)
            payload = await self._store_chunks(key, at.generation, entry.payload)
            replaced = old.payload if isinstance(old.payload, Chunks) else old.replaced
            new = replace(old, payload=payload, etag=random_id(), rewrites=rewrites + 1, replaced=replaced)
            outcome = await self._replace_entry(key, old, new)
            new_is_gone = outcome is Outcome.REFUSED
            if outcome is _DONE:
                state = await self._count_rewrite(key, state, new, snapshot)
                if state.rewritten_etag == new.etag and state.head is not None and state.is_live(at.generation):
                    await self._delete_chunks(key, old.payload)
                    await self._delete_chunks(key, old.replaced)
                    return state.head
                restored = replace(new, payload=old.payload, replaced=old.replaced, etag=random_id())
                new_is_gone = await self._replace_entry(key, new, restored) is _DONE
            state = await self._reader.state(key)
            # A later rewrite that replaced the new entry may have to put it back, so its chunks must stay.
            if new_is_gone or not state.is_live(at.generation):
                await self._delete_chunks(key, payload)
            raise Conflict(state.head)

    async def _entry_to_rewrite(
        self, key: SessionKey, state: SessionState, entry_id: str, at: Position, rewrites: int
    ) -> EntryRow:
        head = state.live_head
        if head is None or (head.tail.generation, head.rewrites) != (at.generation, rewrites):
            raise Conflict(state.head)
        if not 0 < at.seq <= head.tail.seq:
            raise Conflict(state.head)
        old = await self._reader.entry(key, at)
        if old is None or old.id != entry_id:
            raise Conflict(state.head)
        if old.rewrites > rewrites:  # an interrupted rewrite replaced the entry and was not counted
            raise Conflict((await self._count_rewrite(key, state, old, None)).head)
        return old

    async def _replace_entry(self, key: SessionKey, old: EntryRow, new: EntryRow) -> Outcome:
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

    async def _count_rewrite(
        self, key: SessionKey, state: SessionState, entry: EntryRow, snapshot: Snapshot | None
    ) -> SessionState:
        """Set the head's number of rewrites to the number of this rewritten entry."""

        def counted(state: SessionState) -> HeadRow | None:
            head = state.live_head
            if head is None or not state.is_live(entry.position.generation) or head.rewrites != entry.rewrites - 1:
                return None
            return state.with_head(replace(head, rewrites=entry.rewrites, snapshot=snapshot), rewritten_etag=entry.etag)

        return (await self._heads.update(key, state, counted)).state
