"""Requests to one table. They have a time limit, are repeated where that is safe, and raise the contract's errors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from tablestore import (
    BatchWriteRowRequest,
    CapacityUnit,
    DeleteRowItem,
    OTSServiceError,
    ReservedThroughput,
    Row,
    SecondaryIndexMeta,
    SecondaryIndexType,
    TableInBatchWriteRowItem,
    TableMeta,
    TableOptions,
)

from session_history.providers.common.backoff import pauses
from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore.errors import (
    NotConnectedError,
    Outcome,
    TableMissing,
    TransientError,
    outcome_of,
    translate,
)
from session_history.providers.tablestore.keys import STORE, PrimaryKey
from session_history.providers.tablestore.rows import ROWS_PER_WRITE
from session_history_hooks import ConfigurationError, IncompatibleStore, Unavailable

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("session_history")

RETRY_TIMEOUT = 30.0
"""Seconds after which a call stops to repeat a request."""
READY_TIMEOUT = 180.0
"""Seconds to wait for a new table. The service needs about a minute, by its documentation."""
LOG_INTERVAL = 10.0
"""Seconds between two lines in the log during this wait."""

ROWS_PER_PAGE = 5000
"""The limit of the service for an answer to a range. The SDK also refuses to ask for 2**31 rows or more."""

KEY = [(col.USER_ID, "STRING"), (col.SESSION_ID, "STRING"), (col.ROW_NUMBER, "INTEGER")]
INDEX_KEY = [col.USER_ID, col.RECENCY]
DEFINED = [
    (col.RECENCY, "INTEGER"), (col.LAYOUT_VERSION, "INTEGER"), (col.GENERATION, "INTEGER"), (col.SEQ, "INTEGER"),
    (col.ORIGIN, "STRING"), (col.CHANGED_US, "INTEGER"), (col.HEARTBEAT, "INTEGER"), (col.REWRITE_ID, "STRING"),
    (col.SNAPSHOT_SEQ, "INTEGER"), (col.SNAPSHOT_ORIGIN, "STRING"), (col.SUMMARY, "BINARY"),
]  # fmt: skip
"""The columns that the index has. Tablestore wants the types of these columns, and of no others."""


class RowPage(NamedTuple):
    """Rows of a range, and the key at which the rest of the range begins; ``None`` at its end."""

    rows: list[Row]
    next_key: PrimaryKey | None


class Backoff:
    """Pauses between two attempts, until a time limit.

    :param seconds: the time limit; ``RETRY_TIMEOUT`` by default.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = RETRY_TIMEOUT if seconds is None else seconds
        self._deadline = time.monotonic() + self._seconds
        self._pauses = pauses(0.005, 1.0)

    async def wait(self, reason: object) -> None:
        """Wait before the next attempt.

        :param reason: why the last attempt failed.
        :raises Unavailable: the time limit has passed.
        """
        if time.monotonic() > self._deadline:
            raise Unavailable(f"Tablestore: no success within {self._seconds:.0f} s; last reason: {reason}") from None
        await asyncio.sleep(next(self._pauses))


