"""A thread with an event loop that makes all requests, for callers on any event loop.

The client of the SDK is bound to the event loop of its first request, and its codec blocks the loop while it encodes a
large payload. Neither may concern the caller.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from session_history.providers.common.forks import ForkGuard
from session_history_hooks import Unavailable

T = TypeVar("T")

THREAD_NAME = "session-history Tablestore"


class LoopThread:
    """Runs coroutines for callers on other event loops.

    :param guard: refuses work in a forked process, which has no such thread.
    """

    def __init__(self, guard: ForkGuard) -> None:
        self._guard = guard
        self._lock = threading.Lock()
        self._open = True
        self._running: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine. It is cancelled together with the caller."""
        return await asyncio.wrap_future(self.submit(work))

    async def finish(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine to its end, even if the caller is cancelled. A write must not stop half-way."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(work)))

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        self._guard.require_own_process()
        with self._lock:
            if not self._open:
                raise Unavailable("Tablestore was stopped")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
            self._running.add(future)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[Any]) -> None:
        self._running.discard(future)
        if not future.cancelled():
            future.exception()  # marks the error as retrieved: the caller may be gone

    def close(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Finish the running coroutines, run the last one, and end the thread.

        This blocks until the thread has ended, except on this very thread. The garbage collector may drop a provider
        there, and a thread cannot wait for itself.
        """
        if self._guard.inherited:
            return
        with self._lock:
            if not self._open:
                return
            self._open = False
        self._running.add(asyncio.run_coroutine_threadsafe(self._end(last), self._loop))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _end(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        try:
            await asyncio.gather(*others, return_exceptions=True)
            await last()
        finally:
            self._loop.stop()
