"""The stores of the driver: each with two services."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.postgresql import FAST, running, servers
from servers.valkey import ValkeyServer
from service.test_sizes import LIMIT, NarrowMemory, NarrowSqlite
from session_history import SessionHistoryService
from session_history.providers.memory import MemoryProvider
from session_history_hooks import SessionHistoryProvider


@dataclass
class Store:
    """A store.

    :ivar another: returns a further service on the provider of one.
    :ivar entry_limit: the bytes of an entry, if they are few.
    :ivar url: for other processes; ``None`` if they cannot use it.
    :ivar kills: the share of batches in which a process is killed.
    """

    services: list[SessionHistoryService]
    entry_limit: int | None = None
    url: str | None = None
    kills: float = 0.004

    @property
    def shares_provider(self) -> bool:
        """Tell whether the services have one provider, which a stop of one takes from the other."""
        return self.services[0].provider is self.services[1].provider

    @staticmethod
    def another(service: SessionHistoryService) -> SessionHistoryService:
        return SessionHistoryService(service.provider)


@asynccontextmanager
async def _started(
    providers: list[SessionHistoryProvider], *, entry_limit: int | None = None, url: str | None = None
) -> AsyncIterator[Store]:
    services = [SessionHistoryService(provider) for provider in providers]
    for service in services:
        await service.start()
    try:
        yield Store(services, entry_limit, url)
    finally:
        for service in services:
            await service.stop()


@asynccontextmanager
async def memory() -> AsyncIterator[Store]:
    provider = MemoryProvider()
    async with _started([provider, provider]) as store:
        yield store


@asynccontextmanager
async def narrow_memory() -> AsyncIterator[Store]:
    provider = NarrowMemory()
    async with _started([provider, provider], entry_limit=LIMIT) as store:
        yield store


@asynccontextmanager
async def narrow_sqlite() -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        async with _started([NarrowSqlite(path) for _ in range(2)], entry_limit=LIMIT) as store:
            yield store


@asynccontextmanager
async def _at(url: str) -> AsyncIterator[Store]:
    providers = [SessionHistoryService.from_url(url).provider for _ in range(2)]
    async with _started(providers, url=url) as store:
        yield store


@asynccontextmanager
async def sqlite() -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        async with _at(f"sqlite:///{folder}/history.db") as store:
            yield store


@asynccontextmanager
async def valkey() -> AsyncIterator[Store]:
    with ValkeyServer() as server:
        async with _at(server.url) as store:
            yield store


@asynccontextmanager
async def postgresql() -> AsyncIterator[Store]:
    with servers() as machine, running(machine, *FAST) as server:
        async with _at(f"{server.url()}?durability=host") as store:
            yield store


STORES: dict[str, Callable[[], AbstractAsyncContextManager[Store]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "valkey": valkey,
    "postgresql": postgresql,
}

NARROW: dict[str, Callable[[], AbstractAsyncContextManager[Store]]] = {
    "memory": narrow_memory,
    "sqlite": narrow_sqlite,
}
"""The same with small entries."""
