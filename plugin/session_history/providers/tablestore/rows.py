"""The rows of a table and their encoding: heads of sessions, entries, and chunks of large payloads."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tablestore import (
    ComparatorType,
    Condition,
    DeleteRowItem,
    PutRowItem,
    Row,
    RowExistenceExpectation,
    SingleColumnCondition,
)

from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore.keys import HEAD_NUMBER, number_of, position_of, primary_key
from session_history_hooks import Corrupt, Head, IncompatibleStore, Position, SessionKey, Snapshot

VERSION = 1
"""The version of the layout, which every row names. A reader refuses a newer one."""

CELL_BYTES = 2 * 2**20
"""The limit of Tablestore for one column. A larger payload is stored in chunks of this size."""
CHUNK_BITS = 6
"""A payload has at most 2**6 chunks. The other 57 bits of their numbers are random and identify the payload."""

REMEMBERED_IDS = 256
"""A head has one digest for each of this many newest entry ids."""
DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head as it was last written. It may lag behind the entries, see :mod:`.state`.

    :ivar id_digests: the digests of the newest entry ids, the tail's last.
    :ivar etag: a random number that each write changes. A conditional write compares it.
    :ivar origin: the origin of the entry that the head was written with; ``None`` for a tombstone.
    :ivar rewritten_etag: the etag of the entry that was rewritten last; 0 if no entry was.
    """

    head: Head
    id_digests: bytes
    etag: int
    origin: int | None
    rewritten_etag: int = 0


