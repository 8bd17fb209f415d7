"""The delete of sessions: their heads become tombstones, and their entries are deleted page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from session_history.providers.postgresql import statements
from session_history.providers.postgresql.connection import Connection, Row
from session_history.providers.postgresql.records import head_of
from session_history.providers.postgresql.schema import MAX_SEQ
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import Corrupt, SessionKey


class Deletion:
    """A delete of one or many sessions, in transactions.

    :param page: the most entries that one statement deletes, so that it ends within a timeout.
    """

    def __init__(self, sql: Statements, page: int) -> None:
        self._sql = sql
        self._page = page

    async def delete(self, connection: Connection, key: SessionKey) -> bool:
        deleted = await self._delete(connection, self._sql.delete_session, key.user_id, key.session_id)
        if not deleted:
            await self._mend_tombstone(connection, key)
            await connection.fetch(self._sql.touch_session, key.user_id, key.session_id)
        return bool(deleted)

    async def _mend_tombstone(self, connection: Connection, key: SessionKey) -> None:
        for row in await connection.fetch(self._sql.head, key.user_id, key.session_id):
            try:
                head_of(key, row)
            except Corrupt:
                await connection.fetch(self._sql.mend_tombstone, key.user_id, key.session_id)

    async def delete_batch(self, connection: Connection, user_id: str, after: str) -> tuple[int, str | None]:
        """Delete some of the user's sessions whose ids sort behind ``after``.

        :returns: the number of them, and the last id; ``None`` = the user has no more sessions.
        """
        deleted = await self._delete(connection, self._sql.delete_sessions_after, user_id, after)
        if not deleted:
            await connection.fetch(self._sql.touch_user, user_id)
        more = len(deleted) == statements.DELETE_BATCH
        return len(deleted), max(row[2] for row in deleted) if more else None

    async def _delete(self, connection: Connection, statement: str, *values: str) -> Sequence[Row]:
        """Delete in one transaction; return log, length and id of each session.

        The entries are deleted by statements of their own: these also see an entry that was appended while the first
        statement waited for the lock of a head.

        Each statement gets the whole timeout, so that a delete of any size ends.
        """
        async with connection.transaction():
            deleted = await connection.fetch(statement, *values)
            for logs, length in self._groups(deleted):
                for low, high in pairwise((*range(0, length, self._page), MAX_SEQ)):
                    connection.extend_deadline()
                    await connection.fetch(self._sql.delete_entries, logs, low, high)
        return deleted

    def _groups(self, deleted: Sequence[Row]) -> Iterator[tuple[Sequence[int], int]]:
        """Yield logs that have at most a page of entries together, or one longer log; and the number of entries."""
        logs: tuple[int, ...] = ()
        entries = 0
        for log, length, _ in deleted:
            if logs and entries + length > self._page:
                yield logs, entries
                logs, entries = (), 0
            logs += (log,)
            entries += length
        if logs:
            yield logs, entries
