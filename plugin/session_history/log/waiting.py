"""Waiting for the lease of a session: first come, first served within an event loop; by turns among processes.

A store does not tell which turns wait: they look again and again. So a process that has released a lease pauses for
longer than the others wait between two looks, and then asks as one of them. It does so while it meets others, and
after a long time in which nobody else could have had the session.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict, deque
from contextlib import AbstractContextManager, suppress
from typing import Self
from weakref import WeakKeyDictionary

from session_history.errors import SessionBusy
from session_history_hooks import Head, SessionKey

POLL_INTERVAL = 0.1
"""The most seconds between two looks at a session that belongs to an exclusive turn."""

HOLD_SECONDS = 0.5, 4.0
"""Seconds after which a process that had a session without a pause lets unknown others ask: at first, and at most. They
double with each pause in which nobody came, so that a process without rivals loses 3 % of its time in the end."""

_LOOK_SECONDS = 1.0
"""The most seconds that a look at a session counts for."""

_URGENCY = 10.0
"""How many times as often as at first a turn looks, at most, that has lost races or has little patience left."""

_CAPACITY = 10_000
"""Sessions of an event loop whose lines are known at once. The turns of one that is dropped go on, in another order."""


def poll_pause() -> float:
    """Return the seconds before the next look at a session. They are random, so that two waiters do not keep step."""
    return random.uniform(0.5, 1.0) * POLL_INTERVAL


class WaitingLine:
    """The turns of one event loop that want the lease of one session. Only the first of them asks the store.

    :ivar is_held: a turn of this loop holds the lease.
    :ivar has_rivals: the newest lease of this loop was one that others wanted, too.
    :ivar look_seconds: how long the newest look at the session took.
    """

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.is_held: bool = False
        self.has_rivals: bool = False
        self.look_seconds: float = 0.0
        self._places: deque[Place] = deque()
        self._held_since = -math.inf
        self._hold_seconds = HOLD_SECONDS[0] / 2
        self._released = -math.inf
        self._others_until = -math.inf

    def take(self) -> None:
        """Note that a turn of this loop has the lease."""
        self.is_held = True

    def release(self) -> None:
        """Note that it has the lease no longer. Any thread may call this."""
        self._released = time.monotonic()
        self.is_held = False
        rest = POLL_INTERVAL + 2 * self.look_seconds  # others wait before a look for as long as it takes, too
        self._others_until = self._released + random.uniform(1.0, 1.5) * rest
        for place in list(self._places)[:1]:
            place.call()

    def held_since(self, looked_at: float) -> bool:
        """Tell whether a turn of this loop may be the one whose lease a look found.

        :param looked_at: the monotonic time when the look began. The lease may have been released since.
        """
        return self.is_held or self._released >= looked_at

    def begin(self, looked_at: float, *, has_rivals: bool) -> None:
        """Note that the first turn has the lease.

        :param looked_at: the monotonic time when it began to look at the session.
        :param has_rivals: it met others.
        """
        self.look_seconds = min(_LOOK_SECONDS, time.monotonic() - looked_at)
        self.has_rivals = has_rivals
        if looked_at >= self._others_until:
            self._held_since = looked_at
            self._hold_seconds = HOLD_SECONDS[0] if has_rivals else min(HOLD_SECONDS[1], 2 * self._hold_seconds)

    def pause(self, looked_at: float) -> float | None:
        """Return the seconds before the first turn may look again, since the time of its look belongs to others."""
        lets_others_ask = self.has_rivals or self._released - self._held_since > self._hold_seconds
        if not lets_others_ask or looked_at >= self._others_until:
            return None
        return max(0.0, self._others_until - time.monotonic())

    def is_first(self, place: Place) -> bool:
        return self._places[0] is place

    def join(self, place: Place) -> None:
        self._places.append(place)

    def leave(self, place: Place) -> None:
        was_first = self.is_first(place)
        self._places.remove(place)
        if was_first and self._places:
            self._places[0].call()


class Place(AbstractContextManager["Place"]):
    """The place of a turn in the line, from when it is entered until the turn has the lease or gives up.

    :param patience: the seconds that the turn waits.
    """

    def __init__(self, line: WaitingLine, patience: float) -> None:
        self._line = line
        self._patience = patience
        self._deadline = time.monotonic() + patience
        self._loop = asyncio.get_running_loop()
        self._called = asyncio.Event()
        self._has_met_rivals = False
        self._lost_races = 0
        self._tail_origin: str | None = None
        self._looked_at = time.monotonic()

    def __enter__(self) -> Self:
        self._line.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.leave(self)

    def call(self) -> None:
        """Let the turn look at once: it is the first, or the session is free. Any thread may call this."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._called.set)

    async def come_forward(self, head: Head | None) -> bool:
        """Wait until the turn may ask for the lease. Return whether it could at once; else ``head`` may be an old one.

        :param head: the session's, as the turn knows it.
        :raises SessionBusy: others were before it for too long.
        """
        if not self._line.is_first(self):
            await self._wait(self._remaining())
            if not self._line.is_first(self):
                raise SessionBusy(self._line.key)
            return False
        tail_origin = head.tail_origin if head else ""
        if self._tail_origin not in (None, tail_origin):  # others had the session during the pause
            self._has_met_rivals = True
        pause = self._line.pause(self._looked_at)
        if pause is None or not self._remaining():
            return True
        self._tail_origin = tail_origin
        await asyncio.sleep(min(pause, self._remaining()))
        self._looked_at = time.monotonic()
        return False

    async def wait_to_look(self) -> bool:
        """Wait before the next look, since another turn has the lease. Return whether there is time for one."""
        look = self._line.look_seconds = min(_LOOK_SECONDS, time.monotonic() - self._looked_at)
        if not self._line.held_since(self._looked_at):
            self._has_met_rivals = True
        remaining = self._remaining()
        if remaining <= 0:
            return False
        urgency = min(_URGENCY, self._lost_races + self._patience / remaining)
        await self._wait(min(remaining, (poll_pause() + look) / urgency))
        return True

    def lose_race(self) -> None:
        """Note that the session was free, but that another turn was faster."""
        self._lost_races += 1

    def succeed(self) -> None:
        """Note that the turn has the lease."""
        self._line.begin(self._looked_at, has_rivals=self._has_met_rivals)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._called.wait()
        self._called.clear()
        self._looked_at = time.monotonic()

    def _remaining(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


class WaitingLines:
    """The lines of all sessions: one for each session and event loop."""

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, OrderedDict[SessionKey, WaitingLine]]
        self._lines = WeakKeyDictionary()

    def line(self, key: SessionKey) -> WaitingLine:
        """Return the line of a session in the running event loop."""
        lines = self._lines.setdefault(asyncio.get_running_loop(), OrderedDict())
        line = lines.setdefault(key, WaitingLine(key))
        lines.move_to_end(key)
        if len(lines) > _CAPACITY:
            lines.popitem(last=False)
        return line
