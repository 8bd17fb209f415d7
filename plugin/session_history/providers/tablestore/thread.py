"""A thread with an event loop, on which all requests are made, whichever loop asks for them.

The SDK's client is bound to the loop of its first request, and its codec computes for as long as a payload is large:
neither may be the caller's concern.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from session_history_hooks import Unavailable

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for callers on other event loops."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._door = threading.Lock()
        self._open = True
        self._running: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="session-history Tablestore", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A caller that is cancelled takes its work along."""
        return await asyncio.wrap_future(self.submit(work))

    async def finish(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Work that runs to its end, though its caller be cancelled: half a write is mended by whoever began it."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(work)))

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        if os.getpid() != self._pid:
            raise Unavailable("Tablestore was open when this process was forked; open it after the fork, or spawn")
        with self._door:
            if not self._open:
                raise Unavailable("Tablestore was stopped")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
            self._running.add(future)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[Any]) -> None:
        self._running.discard(future)
        if not future.cancelled():
            future.exception()  # whoever asked may be gone

    def close(self, farewell: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Finish what runs, then do the last thing; block until that is done, unless on this very thread.

        The collector drops a provider on any thread, and so on this one, which can not wait for itself.
        """
        if os.getpid() != self._pid:
            return
        with self._door:
            if not self._open:
                return
            self._open = False
        self._running.add(asyncio.run_coroutine_threadsafe(self._last(farewell), self._loop))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _last(self, farewell: Callable[[], Coroutine[Any, Any, object]]) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        try:
            await asyncio.gather(*others, return_exceptions=True)
            await farewell()
        finally:
            self._loop.stop()
