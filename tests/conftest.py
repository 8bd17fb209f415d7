"""Parts that several tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from session_history import InMemorySessionHistoryService, SessionHistoryService, SqliteSessionHistoryService
from session_history.providers.memory import MemoryProvider
from support import compiled_disk

if TYPE_CHECKING:
    from runtimes.agentscope.support import Cast

SHARED = Path(os.environ.get("SESSION_HISTORY_TEST_SHARED") or Path(__file__).parents[2] / "shared")


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SESSION_HISTORY_", "PG"))]:  # libpq's, too
        monkeypatch.delenv(name)


@pytest.fixture(params=["memory", "sqlite"])
def service_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
async def service(service_kind: str, tmp_path: Path) -> AsyncIterator[SessionHistoryService]:
    made = (
        InMemorySessionHistoryService()
        if service_kind == "memory"
        else SqliteSessionHistoryService(tmp_path / "history.db")
    )
    async with made:
        yield made


@pytest.fixture(params=["turn", "step"])
def save(request: pytest.FixtureRequest) -> str:
    """How often a runtime's skin saves."""
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["lasting", "fresh"])
def lasting(request: pytest.FixtureRequest) -> bool:
    """Whether one agent object serves all turns of a session."""
    return bool(request.param == "lasting")


@pytest.fixture
async def cast(tmp_path: Path, *, save: str, lasting: bool) -> AsyncIterator[Cast]:
    """Agents of AgentScope, see there; on SQLite, where a fresh one may have a fresh service, too."""
    from runtimes.agentscope.support import Cast

    made = Cast(lambda: SqliteSessionHistoryService(tmp_path / "history.db"), save=save, lasting=lasting)
    yield made
    await made.close()


@pytest.fixture
async def pair(service_kind: str, tmp_path: Path) -> AsyncIterator[list[SessionHistoryService]]:
    """Two services on one store, which know nothing of each other, as in two processes."""
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


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test input that CI has and an outside contributor may not have."""
    if not SHARED.is_dir():
        missing(f"the shared folder is missing: {SHARED} (SESSION_HISTORY_TEST_SHARED names another)")
    return SHARED


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes the disk of a process lose its power or run full, see ``programs/disk.c``."""
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        missing("it takes Linux and a C compiler called cc")
    return compiled_disk(tmp_path_factory.mktemp("disk"))


def missing(reason: str) -> NoReturn:
    """A part that a test needs is not there: a failure in CI, elsewhere a reason to skip it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
