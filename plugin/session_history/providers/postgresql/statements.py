"""The SQL of the contract: one statement for each read, and for each append that finds the head it expects."""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from itertools import product

from session_history.providers.postgresql.schema import Tables
from session_history_hooks.stored import LAST_US, MAX_NUMBER

DELETE_BATCH = 100
"""The most sessions of a user that one transaction deletes. A delete that fails keeps the transactions before it."""

NOW = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
"""The same in all expressions of a statement."""

CHANGED = f"greatest({NOW}, changed_us + 1)"

DELETED_AT = f"""greatest({NOW}, CASE WHEN changed_us BETWEEN 0 AND {LAST_US} - 1 THEN changed_us + 1 ELSE 0 END)"""
"""The same for a head that may be damaged."""

GENERATION = f"""CASE WHEN generation BETWEEN 0 AND {MAX_NUMBER} THEN generation
    ELSE extract(epoch FROM statement_timestamp())::bigint END"""
"""The generation of a session that is deleted. A damaged one becomes a number that no life of the session had, the
seconds since the epoch: a turn in flight names the lost one and must be refused."""

_TOMBSTONE = f"""generation = {GENERATION}, seq = 0, tail_origin = '', deleted = true, heartbeat = 0,
    rewrite_id = '', active_us = {DELETED_AT}, changed_us = {DELETED_AT},
    snapshot_seq = NULL, snapshot_origin = NULL, summary = NULL"""

HEAD_COLUMNS = (
    "seq, tail_origin, deleted, rewrite_id, summary,"
    " generation, heartbeat, active_us, changed_us, snapshot_seq, snapshot_origin"
)

ENTRY_COLUMNS = "log, seq, part, bookkeeping, id, origin, payload"

IS_SOUND = f"changed_us BETWEEN 0 AND {LAST_US} AND heartbeat BETWEEN 0 AND {MAX_NUMBER}"
"""The numbers of a head that grow are what this package may have written."""

SESSION = "user_id = $1 AND session_id = $2"
SESSIONS_OF_USER = "user_id = $1"
SESSIONS_AFTER = "user_id = $1 AND session_id > $2"


class Span(Enum):
    """The entries that a read returns, as :func:`~session_history_hooks.select_seqs` has them."""

    LAST = "the newest ones, of any size"
    NEWEST = "a page of the newest ones"
    OLDEST = "a page of the oldest ones"


Reads = dict[tuple[Span, bool], str]
"""Statements of reads, without and with a match."""


