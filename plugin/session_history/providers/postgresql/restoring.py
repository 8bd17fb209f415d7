"""The restore of sessions: a tombstone, or a page of a log, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.ids import decoded
from session_history.providers.postgresql.records import entry_rows, head_of, head_values
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import Conflict, Entry, Head, check_restore
from session_history_hooks.rules import entries_to_restore


class Restoration:
    """Writes sessions as they were elsewhere."""

    def __init__(self, sql: Statements) -> None:
        self._sql = sql

    async def restore(self, connection: Connection, head: Head, entries: Sequence[Entry], behind: str) -> bool:
        conflict: Conflict | None = None
        async with connection.transaction():
            try:
                written = await self._write(connection, head, entries, behind)
            except Conflict as error:  # An error that leaves the transaction ends the connection.
                conflict = error
        if conflict:
            raise conflict
        return written

    async def _write(self, connection: Connection, head: Head, entries: Sequence[Entry], behind: str) -> bool:
        """Write into a new head, or into one whose lock is held until the commit.

        Each statement gets the whole timeout.
        """
        key = head.key.user_id, head.key.session_id
        begins = check_restore(head, entries, behind) == 1
        if begins and (new := await connection.fetch(self._sql.restore_new, *key, *head_values(head))):
            await self._add(connection, new[0][0], head, entries)
            return True
        connection.extend_deadline()
        rows = await connection.fetch(self._sql.lock, *key)
        log, found = (rows[0][0], head_of(head.key, rows[0][1:])) if rows else (0, None)
        connection.extend_deadline()
        low = head.tail.seq - len(entries)
        origins = [
            decoded(row[0], head.key) for row in await connection.fetch(self._sql.origins, log, low, head.tail.seq)
        ]
        missing = entries_to_restore(found, origins, head, entries, behind)
        if missing is None:
            return False
        await connection.fetch(self._sql.restore_head, *key, *head_values(head))
        await self._add(connection, log, head, missing)
        return True

    async def _add(self, connection: Connection, log: int, head: Head, entries: Sequence[Entry]) -> None:
        """:param entries: the last ones of the log."""
        if not entries:
            return
        connection.extend_deadline()
        first = head.tail.seq - len(entries) + 1
        rows = (row for seq, entry in enumerate(entries, first) for row in entry_rows(log, seq, entry))
        await connection.run_for_each(self._sql.restore_row, rows)
