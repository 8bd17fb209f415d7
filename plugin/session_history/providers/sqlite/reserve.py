"""Room on the disk that is kept for deletes: on a full disk, SQLite could not even delete."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from session_history.providers.sqlite.access import Access, create
from session_history_hooks import SessionHistoryError

BYTES = 5 * 2**20
"""Enough for a checkpoint, after which deletes have the room of the WAL. SQLite lets a WAL grow to some 4 MiB."""

STEP = 2**18

PROBE_BYTES = 2**16
"""A disk without room for so much, a few turns, is full."""


class Reserve:
    """A file next to the database. Its room is given to a delete that finds the disk full."""

    def __init__(self, path: Path, access: Access) -> None:
        self._database = path.resolve()  # SQLite's own files are behind a symbolic link, too.
        self._path = self._database.with_name(self._database.name + "-reserve")
        self._access = access

    def keep(self) -> None:
        """Take as much of the room as the disk has."""
        with suppress(SessionHistoryError, OSError):
            create(self._path, self._access)
            with self._opened() as file:
                while (size := os.fstat(file).st_size) < BYTES:
                    _extend(file, size, min(STEP, BYTES - size))

    def release(self, connection: sqlite3.Connection) -> bool:
        """Give the room up, and make the WAL reusable with it. Return whether there was any room."""
        try:
            with self._opened() as file:
                room = os.fstat(file).st_size
                os.ftruncate(file, 0)
            if room and self._checkpoint_bytes(connection) <= room:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (OSError, sqlite3.Error):
            return False
        return room > 0

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file. In a folder that others can write to, something else may stand there.

        :raises OSError: it is a link, or no ordinary file.
        """
        file = os.open(self._path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise OSError(errno.EINVAL, "not a file of its own")
            yield file
        finally:
            os.close(file)

    def _checkpoint_bytes(self, connection: sqlite3.Connection) -> int:
        """Return by how much a checkpoint lets the database grow. It would use up the room if that is not enough."""
        [(pages,)], [(page_size,)] = (connection.execute(f"PRAGMA {name}") for name in ("page_count", "page_size"))
        return int(pages * page_size) - self._database.stat().st_size

    def remove_if_closed(self) -> None:
        """Remove the file if no process has the database open any more."""
        with suppress(OSError):
            if not self._database.with_name(self._database.name + "-wal").exists():
                self._path.unlink()

    def require_room(self) -> None:
        """Write a little next to the database, as the WAL does when it grows.

        :raises OSError: the disk is full, or cannot be written.
        """
        with tempfile.TemporaryFile(dir=self._database.parent, buffering=0) as file:
            _extend(file.fileno(), 0, PROBE_BYTES)


def _extend(file: int, size: int, count: int) -> None:
    """Take room behind the end of a file."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, size, count)  # Zeros would take no room on a file system that compresses.
    elif os.write(file, os.urandom(count)) < count:
        os.write(file, b"\0")  # Writes nothing, and raises the reason.
