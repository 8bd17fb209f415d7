"""The API calls of the service, from protobuf messages to protobuf messages."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError, Message

from tablestore.protobuf import search_pb2
from tablestore.protobuf import table_store_pb2 as pb

from . import filters, limits
from .errors import Refused, internal_error, invalid
from .plainbuffer import CorruptError, Mark, decoded, encoded
from .plainbuffer import Row as WireRow
from .reads import Selection, no_token, page
from .tables import FOREVER, Instance, KeyColumn, Options, Table, sortable
from .writes import Existence, Operation, Write, apply, check_key, write_of

KEY_TYPES = {pb.INTEGER: "INTEGER", pb.STRING: "STRING", pb.BINARY: "BINARY"}
DEFINED_TYPES = {
    pb.DCT_INTEGER: "INTEGER",
    pb.DCT_DOUBLE: "DOUBLE",
    pb.DCT_BOOLEAN: "BOOLEAN",
    pb.DCT_STRING: "STRING",
    pb.DCT_BLOB: "BINARY",
}


@dataclass
class Settings:
    """Settings that a test may change at any time.

    :ivar ready_after: the seconds until a new table can be used.
    :ivar index_lag: the seconds until a global index shows a write.
    :ivar scan_limit: the most rows that a page of GetRange reads.
    :ivar apart: the most seconds between the first rows of a batch and the rest. Other requests run meanwhile.
    :ivar any_order: if true, the rows of a batch are written in a random order.
    """

    clock: Callable[[], float] = time.time
    ready_after: float = 0.0
    index_lag: float = 0.0
    scan_limit: int = limits.PAGE_ROWS
    apart: float = 0.0
    any_order: bool = False


@dataclass
class RowFault:
    """An injected failure of one row of a batch.

    :ivar number: counts the rows of all tables.
    :ivar after: if true, the row is stored and its answer is an error.
    """

    number: int
    after: bool


class Service:
    def __init__(self, settings: Settings) -> None:
        self.units: Counter[str] = Counter()
        self._settings = settings
        self._instance = Instance(self._now)
        self._row_fault: RowFault | None = None
        self._calls: dict[str, tuple[Any, Callable[[Any], Message | Coroutine[Any, Any, Message]]]] = {
            "CreateTable": (pb.CreateTableRequest, self._create_table),
            "ListTable": (pb.ListTableRequest, self._list_table),
            "DescribeTable": (pb.DescribeTableRequest, self._describe_table),
            "UpdateTable": (pb.UpdateTableRequest, self._update_table),
            "DeleteTable": (pb.DeleteTableRequest, self._delete_table),
            "CreateIndex": (pb.CreateIndexRequest, self._create_index),
            "DropIndex": (pb.DropIndexRequest, self._drop_index),
            "ListSearchIndex": (search_pb2.ListSearchIndexRequest, self._list_search_index),
            "GetRow": (pb.GetRowRequest, self._get_row),
            "PutRow": (pb.PutRowRequest, self._put_row),
            "UpdateRow": (pb.UpdateRowRequest, self._update_row),
            "DeleteRow": (pb.DeleteRowRequest, self._delete_row),
            "BatchGetRow": (pb.BatchGetRowRequest, self._batch_get_row),
            "BatchWriteRow": (pb.BatchWriteRowRequest, self._batch_write_row),
            "GetRange": (pb.GetRangeRequest, self._get_range),
        }

    def parsed(self, api: str, body: bytes) -> Message:
        if api not in self._calls:
            raise Refused("OTSUnsupportOperation", f"This test server has no {api}.")
        try:
            request: Message = self._calls[api][0].FromString(body)
        except DecodeError:
            raise invalid("The request is no protobuf message of its kind.") from None
        if getattr(request, "transaction_id", ""):
            raise Refused("OTSUnsupportOperation", "This test server has no transactions.")
        return request

    async def answer(self, api: str, request: Message, row_fault: RowFault | None = None) -> bytes:
        """Answer a request.

        :raises Refused: the whole request is refused and has changed nothing.
        """
        self._row_fault = row_fault
        try:
            answer = self._calls[api][1](request)
            if not isinstance(answer, Message):
                answer = await answer
        except CorruptError as error:
            raise invalid(f"Invalid PlainBuffer: {error}.") from None
        except DecodeError:
            raise invalid("Invalid filter.") from None
        for consumed in _consumptions(answer):
            self.units["read"] += consumed.capacity_unit.read
            self.units["write"] += consumed.capacity_unit.write
        return bytes(answer.SerializeToString())

    def copy(self, table_name: str) -> Table:
        return deepcopy(self._instance.tables[table_name])

    def paste(self, table: Table) -> None:
        self._instance.tables[table.name] = deepcopy(table)

    def sizes(self, table_name: str) -> tuple[int, int]:
        """Return the bytes of the rows of a table, and of its indexes; zeros if the table is missing."""
        table = self._instance.tables.get(table_name)
        if table is None:
            return 0, 0
        for index in table.indexes.values():
            index.settle(self._now())
        of_indexes = (row.size for index in table.indexes.values() for row in index.rows)
        return sum(row.size for row in table.rows), sum(of_indexes)

    # tables

    def _create_table(self, request: Any) -> Message:
        now = self._now()
        meta = request.table_meta
        self._instance.check_room(meta.table_name)
        table = Table(
            name=meta.table_name,
            key=_key_schema(meta.primary_key),
            defined={column.name: DEFINED_TYPES[column.type] for column in meta.defined_column},
            options=_options(request.table_options, Options()),
            ready_at=now + self._settings.ready_after,
            created_at=now,
        )
        for index in request.index_metas:
            self._instance.check_room(index.name)
            _add_index(table, index)
        self._instance.create(table)
        return pb.CreateTableResponse()

    def _list_table(self, _request: Any) -> Message:
        return pb.ListTableResponse(table_names=sorted(self._instance.tables))

    def _describe_table(self, request: Any) -> Message:
        table = self._instance.table(request.table_name)
        response = pb.DescribeTableResponse(
            table_meta=_meta(table),
            reserved_throughput_details=_throughput(table),
            table_options=_options_message(table.options),
        )
        response.index_metas.extend(
            pb.IndexMeta(
                name=index.name,
                primary_key=index.own_key,
                defined_column=index.columns,
                index_update_mode=pb.IUM_SYNC_INDEX if index.is_local else pb.IUM_ASYNC_INDEX,
                index_type=pb.IT_LOCAL_INDEX if index.is_local else pb.IT_GLOBAL_INDEX,
            )
            for index in table.indexes.values()
        )
        return response

    def _update_table(self, request: Any) -> Message:
        table = self._instance.table(request.table_name)
        options = _options(request.table_options, table.options)
        if table.indexes and (options.max_versions != 1 or (options.time_to_live != FOREVER and options.allow_update)):
            raise invalid("The options do not fit a table with indexes.")
        table.options = options
        return pb.UpdateTableResponse(
            reserved_throughput_details=_throughput(table), table_options=_options_message(options)
        )

    def _delete_table(self, request: Any) -> Message:
        if self._instance.table(request.table_name).indexes:
            raise invalid("The indexes of a table are to be dropped before it.")
        del self._instance.tables[request.table_name]
        return pb.DeleteTableResponse()

    def _create_index(self, request: Any) -> Message:
        table = self._instance.table(request.main_table_name)
        self._instance.check_room(request.index_meta.name)
        index = _add_index(table, request.index_meta)
        if request.include_base_data:
            for row in table.rows:
                index.change(None, row, self._now())
        return pb.CreateIndexResponse()

    def _drop_index(self, request: Any) -> Message:
        table = self._instance.table(request.main_table_name)
        if table.indexes.pop(request.index_name, None) is None:
            raise Refused("OTSObjectNotExist", "Requested index does not exist.")
        return pb.DropIndexResponse()

    def _list_search_index(self, request: Any) -> Message:
        if request.table_name:
            self._instance.table(request.table_name)
        return search_pb2.ListSearchIndexResponse()

    # reads

    def _get_row(self, request: Any) -> Message:
        row, read = self._read(request, request.primary_key, _selection(request))
        return pb.GetRowResponse(consumed=_consumed(read=read), row=row)

    def _batch_get_row(self, request: Any) -> Message:
        if not 1 <= sum(len(table.primary_key) for table in request.tables) <= limits.ROWS_PER_READ:
            raise invalid(f"Rows count is not within 1 and {limits.ROWS_PER_READ}.")
        response = pb.BatchGetRowResponse()
        for table in request.tables:
            selection = _selection(table)
            rows = [self._read_of_batch(table, key, selection) for key in table.primary_key]
            response.tables.add(table_name=table.table_name, rows=rows)
        return response

    def _read_of_batch(self, request: Any, key: bytes, selection: Selection) -> Message:
        try:
            row, read = self._read(request, key, selection)
        except Refused as refused:
            return pb.RowInBatchGetRowResponse(is_ok=False, error=_error(refused))
        return pb.RowInBatchGetRowResponse(is_ok=True, consumed=_consumed(read=read), row=row)

    def _read(self, request: Any, encoded_key: bytes, selection: Selection) -> tuple[bytes, int]:
        """Return the encoded row, or ``b""`` for a missing row, and the capacity units."""
        table, rows, schema = self._instance.source(request.table_name)
        key = decoded(encoded_key).key
        check_key(schema, key)
        row = table.alive(rows.get(key), self._now())
        selected = selection.of(row) if row else None
        return encoded([selected] if selected else []), limits.units(row.size if row else 0)

    def _get_range(self, request: Any) -> Message:
        no_token(request.token)
        table, rows, schema = self._instance.source(request.table_name)
        start, end = decoded(request.inclusive_start_primary_key).key, decoded(request.exclusive_end_primary_key).key
        for bound in (start, end):
            check_key(schema, bound, marks=(Mark.INF_MIN, Mark.INF_MAX))
        found = page(
            rows.between(start, end, backward=request.direction == pb.BACKWARD),
            table,
            _selection(request),
            limit=request.limit if request.HasField("limit") else None,
            scan_limit=self._settings.scan_limit,
            now=self._now(),
        )
        response = pb.GetRangeResponse(consumed=_consumed(read=limits.units(found.size)), rows=encoded(found.rows))
        if found.next_key is not None:
            response.next_start_primary_key = encoded([WireRow(found.next_key)])
        return response

    # writes

    def _put_row(self, request: Any) -> Message:
        row, consumed = self._write_one(request, Operation.PUT, request.row)
        return pb.PutRowResponse(consumed=consumed, row=row)

    def _update_row(self, request: Any) -> Message:
        row, consumed = self._write_one(request, Operation.UPDATE, request.row_change)
        return pb.UpdateRowResponse(consumed=consumed, row=row)

    def _delete_row(self, request: Any) -> Message:
        row, consumed = self._write_one(request, Operation.DELETE, request.primary_key)
        return pb.DeleteRowResponse(consumed=consumed, row=row)

    def _write_one(self, request: Any, operation: Operation, row: bytes) -> tuple[bytes, Any]:
        table = self._instance.ready_table(request.table_name)
        write = _write(table, operation, row, request)
        limits.check_write([write.size])
        return self._written(table, write, request)

    def _written(self, table: Table, write: Write, request: Any) -> tuple[bytes, Any]:
        """Return the encoded row, or ``b""`` if the request wants no row, and the capacity units."""
        new = apply(table, write, self._now(), self._settings.index_lag)
        consumed = _consumed(
            read=0 if write.existence is Existence.IGNORE and not write.condition else 1, write=limits.units(write.size)
        )
        wants_key = request.return_content.return_type == pb.RT_PK
        return encoded([WireRow(new.key if new else write.key)]) if wants_key else b"", consumed

    async def _batch_write_row(self, request: Any) -> Message:
        """Check the whole request before anything is stored. Then each row succeeds or fails by itself."""
        fault = self._row_fault  # other requests may change the attribute during an await
        if not 1 <= sum(len(table.rows) for table in request.tables) <= limits.ROWS_PER_WRITE:
            raise invalid(f"Rows count is not within 1 and {limits.ROWS_PER_WRITE}.")
        writes = [self._writes_of_batch(table) for table in request.tables]
        limits.check_write([write.size for of_table in writes for write in of_table if isinstance(write, Write)])
        rows = [
            (table.table_name, write, row)
            for table, of_table in zip(request.tables, writes, strict=True)
            for write, row in zip(of_table, table.rows, strict=True)
        ]
        answers: dict[int, Message] = {}
        async for number in self._write_order(len(rows)):
            answers[number] = self._row_of_batch(*rows[number], fault if fault and fault.number == number else None)
        response = pb.BatchWriteRowResponse()
        numbers = itertools.count()
        for table in request.tables:
            response.tables.add(table_name=table.table_name, rows=[answers[next(numbers)] for _ in table.rows])
        return response

    async def _write_order(self, count: int) -> AsyncIterator[int]:
        """Yield the numbers of the rows of a batch in the order of their writes."""
        order = random.sample(range(count), count) if self._settings.any_order else range(count)
        pause_before = random.randint(1, count)
        for index, number in enumerate(order):
            if self._settings.apart and index == pause_before:
                await asyncio.sleep(random.uniform(0, self._settings.apart))
            yield number

    def _writes_of_batch(self, request: Any) -> list[Write | Refused]:
        """Decode the rows for one table. If the table cannot be written to, each row fails."""
        try:
            table = self._instance.ready_table(request.table_name)
        except Refused as refused:
            return [refused for _ in request.rows]
        writes = [_write(table, Operation(row.type), row.row_change, row) for row in request.rows]
        keys = [sortable(write.key) for write in writes if not any(isinstance(value, Mark) for _, value in write.key)]
        if len(set(keys)) < len(keys):
            raise invalid("A batch has one change of a row at most.")
        return list(writes)

    def _row_of_batch(self, table_name: str, write: Write | Refused, request: Any, fault: RowFault | None) -> Message:
        try:
            if isinstance(write, Refused):
                raise write
            if fault and not fault.after:
                raise internal_error()
            row, consumed = self._written(self._instance.table(table_name), write, request)
            if fault:
                raise internal_error()
        except Refused as refused:
            return pb.RowInBatchWriteRowResponse(is_ok=False, error=_error(refused))
        return pb.RowInBatchWriteRowResponse(is_ok=True, consumed=consumed, row=row)

    def _now(self) -> float:
        return self._settings.clock()


def table_names(request: Any) -> Iterator[str]:
    """Yield the names of the tables in a request."""
    if hasattr(request, "tables"):
        yield from (table.table_name for table in request.tables)
    elif hasattr(request, "table_meta"):
        yield request.table_meta.table_name
    elif hasattr(request, "main_table_name"):
        yield request.main_table_name
    elif hasattr(request, "table_name"):
        yield request.table_name


def error_body(refused: Refused) -> bytes:
    return bytes(_error(refused).SerializeToString())


def _error(refused: Refused) -> Any:
    return pb.Error(code=refused.code, message=refused.message)


def _consumed(*, read: int = 0, write: int = 0) -> Any:
    return pb.ConsumedCapacity(capacity_unit=pb.CapacityUnit(read=read, write=write))


def _consumptions(answer: Any) -> Iterator[Any]:
    """Yield the costs that an answer names, for each row of a batch."""
    if hasattr(answer, "consumed"):
        yield answer.consumed
    for table in getattr(answer, "tables", ()):
        yield from (row.consumed for row in table.rows)


def _key_schema(columns: Any) -> list[KeyColumn]:
    if not 1 <= len(columns) <= limits.KEY_COLUMNS:
        raise invalid(f"The number of primary key columns must be in range: [1, {limits.KEY_COLUMNS}].")
    for column in columns:
        limits.check_column(column.name, None)
        if column.type not in KEY_TYPES:
            raise invalid("A primary key column is an integer, a string or binary.")
    if len({column.name for column in columns}) < len(columns):
        raise invalid("Duplicated primary key column.")
    schema = [KeyColumn(column.name, KEY_TYPES[column.type], column.HasField("option")) for column in columns]
    increments = [column for column in schema if column.auto_increment]
    if schema[0].auto_increment or len(increments) > 1 or any(column.type != "INTEGER" for column in increments):
        raise invalid("Only one integer column, not the partition key, may be AUTO_INCREMENT.")
    return schema


def _options(proto: Any, before: Options) -> Options:
    given: dict[str, Any] = {}
    for name, ours in _OPTION_NAMES.items():
        if proto.HasField(name):
            given[ours] = getattr(proto, name)
    options = replace(before, **given)
    if options.max_versions < 1 or options.deviation < 1:
        raise invalid("MaxVersions and DeviationCellVersionInSec must be greater than 0.")
    if options.time_to_live != FOREVER and options.time_to_live < 86400:
        raise invalid("TimeToLive must be -1 or at least 86400 seconds.")
    return options


_OPTION_NAMES = {
    "time_to_live": "time_to_live",
    "max_versions": "max_versions",
    "deviation_cell_version_in_sec": "deviation",
    "allow_update": "allow_update",
}


def _options_message(options: Options) -> Any:
    return pb.TableOptions(**{name: getattr(options, ours) for name, ours in _OPTION_NAMES.items()})


def _throughput(table: Table) -> Any:
    return pb.ReservedThroughputDetails(
        capacity_unit=pb.CapacityUnit(read=0, write=0), last_increase_time=int(table.created_at)
    )


def _meta(table: Table) -> Any:
    key_types = {name: kind for kind, name in KEY_TYPES.items()}
    defined_types = {name: kind for kind, name in DEFINED_TYPES.items()}
    meta = pb.TableMeta(table_name=table.name)
    for column in table.key:
        option = pb.AUTO_INCREMENT if column.auto_increment else None
        meta.primary_key.add(name=column.name, type=key_types[column.type], option=option)
    for name, kind in table.defined.items():
        meta.defined_column.add(name=name, type=defined_types[kind])
    return meta


def _add_index(table: Table, proto: Any) -> Any:
    return table.add_index(
        proto.name, proto.primary_key, proto.defined_column, is_local=proto.index_type == pb.IT_LOCAL_INDEX
    )


def _selection(request: Any) -> Selection:
    times: dict[str, int] = {}
    if request.HasField("time_range"):
        given = request.time_range
        if given.HasField("specific_time"):
            times = {"start_time": given.specific_time, "end_time": given.specific_time + 1}
        else:
            times = {"start_time": given.start_time, "end_time": given.end_time}
    for token in request.token if isinstance(request, pb.TableInBatchGetRowRequest) else [request.token]:
        no_token(token)
    return Selection(
        columns=frozenset(request.columns_to_get),
        start_column=request.start_column if request.HasField("start_column") else None,
        end_column=request.end_column if request.HasField("end_column") else None,
        max_versions=request.max_versions if request.HasField("max_versions") else None,
        filter=filters.parsed(request.filter) if request.filter else None,
        **times,
    )


def _write(table: Table, operation: Operation, row: bytes, request: Any) -> Write:
    if request.return_content.return_type == pb.RT_AFTER_MODIFY:
        raise Refused("OTSUnsupportOperation", "This test server does not return columns after a write.")
    condition = request.condition
    return write_of(
        table,
        operation,
        decoded(row),
        Existence(condition.row_existence),
        filters.parsed(condition.column_condition) if condition.column_condition else None,
    )
