"""Limits of the service, from its public documentation."""

from __future__ import annotations

import re

from .errors import Refused, invalid
from .plainbuffer import Value

KEY_COLUMNS = 4
KEY_VALUE = 1024  # bytes
CELL_VALUE = 2 << 20  # bytes
REQUEST_DATA = 4 << 20  # bytes of the rows of one write or batch
BODY = 5 << 20  # bytes
COLUMNS = 1024  # per write
COLUMN_NAME = 255  # bytes
ROWS_PER_WRITE = 200
ROWS_PER_READ = 100
PAGE_ROWS = 5000
PAGE_DATA = 4 << 20  # bytes
TABLES = 64  # with indexes
CAPACITY_UNIT = 4096  # bytes

TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)


def value_size(value: Value) -> int:
    if isinstance(value, bool):
        return 1
    if isinstance(value, (int, float)):
        return 8
    return len(value.encode() if isinstance(value, str) else value)


def units(size: int) -> int:
    """Return the capacity units of a size: one for each 4 KB, rounded up."""
    return max(1, -(-size // CAPACITY_UNIT))


def check_table_name(name: str) -> None:
    if not TABLE_NAME.fullmatch(name):
        raise invalid(f"Invalid table name: '{name}'.")


def check_column(name: str, value: Value | None) -> None:
    if not 1 <= len(name.encode()) <= COLUMN_NAME:
        raise invalid("The length of an attribute column's name is not within 1 and 255 bytes.")
    if value is not None and value_size(value) > CELL_VALUE:
        raise invalid(f"The length of attribute column: '{name}' exceeds the MaxLength: {CELL_VALUE}.")


def check_key_value(name: str, value: Value) -> None:
    if isinstance(value, (str, bytes)) and value_size(value) > KEY_VALUE:
        raise invalid(f"The length of primary key column: '{name}' exceeds the MaxLength: {KEY_VALUE}.")


def check_write(sizes: list[int]) -> None:
    if sum(sizes) > REQUEST_DATA:
        raise Refused("OTSParameterInvalid", f"The total data size of the request exceeds the limit: {REQUEST_DATA}.")
