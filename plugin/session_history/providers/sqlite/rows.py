"""The contract in SQL statements. The caller opens the transaction of each function, except of ``unchanged_since``."""

from __future__ import annotations

import sqlite3
import time

from session_history.providers.sqlite.file import SEQ_BITS
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
    select_seqs,
)

MAX_SEQ = 2**SEQ_BITS - 1

_SELECT_HEAD = """SELECT log, user_id, session_id, generation, seq, tail_id, deleted, heartbeat, rewrites, active_us,
    snapshot_seq, snapshot_id, summary FROM head """

Row = tuple[int, str, str, int, int, str, int, int, int, int, int | None, str, bytes]


def read(
    connection: sqlite3.Connection,
    key: SessionKey,
    page: int,
    last: int | None,
    before: int | None,
    after: int | None,
    entry_id: str | None,
) -> Log | None:
    row = _find_head(connection, key)
    if row is None:
        return None
    head, log = _head(row), row[0]
    seqs = select_seqs(head.tail.seq, page, last=last, before=before, after=after)
    entries = _entries(connection, log, seqs, key) if seqs else ()
    return Log(head, seqs.start if entries else head.tail.seq + 1, entries, _find_entry(connection, log, entry_id))


def unchanged_since(connection: sqlite3.Connection, key: SessionKey, after: int) -> Log | None:
    """Return a log without entries after ``after``, as :func:`read` does, or ``None`` for any other log."""
    row = _find_head(connection, key)
    head = _head(row) if row else None
    return Log(head, head.tail.seq + 1, ()) if head and head.tail.seq <= after else None


def append(
    connection: sqlite3.Connection, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None
) -> Appended:
    row = _find_head(connection, key)
    head = _head(row) if row else None
    if row and head and not head.deleted:
        seq = _find_seq(connection, row[0], entry.id) if at.generation == head.tail.generation else None
        if seq:
            return Appended(Position(at.generation, seq), replayed=True)
        expected = head.tail
    else:
        expected = Position(head.tail.generation + 1, 0) if head else Position(0, 0)
    if at != expected:
        raise Conflict(head)
    log = row[0] if row else _insert_head(connection, key)
    position = Position(at.generation, at.seq + 1)
    connection.execute(
        "INSERT INTO entry (k, id, payload) VALUES (?, ?, ?)", (_entry_key(log, position.seq), entry.id, entry.payload)
    )
    _move_head(connection, log, position, entry.id, snapshot, _next_active_us(head))
    return Appended(position, replayed=False)


def renew(connection: sqlite3.Connection, key: SessionKey, at: Position) -> bool:
    changed = connection.execute(
        "UPDATE head SET heartbeat = heartbeat + 1"
        " WHERE user_id = ? AND session_id = ? AND deleted = 0 AND generation = ? AND seq = ?",
        (key.user_id, key.session_id, at.generation, at.seq),
    )
    return changed.rowcount == 1


def rewrite(
    connection: sqlite3.Connection,
    key: SessionKey,
    entry: Entry,
    at: Position,
    rewrites: int,
    snapshot: Snapshot | None,
) -> Head:
    row = _find_head(connection, key)
    head = _head(row) if row else None
    if row is None or head is None or (head.tail.generation, head.rewrites) != (at.generation, rewrites):
        raise Conflict(head)
    if _find_seq(connection, row[0], entry.id) != at.seq:
        raise Conflict(head)
    connection.execute("UPDATE entry SET payload = ? WHERE k = ?", (entry.payload, _entry_key(row[0], at.seq)))
    columns = (snapshot.seq, snapshot.entry_id, snapshot.summary) if snapshot else (None, None, None)
    connection.execute(
        "UPDATE head SET rewrites = rewrites + 1, snapshot_seq = ?, snapshot_id = ?, summary = ? WHERE log = ?",
        (*columns, row[0]),
    )
    return _head(_find_head(connection, key) or row)


def list_heads(connection: sqlite3.Connection, user_id: str, limit: int, behind: ListingCursor | None) -> Page:
    condition = ""
    values: tuple[object, ...] = ()
    if behind:
        condition = "AND active_us <= ? AND (active_us < ? OR session_id > ?)"
        values = (behind.active_us, behind.active_us, behind.session_id)
    rows = connection.execute(
        f"{_SELECT_HEAD} WHERE user_id = ? AND deleted = 0 {condition} ORDER BY active_us DESC, session_id LIMIT ?",
        (user_id, *values, limit + 1),
    ).fetchall()
    heads = tuple(_head(row) for row in rows[:limit])
    return Page(heads, ListingCursor.behind(heads[-1]).encode() if len(rows) > limit else None)


def delete(connection: sqlite3.Connection, key: SessionKey) -> bool:
    row = _find_head(connection, key)
    if row is None or row[6]:
        return False
    _write_tombstone(connection, row[0])
    return True


