"""The entries of logs, and the ids and keys by which they are found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Literal

from session_history_hooks import Corrupt, Entry, Limits, SessionKey
from session_history_hooks.stored import checked_entry

SEQ_BITS = 24
"""An entry's key is ``log << SEQ_BITS | seq``: 2**24 - 1 entries in a log, 2**39 logs in a file.

This key keeps the entries of a session next to each other in a plain table. They load faster from it than through
any index.
"""

MAX_SEQ = 2**SEQ_BITS - 1

FLAGS: dict[object, bool] = {0: False, 1: True}

_TYPES = (str, bytes, str)

_COLUMNS = "entry.id, payload, origin, keys, bookkeeping"

_FIND = f"""SELECT {_COLUMNS}, seq FROM entry_id LEFT JOIN entry ON entry.k = entry_id.log << {SEQ_BITS} | entry_id.seq
    WHERE entry_id.log = ? AND entry_id.id = ?"""

Row = tuple[str, bytes, str, str | None, int, int]
"""A row of :data:`_COLUMNS`, and the seq."""


def read(connection: sqlite3.Connection, log: int, seqs: range, key: SessionKey) -> list[Entry]:
    """Read entries.

    :param seqs: one or more neighbours, ascending.
    :raises Corrupt: an entry is missing or unreadable.
    """
    rows = _select(connection, log, seqs).fetchall()
    if len(rows) != len(seqs):
        raise Corrupt(f"{key} lacks {len(seqs) - len(rows)} of its entries {seqs[0]} to {seqs[-1]}")
    return [_decode(row, key) for row in rows]


def read_page(connection: sqlite3.Connection, log: int, seqs: range, key: SessionKey, limits: Limits) -> list[Entry]:
    """Read the first of these entries, as many as a page may hold. The rest is not read.

    :param seqs: one or more neighbours, ascending or descending.
    :raises Corrupt: an entry is missing or unreadable.
    """
    # A statement that is neither at its end nor closed keeps its moment, and later transactions would read in it.
    with closing(_select(connection, log, seqs)) as rows:
        return limits.fitting(_decode_each(rows, seqs, key))


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


def find(connection: sqlite3.Connection, log: int, entry_id: str, key: SessionKey) -> tuple[int, Entry] | None:
    """Return seq and entry of an id or key; of the newest entry if several have it.

    :raises Corrupt: the entry is missing or unreadable, or has other ids.
    """
    row = connection.execute(_FIND, (log, entry_id)).fetchone()
    if row is None:
        return None
    entry, seq = _decode(row, key), row[-1]
    if type(seq) is not int or entry_id not in (entry.id, *entry.keys):
        raise Corrupt(f"{key} has an index of its entries that names the wrong one")
    return seq, entry


def find_seq(connection: sqlite3.Connection, log: int, entry_id: str) -> int | None:
    """Return only the seq of an id or key."""
    row = connection.execute("SELECT seq FROM entry_id WHERE log = ? AND id = ?", (log, entry_id)).fetchone()
    return row[0] if row else None


def has_any(connection: sqlite3.Connection, log: int, entry: Entry) -> bool:
    """Return whether the log has the id or a key of an entry already."""
    return any(find_seq(connection, log, each) is not None for each in (entry.id, *entry.keys))


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


def _select(connection: sqlite3.Connection, log: int, seqs: range) -> sqlite3.Cursor:
    order = "DESC" if seqs.step < 0 else "ASC"
    return connection.execute(
        f"SELECT {_COLUMNS}, k & {MAX_SEQ} FROM entry WHERE k BETWEEN ? AND ? ORDER BY k {order}",
        sorted((_row_key(log, seqs[0]), _row_key(log, seqs[-1]))),
    )


def _decode_each(rows: sqlite3.Cursor, seqs: range, key: SessionKey) -> Iterator[Entry]:
    for seq in seqs:
        row = rows.fetchone()
        if row is None or row[-1] != seq:
            raise Corrupt(f"{key} lacks its entry {seq}")
        yield _decode(row, key)


def _decode(row: Row, key: SessionKey) -> Entry:
    entry_id, payload, origin, keys, bookkeeping, seq = row
    if keys is None and (entry_id.__class__, payload.__class__, origin.__class__) == _TYPES and bookkeeping in FLAGS:
        return Entry(entry_id, payload, origin, (), None, bookkeeping == 1)  # no call more: this runs for each entry
    known_keys = () if keys is None else _decode_keys(keys)
    entry = Entry(entry_id, payload, origin, known_keys, bookkeeping=FLAGS.get(bookkeeping, bookkeeping))  # type: ignore[arg-type]
    return checked_entry(entry, key, seq)


def _encode_keys(keys: tuple[str, ...]) -> str | None:
    return json.dumps(keys, ensure_ascii=False) if keys else None


def _decode_keys(text: str) -> tuple[str, ...]:
    try:
        keys = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        keys = None
    # What is no list is handed on as a key, which the check of the entry refuses.
    return tuple(keys) if type(keys) is list else (keys,)