@dataclass(frozen=True, slots=True)
class Chunks:
    """The rows of a payload that is too large for one row.

    :ivar id: random.
    :ivar size: the bytes of the payload.
    """

    id: int
    size: int

    @classmethod
    def new(cls, size: int) -> Self:
        return cls(random.getrandbits(63 - CHUNK_BITS), size)

    @property
    def count(self) -> int:
        return -(-self.size // CELL_BYTES)

    def number(self, index: int) -> int:
        """Return the row number of a chunk. It is below all entries, and the first chunk has the highest.

        The index after the last one gives the end of the range of all chunks.
        """
        return -1 - (self.id << CHUNK_BITS) - index


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry with its payload, or with the chunks of its payload.

    :ivar origin: a random number that identifies the append, even among appends of the same id. A rewrite keeps it.
    :ivar etag: a random number that each rewrite changes. A conditional write compares it.
    :ivar rewrites: the number of the rewrite that wrote this row; 0 if an append wrote it.
    :ivar replaced: the newest chunks that rewrites replaced. They are still stored if a rewrite was interrupted.
    """

    position: Position
    id: str
    payload: bytes | Chunks
    active_us: int
    origin: int
    etag: int
    rewrites: int = 0
    replaced: Chunks | None = None


def random_id() -> int:
    """Return a number for an origin or an etag."""
    return random.getrandbits(63)


def digest(entry_id: str) -> bytes:
    return hashlib.blake2b(entry_id.encode(), digest_size=DIGEST_BYTES).digest()


# Writing

ALWAYS: Condition = Condition(RowExistenceExpectation.IGNORE)
ABSENT: Condition = Condition(RowExistenceExpectation.EXPECT_NOT_EXIST)


def unchanged(etag: int | None) -> Condition:
    """Return the condition that a row still has this etag; for ``None``, that there is still no row."""
    if etag is None:
        return ABSENT
    same = SingleColumnCondition(col.ETAG, etag, ComparatorType.EQUAL, pass_if_missing=False)
    return Condition(RowExistenceExpectation.EXPECT_EXIST, same)


def put_head(row: HeadRow, condition: Condition) -> PutRowItem:
    head, snapshot = row.head, row.head.snapshot
    columns: dict[str, Any] = {
        col.LAYOUT_VERSION: VERSION,
        col.GENERATION: head.tail.generation,
        col.SEQ: head.tail.seq,
        col.ENTRY_ID: head.tail_id,
        col.ACTIVE_US: head.active_us,
        col.HEARTBEAT: head.heartbeat,
        col.REWRITES: head.rewrites,
        col.ID_DIGESTS: bytearray(row.id_digests),
        col.ETAG: row.etag,
    }
    if not head.deleted:
        columns[col.RECENCY] = -head.active_us  # the index leaves out rows without this column
    if row.origin is not None:
        columns[col.ORIGIN] = row.origin
    if row.rewritten_etag:
        columns[col.REWRITTEN_ETAG] = row.rewritten_etag
    if snapshot:
        summary = bytearray(snapshot.summary)
        columns |= {col.SNAPSHOT_SEQ: snapshot.seq, col.SNAPSHOT_ID: snapshot.entry_id, col.SUMMARY: summary}
    return _put(head.key, HEAD_NUMBER, columns, condition)


def put_entry(key: SessionKey, row: EntryRow, condition: Condition) -> PutRowItem:
    columns: dict[str, Any] = {
        col.LAYOUT_VERSION: VERSION,
        col.ENTRY_ID: row.id,
        col.ACTIVE_US: row.active_us,
        col.ORIGIN: row.origin,
        col.ETAG: row.etag,
    }
    if isinstance(row.payload, Chunks):
        columns |= {col.CHUNKS: row.payload.id, col.CHUNKS_SIZE: row.payload.size}
    else:
        columns[col.PAYLOAD] = bytearray(row.payload)
    if row.rewrites:
        columns[col.REWRITES] = row.rewrites
    if row.replaced:
        columns |= {col.REPLACED_CHUNKS: row.replaced.id, col.REPLACED_SIZE: row.replaced.size}
    return _put(key, number_of(row.position), columns, condition)


def put_chunk(key: SessionKey, generation: int, chunks: Chunks, index: int, payload: bytes) -> PutRowItem:
    chunk = memoryview(payload)[index * CELL_BYTES : (index + 1) * CELL_BYTES]
    columns = {col.LAYOUT_VERSION: VERSION, col.GENERATION: generation, col.PAYLOAD: bytearray(chunk)}
    return _put(key, chunks.number(index), columns, ALWAYS)


def delete_entry(key: SessionKey, row: EntryRow) -> DeleteRowItem:
    """Delete an entry, on the condition that its row was not changed."""
    return DeleteRowItem(Row(primary_key(key, number_of(row.position))), unchanged(row.etag))


def _put(key: SessionKey, number: int, columns: Mapping[str, Any], condition: Condition) -> PutRowItem:
    return PutRowItem(Row(primary_key(key, number), list(columns.items())), condition)


# Reading


def row_number(row: Row) -> int:
    number: int = dict(row.primary_key)[col.ROW_NUMBER]
    return number


def session_of(row: Row) -> SessionKey:
    names = dict(row.primary_key)
    return SessionKey(names[col.USER_ID], names[col.SESSION_ID])


def generation(row: Row) -> int:
    """Return the generation of an entry, a chunk or a head; 0 if the column of a head or chunk is unreadable."""
    number = row_number(row)
    if 0 <= number < HEAD_NUMBER:
        return position_of(number).generation
    stored = _columns(row).get(col.GENERATION)
    return stored if type(stored) is int else 0


def read_head(row: Row) -> HeadRow:
    """Decode the row of a head.

    :raises Corrupt: the row is unreadable.
    :raises IncompatibleStore: a newer version of this library wrote the row.
    """
    columns = _checked(row)
    try:
        deleted = col.RECENCY not in columns
        return HeadRow(
            _head(session_of(row), columns, deleted=deleted, active_us=_integer(columns[col.ACTIVE_US])),
            _binary(columns[col.ID_DIGESTS]),
            _integer(columns[col.ETAG]),
            None if deleted else _integer(columns[col.ORIGIN]),
            _integer(columns.get(col.REWRITTEN_ETAG, 0)),
        )
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"the head of {session_of(row)} is unreadable") from None


def read_listed(row: Row) -> Head:
    """Decode a head from a row of the index.

    :raises Corrupt: the row is unreadable.
    :raises IncompatibleStore: a newer version of this library wrote the row.
    """
    columns = _checked(row)
    try:
        return _head(session_of(row), columns, deleted=False, active_us=-dict(row.primary_key)[col.RECENCY])
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"the head of {session_of(row)} is unreadable") from None


def read_entry(row: Row) -> EntryRow:
    """Decode an entry. Its payload is empty if the read did not ask for the payload.

    :raises Corrupt: the row is unreadable.
    :raises IncompatibleStore: a newer version of this library wrote the row.
    """
    columns = _checked(row)
    position = position_of(row_number(row))
    try:
        chunks = _chunks(columns, col.CHUNKS, col.CHUNKS_SIZE)
        return EntryRow(
            position,
            _text(columns[col.ENTRY_ID]),
            _binary(columns.get(col.PAYLOAD, b"")) if chunks is None else chunks,
            _integer(columns[col.ACTIVE_US]),
            _integer(columns[col.ORIGIN]),
            _integer(columns[col.ETAG]),
            _integer(columns.get(col.REWRITES, 0)),
            _chunks(columns, col.REPLACED_CHUNKS, col.REPLACED_SIZE),
        )
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"entry {position.seq} of {session_of(row)} is unreadable") from None


def read_chunk(row: Row) -> bytes:
    """Decode a chunk of a payload.

    :raises Corrupt: the row is unreadable.
    :raises IncompatibleStore: a newer version of this library wrote the row.
    """
    try:
        return _binary(_checked(row)[col.PAYLOAD])
    except (KeyError, TypeError):
        raise Corrupt(f"a chunk of a payload of {session_of(row)} is unreadable") from None


def _head(key: SessionKey, columns: Mapping[str, Any], *, deleted: bool, active_us: int) -> Head:
    snapshot = None
    if col.SNAPSHOT_SEQ in columns:
        snapshot = Snapshot(
            _integer(columns[col.SNAPSHOT_SEQ]), _text(columns[col.SNAPSHOT_ID]), _binary(columns[col.SUMMARY])
        )
    return Head(
        key,
        Position(_integer(columns[col.GENERATION]), _integer(columns[col.SEQ])),
        _text(columns[col.ENTRY_ID]),
        deleted=deleted,
        heartbeat=_integer(columns[col.HEARTBEAT]),
        rewrites=_integer(columns[col.REWRITES]),
        active_us=active_us,
        snapshot=snapshot,
    )


def _chunks(columns: Mapping[str, Any], chunks_id: str, size: str) -> Chunks | None:
    return Chunks(_integer(columns[chunks_id]), _integer(columns[size])) if chunks_id in columns else None


def _checked(row: Row) -> dict[str, Any]:
    columns = _columns(row)
    version = columns.get(col.LAYOUT_VERSION)
    if type(version) is int and version > VERSION:
        raise IncompatibleStore(
            f"a row of {session_of(row)} has layout version {version}; this release reads up to version {VERSION}"
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
