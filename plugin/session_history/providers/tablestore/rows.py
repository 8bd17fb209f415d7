"""What stands in the table: a head for each session, a row for each entry, and parts of payloads that fit no row."""

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

from session_history.providers.tablestore.keys import HEAD_PLACE, place_of, position_of, primary_key
from session_history_hooks import Corrupt, Head, IncompatibleStore, Position, SessionKey, Snapshot

VERSION = 1
"""Of the layout of a row, in each row's column ``v``. A reader refuses a newer one."""

CELL_BYTES = 2 * 2**20
"""What Tablestore takes in a column; a larger payload is stored in parts of this size."""
PART_BITS = 6
"""A payload has at most so many parts, 2**6; with 57 random bits that tell one payload's from another's."""

REMEMBERED_IDS = 256
"""How many of the newest ids a head knows, by a digest each."""
DIGEST_BYTES = 8

WITHOUT_PAYLOAD = ["v", "i", "x", "o", "t", "g", "n", "b", "e", "k", "w", "r", "fn", "fi", "fc"]
"""What tells which entries a session has, and not what is in them."""
LISTED = ["v", "g", "n", "i", "b", "e", "fn", "fi", "fc"]
"""What a listing shows of a head, besides its keys."""


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A head as it was last written. It may lag behind the entries, see :mod:`.known`.

    :ivar recent: digests of the newest ids, the tail's last.
    :ivar mark: random, and another with each change: what a change is conditional on.
    :ivar origin: that of the entry it was written for, its tail; ``None`` for a tombstone.
    :ivar rewrite: the mark of the entry that was rewritten last.
    """

    head: Head
    recent: bytes
    mark: int
    origin: int | None
    rewrite: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a payload stands that is too large for one row."""

    base: int
    size: int

    @classmethod
    def new(cls, size: int) -> Self:
        return cls(random.getrandbits(63 - PART_BITS), size)

    @property
    def count(self) -> int:
        return -(-self.size // CELL_BYTES)

    def place(self, number: int) -> int:
        """Below all entries, the first part on top. The number behind the last is the end of a range of all."""
        return -1 - (self.base << PART_BITS) - number


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry, whose payload stands here or in parts.

    :ivar origin: random: tells by which append it was written, also among those of one id. A rewrite keeps it.
    :ivar mark: random, and another with each rewrite: what a rewrite is conditional on.
    :ivar rewrites: the number of the rewrite that wrote it, 0 for an append.
    :ivar replaced: of the newest payload in parts that rewrites replaced: they are there if a rewrite was interrupted.
    """

    position: Position
    id: str
    payload: bytes | Parts
    active_us: int
    origin: int
    mark: int
    rewrites: int = 0
    replaced: Parts | None = None


def new_mark() -> int:
    return random.getrandbits(63)


def digest(entry_id: str) -> bytes:
    return hashlib.blake2b(entry_id.encode(), digest_size=DIGEST_BYTES).digest()


# Writing

ALWAYS: Condition = Condition(RowExistenceExpectation.IGNORE)
ABSENT: Condition = Condition(RowExistenceExpectation.EXPECT_NOT_EXIST)


def unchanged(mark: int | None) -> Condition:
    """Of a row that was read with this mark, or not found."""
    if mark is None:
        return ABSENT
    same = SingleColumnCondition("x", mark, ComparatorType.EQUAL, pass_if_missing=False)
    return Condition(RowExistenceExpectation.EXPECT_EXIST, same)


def put_head(row: HeadRow, condition: Condition) -> PutRowItem:
    head, snapshot = row.head, row.head.snapshot
    columns: dict[str, Any] = {
        "v": VERSION,
        "g": head.tail.generation,
        "n": head.tail.seq,
        "i": head.tail_id,
        "t": head.active_us,
        "b": head.heartbeat,
        "e": head.rewrites,
        "k": bytearray(row.recent),
        "x": row.mark,
    }
    if not head.deleted:
        columns["r"] = -head.active_us  # a row without it is not in the index of the listing
    if row.origin is not None:
        columns["o"] = row.origin
    if row.rewrite:
        columns["w"] = row.rewrite
    if snapshot:
        columns |= {"fn": snapshot.seq, "fi": snapshot.entry_id, "fc": bytearray(snapshot.summary)}
    return _put(head.key, HEAD_PLACE, columns, condition)


def put_entry(key: SessionKey, row: EntryRow, condition: Condition) -> PutRowItem:
    columns: dict[str, Any] = {"v": VERSION, "i": row.id, "t": row.active_us, "o": row.origin, "x": row.mark}
    if isinstance(row.payload, Parts):
        columns |= {"z": row.payload.base, "y": row.payload.size}
    else:
        columns["p"] = bytearray(row.payload)
    if row.rewrites:
        columns["e"] = row.rewrites
    if row.replaced:
        columns |= {"rz": row.replaced.base, "ry": row.replaced.size}
    return _put(key, place_of(row.position), columns, condition)


def put_part(key: SessionKey, generation: int, parts: Parts, number: int, payload: bytes) -> PutRowItem:
    part = memoryview(payload)[number * CELL_BYTES : (number + 1) * CELL_BYTES]
    columns = {"v": VERSION, "g": generation, "p": bytearray(part)}
    return _put(key, parts.place(number), columns, ALWAYS)


def delete_entry(key: SessionKey, row: EntryRow) -> DeleteRowItem:
    """Of the entry that was written with this mark, and of no other in its place."""
    return DeleteRowItem(Row(primary_key(key, place_of(row.position))), unchanged(row.mark))


def _put(key: SessionKey, place: int, columns: Mapping[str, Any], condition: Condition) -> PutRowItem:
    return PutRowItem(Row(primary_key(key, place), list(columns.items())), condition)


# Reading


def place(row: Row) -> int:
    found: int = dict(row.primary_key)["q"]
    return found


def session_of(row: Row) -> SessionKey:
    names = dict(row.primary_key)
    return SessionKey(names["u"], names["s"])


def generation(row: Row) -> int:
    """Of an entry, of a part or, so far as it can be read, of a head."""
    where = place(row)
    if 0 <= where < HEAD_PLACE:
        return position_of(where).generation
    found = _columns(row).get("g")
    return found if type(found) is int else 0


def read_head(row: Row) -> HeadRow:
    """:raises Corrupt: it is unreadable. :raises IncompatibleStore: a newer version wrote it."""
    columns = _checked(row)
    try:
        deleted = "r" not in columns
        head = _head(session_of(row), columns, deleted=deleted, active_us=_integer(columns["t"]))
        origin = None if deleted else _integer(columns["o"])
        return HeadRow(head, _binary(columns["k"]), _integer(columns["x"]), origin, _integer(columns.get("w", 0)))
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"the head of {session_of(row)} is unreadable") from None


def read_listed(row: Row) -> Head:
    """A head as the index of the listing has it. :raises Corrupt, IncompatibleStore: as :func:`read_head`."""
    columns = _checked(row)
    try:
        return _head(session_of(row), columns, deleted=False, active_us=-dict(row.primary_key)["r"])
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"the head of {session_of(row)} is unreadable") from None


def read_entry(row: Row) -> EntryRow:
    """Without payload if that was not asked for. :raises Corrupt, IncompatibleStore: as :func:`read_head`."""
    columns = _checked(row)
    position = position_of(place(row))
    try:
        payload: bytes | Parts = _binary(columns.get("p", b""))
        if "z" in columns:
            payload = Parts(_integer(columns["z"]), _integer(columns["y"]))
        return EntryRow(
            position,
            _text(columns["i"]),
            payload,
            _integer(columns["t"]),
            _integer(columns["o"]),
            _integer(columns["x"]),
            _integer(columns.get("e", 0)),
            Parts(_integer(columns["rz"]), _integer(columns["ry"])) if "rz" in columns else None,
        )
    except (KeyError, TypeError, ValueError):
        raise Corrupt(f"entry {position.seq} of {session_of(row)} is unreadable") from None


def read_part(row: Row) -> bytes:
    """:raises Corrupt, IncompatibleStore: as :func:`read_head`."""
    try:
        return _binary(_checked(row)["p"])
    except (KeyError, TypeError):
        raise Corrupt(f"a part of a payload of {session_of(row)} is unreadable") from None


def _head(key: SessionKey, columns: Mapping[str, Any], *, deleted: bool, active_us: int) -> Head:
    snapshot = None
    if "fn" in columns:
        snapshot = Snapshot(_integer(columns["fn"]), _text(columns["fi"]), _binary(columns["fc"]))
    return Head(
        key,
        Position(_integer(columns["g"]), _integer(columns["n"])),
        _text(columns["i"]),
        deleted=deleted,
        heartbeat=_integer(columns["b"]),
        rewrites=_integer(columns["e"]),
        active_us=active_us,
        snapshot=snapshot,
    )


def _checked(row: Row) -> dict[str, Any]:
    columns = _columns(row)
    version = columns.get("v")
    if type(version) is int and version > VERSION:
        raise IncompatibleStore(f"a row of {session_of(row)} is of version {version}; this one reads up to {VERSION}")
    return columns


def _columns(row: Row) -> dict[str, Any]:
    return {name: value for name, value, *_ in row.attribute_columns or ()}


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("a column is not an integer")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError("a column is not a text")
    return value


def _binary(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise TypeError("a column is not binary")
    return bytes(value)
