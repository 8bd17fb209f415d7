"""The restore of sessions: a tombstone, or a page of a log, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.ids import decoded
from session_history.providers.postgresql.records import entry_rows, head_of, head_values
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import Conflict, Entry, Head


@dataclass(frozen=True, slots=True)
class Restored:
    """The arguments of a restore, and the seq of the first entry; see :class:`~session_history_hooks.Restorable`."""

    head: Head
    entries: Sequence[Entry]
    behind: str
    first: int

    def missing(self, found: Head, origins: Sequence[str]) -> Sequence[Entry] | None:
        """Return the entries that are not there yet; ``None`` if there is nothing to write.

        :param found: the head that stands there.
        :param origins: those of its entries from the one ahead of the first to the tail of the new head.
        :raises Conflict: another log stands there, or a later life; or the log ends before these entries begin.
        """
        if found == self.head:
            return None
        if found.deleted:
            if self.first > 1 or found.tail.generation >= self.head.tail.generation + self.head.deleted:
                raise Conflict(found)
            return self.entries
        same_life = (found.tail.generation, found.rewrite_id) == (self.head.tail.generation, self.head.rewrite_id)
        expected = [self.behind][: self.first - 1] + [entry.origin for entry in self.entries]
        begins_equally = list(origins) == expected[: len(origins)] and found.tail.seq >= self.first - 1
        if self.head.deleted or not (same_life and begins_equally):
            raise Conflict(found)
        return self.entries[found.tail.seq - self.first + 1 :] or None


class Restoration:
    """Writes sessions as they were elsewhere."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql

    async def restore(self, connection: Connection, restored: Restored) -> bool:
        conflict: Conflict | None = None
        async with connection.transaction():
            try:
                written = await self._write(connection, restored)
            except Conflict as error:  # An error that leaves the transaction ends the connection.
                conflict = error
        if conflict:
            raise conflict
        return written

    async def _write(self, connection: Connection, restored: Restored) -> bool:
        """Write into a new head, or into one whose lock is held until the commit.

        Each statement gets the whole timeout.
        """
        head = restored.head
        key = head.key.user_id, head.key.session_id
        if restored.first == 1 and (new := await connection.fetch(self._sql.restore_new, *key, *head_values(head))):
            await self._add(connection, new[0][0], restored, restored.entries)
            return True
        rows = await connection.fetch(self._sql.lock, *key)
        if not rows:
            raise Conflict(None)
        log, found = rows[0][0], head_of(head.key, rows[0][1:])
        connection.extend_deadline()
        origins = await connection.fetch(self._sql.origins, log, restored.first - 1, head.tail.seq)
        missing = restored.missing(found, [decoded(row[0]) for row in origins])
        if missing is None:
            return False
        await connection.fetch(self._sql.restore_head, *key, *head_values(head))
        await self._add(connection, log, restored, missing)
        return True

    async def _add(self, connection: Connection, log: int, restored: Restored, entries: Sequence[Entry]) -> None:
        """:param entries: the last of the log."""
        first = restored.head.tail.seq - len(entries) + 1
        connection.extend_deadline()
        numbered = enumerate(entries, first)
        rows = (row for seq, entry in numbered for row in entry_rows(log, seq, entry))
        await connection.run_for_each(self._sql.restore_row, rows)
