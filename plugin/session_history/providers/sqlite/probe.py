"""A look at a head from the caller's own thread, for those who know the log up to its tail."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from session_history.providers.sqlite import rows
from session_history.providers.sqlite.file import connect
from session_history_hooks import Log, SessionKey


class Probe:
    """Answers "is there anything behind my position?" without the way to another thread and back.

    That way takes longer than the look itself: one row of a session that was just in use, which is in memory.
    """

    def __init__(self, path: Path) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):  # there is another way to every answer
            self._connection = connect(path, timeout=0, mode="rw", shared=True)
            self._connection.execute("PRAGMA query_only = ON")

    def nothing_behind(self, key: SessionKey, after: int) -> Log | None:
        """The head of a log that ends at ``after`` or before; ``None`` if it does not, or can not be seen from here."""
        if self._pid != os.getpid():  # ahead of the lock, which a fork may have left taken for ever
            return None
        with self._lock, suppress(sqlite3.Error):
            if self._connection is not None:
                return rows.nothing_behind(self._connection, key, after)
        return None

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
