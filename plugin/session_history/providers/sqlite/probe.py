"""A read of one head in the caller's own thread."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from session_history.providers.common.forks import ForkGuard
from session_history.providers.sqlite import rows
from session_history.providers.sqlite.file import connect
from session_history.providers.sqlite.watch import FileWatch
from session_history_hooks import Log, SessionKey


class Probe:
    """Answers whether a log has entries after a known one, without a switch to another thread.

    The switch would take longer than the read, which needs one row. The row of a session in use is in memory.
    """

    def __init__(self, path: Path, guard: ForkGuard, watch: FileWatch) -> None:
        self._guard = guard
        self._watch = watch
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):  # Without a probe, the reader answers.
            self._connection = connect(path, timeout=0, mode="rw", shared=True)
            self._connection.execute("PRAGMA query_only = ON")

    def unchanged_since(self, key: SessionKey, after: int) -> Log | None:
        """Return the head of a log without entries after ``after``.

        ``None`` means that there are entries, or that the probe cannot tell.
        """
        # The guard is checked before the lock, which another thread may have held during the fork.
        if self._guard.inherited or not self._watch.seems_in_place:
            return None
        with self._lock, suppress(sqlite3.Error):
            if self._connection is not None:
                return rows.unchanged_since(self._connection, key, after)
        return None

    def close(self) -> None:
        if self._guard.inherited:
            return
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
