"""Writes of single rows to a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from . import limits
from .errors import Refused, invalid
from .filters import Filter
from .plainbuffer import Cell, Change, Key, Mark, Value
from .plainbuffer import Row as WireRow
from .tables import TYPES, Columns, KeyColumn, Row, Table, Versions


class Operation(Enum):
    PUT = 1
    UPDATE = 2
    DELETE = 3


class Existence(Enum):
    IGNORE = 0
    EXPECT_EXIST = 1
    EXPECT_NOT_EXIST = 2


@dataclass(frozen=True)
class Write:
    operation: Operation
    key: Key
    cells: list[Cell]
    existence: Existence
    condition: Filter | None = None

    @property
    def size(self) -> int:
        """The bytes of names and values, which limits apply to."""
        key = sum(
            len(name.encode()) + limits.value_size(value) for name, value in self.key if not isinstance(value, Mark)
        )
        return key + sum(
            len(cell.name.encode()) + limits.value_size(_value(cell)) for cell in self.cells if cell.value is not None
        )


def write_of(table: Table, operation: Operation, row: WireRow, existence: Existence, condition: Filter | None) -> Write:
    """Return a checked write. The stored row has no influence yet.

    :raises Refused: the row does not fit the table or a limit.
    """
    check_key(table.key, row.key, marks={Mark.AUTO_INCREMENT} if operation is Operation.PUT else set())
    if row.deleted != (operation is Operation.DELETE) or (row.cells and operation is Operation.DELETE):
        raise invalid("The row is not one of its operation.")
    if operation is Operation.UPDATE and not table.options.allow_update:
        raise invalid("UpdateRow is not allowed on a table with AllowUpdate false.")
    if len(row.cells) > limits.COLUMNS:
        raise Refused("OTSOutOfColumnCountLimit", "The number of attribute columns exceeds the limit.")
    names = [name for name, _ in row.key]
    for cell in row.cells:
        _check_cell(table, operation, cell, names)
    return Write(operation, row.key, row.cells, existence, condition)


def check_key(schema: Sequence[KeyColumn], key: Key, *, marks: Iterable[Mark] = ()) -> None:
    """Check a key.

    :raises Refused: its names, their order, its types or its sizes do not fit the table.
    """
    if [name for name, _ in key] != [column.name for column in schema]:
        raise Refused("OTSInvalidPK", "Validate PK name fail.")
    for column, (name, value) in zip(schema, key, strict=True):
        if isinstance(value, Mark):
            if value not in marks or (value is Mark.AUTO_INCREMENT and not column.auto_increment):
                raise Refused("OTSInvalidPK", f"Validate PK type fail. '{name}' needs a value.")
        elif type(value) is not TYPES[column.type]:
            raise Refused("OTSInvalidPK", f"Validate PK type fail. '{name}' is of type {column.type}.")
        else:
            limits.check_key_value(name, value)


def _check_cell(table: Table, operation: Operation, cell: Cell, key_names: list[str]) -> None:
    if cell.name in key_names:
        raise invalid(f"Duplicated attribute column name with primary key column: '{cell.name}'.")
    if isinstance(cell.value, Mark) or (cell.value is None) != (cell.change in _DELETES):
        raise invalid(f"Invalid value of attribute column: '{cell.name}'.")
    if cell.change is not None and operation is not Operation.UPDATE:
        raise invalid("Only UpdateRow deletes cells or increments them.")
    if cell.change is Change.DELETE_ONE_VERSION and cell.timestamp is None:
        raise invalid("To delete one version takes its timestamp.")
    limits.check_column(cell.name, cell.value)
    wanted = table.defined.get(cell.name)
    if wanted and cell.value is not None and type(cell.value) is not TYPES[wanted]:
        raise invalid(f"Defined column '{cell.name}' is of type {wanted}.")


_DELETES = {Change.DELETE_ALL_VERSIONS, Change.DELETE_ONE_VERSION}


def apply(table: Table, write: Write, now: float, lag: float) -> Row | None:
    """Check the condition, write, and return the row that is stored afterwards.

    :raises Refused: nothing was written.
    """
    key = [(name, table.next_increment() if value is Mark.AUTO_INCREMENT else value) for name, value in write.key]
    old = table.read(key, now)
    check_condition(write, old)
    new = changed(table, replace(write, key=key), old, now)
    table.store(key, new, now, lag)
    return new


def check_condition(write: Write, old: Row | None) -> None:
    exists = old is not None
    fits = {
        Existence.IGNORE: True,
        Existence.EXPECT_EXIST: exists,
        Existence.EXPECT_NOT_EXIST: not exists,
    }[write.existence]
    if not fits or (write.condition and not write.condition(old.columns if old else {})):
        raise Refused("OTSConditionCheckFail", "Condition check failed.")


def changed(table: Table, write: Write, old: Row | None, now: float) -> Row | None:
    if write.operation is Operation.DELETE:
        return None
    columns: Columns = {} if old is None or write.operation is Operation.PUT else {**old.columns}
    milliseconds = int(now * 1000)
    for cell in write.cells:
        versions = _versions(table, cell, columns.pop(cell.name, {}), milliseconds)
        if versions:
            columns[cell.name] = versions
    if old is None and write.operation is Operation.UPDATE and not columns:
        return None  # an update that only deletes cells creates no row
    written = milliseconds if old is None or write.operation is Operation.PUT else old.written
    return Row(write.key, dict(sorted(columns.items())), written)


def _versions(table: Table, cell: Cell, versions: Versions, now: int) -> Versions:
    """Return the versions of a cell after a change, the newest first."""
    if cell.change is Change.DELETE_ALL_VERSIONS:
        return {}
    if cell.change is Change.DELETE_ONE_VERSION:
        return {time: value for time, value in versions.items() if time != cell.timestamp}
    time = now if cell.timestamp is None else cell.timestamp
    if abs(time - now) > table.options.deviation * 1000:
        raise invalid("The timestamp deviates too much from the time of the service.")
    value = _incremented(cell, versions) if cell.change is Change.INCREMENT else _value(cell)
    newest_first = sorted({**versions, time: value}.items(), reverse=True, key=lambda version: version[0])
    return dict(newest_first[: table.options.max_versions])


def _incremented(cell: Cell, versions: Versions) -> int:
    before = next(iter(versions.values()), 0)
    if type(before) is not int or type(cell.value) is not int:
        raise invalid(f"Only integers are incremented: '{cell.name}'.")
    if not -(2**63) <= before + cell.value < 2**63:
        raise invalid(f"The increment overflows: '{cell.name}'.")
    return before + cell.value


def _value(cell: Cell) -> Value:
    assert cell.value is not None and not isinstance(cell.value, Mark)  # noqa: PT018
    return cell.value
