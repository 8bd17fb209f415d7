"""The heads of logs: a row for each session, deleted or not."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from session_history.providers.sqlite.entries import FLAGS, MAX_SEQ
from session_history.providers.sqlite.file import is_undecodable
from session_history_hooks import Corrupt, Entry, Head, InvalidKey, Page, Position, SessionKey, Snapshot
from session_history_hooks.stored import LAST_US, MAX_NUMBER, ListedRow, checked_head, listed_page

SELECT = """SELECT log, user_id, session_id, generation, seq, tail_origin, deleted, heartbeat, rewrite_id, active_us,
    changed_us, snapshot_seq, snapshot_origin, summary FROM head"""

_SELECT_END = f"""SELECT generation, seq, tail_origin, log FROM head WHERE user_id = ? AND session_id = ?
    AND deleted = 0 AND typeof(active_us) = 'integer' AND typeof(changed_us) = 'integer'
    AND changed_us BETWEEN 0 AND {LAST_US} AND typeof(heartbeat) = 'integer' AND typeof(rewrite_id) = 'text'"""

_INSERT = """INSERT INTO head (generation, seq, tail_origin, deleted, heartbeat, rewrite_id, active_us, changed_us,
    snapshot_seq, snapshot_origin, summary, user_id, session_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_UPDATE = """UPDATE head SET generation = ?, seq = ?, tail_origin = ?, deleted = ?, heartbeat = ?, rewrite_id = ?,
    active_us = ?, changed_us = ?, snapshot_seq = ?, snapshot_origin = ?, summary = ? WHERE log = ?"""

_LATER = "max(?, changed_us + 1)"
"""The time of a change: now, but later than the last one."""

_DELETED_AT = f"""max(?, CASE WHEN typeof(changed_us) = 'integer' AND changed_us BETWEEN 0 AND {LAST_US} - 1
    THEN changed_us + 1 ELSE 0 END)"""
"""The same for a head that may be damaged."""

UNKNOWN_STATE = "deleted NOT IN (0, 1)"
"""The condition of the index ``unknown_state``, which has only damaged heads."""

_GENERATION = f"""CASE WHEN typeof(generation) = 'integer' AND generation BETWEEN 0 AND {MAX_NUMBER} THEN generation
    ELSE CAST(strftime('%s', 'now') AS INTEGER) END"""
"""The generation of a session that is deleted. A damaged one becomes a number that no life of the session had, the
seconds since the epoch: a turn in flight names the lost one and must be refused."""

Row = tuple[int, str, str, int, int, str, int, int, str, int, int, int | None, str, bytes]
"""A row of :data:`SELECT`."""


class Found(NamedTuple):
    """The head of a log, and the number of the log in this file."""

    log: int
    head: Head


def find(connection: sqlite3.Connection, key: SessionKey) -> Found | None:
    """:raises Corrupt: the head is damaged. The error names the session and the value."""
    try:
        row: Row | None = connection.execute(
            f"{SELECT} WHERE user_id = ? AND session_id = ?", (key.user_id, key.session_id)
        ).fetchone()
    except sqlite3.OperationalError as error:
        if not is_undecodable(error):
            raise
        raise Corrupt(f"the head of {key} holds text that is not UTF-8; the session can only be deleted") from None
    return Found(row[0], decode(row, key)) if row else None


def find_end(connection: sqlite3.Connection, key: SessionKey, at: Position, origin: str | None) -> int:
    """Return the log of a living session that ends at ``at`` with this origin; ``None`` is any origin.

    :returns: 0 for any other session, and for a damaged one. The few columns cost less than half of a head.
    """
    row = connection.execute(_SELECT_END, (key.user_id, key.session_id)).fetchone()
    ends_here = row and row[:2] == (at.generation, at.seq) and origin in (None, row[2])
    return row[3] if ends_here else 0


def write(connection: sqlite3.Connection, head: Head, log: int) -> int:
    """Write the head of a log; of a new one if ``log`` is 0. Return the log."""
    tail, snapshot = head.tail, head.snapshot
    values = (
        tail.generation,
        tail.seq,
        head.tail_origin,
        head.deleted,
        head.heartbeat,
        head.rewrite_id,
        head.active_us,
        head.changed_us,
        *((snapshot.seq, snapshot.origin, snapshot.summary) if snapshot else (None, None, None)),
    )
    if log:
        connection.execute(_UPDATE, (*values, log))
        return log
    inserted = connection.execute(_INSERT, (*values, head.key.user_id, head.key.session_id))
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def extend(connection: sqlite3.Connection, log: int, entry: Entry, snapshot: Snapshot | None) -> None:
    """Move the head of a living log behind one more entry. Without a snapshot the old one stays."""
    now = _now_us()
    changes = f"seq = seq + 1, tail_origin = ?, changed_us = {_LATER}"
    values: list[object] = [entry.origin, now]
    if not entry.bookkeeping:
        changes += f", active_us = {_LATER}"
        values.append(now)
    if snapshot:
        changes += ", snapshot_seq = ?, snapshot_origin = ?, summary = ?"
        values += [snapshot.seq, snapshot.origin, snapshot.summary]
    connection.execute(f"UPDATE head SET {changes} WHERE log = ?", (*values, log))


def write_tombstone(connection: sqlite3.Connection, log: int) -> None:
    """Replace a head by its tombstone, without a read of the head: a damaged session can be deleted."""
    now = _now_us()
    connection.execute(
        f"""UPDATE head SET generation = {_GENERATION}, seq = 0, tail_origin = '', deleted = 1, heartbeat = 0,
            rewrite_id = '', active_us = {_DELETED_AT}, changed_us = {_DELETED_AT},
            snapshot_seq = NULL, snapshot_origin = NULL, summary = NULL WHERE log = ?""",
        (now, now, log),
    )


def decode(row: Row, key: SessionKey) -> Head:
    """Return the head of a row. :raises Corrupt: a column holds a wrong value."""
    (
        _,
        _,
        _,
        generation,
        seq,
        tail_origin,
        deleted,
        heartbeat,
        rewrite_id,
        active_us,
        changed_us,
        snapshot_seq,
        snapshot_origin,
        summary,
    ) = row
    head = Head(
        key,
        Position(generation, seq),
        tail_origin,
        deleted=FLAGS.get(deleted, deleted),  # type: ignore[arg-type]  # checked with the others
        heartbeat=heartbeat,
        rewrite_id=rewrite_id,
        active_us=active_us,
        changed_us=changed_us,
        snapshot=None if snapshot_seq is None else Snapshot(snapshot_seq, snapshot_origin, summary),
    )
    return checked_head(head, entries=MAX_SEQ)


def listed(row: Row) -> ListedRow:
    """Return a row of a listing by activity."""
    key, active_us = _key_of(row), row[9]
    return ListedRow(key, _decoded(row, key), active_us if type(active_us) is int and active_us >= 0 else None)


def listed_by_id(row: Row) -> ListedRow:
    """Return a row of a listing by session id."""
    key = _key_of(row)
    return ListedRow(key, _decoded(row, key), 0)


def page(
    connection: sqlite3.Connection,
    condition: str,
    values: Sequence[object],
    limit: int,
    read: Callable[[Row], ListedRow],
) -> Page:
    """Return a page of the rows that fulfil a condition, in the order that it names."""
    wanted = limit + 1
    while True:
        rows = fetch(connection, f"{SELECT} WHERE {condition} LIMIT ?", (*values, wanted))
        listed = listed_page([read(row) for row in rows], limit, more=len(rows) == wanted)
        if listed is not None:
            return listed
        wanted *= 2  # so many damaged rows, at which no page can end


def with_unknown_state(connection: sqlite3.Connection, user_id: str, page: Page) -> Page:
    """Return a page, and with it the sessions of a user of which the head does not say whether they were deleted."""
    rows = fetch(connection, f"{SELECT} WHERE {UNKNOWN_STATE} AND user_id = ?", (user_id,))
    keys = [_key_of(row) for row in rows]
    if not keys:
        return page
    return replace(page, unreadable=(*page.unreadable, *filter(None, keys)), unnamed=page.unnamed + keys.count(None))


def fetch(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> list[Any]:
    """Return rows. A text that is not UTF-8 is returned as bytes."""
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError as error:
        if not is_undecodable(error):
            raise
    connection.text_factory = _text_or_bytes  # slower than str
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.text_factory = str


def _key_of(row: Row) -> SessionKey | None:
    try:
        return SessionKey(row[1], row[2])
    except InvalidKey:
        return None


def _decoded(row: Row, key: SessionKey | None) -> Head | None:
    try:
        return decode(row, key) if key else None
    except Corrupt:
        return None


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _now_us() -> int:
    return time.time_ns() // 1000
