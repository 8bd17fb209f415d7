"""The heads of logs: a row for each session, deleted or not."""

from __future__ import annotations

import sqlite3
import time
from typing import NamedTuple

from session_history_hooks import Corrupt, Entry, Head, Position, SessionKey, Snapshot

SELECT = """SELECT log, user_id, session_id, generation, seq, tail_origin, deleted, heartbeat, rewrite_id, active_us,
    changed_us, snapshot_seq, snapshot_origin, summary FROM head"""

_SELECT_END = """SELECT generation, seq, tail_origin, log FROM head WHERE user_id = ? AND session_id = ? AND deleted = 0
    AND typeof(active_us) = 'integer' AND typeof(changed_us) = 'integer'"""

_INSERT = """INSERT INTO head (generation, seq, tail_origin, deleted, heartbeat, rewrite_id, active_us, changed_us,
    snapshot_seq, snapshot_origin, summary, user_id, session_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_UPDATE = """UPDATE head SET generation = ?, seq = ?, tail_origin = ?, deleted = ?, heartbeat = ?, rewrite_id = ?,
    active_us = ?, changed_us = ?, snapshot_seq = ?, snapshot_origin = ?, summary = ? WHERE log = ?"""

_LATER = "max(?, CAST(changed_us AS INTEGER) + 1)"
"""The time of a change: now, but later than the last one."""

Row = tuple[int, str, str, int, int, str, int, int, str, int, int, int | None, str, bytes]
"""A row of :data:`SELECT`."""


class Found(NamedTuple):
    """The head of a log, and the number of the log in this file."""

    log: int
    head: Head


def find(connection: sqlite3.Connection, key: SessionKey) -> Found | None:
    row: Row | None = connection.execute(
        f"{SELECT} WHERE user_id = ? AND session_id = ?", (key.user_id, key.session_id)
    ).fetchone()
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
        f"""UPDATE head SET seq = 0, tail_origin = '', deleted = 1, heartbeat = 0, rewrite_id = '',
            active_us = {_LATER}, changed_us = {_LATER},
            snapshot_seq = NULL, snapshot_origin = NULL, summary = NULL WHERE log = ?""",
        (now, now, log),
    )


def decode(row: Row, key: SessionKey | None = None) -> Head:
    """Return the head of a row.

    :param key: the key by which the row was found: it need not be checked again.
    :raises Corrupt: a column holds a value of another type.
    """
    try:
        return _readable(row, key)
    except (TypeError, ValueError):
        raise Corrupt(f"the head of log {row[0]} is unreadable; the session can only be deleted") from None


def _readable(row: Row, key: SessionKey | None) -> Head:
    (
        _,
        user_id,
        session_id,
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
    numbers = (generation, seq, deleted, heartbeat, active_us, changed_us, 0 if snapshot_seq is None else snapshot_seq)
    if set(map(type, numbers)) != {int} or type(tail_origin) is not str or type(rewrite_id) is not str:
        raise TypeError("a column holds a value of another type")
    return Head(
        key or SessionKey(user_id, session_id),
        Position(generation, seq),
        tail_origin,
        deleted=bool(deleted),
        heartbeat=heartbeat,
        rewrite_id=rewrite_id,
        active_us=active_us,
        changed_us=changed_us,
        snapshot=None if snapshot_seq is None else Snapshot(snapshot_seq, snapshot_origin, summary),
    )


def _now_us() -> int:
    return time.time_ns() // 1000
