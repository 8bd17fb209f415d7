"""Deadlines of the calls of an event loop."""

from __future__ import annotations

import asyncio

STALL_GRACE = 0.1
"""Seconds that calls get, after the event loop stood still, to read answers that arrived meanwhile."""


class Deadlines:
    """Deadlines of calls that all have the same time.

    One timer serves all of them. ``asyncio.timeout`` makes a timer for each call, which costs a twentieth of the call.

    :param seconds: the time of each call.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._running: dict[Deadline, float] = {}  # in the order in which they end
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()

    def new(self) -> Deadline:
        """Return a context manager for the running task. It raises :class:`TimeoutError` when the time is up."""
        return Deadline(self)

    def begin(self, deadline: Deadline) -> None:
        self._running[deadline] = due = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._on_timer, due)

    def end(self, deadline: Deadline) -> None:
        del self._running[deadline]
        if not self._running:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no call is running."""
        while self._running:
            self._idle.clear()
            await self._idle.wait()

    def _on_timer(self, due: float) -> None:
        if self._loop.time() - due > STALL_GRACE:
            self._timer = self._loop.call_later(STALL_GRACE, self._expire)
        else:
            self._expire()

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for deadline, due in self._running.items():
            if due > now:
                self._timer = self._loop.call_at(due, self._on_timer, due)
                break
            deadline.expire()


class Deadline:
    """The deadline of one call, as a context manager."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._deadlines = deadlines
        self._expired = False

    def expire(self) -> None:
        if not self._expired:
            self._expired = True
            self._task.cancel()

    def __enter__(self) -> None:
        self._deadlines.begin(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._deadlines.end(self)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError
