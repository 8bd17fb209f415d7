"""Connections belong to an event loop: each loop that uses a provider has its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import suppress

from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.servers import Servers

Holder = AsyncGenerator[Servers, None]

_PROCESS = [os.getpid()]
"""The one that this is. Where a sandbox watches what a process asks of the system, to ask at each call is dear."""

if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=lambda: _PROCESS.__setitem__(0, os.getpid()))

_INHERITED: list[Loops] = []
"""Those of the process that this one is a fork of. They are never collected: closing a connection here would take it
out of the epoll instance that both processes share.
"""


class Loops:
    """The :class:`Servers` of each event loop."""

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._process = _PROCESS[0]
        self._open: dict[asyncio.AbstractEventLoop, tuple[Servers, Holder]] = {}

    @property
    def inherited(self) -> bool:
        """Whether they are those of the process that this one is a fork of."""
        return self._process != _PROCESS[0]

    async def servers(self) -> Servers:
        """Those of the running loop."""
        loop = asyncio.get_running_loop()
        known = self._open.get(loop)
        if known:
            return known[0]
        self._forget_who_ended()
        holder = self._held(loop)
        servers = await anext(holder)  # there is no other task's turn before the generator yields
        self._open[loop] = servers, holder
        return servers

    def _forget_who_ended(self) -> None:
        """A loop that ended by ``loop.close()`` alone leaves connections that only the garbage collector can close."""
        for loop in list(self._open):
            if loop.is_closed():
                self._open.pop(loop, None)

    async def close(self) -> None:
        """Close the connections of all loops, those of another thread's by its loop, as long as that one runs."""
        if self.inherited:
            _INHERITED.append(self)
            return
        for loop, (_, holder) in list(self._open.items()):
            if loop is asyncio.get_running_loop():
                await holder.aclose()
            elif loop.is_running():
                with suppress(RuntimeError):  # it has ended just now
                    await self._close_in(loop, holder)
        self._open.clear()

    async def _close_in(self, loop: asyncio.AbstractEventLoop, holder: Holder) -> None:
        """A loop that ends meanwhile cancels it, or comes first, or never gets to it: that is no failure of ours."""
        closing = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(holder.aclose(), loop))
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([closing], timeout=self._options.timeout + 1)

    async def _held(self, loop: asyncio.AbstractEventLoop) -> Holder:
        """A generator, since those are what ``asyncio.run`` closes before it closes the loop."""
        servers = Servers(self._options)
        try:
            yield servers
        finally:
            self._open.pop(loop, None)
            await servers.close()
