"""Fair sharing of the write lock among processes."""

from __future__ import annotations

import random
import sqlite3
import time

from session_history.providers.sqlite.file import begin


class WriteFairness:
    """Takes the file's write lock so that other processes get it too.

    SQLite gives the lock to the first process that asks after its release. This is nearly always the process that
    has just released it. So a process pauses after a commit for longer than the others sleep between two tries. It
    does so while other processes use the file, and after a long time of work without a pause.
    """

    PAUSE = 0.002
    """Seconds without the lock; :func:`~session_history.providers.sqlite.file.begin` sleeps for 0.1 to 4 ms."""
    OTHERS_SECONDS = 1.0
    """Seconds for which another process, once noticed, is expected to write again."""
    WORK_SECONDS = 0.05
    """Seconds of work after which unnoticed processes get a chance. This costs a busy process 4 % of its time."""

    def __init__(self) -> None:
        self._data_version: int | None = None
        self._others_until = 0.0
        self._working_since = 0.0
        self._committed = 0.0

    def begin(self, connection: sqlite3.Connection, busy_timeout: float) -> None:
        """Take the write lock, and notice whether other processes wrote or held it."""
        self._pause()
        waited = begin(connection, busy_timeout)
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if waited or self._data_version not in (None, version):
            self._others_until = time.monotonic() + self.OTHERS_SECONDS
        self._data_version = version

    def committed(self) -> None:
        """Note that the lock was released after a write."""
        self._committed = time.monotonic()

    def _pause(self) -> None:
        now = time.monotonic()
        paused = now - self._committed
        if paused >= self.PAUSE:
            self._working_since = now
        elif now < self._others_until or now - self._working_since > self.WORK_SECONDS:
            time.sleep(random.uniform(self.PAUSE, 2 * self.PAUSE) - paused)
            self._working_since = time.monotonic()
