"""The PlainBuffer codec of the test server agrees with the codec of the SDK."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tablestore import INF_MAX, INF_MIN, PK_AUTO_INCR
from tablestore.plainbuffer.plain_buffer_builder import PlainBufferBuilder
from tablestore.plainbuffer.plain_buffer_coded_stream import PlainBufferCodedInputStream
from tablestore.plainbuffer.plain_buffer_crc8 import PlainBufferCrc8
from tablestore.plainbuffer.plain_buffer_stream import PlainBufferInputStream

from servers.tablestore.plainbuffer import (
    Cell,
    Change,
    CorruptError,
    Mark,
    Row,
    Value,
    crc8,
    decoded,
    decoded_rows,
    decoded_variant,
    encoded,
)

SDK_MARKS = {Mark.INF_MIN: INF_MIN, Mark.INF_MAX: INF_MAX, Mark.AUTO_INCREMENT: PK_AUTO_INCR}
SDK_CHANGES = {
    None: "PUT",
    Change.DELETE_ALL_VERSIONS: "DELETE_ALL",
    Change.DELETE_ONE_VERSION: "DELETE",
    Change.INCREMENT: "INCREMENT",
}

integers = st.integers(-(2**63), 2**63 - 1)
names = st.text(min_size=1, max_size=20)
values = st.one_of(integers, st.booleans(), st.floats(allow_nan=False), st.text(max_size=300), st.binary(max_size=300))
key_values = st.one_of(integers, st.text(max_size=50), st.binary(max_size=50), st.sampled_from(Mark))
keys = st.lists(st.tuples(names, key_values), min_size=1, max_size=4)
plain_keys = st.lists(st.tuples(names, key_values.filter(lambda value: not isinstance(value, Mark))), min_size=1)
cells = st.builds(Cell, names, values, st.none() | integers)
changes = st.one_of(
    cells,
    st.builds(Cell, st.text("abc_", min_size=1), st.none(), st.none(), st.just(Change.DELETE_ALL_VERSIONS)),
    st.builds(Cell, names, st.none(), integers, st.just(Change.DELETE_ONE_VERSION)),
    st.builds(Cell, names, integers, st.none(), st.just(Change.INCREMENT)),
)


def sdk_value(value: Value | Mark | None) -> Any:
    if isinstance(value, Mark):
        return SDK_MARKS[value]
    return bytearray(value) if isinstance(value, bytes) else value


def sdk_key(row: Row) -> list[tuple[bytes, Any]]:
    """Return a key with names as bytes, because the Python codec of the SDK counts characters of other names."""
    return [(name.encode(), sdk_value(value)) for name, value in row.key]


def sdk_columns(row: Row) -> list[tuple[Any, ...]]:
    columns = [(cell.name.encode(), sdk_value(cell.value), cell.timestamp) for cell in row.cells]
    return [column[:2] if column[2] is None else column for column in columns]


@settings(deadline=None)
@given(st.builds(Row, keys, st.lists(cells, max_size=5)))
def test_put_is_encoded_as_by_the_sdk(row: Row) -> None:
    data = bytes(PlainBufferBuilder.serialize_for_put_row(sdk_key(row), sdk_columns(row)))
    assert encoded([row]) == data
    assert decoded(data) == row


@settings(deadline=None)
@given(keys)
def test_key_and_delete_are_encoded_as_by_the_sdk(key: list[tuple[str, Value | Mark]]) -> None:
    row, deleted = Row(key), Row(key, deleted=True)
    assert encoded([row]) == bytes(PlainBufferBuilder.serialize_primary_key(sdk_key(row)))
    assert encoded([deleted]) == bytes(PlainBufferBuilder.serialize_for_delete_row(sdk_key(row)))
    assert decoded(encoded([row])) == row
    assert decoded(encoded([deleted])) == deleted


@settings(deadline=None)
@given(keys, changes)
def test_update_of_the_sdk_is_decoded(key: list[tuple[str, Value | Mark]], cell: Cell) -> None:
    row = Row(key, [cell])
    change: Any = (cell.name.encode(), sdk_value(cell.value), cell.timestamp)
    if cell.change is Change.DELETE_ALL_VERSIONS:
        change = cell.name
    data = PlainBufferBuilder.serialize_for_update_row(sdk_key(row), {SDK_CHANGES[cell.change]: [change]})
    assert decoded(bytes(data)) == row
    assert encoded([row]) == bytes(data)


@settings(deadline=None)
@given(st.lists(st.builds(Row, plain_keys, st.lists(cells, max_size=3)), min_size=1, max_size=4))
def test_rows_are_decoded_by_the_sdk(rows: list[Row]) -> None:
    read = PlainBufferCodedInputStream(PlainBufferInputStream(encoded(rows))).read_rows()
    assert [row.primary_key for row in read] == [[(name, sdk_value(value)) for name, value in row.key] for row in rows]
    assert [row.attribute_columns for row in read] == [
        [(cell.name, sdk_value(cell.value), cell.timestamp) for cell in row.cells] for row in rows
    ]
    assert decoded_rows(encoded(rows)) == rows


@settings(deadline=None)
@given(values)
def test_value_of_a_filter_is_decoded(value: Value) -> None:
    data = bytes(PlainBufferBuilder.serialize_column_value(sdk_value(value)))
    assert decoded_variant(data) == value
    with pytest.raises(CorruptError):
        decoded_variant(data + b"\x00")


@settings(deadline=None)
@given(st.binary(max_size=1000), st.integers(0, 255))
def test_checksum_equals_that_of_the_sdk(data: bytes, crc: int) -> None:
    assert crc8(data, crc) == PlainBufferCrc8.crc_string(crc, data)


@settings(deadline=None)
@given(st.builds(Row, keys, st.lists(changes, max_size=3)), st.data())
def test_flipped_bit_is_detected(row: Row, data: st.DataObject) -> None:
    whole = bytearray(encoded([row]))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptError):
        decoded(bytes(whole))


@given(st.builds(Row, keys, st.lists(changes, max_size=3)), st.data())
def test_part_of_a_row_is_refused(row: Row, data: st.DataObject) -> None:
    whole = encoded([row])
    with pytest.raises(CorruptError):
        decoded(whole[: data.draw(st.integers(0, len(whole) - 1))])
