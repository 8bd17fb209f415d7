"""Connections that belong to an event loop: each loop that uses a provider has its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from session_history.providers.common.forks import ForkGuard, keep_after_fork
from session_history_hooks import Unavailable


class LoopResource(Protocol):
    """A resource of one event loop, such as a pool of connections. Each method must be safe to call twice."""

    async def close(self) -> None:
        """Finish what runs, then close. Runs in the event loop of the resource."""

    async def abort(self) -> None:
        """Close while the event loop ends, which nobody asked for. Runs in that event loop."""

    def discard(self) -> None:
        """Release what can be released without the event loop, which was closed. Runs in any thread."""


R = TypeVar("R", bound=LoopResource)


class LoopLocal(Generic[R]):
    """One resource for each event loop that asks for it.

    A resource is closed by :meth:`close`. If its event loop ends first, as at the end of ``asyncio.run``, it is
    aborted then.

    :param name: the store's name in errors, without a password.
    :param make: makes a resource for the running event loop, without I/O.
    :param close_timeout: seconds for which :meth:`close` waits for event loops of other threads.
    :ivar guard: says whether a parent of this process made the resources.
    """

    def __init__(self, name: str, make: Callable[[], R], *, close_timeout: float) -> None:
        self.guard: ForkGuard = ForkGuard(name)
        self._name = name
        self._make = make
        self._close_timeout = close_timeout
        self._lock = threading.Lock()
        self._closed = False
        self._held: dict[asyncio.AbstractEventLoop, _Held[R]] = {}
        keep_after_fork(self)

    async def get(self) -> R:
        """Return the resource of the running event loop, and make it at the first call. Never waits.

        :raises Unavailable: it was closed, or opened before this process was forked.
        """
        self.guard.require_own_process()
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        if held is None:
            held = await self._hold(loop)
        return held.resource

    async def close(self) -> None:
        """Close the resource of each event loop in that loop.

        An event loop that does not run closes its resource when it runs again. In a forked process nothing happens:
        the resources are those of the parent.
        """
        if self.guard.inherited:
            return
        with self._lock:
            self._closed = True
            all_held, self._held = self._held, {}
        try:
            await asyncio.gather(*(self._close(loop, held) for loop, held in all_held.items()))
        finally:
            for loop, held in all_held.items():
                if not held.ended:
                    _abort_later(loop, held)

    async def _hold(self, loop: asyncio.AbstractEventLoop) -> _Held[R]:
        self._discard_closed_loops()
        held = _Held(self._make(), lambda: self._held.pop(loop, None))
        await held.begin()
        with self._lock:
            closed = self._closed
            if not closed:
                self._held[loop] = held
        if closed:
            await held.abort()
            raise Unavailable(f"{self._name} is not open: the service was stopped")
        return held

    def _discard_closed_loops(self) -> None:
        """Release the resources of loops that ended by ``loop.close()`` without closing their generators."""
        for loop in list(self._held):
            if loop.is_closed() and (held := self._held.pop(loop, None)):
                held.resource.discard()

    async def _close(self, loop: asyncio.AbstractEventLoop, held: _Held[R]) -> None:
        if loop is asyncio.get_running_loop():
            await held.close()
        elif loop.is_running():
            await self._close_in_other_thread(loop, held)

    async def _close_in_other_thread(self, loop: asyncio.AbstractEventLoop, held: _Held[R]) -> None:
        closing = held.close()
        try:
            closed = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(closing, loop))
        except RuntimeError:  # The loop was closed just now.
            closing.close()
            return
        # A loop that ends meanwhile may cancel the closing, or never get to it. Neither is an error of the caller.
        closed.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([closed], timeout=self._close_timeout)


class _Held(Generic[R]):
    """A resource, and the generator that aborts it at the end of its event loop.

    An event loop has no other sign of its end: ``asyncio.run`` closes asynchronous generators before the loop.
    """

    def __init__(self, resource: R, forget: Callable[[], object]) -> None:
        self.resource = resource
        self.ended = False
        self._forget = forget
        self._generator = self._until_loop_ends()

    async def begin(self) -> None:
        await anext(self._generator)

    async def close(self) -> None:
        try:
            await self.resource.close()
        finally:
            await self.abort()

    async def abort(self) -> None:
        with suppress(RuntimeError):  # The end of the loop, or a close, is just closing the generator.
            await self._generator.aclose()

    async def _until_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.ended = True
            self._forget()
            await self.resource.abort()


def _abort_later(loop: asyncio.AbstractEventLoop, held: _Held[R]) -> None:
    """Close what a close left open, because it was cancelled or took too long, or because the loop does not run."""
    try:
        loop.call_soon_threadsafe(lambda: loop.create_task(held.abort()))
    except RuntimeError:  # The loop was closed.
        held.resource.discard()
