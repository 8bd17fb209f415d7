"""The contract in SQL statements. The caller opens the transaction of each function, except of ``unchanged_since``."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from session_history.providers.sqlite import entries, heads
from session_history.providers.sqlite.file import is_undecodable
from session_history_hooks import (
    Appended,
    Conflict,
    Corrupt,
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
from session_history_hooks.rules import entries_to_restore, find_replay, head_after, overlap_to_compare
from session_history_hooks.stored import MAX_NUMBER, checked_log

_SESSION = "user_id = ? AND session_id = ?"


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
    try:
        page = _read_range(connection, found, seqs, limits, whole=last is not None, oldest_first=after is not None)
        match = entries.find(connection, log, entry_id, key) if entry_id is not None else None
    except sqlite3.OperationalError as error:
        if not is_undecodable(error):
            raise
        raise Corrupt(f"an entry of {key} holds text that is not UTF-8") from None
    first = seqs.start if after is not None else seqs.stop - len(page)
    return checked_log(Log(head, first if page else head.tail.seq + 1, tuple(page), match))


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
    log = heads.find_end(connection, key, at, tail_origin)
    if log and not entries.has_any(connection, log, entry):
        heads.extend(connection, log, entry, snapshot)
    else:
        log, head = heads.find(connection, key) or (0, None)
        replay = find_replay(head, entry, at, tail_origin, lambda known: _seq_of(connection, log, known, key))
        if replay:
            return replay
        log = heads.write(connection, head_after(head, key, entry, snapshot), log)
    entries.add(connection, log, at.seq + 1, entry)
    return Appended(Position(at.generation, at.seq + 1), replayed=False)


def renew(connection: sqlite3.Connection, key: SessionKey, at: Position, tail_origin: str | None) -> bool:
    changed = connection.execute(
        "UPDATE head SET heartbeat = heartbeat + 1 WHERE user_id = ? AND session_id = ? AND deleted = 0"
        f" AND generation = ? AND seq = ? AND tail_origin = coalesce(?, tail_origin) AND heartbeat < {MAX_NUMBER}",
        (key.user_id, key.session_id, at.generation, at.seq, tail_origin),
    )
    if not changed.rowcount:
        heads.find(connection, key)  # raises Corrupt for a damaged head
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
    log, head = heads.find(connection, key) or (0, None)
    if head and head.rewrite_id == rewrite_id:
        return head
    if head is None or (head.tail.generation, head.rewrite_id) != (at.generation, last_rewrite_id):
        raise Conflict(head)
    if not 0 < at.seq <= head.tail.seq or not entries.replace_payload(connection, log, at.seq, entry):
        raise Conflict(head)
    head = replace(head, rewrite_id=rewrite_id, snapshot=snapshot)
    heads.write(connection, head, log)
    return head


def restore(connection: sqlite3.Connection, head: Head, page: Sequence[Entry], behind: str) -> bool:
    log, stored = heads.find(connection, head.key) or (0, None)
    overlap = overlap_to_compare(stored, head, page)
    origins = entries.origins(connection, log, overlap, head.key) if overlap else []
    new = entries_to_restore(stored, origins, head, page, behind)
    if new is None:
        return False
    log = heads.write(connection, head, log)
    for seq, entry in enumerate(new, head.tail.seq - len(new) + 1):
        entries.add(connection, log, seq, entry, on_known="REPLACE")
    return True


def list_heads(connection: sqlite3.Connection, user_id: str, limit: int, behind: ListingCursor | None) -> Page:
    condition = ""
    values: tuple[object, ...] = ()
    if behind:
        condition = "AND active_us <= ? AND (active_us < ? OR session_id > ?)"
        values = (behind.active_us, behind.active_us, behind.session_id)
    page = heads.page(
        connection,
        f"user_id = ? AND deleted = 0 {condition} ORDER BY active_us DESC, session_id",
        (user_id, *values),
        limit,
        heads.listed,
    )
    return page if behind else heads.with_unknown_state(connection, user_id, page)


def delete(connection: sqlite3.Connection, key: SessionKey) -> bool:
    if _delete(connection, _SESSION, (key.user_id, key.session_id)):
        return True
    try:
        heads.find(connection, key)
    except Corrupt:  # a damaged tombstone
        _replace(connection, f"SELECT log FROM head WHERE {_SESSION}", (key.user_id, key.session_id))
    return False


def delete_user(connection: sqlite3.Connection, user_id: str) -> int:
    return _delete(connection, "user_id = ?", (user_id,))


def _delete(connection: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> int:
    """Replace sessions by their tombstones, and return how many."""
    states = ("deleted = 0", heads.UNKNOWN_STATE)
    return sum(_replace(connection, f"SELECT log FROM head WHERE {state} AND {condition}", values) for state in states)


def _replace(connection: sqlite3.Connection, logs: str, values: tuple[str, ...]) -> int:
    """Replace heads by tombstones, and return how many."""
    found = connection.execute(logs, values).fetchall()
    for (log,) in found:
        entries.delete(connection, log)
        heads.write_tombstone(connection, log)
    return len(found)


def _seq_of(connection: sqlite3.Connection, log: int, entry_id: str, key: SessionKey) -> int | None:
    found = entries.find(connection, log, entry_id, key)
    return found[0] if found else None


def _read_range(
    connection: sqlite3.Connection, found: heads.Found, seqs: range, limits: Limits, *, whole: bool, oldest_first: bool
) -> list[Entry]:
    """Read these entries; only those that fit into a page unless ``whole``."""
    log, head = found
    if not seqs:
        return []
    if whole:
        return entries.read(connection, log, seqs, head.key)
    if oldest_first:
        return entries.read_page(connection, log, seqs, head.key, limits)
    return entries.read_page(connection, log, seqs[::-1], head.key, limits)[::-1]
