"""Conditions on columns, for writes and as filters of reads."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from tablestore.protobuf import table_store_filter_pb2 as pb

from .errors import Refused, invalid
from .plainbuffer import CorruptError, Mark, Value, decoded_variant
from .tables import Columns, latest

Filter = Callable[[Columns], bool]

ORDERS: dict[int, Callable[[Any, Any], bool]] = {
    pb.CT_GREATER_THAN: operator.gt,
    pb.CT_GREATER_EQUAL: operator.ge,
    pb.CT_LESS_THAN: operator.lt,
    pb.CT_LESS_EQUAL: operator.le,
}


def parsed(data: bytes) -> Filter:
    """Return a filter.

    :raises Refused: the bytes are no filter, or this server does not have this kind of filter.
    """
    return _filter(pb.Filter.FromString(data))


def _filter(proto: pb.Filter) -> Filter:
    if proto.type == pb.FT_SINGLE_COLUMN_VALUE:
        return _single(pb.SingleColumnValueFilter.FromString(proto.filter))
    if proto.type == pb.FT_COMPOSITE_COLUMN_VALUE:
        return _composite(pb.CompositeColumnValueFilter.FromString(proto.filter))
    raise Refused("OTSUnsupportOperation", "This test server has no column pagination.")


def _composite(proto: pb.CompositeColumnValueFilter) -> Filter:
    parts = [_filter(part) for part in proto.sub_filters]
    if proto.combinator == pb.LO_NOT:
        if len(parts) != 1:
            raise invalid("NOT takes one filter.")
        return lambda columns: not parts[0](columns)
    if not parts:
        raise invalid("AND and OR take filters.")
    combine = all if proto.combinator == pb.LO_AND else any
    return lambda columns: combine(part(columns) for part in parts)


def _single(proto: pb.SingleColumnValueFilter) -> Filter:
    if proto.HasField("value_trans_rule") or proto.comparator in {pb.CT_EXIST, pb.CT_NOT_EXIST}:
        raise Refused("OTSUnsupportOperation", "This test server has no filters by regular expression or existence.")
    wanted = _value(proto.column_value)

    def passes(columns: Columns) -> bool:
        versions = columns.get(proto.column_name)
        if not versions:
            return not proto.filter_if_missing
        found = [latest(versions)] if proto.latest_version_only else list(versions.values())
        return any(compare(value, proto.comparator, wanted) for value in found)

    return passes


def compare(found: Value, comparator: int, wanted: Value) -> bool:
    """Values of different types are unequal and have no order."""
    same_type = type(found) is type(wanted)
    if comparator == pb.CT_EQUAL:
        return same_type and found == wanted
    if comparator == pb.CT_NOT_EQUAL:
        return not same_type or found != wanted
    return same_type and ORDERS[comparator](found, wanted)


def _value(data: bytes) -> Value:
    try:
        value = decoded_variant(data)
    except CorruptError as error:
        raise invalid(f"Invalid column value of a filter: {error}.") from None
    if isinstance(value, Mark):
        raise invalid("A filter compares with a value.")
    return value
