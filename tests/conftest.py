"""Fixtures that several folders of tests share."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest

from session_history import InMemorySessionHistoryService, SessionHistoryService, SqliteSessionHistoryService
from session_history.providers.memory import MemoryProvider
from session_history_hooks.testing import processes
from support import CORPORA, PRELOADED, compiled_disk, more_corpora

STORES = ("memory", "sqlite")

multiprocessing.set_forkserver_preload(PRELOADED)
if sys.platform != "win32":  # A server of processes imports what they need once. It has no threads and no connections.
    processes.FRESH = multiprocessing.get_context("forkserver")  # type: ignore[assignment]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The contract suite shows that all stores do the same, so one of them is enough for most tests of the service.
    if metafunc.definition.get_closest_marker("every_store"):
        metafunc.parametrize("service_kind", STORES)


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SESSION_HISTORY_", "PG"))]:  # libpq's, too
        monkeypatch.delenv(name)


@pytest.fixture
def service_kind() -> str:
    """Return the store of ``service`` and ``pair``, unless the marker ``every_store`` chooses it."""
    return "memory"


@pytest.fixture
async def service(service_kind: str, tmp_path: Path) -> AsyncIterator[SessionHistoryService]:
    made = (
        InMemorySessionHistoryService()
        if service_kind == "memory"
        else SqliteSessionHistoryService(tmp_path / "history.db")
    )
    async with made:
        yield made


@pytest.fixture
async def pair(service_kind: str, tmp_path: Path) -> AsyncIterator[list[SessionHistoryService]]:
    """Two services on one store, as in two processes."""
    if service_kind == "memory":
        store = MemoryProvider()
        services = [SessionHistoryService(store), SessionHistoryService(store)]
    else:
        services = [SqliteSessionHistoryService(tmp_path / "h.db") for _ in range(2)]
    for service in services:
        await service.start()
    yield services
    for service in services:
        await service.stop()


@pytest.fixture(
    scope="session",
    params=[CORPORA, *(pytest.param(folder, marks=pytest.mark.corpus) for folder in more_corpora())],
    ids=lambda folder: folder.name,
)
def shared(request: pytest.FixtureRequest) -> Path:
    """A folder of conversations and strings, see ``corpora/README.md``."""
    folder: Path = request.param
    return folder


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes the disk of a process fail or run full, see ``programs/disk.c``."""
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        missing("the test requires Linux and the C compiler cc: apt-get install gcc")
    return compiled_disk(tmp_path_factory.mktemp("disk"))


def missing(reason: str) -> NoReturn:
    """Skip a test that lacks something to install; in CI fail it.

    :param reason: names what is missing and how to install it.
    """
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
