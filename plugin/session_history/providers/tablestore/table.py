"""Requests on one table: bounded in time, repeated where that does no harm, and with the contract's errors."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from tablestore import (
    BatchWriteRowRequest,
    CapacityUnit,
    Condition,
    DeleteRowItem,
    OTSServiceError,
    ReservedThroughput,
    Row,
    RowExistenceExpectation,
    SecondaryIndexMeta,
    SecondaryIndexType,
    TableInBatchWriteRowItem,
    TableMeta,
    TableOptions,
)

from session_history.providers.tablestore.errors import (
    NotReachedError,
    Outcome,
    TableMissing,
    TransientError,
    outcome_of,
    translated,
)
from session_history.providers.tablestore.keys import PrimaryKey
from session_history_hooks import (
    ConfigurationError,
    IncompatibleStore,
    Unavailable,
)

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("session_history")

PATIENCE = 30.0
"""Seconds for which a call goes on trying."""
READY_PATIENCE = 180.0
"""Seconds to wait for a new table. The service says that it takes about a minute."""

TELL_EVERY = 10.0
"""Seconds between two lines in the log of one who waits."""

ROWS_PER_WRITE = 200
"""What the service takes in a batch."""
ROWS_PER_PAGE = 5000
"""What it returns of a range, whatever is asked for; the SDK can not ask for 2**31."""

KEY = [("u", "STRING"), ("s", "STRING"), ("q", "INTEGER")]
DEFINED = [
    ("r", "INTEGER"), ("v", "INTEGER"), ("g", "INTEGER"), ("n", "INTEGER"), ("i", "STRING"), ("b", "INTEGER"),
    ("e", "INTEGER"), ("fn", "INTEGER"), ("fi", "STRING"), ("fc", "BINARY"),
]  # fmt: skip
"""The columns of a head that a listing needs; ``r`` orders it."""
INDEXED = [name for name, _ in DEFINED if name != "r"]


class Found(NamedTuple):
    """Rows of a range, and the key from which on there are more."""

    rows: list[Row]
    next_key: PrimaryKey | None


class Patience:
    """How long a call goes on trying, and how long it waits between two tries."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._tries = 0

    async def wait(self, reason: object) -> None:
        """:raises Unavailable: it has ended."""
        if time.monotonic() > self._deadline:
            raise Unavailable(f"Tablestore: no success within {self._seconds:.0f} s, at last: {reason}") from None
        await asyncio.sleep(random.uniform(0, min(1.0, 0.005 * 2**self._tries)))
        self._tries += 1


