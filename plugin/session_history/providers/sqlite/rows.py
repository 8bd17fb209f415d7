"""The statements of the contract, run inside a transaction that the caller opened."""

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

_HEAD = """SELECT log, user_id, session_id, generation, seq, tail_id, deleted, heartbeat, rewrites, active_us,
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
    head, number = _head(row), row[0]
    seqs = select_seqs(head.tail.seq, page, last=last, before=before, after=after)
    entries = _entries(connection, number, seqs, key) if seqs else ()
    return Log(head, seqs.start if entries else head.tail.seq + 1, entries, _find_entry(connection, number, entry_id))


def nothing_behind(connection: sqlite3.Connection, key: SessionKey, after: int) -> Log | None:
    """The head of a log that ends at ``after`` or before, as :func:`read` would give it; ``None`` for any other."""
    row = _find_head(connection, key)
    head = _head(row) if row else None
    return Log(head, head.tail.seq + 1, ()) if head and head.tail.seq <= after else None


def append(
    connection: sqlite3.Connection, key: SessionKey, entry: Entry, at: Position, snapshot: Snapshot | None
) -> Appended:
    row = _find_head(connection, key)
    head = _head(row) if row else None
    if row and head and not head.deleted:
        known = _seq(connection, row[0], entry.id) if at.generation == head.tail.generation else None
        if known:
            return Appended(Position(at.generation, known), replayed=True)
        allowed = head.tail
    else:
        allowed = Position(head.tail.generation + 1, 0) if head else Position(0, 0)
    if at != allowed:
        raise Conflict(head)
    number = row[0] if row else _insert_head(connection, key)
    position = Position(at.generation, at.seq + 1)
    connection.execute(
        "INSERT INTO entry (k, id, payload) VALUES (?, ?, ?)", (_pack(number, position.seq), entry.id, entry.payload)
    )
    _move_head(connection, number, position, entry.id, snapshot, _tick(head))
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
    if _seq(connection, row[0], entry.id) != at.seq:
        raise Conflict(head)
    connection.execute("UPDATE entry SET payload = ? WHERE k = ?", (entry.payload, _pack(row[0], at.seq)))
    covers = (snapshot.seq, snapshot.entry_id, snapshot.summary) if snapshot else (None, None, None)
    connection.execute(
        "UPDATE head SET rewrites = rewrites + 1, snapshot_seq = ?, snapshot_id = ?, summary = ? WHERE log = ?",
        (*covers, row[0]),
    )
    return _head(_find_head(connection, key) or row)


def list_heads(connection: sqlite3.Connection, user_id: str, limit: int, behind: ListingCursor | None) -> Page:
    place = ""
    values: tuple[object, ...] = ()
    if behind:
        place = "AND active_us <= ? AND (active_us < ? OR session_id > ?)"
        values = (behind.active_us, behind.active_us, behind.session_id)
    rows = connection.execute(
        f"{_HEAD} WHERE user_id = ? AND deleted = 0 {place} ORDER BY active_us DESC, session_id LIMIT ?",
        (user_id, *values, limit + 1),
    ).fetchall()
    heads = tuple(_head(row) for row in rows[:limit])
    return Page(heads, ListingCursor.behind(heads[-1]).encode() if len(rows) > limit else None)


def delete(connection: sqlite3.Connection, key: SessionKey) -> bool:
    row = _find_head(connection, key)
    if row is None or row[6]:
        return False
    _bury(connection, row[0])
    return True


def delete_user(connection: sqlite3.Connection, user_id: str) -> int:
    numbers = connection.execute("SELECT log FROM head WHERE user_id = ? AND deleted = 0", (user_id,)).fetchall()
    for (number,) in numbers:
        _bury(connection, number)
    return len(numbers)


def _bury(connection: sqlite3.Connection, number: int) -> None:
    """Needs nothing of the head that may be unreadable: what is damaged can be deleted, too."""
    connection.execute("DELETE FROM entry WHERE k BETWEEN ? AND ?", (_pack(number, 0), _pack(number, MAX_SEQ)))
    connection.execute(
        "UPDATE head SET seq = 0, tail_id = '', deleted = 1, heartbeat = 0, rewrites = 0,"
        " active_us = max(?, CAST(active_us AS INTEGER) + 1),"
        " snapshot_seq = NULL, snapshot_id = NULL, summary = NULL WHERE log = ?",
        (_tick(None), number),
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
    connection: sqlite3.Connection, number: int, tail: Position, tail_id: str, snapshot: Snapshot | None, active_us: int
) -> None:
    moved: list[object] = [tail.generation, tail.seq, tail_id, active_us]
    covers = ""
    if snapshot:
        covers = ", snapshot_seq = ?, snapshot_id = ?, summary = ?"
        moved += [snapshot.seq, snapshot.entry_id, snapshot.summary]
    connection.execute(
        f"UPDATE head SET generation = ?, seq = ?, tail_id = ?, active_us = ?, deleted = 0{covers} WHERE log = ?",
        (*moved, number),
    )


def _find_head(connection: sqlite3.Connection, key: SessionKey) -> Row | None:
    found: Row | None = connection.execute(
        f"{_HEAD} WHERE user_id = ? AND session_id = ?", (key.user_id, key.session_id)
    ).fetchone()
    return found


def _head(row: Row) -> Head:
    try:
        return _readable_head(row)
    except (TypeError, ValueError):
        raise Corrupt(f"the head of log {row[0]} is unreadable") from None


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


def _entries(connection: sqlite3.Connection, number: int, seqs: range, key: SessionKey) -> tuple[Entry, ...]:
    rows = connection.execute(
        "SELECT id, payload FROM entry WHERE k BETWEEN ? AND ? ORDER BY k",
        (_pack(number, seqs[0]), _pack(number, seqs[-1])),
    ).fetchall()
    if len(rows) != len(seqs):
        raise Corrupt(f"{key} lacks {len(seqs) - len(rows)} of its entries {seqs[0]} to {seqs[-1]}")
    return tuple(Entry(*row) for row in rows)


def _find_entry(connection: sqlite3.Connection, number: int, entry_id: str | None) -> tuple[int, Entry] | None:
    if entry_id is None:
        return None
    row = connection.execute(
        f"SELECT k & {MAX_SEQ}, id, payload FROM entry WHERE k >> {SEQ_BITS} = ? AND id = ?", (number, entry_id)
    ).fetchone()
    return (row[0], Entry(row[1], row[2])) if row else None


def _seq(connection: sqlite3.Connection, number: int, entry_id: str) -> int | None:
    row = connection.execute(
        f"SELECT k & {MAX_SEQ} FROM entry WHERE k >> {SEQ_BITS} = ? AND id = ?", (number, entry_id)
    ).fetchone()
    return row[0] if row else None


def _pack(number: int, seq: int) -> int:
    return number << SEQ_BITS | seq


def _tick(head: Head | None) -> int:
    return max(time.time_ns() // 1000, head.active_us + 1 if head else 0)
