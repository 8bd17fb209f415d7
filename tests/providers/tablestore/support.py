"""Providers on tests/servers/tablestore, and tools that look at their table and disturb their requests."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tablestore import (
    INF_MAX,
    INF_MIN,
    AsyncOTSClient,
    BatchWriteRowRequest,
    DeleteRowItem,
    OTSClientError,
    PutRowItem,
    Row,
)

from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.faults import Kind
from servers.tablestore_client import CREDENTIALS, batch, sync_client
from session_history import SessionHistoryService
from session_history.providers.tablestore import TablestoreProvider, create_client, decoding, thread
from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore.keys import HEAD_NUMBER, STORE
from session_history_hooks.testing import Connect

TABLE = "session_history"

Step = Callable[[], Awaitable[object]]


def provider(endpoint: str, **options: Any) -> TablestoreProvider:
    return TablestoreProvider(create_client(endpoint, "inst", "ak", "sk"), **options)


def connect_to(server: TablestoreServer, **options: Any) -> Connect:
    return partial(provider, server.endpoint, **options)


def service_on(server: TablestoreServer) -> SessionHistoryService:
    return SessionHistoryService(provider(server.endpoint))


Make = Callable[[], Awaitable[TablestoreProvider]]
"""Starts another provider on the server of a test."""

# Requests that a test disturbs

Send = Callable[[list[Any]], Awaitable[Any]]
"""Writes rows in one request."""


class HookedClient(AsyncOTSClient):  # type: ignore[misc] # the SDK is untyped
    """A client of the SDK that lets a test act before and after requests.

    :ivar on_write: called in place of each write, with its rows and a function that writes rows.
    :ivar on_range: called in place of each read of a range, with a function that reads it.
    """

    def __init__(self, server: TablestoreServer) -> None:
        super().__init__(server.endpoint, **CREDENTIALS)
        self.on_write: Callable[[list[Any], Send], Awaitable[Any]] = _write
        self.on_range: Callable[[Step], Awaitable[Any]] = _read

    async def batch_write_row(self, request: BatchWriteRowRequest) -> Any:
        send = super().batch_write_row
        return await self.on_write(request.items[TABLE].row_items, lambda items: send(batch(TABLE, items)))

    async def get_range(self, *args: Any, **named: Any) -> Any:
        read = super().get_range
        return await self.on_range(lambda: read(*args, **named))

    def before_write(self, wanted: Callable[[list[Any]], bool], step: Step) -> None:
        """Take a step, once, before the first write of wanted rows."""

        async def hook(items: list[Any], send: Send) -> Any:
            if wanted(items):
                self.on_write = _write
                await step()
            return await send(items)

        self.on_write = hook

    def after_write(self, wanted: Callable[[list[Any]], bool], step: Step) -> None:
        """Take a step, once, after the first write of wanted rows, whose answer is then lost."""

        async def hook(items: list[Any], send: Send) -> Any:
            answer = await send(items)
            if not wanted(items):
                return answer
            self.on_write = _write
            await step()
            raise ConnectionResetError

        self.on_write = hook


MakeHooked = Callable[[], Awaitable[tuple[TablestoreProvider, HookedClient]]]
"""Starts another provider, and returns its client as well."""


async def _write(items: list[Any], send: Send) -> Any:
    return await send(items)


async def _read(read: Step) -> Any:
    return await read()


async def die() -> None:
    """Fail in a way that a provider does not repeat: as if the process ended here."""
    raise OTSClientError("this process died")


DIED = "OTSClientError"


def puts(number: int) -> Callable[[list[Any]], bool]:
    """Return a test for writes that put a row with this number."""
    return lambda items: any(isinstance(item, PutRowItem) and decoding.row_number(item.row) == number for item in items)


def deletes(items: list[Any]) -> bool:
    """Return whether a write deletes rows."""
    return isinstance(items[0], DeleteRowItem)


@dataclass
class Script(Faults):
    """Faults in this order. Each one waits for the next request of its call; the number names a row of a batch."""

    steps: list[tuple[str, Kind | None, int]] = field(default_factory=list)
    _row: int = 0

    def next(self, api: str, table: str) -> Kind | None:
        if not self.steps or self.steps[0][0] != api:
            return None
        _, kind, self._row = self.steps.pop(0)
        self.injected += 1
        return kind

    def row_of(self, rows: int) -> int:
        return self._row


@contextmanager
def faultless(server: TablestoreServer) -> Iterator[None]:
    faults, server.faults = server.faults, None
    try:
        yield
    finally:
        server.faults = faults


# What is stored


def all_rows(server: TablestoreServer) -> list[Row]:
    """Return all rows of sessions, as the SDK reads them."""
    found: list[Row] = []
    start: Any = [(name, INF_MIN) for name in PRIMARY_KEY]
    end = [(name, INF_MAX) for name in PRIMARY_KEY]
    client = sync_client(server)
    with faultless(server):
        while start is not None:
            _, start, page, _ = client.get_range(TABLE, "FORWARD", start, end, max_version=1)
            found += page
    return [row for row in found if row.primary_key != STORE]


PRIMARY_KEY = (col.USER_ID, col.SESSION_ID, col.ROW_NUMBER)


def keys_of(rows: list[Row]) -> list[tuple[str, str, int]]:
    return [tuple(value for _, value in row.primary_key) for row in rows]


def row_numbers(server: TablestoreServer) -> list[int]:
    return [number for _, _, number in keys_of(all_rows(server))]


TOMBSTONE = {
    col.LAYOUT_VERSION, col.GENERATION, col.SEQ, col.ORIGIN, col.CHANGED_US, col.ACTIVE_US, col.HEARTBEAT,
    col.REWRITE_ID, col.ID_DIGESTS, col.ETAG,
}  # fmt: skip


def assert_only_tombstones(server: TablestoreServer) -> None:
    for row in all_rows(server):
        columns = {name: value for name, value, *_ in row.attribute_columns}
        assert decoding.row_number(row) == HEAD_NUMBER
        assert set(columns) == TOMBSTONE
        assert (columns[col.SEQ], columns[col.ORIGIN], columns[col.ID_DIGESTS]) == (0, "", b"")


# What a process does


def requests_since(server: TablestoreServer, before: int) -> list[str]:
    return [api for api, _ in server.requests[before:]]


def provider_threads() -> set[threading.Thread]:
    """Return the threads of all providers that run in this process."""
    return {each for each in threading.enumerate() if each.name == thread.THREAD_NAME}
