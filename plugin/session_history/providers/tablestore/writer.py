"""Appends and heartbeats. Each write is conditional, and one without an answer is looked up before it is repeated."""

from __future__ import annotations

from dataclasses import replace

from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Heads
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.rows import ABSENT, EntryRow, HeadRow, random_id, unchanged
from session_history.providers.tablestore.staging import Staging
from session_history.providers.tablestore.state import SessionState
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Appended, Conflict, Corrupt, Entry, LimitExceeded, Position, SessionKey, Snapshot

_DONE = Outcome.DONE


class Writer:
    """Writes to a table."""

    def __init__(
        self, table: Table, reader: Reader, heads: Heads, chunks: ChunkStore, staging: Staging, cache: StateCache
    ) -> None:
        self._table = table
        self._reader = reader
        self._heads = heads
        self._chunks = chunks
        self._staging = staging
        self._cache = cache

    # Append

    async def append(
        self, key: SessionKey, entry: Entry, at: Position, tail_origin: str | None, snapshot: Snapshot | None
    ) -> Appended:
        async with self._heads.lock(key):
            return await self._append(key, entry, at, tail_origin if at.seq else None, snapshot)

    async def _append(
        self, key: SessionKey, entry: Entry, at: Position, tail_origin: str | None, snapshot: Snapshot | None
    ) -> Appended:
        names = (entry.id, *entry.keys)
        state = self._cache.get(key)
        if state is None or not state.ends_at(at, tail_origin) or state.seqs_of(names):
            state = await self._reader.state(key)
        own: EntryRow | None = None
        backoff = Backoff()
        while True:
            known = await self._reader.find(key, state, names, at)
            if entry.id in known:
                return await self._stored(key, own, known[entry.id], state, snapshot)
            known_keys = tuple(name for name in entry.keys if name in known)
            if known_keys or not state.ends_at(at, tail_origin):
                await self._remove(key, own, state)
                raise Conflict(state.head, keys=known_keys)
            if own is None:
                own = await self._new_row(key, entry, at, state)
            else:
                await backoff.wait("the outcome of an append is unknown")
            if state.staged:
                state = await self._staging.discard(key, state)
                continue
            row = state.head_after(key, own, snapshot)
            if await self._write_entry(key, own, row, state.etag):
                self._cache.put(key, SessionState.of(row))
                return Appended(own.position, replayed=False)
            state = await self._state_after(key, own, state, row)

    async def _new_row(self, key: SessionKey, entry: Entry, at: Position, state: SessionState) -> EntryRow:
        if at.generation > keys.MAX_GENERATION:
            raise LimitExceeded("generations", at.generation, keys.MAX_GENERATION)
        chunks = await self._chunks.store(key, at.generation, entry.payload)
        return EntryRow(Position(at.generation, at.seq + 1), entry, chunks, random_id(), state.next_us())

    async def _write_entry(self, key: SessionKey, entry: EntryRow, head: HeadRow, head_etag: int | None) -> bool:
        """Write an entry and the head, in one request. Return true if both are stored."""
        entry_item = rows.put_entry(key, entry, ABSENT)
        head_item = rows.put_head(head, unchanged(head_etag))
        if entry.position.seq > 1:
            return await self._table.write([entry_item, head_item]) == [_DONE, _DONE]
        # The head of a new generation must never be stored without an entry, so it takes a request of its own.
        return await self._table.write([entry_item]) == [_DONE] and await self._table.write([head_item]) == [_DONE]

    async def _stored(
        self, key: SessionKey, own: EntryRow | None, stored: EntryRow, state: SessionState, snapshot: Snapshot | None
    ) -> Appended:
        """Answer an append whose id is stored, by this call or by another one.

        Another call may append the same entry at the same time, so the etag tells which of them stored it. A rewrite
        changes the etag. Then the origin has to do, and chunks that nothing names may be left.
        """
        is_own = own is not None and (
            stored.etag == own.etag or (stored.entry.origin == own.entry.origin and stored.rewrite_id != "")
        )
        if own and not is_own:
            await self._chunks.delete(key, own.chunks)
        await self._correct_head(key, state, stored, snapshot if is_own and not stored.rewrite_id else None)
        return Appended(stored.position, replayed=not is_own)

    async def _correct_head(
        self, key: SessionKey, state: SessionState, entry: EntryRow, snapshot: Snapshot | None
    ) -> None:
        """Make the head current before a caller learns that this entry is stored.

        :param snapshot: covers this entry. It is stored only if the session was not rewritten since.
        :raises Conflict: the session was deleted meanwhile.
        """
        rewrite_id = state.live_head.rewrite_id if state.live_head else ""

        def corrected(state: SessionState) -> HeadRow | None:
            row = state.live_row
            if row is None:
                return None
            head = row.head
            if snapshot and state.ends_with(entry) and head.rewrite_id == rewrite_id:
                head = replace(head, snapshot=snapshot)
            return None if state.head_is_current and head == row.head else replace(row, head=head, etag=random_id())

        state, _ = await self._heads.update(key, state, corrected)
        if not state.is_live(entry.position.generation):
            await self._remove(key, entry, state)
            raise Conflict(state.head)

    async def _remove(self, key: SessionKey, entry: EntryRow | None, state: SessionState) -> None:
        """Remove an entry and its chunks after its append failed.

        In a live generation only the chunks are left: the row at this position is the entry of another append.
        """
        if entry and state.is_live(entry.position.generation):
            await self._chunks.delete(key, entry.chunks)
        elif entry:
            await self._staging.remove(key, [entry])

    # Appends to a log that is not the one this process knew

    async def _state_after(self, key: SessionKey, own: EntryRow, known: SessionState, row: HeadRow) -> SessionState:
        """Return the state after a write that did not succeed as a whole.

        An entry is put without a look at the entry ahead of it, because a condition concerns one row only. As long as
        the store keeps what it had, this process knows that entry: positions are never given away twice. But another
        log may stand there since the table was restored from a backup. Its head has another etag, so the head is
        refused, and then the entry ahead is compared.
        """
        try:
            state = await self._reader.state(key)
        except Corrupt:
            if own.position.seq > 1:
                raise
            # The entry may have begun a generation that this log never reached. Readers refuse such a log.
            return await self._take_back(key, own)
        if state.etag == row.etag or not state.ends_with(own) or await self._follows_tail(key, own, known):
            return state
        return await self._take_back(key, own)

    async def _follows_tail(self, key: SessionKey, own: EntryRow, known: SessionState) -> bool:
        position = own.position
        if position.seq == 1:
            return True
        ahead = await self._reader.entry(key, replace(position, seq=position.seq - 1))
        return ahead is not None and known.head is not None and ahead.entry.origin == known.head.tail_origin

    async def _take_back(self, key: SessionKey, own: EntryRow) -> SessionState:
        """Remove an entry that stands behind another one than expected, and return the new state.

        If another writer saw the entry meanwhile and appended behind it, the entry stays: a log has no gaps.
        """
        await self._staging.delete(key, [own])
        state = await self._reader.state(key)
        if not state.is_live(own.position.generation) or state.append_at <= own.position:
            return state
        backoff = Backoff()
        while await self._table.write([rows.put_entry(key, own, ABSENT)]) == [Outcome.UNKNOWN]:
            await backoff.wait("the outcome of an append is unknown")
        return await self._reader.state(key)

    # Heartbeat

    async def renew(self, key: SessionKey, at: Position, tail_origin: str | None) -> bool:
        def renewed(state: SessionState) -> HeadRow | None:
            row = state.live_row
            if row is None or not state.ends_at(at, tail_origin):
                return None
            return replace(row, head=replace(row.head, heartbeat=row.head.heartbeat + 1), etag=random_id())

        async with self._heads.lock(key):
            state, applied = await self._heads.update(key, await self._reader.state(key), renewed)
            return applied and state.live_row is not None and state.ends_at(at, tail_origin)
