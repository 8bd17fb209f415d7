"""The test server of Tablestore answers the unmodified SDK as the service does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tablestore import (
    INF_MAX,
    INF_MIN,
    PK_AUTO_INCR,
    ComparatorType,
    CompositeColumnCondition,
    Condition,
    DeleteRowItem,
    LogicalOperator,
    OTSClient,
    OTSClientError,
    OTSServiceError,
    PutRowItem,
    ReturnType,
    Row,
    SecondaryIndexMeta,
    SecondaryIndexType,
    SingleColumnCondition,
    TableOptions,
    UpdateRowItem,
)
from tablestore.protobuf import table_store_pb2 as pb
from tablestore.retry import DefaultRetryPolicy

from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.faults import Kind
from servers.tablestore.plainbuffer import Row as WireRow
from servers.tablestore.plainbuffer import encoded
from servers.tablestore_client import (
    Key,
    Threaded,
    async_client,
    batch,
    batch_of_keys,
    code_of,
    failures,
    puts,
    send,
    sync_client,
    table,
)
from support import TESTS

KEY = (("u", "STRING"), ("q", "INTEGER"))
LOCAL, GLOBAL = SecondaryIndexType.LOCAL_INDEX, SecondaryIndexType.GLOBAL_INDEX
MEGABYTE = 1 << 20


def key(q: Any, u: Any = "ü") -> list[tuple[str, Any]]:
    return [("u", u), ("q", q)]


def columns(row: Row) -> dict[str, Any]:
    return {name: value for name, value, _ in row.attribute_columns}


def numbers(rows: list[Row]) -> list[int]:
    return [row.primary_key[1][1] for row in rows]


@pytest.fixture
def server() -> Iterator[TablestoreServer]:
    with TablestoreServer() as server:
        yield server


@pytest.fixture(params=["sync v2", "sync v4", "async v2", "async v4"])
async def each_client(request: pytest.FixtureRequest, server: TablestoreServer) -> AsyncIterator[Any]:
    """Both clients of the SDK with both signatures, for one test of each kind of request."""
    kind, version = request.param.split()
    options = {"region": "cn-nowhere"} if version == "v4" else {}
    made = Threaded(sync_client(server, **options)) if kind == "sync" else async_client(server, **options)
    yield made
    await made.close()


@pytest.fixture
async def client(server: TablestoreServer) -> AsyncIterator[Any]:
    made = async_client(server)
    yield made
    await made.close()


@pytest.fixture
def sync(server: TablestoreServer) -> Iterator[OTSClient]:
    made = sync_client(server)
    yield made
    made.connection.pool.clear()


@pytest.fixture
def clock(server: TablestoreServer) -> list[float]:
    """The clock of the server, which a test can set."""
    now = [time.time()]
    server.clock = lambda: now[0]
    return now


# tables


async def test_table_is_created_described_updated_and_deleted(each_client: Any) -> None:
    defined = [("la", "INTEGER"), ("x", "DOUBLE"), ("b", "BINARY")]
    indexes = [SecondaryIndexMeta("i", ["u", "la"], ["x"], LOCAL), SecondaryIndexMeta("g", ["la"], ["b"], GLOBAL)]
    created = table("t", *KEY, defined=defined, allow_update=False, time_to_live=86400)
    await each_client.create_table(*created, secondary_indexes=indexes)
    await each_client.create_table(*table("a", ("k", "BINARY"), ("n", "INTEGER", PK_AUTO_INCR), max_version=3))
    assert await each_client.list_table() == ("a", "t")
    found = await each_client.describe_table("t")
    assert found.table_meta.schema_of_primary_key == list(KEY)
    assert found.table_meta.defined_columns == defined
    assert (found.table_options.time_to_live, found.table_options.allow_update) == (86400, False)
    assert [
        (index.index_name, index.primary_key_names, index.defined_column_names, index.index_type)
        for index in found.secondary_indexes
    ] == [("i", ["u", "la"], ["x"], LOCAL), ("g", ["la"], ["b"], GLOBAL)]
    found = await each_client.describe_table("a")
    assert found.table_meta.schema_of_primary_key == [("k", "BINARY"), ("n", "INTEGER", PK_AUTO_INCR)]
    assert found.table_options.max_version == 3
    await each_client.update_table("a", TableOptions(max_version=2))
    assert (await each_client.describe_table("a")).table_options.max_version == 2
    await each_client.delete_table("a")
    assert await each_client.list_table() == ("t",)


async def test_invalid_tables_and_indexes_are_refused(server: TablestoreServer, client: Any) -> None:
    await client.create_table(*table("t", *KEY, defined=[("x", "INTEGER")]))

    async def refused(call: Any) -> tuple[int, str]:
        with pytest.raises(OTSServiceError) as caught:
            await call
        return code_of(caught.value)

    async def refused_index(name: str, index_key: list[str], kind: Any = LOCAL) -> tuple[int, str]:
        return await refused(client.create_secondary_index("t", SecondaryIndexMeta(name, index_key, [], kind), False))

    invalid = (400, "OTSParameterInvalid")
    assert await refused(client.create_table(*table("t", *KEY))) == (409, "OTSObjectAlreadyExist")
    assert await refused(client.create_table(*table("7t", *KEY))) == invalid
    assert await refused(client.create_table(*table("five", *((name, "STRING") for name in "abcde")))) == invalid
    assert await refused(client.create_table(*table("ttl", *KEY, time_to_live=5))) == invalid
    assert await refused_index("i", ["x"]) == invalid  # it does not begin with the partition key
    assert await refused_index("i", ["u", "unknown"]) == invalid
    assert await refused_index("t", ["u", "x"]) == (409, "OTSObjectAlreadyExist")
    assert await refused(client.describe_table("none")) == (404, "OTSObjectNotExist")
    assert await refused(client.get_row("none", key(1), max_version=1)) == (404, "OTSObjectNotExist")
    await client.create_table(*table("many", *KEY, max_version=2, defined=[("x", "INTEGER")]))
    with_versions = client.create_secondary_index("many", SecondaryIndexMeta("m", ["u", "x"], [], LOCAL), False)
    assert await refused(with_versions) == invalid
    for number in range(62):
        await client.create_table(*table(f"t{number}", *KEY))
    assert await refused(client.create_table(*table("one_more", *KEY))) == (403, "OTSQuotaExhausted")
    assert await refused_index("one_more", ["u", "x"]) == (403, "OTSQuotaExhausted")


async def test_requests_to_a_new_table_are_refused_until_it_is_ready(
    server: TablestoreServer, client: Any, clock: list[float]
) -> None:
    server.ready_after = 60
    await client.create_table(*table("t", *KEY))
    assert (await client.describe_table("t")).table_meta.table_name == "t"
    for call in (
        client.put_row("t", Row(key(1), [])),
        client.get_row("t", key(1), max_version=1),
        client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1),
    ):
        with pytest.raises(OTSServiceError) as caught:
            await call
        assert code_of(caught.value) == (404, "OTSTableNotReady")
    response = await client.batch_write_row(batch("t", puts([key(1), key(2)])))
    assert failures(response) == [(0, "OTSTableNotReady"), (1, "OTSTableNotReady")]
    clock[0] += 60
    await client.put_row("t", Row(key(1), []))


# one row


async def test_every_type_of_value_comes_back(each_client: Any) -> None:
    await each_client.create_table(*table("t", ("s", "STRING"), ("b", "BINARY"), ("n", "INTEGER")))
    for number in (-(2**63), 0, 2**63 - 1):
        row_key = [("s", "schlüssel\x00\U0001f600"), ("b", bytearray(b"\xff\x00")), ("n", number)]
        values = {
            "bool": True,
            "empty": "",
            "float": -1.5e300,
            "int": number,
            "raw": bytearray(range(256)),
            "text": "文字\x00\U0001f600",
        }
        await each_client.put_row("t", Row(row_key, list(values.items())))
        _, row, _ = await each_client.get_row("t", row_key, max_version=1)
        assert row.primary_key == row_key
        assert columns(row) == values
        assert [type(value) for value in columns(row).values()] == [type(value) for value in values.values()]


async def test_column_name_may_have_any_letters(client: Any) -> None:
    """The names are bytes, because the Python codec of the SDK counts characters of other names instead of bytes."""
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [("列の名前".encode(), "値")]))
    await client.update_row("t", Row(key(1), {"PUT": [("ü".encode(), 1)]}), Condition("IGNORE"))
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert columns(row) == {"ü": 1, "列の名前": "値"}
    _, row, _ = await client.get_row("t", key(1), ["列の名前"], max_version=1)
    assert columns(row) == {"列の名前": "値"}


async def test_row_of_the_python_codec_with_a_miscounted_name_is_refused(server: TablestoreServer) -> None:
    client = Threaded(sync_client(server, enable_native=False))
    await client.create_table(*table("t", *KEY))
    with pytest.raises(OTSServiceError, match="PlainBuffer"):
        await client.put_row("t", Row(key(1), [("ü", 1)]))
    await client.close()


async def test_read_of_a_missing_row_returns_none(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert row is None
    response = await client.batch_get_row(batch_of_keys("t", [key(1)]))
    (item,) = response.get_result_by_table("t")
    assert (item.is_ok, item.row) == (True, None)


async def test_read_of_columns_leaves_out_rows_without_them(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [("x", 1), ("y", 1)]))
    await client.put_row("t", Row(key(2), [("y", 2)]))
    await client.put_row("t", Row(key(3), []))
    for wanted, found in (
        (["x"], {1: {"x": 1}}),
        (["q"], {1: {}, 2: {}, 3: {}}),
        (["x", "q"], {1: {"x": 1}, 2: {}, 3: {}}),
    ):
        _, _, rows, _ = await client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), wanted, max_version=1)
        assert dict(zip(numbers(rows), map(columns, rows), strict=True)) == found
    _, row, _ = await client.get_row("t", key(2), ["x"], max_version=1)
    assert row is None


async def test_read_between_two_column_names_returns_those_between(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [(name, name) for name in "dbca"]))
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert list(columns(row)) == list("abcd")
    _, row, _ = await client.get_row("t", key(1), max_version=1, start_column="b", end_column="d")
    assert list(columns(row)) == ["b", "c"]


async def test_a_put_replaces_and_an_update_changes(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [("x", 1), ("y", 1), ("n", 5)]))
    update = {"PUT": [("z", "new")], "DELETE_ALL": ["x"], "INCREMENT": [("n", -7)]}
    await client.update_row("t", Row(key(1), update), Condition("EXPECT_EXIST"))
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert columns(row) == {"n": -2, "y": 1, "z": "new"}
    await client.put_row("t", Row(key(1), [("only", True)]))
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert columns(row) == {"only": True}


async def test_increment_of_a_text_or_beyond_64_bits_is_refused(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [("n", 2**63 - 1), ("x", "1")]))
    for name in ("n", "x"):
        with pytest.raises(OTSServiceError, match="increment"):
            await client.update_row("t", Row(key(1), {"INCREMENT": [(name, 1)]}), Condition("IGNORE"))


async def test_update_that_only_deletes_creates_no_row(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.update_row("t", Row(key(1), {"DELETE_ALL": ["x"]}), Condition("IGNORE"))
    assert (await client.get_row("t", key(1), max_version=1))[1] is None
    await client.update_row("t", Row(key(1), {"PUT": [("x", 1)]}), Condition("IGNORE"))
    assert columns((await client.get_row("t", key(1), max_version=1))[1]) == {"x": 1}


async def test_update_of_a_table_without_allow_update_is_refused(client: Any) -> None:
    await client.create_table(*table("t", *KEY, allow_update=False))
    await client.put_row("t", Row(key(1), [("x", 1)]))
    with pytest.raises(OTSServiceError) as caught:
        await client.update_row("t", Row(key(1), {"PUT": [("x", 2)]}), Condition("IGNORE"))
    assert code_of(caught.value) == (400, "OTSParameterInvalid")
    await client.put_row("t", Row(key(1), [("x", 3)]))
    assert columns((await client.get_row("t", key(1), max_version=1))[1]) == {"x": 3}


async def test_write_with_a_failed_condition_changes_nothing(each_client: Any) -> None:
    await each_client.create_table(*table("t", *KEY))
    await each_client.put_row("t", Row(key(1), [("g", 7)]), Condition("EXPECT_NOT_EXIST"))
    is_eight = SingleColumnCondition("g", 8, ComparatorType.EQUAL, pass_if_missing=False)
    for call in (
        each_client.put_row("t", Row(key(1), [("g", 0)]), Condition("EXPECT_NOT_EXIST")),
        each_client.put_row("t", Row(key(2), [("g", 0)]), Condition("EXPECT_EXIST")),
        each_client.put_row("t", Row(key(1), [("g", 0)]), Condition("EXPECT_EXIST", is_eight)),
        each_client.update_row("t", Row(key(1), {"PUT": [("g", 0)]}), Condition("IGNORE", is_eight)),
        each_client.delete_row("t", key(1), Condition("EXPECT_EXIST", is_eight)),
        each_client.delete_row("t", key(2), Condition("EXPECT_EXIST")),
    ):
        with pytest.raises(OTSServiceError) as caught:
            await call
        assert code_of(caught.value) == (403, "OTSConditionCheckFail")
    _, _, rows, _ = await each_client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)
    assert [columns(row) for row in rows] == [{"g": 7}]
    is_seven = SingleColumnCondition("g", 7, ComparatorType.EQUAL, pass_if_missing=False)
    await each_client.delete_row("t", key(1), Condition("EXPECT_EXIST", is_seven))
    assert (await each_client.get_row("t", key(1), max_version=1))[1] is None


@pytest.mark.parametrize(
    ("comparator", "missing", "passing"),
    [
        (ComparatorType.EQUAL, False, [2]),
        (ComparatorType.NOT_EQUAL, False, [1, 3, 5]),
        (ComparatorType.LESS_THAN, True, [1, 4]),
        (ComparatorType.LESS_EQUAL, False, [1, 2]),
        (ComparatorType.GREATER_THAN, False, [3]),
        (ComparatorType.GREATER_EQUAL, True, [2, 3, 4]),
    ],
)
async def test_filter_compares_values_of_one_type(
    client: Any, comparator: str, *, missing: bool, passing: list[int]
) -> None:
    await client.create_table(*table("t", *KEY))
    for number, stored in enumerate([[("x", 1)], [("x", 2)], [("x", 3)], [("y", 2)], [("x", "2")]], start=1):
        await client.put_row("t", Row(key(number), stored))
    condition = SingleColumnCondition("x", 2, comparator, pass_if_missing=missing)
    bounds = key(INF_MIN), key(INF_MAX)
    _, _, rows, _ = await client.get_range("t", "FORWARD", *bounds, column_filter=condition, max_version=1)
    assert numbers(rows) == passing


async def test_composite_filter_combines_its_parts(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    for number in range(4):
        await client.put_row("t", Row(key(number), [("a", bool(number & 1)), ("b", bool(number & 2))]))

    def composed(operator: str, *parts: Any) -> CompositeColumnCondition:
        condition = CompositeColumnCondition(operator)
        for part in parts:
            condition.add_sub_condition(part)
        return condition

    a, b = (SingleColumnCondition(name, True, ComparatorType.EQUAL) for name in "ab")
    for condition, passing in (
        (composed(LogicalOperator.AND, a, b), [3]),
        (composed(LogicalOperator.OR, a, b), [1, 2, 3]),
        (composed(LogicalOperator.NOT, composed(LogicalOperator.AND, a, b)), [0, 1, 2]),
    ):
        bounds = key(INF_MIN), key(INF_MAX)
        _, _, rows, _ = await client.get_range("t", "FORWARD", *bounds, column_filter=condition, max_version=1)
        assert numbers(rows) == passing


async def test_auto_increment_key_grows(client: Any) -> None:
    await client.create_table(*table("t", ("u", "STRING"), ("q", "INTEGER", PK_AUTO_INCR)))
    given = []
    for _ in range(5):
        _, row = await client.put_row("t", Row(key(PK_AUTO_INCR), [("x", 1)]), return_type=ReturnType.RT_PK)
        given.append(row.primary_key[1][1])
    twice = [PutRowItem(Row(key(PK_AUTO_INCR), [("x", 1)]), None, ReturnType.RT_PK) for _ in range(2)]
    response = await client.batch_write_row(batch("t", twice))
    given += [item.row.primary_key[1][1] for item in response.get_put()[0]]
    assert given == sorted(set(given))
    _, _, rows, _ = await client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)
    assert numbers(rows) == given


async def test_invalid_key_is_refused(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    for wrong in ([("u", "s")], [("q", 1), ("u", "s")], [("u", 1), ("q", 1)], [("u", "s"), ("q", PK_AUTO_INCR)]):
        with pytest.raises(OTSServiceError) as caught:
            await client.put_row("t", Row(wrong, [("x", 1)]))
        assert code_of(caught.value) == (400, "OTSInvalidPK")
    for call in (client.put_row("t", Row(key(1), [("q", 1)])), client.get_row("t", key(1), max_version=None)):
        with pytest.raises(OTSServiceError) as caught:
            await call
        assert code_of(caught.value) == (400, "OTSParameterInvalid")


# versions and time


async def test_cell_keeps_its_newest_versions(client: Any, clock: list[float]) -> None:
    await client.create_table(*table("t", *KEY, max_version=2))
    now = int(clock[0] * 1000)
    for age in (1, 3, 2):
        await client.update_row("t", Row(key(1), {"PUT": [("x", age, now - age)]}), Condition("IGNORE"))
    _, row, _ = await client.get_row("t", key(1), max_version=5)
    assert row.attribute_columns == [("x", 1, now - 1), ("x", 2, now - 2)]
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert row.attribute_columns == [("x", 1, now - 1)]
    _, row, _ = await client.get_row("t", key(1), time_range=(now - 5, now - 1))
    assert row.attribute_columns == [("x", 2, now - 2)]
    _, row, _ = await client.get_row("t", key(1), time_range=now - 1)
    assert row.attribute_columns == [("x", 1, now - 1)]
    await client.update_row("t", Row(key(1), {"DELETE": [("x", None, now - 1)]}), Condition("IGNORE"))
    _, row, _ = await client.get_row("t", key(1), max_version=5)
    assert row.attribute_columns == [("x", 2, now - 2)]
    with pytest.raises(OTSServiceError, match="timestamp"):
        await client.put_row("t", Row(key(1), [("x", 1, now + 2 * 86_400_000)]))


async def test_expired_row_leaves_table_and_index(client: Any, clock: list[float]) -> None:
    created = table("t", *KEY, defined=[("la", "INTEGER")], time_to_live=86400, allow_update=False)
    await client.create_table(*created, secondary_indexes=[SecondaryIndexMeta("i", ["u", "la"], [], LOCAL)])
    await client.put_row("t", Row(key(1), [("la", 1)]))
    clock[0] += 50_000
    await client.put_row("t", Row(key(2), [("la", 2)]))

    async def alive() -> list[list[int]]:
        in_table = await client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)
        bounds = [[("u", "ü"), ("la", bound), ("q", bound)] for bound in (INF_MIN, INF_MAX)]
        in_index = await client.get_range("i", "FORWARD", *bounds, max_version=1)
        return [numbers(in_table[2]), numbers(in_index[2])]

    assert await alive() == [[1, 2], [1, 2]]
    clock[0] += 36_401
    assert await alive() == [[2], [2]]
    await client.put_row("t", Row(key(1), []), Condition("EXPECT_NOT_EXIST"))
    clock[0] += 50_000
    assert await alive() == [[1], []]


# ranges


async def test_range_is_read_in_pages_in_both_directions(each_client: Any) -> None:
    await each_client.create_table(*table("t", *KEY))
    await each_client.batch_write_row(batch("t", puts((key(number) for number in range(10)), ("x", 1))))
    await each_client.batch_write_row(batch("t", puts((key(number, "other") for number in range(3)), ("x", 1))))
    for direction, start, end, pages in (
        ("FORWARD", key(INF_MIN), key(INF_MAX), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ("BACKWARD", key(INF_MAX), key(INF_MIN), [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]),
        ("FORWARD", key(2), key(6), [[2, 3, 4, 5]]),
        ("BACKWARD", key(6), key(2), [[6, 5, 4, 3]]),
        ("FORWARD", key(20), key(30), [[]]),
    ):
        read = []
        token: Any = start
        while token is not None:
            _, token, rows, _ = await each_client.get_range("t", direction, token, end, limit=4, max_version=1)
            read.append(numbers(rows))
        assert read == pages
    for direction, first, last in (("FORWARD", 6, 2), ("BACKWARD", 2, 6), ("FORWARD", 3, 3), ("BACKWARD", 3, 3)):
        with pytest.raises(OTSServiceError) as caught:
            await each_client.get_range("t", direction, key(first), key(last), max_version=1)
        assert code_of(caught.value) == (400, "OTSParameterInvalid")


async def test_page_ends_after_4_megabytes_or_the_scan_limit(server: TablestoreServer, client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    for number in range(6):
        await client.put_row("t", Row(key(number), [("x", "y" * MEGABYTE)]))
    _, token, rows, _ = await client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)
    assert (numbers(rows), token) == ([0, 1, 2, 3], key(4))
    server.scan_limit = 2
    none = SingleColumnCondition("x", "z", ComparatorType.EQUAL)
    bounds = key(INF_MIN), key(INF_MAX)
    _, token, rows, _ = await client.get_range("t", "FORWARD", *bounds, limit=5, column_filter=none, max_version=1)
    assert (rows, token) == ([], key(2))  # the page counts rows that the filter refused


texts = st.sampled_from(["", "a", "a\x00", "ab", "b", "é", "\uffff", "\U0001f600"])
integers = st.sampled_from([-(2**63), -1, 0, 1, 7, 2**63 - 1])
stored_keys = st.tuples(texts, integers)
bounds = st.tuples(texts | st.sampled_from([INF_MIN, INF_MAX]), integers | st.sampled_from([INF_MIN, INF_MAX]))
with_fixtures = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def order(found: tuple[Any, Any]) -> list[tuple[int, Any]]:
    """Return a sort key for keys, without the code of the server: texts are ordered by their bytes."""
    return [
        (-1, b"")
        if value is INF_MIN
        else (1, b"")
        if value is INF_MAX
        else (0, value.encode() if isinstance(value, str) else value)
        for value in found
    ]


@with_fixtures
@given(
    st.sets(stored_keys), bounds, bounds, st.integers(1, 5), st.integers(1, 5), st.sampled_from(["FORWARD", "BACKWARD"])
)
def test_any_range_equals_that_of_a_sorted_list(
    server: TablestoreServer, sync: OTSClient, stored: set[Any], one: Any, other: Any, limit: int, scan: int, way: str
) -> None:
    assume(order(one) != order(other))
    start, end = sorted([one, other], key=order, reverse=way == "BACKWARD")
    expected = [
        found
        for found in sorted(stored, key=order, reverse=way == "BACKWARD")
        if (
            order(start) <= order(found) < order(end) if way == "FORWARD" else order(start) >= order(found) > order(end)
        )
    ]
    server.scan_limit = scan
    sync.create_table(*table("t", *KEY))
    try:
        if stored:
            sync.batch_write_row(batch("t", puts((key(q, u) for u, q in stored), ("x", 1))))
        read: list[Any] = []
        token: Any = key(start[1], start[0])
        while token is not None:
            _, token, rows, _ = sync.get_range("t", way, token, key(end[1], end[0]), limit=limit, max_version=1)
            assert len(rows) == min(limit, scan) or token is None
            read += [tuple(value for _, value in row.primary_key) for row in rows]
        assert read == expected
    finally:
        sync.delete_table("t")


operations = st.tuples(
    st.sampled_from(["put", "update", "clear", "delete"]),
    st.integers(0, 3),
    st.none() | st.integers(0, 3),
    st.sampled_from(["IGNORE", "EXPECT_EXIST", "EXPECT_NOT_EXIST"]),
)


@with_fixtures
@given(st.lists(operations, max_size=25), st.booleans())
def test_any_writes_leave_the_rows_and_the_index_of_a_dictionary(
    server: TablestoreServer, sync: OTSClient, done: list[Any], in_batch: bool
) -> None:
    sync.create_table(
        *table("t", *KEY, defined=[("la", "INTEGER"), ("x", "INTEGER")]),
        secondary_indexes=[SecondaryIndexMeta("i", ["u", "la"], ["x"], LOCAL)],
    )
    model: dict[int, dict[str, int]] = {}
    for number, (operation, q, la, expectation) in enumerate(done):
        values = {"x": number} if la is None else {"x": number, "la": la}
        condition = Condition(expectation)
        item = item_of(operation, key(q), list(values.items()), condition)
        succeeds = expectation == "IGNORE" or (q in model) == (expectation == "EXPECT_EXIST")
        assert written(sync, item, in_batch=in_batch) == succeeds
        if not succeeds:
            continue
        if operation == "put":
            model[q] = values
        elif operation == "update":
            model[q] = {**model.get(q, {}), **values}
        elif operation == "clear" and q in model:
            model[q].pop("la", None)
        elif operation == "delete":
            model.pop(q, None)
    try:
        rows = sync.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)[2]
        assert {row.primary_key[1][1]: columns(row) for row in rows} == model
        ends = ([("u", "ü"), ("la", bound), ("q", bound)] for bound in (INF_MAX, INF_MIN))
        rows = sync.get_range("i", "BACKWARD", *ends, max_version=1)[2]
        found = [(row.primary_key[1][1], row.primary_key[2][1], columns(row)) for row in rows]
        expected = [(row["la"], q, {"x": row["x"]}) for q, row in model.items() if "la" in row]
        assert found == sorted(expected, reverse=True, key=lambda entry: entry[:2])
    finally:
        sync.delete_secondary_index("t", "i")
        sync.delete_table("t")


def item_of(operation: str, row_key: Any, values: list[tuple[str, int]], condition: Condition) -> Any:
    if operation == "put":
        return PutRowItem(Row(row_key, values), condition)
    if operation == "update":
        return UpdateRowItem(Row(row_key, {"PUT": values}), condition)
    if operation == "clear":
        return UpdateRowItem(Row(row_key, {"DELETE_ALL": ["la"]}), condition)
    return DeleteRowItem(Row(row_key), condition)


def written(client: OTSClient, item: Any, *, in_batch: bool) -> bool:
    """Return true if a write succeeded, false if its condition failed."""
    if in_batch:
        return bool(client.batch_write_row(batch("t", [item])).is_all_succeed())
    try:
        if isinstance(item, PutRowItem):
            client.put_row("t", item.row, item.condition)
        elif isinstance(item, UpdateRowItem):
            client.update_row("t", item.row, item.condition)
        else:
            client.delete_row("t", item.row.primary_key, item.condition)
    except OTSServiceError as error:
        if error.get_error_code() != "OTSConditionCheckFail":
            raise
        return False
    return True


# indexes


async def test_global_index_shows_a_write_after_the_lag(
    server: TablestoreServer, client: Any, clock: list[float]
) -> None:
    server.index_lag = 3
    indexes = [SecondaryIndexMeta("g", ["la"], [], GLOBAL), SecondaryIndexMeta("l", ["u", "la"], [], LOCAL)]
    await client.create_table(*table("t", *KEY, defined=[("la", "INTEGER")]), secondary_indexes=indexes)

    async def shown(name: str) -> list[int]:
        names = {"g": ("la", "u", "q"), "l": ("la", "q")}[name]
        head = [("u", "ü")] if name == "l" else []
        ends = [[*head, *((column, bound) for column in names)] for bound in (INF_MIN, INF_MAX)]
        _, _, rows, _ = await client.get_range(name, "FORWARD", *ends, max_version=1)
        return [dict(row.primary_key)["la"] for row in rows]

    await client.put_row("t", Row(key(1), [("la", 1)]))
    assert [await shown("g"), await shown("l")] == [[], [1]]
    clock[0] += 3
    assert await shown("g") == [1]
    await client.put_row("t", Row(key(1), [("la", 2)]))
    assert [await shown("g"), await shown("l")] == [[1], [2]]
    clock[0] += 3
    assert await shown("g") == [2]


@pytest.mark.parametrize("include", [True, False])
async def test_new_index_has_the_old_rows_if_asked_for(client: Any, *, include: bool) -> None:
    await client.create_table(*table("t", *KEY, defined=[("la", "INTEGER")]))
    await client.put_row("t", Row(key(1), [("la", 1)]))
    await client.create_secondary_index("t", SecondaryIndexMeta("i", ["u", "la"], [], LOCAL), include)
    await client.put_row("t", Row(key(2), [("la", 2)]))
    ends = [[("u", "ü"), ("la", bound), ("q", bound)] for bound in (INF_MIN, INF_MAX)]
    _, _, rows, _ = await client.get_range("i", "FORWARD", *ends, max_version=1)
    assert numbers(rows) == ([1, 2] if include else [2])
    with pytest.raises(OTSServiceError, match="dropped"):
        await client.delete_table("t")
    await client.delete_secondary_index("t", "i")
    await client.delete_table("t")


# batches


async def test_batch_of_200_rows_is_written_and_read(server: TablestoreServer, each_client: Any) -> None:
    await each_client.create_table(*table("t", *KEY))
    response = await each_client.batch_write_row(batch("t", puts((key(number) for number in range(200)), ("x", "é"))))
    assert response.is_all_succeed()
    response = await each_client.batch_get_row(batch_of_keys("t", [key(number) for number in range(150, 250)]))
    found = response.get_result_by_table("t")
    assert [item.row is not None for item in found] == [number < 200 for number in range(150, 250)]
    assert [(name, server.count(name)) for name in ("BatchWriteRow", "BatchGetRow")] == [
        ("BatchWriteRow", 1),
        ("BatchGetRow", 1),
    ]


async def test_each_row_of_a_batch_succeeds_or_fails_by_itself(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [("x", "old")]))
    new = Condition("EXPECT_NOT_EXIST")
    items = [PutRowItem(Row(key(number), [("x", "new")]), new) for number in (0, 1, 2)]
    response = await client.batch_write_row(batch("t", items))
    assert failures(response) == [(1, "OTSConditionCheckFail")]
    _, _, rows, _ = await client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)
    assert [columns(row)["x"] for row in rows] == ["new", "old", "new"]


@pytest.mark.parametrize("any_order", [False, True])
async def test_read_may_come_between_the_rows_of_a_batch(
    server: TablestoreServer, client: Any, *, any_order: bool
) -> None:
    server.apart, server.any_order = 0.02, any_order
    await client.create_table(*table("t", ("k", "INTEGER")))
    keys: list[Key] = [[("k", number)] for number in range(3)]
    torn: set[tuple[int, ...]] = set()
    while not torn - WHOLE or (any_order and torn <= IN_ORDER):
        await client.batch_write_row(batch("t", [DeleteRowItem(Row(key), None) for key in keys]))
        writing = asyncio.create_task(client.batch_write_row(batch("t", puts(keys, ("a", 1)))))
        while not writing.done():
            _, _, rows, _ = await client.get_range("t", "FORWARD", [("k", INF_MIN)], [("k", INF_MAX)], max_version=1)
            torn.add(tuple(row.primary_key[0][1] for row in rows))
        assert (await writing).is_all_succeed()
    assert any_order or torn <= IN_ORDER


WHOLE = {(), (0, 1, 2)}
IN_ORDER = WHOLE | {(0,), (0, 1)}


async def test_batch_with_a_missing_table_fails_only_its_rows(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    request = batch("t", puts([key(1)], ("x", 1)))
    request.add(batch("none", puts([key(1)], ("x", 1))).items["none"])
    response = await client.batch_write_row(request)
    assert [item.is_ok for item in response.table_of_put["t"]] == [True]
    assert [item.error_code for item in response.table_of_put["none"]] == ["OTSObjectNotExist"]


# limits


@pytest.mark.parametrize("value", ["é" * MEGABYTE, bytearray(b"\xfe") * (2 * MEGABYTE)], ids=["text", "binary"])
async def test_cell_holds_two_megabytes_and_not_a_byte_more(client: Any, value: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.put_row("t", Row(key(1), [("x", value)]))
    _, row, _ = await client.get_row("t", key(1), max_version=1)
    assert columns(row)["x"] == value
    with pytest.raises(OTSServiceError) as caught:
        await client.put_row("t", Row(key(2), [("x", value + value[:1])]))
    assert code_of(caught.value) == (400, "OTSParameterInvalid")
    assert (await client.get_row("t", key(2), max_version=1))[1] is None


async def test_request_beyond_a_limit_is_refused(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    big = ("x", "y" * (2 * MEGABYTE))
    rows_of_a_megabyte = puts((key(number) for number in range(4)), ("x", "y" * MEGABYTE))
    many = [(f"c{number}", 1) for number in range(1025)]
    for call, code in (
        (client.batch_write_row(batch("t", puts((key(n) for n in range(201)), ("x", 1)))), "OTSParameterInvalid"),
        (client.batch_get_row(batch_of_keys("t", [key(number) for number in range(101)])), "OTSParameterInvalid"),
        (client.batch_write_row(batch("t", puts([key(1), key(1)], ("x", 1)))), "OTSParameterInvalid"),
        (client.batch_write_row(batch("t", rows_of_a_megabyte)), "OTSParameterInvalid"),  # 4 MB and the keys
        (client.put_row("t", Row(key(1), [big, ("y", big[1])])), "OTSParameterInvalid"),
        (client.put_row("t", Row(key(1), [big, ("y", big[1]), ("z", big[1])])), "OTSRequestBodySizeExceed"),
        (client.put_row("t", Row(key(1), [(name, big[1]) for name in "abcdefgh"])), "OTSRequestBodySizeExceed"),
        (client.put_row("t", Row(key(1), many)), "OTSOutOfColumnCountLimit"),
        (client.put_row("t", Row(key(1, "k" * 1025), [("x", 1)])), "OTSParameterInvalid"),
        (client.put_row("t", Row(key(1), [("n" * 256, 1)])), "OTSParameterInvalid"),
        (client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), limit=0, max_version=1), "OTSParameterInvalid"),
    ):
        with pytest.raises(OTSServiceError) as caught:
            await call
        assert caught.value.get_error_code() == code
    _, _, rows, _ = await client.get_range(
        "t", "FORWARD", [("u", INF_MIN), ("q", INF_MIN)], [("u", INF_MAX), ("q", INF_MAX)], max_version=1
    )
    assert rows == []
    await client.put_row("t", Row(key(1, "k" * 1024), many[:-1]))


async def test_capacity_units_are_counted_in_4_kilobytes(client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    consumed, _ = await client.put_row("t", Row(key(1), [("x", "y" * 9000)]), Condition("EXPECT_NOT_EXIST"))
    assert (consumed.read, consumed.write) == (1, 3)
    consumed, _, _ = await client.get_row("t", key(1), max_version=1)
    assert (consumed.read, consumed.write) == (3, 0)


# signatures


@pytest.mark.parametrize("region", [None, "cn-nowhere"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"access_key_secret": "other"}, "Signature"),
        ({"access_key_id": "other"}, "AccessKeyID"),
        ({"instance_name": "other"}, "instance"),
        ({"sts_token": "unasked"}, "token"),
    ],
)
async def test_request_with_wrong_credentials_is_refused(
    server: TablestoreServer, region: str | None, wrong: dict[str, str], message: str
) -> None:
    client = async_client(server, region=region, **wrong)
    with pytest.raises(OTSServiceError, match=message) as caught:
        await client.list_table()
    await client.close()
    assert code_of(caught.value) == (403, "OTSAuthFailed")
    assert server.requests == []


@pytest.mark.parametrize("region", [None, "cn-nowhere"])
async def test_server_with_a_security_token_requires_it(region: str | None) -> None:
    with TablestoreServer(security_token="token") as server:
        for token, allowed in (("token", True), ("other", False), (None, False)):
            client = async_client(server, region=region, sts_token=token)
            if allowed:
                assert await client.list_table() == ()
            else:
                with pytest.raises(OTSServiceError, match="token"):
                    await client.list_table()
            await client.close()


def test_v4_signature_of_another_day_is_refused(server: TablestoreServer) -> None:
    client = sync_client(server, region="cn-nowhere", sign_date="20200101", auto_update_v4_sign=False)
    assert client.list_table() == ()  # the server derives the key of that day
    with pytest.raises(OTSServiceError, match="Signature mismatch"):
        send(client, "ListTable", b"", **{"x-ots-signdate": "20200102"})
    client.connection.pool.clear()


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"x-ots-date": "2020-01-01T00:00:00.000Z"}, 403, "system time"),
        ({"x-ots-date": "today"}, 400, "date format"),
        ({"x-ots-contentmd5": "AAAA"}, 403, "MD5"),
        ({"x-ots-apiversion": "2014-08-08"}, 400, "API version"),
        ({"x-ots-other": "not signed"}, 403, "Signature"),
        ({"x-ots-signature": "é"}, 403, "Signature"),
    ],
)
def test_a_changed_header_is_refused(sync: OTSClient, headers: dict[str, str], status: int, message: str) -> None:
    assert send(sync, "ListTable", b"") == b""
    with pytest.raises(OTSServiceError, match=message) as caught:
        send(sync, "ListTable", b"", **headers)
    assert caught.value.get_http_status() == status


def test_malformed_body_is_refused(server: TablestoreServer, sync: OTSClient) -> None:
    sync.create_table(*table("t", *KEY))
    good = encoded([WireRow([("u", "k"), ("q", 1)])])
    condition = pb.Condition(row_existence=pb.IGNORE)
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    twice = good + good[4:]
    for row in (b"", b"\x00", flipped, twice, good[:-1]):
        body = pb.PutRowRequest(table_name="t", row=row, condition=condition).SerializeToString()
        with pytest.raises(OTSServiceError, match="PlainBuffer"):
            send(sync, "PutRow", body)
    condition.column_condition = b"\xff"
    body = pb.PutRowRequest(table_name="t", row=good, condition=condition).SerializeToString()
    with pytest.raises(OTSServiceError, match="filter"):
        send(sync, "PutRow", body)
    with pytest.raises(OTSServiceError, match="protobuf"):
        send(sync, "PutRow", b"\xff")
    with pytest.raises(OTSServiceError, match="no Search"):
        send(sync, "Search", b"")
    assert sync.get_row("t", [("u", "k"), ("q", 1)], max_version=1)[1] is None


async def test_get_request_is_refused(server: TablestoreServer) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{server.endpoint}/ListTable") as response:
        assert response.status == 405
        assert pb.Error.FromString(await response.read()).code == "OTSMethodNotAllowed"


# faults


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("before", False), ("after", True), ("drop before", False), ("drop after", True), ("refused", False)],
)
async def test_fault_applies_everything_or_nothing(
    server: TablestoreServer, client: Any, kind: Kind, *, stored: bool
) -> None:
    await client.create_table(*table("t", *KEY))
    server.faults = Faults(kinds=(kind,), times=1)
    with pytest.raises(Exception) as caught:  # noqa: PT011 # a lost connection raises an error of the HTTP library
        await client.put_row("t", Row(key(1), [("x", 1)]))
    assert isinstance(caught.value, OTSServiceError) != kind.startswith("drop")
    assert server.faults.injected == 1
    assert ((await client.get_row("t", key(1), max_version=1))[1] is not None) == stored


@pytest.mark.parametrize("kind", ["row before", "row after"])
async def test_row_fault_fails_one_row_of_a_batch(server: TablestoreServer, client: Any, kind: Kind) -> None:
    await client.create_table(*table("t", *KEY))
    server.faults = Faults(kinds=(kind,), times=1)
    await client.put_row("t", Row(key(10), [("x", 1)]))  # not a batch
    response = await client.batch_write_row(batch("t", puts((key(number) for number in range(10)), ("x", 1))))
    ((failed, code),) = failures(response)
    assert code == "OTSInternalServerError"
    _, _, rows, _ = await client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)
    missing = set() if kind == "row after" else {failed}
    assert set(numbers(rows)) == set(range(11)) - missing


async def test_delayed_write_is_stored_after_its_client_left(server: TablestoreServer, client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    server.faults = Faults(kinds=("delay",), delay=0.5, times=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.put_row("t", Row(key(1), [("x", 1)])), 0.1)
    assert (await client.get_row("t", key(1), max_version=1))[1] is None
    await asyncio.sleep(0.6)
    assert (await client.get_row("t", key(1), max_version=1))[1] is not None


async def test_sdk_repeats_a_request_to_a_busy_server(server: TablestoreServer) -> None:
    class Soon(DefaultRetryPolicy):  # type: ignore[misc] # the SDK is untyped
        def get_retry_delay(self, *_: Any) -> float:
            return 0.001

    client = async_client(server, retry_policy=Soon())
    await client.create_table(*table("t", *KEY))
    server.faults = Faults(kinds=("refused",), times=3)
    await client.put_row("t", Row(key(1), [("x", 1)]))
    await client.close()
    assert server.count("PutRow") == 4


def test_seed_chooses_the_share_of_requests_that_fail() -> None:
    def drawn(seed: int, **options: Any) -> list[str | None]:
        faults = Faults(share=1 / 3, seed=seed, **options)
        return [faults.next("PutRow", "t") for _ in range(3000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 900 < sum(kind is not None for kind in drawn(1)) < 1100
    assert set(drawn(1)) == {None, "before", "after", "drop before", "drop after"}
    assert set(drawn(1, when=lambda api, name: (api, name) == ("GetRow", "t"))) == {None}
    assert set(drawn(1, kinds=("row before",))) == {None}


async def test_requests_above_the_rate_are_throttled(server: TablestoreServer, client: Any, clock: list[float]) -> None:
    server.rate = 3
    clock[0] = int(clock[0]) + 0.1
    for _ in range(3):
        await client.list_table()
    with pytest.raises(OTSServiceError) as caught:
        await client.list_table()
    assert code_of(caught.value) == (503, "OTSServerBusy")
    clock[0] += 1
    await client.list_table()


async def test_delayed_requests_wait_together(server: TablestoreServer, client: Any) -> None:
    await client.list_table()
    server.delay = 0.3
    began = time.monotonic()
    await asyncio.gather(*(client.list_table() for _ in range(10)))
    assert 0.3 <= time.monotonic() - began < 2  # at the same time


# the server itself


async def test_request_log_names_apis_and_tables_in_order(server: TablestoreServer, client: Any) -> None:
    await client.create_table(*table("t", *KEY))
    await client.list_table()
    request = batch("t", puts([key(1)]))
    request.add(batch("other", puts([key(1)])).items["other"])
    await client.batch_write_row(request)
    assert server.requests == [("CreateTable", "t"), ("ListTable", ""), ("BatchWriteRow", "t,other")]
    server.requests.clear()
    assert server.count("ListTable") == 0


def test_clients_in_several_loops_and_threads_share_a_server(server: TablestoreServer) -> None:
    async def add(number: int) -> None:
        client = async_client(server)
        await client.put_row("t", Row(key(number), [("x", 1)]))
        await client.close()

    def add_in_a_thread(number: int) -> None:
        client = sync_client(server)
        client.put_row("t", Row(key(number), [("x", 1)]))
        client.connection.pool.clear()

    client = sync_client(server)
    client.create_table(*table("t", *KEY))
    for number in range(3):
        asyncio.run(add(number))
    threads = [threading.Thread(target=add_in_a_thread, args=(number,)) for number in range(3, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)[2]) == list(range(11))
    client.connection.pool.clear()


async def test_server_starts_and_stops_in_an_event_loop() -> None:
    async with TablestoreServer("named", "id", "secret") as server:
        client = async_client(server, instance_name="named", access_key_id="id", access_key_secret="secret")
        assert await client.list_table() == ()
        await client.close()
    assert "secret" not in repr(server.account).replace("access_key_secret", "")
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.ClientSession() as session:
            await session.post(server.endpoint)


async def test_error_of_the_test_server_itself_fails_the_test() -> None:
    def broken(_api: str, _table: str) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with TablestoreServer() as server:
            client = async_client(server)
            server.faults = Faults(when=broken)
            with pytest.raises(OTSClientError):
                await client.list_table()
            await client.close()


def test_start_on_a_taken_port_raises_and_leaves_no_thread(server: TablestoreServer) -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="in use"), TablestoreServer(port=int(server.endpoint.rpartition(":")[2])):
        pass
    assert threading.active_count() == before


def test_several_processes_share_a_server() -> None:
    command = [sys.executable, "-m", "servers.tablestore", "--port", "0"]
    server = subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    endpoint = server.stdout.readline().strip()
    client = OTSClient(endpoint, "ak", "sk", "inst")
    client.create_table(*table("t", *KEY))
    program = (
        "import sys, tablestore as ts\n"
        "client = ts.OTSClient(sys.argv[1], 'ak', 'sk', 'inst')\n"
        "client.put_row('t', ts.Row([('u', 'ü'), ('q', int(sys.argv[2]))], [('x', 1)]))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, endpoint, str(number)]) for number in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert numbers(client.get_range("t", "FORWARD", key(INF_MIN), key(INF_MAX), max_version=1)[2]) == [0, 1, 2]
    client.connection.pool.clear()
    server.communicate("", timeout=60)
    assert server.returncode == 0