class Table:
    """One table and the index of its listing.

    :param timeout: seconds that a request may take.
    """

    def __init__(self, client: Any, name: str, timeout: float) -> None:
        self._client = client
        self.name: str = name
        self.index: str = f"{name}_recent"
        self._timeout = timeout

    # Rows

    async def get(self, key: PrimaryKey) -> Row | None:
        _, row, _ = await self._insist(lambda: self._client.get_row(self.name, key, max_version=1))
        return row

    async def page(
        self,
        start: PrimaryKey,
        end: PrimaryKey,
        *,
        limit: int,
        backward: bool = False,
        columns: list[str] | None = None,
        of_index: bool = False,
    ) -> Found:
        """From ``start``, included, to ``end``, excluded: so many rows, or as many as come in one answer of 4 MB."""
        _, next_key, rows, _ = await self._insist(
            lambda: self._client.get_range(
                self.index if of_index else self.name,
                "BACKWARD" if backward else "FORWARD",
                start,
                end,
                columns,
                min(limit, ROWS_PER_PAGE),
                max_version=1,
            )
        )
        return Found(rows, next_key)

    async def rows(
        self,
        start: PrimaryKey,
        end: PrimaryKey,
        *,
        limit: int,
        backward: bool = False,
        columns: list[str] | None = None,
        of_index: bool = False,
    ) -> Found:
        """As :meth:`page`, in as many answers as it takes."""
        found: list[Row] = []
        next_key: PrimaryKey | None = start
        while next_key is not None and len(found) < limit:
            page = await self.page(
                next_key,
                end,
                limit=limit - len(found),
                backward=backward,
                columns=columns,
                of_index=of_index,
            )
            found += page.rows
            next_key = page.next_key
        return Found(found, next_key)

    async def write(self, items: Sequence[Any]) -> list[Outcome]:
        """Write rows in one request. Each succeeds or fails alone.

        :raises SessionHistoryError: it is of no use to try again.
        """
        request = BatchWriteRowRequest()
        request.add(TableInBatchWriteRowItem(self.name, list(items)))
        try:
            response = await self._once(lambda: self._client.batch_write_row(request))
        except TransientError:
            return [Outcome.UNKNOWN] * len(items)
        table = self.name
        rows = [*response.get_put_by_table(table), *response.get_delete_by_table(table)]
        return [outcome_of(row) for row in sorted(rows, key=lambda row: row.index)]

    async def delete(self, keys: Sequence[PrimaryKey]) -> None:
        """Delete rows, in as many requests as it takes, and again those whose outcome is unknown."""
        patience = Patience()
        while keys:
            batch = keys[:ROWS_PER_WRITE]
            outcomes = await self.write([DeleteRowItem(Row(key), _ALWAYS) for key in batch])
            left = [key for key, outcome in zip(batch, outcomes, strict=True) if outcome is not Outcome.DONE]
            if len(left) == len(batch):
                await patience.wait("a delete of unknown outcome")
            keys = [*left, *keys[ROWS_PER_WRITE:]]

    # Start and health

    async def prepare(self, *, create: bool) -> None:
        """See that the table is there, is ours and can be used. An end point that can not be reached is told at once.

        :raises ConfigurationError: it is missing and not to be made, or the credentials are refused.
        :raises IncompatibleStore: a table of this name is another's.
        """
        try:
            described = await self._described()
        except NotReachedError as error:
            raise error.final from None
        if described is None and not create:
            raise ConfigurationError(f"there is no table {self.name!r}, and create=False says not to make it")
        if described is None:
            logger.warning("Tablestore: making table %r, which can be used after about a minute", self.name)
            await self._create()
            described = await self._ready(lambda: self._client.describe_table(self.name))
        self._insist_ours(described)
        await self._ready(lambda: self._client.get_row(self.name, _NOBODY, max_version=1))

    async def answers(self) -> None:
        """:raises SessionHistoryError: it does not."""
        try:
            await self._once(lambda: self._client.get_row(self.name, _NOBODY, max_version=1))
        except TransientError as error:
            raise Unavailable(f"Tablestore: {error}") from None

    async def _described(self) -> Any:
        """:raises NotReachedError: there is no connection."""
        try:
            return await self._insist(lambda: self._client.describe_table(self.name), unreached=False)
        except TableMissing:
            return None

    async def _create(self) -> None:
        """Make the table; one that another process made meanwhile is as good."""
        index = SecondaryIndexMeta(self.index, ["u", "r"], INDEXED, SecondaryIndexType.LOCAL_INDEX)
        await self._insist(
            lambda: self._client.create_table(
                TableMeta(self.name, KEY, DEFINED),
                TableOptions(time_to_live=-1, max_version=1),
                ReservedThroughput(CapacityUnit(0, 0)),
                [index],
            ),
            settled_by="OTSObjectAlreadyExist",
        )

    def _insist_ours(self, described: Any) -> None:
        meta = described.table_meta
        key = [(name, kind) for name, kind, *_ in meta.schema_of_primary_key]
        indexes = {
            index.index_name: list(index.primary_key_names)
            for index in described.secondary_indexes
            if index.index_type == SecondaryIndexType.LOCAL_INDEX
        }
        if key != KEY or not set(DEFINED) <= set(map(tuple, meta.defined_columns)):
            raise IncompatibleStore(f"table {self.name!r} is not of this library: its columns are others")
        if indexes.get(self.index, [])[:2] != ["u", "r"]:
            raise IncompatibleStore(f"table {self.name!r} lacks its local index {self.index!r}")
        if described.table_options.time_to_live != -1:
            logger.warning("Tablestore: table %r has a time to live: it loses what is older", self.name)

    async def _ready(self, request: Callable[[], Awaitable[T]]) -> Any:
        """Make a request until the service says no more that the table is not there, or not ready."""
        patience, told = Patience(READY_PATIENCE), time.monotonic()
        while True:
            try:
                return await self._once(request)
            except (TransientError, TableMissing) as error:
                await patience.wait(error)
                if time.monotonic() - told > TELL_EVERY:
                    logger.warning("Tablestore: still waiting for table %r: %s", self.name, error)
                    told = time.monotonic()

    async def close(self) -> None:
        try:
            await self._client.close()
        except Exception as error:  # nothing is lost by it
            logger.warning("Tablestore: the client did not close: %s", type(error).__name__)

    # Requests

    async def _insist(
        self, request: Callable[[], Awaitable[T]], settled_by: str | None = None, *, unreached: bool = True
    ) -> Any:
        """Make a request that may be repeated until it has an answer.

        :param settled_by: the code of an error that is as good as success.
        :param unreached: also while there is no connection; else that is raised.
        """
        patience = Patience()
        while True:
            try:
                return await self._once(request, settled_by)
            except TransientError as error:
                if isinstance(error, NotReachedError) and not unreached:
                    raise
                await patience.wait(error)

    async def _once(self, request: Callable[[], Awaitable[T]], settled_by: str | None = None) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await request()
        except Exception as error:
            if isinstance(error, OTSServiceError) and error.get_error_code() == settled_by:
                return None
            raise translated(error, self.name, self._timeout) from None


_ALWAYS = Condition(RowExistenceExpectation.IGNORE)

_NOBODY = [("u", " "), ("s", " "), ("q", 0)]
"""A key that no session can have: it is blank."""
