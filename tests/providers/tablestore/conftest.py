"""A server for each test, and providers that connect to it as other processes would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from providers.tablestore.support import HookedClient, Make, MakeHooked
from servers.tablestore import TablestoreServer
from session_history.providers.tablestore import TablestoreProvider


@pytest.fixture
def server() -> Iterator[TablestoreServer]:
    with TablestoreServer() as server:
        yield server


@pytest.fixture
async def make_hooked(server: TablestoreServer) -> AsyncIterator[MakeHooked]:
    """A function that starts another provider, with a client that a test can hook."""
    made: list[TablestoreProvider] = []

    async def make() -> tuple[TablestoreProvider, HookedClient]:
        client = HookedClient(server)
        made.append(TablestoreProvider(client))
        await made[-1].start()
        return made[-1], client

    yield make
    for each in made:
        await each.stop()


@pytest.fixture
def make(make_hooked: MakeHooked) -> Make:
    async def make() -> TablestoreProvider:
        return (await make_hooked())[0]

    return make
