"""The SQL of the contract: one statement for each read, and for each append that finds the head it expects."""

from __future__ import annotations

from functools import cached_property

from session_history.providers.postgresql.schema import Tables

DELETE_BATCH = 100
"""The most sessions of a user that one transaction deletes. A delete that fails keeps the transactions before it."""

NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

HEAD_COLUMNS = "generation, seq, tail_id, deleted, heartbeat, rewrites, active_us, snapshot_seq, snapshot_id, summary"

HEAD_TYPES = "bigint, integer, bytea, boolean, bigint, bigint, bigint, bigint, bytea, bytea"

NEWEST_SEQS = """e.seq >= (SELECT greatest($3::bigint, least($4::bigint, seq + 1) - $5::bigint) FROM head)
    AND e.seq < (SELECT least($4, seq + 1) FROM head)"""

OLDEST_SEQS = """e.seq >= $3::bigint
    AND e.seq < (SELECT least($4::bigint, seq + 1, $3 + $5::bigint) FROM head)"""
"""The seqs of a read, as :func:`~session_history_hooks.select_seqs` has them. Both ends of the range are known, so that
no plan reads more entries than these."""

SESSION = "user_id = $1 AND session_id = $2"
SESSIONS_OF_USER = "user_id = $1"
SESSIONS_AFTER = "user_id = $1 AND session_id > $2"


class Statements:
    """Statements on the tables of one schema, each made when it is first used."""

    def __init__(self, tables: Tables) -> None:
        self._head = tables.head
        self._entry = tables.entry

    @cached_property
    def read_newest(self) -> str:
        return self._read(NEWEST_SEQS)

    @cached_property
    def read_newest_and_match(self) -> str:
        return self._read(NEWEST_SEQS, match=True)

    @cached_property
    def read_oldest(self) -> str:
        return self._read(OLDEST_SEQS)

    @cached_property
    def read_oldest_and_match(self) -> str:
        return self._read(OLDEST_SEQS, match=True)

    def _read(self, seqs: str, *, match: bool = False) -> str:
        """Return head, entries and the entry with the id as rows of the same columns: a summary then comes only once.

        :param match: also read the entry with the id ``$6``.
        """
        nulls = [f"NULL::{each}" for each in HEAD_TYPES.split(", ")]
        one_entry = ", ".join([nulls[0], "e.seq", "e.id", *nulls[3:-1], "e.payload"])
        entries = f"FROM {self._entry} e WHERE e.log = (SELECT log FROM head)"
        matched = f"UNION ALL SELECT 2, {one_entry} {entries} AND e.id = $6" if match else ""
        return f"""WITH head AS MATERIALIZED (
                SELECT log, {HEAD_COLUMNS} FROM {self._head} WHERE {SESSION}
            )
            SELECT 0, {HEAD_COLUMNS} FROM head
            UNION ALL SELECT 1, {one_entry} {entries} AND {seqs}
            {matched}"""

    @cached_property
    def begin(self) -> str:
        """The first entry of a session that never existed."""
        return f"""WITH changed AS (
                INSERT INTO {self._head} ({HEAD_COLUMNS}, user_id, session_id)
                VALUES (0, 1, $4, false, 0, 0, {NOW}, $1, $2, $3, $6, $7)
                ON CONFLICT (user_id, session_id) DO NOTHING RETURNING log
            )
            INSERT INTO {self._entry} (log, seq, id, payload) SELECT log, 1, $4, $5 FROM changed RETURNING seq"""

    @cached_property
    def append(self) -> str:
        """Another entry, or the first one after a delete."""
        return f"""WITH changed AS (
                UPDATE {self._head} AS h SET generation = $11, seq = seq + 1, tail_id = $4, deleted = false,
                active_us = greatest({NOW}, active_us + 1),
                snapshot_seq = coalesce($1, snapshot_seq), snapshot_id = coalesce($2, snapshot_id),
                summary = coalesce($3, summary)
                WHERE user_id = $6 AND session_id = $7 AND generation = $8 AND seq = $9 AND deleted = $10
                AND NOT EXISTS (SELECT FROM {self._entry} e WHERE e.log = h.log AND e.id = $4)
                RETURNING log, seq
            )
            INSERT INTO {self._entry} (log, seq, id, payload) SELECT log, seq, $4, $5 FROM changed RETURNING seq"""

    @cached_property
    def find(self) -> str:
        """The head, and the seq of the entry with an id."""
        return f"""SELECT (SELECT e.seq FROM {self._entry} e WHERE e.log = h.log AND e.id = $3), {HEAD_COLUMNS}
            FROM {self._head} AS h WHERE {SESSION}"""

    @cached_property
    def renew(self) -> str:
        return f"""UPDATE {self._head} SET heartbeat = heartbeat + 1
            WHERE {SESSION} AND generation = $3 AND seq = $4 AND NOT deleted RETURNING heartbeat"""

    @cached_property
    def rewrite(self) -> str:
        return f"""WITH changed AS (
                UPDATE {self._head} AS h SET rewrites = rewrites + 1,
                snapshot_seq = $1, snapshot_id = $2, summary = $3
                WHERE user_id = $6 AND session_id = $7 AND generation = $8 AND rewrites = $10 AND NOT deleted
                AND EXISTS (SELECT FROM {self._entry} e WHERE e.log = h.log AND e.seq = $9 AND e.id = $4)
                RETURNING log, {HEAD_COLUMNS}
            ), replaced AS (
                UPDATE {self._entry} AS e SET payload = $5 FROM changed WHERE e.log = changed.log AND e.seq = $9
            )
            SELECT {HEAD_COLUMNS} FROM changed"""

    @cached_property
    def list(self) -> str:
        return f"""SELECT session_id, {HEAD_COLUMNS} FROM {self._head}
            WHERE user_id = $1 AND NOT deleted AND period <= $2
            AND (active_us < $3 OR (active_us = $3 AND session_id > $4))
            ORDER BY period DESC, active_us DESC, session_id LIMIT $5"""

    @cached_property
    def ping(self) -> str:
        return f"SELECT log FROM {self._head} LIMIT 1"

    @cached_property
    def delete_session(self) -> str:
        return self._delete(SESSION)

    @cached_property
    def delete_sessions_after(self) -> str:
        return self._delete(SESSIONS_AFTER)

    def _delete(self, which: str) -> str:
        """Turn heads into tombstones.

        Heads are locked in the order of their session ids, so that two deletes of one user do not wait for each other.
        """
        return f"""WITH selected AS MATERIALIZED (
                SELECT session_id, seq FROM {self._head} WHERE {which} AND NOT deleted
                ORDER BY session_id LIMIT {DELETE_BATCH} FOR UPDATE
            )
            UPDATE {self._head} AS h SET seq = 0, tail_id = '', deleted = true, heartbeat = 0, rewrites = 0,
            active_us = greatest({NOW}, active_us + 1), snapshot_seq = NULL, snapshot_id = NULL, summary = NULL
            FROM selected WHERE h.user_id = $1 AND h.session_id = selected.session_id
            RETURNING log, selected.seq, selected.session_id"""

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
