"""The check at a start whether a WAL belongs to the database file next to it. See :mod:`.marks`."""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from session_history.providers.sqlite.file import wal_path
from session_history.providers.sqlite.marks import SIZE, UNMARKED, Mark, read
from session_history_hooks import ConfigurationError

_ATTEMPTS = 10
_PAUSE = 0.02

_HEADER = struct.Struct(">I4xI4x8s8x")
_FRAME = struct.Struct(">I4x8s8x")
_MAGICS = (0x377F0682, 0x377F0683)
_PAGE_SIZES = range(512, 65536 + 1)
_LEAF = 0x0D
_CELL_HEAD = 4
"""Bytes of a cell ahead of a blob of this size: the lengths of cell and header, the row's number, the type."""


class Wal(NamedTuple):
    """The marks and cookies of a database file that are in a WAL.

    :ivar marks: the marks in it, the oldest first.
    :ivar cookies: the schema cookies in it.
    """

    salts: bytes
    marks: tuple[Mark, ...]
    cookies: frozenset[int]


class Database(NamedTuple):
    """The token and the cookie that a database file holds without its WAL."""

    token: bytes
    cookie: int


def require_own_wal(path: Path) -> None:
    """Check that the WAL next to a file is the file's own, before SQLite moves it into the file.

    Where it cannot be known, the check passes: a process may have been killed at any moment.

    :raises ConfigurationError: the WAL belongs to another file.
    """
    path = path.resolve()
    if all(_is_foreign(path) for _ in _attempts()):
        wal = wal_path(path).name
        raise ConfigurationError(
            f"{path} was put in the place of another file, whose newest changes are still in {wal}. To use {path.name}"
            f" as it is, stop every service, then remove {wal} and {path.name}-shm. To keep the changes, put back the"
            " file that they belong to"
        )


def _attempts() -> Iterator[None]:
    """Pause between attempts. A file that other processes use may change while it is looked at."""
    for number in range(_ATTEMPTS):
        if number:
            time.sleep(_PAUSE)
        yield


def _is_foreign(path: Path) -> bool:
    wal = _read_wal(path)
    if wal is None or not wal.marks or not path.exists() or not path.stat().st_size:
        return False  # SQLite itself removes the WAL of an empty file.
    database = _read_database(path)
    return database is not None and not _may_belong(database, wal) and _read_wal(path) == wal


def _may_belong(database: Database, wal: Wal) -> bool:
    tokens = {wal.marks[0].base}
    confirmed: Mark | None = None
    for mark in wal.marks:
        tokens = {mark.token} if mark.confirmed else {*tokens, mark.token}
        confirmed = mark if mark.confirmed else confirmed
    if database.token not in tokens:
        return False
    # The file had the cookie of the confirmed mark, and got another one only from this WAL.
    return confirmed is None or database.cookie in {confirmed.cookie, *wal.cookies}


def _read_database(path: Path) -> Database | None:
    """Read a file without its WAL; ``None`` if it is damaged."""
    # SQLite reads it, because closing a file in any other way drops the locks that this process has on it.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            (cookie,) = connection.execute("PRAGMA schema_version").fetchone()
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'wal_mark'").fetchone()
            mark = read(connection) if found else UNMARKED
    except sqlite3.Error:
        return None
    return Database(mark.token, cookie) if mark else None


def _read_wal(path: Path) -> Wal | None:
    """Read the marks in a WAL; ``None`` if there is no WAL.

    Frames that were not committed count, too: what their marks say was true before they were written.
    """
    try:
        with wal_path(path).open("rb") as file:
            return _read_frames(file)
    except OSError:
        return None


def _read_frames(file: BinaryIO) -> Wal | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, page_size, salts = _HEADER.unpack(header)
    if magic not in _MAGICS or page_size not in _PAGE_SIZES:
        return None
    marks: list[Mark] = []
    cookies: set[int] = set()
    while len(frame := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
        number, frame_salts = _FRAME.unpack(frame[: _FRAME.size])
        if frame_salts != salts:
            break  # The rest is of an earlier WAL.
        page = frame[_FRAME.size :]
        if number == 1:
            cookies.add(int.from_bytes(page[40:44]))
        elif (mark := _mark_on(page)) and mark != UNMARKED:
            marks.append(mark)
    return Wal(salts, tuple(marks), frozenset(cookies))


def _mark_on(page: bytes) -> Mark | None:
    """Return the mark on a page that holds this one row only."""
    if page[0] != _LEAF or page[3:5] != b"\0\1":
        return None
    begin = int.from_bytes(page[8:10]) + _CELL_HEAD
    return Mark.unpack(page[begin : begin + SIZE])
