"""Calls of the contract on the rows of the tables; deletes are in :mod:`~.deleting`."""

from __future__ import annotations

import operator

from session_history.providers.postgresql.connection import Connection, Row
from session_history.providers.postgresql.deleting import Deletion
from session_history.providers.postgresql.ids import decoded, encoded
from session_history.providers.postgresql.schema import MAX_SEQ, PERIOD_BITS, Tables
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import (
    Appended,
    Conflict,
    Corrupt,
    Entry,
    Head,
    ListingCursor,
    Log,
    Page,
    Position,
    SessionKey,
    Snapshot,
    Unavailable,
    select_seqs,
)

MAX_BIGINT = 2**63 - 1

MAX_TRIES = 20
"""Limits the tries of a write that loses to other writers between two of its statements. Each time, one of those
succeeded.
"""


class Rows:
    """The logs in the tables of one schema.

    :param page: the most entries of a read.
    :ivar deletion: the deletes of the contract.
    """

    def __init__(self, schema: str, page: int) -> None:
        self._sql = Statements(Tables.of(schema))
        self._page = page
        self.deletion: Deletion = Deletion(self._sql, page)

    async def ping(self, connection: Connection) -> bool:
        await connection.fetch(self._sql.ping)
        return True

    async def read(
        self,
        connection: Connection,
        key: SessionKey,
        last: int | None,
        before: int | None,
        after: int | None,
        entry_id: str | None,
    ) -> Log | None:
        oldest = after is not None and last is None
        low, stop = _seq(0 if after is None else after) + 1, _seq(MAX_SEQ if before is None else before)
        values = (key.user_id, key.session_id, low, stop, self._page if last is None else _seq(last))
        if entry_id is None:
            rows = await connection.fetch(self._sql.read_oldest if oldest else self._sql.read_newest, *values)
        else:
            statement = self._sql.read_oldest_and_match if oldest else self._sql.read_newest_and_match
            rows = await connection.fetch(statement, *values, encoded(entry_id))
        if not rows:
            return None
        parts: tuple[list[Row], ...] = ([], [], [])
        for row in rows:
            parts[row[0]].append(row)
        [head_row], entry_rows, match_rows = parts
        head = _head(key, head_row[1:])
        entries = [_numbered_entry(row) for row in sorted(entry_rows, key=_seq_of)]
        expected = select_seqs(head.tail.seq, self._page, last=last, before=before, after=after)
        if [seq for seq, _ in entries] != list(expected):
            raise Corrupt(f"{key} lacks entries between {expected.start} and {expected.stop - 1}, or has others")
        return Log(
            head,
            expected.start if expected else head.tail.seq + 1,
            tuple(entry for _, entry in entries),
            _numbered_entry(match_rows[0]) if match_rows else None,
        )

    async def append(
        self, connection: Connection, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None
    ) -> Appended:
        for _ in range(MAX_TRIES):
            if await self._try_append(connection, key, entry, at, snapshot):
                return Appended(Position(at.generation, at.seq + 1), replayed=False)
            head, known_seq = await self._find(connection, key, entry.id)
            alive = head is not None and not head.deleted
            if head and alive and known_seq and at.generation == head.tail.generation:
                await connection.fetch(self._sql.touch_session, key.user_id, key.session_id)
                return Appended(Position(at.generation, known_seq), replayed=True)
            if at != (head.tail if head and alive else Position(head.tail.generation + 1 if head else 0, 0)):
                raise Conflict(head)
        raise Unavailable(f"{key}: other writers kept changing the session; safe to retry")

    async def _try_append(
        self, connection: Connection, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None
    ) -> bool:
        """Write the entry if the head stands at ``at``, else nothing.

        A writer that has changed the head holds its lock until the commit. Other writers wait for the lock, find that
        the head has moved, and write nothing.
        """
        values = (*_snapshot_values(snapshot), encoded(entry.id), entry.payload, key.user_id, key.session_id)
        if at == Position(0, 0):
            return bool(await connection.fetch(self._sql.begin, *values))
        recreates = at.seq == 0
        expected = (_bigint(at.generation - recreates), _seq(at.seq), recreates, _bigint(at.generation))
        return bool(await connection.fetch(self._sql.append, *values, *expected))

    async def _find(self, connection: Connection, key: SessionKey, entry_id: str) -> tuple[Head | None, int | None]:
        """Return the head, and the seq of the entry with this id."""
        rows = await connection.fetch(self._sql.find, key.user_id, key.session_id, encoded(entry_id))
        return (_head(key, rows[0][1:]), rows[0][0]) if rows else (None, None)

    async def renew(self, connection: Connection, key: SessionKey, at: Position) -> bool:
        expected = (_bigint(at.generation), _seq(at.seq))
        return bool(await connection.fetch(self._sql.renew, key.user_id, key.session_id, *expected))

    async def rewrite(
        self,
        connection: Connection,
        key: SessionKey,
        entry: Entry,
        at: Position,
        rewrites: int,
        snapshot: Snapshot | None,
    ) -> Head:
        values = (*_snapshot_values(snapshot), encoded(entry.id), entry.payload, key.user_id, key.session_id)
        expected = (_bigint(at.generation), _seq(at.seq), _bigint(rewrites))
        for _ in range(MAX_TRIES):
            if rows := await connection.fetch(self._sql.rewrite, *values, *expected):
                return _head(key, rows[0])
            head, known_seq = await self._find(connection, key, entry.id)
            if head is None or (head.tail.generation, head.rewrites, known_seq) != (at.generation, rewrites, at.seq):
                raise Conflict(head)
        raise Unavailable(f"{key}: other writers kept changing the session")

    async def list(self, connection: Connection, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        start = after or ListingCursor(MAX_BIGINT, "")
        rows = await connection.fetch(
            self._sql.list, user_id, start.active_us >> PERIOD_BITS, start.active_us, start.session_id, limit + 1
        )
        heads = tuple(_head(SessionKey(user_id, row[0]), row[1:]) for row in rows[:limit])
        return Page(heads, ListingCursor.behind(heads[-1]).encode() if len(rows) > limit else None)


def _head(key: SessionKey, row: Row) -> Head:
    generation, seq, tail_id, deleted, heartbeat, rewrites, active_us, snapshot_seq, snapshot_id, summary = row
    return Head(
        key,
        Position(generation, seq),
        decoded(tail_id),
        deleted=deleted,
        heartbeat=heartbeat,
        rewrites=rewrites,
        active_us=active_us,
        snapshot=None if snapshot_seq is None else Snapshot(snapshot_seq, decoded(snapshot_id), summary),
    )


def _snapshot_values(snapshot: Snapshot | None) -> tuple[int | None, bytes | None, bytes | None]:
    return (snapshot.seq, encoded(snapshot.entry_id), snapshot.summary) if snapshot else (None, None, None)


def _numbered_entry(row: Row) -> tuple[int, Entry]:
    return row[2], Entry(decoded(row[3]), row[10])


_seq_of = operator.itemgetter(2)


def _seq(number: int) -> int:
    """Limit a seq to what its column takes. A number outside stands for a place that no log reaches."""
    return max(-1, min(number, MAX_SEQ))


def _bigint(number: int) -> int:
    return max(-2, min(number, MAX_BIGINT))
