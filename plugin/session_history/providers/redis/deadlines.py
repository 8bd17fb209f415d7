"""The calls of an event loop that go on, each of which has the same time."""

from __future__ import annotations

import asyncio

STANDSTILL = 0.1
"""Seconds that the event loop may be late before what was answered meanwhile is read first."""


class Deadlines:
    """Ends what takes too long. One timer serves all: ``asyncio.timeout`` makes one for each, a twentieth of a call.

    :param seconds: the time of each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._running: dict[Call, float] = {}  # the oldest first, so the next to end, too
        self._timer: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()

    def call(self) -> Call:
        """To be entered by the task that does it; leaving raises :class:`TimeoutError` if it took too long."""
        return Call(self)

    def begin(self, call: Call) -> None:
        self._running[call] = deadline = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look, deadline)

    def end(self, call: Call) -> None:
        del self._running[call]
        if not self._running:
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until nothing goes on."""
        while self._running:
            self._quiet.clear()
            await self._quiet.wait()

    def _look(self, due: float) -> None:
        if self._loop.time() - due > STANDSTILL:
            self._timer = self._loop.call_later(STANDSTILL, self._expire)
        else:
            self._expire()

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for call, deadline in self._running.items():
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._look, deadline)
                break
            call.expire()


class Call:
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
