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
    newest_first = after is None
    page: list[Entry] = []
    if seqs:
        take = limits.fitting if last is None else list
        page = entries.read(connection, log, seqs[::-1] if newest_first else seqs, key, take)
    if newest_first:
        page.reverse()
    first = seqs.stop - len(page) if newest_first else seqs.start
    match = entries.find(connection, log, entry_id) if entry_id is not None else None
    return Log(head, first if page else head.tail.seq + 1, tuple(page), match)


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
        return _extend(connection, found, entry, at, tail_origin, snapshot)
    return _begin(connection, key, found, entry, at, snapshot)


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


def _begin(
    connection: sqlite3.Connection,
    key: SessionKey,
    tombstone: heads.Found | None,
    entry: Entry,
    at: Position,
    snapshot: Snapshot | None,
) -> Appended:
    """Append the first entry of a generation."""
    log, head = tombstone or (None, None)
    if at != (Position(head.tail.generation + 1, 0) if head else Position(0, 0)):
        raise Conflict(head)
    now = heads.next_us(head)
    position = Position(at.generation, 1)
    first = Head(
        key,
        position,
        entry.origin,
        deleted=False,
        heartbeat=0,
        rewrite_id="",
        active_us=now,
        changed_us=now,
        snapshot=snapshot,
    )
    entries.add(connection, heads.write(connection, first, log), 1, entry)
    return Appended(position, replayed=False)


def _extend(
    connection: sqlite3.Connection,
    found: heads.Found,
    entry: Entry,
    at: Position,
    tail_origin: str | None,
    snapshot: Snapshot | None,
) -> Appended:
    """Append an entry to a living log."""
    log, head = found
    keys: tuple[str, ...] = ()
    if at.generation == head.tail.generation:
        seq = entries.find_seq(connection, log, entry.id)
        if seq is not None:
            return Appended(Position(at.generation, seq), replayed=True)
        keys = tuple(key for key in entry.keys if entries.find_seq(connection, log, key) is not None)
    if keys or head.tail != at or tail_origin not in (None, head.tail_origin):
        raise Conflict(head, keys=keys)
    entries.add(connection, log, at.seq + 1, entry)
    heads.extend(connection, found, entry.origin, snapshot, is_activity=not entry.bookkeeping)
    return Appended(Position(at.generation, at.seq + 1), replayed=False)
