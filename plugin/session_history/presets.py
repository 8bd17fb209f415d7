"""The services whose stores come with the package, by name."""

from __future__ import annotations

import os
from typing import Literal

from session_history.service import SessionHistoryService


class InMemorySessionHistoryService(SessionHistoryService):
    """Keeps conversations in memory; they are gone with the process."""

    def __init__(self) -> None:
        from session_history.providers.memory import MemoryProvider  # noqa: PLC0415 - only what is used is loaded

        super().__init__(MemoryProvider())


class SqliteSessionHistoryService(SessionHistoryService):
    """Keeps conversations in one SQLite file, for any number of processes on one host.

    :param path: the file; it is made on start, its folder is not.
    :param synchronous: ``"FULL"`` = what was acknowledged survives a power cut; ``"NORMAL"`` = it survives the
        death of the process, and commits need no fsync.
    :param busy_timeout: seconds to wait for other processes before the store counts as unavailable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 10.0,
    ) -> None:
        from session_history.providers.sqlite import SqliteProvider  # noqa: PLC0415 - only what is used is loaded

        super().__init__(SqliteProvider(path, synchronous=synchronous, busy_timeout=busy_timeout))
