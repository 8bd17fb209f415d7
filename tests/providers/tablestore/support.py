"""Providers on tests/servers/tablestore, and what the tests see of their table besides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tablestore import INF_MAX, INF_MIN, Row

from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.faults import Kind
from servers.tablestore_client import sync_client
from session_history import SessionHistoryService
from session_history.providers.tablestore import TablestoreProvider, create_client
from session_history.providers.tablestore.keys import HEAD_PLACE
from session_history_hooks.testing import Connect

TABLE = "session_history"


def provider(endpoint: str, **options: Any) -> TablestoreProvider:
    return TablestoreProvider(create_client(endpoint, "inst", "ak", "sk"), **options)


def connect_to(server: TablestoreServer, **options: Any) -> Connect:
    return partial(provider, server.endpoint, **options)


def service_on(server: TablestoreServer) -> SessionHistoryService:
    return SessionHistoryService(provider(server.endpoint))


@dataclass
class Script(Faults):
    """Faults in this order: each waits for the next request of its call. The number is that of a batch's row."""

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


def all_rows(server: TablestoreServer) -> list[Row]:
    """Everything that stands in the table, as the SDK reads it."""
    found: list[Row] = []
    start: Any = [(name, INF_MIN) for name in "usq"]
    end = [(name, INF_MAX) for name in "usq"]
    client = sync_client(server)
    with faultless(server):
        while start is not None:
            _, start, rows, _ = client.get_range(TABLE, "FORWARD", start, end, max_version=1)
            found += rows
    return found


def names_of(rows: list[Row]) -> list[tuple[str, str, int]]:
    return [tuple(value for _, value in row.primary_key) for row in rows]


def assert_tombstones_alone(server: TablestoreServer) -> None:
    """Nothing of what was said is left."""
    for row in all_rows(server):
        columns = {name: value for name, value, *_ in row.attribute_columns}
        assert dict(row.primary_key)["q"] == HEAD_PLACE
        assert set(columns) == {"v", "g", "n", "i", "t", "b", "e", "k", "x"}
        assert (columns["n"], columns["i"], columns["k"]) == (0, "", b"")


def requests_since(server: TablestoreServer, before: int) -> list[str]:
    return [api for api, _ in server.requests[before:]]
