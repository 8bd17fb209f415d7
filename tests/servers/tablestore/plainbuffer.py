"""PlainBuffer, the encoding of keys, cells and rows."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Mark(Enum):
    """A special value of a key: an end of a range, or a number that the service chooses."""

    INF_MIN = 0x9
    INF_MAX = 0xA
    AUTO_INCREMENT = 0xB


Value = bool | int | float | str | bytes
Key = Sequence[tuple[str, Value | Mark]]


class Change(IntEnum):
    """A change that a cell of an update makes without setting a value."""

    DELETE_ALL_VERSIONS = 0x1
    DELETE_ONE_VERSION = 0x3
    INCREMENT = 0x4


@dataclass(frozen=True)
class Cell:
    name: str
    value: Value | Mark | None = None  # only keys have marks
    timestamp: int | None = None
    change: Change | None = None


@dataclass
class Row:
    key: Key
    cells: list[Cell] = field(default_factory=list)
    deleted: bool = False


class CorruptError(ValueError):
    """The bytes are not valid PlainBuffer."""


HEADER = struct.pack("<i", 0x75)
ROW_KEY, ROW_DATA, CELL, CELL_NAME, CELL_VALUE, CELL_CHANGE, CELL_TIMESTAMP, DELETED, ROW_CHECKSUM, CELL_CHECKSUM = (
    range(0x1, 0xB)
)
INTEGER, DOUBLE, BOOLEAN, STRING, BLOB = 0x0, 0x1, 0x2, 0x3, 0x7


def encoded(rows: Iterable[Row]) -> bytes:
    """Encode rows. Without rows, return no bytes."""
    body = b"".join(_row(row) for row in rows)
    return HEADER + body if body else b""


def decoded(data: bytes) -> Row:
    """Decode one row.

    :raises CorruptError: there is not exactly one row, or a checksum is wrong.
    """
    rows = decoded_rows(data)
    if len(rows) != 1:
        raise CorruptError(f"{len(rows)} rows instead of one")
    return rows[0]


def decoded_rows(data: bytes) -> list[Row]:
    reader = _Reader(data)
    if reader.take(len(HEADER)) != HEADER:
        raise CorruptError("the header is wrong")
    rows = []
    while not reader.at_end:
        rows.append(_read_row(reader))
    return rows


def variant(value: Value | Mark) -> bytes:
    """Encode type and value, for filters and cells."""
    if isinstance(value, Mark):
        return bytes([value.value])
    if isinstance(value, bool):
        return bytes([BOOLEAN, value])
    if isinstance(value, int):
        return struct.pack("<Bq", INTEGER, value)
    if isinstance(value, float):
        return struct.pack("<Bd", DOUBLE, value)
    if isinstance(value, str):
        text = value.encode()
        return struct.pack("<Bi", STRING, len(text)) + text
    return struct.pack("<Bi", BLOB, len(value)) + value


def decoded_variant(data: bytes) -> Value | Mark:
    reader = _Reader(data)
    value = _read_variant(reader)
    if not reader.at_end:
        raise CorruptError("bytes follow a value")
    return value


def _row(row: Row) -> bytes:
    parts = [bytes([ROW_KEY])]
    checksum = 0
    keys = [_cell(name.encode(), variant(value)) for name, value in row.key]
    cells = [
        _cell(cell.name.encode(), b"" if cell.value is None else variant(cell.value), cell.timestamp, cell.change)
        for cell in row.cells
    ]
    for part, crc in keys:
        parts.append(part)
        checksum = crc8(bytes([crc]), checksum)
    if cells:
        parts.append(bytes([ROW_DATA]))
    for part, crc in cells:
        parts.append(part)
        checksum = crc8(bytes([crc]), checksum)
    if row.deleted:
        parts.append(bytes([DELETED]))
    parts.append(bytes([ROW_CHECKSUM, crc8(bytes([row.deleted]), checksum)]))
    return b"".join(parts)


def _cell(name: bytes, value: bytes, timestamp: int | None = None, change: Change | None = None) -> tuple[bytes, int]:
    part = struct.pack("<BBi", CELL, CELL_NAME, len(name)) + name
    if value:
        part += struct.pack("<Bi", CELL_VALUE, len(value)) + value
    if change is not None:
        part += bytes([CELL_CHANGE, change])
    if timestamp is not None:
        part += struct.pack("<Bq", CELL_TIMESTAMP, timestamp)
    crc = _cell_checksum(name, value, timestamp, change)
    return part + bytes([CELL_CHECKSUM, crc]), crc


def _cell_checksum(name: bytes, value: bytes, timestamp: int | None, change: int | None) -> int:
    """Return the checksum of a cell. It ends with the change, which the encoding puts before the timestamp."""
    crc = crc8(value, crc8(name))
    if timestamp is not None:
        crc = crc8(struct.pack("<q", timestamp), crc)
    return crc if change is None else crc8(bytes([change]), crc)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def at_end(self) -> bool:
        return self.position == len(self.data)

    def take(self, size: int) -> bytes:
        taken = self.data[self.position : self.position + size]
        if size < 0 or len(taken) < size:
            raise CorruptError("it ends too early")
        self.position += size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def size(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def found(self, tag: int) -> bool:
        """Skip a tag, if it is the next byte."""
        if self.data[self.position : self.position + 1] != bytes([tag]):
            return False
        self.position += 1
        return True

    def expect(self, tag: int) -> None:
        if not self.found(tag):
            raise CorruptError(f"tag {tag} is missing at {self.position}")


def _read_row(reader: _Reader) -> Row:
    reader.expect(ROW_KEY)
    keys, checksum = _read_cells(reader, 0)
    cells: list[Cell] = []
    if reader.found(ROW_DATA):
        cells, checksum = _read_cells(reader, checksum)
    deleted = reader.found(DELETED)
    reader.expect(ROW_CHECKSUM)
    if reader.byte() != crc8(bytes([deleted]), checksum):
        raise CorruptError("the checksum of a row is wrong")
    return Row([_key_column(cell) for cell in keys], cells, deleted)


def _key_column(cell: Cell) -> tuple[str, Value | Mark]:
    if cell.value is None or cell.timestamp is not None or cell.change is not None:
        raise CorruptError("a key has a name and a value")
    return cell.name, cell.value


def _read_cells(reader: _Reader, checksum: int) -> tuple[list[Cell], int]:
    cells = []
    while reader.found(CELL):
        cell, crc = _read_cell(reader)
        cells.append(cell)
        checksum = crc8(bytes([crc]), checksum)
    return cells, checksum


def _read_cell(reader: _Reader) -> tuple[Cell, int]:
    reader.expect(CELL_NAME)
    name = reader.take(reader.size())
    raw = reader.take(reader.size()) if reader.found(CELL_VALUE) else b""
    change = _change(reader.byte()) if reader.found(CELL_CHANGE) else None
    timestamp = int(struct.unpack("<q", reader.take(8))[0]) if reader.found(CELL_TIMESTAMP) else None
    reader.expect(CELL_CHECKSUM)
    crc = _cell_checksum(name, raw, timestamp, change)
    if reader.byte() != crc:
        raise CorruptError("the checksum of a cell is wrong")
    value = decoded_variant(raw) if raw else None
    return Cell(_text(name), value, timestamp, change), crc


def _change(byte: int) -> Change:
    try:
        return Change(byte)
    except ValueError:
        raise CorruptError(f"unknown change {byte}") from None


def _read_variant(reader: _Reader) -> Value | Mark:
    kind = reader.byte()
    if kind == INTEGER:
        return int(struct.unpack("<q", reader.take(8))[0])
    if kind == DOUBLE:
        return float(struct.unpack("<d", reader.take(8))[0])
    if kind == BOOLEAN:
        return bool(reader.byte())
    if kind == STRING:
        return _text(reader.take(reader.size()))
    if kind == BLOB:
        return reader.take(reader.size())
    try:
        return Mark(kind)
    except ValueError:
        raise CorruptError(f"unknown type {kind}") from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CorruptError("a string is not UTF-8") from None


def _crc8_table() -> Sequence[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte << 1) ^ (0x107 if byte & 0x80 else 0)  # noqa: PLW2901
        table.append(byte)
    return table


CRC8_TABLE = _crc8_table()
CRC8_PERIOD = 127
"""Bytes. x**(8 * 127) is 1 modulo the polynomial 0x107, so blocks of this length may be combined by XOR first."""


def crc8(data: bytes, crc: int = 0) -> int:
    """Continue a CRC-8 with polynomial 0x07, without reflection."""
    if len(data) > CRC8_PERIOD:
        data, crc = _combined(bytes([data[0] ^ crc]) + data[1:]), 0
    for byte in data:
        crc = CRC8_TABLE[crc ^ byte]
    return crc


def _combined(data: bytes) -> bytes:
    block = 0
    for end in range(len(data), 0, -CRC8_PERIOD):
        block ^= int.from_bytes(data[max(end - CRC8_PERIOD, 0) : end])
    return block.to_bytes(CRC8_PERIOD)
