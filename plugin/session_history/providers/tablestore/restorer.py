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
from session_history_hooks import Entry, Head, LimitExceeded, Position, SessionKey
from session_history_hooks.rules import entries_to_restore, overlap_to_compare

ABANDONED_AFTER = 1.0
"""Seconds after which entries that another restore has staged are removed. It needs a few requests to end."""


class Restorer:
    """Restores sessions of a table."""

    def __init__(self, reader: Reader, heads: Heads, chunks: ChunkStore, staging: Staging) -> None:
        self._reader = reader
        self._heads = heads
        self._chunks = chunks
        self._staging = staging

    async def restore(self, head: Head, entries: Sequence[Entry], behind: str) -> bool:
        """Restore a tombstone or a page of a log."""
        if head.tail.generation > keys.MAX_GENERATION:
            raise LimitExceeded("generations", head.tail.generation, keys.MAX_GENERATION)
        async with self._heads.lock(head.key):
            return await self._restore(head, entries, behind)

    async def _restore(self, head: Head, entries: Sequence[Entry], behind: str) -> bool:
        key, backoff = head.key, Backoff()
        own: set[int] = set()
        others, seen_at = own, 0.0
        may_have_ended = False
        while True:
            state = await self._reader.state(key)
            missing = await self._missing(state, head, entries, behind)
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
        self, state: SessionState, head: Head, entries: Sequence[Entry], behind: str
    ) -> Sequence[Entry] | None:
        """Return the entries that a restore has to add; ``None`` if there is nothing to write.

        :raises Conflict: see :meth:`~session_history_hooks.Restorable.restore`.
        """
        found = state.head
        overlap = overlap_to_compare(found, head, entries)
        stored = await self._reader.entries(head.key, found.tail.generation, overlap) if found and overlap else []
        return entries_to_restore(found, [row.entry.origin for row in stored], head, entries, behind)

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
