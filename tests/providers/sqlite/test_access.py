"""The files of SQLite are private from the start."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from session_history import SessionHistoryService, SqliteSessionHistoryService
from session_history.errors import ConfigurationError, StoreReadOnly, Unavailable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


@pytest.fixture(autouse=True, params=[0o022, 0o000, 0o077], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def talk(service: SessionHistoryService) -> None:
    async with service.turn("u", "s") as turn:
        turn.add({"role": "user", "content": "q"})


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 0o600), ({"access": "owner"}, 0o600), ({"access": "group"}, 0o660)]
)
async def test_new_files_have_the_mode_of_their_access(tmp_path: Path, options: Any, expected: int) -> None:
    path = tmp_path / "h.db"
    async with SqliteSessionHistoryService(path, **options) as service:
        await talk(service)
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["h.db", "h.db-reserve", "h.db-shm", "h.db-wal"]
        assert [oct(mode(file)) for file in files] == [oct(expected)] * 4


async def test_file_behind_a_link_is_private(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    async with SqliteSessionHistoryService(tmp_path / "link.db") as service:
        await talk(service)
        assert mode(tmp_path / "real.db") == 0o600


async def test_existing_file_keeps_its_mode_and_the_log_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "h.db"
    async with SqliteSessionHistoryService(path) as service:
        await talk(service)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    path.chmod(0o644)
    async with SqliteSessionHistoryService(path) as service:
        await talk(service)
    assert mode(path) == 0o644
    assert "other users can read" in caplog.text


async def test_folder_that_others_can_write_to_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    async with SqliteSessionHistoryService(folder / "h.db"):
        assert "other users can write to its folder" in caplog.text


async def test_access_by_url_and_wrong_access(tmp_path: Path) -> None:
    async with SessionHistoryService.from_url(f"sqlite:///{tmp_path / 'h.db'}?access=group") as service:
        await talk(service)
        assert mode(tmp_path / "h.db") == 0o660
    with pytest.raises(ConfigurationError, match="access"):
        SqliteSessionHistoryService(tmp_path / "h.db", access="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, Unavailable), (errno.EROFS, StoreReadOnly)])
async def test_file_that_cannot_be_created_raises_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("session_history.providers.sqlite.access.os.open", refuse)
    with pytest.raises(kind, match=os.strerror(code)):
        await SqliteSessionHistoryService(tmp_path / "h.db").start()
