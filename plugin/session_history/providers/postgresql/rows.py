"""The statements of the contract: one for each read and each append that meets what it expects."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

from session_history.providers.postgresql.ids import decoded, encoded
from session_history.providers.postgresql.link import Link, Row
from session_history.providers.postgresql.schema import PERIOD_BITS, Tables
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

MAX_SEQ = 2**31 - 1
MAX_BIGINT = 2**63 - 1

ONE = "user_id = $1 AND session_id = $2"
ALL = "user_id = $1"
REST = "user_id = $1 AND session_id > $2"

SESSIONS = 100
"""How many sessions of a user a transaction deletes at most: a delete that fails keeps what it has done by then."""

TRIES = 20
"""How often one looks again when others change the session between two statements. Each time, one of them got on."""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_HEAD = "generation, seq, tail_id, deleted, heartbeat, rewrites, active_us, snapshot_seq, snapshot_id, summary"

_NEWEST = """e.seq >= (SELECT greatest($3::bigint, least($4::bigint, seq + 1) - $5::bigint) FROM top)
    AND e.seq < (SELECT least($4, seq + 1) FROM top)"""

_OLDEST = """e.seq >= $3::bigint
    AND e.seq < (SELECT least($4::bigint, seq + 1, $3 + $5::bigint) FROM top)"""
"""The seqs of a read, as of :func:`~session_history_hooks.select_seqs`. Both ends are known, so that no plan reads more."""

_TYPES = "bigint, integer, bytea, boolean, bigint, bigint, bigint, bigint, bytea, bytea"


class Rows:
    """The logs in the tables of one schema."""

    def __init__(self, schema: str, page: int) -> None:
        self._tables = Tables.of(schema)
        self._page = page

    async def read(
        self,
        link: Link,
        key: SessionKey,
        last: int | None,
        before: int | None,
        after: int | None,
        entry_id: str | None,
    ) -> Log | None:
        oldest = after is not None and last is None
        low, stop = _small(0 if after is None else after) + 1, _small(MAX_SEQ if before is None else before)
        values = (key.user_id, key.session_id, low, stop, self._page if last is None else _small(last))
        if entry_id is None:
            rows = await link.fetch(self._oldest if oldest else self._newest, *values)
        else:
            statement = self._oldest_and_one if oldest else self._newest_and_one
            rows = await link.fetch(statement, *values, encoded(entry_id))
        if not rows:
            return None
        parts: tuple[list[Row], ...] = ([], [], [])
        for row in rows:
            parts[row[0]].append(row)
        [top], stretched, found = parts
        head = _head(key, top[1:])
        entries = [_numbered(row) for row in sorted(stretched, key=_seq)]
        expected = select_seqs(head.tail.seq, self._page, last=last, before=before, after=after)
        if [seq for seq, _ in entries] != list(expected):
            raise Corrupt(f"{key} lacks entries between {expected.start} and {expected.stop - 1}, or has others")
        return Log(
            head,
            expected.start if expected else head.tail.seq + 1,
            tuple(entry for _, entry in entries),
            _numbered(found[0]) if found else None,
        )

    async def append(
        self, link: Link, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None
    ) -> Appended:
        for _ in range(TRIES):
            if await self._push(link, key, entry, at, snapshot):
                return Appended(Position(at.generation, at.seq + 1), replayed=False)
            head, known = await self._standing(link, key, entry.id)
            alive = head is not None and not head.deleted
            if head and alive and known and at.generation == head.tail.generation:
                await self._confirm(link, ONE, key.user_id, key.session_id)
                return Appended(Position(at.generation, known), replayed=True)
            if at != (head.tail if head and alive else Position(head.tail.generation + 1 if head else 0, 0)):
                raise Conflict(head)
        raise Unavailable(f"{key}: others kept coming first")

    async def _push(self, link: Link, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None) -> bool:
        """Write the entry, if the head stands there. Who has changed the head has its lock until the end, so all
        others wait for it, look again at what stands there by then, and change nothing.
        """
        cover = (snapshot.seq, encoded(snapshot.entry_id), snapshot.summary) if snapshot else (None, None, None)
        values = (*cover, encoded(entry.id), entry.payload, key.user_id, key.session_id)
        if at == Position(0, 0):
            return bool(await link.fetch(self._begin, *values))
        revived = at.seq == 0
        place = (_big(at.generation - revived), _small(at.seq), revived, _big(at.generation))
        return bool(await link.fetch(self._extend, *values, *place))

    async def renew(self, link: Link, key: SessionKey, at: Position) -> bool:
        place = (_big(at.generation), _small(at.seq))
        return bool(await link.fetch(self._renew, key.user_id, key.session_id, *place))

    async def rewrite(
        self, link: Link, key: SessionKey, entry: Entry, at: Position, rewrites: int, snapshot: Snapshot | None
    ) -> Head:
        cover = (snapshot.seq, encoded(snapshot.entry_id), snapshot.summary) if snapshot else (None, None, None)
        values = (*cover, encoded(entry.id), entry.payload, key.user_id, key.session_id)
        for _ in range(TRIES):
            place = (_big(at.generation), _small(at.seq), _big(rewrites))
            rows = await link.fetch(self._rewrite, *values, *place)
            if rows:
                return _head(key, rows[0])
            head, known = await self._standing(link, key, entry.id)
            if head is None or (head.tail.generation, head.rewrites, known) != (at.generation, rewrites, at.seq):
                raise Conflict(head)
        raise Unavailable(f"{key}: others kept coming first")

    async def list(self, link: Link, user_id: str, limit: int, behind: ListingCursor | None) -> Page:
        start = behind or ListingCursor(MAX_BIGINT, "")
        rows = await link.fetch(
            self._list, user_id, start.active_us >> PERIOD_BITS, start.active_us, start.session_id, limit + 1
        )
        heads = tuple(_head(SessionKey(user_id, row[0]), row[1:]) for row in rows[:limit])
        return Page(heads, ListingCursor.behind(heads[-1]).encode() if len(rows) > limit else None)

    async def delete(self, link: Link, key: SessionKey) -> bool:
        buried = await self._delete(link, self._bury_one, key.user_id, key.session_id)
        if not buried:
            await self._confirm(link, ONE, key.user_id, key.session_id)
        return bool(buried)

    async def delete_some(self, link: Link, user_id: str, behind: str) -> tuple[int, str | None]:
        """Delete some of the user's sessions that sort behind this one.

        :returns: how many, and the last of them; ``None`` = there are no more.
        """
        buried = await self._delete(link, self._bury_some, user_id, behind)
        if not buried:
            await self._confirm(link, ALL, user_id)
        return len(buried), max(row[2] for row in buried) if len(buried) == SESSIONS else None

    async def answers(self, link: Link) -> bool:
        await link.fetch(f"SELECT log FROM {self._tables.head} LIMIT 1")
        return True

    async def _standing(self, link: Link, key: SessionKey, entry_id: str) -> tuple[Head | None, int | None]:
        """The head, and the seq of this id."""
        rows = await link.fetch(self._stand, key.user_id, key.session_id, encoded(entry_id))
        return (_head(key, rows[0][1:]), rows[0][0]) if rows else (None, None)

    async def _delete(self, link: Link, bury: str, *values: str) -> Sequence[Row]:
        """The log, its length and the id of each session that was deleted. What was appended while the first statement
        waited for a head is seen by the next ones only.

        A server that goes on answering is waited for, however much there is to delete.
        """
        async with link.transaction():
            buried = await link.fetch(bury, *values)
            for logs, length in self._together(buried):
                for low, high in pairwise((*range(0, length, self._page), MAX_SEQ)):
                    link.extend()
                    await link.fetch(self._erase, logs, low, high)
        return buried

    def _together(self, buried: Sequence[Row]) -> Iterator[tuple[Sequence[int], int]]:
        """Logs whose entries together are a page at most, or one that is longer; and how many entries that is."""
        logs: tuple[int, ...] = ()
        entries = 0
        for log, length, _ in buried:
            if logs and entries + length > self._page:
                yield logs, entries
                logs, entries = (), 0
            logs += (log,)
            entries += length
        if logs:
            yield logs, entries

    async def _confirm(self, link: Link, which: str, *values: str) -> None:
        """Wait for what is found to be done already: the commit of that may have been cut short in its wait for a
        standby. One that writes waits for all before it.
        """
        head = self._tables.head
        await link.fetch(
            f"UPDATE {head} SET heartbeat = heartbeat"
            f" WHERE {which} AND session_id = (SELECT min(session_id) FROM {head} WHERE {which})",
            *values,
        )

    @cached_property
    def _newest(self) -> str:
        return self._reading(_NEWEST)

    @cached_property
    def _newest_and_one(self) -> str:
        return self._reading(_NEWEST, and_one=True)

    @cached_property
    def _oldest(self) -> str:
        return self._reading(_OLDEST)

    @cached_property
    def _oldest_and_one(self) -> str:
        return self._reading(_OLDEST, and_one=True)

    def _reading(self, seqs: str, *, and_one: bool = False) -> str:
        """Head, entries and the one that is looked up as rows of one shape, so that a large summary comes only once."""
        nulls = [f"NULL::{each}" for each in _TYPES.split(", ")]
        one_entry = ", ".join([nulls[0], "e.seq", "e.id", *nulls[3:-1], "e.payload"])
        entries = f"FROM {self._tables.entry} e WHERE e.log = (SELECT log FROM top)"
        found = f"UNION ALL SELECT 2, {one_entry} {entries} AND e.id = $6" if and_one else ""
        return f"""WITH top AS MATERIALIZED (
                SELECT log, {_HEAD} FROM {self._tables.head} WHERE user_id = $1 AND session_id = $2
            )
            SELECT 0, {_HEAD} FROM top
            UNION ALL SELECT 1, {one_entry} {entries} AND {seqs}
            {found}"""

    @cached_property
    def _begin(self) -> str:
        return f"""WITH moved AS (
                INSERT INTO {self._tables.head} ({_HEAD}, user_id, session_id)
                VALUES (0, 1, $4, false, 0, 0, {_NOW}, $1, $2, $3, $6, $7)
                ON CONFLICT (user_id, session_id) DO NOTHING RETURNING log
            )
            INSERT INTO {self._tables.entry} (log, seq, id, payload) SELECT log, 1, $4, $5 FROM moved RETURNING seq"""

    @cached_property
    def _extend(self) -> str:
        return f"""WITH moved AS (
                UPDATE {self._tables.head} AS h SET generation = $11, seq = seq + 1, tail_id = $4, deleted = false,
                active_us = greatest({_NOW}, active_us + 1),
                snapshot_seq = coalesce($1, snapshot_seq), snapshot_id = coalesce($2, snapshot_id), summary = coalesce($3, summary)
                WHERE user_id = $6 AND session_id = $7 AND generation = $8 AND seq = $9 AND deleted = $10
                AND NOT EXISTS (SELECT FROM {self._tables.entry} e WHERE e.log = h.log AND e.id = $4)
                RETURNING log, seq
            )
            INSERT INTO {self._tables.entry} (log, seq, id, payload) SELECT log, seq, $4, $5 FROM moved RETURNING seq"""

    @cached_property
    def _stand(self) -> str:
        return f"""SELECT (SELECT e.seq FROM {self._tables.entry} e WHERE e.log = h.log AND e.id = $3), {_HEAD}
            FROM {self._tables.head} AS h WHERE user_id = $1 AND session_id = $2"""

    @cached_property
    def _renew(self) -> str:
        return f"""UPDATE {self._tables.head} SET heartbeat = heartbeat + 1
            WHERE user_id = $1 AND session_id = $2 AND generation = $3 AND seq = $4 AND NOT deleted RETURNING heartbeat"""

    @cached_property
    def _rewrite(self) -> str:
        return f"""WITH edited AS (
                UPDATE {self._tables.head} AS h SET rewrites = rewrites + 1, snapshot_seq = $1, snapshot_id = $2, summary = $3
                WHERE user_id = $6 AND session_id = $7 AND generation = $8 AND rewrites = $10 AND NOT deleted
                AND EXISTS (SELECT FROM {self._tables.entry} e WHERE e.log = h.log AND e.seq = $9 AND e.id = $4)
                RETURNING log, {_HEAD}
            ), replaced AS (
                UPDATE {self._tables.entry} AS e SET payload = $5 FROM edited WHERE e.log = edited.log AND e.seq = $9
            )
            SELECT {_HEAD} FROM edited"""

    @cached_property
    def _bury_one(self) -> str:
        return self._burying(ONE)

    @cached_property
    def _bury_some(self) -> str:
        return self._burying(REST)

    def _burying(self, which: str) -> str:
        """Heads are locked in the order of their ids, so that two that delete a user do not wait for each other."""
        return f"""WITH doomed AS MATERIALIZED (
                SELECT session_id, seq FROM {self._tables.head} WHERE {which} AND NOT deleted
                ORDER BY session_id LIMIT {SESSIONS} FOR UPDATE
            )
            UPDATE {self._tables.head} AS h SET seq = 0, tail_id = '', deleted = true, heartbeat = 0, rewrites = 0,
            active_us = greatest({_NOW}, active_us + 1), snapshot_seq = NULL, snapshot_id = NULL, summary = NULL
            FROM doomed WHERE h.user_id = $1 AND h.session_id = doomed.session_id
            RETURNING log, doomed.seq, doomed.session_id"""

    @cached_property
    def _erase(self) -> str:
        return f"DELETE FROM {self._tables.entry} WHERE log = ANY($1::bigint[]) AND seq > $2 AND seq <= $3"

    @cached_property
    def _list(self) -> str:
        return f"""SELECT session_id, {_HEAD} FROM {self._tables.head}
            WHERE user_id = $1 AND NOT deleted AND period <= $2
            AND (active_us < $3 OR (active_us = $3 AND session_id > $4))
            ORDER BY period DESC, active_us DESC, session_id LIMIT $5"""


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


def _numbered(row: Row) -> tuple[int, Entry]:
    return row[2], Entry(decoded(row[3]), row[10])


_seq = operator.itemgetter(2)


def _small(number: int) -> int:
    """A number that fits the column; one that does not stands for a place that no log reaches."""
    return max(-1, min(number, MAX_SEQ))


def _big(number: int) -> int:
    return max(-2, min(number, MAX_BIGINT))