def delete_user(connection: sqlite3.Connection, user_id: str) -> int:
    logs = connection.execute("SELECT log FROM head WHERE user_id = ? AND deleted = 0", (user_id,)).fetchall()
    for (log,) in logs:
        _write_tombstone(connection, log)
    return len(logs)


def _write_tombstone(connection: sqlite3.Connection, log: int) -> None:
    """Replace a log by its tombstone, without a read of its head: a damaged session can be deleted."""
    connection.execute("DELETE FROM entry WHERE k BETWEEN ? AND ?", (_entry_key(log, 0), _entry_key(log, MAX_SEQ)))
    connection.execute(
        "UPDATE head SET seq = 0, tail_id = '', deleted = 1, heartbeat = 0, rewrites = 0,"
        " active_us = max(?, CAST(active_us AS INTEGER) + 1),"
        " snapshot_seq = NULL, snapshot_id = NULL, summary = NULL WHERE log = ?",
        (_next_active_us(None), log),
    )


def _insert_head(connection: sqlite3.Connection, key: SessionKey) -> int:
    inserted = connection.execute(
        "INSERT INTO head (user_id, session_id, generation, seq, tail_id, deleted, heartbeat, rewrites, active_us)"
        " VALUES (?, ?, 0, 0, '', 1, 0, 0, 0)",
        (key.user_id, key.session_id),
    )
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def _move_head(
    connection: sqlite3.Connection, log: int, tail: Position, tail_id: str, snapshot: Snapshot | None, active_us: int
) -> None:
    values: list[object] = [tail.generation, tail.seq, tail_id, active_us]
    columns = ""
    if snapshot:
        columns = ", snapshot_seq = ?, snapshot_id = ?, summary = ?"
        values += [snapshot.seq, snapshot.entry_id, snapshot.summary]
    connection.execute(
        f"UPDATE head SET generation = ?, seq = ?, tail_id = ?, active_us = ?, deleted = 0{columns} WHERE log = ?",
        (*values, log),
    )


def _find_head(connection: sqlite3.Connection, key: SessionKey) -> Row | None:
    found: Row | None = connection.execute(
        f"{_SELECT_HEAD} WHERE user_id = ? AND session_id = ?", (key.user_id, key.session_id)
    ).fetchone()
    return found


def _head(row: Row) -> Head:
    try:
        return _readable_head(row)
    except (TypeError, ValueError):
        raise Corrupt(f"the head of log {row[0]} is unreadable; the session can only be deleted") from None


def _readable_head(row: Row) -> Head:
    (
        _,
        user_id,
        session_id,
        generation,
        seq,
        tail_id,
        deleted,
        heartbeat,
        rewrites,
        active_us,
        snapshot_seq,
        snapshot_id,
        summary,
    ) = row
    numbers = (generation, seq, deleted, heartbeat, rewrites, active_us, 0 if snapshot_seq is None else snapshot_seq)
    if set(map(type, numbers)) != {int} or type(tail_id) is not str:
        raise TypeError("a column holds a value of another type")
    return Head(
        SessionKey(user_id, session_id),
        Position(generation, seq),
        tail_id,
        deleted=bool(deleted),
        heartbeat=heartbeat,
        rewrites=rewrites,
        active_us=active_us,
        snapshot=None if snapshot_seq is None else Snapshot(snapshot_seq, snapshot_id, summary),
    )


def _entries(connection: sqlite3.Connection, log: int, seqs: range, key: SessionKey) -> tuple[Entry, ...]:
    rows = connection.execute(
        "SELECT id, payload FROM entry WHERE k BETWEEN ? AND ? ORDER BY k",
        (_entry_key(log, seqs[0]), _entry_key(log, seqs[-1])),
    ).fetchall()
    if len(rows) != len(seqs):
        raise Corrupt(f"{key} lacks {len(seqs) - len(rows)} of its entries {seqs[0]} to {seqs[-1]}")
    return tuple(Entry(*row) for row in rows)


def _find_entry(connection: sqlite3.Connection, log: int, entry_id: str | None) -> tuple[int, Entry] | None:
    if entry_id is None:
        return None
    row = connection.execute(
        f"SELECT k & {MAX_SEQ}, id, payload FROM entry WHERE k >> {SEQ_BITS} = ? AND id = ?", (log, entry_id)
    ).fetchone()
    return (row[0], Entry(row[1], row[2])) if row else None


def _find_seq(connection: sqlite3.Connection, log: int, entry_id: str) -> int | None:
    row = connection.execute(
        f"SELECT k & {MAX_SEQ} FROM entry WHERE k >> {SEQ_BITS} = ? AND id = ?", (log, entry_id)
    ).fetchone()
    return row[0] if row else None


def _entry_key(log: int, seq: int) -> int:
    return log << SEQ_BITS | seq


def _next_active_us(head: Head | None) -> int:
    return max(time.time_ns() // 1000, head.active_us + 1 if head else 0)