class Table:
    """One table and its index.

    :param timeout: the seconds that a request may take.
    """

    def __init__(self, client: Any, name: str, timeout: float) -> None:
        self._client = client
        self.name: str = name
        self.index: str = f"{name}_recent"
        self._timeout = timeout

    # Rows

    async def get(self, key: PrimaryKey) -> Row | None:
        _, row, _ = await self._retry(lambda: self._client.get_row(self.name, key, max_version=1))
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
    ) -> RowPage:
        """Read rows from ``start``, included, to ``end``, excluded, in one answer of at most 4 MB."""
        _, next_key, rows, _ = await self._retry(
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
        return RowPage(rows, next_key)

    async def rows(
        self,
        start: PrimaryKey,
        end: PrimaryKey,
        *,
        limit: int,
        backward: bool = False,
        columns: list[str] | None = None,
        of_index: bool = False,
        is_enough: Callable[[Sequence[Row]], bool] = lambda _rows: False,
    ) -> RowPage:
        """Read the same rows as :meth:`page`, in as many answers as needed.

        :param is_enough: called with the rows so far; if it returns true, the other rows are not read.
        """
        found: list[Row] = []
        next_key: PrimaryKey | None = start
        while next_key is not None and len(found) < limit and not (found and is_enough(found)):
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
        return RowPage(found, next_key)

    async def write(self, items: Sequence[Any]) -> list[Outcome]:
        """Write rows in one request. Each row succeeds or fails by itself.

        :raises SessionHistoryError: a repeated request would fail as well.
        """
        request = BatchWriteRowRequest()
        request.add(TableInBatchWriteRowItem(self.name, list(items)))
        try:
            response = await self._request(lambda: self._client.batch_write_row(request))
        except TransientError:
            return [Outcome.UNKNOWN] * len(items)
        table = self.name
        rows = [*response.get_put_by_table(table), *response.get_delete_by_table(table)]
        return [outcome_of(row) for row in sorted(rows, key=lambda row: row.index)]

    async def delete(self, deletes: Sequence[DeleteRowItem]) -> None:
        """Delete rows in as many requests as needed, and repeat deletes whose outcome is unknown."""
        backoff = Backoff()
        while deletes:
            batch = deletes[:ROWS_PER_WRITE]
            outcomes = await self.write(batch)
            left = [item for item, outcome in zip(batch, outcomes, strict=True) if outcome is Outcome.UNKNOWN]
            if len(left) == len(batch):
                await backoff.wait("the outcome of a delete is unknown")
            deletes = [*left, *deletes[ROWS_PER_WRITE:]]

    # Start and health

    async def prepare(self, *, create: bool) -> None:
        """Check the table, or create it, and wait until it can be used.

        :raises ConfigurationError: the table is missing and ``create`` is false, or the credentials are refused.
        :raises IncompatibleStore: the table was not made by this library.
        :raises Unavailable: there is no connection to the end point. This is not repeated.
        """
        try:
            described = await self._described()
        except NotConnectedError as error:
            raise error.final from None
        if described is None and not create:
            raise ConfigurationError(f"table {self.name!r} does not exist; create it, or set create=True")
        if described is None:
            logger.warning("Tablestore: creating table %r; it can be used after about a minute", self.name)
            await self._create()
            described = await self._ready(lambda: self._client.describe_table(self.name))
        self._require_schema(described)
        await self._ready(lambda: self._client.get_row(self.name, STORE, max_version=1))

    async def ping(self) -> None:
        """Make one request.

        :raises SessionHistoryError: the request failed.
        """
        try:
            await self._request(lambda: self._client.get_row(self.name, STORE, max_version=1))
        except TransientError as error:
            raise Unavailable(f"Tablestore: {error}") from None

    async def _described(self) -> Any:
        """Return the description of the table; ``None`` if the table is missing.

        :raises NotConnectedError: there is no connection.
        """
        try:
            return await self._retry(lambda: self._client.describe_table(self.name), without_connection=False)
        except TableMissing:
            return None

    async def _create(self) -> None:
        """Create the table, unless another process creates it at the same time."""
        index = SecondaryIndexMeta(self.index, INDEX_KEY, col.INDEXED, SecondaryIndexType.LOCAL_INDEX)
        await self._retry(
            lambda: self._client.create_table(
                TableMeta(self.name, KEY, DEFINED),
                TableOptions(time_to_live=-1, max_version=1),
                ReservedThroughput(CapacityUnit(0, 0)),
                [index],
            ),
            accepted_error="OTSObjectAlreadyExist",
        )

    def _require_schema(self, described: Any) -> None:
        meta = described.table_meta
        key = [(name, kind) for name, kind, *_ in meta.schema_of_primary_key]
        indexes = {
            index.index_name: list(index.primary_key_names)
            for index in described.secondary_indexes
            if index.index_type == SecondaryIndexType.LOCAL_INDEX
        }
        if key != KEY or not set(DEFINED) <= set(map(tuple, meta.defined_columns)):
            raise IncompatibleStore(f"table {self.name!r} was not made by this library: it has other columns")
        if indexes.get(self.index, [])[:2] != INDEX_KEY:
            raise IncompatibleStore(f"table {self.name!r} lacks its local index {self.index!r}")
        if described.table_options.time_to_live != -1:
            logger.warning("Tablestore: table %r has a time to live, so it loses its older rows", self.name)

    async def _ready(self, request: Callable[[], Awaitable[T]]) -> Any:
        """Repeat a request while the service answers that the table is missing or not ready."""
        backoff, logged = Backoff(READY_TIMEOUT), time.monotonic()
        while True:
            try:
                return await self._request(request)
            except (TransientError, TableMissing) as error:
                await backoff.wait(error)
                if time.monotonic() - logged > LOG_INTERVAL:
                    logger.warning("Tablestore: still waiting for table %r: %s", self.name, error)
                    logged = time.monotonic()

    async def close(self) -> None:
        try:
            await self._client.close()
        except Exception as error:  # all writes have ended, so nothing is lost
            logger.warning("Tablestore: the client did not close: %s", type(error).__name__)

    # Requests

    async def _retry(
        self,
        request: Callable[[], Awaitable[T]],
        accepted_error: str | None = None,
        *,
        without_connection: bool = True,
    ) -> Any:
        """Repeat a request until it has an answer. The request must be safe to repeat.

        :param accepted_error: the code of an error that counts as success.
        :param without_connection: if false, a missing connection is raised at once.
        """
        backoff = Backoff()
        while True:
            try:
                return await self._request(request, accepted_error)
            except TransientError as error:
                if isinstance(error, NotConnectedError) and not without_connection:
                    raise
                await backoff.wait(error)

    async def _request(self, request: Callable[[], Awaitable[T]], accepted_error: str | None = None) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await request()
        except Exception as error:
            if isinstance(error, OTSServiceError) and error.get_error_code() == accepted_error:
                return None
            raise translate(error, self.name, self._timeout) from None
