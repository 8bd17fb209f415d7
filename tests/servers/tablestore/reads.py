"""Selections of columns, and pages of ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import limits
from .errors import Refused, invalid
from .filters import Filter
from .plainbuffer import Cell, Key
from .plainbuffer import Row as WireRow
from .tables import Columns, Row, Table


@dataclass(frozen=True)
class Selection:
    """The columns and versions that a read returns.

    :ivar columns: the names of columns; all columns if it is empty.
    :ivar start_time: milliseconds, included.
    :ivar end_time: milliseconds, excluded.
    """

    columns: frozenset[str] = frozenset()
    start_column: str | None = None
    end_column: str | None = None
    start_time: int = 0
    end_time: int | None = None
    max_versions: int | None = None
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if self.max_versions is None and self.end_time is None:
            raise invalid("No version condition is specified while querying row.")
        if self.max_versions is not None and self.max_versions < 1:
            raise invalid("The number of max versions must be greater than 0.")

    def of(self, row: Row) -> WireRow | None:
        """Return the selected columns of a row; ``None`` if the filter refuses it, or if it has none of the columns."""
        if self.filter and not self.filter(row.columns):
            return None
        columns = {name: kept for name in row.columns if self._has(name) and (kept := self._cells(name, row.columns))}
        if self.columns and not columns and not self.columns & {name for name, _ in row.key}:
            return None
        return WireRow(row.key, [cell for cells in columns.values() for cell in cells])

    def _has(self, name: str) -> bool:
        return (
            (not self.columns or name in self.columns)
            and (self.start_column is None or self.start_column <= name)
            and (self.end_column is None or name < self.end_column)
        )

    def _cells(self, name: str, columns: Columns) -> list[Cell]:
        cells = [
            Cell(name, value, time)
            for time, value in columns[name].items()
            if self.start_time <= time and (self.end_time is None or time < self.end_time)
        ]
        return cells[: self.max_versions]


@dataclass(frozen=True)
class Page:
    """Rows of a range.

    :ivar size: the bytes that were read.
    """

    rows: list[WireRow]
    size: int
    next_key: Key | None


def page(
    rows: Iterator[Row], table: Table, selection: Selection, *, limit: int | None, scan_limit: int, now: float
) -> Page:
    """Read until the limit is reached or the page is full.

    A page is full after ``scan_limit`` rows or 4 MB. Rows that the filter refuses count as well.
    """
    if limit is not None and limit < 1:
        raise invalid("The limit must be greater than 0.")
    found: list[WireRow] = []
    size = 0
    for read, stored in enumerate(rows):
        full = read >= scan_limit or size >= limits.PAGE_DATA or (limit is not None and len(found) >= limit)
        row = table.alive(stored, now)
        if row is None:
            continue
        if full:
            return Page(found, size, row.key)
        size += row.size
        if selected := selection.of(row):
            found.append(selected)
    return Page(found, size, None)


def no_token(token: bytes) -> None:
    if token:
        raise Refused("OTSUnsupportOperation", "This test server never splits a row, so it did not make this token.")
