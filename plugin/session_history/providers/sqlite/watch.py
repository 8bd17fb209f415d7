"""A watch on the opened files: their path may lead to other files by now."""

from __future__ import annotations

import os
from pathlib import Path

from session_history.providers.sqlite.file import Identity, wal_path
from session_history_hooks import Unavailable


class FileWatch:
    """Remembers which files were opened. One that was replaced gets what no other process sees.

    :param path: the database file, which was opened just now.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._wal_path = os.fspath(wal_path(path))
        self._wal = wal_path(path).open("rb", buffering=0)
        self._wal_number = self._wal.fileno()
        self._opened = self._found()

    def close(self) -> None:
        self._wal.close()

    def read_wal(self, size: int) -> bytes:
        """Read the first bytes of the WAL."""
        self._wal.seek(0)
        return self._wal.read(size)

    def require_in_place(self) -> None:
        """Raise an error for a file that was moved, deleted or replaced."""
        if not self.in_place:
            raise Unavailable(
                f"{self._path} or its WAL was deleted or replaced since it was opened; restart the service"
            )

    @property
    def in_place(self) -> bool:
        """True while the paths lead to the opened files."""
        try:
            return self._found() == self._opened
        except OSError:
            return False

    @property
    def seems_in_place(self) -> bool:
        """As :attr:`in_place`, in two thirds of the time. It misses a WAL that was renamed."""
        try:
            file = os.stat(self._path)  # noqa: PTH116 - twice as fast
            return (file.st_dev, file.st_ino) == self._opened[0] and os.fstat(self._wal_number).st_nlink > 0
        except OSError:
            return False

    def _found(self) -> tuple[Identity, Identity]:
        file, wal = os.stat(self._path), os.stat(self._wal_path)  # noqa: PTH116 - twice as fast
        return (file.st_dev, file.st_ino), (wal.st_dev, wal.st_ino)
