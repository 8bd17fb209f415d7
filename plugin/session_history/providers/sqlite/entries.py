"""The entries of logs, and the ids and keys by which they are found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Literal

from session_history_hooks import Corrupt, Entry, SessionKey

SEQ_BITS = 24
"""An entry's key is ``log << SEQ_BITS | seq``: 2**24 - 1 entries in a log, 2**39 logs in a file.

This key keeps the entries of a session next to each other in a plain table. They load faster from it than through
any index.
"""

MAX_SEQ = 2**SEQ_BITS - 1


def read(connection: sqlite3.Connection, log: int, seqs: range, key: SessionKey) -> Iterator[Entry]:
    """Yield the entries of these seqs in their order, up or down. Each is read only when it is asked for.

    :raises Corrupt: an entry is missing or unreadable.
    """
    if not seqs:
        return
    order = "DESC" if seqs.step < 0 else "ASC"
    rows = connection.execute(
        f"SELECT k, id, payload, origin, keys, bookkeeping FROM entry WHERE k BETWEEN ? AND ? ORDER BY k {order}",
        (_row_key(log, min(seqs[0], seqs[-1])), _row_key(log, max(seqs[0], seqs[-1]))),
    )
    for seq in seqs:
        row = rows.fetchone()
        if row is None or row[0] != _row_key(log, seq):
            raise Corrupt(f"{key} lacks its entry {seq}")
        try:
            yield _entry(*row[1:])
        except (TypeError, ValueError):
            raise Corrupt(f"entry {seq} of {key} is unreadable") from None


def origins(connection: sqlite3.Connection, log: int, seqs: range, key: SessionKey) -> list[str]:
    """Return the origins of these entries, ascending. Their payloads are not read.

    :raises Corrupt: an entry is missing.
    """
    rows = connection.execute(
        "SELECT origin FROM entry WHERE k BETWEEN ? AND ? ORDER BY k",
        (_row_key(log, seqs.start), _row_key(log, seqs.stop - 1)),
    ).fetchall()
    if len(rows) != len(seqs):
        raise Corrupt(f"{key} lacks {len(seqs) - len(rows)} of its entries {seqs.start} to {seqs.stop - 1}")
    return [origin for (origin,) in rows]


def known(connection: sqlite3.Connection, log: int, ids: Sequence[str]) -> dict[str, int]:
    """Return those of these ids and keys that the log has, with the seq of the newest entry that has each."""
    marks = ", ".join("?" * len(ids))
    found = connection.execute(f"SELECT id, seq FROM entry_id WHERE log = ? AND id IN ({marks})", (log, *ids))
    return dict(found.fetchall())


def add(
    connection: sqlite3.Connection,
    log: int,
    seq: int,
    entry: Entry,
    *,
    on_known: Literal["ABORT", "REPLACE"] = "ABORT",
) -> None:
    """Write an entry with its ids.

    :param on_known: ``"REPLACE"`` = the entry takes the ids and keys of older ones.
    """
    connection.execute(
        "INSERT INTO entry (k, id, origin, bookkeeping, keys, payload) VALUES (?, ?, ?, ?, ?, ?)",
        (_row_key(log, seq), entry.id, entry.origin, entry.bookkeeping, _encode_keys(entry.keys), entry.payload),
    )
    for each in (entry.id, *entry.keys):
        connection.execute(f"INSERT OR {on_known} INTO entry_id (log, id, seq) VALUES (?, ?, ?)", (log, each, seq))


def replace_payload(connection: sqlite3.Connection, log: int, seq: int, entry: Entry) -> bool:
    """Replace the payload of an entry that has the id and the origin of ``entry``, and return whether there is one."""
    changed = connection.execute(
        "UPDATE entry SET payload = ? WHERE k = ? AND id = ? AND origin = ?",
        (entry.payload, _row_key(log, seq), entry.id, entry.origin),
    )
    return changed.rowcount == 1


def delete(connection: sqlite3.Connection, log: int) -> None:
    connection.execute("DELETE FROM entry WHERE k BETWEEN ? AND ?", (_row_key(log, 0), _row_key(log, MAX_SEQ)))
    connection.execute("DELETE FROM entry_id WHERE log = ?", (log,))


def _row_key(log: int, seq: int) -> int:
    return log << SEQ_BITS | seq


def _entry(entry_id: str, payload: bytes, origin: str, keys: str | None, bookkeeping: int) -> Entry:
    return Entry(entry_id, payload, origin, _decode_keys(keys), bookkeeping=bool(bookkeeping))


def _encode_keys(keys: tuple[str, ...]) -> str | None:
    return json.dumps(keys, ensure_ascii=False) if keys else None


def _decode_keys(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()