class Statements:
    """Statements on the tables of one schema.

    :param page_bytes: the most bytes of payload in a page.
    :ivar reads: a page withholds a payload, as NULL, if it had no room for as many entries of this size.
    :ivar full_pages: pages that withhold only what they have no room for. These cost more.
    """

    def __init__(self, tables: Tables, page_bytes: int) -> None:
        self._head, self._entry, self._store, self._schema = tables
        self._page_bytes = page_bytes
        matches = (False, True)
        self.reads: Reads = {(span, match): self._read(span, match) for span, match in product(Span, matches)}
        self.full_pages: Reads = {
            (span, match): self._read(span, match, self._fitting_payload(span))
            for span, match in product((Span.NEWEST, Span.OLDEST), matches)
        }

    def _read(self, span: Span, match: bool, payload: str = "") -> str:  # noqa: FBT001
        """Return head, entries and matches as rows of the same columns: a summary then comes only once.

        Both ends of the range are known, so that no plan reads more entries than these.

        :param match: also read the entries with the id or key ``$6``. There are several only in a restored log.
        """
        stop = "least($4::bigint, seq + 1)"
        low = f"greatest($3::bigint, {stop} - $5::bigint)"
        if span is Span.OLDEST:
            low, stop = "$3::bigint", "least($4::bigint, seq + 1, $3::bigint + $5::bigint)"
        payload = payload or ("e.payload" if span is Span.LAST else self._small_payload)
        matches = f"""UNION ALL SELECT 2, {_columns("e.payload")} FROM head
            JOIN {self._entry} found ON found.log = head.log AND found.id = $6
            JOIN {self._entry} e ON e.log = found.log AND e.seq = found.seq"""
        return f"""WITH head AS MATERIALIZED (
                SELECT log, {HEAD_COLUMNS}, {low} AS low, {stop} AS stop FROM {self._head} WHERE {SESSION}
            )
            SELECT 0, {HEAD_COLUMNS}, NULL::smallint FROM head
            UNION ALL SELECT 1, {_columns(payload)} FROM head
            JOIN {self._entry} e ON e.log = head.log AND e.seq >= low AND e.seq < stop
            {matches if match else ""}"""

    @property
    def _small_payload(self) -> str:
        return f"CASE WHEN octet_length(e.payload) * (stop - low) <= {self._page_bytes} THEN e.payload END"

    def _fitting_payload(self, span: Span) -> str:
        """The first entry always fits. The length of a payload is known without reading it."""
        order = "ASC" if span is Span.OLDEST else "DESC"
        total = f"sum(octet_length(e.payload)) OVER (ORDER BY e.seq {order} ROWS UNBOUNDED PRECEDING)"
        return f"CASE WHEN {total} <= greatest({self._page_bytes}, octet_length(e.payload)) THEN e.payload END"

    @cached_property
    def begin(self) -> str:
        """The first entry of a session that never existed."""
        return self._begin()

    @cached_property
    def begin_with_keys(self) -> str:
        return self._begin("$10")

    def _begin(self, keys: str = "") -> str:
        change = f"""INSERT INTO {self._head} ({HEAD_COLUMNS}, user_id, session_id)
            VALUES (1, $8, false, '', $3, 0, 0, {NOW}, {NOW}, $1, $2, $6, $7)
            ON CONFLICT (user_id, session_id) DO NOTHING"""
        return self._add(change, keys)

    @cached_property
    def append(self) -> str:
        """Another entry, or the first one after a delete."""
        return self._append(f"NOT EXISTS (SELECT FROM {self._entry} e WHERE e.log = h.log AND e.id = $4)")

    @cached_property
    def append_with_keys(self) -> str:
        ids = "unnest($16::bytea[] || $4::bytea) AS ids (id)"
        return self._append(f"NOT EXISTS (SELECT FROM {ids} WHERE {self._newest} > 0)", "$16")

    def _append(self, is_new: str, keys: str = "") -> str:
        change = f"""UPDATE {self._head} AS h SET generation = $13, seq = seq + 1, tail_origin = $8, deleted = false,
            changed_us = {CHANGED}, active_us = CASE WHEN $15::boolean THEN {CHANGED} ELSE active_us END,
            snapshot_seq = coalesce($1, snapshot_seq), snapshot_origin = coalesce($2, snapshot_origin),
            summary = coalesce($3, summary)
            WHERE user_id = $6 AND session_id = $7 AND generation = $10 AND seq = $11 AND deleted = $12
            AND coalesce(tail_origin = $14, true) AND {IS_SOUND} AND {is_new}"""
        return self._add(change, keys)

    @property
    def _newest(self) -> str:
        """The seq of the newest entry of ``h`` with the id or key ``ids.id``.

        Each id has a look-up of its own: one for all of them would look dearer to the planner than a read of the log.
        """
        return f"(SELECT max(e.seq) FROM {self._entry} e WHERE e.log = h.log AND e.id = ids.id)"

    def _add(self, change: str, keys: str) -> str:
        """Add an entry if the head changes.

        :param keys: the keys of the entry; ``""`` = it has none.
        """
        added = (
            f"""UNION ALL SELECT log, seq, part, false, key, '', ''
            FROM changed, unnest({keys}::bytea[]) WITH ORDINALITY AS keys (key, part)"""
            if keys
            else ""
        )
        return f"""WITH changed AS ({change} RETURNING log, seq)
            INSERT INTO {self._entry} ({ENTRY_COLUMNS})
            SELECT log, seq, 0, $9::boolean, $4::bytea, $8::bytea, $5::bytea FROM changed {added} RETURNING seq"""

    @cached_property
    def find(self) -> str:
        """The head, and for each of some ids the seq of the newest entry that has it."""
        ids = "unnest($3::bytea[]) WITH ORDINALITY AS ids (id, place)"
        return f"""SELECT array(SELECT {self._newest} FROM {ids} ORDER BY place), {HEAD_COLUMNS}
            FROM {self._head} AS h WHERE {SESSION}"""

    @cached_property
    def renew(self) -> str:
        return f"""UPDATE {self._head} SET heartbeat = heartbeat + 1
            WHERE {SESSION} AND generation = $3 AND seq = $4 AND coalesce(tail_origin = $5, true) AND NOT deleted
            AND {IS_SOUND} AND heartbeat < {MAX_NUMBER} RETURNING heartbeat"""

    @cached_property
    def rewrite(self) -> str:
        return f"""WITH changed AS (
                UPDATE {self._head} AS h SET rewrite_id = $10, snapshot_seq = $1, snapshot_origin = $2, summary = $3
                WHERE user_id = $6 AND session_id = $7 AND generation = $9 AND NOT deleted
                AND rewrite_id = $11 AND rewrite_id <> $10
                AND EXISTS (
                    SELECT FROM {self._entry} e
                    WHERE e.log = h.log AND e.seq = $12 AND e.part = 0 AND e.id = $4 AND e.origin = $8
                )
                RETURNING log, {HEAD_COLUMNS}
            ), replaced AS (
                UPDATE {self._entry} AS e SET payload = $5 FROM changed
                WHERE e.log = changed.log AND e.seq = $12 AND e.part = 0
            )
            SELECT {HEAD_COLUMNS} FROM changed"""

    @cached_property
    def head(self) -> str:
        return f"SELECT {HEAD_COLUMNS} FROM {self._head} WHERE {SESSION}"

    @cached_property
    def list(self) -> str:
        return f"""SELECT session_id, {HEAD_COLUMNS} FROM {self._head}
            WHERE user_id = $1 AND NOT deleted AND period <= $2
            AND (active_us < $3 OR (active_us = $3 AND session_id > $4))
            ORDER BY period DESC, active_us DESC, session_id LIMIT $5"""

    @cached_property
    def list_tombstones(self) -> str:
        return f"""SELECT session_id, {HEAD_COLUMNS} FROM {self._head}
            WHERE {SESSIONS_AFTER} AND deleted ORDER BY session_id LIMIT $3"""

    @cached_property
    def list_users(self) -> str:
        """The users behind one, each found with one access to the index: a user may have any number of sessions."""
        return f"""WITH RECURSIVE users AS (
                (SELECT user_id FROM {self._head} WHERE user_id > $1 ORDER BY user_id LIMIT 1)
                UNION ALL
                SELECT (SELECT h.user_id FROM {self._head} AS h WHERE h.user_id > users.user_id ORDER BY 1 LIMIT 1)
                FROM users WHERE users.user_id IS NOT NULL
            )
            SELECT user_id FROM users WHERE user_id IS NOT NULL LIMIT $2"""

    @cached_property
    def info(self) -> str:
        return f"""SELECT incarnation, (SELECT max(version) FROM {self._schema}), shard_number, shard_count
            FROM {self._store}"""

    @cached_property
    def take_shard(self) -> str:
        return f"UPDATE {self._store} SET shard_number = $1, shard_count = $2 WHERE shard_number IS NULL"

    @cached_property
    def takes_writes(self) -> str:
        """False on a standby, and on a server that was set to read-only, as a host may do when its disk is full."""
        return f"""SELECT current_setting('transaction_read_only') = 'off' FROM {self._head}
            RIGHT JOIN (VALUES (1)) AS one ON true LIMIT 1"""

    @cached_property
    def require_room(self) -> str:
        return f"""BEGIN; INSERT INTO {self._entry} ({ENTRY_COLUMNS})
            SELECT -1, n, 0, true, '', '', decode(repeat('00', 7000), 'hex') FROM generate_series(1, 8) AS n;
            ROLLBACK"""

    @cached_property
    def delete_session(self) -> str:
        return self._delete(SESSION)

    @cached_property
    def delete_sessions_after(self) -> str:
        return self._delete(SESSIONS_AFTER)

    def _delete(self, which: str) -> str:
        """Turn heads into tombstones.

        Heads are locked in the order of their session ids, so that two deletes of one user do not wait for each other.
        The number of entries comes from head and entries, since one of the two may be damaged.
        """
        return f"""WITH selected AS MATERIALIZED (
                SELECT session_id, seq FROM {self._head} WHERE {which} AND NOT deleted
                ORDER BY session_id LIMIT {DELETE_BATCH} FOR UPDATE
            )
            UPDATE {self._head} AS h SET {_TOMBSTONE}
            FROM selected WHERE h.user_id = $1 AND h.session_id = selected.session_id
            RETURNING log, greatest(1, least(selected.seq, (SELECT max(e.seq) FROM {self._entry} e
                WHERE e.log = h.log))), selected.session_id"""

    @cached_property
    def mend_tombstone(self) -> str:
        """A sound tombstone in the place of a damaged one."""
        return f"UPDATE {self._head} SET {_TOMBSTONE} WHERE {SESSION} AND deleted"

    @cached_property
    def delete_entries(self) -> str:
        return f"DELETE FROM {self._entry} WHERE log = ANY($1::bigint[]) AND seq > $2 AND seq <= $3"

    @cached_property
    def touch_session(self) -> str:
        return self._touch(SESSION)

    @cached_property
    def touch_user(self) -> str:
        return self._touch(SESSIONS_OF_USER)

    def _touch(self, which: str) -> str:
        """Write a head without a change.

        The commit of a write waits until the standbys have all writes before it. So after this statement, what was
        found to be done already has reached them too, also if the wait of its own commit was cut short.
        """
        return (
            f"UPDATE {self._head} SET heartbeat = heartbeat"
            f" WHERE {which} AND session_id = (SELECT min(session_id) FROM {self._head} WHERE {which})"
        )

    @cached_property
    def restore_new(self) -> str:
        """A session that was never here."""
        return f"""INSERT INTO {self._head} (user_id, session_id, {HEAD_COLUMNS})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            ON CONFLICT (user_id, session_id) DO NOTHING RETURNING log"""

    @cached_property
    def lock(self) -> str:
        """The head, locked. A commit behind it waits for the standbys as that of a change."""
        return f"SELECT log, {HEAD_COLUMNS} FROM {self._head} WHERE {SESSION} FOR UPDATE"

    @cached_property
    def origins(self) -> str:
        return f"""SELECT origin FROM {self._entry}
            WHERE log = $1 AND seq >= $2 AND seq <= $3 AND part = 0 ORDER BY seq"""

    @cached_property
    def restore_head(self) -> str:
        return f"""UPDATE {self._head} SET ({HEAD_COLUMNS}) = ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            WHERE {SESSION}"""

    @cached_property
    def restore_row(self) -> str:
        return f"INSERT INTO {self._entry} ({ENTRY_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"


def _columns(payload: str) -> str:
    """Return the columns of an entry's row. The first ones have the types of a head's first ones."""
    return f"e.seq, e.origin, e.bookkeeping, e.id, {payload}, NULL, NULL, NULL, NULL, NULL, NULL, e.part"
