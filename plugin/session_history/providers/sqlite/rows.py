"""The contract in SQL statements. The caller opens the transaction of each function, except of ``unchanged_since``."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from session_history.providers.sqlite import entries, heads
from session_history_hooks import (
    Appended,
    Conflict,
    Entry,
    Head,
    Limits,
    ListingCursor,
    Log,
    Page,
    Position,
    SessionKey,
    Snapshot,
    select_seqs,
)


def read(
    connection: sqlite3.Connection,
    key: SessionKey,
    limits: Limits,
    last: int | None,
    before: int | None,
    after: int | None,
    entry_id: str | None,
) -> Log | None:
    found = heads.find(connection, key)
    if found is None:
        return None
    log, head = found
    seqs = select_seqs(head.tail.seq, limits.page, last=last, before=before, after=after)
    is_page, newest_first = last is None, last is None and after is None
    rows = entries.read(connection, log, seqs[::-1] if newest_first else seqs, key)
    read = limits.fitting(rows) if is_page else list(rows)
    if newest_first:
        read.reverse()
    first = seqs.stop - len(read) if newest_first else seqs.start
    match = _match(connection, log, entry_id, key) if entry_id is not None else None
    return Log(head, first if read else head.tail.seq + 1, tuple(read), match)


def unchanged_since(connection: sqlite3.Connection, key: SessionKey, after: int) -> Log | None:
    """Return a log without entries after ``after``, as :func:`read` does, or ``None`` for any other log."""
    found = heads.find(connection, key)
    return Log(found.head, found.head.tail.seq + 1, ()) if found and found.head.tail.seq <= after else None


def append(
    connection: sqlite3.Connection,
    key: SessionKey,
    entry: Entry,
    at: Position,
    tail_origin: str | None,
    snapshot: Snapshot | None,
) -> Appended:
    found = heads.find(connection, key)
    if found and not found.head.deleted:
        recorded = _check(connection, found, entry, at, tail_origin)
        if recorded:
            return Appended(Position(at.generation, recorded), replayed=True)
    elif at != (Position(found.head.tail.generation + 1, 0) if found else Position(0, 0)):
        raise Conflict(found.head if found else None)
    head = _grown(key, found.head if found else None, entry, at, snapshot)
    log = heads.write(connection, head, found.log if found else None)
    entries.add(connection, log, head.tail.seq, entry)
    return Appended(head.tail, replayed=False)


def renew(connection: sqlite3.Connection, key: SessionKey, at: Position, tail_origin: str | None) -> bool:
    changed = connection.execute(
        "UPDATE head SET heartbeat = heartbeat + 1 WHERE user_id = ? AND session_id = ? AND deleted = 0"
        " AND generation = ? AND seq = ? AND tail_origin = coalesce(?, tail_origin)",
        (key.user_id, key.session_id, at.generation, at.seq, tail_origin),
    )
    return changed.rowcount == 1


def rewrite(
    connection: sqlite3.Connection,
    key: SessionKey,
    entry: Entry,
    at: Position,
    rewrite_id: str,
    last_rewrite_id: str,
    snapshot: Snapshot | None,
) -> Head:
    found = heads.find(connection, key)
    if found is None or found.head.tail.generation != at.generation:
        raise Conflict(found.head if found else None)
    log, head = found
    if head.rewrite_id == rewrite_id:
        return head
    if head.rewrite_id != last_rewrite_id or not 0 < at.seq <= head.tail.seq:
        raise Conflict(head)
    if not entries.replace_payload(connection, log, at.seq, entry):
        raise Conflict(head)
    head = replace(head, rewrite_id=rewrite_id, snapshot=snapshot)
    heads.write(connection, head, log)
    return head


def list_heads(connection: sqlite3.Connection, user_id: str, limit: int, behind: ListingCursor | None) -> Page:
    condition = ""
    values: tuple[object, ...] = ()
    if behind:
        condition = "AND active_us <= ? AND (active_us < ? OR session_id > ?)"
        values = (behind.active_us, behind.active_us, behind.session_id)
    rows = connection.execute(
        f"{heads.SELECT} WHERE user_id = ? AND deleted = 0 {condition} ORDER BY active_us DESC, session_id LIMIT ?",
        (user_id, *values, limit + 1),
    ).fetchall()
    listed = tuple(heads.decode(row) for row in rows[:limit])
    return Page(listed, ListingCursor.behind(listed[-1]).encode() if len(rows) > limit else None)


def delete(connection: sqlite3.Connection, key: SessionKey) -> bool:
    return _delete(connection, "user_id = ? AND session_id = ?", (key.user_id, key.session_id)) == 1


def delete_user(connection: sqlite3.Connection, user_id: str) -> int:
    return _delete(connection, "user_id = ?", (user_id,))


def _delete(connection: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> int:
    """Replace sessions by their tombstones, and return how many."""
    logs = connection.execute(f"SELECT log FROM head WHERE deleted = 0 AND {condition}", values).fetchall()
    for (log,) in logs:
        entries.delete(connection, log)
        heads.write_tombstone(connection, log)
    return len(logs)


def _match(connection: sqlite3.Connection, log: int, entry_id: str, key: SessionKey) -> tuple[int, Entry] | None:
    seq = entries.known(connection, log, [entry_id]).get(entry_id)
    if seq is None:
        return None
    [entry] = entries.read(connection, log, range(seq, seq + 1), key)
    return seq, entry


def _check(
    connection: sqlite3.Connection, found: heads.Found, entry: Entry, at: Position, tail_origin: str | None
) -> int | None:
    """Check that an entry can be appended to a living log, and return the seq of the one that has its id already.

    :raises Conflict: it cannot.
    """
    log, head = found
    keys: tuple[str, ...] = ()
    if at.generation == head.tail.generation:
        known = entries.known(connection, log, (entry.id, *entry.keys))
        if entry.id in known:
            return known[entry.id]
        keys = tuple(key for key in entry.keys if key in known)
    if keys or head.tail != at or tail_origin not in (None, head.tail_origin):
        raise Conflict(head, keys=keys)
    return None


def _grown(key: SessionKey, head: Head | None, entry: Entry, at: Position, snapshot: Snapshot | None) -> Head:
    """Return the head behind a new entry. A tombstone's is like that of a session never seen."""
    changed_us = heads.next_us(head)
    is_activity = at.seq == 0 or not entry.bookkeeping
    return Head(
        key,
        Position(at.generation, at.seq + 1),
        entry.origin,
        deleted=False,
        heartbeat=head.heartbeat if head else 0,
        rewrite_id=head.rewrite_id if head else "",
        active_us=changed_us if is_activity or head is None else head.active_us,
        changed_us=changed_us,
        snapshot=snapshot or (head.snapshot if head else None),
    )
