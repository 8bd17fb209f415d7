"""Reading of the rows of a table.

Each function that decodes a row raises :class:`Corrupt` if the row is unreadable, and :class:`IncompatibleStore` if a
newer version of this library wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tablestore import Row

from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore.digests import IdDigests
from session_history.providers.tablestore.keys import HEAD_NUMBER, position_of
from session_history.providers.tablestore.rows import NEVER_SEEN, VERSION, Chunks, EntryRow, HeadRow, StoreRow
from session_history_hooks import (
    Corrupt,
    Entry,
    Head,
    IncompatibleStore,
    Position,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
)


def row_number(row: Row) -> int:
    number: int = dict(row.primary_key)[col.ROW_NUMBER]
    return number


def user_of(row: Row) -> str:
    user_id: str = dict(row.primary_key)[col.USER_ID]
    return user_id


def session_of(row: Row) -> SessionKey:
    return SessionKey(user_of(row), dict(row.primary_key)[col.SESSION_ID])


def generation_of(row: Row) -> int:
    """Return the generation of an entry, a chunk or a head; 0 if the column of a head or chunk is unreadable."""
    number = row_number(row)
    if 0 <= number < HEAD_NUMBER:
        return position_of(number).generation
    stored = _columns(row).get(col.GENERATION)
    return stored if type(stored) is int else 0


def payload_bytes(row: Row) -> int:
    """Return the bytes of the payload of an entry, also if it is in chunks; 0 for other rows."""
    columns = _columns(row)
    size = columns.get(col.CHUNKS_SIZE)
    return size if type(size) is int else len(columns.get(col.PAYLOAD, b""))


def read_head(row: Row) -> HeadRow:
    columns = _checked(row)
    try:
        return HeadRow(
            _head(row, columns),
            IdDigests(_binary(columns[col.ID_DIGESTS]), _binary(columns.get(col.ID_COUNTS, b""))),
            _integer(columns[col.ETAG]),
            _text(columns.get(col.PREVIOUS_REWRITE_ID, "")),
            _integer(columns.get(col.RESTORED_SEQ, 0)),
        )
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"the head of {session_of(row)} is unreadable") from None


def read_listed(row: Row) -> Head:
    """Decode a head from a row of the index."""
    return _read_columns_of_head(row, {col.RECENCY: dict(row.primary_key)[col.RECENCY]})


def read_tombstone(row: Row) -> Head | None:
    """Decode a tombstone; return ``None`` for any other row."""
    if row_number(row) != HEAD_NUMBER or col.ACTIVE_US not in _columns(row):
        return None
    head = _read_columns_of_head(row, {})
    return head if head.tail.generation != NEVER_SEEN else None


def read_entry(row: Row) -> EntryRow:
    """Decode an entry. Its payload is empty if the read did not ask for the payload."""
    columns = _checked(row)
    position = position_of(row_number(row))
    appended_us = columns.get(col.CHANGED_US)
    try:
        return EntryRow(
            position,
            _entry(columns),
            _chunks(columns, col.CHUNKS, col.CHUNKS_SIZE),
            _integer(columns[col.ETAG]),
            appended_us if appended_us is None else _integer(appended_us),
            _text(columns.get(col.REWRITE_ID, "")),
            _text(columns.get(col.PREVIOUS_REWRITE_ID, "")),
            _chunks(columns, col.REPLACED_CHUNKS, col.REPLACED_SIZE),
        )
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"entry {position.seq} of {session_of(row)} is unreadable") from None


def read_chunk(row: Row) -> bytes:
    try:
        return _binary(_checked(row)[col.PAYLOAD])
    except (KeyError, TypeError):
        raise Corrupt(f"a chunk of a payload of {session_of(row)} is unreadable") from None


def read_store(row: Row) -> StoreRow:
    columns = _checked(row, "the row of the store")
    try:
        shard = Shard(columns[col.SHARD], _integer(columns[col.SHARD_COUNT])) if col.SHARD in columns else None
        return StoreRow(StoreInfo(_text(columns[col.INCARNATION]), VERSION, shard), _integer(columns[col.ETAG]))
    except (KeyError, TypeError, ValueError):
        raise Corrupt("the row that identifies the store is unreadable") from None


def _read_columns_of_head(row: Row, more: dict[str, Any]) -> Head:
    columns = _checked(row) | more
    try:
        return _head(row, columns)
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"the head of {session_of(row)} is unreadable") from None


def _head(row: Row, columns: Mapping[str, Any]) -> Head:
    snapshot = None
    if col.SNAPSHOT_SEQ in columns:
        snapshot = Snapshot(
            _integer(columns[col.SNAPSHOT_SEQ]), _text(columns[col.SNAPSHOT_ORIGIN]), _binary(columns[col.SUMMARY])
        )
    deleted = col.RECENCY not in columns
    return Head(
        session_of(row),
        Position(_integer(columns[col.GENERATION]), _integer(columns[col.SEQ])),
        _text(columns[col.ORIGIN]),
        deleted=deleted,
        heartbeat=_integer(columns[col.HEARTBEAT]),
        rewrite_id=_text(columns[col.REWRITE_ID]),
        active_us=_integer(columns[col.ACTIVE_US]) if deleted else -_integer(columns[col.RECENCY]),
        changed_us=_integer(columns[col.CHANGED_US]),
        snapshot=snapshot,
    )


def _entry(columns: Mapping[str, Any]) -> Entry:
    return Entry(
        _text(columns[col.ENTRY_ID]),
        _binary(columns.get(col.PAYLOAD, b"")),
        _text(columns[col.ORIGIN]),
        tuple(map(_text, json.loads(columns[col.KEYS]))) if col.KEYS in columns else (),
        bookkeeping=col.BOOKKEEPING in columns,
    )


def _chunks(columns: Mapping[str, Any], chunks_id: str, size: str) -> Chunks | None:
    return Chunks(_integer(columns[chunks_id]), _integer(columns[size])) if chunks_id in columns else None


def _checked(row: Row, name: str | None = None) -> dict[str, Any]:
    columns = _columns(row)
    version = columns.get(col.LAYOUT_VERSION)
    if type(version) is int and version > VERSION:
        raise IncompatibleStore(
            f"{name or f'a row of {session_of(row)}'} has layout version {version}; "
            f"this release reads up to version {VERSION}"
        )
    return columns


def _columns(row: Row) -> dict[str, Any]:
    return {name: value for name, value, *_ in row.attribute_columns or ()}


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("the column is not an integer")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError("the column is not a text")
    return value


def _binary(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise TypeError("the column is not binary")
    return bytes(value)
