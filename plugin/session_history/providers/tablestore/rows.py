"""The rows of a table and how they are written: heads of sessions, entries, chunks of large payloads, and the store."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
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
from session_history.providers.tablestore.digests import IdDigests
from session_history.providers.tablestore.keys import HEAD_NUMBER, MAX_SEQ, STORE, PrimaryKey, number_of, primary_key
from session_history_hooks import Entry, Head, Position, SessionKey, StoreInfo

VERSION = 1
"""The version of the layout, which every row names. A reader refuses a newer one."""

CELL_BYTES = 2 * 2**20
"""The limit of Tablestore for one column. A larger payload is stored in chunks of this size."""
CHUNK_BITS = 6
"""A payload has at most 2**6 chunks. The other 57 bits of their numbers are random and identify the payload."""

MAX_CHUNKS_ID = 2 ** (63 - CHUNK_BITS) - 1
MAX_CHUNKS_SIZE = CELL_BYTES << CHUNK_BITS

NEVER_SEEN = -1
"""The generation of a tombstone that readers ignore: it is the head of a session that was never seen."""

ROWS_PER_WRITE = 200
"""The limit of the service for a batch."""
BYTES_PER_WRITE = 3 * 2**20
"""The most bytes of several rows in a batch. The service takes 4 MB, by its own count."""


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head as it was last written. It may lag behind the entries, see :mod:`.state`.

    :ivar ids: the digests of the newest ids and keys.
    :ivar etag: a random number that each write changes. A conditional write compares it.
    :ivar previous_rewrite_id: the rewrite ahead of the newest one; ``""`` if there was none.
    :ivar restored: the seq of the newest restored entry of this generation; 0 if none was restored.
    """

    head: Head
    ids: IdDigests
    etag: int
    previous_rewrite_id: str = ""
    restored: int = 0

    def counts(self, restored: EntryRow) -> bool:
        """Return whether a restored entry is part of the log, or of an earlier one that was deleted."""
        tail = self.head.tail
        return restored.position <= Position(tail.generation, MAX_SEQ if self.head.deleted else self.restored)


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
    """An entry.

    :ivar entry: its payload is empty if it is in chunks, or if the read did not ask for it.
    :ivar chunks: where the payload is, if it is too large for a row.
    :ivar etag: a random number that each write of this row changes. It identifies the attempt of an append too: two
        calls that append the same entry at once have one origin.
    :ivar appended_us: ``None`` if the entry was restored.
    :ivar rewrite_id: the newest rewrite that wrote this row; ``""`` if there was none.
    :ivar previous_rewrite_id: the rewrite that the head named then. While it still does, the newest one has not ended.
    :ivar replaced: the newest chunks that rewrites replaced. They are still stored if a rewrite was interrupted.
    """

    position: Position
    entry: Entry
    chunks: Chunks | None
    etag: int
    appended_us: int | None
    rewrite_id: str = ""
    previous_rewrite_id: str = ""
    replaced: Chunks | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The id and the keys."""
        return self.entry.id, *self.entry.keys

    @property
    def size(self) -> int:
        """The bytes of the payload."""
        return self.chunks.size if self.chunks else len(self.entry.payload)

    @property
    def activity_us(self) -> int:
        """When something was said; 0 for bookkeeping, unless it began the generation, and for restored entries."""
        return 0 if self.entry.bookkeeping and self.position.seq > 1 else self.appended_us or 0


@dataclass(frozen=True, slots=True)
class StoreRow:
    """The row that identifies the store."""

    info: StoreInfo
    etag: int


def random_id() -> int:
    """Return a number for an etag."""
    return random.getrandbits(63)


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
        col.ORIGIN: head.tail_origin,
        col.CHANGED_US: head.changed_us,
        col.HEARTBEAT: head.heartbeat,
        col.REWRITE_ID: head.rewrite_id,
        col.ID_DIGESTS: bytearray(row.ids.digests),
        col.ETAG: row.etag,
    }
    if head.deleted:
        columns[col.ACTIVE_US] = head.active_us
    else:
        columns[col.RECENCY] = -head.active_us  # the index leaves out rows without this column
    if row.ids.counts:
        columns[col.ID_COUNTS] = bytearray(row.ids.counts)
    if row.previous_rewrite_id:
        columns[col.PREVIOUS_REWRITE_ID] = row.previous_rewrite_id
    if row.restored:
        columns[col.RESTORED_SEQ] = row.restored
    if snapshot:
        summary = bytearray(snapshot.summary)
        columns |= {col.SNAPSHOT_SEQ: snapshot.seq, col.SNAPSHOT_ORIGIN: snapshot.origin, col.SUMMARY: summary}
    return _put(primary_key(head.key, HEAD_NUMBER), columns, condition)


def put_entry(key: SessionKey, row: EntryRow, condition: Condition) -> PutRowItem:
    entry = row.entry
    columns: dict[str, Any] = {
        col.LAYOUT_VERSION: VERSION,
        col.ENTRY_ID: entry.id,
        col.ORIGIN: entry.origin,
        col.ETAG: row.etag,
    }
    if row.appended_us is not None:
        columns[col.CHANGED_US] = row.appended_us
    if entry.keys:
        columns[col.KEYS] = json.dumps(entry.keys, ensure_ascii=False)
    if entry.bookkeeping:
        columns[col.BOOKKEEPING] = True
    if row.chunks:
        columns |= {col.CHUNKS: row.chunks.id, col.CHUNKS_SIZE: row.chunks.size}
    else:
        columns[col.PAYLOAD] = bytearray(entry.payload)
    if row.rewrite_id:
        columns |= {col.REWRITE_ID: row.rewrite_id, col.PREVIOUS_REWRITE_ID: row.previous_rewrite_id}
    if row.replaced:
        columns |= {col.REPLACED_CHUNKS: row.replaced.id, col.REPLACED_SIZE: row.replaced.size}
    return _put(entry_key(key, row), columns, condition)


def put_chunk(key: SessionKey, generation: int, chunks: Chunks, index: int, payload: bytes) -> PutRowItem:
    chunk = memoryview(payload)[index * CELL_BYTES : (index + 1) * CELL_BYTES]
    columns = {col.LAYOUT_VERSION: VERSION, col.GENERATION: generation, col.PAYLOAD: bytearray(chunk)}
    return _put(primary_key(key, chunks.number(index)), columns, ALWAYS)


def put_store(row: StoreRow, condition: Condition) -> PutRowItem:
    columns = {col.LAYOUT_VERSION: VERSION, col.INCARNATION: row.info.incarnation, col.ETAG: row.etag}
    if row.info.shard:
        columns |= {col.SHARD: row.info.shard.number, col.SHARD_COUNT: row.info.shard.count}
    return _put(STORE, columns, condition)


def delete(key: PrimaryKey) -> DeleteRowItem:
    return DeleteRowItem(Row(key), ALWAYS)


def delete_entry(key: SessionKey, row: EntryRow) -> DeleteRowItem:
    """Delete an entry, on the condition that its row was not changed."""
    return DeleteRowItem(Row(entry_key(key, row)), unchanged(row.etag))


def entry_key(key: SessionKey, row: EntryRow) -> PrimaryKey:
    return primary_key(key, number_of(row.position))


def batches(items: Iterable[PutRowItem]) -> Iterator[list[PutRowItem]]:
    """Split rows into batches that one request takes."""
    batch: list[PutRowItem] = []
    size = 0
    for item in items:
        size += _bytes(item)
        if batch and (size > BYTES_PER_WRITE or len(batch) == ROWS_PER_WRITE):
            yield batch
            batch, size = [], _bytes(item)
        batch.append(item)
    if batch:
        yield batch


def _put(key: PrimaryKey, columns: Mapping[str, Any], condition: Condition) -> PutRowItem:
    return PutRowItem(Row(key, list(columns.items())), condition)


def _bytes(item: PutRowItem) -> int:
    """Return the bytes of names and values, as the service counts them."""
    values = [*item.row.primary_key, *item.row.attribute_columns]
    return sum(len(name) + _value_bytes(value) for name, value in values)


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytearray) else 8
