"""Takes turns at the write lock with other processes."""

from __future__ import annotations

import random
import sqlite3
import time

from session_history.providers.sqlite.file import begin


class Turnstile:
    """Takes the file's write lock in turns with other processes.

    SQLite hands the lock to whoever asks first after its release, which is nearly always the process that
    just released it. So a process that committed while others were about, or for a long stretch alone, stays away for
    longer than the others sleep between two tries.
    """

    GAP = 0.002
    """Seconds to stay away; :func:`~session_history.providers.sqlite.file.begin` sleeps 0.1 to 4 ms."""
    MEMORY = 1.0
    """Seconds for which another process, once noticed, is taken to be about."""
    STRETCH = 0.05
    """Seconds of work without a pause after which others are let in unasked: 4 % of a busy process's time."""

    def __init__(self) -> None:
        self._data_version: int | None = None
        self._others_until = 0.0
        self._working_since = 0.0
        self._left = 0.0

    def enter(self, connection: sqlite3.Connection, patience: float) -> None:
        self._stay_away()
        waited = begin(connection, patience)
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if waited or self._data_version not in (None, version):
            self._others_until = time.monotonic() + self.MEMORY
        self._data_version = version

    def leave(self) -> None:
        self._left = time.monotonic()

    def _stay_away(self) -> None:
        now = time.monotonic()
        away = now - self._left
        if away >= self.GAP:
            self._working_since = now
        elif now < self._others_until or now - self._working_since > self.STRETCH:
            time.sleep(random.uniform(self.GAP, 2 * self.GAP) - away)
            self._working_since = time.monotonic()
