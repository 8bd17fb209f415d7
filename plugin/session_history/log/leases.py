"""Leases of exclusive turns: heartbeats of one's own, and the observation of those of others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from session_history.errors import SessionBusy, SessionHistoryError
from session_history.log.waiting import WaitingLine
from session_history_hooks import Head, SessionHistoryProvider, SessionKey

LEASE_SECONDS = 30.0
"""Seconds without a heartbeat after which an exclusive turn counts as dead."""

HEARTBEATS_PER_LEASE = 4

_CAPACITY = 10_000
"""Sessions that are observed at once. A session that is dropped is observed from the start: its lease seems longer."""


class LeaseObserver:
    """Observes exclusive turns: one whose entry and heartbeat do not change for the time of its lease is dead.

    Time is this process's own monotonic clock, from the first look at the turn. Threads may share an observer.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[SessionKey, tuple[str, int, float]] = OrderedDict()
        self._abandoned: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def abandon(self, origin: str) -> None:
        """Note that nobody holds the lease of an entry of this process. The entry may be in the log all the same.

        :param origin: that of the entry.
        """
        with self._lock:
            self._abandoned[origin] = None
            if len(self._abandoned) > _CAPACITY:  # a long outage
                self._abandoned.popitem(last=False)

    def check_expired(self, head: Head, lease: float, *, asked_at: float) -> None:
        """Check that the exclusive turn which has a session is dead.

        :param head: as it stands in the store now.
        :param lease: seconds without a heartbeat after which the turn is dead.
        :param asked_at: the monotonic time just before the head was read. This process may have been suspended since,
            while the owner of the lease went on.
        :raises SessionBusy: the turn may be alive.
        """
        with self._lock:
            seen = self._seen.pop(head.key, None)
            if seen is None or seen[:2] != (head.tail_origin, head.heartbeat):
                seen = head.tail_origin, head.heartbeat, time.monotonic()
            self._seen[head.key] = seen
            if len(self._seen) > _CAPACITY:
                self._seen.popitem(last=False)
        if asked_at - seen[2] < lease and head.tail_origin not in self._abandoned:
            raise SessionBusy(head.key)


class Lease:
    """Sends the heartbeats of an exclusive turn, from the running event loop, until it ends.

    :param head: returns the head with the turn's newest entry.
    :param line: the turns of this event loop that wait for the lease.
    """

    def __init__(self, provider: SessionHistoryProvider, head: Callable[[], Head], line: WaitingLine) -> None:
        self._provider = provider
        self._head = head
        self._line = line
        line.take()
        self._loop = asyncio.get_running_loop()
        self._heartbeats = self._loop.create_task(self._send_heartbeats())

    def end(self) -> None:
        """Stop the heartbeats, and let others ask. Any thread may call this."""
        self._line.release()
        with suppress(RuntimeError):  # the loop is closed, and the task with it
            self._loop.call_soon_threadsafe(self._heartbeats.cancel)

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / HEARTBEATS_PER_LEASE)
            with suppress(SessionHistoryError):  # the store may come back before the lease is over
                head = self._head()
                await self._provider.renew(head.key, at=head.tail, tail_origin=head.tail_origin)
