"""Servers that accept no more connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from session_history.providers.common.backoff import pauses

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds for which a server that has refused a connection is not asked for another one, at first and at most."""


class Refusals:
    """The time for which the server is not asked for a connection, because it has just refused one.

    :ivar error: the last refusal, until the server accepts a connection.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._until = 0.0
        self._pauses: Iterator[float] = iter(())

    @property
    def until(self) -> float:
        """The time on the clock of the event loop at which the server may be asked again."""
        return self._until if self.error else 0.0

    @property
    def recent(self) -> bool:
        return _now() < self.until

    def add(self, error: Exception) -> None:
        """Note a refusal. Several at the same moment count as one."""
        if self.error is None:
            self._pauses = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        if not self.recent:
            self._until = _now() + next(self._pauses)
        self.error = error

    def clear(self) -> None:
        """Note that the server has accepted a connection."""
        self.error = None


def _now() -> float:
    return asyncio.get_running_loop().time()
