"""Reads of sessions and listings."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from tablestore import INF_MAX, INF_MIN, Row

from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore import decoding, keys
from session_history.providers.tablestore.cache import StateCache
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.digests import REMEMBERED_IDS
from session_history.providers.tablestore.keys import HEAD_NUMBER
from session_history.providers.tablestore.rows import EntryRow, HeadRow
from session_history.providers.tablestore.state import UNSEEN, Scan, SessionState, TornReadError, derive
from session_history.providers.tablestore.table import Backoff, Table
from session_history_hooks import Corrupt, Entry, Head, ListingCursor, Log, Page, Position, SessionKey, select_seqs
from session_history_hooks.stored import listed_page

T = TypeVar("T")

PAGE = 1000
"""The entries of a read that names no number, and the most heads in a page of a listing."""
PAGE_BYTES = 64 * 2**20
"""The bytes of payload of a read that names no number."""
UNLIMITED = sys.maxsize

NEAR_TAIL = 16
"""Entries. A read of entries that are this close to the tail takes one request, together with the head."""

TORN_READS = 5
"""After this many reads in a row that a change interrupted, a session counts as damaged."""


class Reader:
    """Reads from a table, and stores the state of each session that it reads in the cache."""

    def __init__(self, table: Table, chunks: ChunkStore, cache: StateCache) -> None:
        self._table = table
        self._chunks = chunks
        self._cache = cache

    async def read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        return await _retry_torn(key, lambda: self._read(key, last, before, after, entry_id))

    async def state(self, key: SessionKey) -> SessionState:
        state, _ = await _retry_torn(key, lambda: self._newest(key, 1, UNLIMITED, col.WITHOUT_PAYLOAD))
        return state

    async def find(
        self,
        key: SessionKey,
        state: SessionState,
        names: Sequence[str],
        after: Position,
        columns: list[str] | None = col.WITHOUT_PAYLOAD,
    ) -> dict[str, EntryRow]:
        """Find the newest entries with these ids or keys: among the remembered ones, and anywhere after a position."""
        if not state.is_live(after.generation):
            return {}
        seqs = state.seqs_of(names)
        if after.seq + 1 < state.oldest_remembered:
            seqs += [after.seq + 1, state.oldest_remembered - 1]
        if not seqs:
            return {}
        found = await self.entries(key, after.generation, range(min(seqs), max(seqs) + 1), columns)
        return {name: row for row in found for name in row.names if name in names}

    async def entry(self, key: SessionKey, position: Position) -> EntryRow | None:
        row = await self._table.get(keys.primary_key(key, keys.number_of(position)))
        return decoding.read_entry(row) if row else None

    async def entries(
        self,
        key: SessionKey,
        generation: int,
        seqs: range,
        columns: list[str] | None = col.WITHOUT_PAYLOAD,
        max_bytes: int = UNLIMITED,
    ) -> list[EntryRow]:
        """Read the entries with these seqs, in this order, until their payloads exceed ``max_bytes``."""
        found = await self._table.rows(
            keys.primary_key(key, keys.number_of(Position(generation, seqs[0]))),
            keys.primary_key(key, keys.number_of(Position(generation, seqs[-1] + seqs.step))),
            limit=len(seqs),
            backward=seqs.step < 0,
            columns=columns,
            is_enough=_more_than(max_bytes),
        )
        return list(map(decoding.read_entry, found.rows))

    async def listing(self, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        recency, session_id = (-after.active_us, after.session_id) if after else (INF_MIN, INF_MIN)
        wanted = limit
        while True:
            found = await self._table.rows(
                keys.index_key(user_id, recency, session_id, INF_MAX if after else INF_MIN),
                keys.index_key(user_id, INF_MAX, INF_MAX, INF_MAX),
                limit=wanted,
                columns=col.INDEXED,
                of_index=True,
            )
            more = found.next_key is not None
            page = listed_page(list(map(decoding.read_listed, found.rows)), limit, more=more and bool(found.rows))
            if page is not None:
                return page
            wanted *= 2  # so many damaged rows, at which no page can end

    async def previous_session(self, user_id: str, session_id: str | None) -> str | None:
        """Return the session id before this one in their order, deleted or not; for ``None``, the last."""
        found = await self._table.rows(
            keys.bound(user_id, INF_MAX, INF_MAX) if session_id is None else keys.bound(user_id, session_id, INF_MIN),
            keys.bound(user_id, INF_MIN, INF_MIN),
            limit=1,
            backward=True,
            columns=[col.LAYOUT_VERSION],
        )
        return decoding.session_id_of(found.rows[0]) if found.rows else None

    async def newest_generation(self, key: SessionKey) -> int:
        """Return the newest generation of a session whose head may be unreadable."""
        found = await self._table.rows(
            keys.primary_key(key, HEAD_NUMBER),
            keys.primary_key(key, 0),
            limit=2,
            backward=True,
            columns=[col.LAYOUT_VERSION, col.GENERATION],
        )
        known = [generation for row in found.rows if (generation := decoding.generation_of(row)) is not None]
        # A number that no life of the session had: a turn in flight names the lost one and must be refused.
        return max(known, default=min(int(time.time()), keys.MAX_GENERATION - 1))

    async def _read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        count, max_bytes = (PAGE, PAGE_BYTES) if last is None else (last, UNLIMITED)
        if before is not None:
            state, entries = await self._newest(key, self._count_from_tail(key, before, last), max_bytes)
        elif after is not None:
            state, entries = await self._newest_after(key, after, count, max_bytes)
        else:
            state, entries = await self._newest(key, count, max_bytes)
        head = state.head
        if head is None:
            return None
        seqs = select_seqs(head.tail.seq, PAGE, last=last, before=before, after=after)
        oldest_first = last is None and after is not None
        selected = await self._select(key, head, seqs if oldest_first else seqs[::-1], entries, max_bytes)
        if not oldest_first:
            selected.reverse()
        log = tuple([await self._with_payload(key, row) for row in selected])
        first = selected[0].position.seq if selected else head.tail.seq + 1
        return Log(head, first, log, await self._match(key, state, entry_id, [*entries, *selected]))

    async def _newest(
        self, key: SessionKey, count: int, max_bytes: int, columns: list[str] | None = None
    ) -> tuple[SessionState, Sequence[EntryRow]]:
        """Return the state and at least one of the newest entries. This takes one request if the head is current."""
        scan = await self._scan(key, max(count, 1), max_bytes=max_bytes, columns=columns)
        return await self._derive(key, scan), scan.entries

    def _count_from_tail(self, key: SessionKey, before: int, last: int | None) -> int:
        """Return how many of the newest entries a read needs that ends close to the tail; 1 for any other read."""
        head = (self._cache.get(key) or UNSEEN).live_head
        count = head.tail.seq + 1 - before + last if head and last is not None else 1
        return count if 0 < count <= NEAR_TAIL else 1

    async def _newest_after(
        self, key: SessionKey, after: int, count: int, max_bytes: int
    ) -> tuple[SessionState, Sequence[EntryRow]]:
        """Do the same as :meth:`_newest`, but read no entry again if the caller knows the log up to its tail."""
        cached = (self._cache.get(key) or UNSEEN).live_head
        if cached is None or cached.tail.seq != after:
            return await self._newest(key, 1, max_bytes)
        scan = await self._scan(key, max(count, 1), floor=keys.number_of(cached.tail), max_bytes=max_bytes)
        if scan.head is not None and scan.entries:
            return await self._derive(key, scan), scan.entries
        head = scan.head.head if scan.head else None
        if scan.head is None or head is None or (head.tail, head.tail_origin) != (cached.tail, cached.tail_origin):
            return await self._newest(key, 1, max_bytes)
        state = SessionState.of(scan.head, scan.staged)
        self._cache.put(key, state, scan.read_at)
        return state, []

    async def _derive(self, key: SessionKey, scan: Scan) -> SessionState:
        state = derive(key, scan)
        if not state.head_is_current:
            scan = await self._scan(key, REMEMBERED_IDS, columns=col.WITHOUT_PAYLOAD)
            first, state = state, derive(key, scan)
            if _rewrite_id(state) != _rewrite_id(first):
                raise TornReadError  # the head is newer than the entries of the first scan
        self._cache.put(key, state, scan.read_at)
        return state

    async def _scan(
        self,
        key: SessionKey,
        count: int,
        *,
        floor: int = 0,
        max_bytes: int = UNLIMITED,
        columns: list[str] | None = None,
    ) -> Scan:
        """Read the head and the newest entries whose row numbers are above ``floor``."""
        scan = await self._scan_rows(key, count, floor, max_bytes, columns)
        if not scan.staged:
            return scan
        # Staged entries stand between the head and the entries that count. A restore stages no more than a page.
        scan = await self._scan_rows(key, PAGE + count, floor, UNLIMITED, col.WITHOUT_PAYLOAD)
        if columns is not None or not scan.entries:
            return scan._replace(entries=scan.entries[:count])
        newest = keys.number_of(scan.entries[0].position)
        rows = await self._rows_down(key, newest, floor, count, max_bytes, columns)
        return scan._replace(entries=list(map(decoding.read_entry, rows)))

    async def _rows_down(
        self, key: SessionKey, start: int, floor: int, count: int, max_bytes: int, columns: list[str] | None
    ) -> list[Row]:
        found = await self._table.rows(
            keys.primary_key(key, start),
            keys.primary_key(key, floor),
            limit=count,
            backward=True,
            columns=columns,
            is_enough=_more_than(max_bytes),
        )
        return found.rows

    async def _scan_rows(
        self, key: SessionKey, count: int, floor: int, max_bytes: int, columns: list[str] | None
    ) -> Scan:
        read_at = self._cache.now()
        newest = await self._rows_down(key, HEAD_NUMBER, floor, count + 1, max_bytes, columns)
        has_head = bool(newest) and decoding.row_number(newest[0]) == HEAD_NUMBER
        head = decoding.read_head(newest.pop(0)) if has_head else None
        read = list(map(decoding.read_entry, newest[:count]))
        _require_times(key, head, read)
        entries = [row for row in read if row.appended_us is not None or (head and head.counts(row))]
        staged = [row for row in read if row.appended_us is None and not (head and head.counts(row))]
        return Scan(read_at, head, entries, staged)

    async def _select(
        self, key: SessionKey, head: Head, seqs: range, already_read: Iterable[EntryRow], max_bytes: int
    ) -> list[EntryRow]:
        """Return the entries with these seqs, in this order, as many as a page may hold, but at least one."""
        generation = head.tail.generation
        by_seq = {row.position.seq: row for row in already_read if row.position.generation == generation}
        missing = [seq for seq in seqs if seq not in by_seq]
        selected, is_whole = _fitting(seqs, by_seq, max_bytes)
        if not is_whole:
            needed = range(missing[0], missing[-1] + seqs.step, seqs.step)
            found = await self.entries(key, generation, needed, None, max_bytes)
            selected, is_whole = _fitting(seqs, by_seq | {row.position.seq: row for row in found}, max_bytes)
        if not is_whole:
            raise TornReadError
        return selected

    async def _match(
        self, key: SessionKey, state: SessionState, entry_id: str | None, already_read: Iterable[EntryRow]
    ) -> tuple[int, Entry] | None:
        """Return the newest entry with this id or key. A newer one than those already read may have it, too."""
        if entry_id is None or state.live_head is None:
            return None
        tail = state.live_head.tail
        rows = [row for row in already_read if row.position.generation == tail.generation and entry_id in row.names]
        newest = max(rows, key=lambda row: row.position, default=None)
        if newest is None or max(state.seqs_of([entry_id]), default=0) > newest.position.seq:
            newest = (await self.find(key, state, [entry_id], tail, columns=None)).get(entry_id, newest)
        return (newest.position.seq, await self._with_payload(key, newest)) if newest else None

    async def _with_payload(self, key: SessionKey, row: EntryRow) -> Entry:
        return replace(row.entry, payload=await self._chunks.load(key, row.chunks)) if row.chunks else row.entry


def _fitting(seqs: range, by_seq: Mapping[int, EntryRow], max_bytes: int) -> tuple[list[EntryRow], bool]:
    """Return the first of these entries, up to ``max_bytes`` but at least one, and true if none of them is missing."""
    fitting: list[EntryRow] = []
    size = 0
    for seq in seqs:
        if seq not in by_seq:
            return fitting, False
        size += by_seq[seq].size
        if fitting and size > max_bytes:
            break
        fitting.append(by_seq[seq])
    return fitting, True


def _require_times(key: SessionKey, head: HeadRow | None, entries: Iterable[EntryRow]) -> None:
    """Check that entries of a log which were not restored have a time. Without one they would pass for staged ones.

    The head of a refused append may name the position of a staged entry, but not its origin.
    """
    if head is None or head.head.deleted:
        return
    tail = head.head.tail
    for row in entries:
        is_tail = (row.position, row.entry.origin) == (tail, head.head.tail_origin)
        is_of_log = is_tail or (row.position.generation == tail.generation and row.position.seq < tail.seq)
        if row.appended_us is None and is_of_log and not head.counts(row):
            raise Corrupt(f"entry {row.position.seq} of {key} has no time")


def _more_than(max_bytes: int) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: sum(map(decoding.payload_bytes, rows)) > max_bytes


def _rewrite_id(state: SessionState) -> str:
    return state.head.rewrite_id if state.head else ""


async def _retry_torn(key: SessionKey, read: Callable[[], Awaitable[T]]) -> T:
    """Repeat a read until no change interrupts it."""
    backoff = Backoff()
    for _ in range(TORN_READS):
        try:
            return await read()
        except TornReadError:
            await backoff.wait("the session changes while it is read")
    raise Corrupt(f"{key} lacks a part of its entries")
