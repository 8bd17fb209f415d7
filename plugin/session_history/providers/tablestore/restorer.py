"""Restores of sessions as they were elsewhere.

Many entries are staged in few requests. Then the head is replaced, which makes all of them count at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from session_history.providers.tablestore import keys
from session_history.providers.tablestore.chunks import ChunkStore
from session_history.providers.tablestore.errors import Outcome
from session_history.providers.tablestore.heads import Heads
from session_history.providers.tablestore.reader import Reader
from session_history.providers.tablestore.rows import EntryRow, HeadRow, random_id
from session_history.providers.tablestore.staging import Staging
from session_history.providers.tablestore.state import SessionState
from session_history.providers.tablestore.table import Backoff
from session_history_hooks import Conflict, Entry, Head, LimitExceeded, Position, SessionKey

ABANDONED_AFTER = 1.0
"""Seconds after which entries that another restore has staged are removed. It needs a few requests to end."""


class Restorer:
    """Restores sessions of a table."""

    def __init__(self, reader: Reader, heads: Heads, chunks: ChunkStore, staging: Staging) -> None:
        self._reader = reader
        self._heads = heads
        self._chunks = chunks
        self._staging = staging

    async def restore(self, head: Head, entries: Sequence[Entry], first: int, behind: str) -> bool:
        """Restore a tombstone or a page of a log.

        :param first: the seq of the first of these entries.
        """
        if head.tail.generation > keys.MAX_GENERATION:
            raise LimitExceeded("generations", head.tail.generation, keys.MAX_GENERATION)
        async with self._heads.lock(head.key):
            return await self._restore(head, entries, first, behind)

    async def _restore(self, head: Head, entries: Sequence[Entry], first: int, behind: str) -> bool:
        key, backoff = head.key, Backoff()
        own: set[int] = set()
        others, seen_at = own, 0.0
        may_have_ended = False
        while True:
            state = await self._reader.state(key)
            missing = await self._missing(state, head, entries, first, behind)
            if missing is None:
                return may_have_ended
            staged = {row.etag for row in state.staged}
            if not staged:
                new = await self._rows(key, missing, head.tail)
                outcome = await self._stage_and_end(state, head, new)
                if outcome is Outcome.DONE:
                    return True
                may_have_ended = may_have_ended or outcome is Outcome.UNKNOWN
                own = {row.etag for row in new}
            elif staged & own or (staged == others and time.monotonic() - seen_at > ABANDONED_AFTER):
                await self._staging.discard(key, state)
            elif staged != others:
                others, seen_at = staged, time.monotonic()
            await backoff.wait("another restore of the session is running, or the outcome of this one is unknown")

    async def _missing(
        self, state: SessionState, head: Head, entries: Sequence[Entry], first: int, behind: str
    ) -> Sequence[Entry] | None:
        """Return the entries that a restore has to add; ``None`` if there is nothing to write.

        :raises Conflict: see :meth:`~session_history_hooks.Restorable.restore`.
        """
        found = state.head
        if found is None or found.deleted:
            if found == head:
                return None
            if first > 1 or (found and found.tail.generation >= head.tail.generation + head.deleted):
                raise Conflict(found)
            return entries
        same_life = not head.deleted and found.tail.generation == head.tail.generation
        if not same_life or found.rewrite_id != head.rewrite_id or found.tail.seq < first - 1:
            raise Conflict(found)
        seqs = range(max(first - 1, 1), min(found.tail.seq, head.tail.seq) + 1)
        expected = ([behind] if first > 1 else []) + [entry.origin for entry in entries]
        stored = await self._reader.entries(head.key, found.tail.generation, seqs)
        if [row.entry.origin for row in stored] != expected[: len(seqs)]:
            raise Conflict(found)
        return entries[found.tail.seq - first + 1 :] or None

    async def _rows(self, key: SessionKey, entries: Sequence[Entry], tail: Position) -> list[EntryRow]:
        """Return the rows of the last entries of a log. Large payloads are stored."""
        generation, first = tail.generation, tail.seq - len(entries) + 1
        return [
            EntryRow(
                Position(generation, seq),
                entry,
                await self._chunks.store(key, generation, entry.payload),
                random_id(),
                appended_us=None,
            )
            for seq, entry in enumerate(entries, start=first)
        ]

    async def _stage_and_end(self, state: SessionState, head: Head, new: Sequence[EntryRow]) -> Outcome:
        """Stage entries and replace the head. Remove the entries, unless they count, or may count."""
        outcome = Outcome.REFUSED
        if await self._staging.stage(head.key, new):
            outcome = await self._end(state, state.restored_head(head, new))
        if outcome is Outcome.REFUSED:
            await self._staging.remove(head.key, new)
        return outcome

    async def _end(self, state: SessionState, row: HeadRow) -> Outcome:
        """Replace the head. As long as it stays as it was before the entries were staged, they all are still there."""
        backoff = Backoff()
        while (outcome := await self._heads.replace(row, state.etag)) is Outcome.UNKNOWN:
            await backoff.wait("the outcome of a write to the head is unknown")
            if (await self._reader.state(row.head.key)).etag != state.etag:
                break
        return outcome
