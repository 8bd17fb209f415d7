"""Reads of sessions and listings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

from tablestore import INF_MAX, INF_MIN

from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.keys import HEAD_NUMBER
from session_history.providers.tablestore.rows import REMEMBERED_IDS, Chunks, EntryRow, HeadRow
from session_history.providers.tablestore.state import UNSEEN, SessionState, TornReadError, derive
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Corrupt, Entry, Head, ListingCursor, Log, Page, Position, SessionKey, select_seqs

T = TypeVar("T")

PAGE = 1000
"""The entries of a read that names no number, and the most heads in a page of a listing."""

NEAR_TAIL = 16
"""Entries. A read of entries that are this close to the tail takes one request, together with the head."""

TORN_READS = 5
"""After this many reads in a row that a change interrupted, a session counts as damaged."""


class Scan(NamedTuple):
    """The row of a head and the newest entries, the newest first."""

    head: HeadRow | None
    entries: list[EntryRow]


class Reader:
    """Reads from a table, and stores the state of each session that it reads in the cache."""

    def __init__(self, table: Table, cache: StateCache) -> None:
        self._table = table
        self._cache = cache

    async def read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        return await _retry_torn(key, lambda: self._read(key, last, before, after, entry_id))

    async def state(self, key: SessionKey) -> SessionState:
        state, _ = await _retry_torn(key, lambda: self._newest(key, 1, col.WITHOUT_PAYLOAD))
        return state

    async def find_entry(self, key: SessionKey, state: SessionState, entry_id: str, after: Position) -> EntryRow | None:
        """Find an entry by its id, without payload: among the remembered ids, and anywhere after a position."""
        if not state.is_live(after.generation):
            return None
        for seq in state.seqs_of(entry_id):
            row = await self.entry(key, Position(after.generation, seq))
            if row and row.id == entry_id:
                return row
        not_remembered = range(after.seq + 1, state.oldest_remembered)
        if not not_remembered:
            return None
        entries = await self._range(key, after.generation, not_remembered, col.WITHOUT_PAYLOAD)
        return next((row for row in entries if row.id == entry_id), None)

    async def entry(self, key: SessionKey, position: Position) -> EntryRow | None:
        row = await self._table.get(keys.primary_key(key, keys.number_of(position)))
        return rows.read_entry(row) if row else None

    async def listing(self, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        recency, session_id = (-after.active_us, after.session_id) if after else (INF_MIN, INF_MIN)
        found = await self._table.rows(
            keys.index_key(user_id, recency, session_id, INF_MAX if after else INF_MIN),
            keys.index_key(user_id, INF_MAX, INF_MAX, INF_MAX),
            limit=limit,
            columns=col.INDEXED,
            of_index=True,
        )
        heads = tuple(map(rows.read_listed, found.rows))
        return Page(heads, ListingCursor.behind(heads[-1]).encode() if heads and found.next_key else None)

    async def previous_session(self, user_id: str, session_id: str | None) -> SessionKey | None:
        """Return the session before this one in the order of session ids, deleted or not; for ``None``, the last."""
        found = await self._table.rows(
            keys.before_session(user_id, INF_MAX if session_id is None else session_id),
            keys.before_session(user_id, INF_MIN),
            limit=1,
            backward=True,
            columns=[col.LAYOUT_VERSION],
        )
        return rows.session_of(found.rows[0]) if found.rows else None

    async def newest_generation(self, key: SessionKey) -> int:
        """Return the newest generation of a session whose head may be unreadable."""
        found = await self._table.rows(
            keys.primary_key(key, HEAD_NUMBER),
            keys.primary_key(key, 0),
            limit=2,
            backward=True,
            columns=[col.LAYOUT_VERSION, col.GENERATION],
        )
        return max(map(rows.generation, found.rows), default=0)

    async def _read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        if before is not None:
            state, entries = await self._newest(key, self._count_from_tail(key, before, last))
        elif after is not None:
            state, entries = await self._newest_after(key, after, PAGE if last is None else last)
        else:
            state, entries = await self._newest(key, PAGE if last is None else last)
        head = state.head
        if head is None:
            return None
        seqs = select_seqs(head.tail.seq, PAGE, last=last, before=before, after=after)
        selected = await self._entries(key, head, seqs, entries)
        log = tuple([await self._with_payload(key, row) for row in selected])
        first = seqs.start if seqs else head.tail.seq + 1
        return Log(head, first, log, await self._match(key, state, entry_id, [*selected, *entries]))

    async def _newest(
        self, key: SessionKey, count: int, columns: list[str] | None = None
    ) -> tuple[SessionState, list[EntryRow]]:
        """Return the state and at least one of the newest entries. This takes one request if the head is current."""
        scan = await self._scan(key, max(count, 1), columns=columns)
        return await self._derive(key, scan), scan.entries

    def _count_from_tail(self, key: SessionKey, before: int, last: int | None) -> int:
        """Return how many of the newest entries a read needs that ends close to the tail; 1 for any other read."""
        head = (self._cache.get(key) or UNSEEN).live_head
        count = head.tail.seq + 1 - before + last if head and last is not None else 1
        return count if 0 < count <= NEAR_TAIL else 1

    async def _newest_after(self, key: SessionKey, after: int, count: int) -> tuple[SessionState, list[EntryRow]]:
        """Do the same as :meth:`_newest`, but read no entry again if the caller knows the log up to its tail."""
        cached = self._cache.get(key) or UNSEEN
        head = cached.live_head
        if head is None or head.tail.seq != after:
            return await self._newest(key, 1)
        scan = await self._scan(key, max(count, 1), floor=keys.number_of(head.tail))
        if scan.head is not None and scan.entries:
            return await self._derive(key, scan), scan.entries
        if scan.head is None or scan.head.origin != cached.origin:
            return await self._newest(key, 1)
        state = SessionState.of(scan.head)
        self._cache.put(key, state)
        return state, []

    async def _derive(self, key: SessionKey, scan: Scan) -> SessionState:
        state = derive(key, scan.head, scan.entries)
        if not state.head_is_current:
            full = await self._scan(key, REMEMBERED_IDS, columns=col.WITHOUT_PAYLOAD)
            first, state = state, derive(key, full.head, full.entries)
            if _rewrites(state) != _rewrites(first):
                raise TornReadError  # the head is newer than the entries of the first scan
        self._cache.put(key, state)
        return state

    async def _scan(self, key: SessionKey, count: int, *, floor: int = 0, columns: list[str] | None = None) -> Scan:
        """Read the head and the newest entries whose row numbers are above ``floor``."""
        found = await self._table.rows(
            keys.primary_key(key, HEAD_NUMBER),
            keys.primary_key(key, floor),
            limit=count + 1,
            backward=True,
            columns=columns,
        )
        newest = found.rows
        head = rows.read_head(newest.pop(0)) if newest and rows.row_number(newest[0]) == HEAD_NUMBER else None
        return Scan(head, [rows.read_entry(row) for row in newest[:count]])

    async def _entries(
        self, key: SessionKey, head: Head, seqs: range, already_read: Iterable[EntryRow]
    ) -> list[EntryRow]:
        generation = head.tail.generation
        by_seq = {row.position.seq: row for row in already_read if row.position.generation == generation}
        missing = [seq for seq in seqs if seq not in by_seq]
        if missing:
            found = await self._range(key, generation, range(missing[0], missing[-1] + 1))
            by_seq |= {row.position.seq: row for row in found}
        if any(seq not in by_seq for seq in seqs):
            raise TornReadError
        return [by_seq[seq] for seq in seqs]

    async def _range(
        self, key: SessionKey, generation: int, seqs: range, columns: list[str] | None = None
    ) -> list[EntryRow]:
        found = await self._table.rows(
            keys.primary_key(key, keys.number_of(Position(generation, seqs.start))),
            keys.primary_key(key, keys.number_of(Position(generation, seqs.stop))),
            limit=len(seqs),
            columns=columns,
        )
        return [rows.read_entry(row) for row in found.rows]

    async def _match(
        self, key: SessionKey, state: SessionState, entry_id: str | None, already_read: Iterable[EntryRow]
    ) -> tuple[int, Entry] | None:
        if entry_id is None or state.live_head is None:
            return None
        tail = state.live_head.tail
        matches = (row for row in already_read if row.id == entry_id and row.position.generation == tail.generation)
        row = next(matches, None) or await self.find_entry(key, state, entry_id, tail)
        return (row.position.seq, await self._with_payload(key, row)) if row else None

    async def _with_payload(self, key: SessionKey, row: EntryRow) -> Entry:
        payload = row.payload
        return Entry(row.id, await self._joined(key, payload) if isinstance(payload, Chunks) else payload)

    async def _joined(self, key: SessionKey, chunks: Chunks) -> bytes:
        found = await self._table.rows(
            keys.primary_key(key, chunks.number(0)),
            keys.primary_key(key, chunks.number(chunks.count)),
            limit=chunks.count,
            backward=True,
        )
        payload = b"".join(map(rows.read_chunk, found.rows))
        if len(payload) != chunks.size:
            raise TornReadError
        return payload


def _rewrites(state: SessionState) -> int:
    return state.head.rewrites if state.head else 0


async def _retry_torn(key: SessionKey, read: Callable[[], Awaitable[T]]) -> T:
    """Repeat a read until no change interrupts it."""
    backoff = Backoff()
    for _ in range(TORN_READS):
        try:
            return await read()
        except TornReadError:
            await backoff.wait("the session changes while it is read")
    raise Corrupt(f"{key} lacks a part of its entries")
