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
from session_history.providers.tablestore.digests import DIGEST_BYTES, IdDigests
from session_history.providers.tablestore.keys import HEAD_NUMBER, MAX_GENERATION, MAX_SEQ, position_of
from session_history.providers.tablestore.rows import (
    MAX_CHUNKS_ID,
    MAX_CHUNKS_SIZE,
    NEVER_SEEN,
    VERSION,
    Chunks,
    EntryRow,
    HeadRow,
    StoreRow,
)
from session_history_hooks import (
    Corrupt,
    Entry,
    Head,
    IncompatibleStore,
    InvalidKey,
    Position,
    SessionKey,
    Shard,
    Snapshot,
    StoreInfo,
    check_key,
)
from session_history_hooks.stored import LAST_US, ListedRow, checked_head, checked_info

_FLAWS = (KeyError, TypeError, ValueError, RecursionError)
"""What the decoding of a row raises if a column is missing or has a wrong value."""


def row_number(row: Row) -> int:
    number: int = dict(row.primary_key)[col.ROW_NUMBER]
    return number


def user_of(row: Row) -> str:
    user_id: str = dict(row.primary_key)[col.USER_ID]
    return user_id


def session_id_of(row: Row) -> str:
    session_id: str = dict(row.primary_key)[col.SESSION_ID]
    return session_id


def key_of(row: Row) -> SessionKey | None:
    """Return the session of a row; ``None`` if its ids are not valid."""
    try:
        return SessionKey(user_of(row), session_id_of(row))
    except InvalidKey:
        return None


def generation_of(row: Row) -> int | None:
    """Return the generation of an entry, a chunk or a head; ``None`` if the column of a head or chunk is unreadable."""
    number = row_number(row)
    if 0 <= number < HEAD_NUMBER:
        return position_of(number).generation
    stored = _columns(row).get(col.GENERATION)
    return stored if type(stored) is int and 0 <= stored <= MAX_GENERATION else None


def payload_bytes(row: Row) -> int:
    """Return the bytes of the payload of an entry, also if it is in chunks; 0 for other rows."""
    columns = _columns(row)
    size, payload = columns.get(col.CHUNKS_SIZE), columns.get(col.PAYLOAD)
    if type(size) is int:
        return size
    return len(payload) if isinstance(payload, bytes | bytearray) else 0


def read_head(row: Row) -> HeadRow:
    columns = _checked(row)
    try:
        return HeadRow(
            _head(row, columns),
            _digests(_binary(columns[col.ID_DIGESTS]), _binary(columns.get(col.ID_COUNTS, b""))),
            _integer(columns[col.ETAG]),
            _text(columns.get(col.PREVIOUS_REWRITE_ID, "")),
            _count(columns.get(col.RESTORED_SEQ, 0), MAX_SEQ),
        )
    except _FLAWS:
        raise Corrupt(f"the head of {_name(row)} is unreadable") from None


def read_listed(row: Row) -> ListedRow:
    """Decode a head from a row of the index."""
    recency: int = dict(row.primary_key)[col.RECENCY]
    return _listed(row, {col.RECENCY: recency}, -recency if recency <= 0 else None)


def read_tombstone(row: Row) -> ListedRow | None:
    """Decode a tombstone; return ``None`` for any other row."""
    columns = _columns(row)
    if row_number(row) != HEAD_NUMBER or col.RECENCY in columns or columns.get(col.GENERATION) == NEVER_SEEN:
        return None
    return _listed(row, {}, 0)


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
            appended_us if appended_us is None else _count(appended_us, LAST_US),
            _text(columns.get(col.REWRITE_ID, "")),
            _text(columns.get(col.PREVIOUS_REWRITE_ID, "")),
            _chunks(columns, col.REPLACED_CHUNKS, col.REPLACED_SIZE),
        )
    except _FLAWS:
        raise Corrupt(f"entry {position.seq} of {_name(row)} is unreadable") from None


def read_chunk(row: Row) -> bytes:
    columns = _checked(row)
    try:
        return _binary(columns[col.PAYLOAD])
    except _FLAWS:
        raise Corrupt(f"a chunk of a payload of {_name(row)} is unreadable") from None


