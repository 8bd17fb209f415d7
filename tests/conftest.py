"""Parts that several tests share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session_history import InMemorySessionHistoryService, SessionHistoryService, SqliteSessionHistoryService

SHARED = Path(os.environ.get("SESSION_HISTORY_TEST_SHARED") or Path(__file__).parents[2] / "shared")


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SESSION_HISTORY_")]:
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


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test input that CI has and an outside contributor may not have."""
    if SHARED.is_dir():
        return SHARED
    reason = f"the shared folder is missing: {SHARED} (SESSION_HISTORY_TEST_SHARED names another)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
