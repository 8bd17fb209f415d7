"""Which sessions belong to one turn alone for now, as far as this process can tell."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from session_history.errors import SessionBusy, SessionHistoryError
from session_history_hooks import Head, Position, SessionHistoryProvider, SessionKey

LEASE_SECONDS = 30.0
"""Seconds without a sign of life after which an exclusive turn is taken for dead."""

RENEWALS_PER_LEASE = 4
"""Signs of life in a term."""

_ROOM = 10_000
"""Sessions that are watched at once. One that is forgotten is watched anew, and held for longer than it need be."""


class Leases:
    """Watches exclusive turns: one whose position and heartbeat stay as they are for its term is dead.

    It is timed by this process's own clock, from when it saw the turn first. Several threads may share this.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[SessionKey, tuple[Position, int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, head: Head, term: float) -> None:
        """See that the exclusive turn that has a session is dead.

        :param head: as it stands in the store now.
        :param term: seconds without a sign of life after which it is.
        :raises SessionBusy: it may be alive.
        """
        with self._lock:
            seen = self._seen.pop(head.key, None)
            if seen is None or seen[:2] != (head.tail, head.heartbeat):
                seen = head.tail, head.heartbeat, time.monotonic()
            self._seen[head.key] = seen
            if len(self._seen) > _ROOM:
                self._seen.popitem(last=False)
        if time.monotonic() - seen[2] < term:
            raise SessionBusy(head.key)


class Lease:
    """Gives the signs of life of an exclusive turn, from the running event loop, until it ends.

    :param tail: where the turn's newest entry stands.
    """

    def __init__(self, provider: SessionHistoryProvider, key: SessionKey, tail: Callable[[], Position]) -> None:
        self._provider = provider
        self._key = key
        self._tail = tail
        self._loop = asyncio.get_running_loop()
        self._beating = self._loop.create_task(self._beat())

    def end(self) -> None:
        """May be called from any thread."""
        with suppress(RuntimeError):  # the loop is closed, and the task with it
            self._loop.call_soon_threadsafe(self._beating.cancel)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / RENEWALS_PER_LEASE)
            with suppress(SessionHistoryError):  # the store may come back before the term is over
                await self._provider.renew(self._key, at=self._tail())
