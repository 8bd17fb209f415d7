"""Providers on tests/tablestore_server."""

from __future__ import annotations

from functools import partial
from typing import Any

from session_history.providers.tablestore import TablestoreProvider, create_client
from session_history_hooks.testing import Connect
from tablestore_server import TablestoreServer


def provider(endpoint: str, **options: Any) -> TablestoreProvider:
    return TablestoreProvider(create_client(endpoint, "inst", "ak", "sk"), **options)


def connect_to(server: TablestoreServer, **options: Any) -> Connect:
    return partial(provider, server.endpoint, **options)
