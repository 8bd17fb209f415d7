"""Calls of the contract on the rows of one session; others are in the modules beside this one."""

from __future__ import annotations

from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.deleting import Deletion
from session_history.providers.postgresql.ids import encoded
from session_history.providers.postgresql.listing import Listing
from session_history.providers.postgresql.records import Found, head_of, snapshot_values
from session_history.providers.postgresql.restoring import Restoration
from session_history.providers.postgresql.schema import MAX_SEQ, Tables
from session_history.providers.postgresql.statements import Span, Statements
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Conflict,
    Corrupt,
    Entry,
    Head,
    Log,
    Position,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    Unavailable,
    select_seqs,
)
from session_history_hooks.rules import find_replay
from session_history_hooks.stored import checked_info, checked_log

MAX_BIGINT = 2**63 - 1

MAX_TRIES = 20
"""Limits the tries of an append that loses to other writers between two of its statements. Each time, one of those
succeeded.
"""


class Rows:
    """The logs in the tables of one schema.

    :param page: the most entries, heads or users of a page.
    :param page_bytes: the most bytes of payload in a page of entries.
    """

    def __init__(self, schema: str, page: int, page_bytes: int) -> None:
        self._sql = Statements(Tables.of(schema), page_bytes)
        self._page = page
        self.deletion: Deletion = Deletion(self._sql, page)
        self.listing: Listing = Listing(self._sql, page)
        self.restoration: Restoration = Restoration(self._sql)

    async def takes_writes(self, connection: Connection) -> bool:
        [row] = await connection.fetch(self._sql.takes_writes)
        return bool(row[0])

    async def require_room(self, connection: Connection) -> None:
        """Write some entries of a log that does not exist, and take them back.

        :raises asyncpg.DiskFullError: there is no room for them.
        """
        await connection.driver.execute(self._sql.require_room)

    async def info(self, connection: Connection, shard: Shard | None) -> StoreInfo:
        found = await self._info(connection)
        if shard is None or found.shard is not None:
            return found
        await connection.fetch(self._sql.take_shard, shard.number, shard.count)
        return await self._info(connection)

    async def _info(self, connection: Connection) -> StoreInfo:
        rows = await connection.fetch(self._sql.info)
        if len(rows) != 1:
            raise Corrupt("session_history_store must have one row")
        incarnation, version, number, count = rows[0]
        try:
            return checked_info(StoreInfo(str(incarnation), version, None if number is None else Shard(number, count)))
        except (TypeError, ConfigurationError):
            raise Corrupt("session_history_store names a shard that cannot be") from None

    async def read(
        self,
        connection: Connection,
        key: SessionKey,
        last: int | None,
        before: int | None,
        after: int | None,
        entry_id: str | None,
    ) -> Log | None:
        span = Span.LAST if last is not None else Span.NEWEST if after is None else Span.OLDEST
        low, stop = _seq(0 if after is None else after) + 1, _seq(MAX_SEQ if before is None else before)
        values = (key.user_id, key.session_id, low, stop, self._page if last is None else _seq(last))
        match = () if entry_id is None else (encoded(entry_id),)
        found = await self._fetch(connection, key, self._sql.reads[span, bool(match)], *values, *match)
        if found and any(entry is None for entry in found.entries.values()):
            found = await self._fetch(connection, key, self._sql.full_pages[span, bool(match)], *values, *match)
        if found is None:
            return None
        tail = found.head.tail.seq
        expected = select_seqs(tail, self._page, last=last, before=before, after=after)
        if list(found.entries) != list(expected):
            raise Corrupt(f"{key} lacks entries between {expected.start} and {expected.stop - 1}, or has others")
        entries = tuple([entry for entry in found.entries.values() if entry is not None])
        first = expected.start if span is Span.OLDEST else expected.stop - len(entries)
        matches = [(seq, entry) for seq, entry in found.matches.items() if entry is not None]
        return checked_log(Log(found.head, first if entries else tail + 1, entries, matches[-1] if matches else None))

    async def _fetch(self, connection: Connection, key: SessionKey, statement: str, *values: object) -> Found | None:
        rows = await connection.fetch(statement, *values)
        return Found.of(key, rows) if rows else None

    async def append(
        self,
        connection: Connection,
        key: SessionKey,
        entry: Entry,
        at: Position,
        tail_origin: str | None,
        snapshot: Snapshot | None,
    ) -> Appended:
        for _ in range(MAX_TRIES):
            if await self._try_append(connection, key, entry, at, tail_origin, snapshot):
                return Appended(Position(at.generation, at.seq + 1), replayed=False)
            head, seqs = await self._find(connection, key, entry)
            replay = find_replay(head, entry, at, tail_origin, seqs.get)
            if replay is not None:
                await connection.fetch(self._sql.touch_session, key.user_id, key.session_id)
                return replay
        raise Unavailable(f"{key}: other writers kept changing the session; safe to retry")

    async def _try_append(
        self,
        connection: Connection,
        key: SessionKey,
        entry: Entry,
        at: Position,
        tail_origin: str | None,
        snapshot: Snapshot | None,
    ) -> bool:
        """Write the entry if the head stands at ``at`` and none of its ids and keys is known, else nothing.

        A writer that has changed the head holds its lock until the commit. Other writers wait for the lock, find that
        the head has moved, and write nothing. They look up ids in the state before their wait. That is enough: where
        the head has not moved, the log has no other ids.
        """
        values = (
            *snapshot_values(snapshot),
            encoded(entry.id),
            entry.payload,
            key.user_id,
            key.session_id,
            encoded(entry.origin),
            entry.bookkeeping,
        )
        keys = ([encoded(each) for each in entry.keys],) if entry.keys else ()
        if at == Position(0, 0):
            statement = self._sql.begin_with_keys if keys else self._sql.begin
            return bool(await connection.fetch(statement, *values, *keys))
        recreates = at.seq == 0
        expected = (
            _bigint(at.generation - recreates),
            _seq(at.seq),
            recreates,
            _bigint(at.generation),
            None if recreates or tail_origin is None else encoded(tail_origin),
            recreates or not entry.bookkeeping,
        )
        statement = self._sql.append_with_keys if keys else self._sql.append
        return bool(await connection.fetch(statement, *values, *expected, *keys))

    async def _find(
        self, connection: Connection, key: SessionKey, entry: Entry
    ) -> tuple[Head | None, dict[str, int | None]]:
        """Return the head, and the seqs of those ids of an entry that are known, its keys included."""
        ids = (entry.id, *entry.keys)
        rows = await connection.fetch(self._sql.find, key.user_id, key.session_id, [encoded(each) for each in ids])
        return (head_of(key, rows[0][1:]), dict(zip(ids, rows[0][0], strict=True))) if rows else (None, {})

    async def renew(self, connection: Connection, key: SessionKey, at: Position, tail_origin: str | None) -> bool:
        origin = None if tail_origin is None else encoded(tail_origin)
        expected = (_bigint(at.generation), _seq(at.seq), origin)
        if await connection.fetch(self._sql.renew, key.user_id, key.session_id, *expected):
            return True
        if rows := await connection.fetch(self._sql.head, key.user_id, key.session_id):
            head_of(key, rows[0])  # raises Corrupt for a damaged head
        return False

    async def rewrite(
        self,
        connection: Connection,
        key: SessionKey,
        entry: Entry,
        at: Position,
        rewrite_id: str,
        last_rewrite_id: str,
        snapshot: Snapshot | None,
    ) -> Head:
        values = (*snapshot_values(snapshot), encoded(entry.id), entry.payload, key.user_id, key.session_id)
        ids = (_bigint(at.generation), encoded(rewrite_id), encoded(last_rewrite_id), _seq(at.seq))
        if rows := await connection.fetch(self._sql.rewrite, *values, encoded(entry.origin), *ids):
            return head_of(key, rows[0])
        rows = await connection.fetch(self._sql.head, key.user_id, key.session_id)
        head = head_of(key, rows[0]) if rows else None
        if head is None or (head.tail.generation, head.rewrite_id) != (at.generation, rewrite_id):
            raise Conflict(head)
        await connection.fetch(self._sql.touch_session, key.user_id, key.session_id)
        return head


def _seq(number: int) -> int:
    """Limit a seq to what its column takes. A number outside stands for a place that no log reaches."""
    return max(-1, min(number, MAX_SEQ))


def _bigint(number: int) -> int:
    return max(-2, min(number, MAX_BIGINT))
