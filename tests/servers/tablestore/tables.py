"""Tables, their rows and their indexes, without the wire protocol."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from . import limits
from .errors import Refused, invalid
from .plainbuffer import Key, Mark, Value

FOREVER = -1  # seconds of a time to live
TYPES: dict[str, type] = {"INTEGER": int, "STRING": str, "BINARY": bytes, "DOUBLE": float, "BOOLEAN": bool}

Versions = dict[int, Value]
"""Values by milliseconds, the newest first."""
Columns = dict[str, Versions]
SortableKey = tuple[tuple[int, Value], ...]
"""A key that Python can compare."""


@dataclass(frozen=True)
class KeyColumn:
    name: str
    type: str
    auto_increment: bool = False


@dataclass(frozen=True)
class Options:
    """Options of a table.

    :ivar time_to_live: seconds.
    :ivar deviation: the seconds by which a timestamp may differ from the clock.
    """

    time_to_live: int = FOREVER
    max_versions: int = 1
    deviation: int = 86400
    allow_update: bool = True


@dataclass(frozen=True)
class Row:
    """A stored row.

    :ivar written: milliseconds. A row without columns expires by this time.
    """

    key: Key
    columns: Columns
    written: int

    @property
    def size(self) -> int:
        keys = sum(
            len(name.encode()) + limits.value_size(value) for name, value in self.key if not isinstance(value, Mark)
        )
        return keys + sum(
            len(name.encode()) + limits.value_size(value) + 8
            for name, versions in self.columns.items()
            for value in versions.values()
        )


class Rows:
    """Rows in the order of their keys."""

    def __init__(self) -> None:
        self._keys: list[SortableKey] = []
        self._rows: dict[SortableKey, Row] = {}

    def get(self, key: Key) -> Row | None:
        return self._rows.get(sortable(key))

    def set(self, row: Row) -> None:
        where = sortable(row.key)
        if where not in self._rows:
            insort(self._keys, where)
        self._rows[where] = row

    def remove(self, key: Key) -> None:
        where = sortable(key)
        if self._rows.pop(where, None) is not None:
            del self._keys[bisect_left(self._keys, where)]

    def __iter__(self) -> Iterator[Row]:
        return (self._rows[where] for where in self._keys)

    def between(self, start: Key, end: Key, *, backward: bool) -> Iterator[Row]:
        """Return the rows from start, included, to end, excluded.

        :raises Refused: the end is not after the start.
        """
        first, last = sortable(start), sortable(end)
        if last >= first if backward else first >= last:
            raise invalid(f"Begin key must be {'more' if backward else 'less'} than end key.")
        if backward:
            found = self._keys[bisect_right(self._keys, last) : bisect_right(self._keys, first)][::-1]
        else:
            found = self._keys[bisect_left(self._keys, first) : bisect_left(self._keys, last)]
        return (self._rows[where] for where in found)


def sortable(key: Key) -> SortableKey:
    return tuple(sortable_value(value) for _, value in key)


def sortable_value(value: Value | Mark) -> tuple[int, Value]:
    if value is Mark.INF_MIN:
        return 0, 0
    if value is Mark.INF_MAX:
        return 2, 0
    assert not isinstance(value, Mark)
    return 1, value


@dataclass
class Index:
    """An index of a table.

    :ivar own_key: the key as it was declared. The columns of the table's key follow it in ``key``.
    """

    name: str
    key: list[KeyColumn]
    own_key: list[str]
    columns: list[str]
    is_local: bool
    rows: Rows = field(default_factory=Rows)
    _late: deque[tuple[float, Row | None, Row | None]] = field(default_factory=deque)

    def change(self, old: Row | None, new: Row | None, due: float) -> None:
        self._late.append((due, old, new))

    def settle(self, now: float) -> None:
        """Apply the changes that are due."""
        while self._late and self._late[0][0] <= now:
            _, old, new = self._late.popleft()
            if old and (entry := self._entry(old)):
                self.rows.remove(entry.key)
            if new and (entry := self._entry(new)):
                self.rows.set(entry)

    def _entry(self, row: Row) -> Row | None:
        """Return the row of the index, if the row of the table has all columns of the index key."""
        values: dict[str, Value | Mark] = {name: latest(versions) for name, versions in row.columns.items()}
        values.update(row.key)
        if any(column.name not in values for column in self.key):
            return None
        columns = {name: row.columns[name] for name in self.columns if name in row.columns}
        return Row([(column.name, values[column.name]) for column in self.key], columns, row.written)


def latest(versions: Versions) -> Value:
    return next(iter(versions.values()))


@dataclass
class Table:
    name: str
    key: list[KeyColumn]
    defined: dict[str, str]
    options: Options
    ready_at: float
    created_at: float
    rows: Rows = field(default_factory=Rows)
    indexes: dict[str, Index] = field(default_factory=dict)
    _last_increment: int = 0

    def read(self, key: Key, now: float) -> Row | None:
        return self.alive(self.rows.get(key), now)

    def alive(self, row: Row | None, now: float) -> Row | None:
        """Return a row without its expired columns; ``None`` if all of it has expired."""
        if row is None or self.options.time_to_live == FOREVER:
            return row
        oldest = int((now - self.options.time_to_live) * 1000)
        columns = {
            name: kept
            for name, versions in row.columns.items()
            if (kept := {time: value for time, value in versions.items() if time > oldest})
        }
        return Row(row.key, columns, row.written) if columns or row.written > oldest else None

    def store(self, key: Key, new: Row | None, now: float, lag: float) -> None:
        """Replace or remove the row at a key. Global indexes follow after a lag in seconds."""
        old = self.rows.get(key)
        if new is None:
            self.rows.remove(key)
        else:
            self.rows.set(new)
        for index in self.indexes.values():
            index.change(old, new, now if index.is_local else now + lag)
            if index.is_local:
                index.settle(now)

    def next_increment(self) -> int:
        """Return a number that is larger than all before, but not always the next one."""
        self._last_increment += random.randint(1, 1000)
        return self._last_increment

    def add_index(self, name: str, own_key: Sequence[str], columns: Sequence[str], *, is_local: bool) -> Index:
        """Add an index.

        :raises Refused: the index does not fit the table.
        """
        key = self._index_key(own_key, is_local=is_local)
        for column in columns:
            if column not in self.defined:
                raise invalid(f"Index column '{column}' must be a defined column.")
        if self.options.max_versions != 1:
            raise invalid("A table with indexes has one version of each cell.")
        if self.options.time_to_live != FOREVER and self.options.allow_update:
            raise invalid("A table with indexes and a time to live must not allow updates.")
        index = self.indexes[name] = Index(name, key, list(own_key), list(columns), is_local)
        return index

    def _index_key(self, names: Sequence[str], *, is_local: bool) -> list[KeyColumn]:
        own = {column.name: column.type for column in self.key}
        for name in names:
            if name not in own and self.defined.get(name) not in ("INTEGER", "STRING", "BINARY"):
                raise invalid(
                    f"Index primary key '{name}' is neither a primary key nor a defined column that can be one."
                )
        if not names or (is_local and names[0] != self.key[0].name):
            raise invalid("A local index begins with the partition key of its table.")
        types = {**self.defined, **own}
        added = [column.name for column in self.key if column.name not in names]
        return [KeyColumn(name, types[name]) for name in (*names, *added)]


class Instance:
    """All tables of an instance, and the names of their indexes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.tables: dict[str, Table] = {}

    def create(self, table: Table) -> None:
        self.check_room(table.name)
        self.tables[table.name] = table

    def check_room(self, name: str) -> None:
        """Check the name of a new table or index.

        :raises Refused: the name is invalid or taken, or there are too many tables.
        """
        limits.check_table_name(name)
        taken = {*self.tables, *(index for table in self.tables.values() for index in table.indexes)}
        if name in taken:
            raise Refused("OTSObjectAlreadyExist", "Requested table already exists.")
        if len(taken) >= limits.TABLES:
            raise Refused("OTSQuotaExhausted", "Number of tables exceeded the quota.")

    def table(self, name: str) -> Table:
        limits.check_table_name(name)
        if name not in self.tables:
            raise Refused("OTSObjectNotExist", "Requested table does not exist.")
        return self.tables[name]

    def ready_table(self, name: str) -> Table:
        """Return a table that can be read and written.

        :raises Refused: it is missing or not ready.
        """
        table = self.table(name)
        if self.clock() < table.ready_at:
            raise Refused("OTSTableNotReady", "The table is not ready.")
        return table

    def source(self, name: str) -> tuple[Table, Rows, list[KeyColumn]]:
        """Return the table, rows and key columns of a read, which names a table or an index."""
        for table in self.tables.values():
            if index := table.indexes.get(name):
                self.ready_table(table.name)
                index.settle(self.clock())
                return table, index.rows, index.key
        table = self.ready_table(name)
        return table, table.rows, table.key
