"""Check the facts that docs/reference/tablestore.md takes on trust, on a real instance of Tablestore.

    pip install 'session-history[tablestore]'
    export TABLESTORE_ACCESS_KEY_ID=... TABLESTORE_ACCESS_KEY_SECRET=...
    python tablestore_smoke.py https://my-instance.cn-hangzhou.ots.aliyuncs.com my-instance

The script creates a table of its own, which takes about a minute, makes its checks, and deletes the table. It costs
some 12,000 capacity units. The access key needs the rights that the page tablestore.md lists, and ots:DeleteTable,
ots:DropIndex and ots:PutRow.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from tablestore import (
    INF_MAX,
    INF_MIN,
    BatchWriteRowRequest,
    ComparatorType,
    Condition,
    OTSServiceError,
    PutRowItem,
    Row,
    RowExistenceExpectation,
    SingleColumnCondition,
    TableInBatchWriteRowItem,
)

from session_history import create_tablestore_client
from session_history.providers.tablestore import TablestoreProvider
from session_history.providers.tablestore import columns as col
from session_history_hooks import Conflict, Entry, Position, SessionHistoryError, SessionKey, Snapshot

HEAD_NUMBER = 2**63 - 1
"""The row number of a head."""


class Instance:
    """A table with two providers, and a client that reads and writes its rows directly."""

    def __init__(self, connect: Callable[[], Any], table: str) -> None:
        self.table = table
        self.provider = TablestoreProvider(connect(), table=table)
        self.other = TablestoreProvider(connect(), table=table, create=False)
        self.client = connect()

    async def delete(self) -> None:
        await self.provider.stop()
        await self.other.stop()
        try:
            await self.client.delete_secondary_index(self.table, f"{self.table}_recent")
            await self.client.delete_table(self.table)
            print(f"Deleted table {self.table}.")
        except Exception as error:  # after a failed start too, whose error is shown last
            code = error.get_error_code() if isinstance(error, OTSServiceError) else type(error).__name__
            print(f"Did not delete table {self.table}: {code}")
        await self.client.close()

    def key(self, number: Any) -> list[tuple[str, Any]]:
        return bound("smoke", "numbers", number)

    async def range(self, direction: str, start: Any, end: Any, columns: list[str] | None = None) -> list[Any]:
        """Return session ids and row numbers of the rows."""
        found, next_key = [], start
        while next_key is not None:
            _, next_key, rows, _ = await self.client.get_range(
                self.table, direction, next_key, end, columns, 1000, max_version=1
            )
            found += rows
        return [tuple(value for _, value in row.primary_key[1:]) for row in found]

    async def put(self, number: int, columns: list[tuple[str, Any]]) -> None:
        await self.client.put_row(self.table, Row(self.key(number), columns), Condition(RowExistenceExpectation.IGNORE))


def bound(user_id: str, session_id: Any, number: Any) -> list[tuple[str, Any]]:
    return [(col.USER_ID, user_id), (col.SESSION_ID, session_id), (col.ROW_NUMBER, number)]


def entry(number: int, payload: bytes = b"payload") -> Entry:
    return Entry(f"e{number}", payload, origin=f"o{number}")


async def begin(instance: Instance, session_id: str, user_id: str = "smoke", summary: bytes = b"summary") -> SessionKey:
    key = SessionKey(user_id, session_id)
    await instance.provider.append(key, entry(1), at=Position(0, 0), snapshot=Snapshot(1, "o1", summary))
    return key


async def order_of_numbers(instance: Instance) -> bool:
    """Keys take all integers, in order. A range includes its start and excludes its end."""
    numbers = [-(2**63), -1, 1, 2**32, HEAD_NUMBER]
    for number in numbers:
        await instance.put(number, [(col.LAYOUT_VERSION, 1)])
    whole = await instance.range("BACKWARD", instance.key(HEAD_NUMBER), instance.key(INF_MIN))
    down = await instance.range("BACKWARD", instance.key(2**32), instance.key(-1))
    up = await instance.range("FORWARD", instance.key(-1), instance.key(2**32))
    return [[number for _, number in found] for found in (whole, down, up)] == [numbers[::-1], [2**32, 1], [-1, 1]]


async def order_of_texts(instance: Instance) -> bool:
    """Texts are ordered by their UTF-8 bytes."""
    texts = ["Z", "a", "a\x01", "ab", "\u00e9", "\u4f1a", "\uff5e", "\U0001f600"]
    for text in texts:
        await begin(instance, text, "texts")
    start, end = (bound("texts", end, end) for end in (INF_MIN, INF_MAX))
    found = await instance.range("FORWARD", start, end)
    return list(dict.fromkeys(text for text, _ in found)) == sorted(texts)


async def rows_without_the_columns(instance: Instance) -> bool:
    """A read of columns leaves out a row that has none of them."""
    await instance.put(2**33, [(col.LAYOUT_VERSION, 1), (col.GENERATION, 1)])
    await instance.put(2**33 + 1, [(col.LAYOUT_VERSION, 1)])
    found = await instance.range("FORWARD", instance.key(2**33), instance.key(2**34), columns=[col.GENERATION])
    return found == [("numbers", 2**33)]


async def put_replaces(instance: Instance) -> bool:
    """A put replaces the whole row and removes its other columns. Empty texts and bytes are values."""
    new = [(col.LAYOUT_VERSION, 1), (col.ENTRY_ID, ""), (col.PAYLOAD, bytearray())]
    await instance.put(7, [(col.LAYOUT_VERSION, 1), ("old", 1)])
    await instance.put(7, new)
    _, row, _ = await instance.client.get_row(instance.table, instance.key(7), max_version=1)
    return {name: value for name, value, _ in row.attribute_columns} == dict(new)


async def conditions_hold(instance: Instance) -> bool:
    """A position takes one entry. A second append, from another connection, raises Conflict and shows the first."""
    key = await begin(instance, "conditions")
    await instance.other.read(key)
    await instance.provider.append(key, entry(2), at=Position(0, 1))
    try:
        await instance.other.append(key, Entry("rival", b""), at=Position(0, 1))
    except Conflict as conflict:
        return conflict.head is not None and conflict.head.tail_origin == "o2"
    return False


async def rows_of_a_batch_are_independent(instance: Instance) -> bool:
    """Each row of a batch is stored or refused by its own condition."""
    key = await begin(instance, "batch")
    await instance.other.read(key)
    assert await instance.provider.renew(key, at=Position(0, 1))  # the other provider does not know this head
    appended = await instance.other.append(key, entry(2), at=Position(0, 1), snapshot=Snapshot(2, "o2", b"second"))
    log = await instance.provider.read(key)
    return not appended.replayed and log is not None and log.head.current_snapshot == Snapshot(2, "o2", b"second")


async def integers_are_compared_exactly(instance: Instance) -> bool:
    """A condition on an integer of 63 bits does not hold for the next integer."""
    etag = 2**62 + 1
    await instance.put(8, [(col.ETAG, etag)])
    codes = []
    for wanted in (etag - 1, etag + 1, etag):
        same = SingleColumnCondition(col.ETAG, wanted, ComparatorType.EQUAL, pass_if_missing=False)
        row = Row(instance.key(8), [(col.ETAG, etag)])
        request = BatchWriteRowRequest()
        item = PutRowItem(row, Condition(RowExistenceExpectation.EXPECT_EXIST, same))
        request.add(TableInBatchWriteRowItem(instance.table, [item]))
        [answer] = (await instance.client.batch_write_row(request)).get_put_by_table(instance.table)
        codes.append(None if answer.is_ok else answer.error_code)
    return codes == ["OTSConditionCheckFail", "OTSConditionCheckFail", None]


async def retry_is_found(instance: Instance) -> bool:
    """A repeat of an append on another connection is found by its id."""
    key = await begin(instance, "retry")
    return (await instance.other.append(key, entry(1), at=Position(0, 0))).replayed


async def index_is_synchronous(instance: Instance) -> bool:
    """A listing shows each write at once and in its new order, and shows no deleted session."""
    keys = [await begin(instance, f"s{number}", "listing") for number in range(3)]
    await instance.provider.append(keys[0], entry(2), at=Position(0, 1))
    await instance.provider.delete(keys[1])
    listed = (await instance.other.list("listing", limit=9)).heads
    return [head.key for head in listed] == [keys[0], keys[2]]


async def pages_of_a_listing(instance: Instance) -> bool:
    """A page has as many sessions as asked for. A cursor leads to the next page, if there is one."""
    keys = {await begin(instance, f"p{number}", "pages") for number in range(5)}
    first = await instance.other.list("pages", limit=3)
    rest = await instance.other.list("pages", limit=3, cursor=first.cursor)
    whole = await instance.other.list("pages", limit=5)
    seen = [head.key for head in (*first.heads, *rest.heads)]
    return len(seen) == len(keys) and set(seen) == keys and rest.cursor is None and whole.cursor is None


async def large_values(instance: Instance) -> bool:
    """A column holds 2 MB, an index a summary of 1 MB, one request both. A payload of 9 MB takes several rows."""
    key = await begin(instance, "large", "large", summary=b"\xff" * 2**20)
    payloads = [b"\xff" * 2 * 2**20, b"\xfe" * 9 * 10**6]
    for seq, payload in enumerate(payloads, start=2):
        summary = Snapshot(seq, f"o{seq}", b"\xff" * 2**20)
        await instance.provider.append(key, entry(seq, payload), at=Position(0, seq - 1), snapshot=summary)
    log = await instance.other.read(key)
    [listed] = (await instance.other.list("large", limit=1)).heads
    return log is not None and [each.payload for each in log.entries[1:]] == payloads and listed == log.head


async def any_text_is_a_key(instance: Instance) -> bool:
    """Keys may have 512 bytes and any character. Texts that look alike are different keys."""
    texts = ["a" * 512, "会话", "\u00e9", "e\u0301", "\x01\t\n", "\U0001f600", "*", "a:b"]
    keys = [await begin(instance, text, text) for text in texts]
    logs = [await instance.other.read(key) for key in keys]
    return all(log is not None and log.head.tail == Position(0, 1) for log in logs)


async def users_are_found(instance: Instance) -> bool:
    """A range goes from user to user, and may begin behind all rows of one."""
    names = {"users 1", "users 2", "users 3"}
    for name in names:
        await begin(instance, "session", name)
    deleted = SessionKey("users 2", "session")
    await instance.provider.delete(deleted)
    found: set[str] = set()
    cursor = None
    while True:
        page = await instance.other.list_users(limit=2, cursor=cursor)
        found |= set(page.user_ids)
        cursor = page.cursor
        if cursor is None:
            break
    tombstones = (await instance.other.list_tombstones("users 2", limit=9)).heads
    return names <= found and [head.key for head in tombstones] == [deleted]


async def restoring_writes_batches(instance: Instance) -> bool:
    """A request puts 200 rows, or 3 MB. Restored entries count once the head names them."""
    source = await begin(instance, "source", summary=b"\xff")
    log = await instance.provider.read(source)
    entries = [*(entry(seq) for seq in range(1, 251)), *(entry(seq, b"\xff" * 10**6) for seq in range(251, 257))]
    assert log is not None
    head = replace(log.head, key=SessionKey("smoke", "copy"), tail=Position(3, 256), tail_origin="o256")
    written = await instance.provider.restore(head, entries)
    copy = await instance.other.read(head.key)
    return written and copy is not None and (copy.head, copy.entries) == (head, tuple(entries))


async def deleting_leaves_nothing(instance: Instance) -> bool:
    """A delete of more rows than a batch takes leaves only a tombstone. The next generation begins empty."""
    key = await begin(instance, "deleted")
    for seq in range(2, 230):
        await instance.provider.append(key, entry(seq), at=Position(0, seq - 1))
    await instance.provider.delete(key)
    start, end = (bound(key.user_id, key.session_id, end) for end in (INF_MIN, INF_MAX))
    left = await instance.range("FORWARD", start, end)
    begun = await instance.other.append(key, entry(1), at=Position(1, 0))
    log = await instance.provider.read(key)
    empty = left == [(key.session_id, HEAD_NUMBER)]
    return empty and begun.position == Position(1, 1) and log is not None and log.entries == (entry(1),)


CHECKS: list[Callable[[Instance], Awaitable[bool]]] = [
    order_of_numbers, put_replaces, conditions_hold, rows_of_a_batch_are_independent, integers_are_compared_exactly,
    retry_is_found, index_is_synchronous, pages_of_a_listing, large_values, any_text_is_a_key, order_of_texts,
    deleting_leaves_nothing, rows_without_the_columns, users_are_found, restoring_writes_batches,
]  # fmt: skip


async def run(check: Callable[[Instance], Awaitable[bool]], instance: Instance) -> bool:
    try:
        holds, reason = await check(instance), ""
    except Exception as error:
        holds, reason = False, f"\n           {type(error).__name__}: {error}"
    print(f"{'holds' if holds else 'DIFFERENT':>9}  {check.__doc__}{reason}", flush=True)
    return holds


async def smoke(connect: Callable[[], Any]) -> bool:
    instance = Instance(connect, f"session_history_smoke_{uuid4().hex[:8]}")
    print(f"Creating table {instance.table}, which takes about a minute …", flush=True)
    began = time.monotonic()
    try:
        await instance.provider.start()
        print(f"    holds  A new table can be used; it took {time.monotonic() - began:.0f} s.", flush=True)
        await instance.other.start()
        return all([await run(check, instance) for check in CHECKS])
    finally:
        await instance.delete()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end_point")
    parser.add_argument("instance_name")
    parser.add_argument("--region", help="sign with version 4 for this region, e.g. cn-hangzhou")
    given = parser.parse_args()
    connect = lambda: create_tablestore_client(given.end_point, given.instance_name, region=given.region)  # noqa: E731
    try:
        return 0 if asyncio.run(smoke(connect)) else 1
    except SessionHistoryError as error:  # the error of a start says what is wrong
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
