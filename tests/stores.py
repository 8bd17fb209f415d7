"""Every store that the package comes with, empty and for one test: what ``connect`` and ``store_kind`` are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from session_history.providers.memory import MemoryProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks.testing import Connect
from tablestore_providers import connect_to
from tablestore_server import TablestoreServer

KINDS = ("memory", "sqlite", "tablestore")


@contextmanager
def store(kind: str, folder: Path) -> Iterator[Connect]:
    """How to connect to an empty store; it lasts as long as the context."""
    match kind:
        case "memory":
            memory = MemoryProvider()
            yield lambda: memory
        case "sqlite":
            yield partial(SqliteProvider, folder / "history.db")
        case "tablestore":
            with TablestoreServer() as server:
                yield connect_to(server)
        case _:
            raise ValueError(kind)