def read_store(row: Row) -> StoreRow:
    columns = _checked(row, "the row of the store")
    try:
        shard = Shard(columns[col.SHARD], _integer(columns[col.SHARD_COUNT])) if col.SHARD in columns else None
        info = StoreInfo(_text(columns[col.INCARNATION]), VERSION, shard)
        return StoreRow(checked_info(info), _integer(columns[col.ETAG]))
    except _FLAWS:
        raise Corrupt("the row that identifies the store is unreadable") from None


def _listed(row: Row, more: dict[str, Any], place: int | None) -> ListedRow:
    key = key_of(row)
    try:
        return ListedRow(key, _head(row, _checked(row) | more) if key else None, place)
    except (*_FLAWS, Corrupt, IncompatibleStore):
        return ListedRow(key, None, place)


def _head(row: Row, columns: Mapping[str, Any]) -> Head:
    snapshot = None
    if col.SNAPSHOT_SEQ in columns:
        snapshot = Snapshot(
            _integer(columns[col.SNAPSHOT_SEQ]), _text(columns[col.SNAPSHOT_ORIGIN]), _binary(columns[col.SUMMARY])
        )
    deleted = col.RECENCY not in columns
    head = Head(
        SessionKey(user_of(row), session_id_of(row)),
        Position(_integer(columns[col.GENERATION]), _integer(columns[col.SEQ])),
        _text(columns[col.ORIGIN]),
        deleted=deleted,
        heartbeat=_integer(columns[col.HEARTBEAT]),
        rewrite_id=_text(columns[col.REWRITE_ID]),
        active_us=_integer(columns[col.ACTIVE_US]) if deleted else -_integer(columns[col.RECENCY]),
        changed_us=_integer(columns[col.CHANGED_US]),
        snapshot=snapshot,
    )
    if deleted and head.tail.generation == NEVER_SEEN:
        return head
    _count(head.tail.generation, MAX_GENERATION)
    return checked_head(head, entries=MAX_SEQ)


def _entry(columns: Mapping[str, Any]) -> Entry:
    return Entry(
        _text(columns[col.ENTRY_ID]),
        _binary(columns.get(col.PAYLOAD, b"")),
        _text(columns[col.ORIGIN]),
        _keys(_text(columns[col.KEYS])) if col.KEYS in columns else (),
        bookkeeping=col.BOOKKEEPING in columns,
    )


def _chunks(columns: Mapping[str, Any], chunks_id: str, size: str) -> Chunks | None:
    if chunks_id not in columns:
        return None
    chunks = Chunks(_count(columns[chunks_id], MAX_CHUNKS_ID), _count(columns[size], MAX_CHUNKS_SIZE))
    if not chunks.size:
        raise ValueError("a payload in chunks is not empty")
    return chunks


def _checked(row: Row, name: str | None = None) -> dict[str, Any]:
    columns = _columns(row)
    version = columns.get(col.LAYOUT_VERSION)
    if type(version) is not int or version < 1:
        raise Corrupt(f"{name or f'a row of {_name(row)}'} is unreadable: it has no valid layout version")
    if version > VERSION:
        raise IncompatibleStore(
            f"{name or f'a row of {_name(row)}'} has layout version {version}; "
            f"this release reads up to version {VERSION}"
        )
    return columns


def _name(row: Row) -> str:
    """Return a name of a session for an error."""
    return str(key_of(row) or "a session with an id that is not valid")


def _digests(digests: bytes, counts: bytes) -> IdDigests:
    size = DIGEST_BYTES * sum(counts) if counts else len(digests)
    if size != len(digests) or size % DIGEST_BYTES or 0 in counts:
        raise ValueError("not the digests of entries")
    return IdDigests(digests, counts)


def _keys(text: str) -> tuple[str, ...]:
    keys = json.loads(text)
    if type(keys) is not list:
        raise TypeError("not a list of keys")
    return tuple([check_key("entry key", key) for key in keys])


def _columns(row: Row) -> dict[str, Any]:
    return {name: value for name, value, *_ in row.attribute_columns or ()}


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("the column is not an integer")
    return value


def _count(value: object, most: int) -> int:
    number = _integer(value)
    if not 0 <= number <= most:
        raise ValueError("the number is out of range")
    return number


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError("the column is not a text")
    return value


def _binary(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise TypeError("the column is not binary")
    return bytes(value)
