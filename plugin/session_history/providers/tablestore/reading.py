"""What is read of a session, and where it stands by that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

from tablestore import INF_MAX, INF_MIN

from session_history.providers.tablestore import keys, rows
from session_history.providers.tablestore.keys import HEAD_PLACE
from session_history.providers.tablestore.known import UNSEEN, Known, TornError, derive, settled
from session_history.providers.tablestore.memory import Memory
from session_history.providers.tablestore.rows import REMEMBERED_IDS, EntryRow, HeadRow, Parts
from session_history.providers.tablestore.table import Patience, Table
from session_history_hooks import Corrupt, Entry, Head, ListingCursor, Log, Page, Position, SessionKey, select_seqs

T = TypeVar("T")

PAGE = 1000
"""Entries of a read that asks for no number, and the most heads of a page of a listing."""

NEAR = 16
"""Entries; a stretch so near to the tail is read along with the head, in one request."""

TRIES = 5
"""How often a session is read that changes while it is read, before it counts as damaged."""


class Seen(NamedTuple):
    """The head's row and the newest entries, the newest first."""

    head: HeadRow | None
    entries: list[EntryRow]


class Reading:
    """Reads from a table. What it learns of a session goes to the memory."""

    def __init__(self, table: Table, memory: Memory) -> None:
        self._table = table
        self._memory = memory

    async def read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        return await _whole(key, lambda: self._read(key, last, before, after, entry_id))

    async def look(self, key: SessionKey) -> Known:
        """Where a session stands."""
        known, _ = await _whole(key, lambda: self._newest(key, 1, rows.WITHOUT_PAYLOAD))
        return known

    async def standing(self, key: SessionKey, known: Known, entry_id: str, at: Position) -> EntryRow | None:
        """The entry of this id, without payload: among those that are remembered, or anywhere behind a position."""
        if not known.lives(at.generation):
            return None
        for seq in known.seqs(entry_id):
            row = await self.entry(key, Position(at.generation, seq))
            if row and row.id == entry_id:
                return row
        forgotten = range(at.seq + 1, known.oldest_remembered)
        entries = await self._range(key, at.generation, forgotten, rows.WITHOUT_PAYLOAD) if forgotten else []
        return next((row for row in entries if row.id == entry_id), None)

    async def entry(self, key: SessionKey, position: Position) -> EntryRow | None:
        row = await self._table.get(keys.primary_key(key, keys.place_of(position)))
        return rows.read_entry(row) if row else None

    async def listing(self, user_id: str, limit: int, behind: ListingCursor | None) -> Page:
        recency, session_id = (-behind.active_us, behind.session_id) if behind else (INF_MIN, INF_MIN)
        found = await self._table.rows(
            keys.listing_key(user_id, recency, session_id, INF_MAX if behind else INF_MIN),
            keys.listing_key(user_id, INF_MAX, INF_MAX, INF_MAX),
            limit=limit,
            columns=rows.LISTED,
            of_index=True,
        )
        heads = tuple(map(rows.read_listed, found.rows))
        return Page(heads, ListingCursor.behind(heads[-1]).encode() if heads and found.next_key else None)

    async def session_below(self, user_id: str, session_id: str | None) -> SessionKey | None:
        """The next session of a user, backwards by session id, whether deleted or not."""
        found = await self._table.rows(
            keys.below_session(user_id, INF_MAX if session_id is None else session_id),
            keys.below_session(user_id, INF_MIN),
            limit=1,
            backward=True,
            columns=["v"],
        )
        return rows.session_of(found.rows[0]) if found.rows else None

    async def newest_generation(self, key: SessionKey) -> int:
        """So far as rows can be read."""
        found = await self._table.rows(
            keys.primary_key(key, HEAD_PLACE), keys.primary_key(key, 0), limit=2, backward=True, columns=["v", "g"]
        )
        return max(map(rows.generation, found.rows), default=0)

    async def _read(
        self, key: SessionKey, last: int | None, before: int | None, after: int | None, entry_id: str | None
    ) -> Log | None:
        if before is not None:
            known, entries = await self._newest(key, self._reach(key, before, last))
        elif after is not None:
            known, entries = await self._since(key, after, PAGE if last is None else last)
        else:
            known, entries = await self._newest(key, PAGE if last is None else last)
        head = known.head
        if head is None:
            return None
        seqs = select_seqs(head.tail.seq, PAGE, last=last, before=before, after=after)
        stood = await self._entries(key, head, seqs, entries)
        log = tuple([await self._entry(key, row) for row in stood])
        first = seqs.start if seqs else head.tail.seq + 1
        return Log(head, first, log, await self._found(key, known, entry_id, [*stood, *entries]))

    async def _newest(
        self, key: SessionKey, count: int, columns: list[str] | None = None
    ) -> tuple[Known, list[EntryRow]]:
        """Where a session stands, and its newest entries, one at least: in one request if the head is true."""
        seen = await self._scan(key, max(count, 1), columns=columns)
        return await self._known(key, seen), seen.entries

    def _reach(self, key: SessionKey, before: int, last: int | None) -> int:
        """How many of the newest entries a stretch takes that ends just ahead of the tail; else one, the tail's."""
        living = (self._memory.get(key) or UNSEEN).living
        count = living.tail.seq + 1 - before + last if living and last is not None else 1
        return count if 0 < count <= NEAR else 1

    async def _since(self, key: SessionKey, after: int, count: int) -> tuple[Known, list[EntryRow]]:
        """As :meth:`_newest`, for those who know the log up to its tail: nothing is read twice that was known."""
        before = self._memory.get(key) or UNSEEN
        living = before.living
        if living is None or living.tail.seq != after:
            return await self._newest(key, 1)
        seen = await self._scan(key, max(count, 1), floor=keys.place_of(living.tail))
        if seen.head is not None and seen.entries:
            return await self._known(key, seen), seen.entries
        if seen.head is None or seen.head.origin != before.origin:
            return await self._newest(key, 1)
        known = settled(seen.head)
        self._memory.keep(key, known)
        return known, []

    async def _known(self, key: SessionKey, seen: Seen) -> Known:
        known = derive(key, seen.head, seen.entries)
        if not known.settled:
            survey = await self._scan(key, REMEMBERED_IDS, columns=rows.WITHOUT_PAYLOAD)
            first, known = known, derive(key, survey.head, survey.entries)
            if _edits(known) != _edits(first):  # the entries that were seen are older than the head
                raise TornError
        self._memory.keep(key, known)
        return known

    async def _scan(self, key: SessionKey, count: int, *, floor: int = 0, columns: list[str] | None = None) -> Seen:
        """The head and the newest entries above a place."""
        found = await self._table.rows(
            keys.primary_key(key, HEAD_PLACE),
            keys.primary_key(key, floor),
            limit=count + 1,
            backward=True,
            columns=columns,
        )
        newest = found.rows
        head = rows.read_head(newest.pop(0)) if newest and rows.place(newest[0]) == HEAD_PLACE else None
        return Seen(head, [rows.read_entry(row) for row in newest[:count]])

    async def _entries(self, key: SessionKey, head: Head, seqs: range, known: Iterable[EntryRow]) -> list[EntryRow]:
        """The entries of a stretch, of which some are known."""
        generation = head.tail.generation
        stood = {row.position.seq: row for row in known if row.position.generation == generation}
        missing = [seq for seq in seqs if seq not in stood]
        if missing:
            stretch_missing = range(missing[0], missing[-1] + 1)
            stood |= {row.position.seq: row for row in await self._range(key, generation, stretch_missing)}
        if any(seq not in stood for seq in seqs):
            raise TornError
        return [stood[seq] for seq in seqs]

    async def _range(
        self, key: SessionKey, generation: int, seqs: range, columns: list[str] | None = None
    ) -> list[EntryRow]:
        found = await self._table.rows(
            keys.primary_key(key, keys.place_of(Position(generation, seqs.start))),
            keys.primary_key(key, keys.place_of(Position(generation, seqs.stop))),
            limit=len(seqs),
            columns=columns,
        )
        return [rows.read_entry(row) for row in found.rows]

    async def _found(
        self, key: SessionKey, known: Known, entry_id: str | None, at_hand: Iterable[EntryRow]
    ) -> tuple[int, Entry] | None:
        if entry_id is None or known.living is None:
            return None
        tail = known.living.tail
        near = (row for row in at_hand if row.id == entry_id and row.position.generation == tail.generation)
        row = next(near, None) or await self.standing(key, known, entry_id, tail)
        return (row.position.seq, await self._entry(key, row)) if row else None

    async def _entry(self, key: SessionKey, row: EntryRow) -> Entry:
        payload = row.payload
        return Entry(row.id, await self._joined(key, payload) if isinstance(payload, Parts) else payload)

    async def _joined(self, key: SessionKey, parts: Parts) -> bytes:
        found = await self._table.rows(
            keys.primary_key(key, parts.place(0)),
            keys.primary_key(key, parts.place(parts.count)),
            limit=parts.count,
            backward=True,
        )
        payload = b"".join(map(rows.read_part, found.rows))
        if len(payload) != parts.size:
            raise TornError
        return payload


def _edits(known: Known) -> int:
    return known.head.rewrites if known.head else 0


async def _whole(key: SessionKey, work: Callable[[], Awaitable[T]]) -> T:
    """Read until what was read stood there together."""
    patience = Patience()
    for _ in range(TRIES):
        try:
            return await work()
        except TornError:
            await patience.wait("it changes while it is read")
    raise Corrupt(f"{key} lacks a part of its entries")
