"""The connections of one event loop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from session_history.providers.postgresql.address import Address
from session_history.providers.postgresql.errors import (
    DRIVER_ERRORS,
    forgotten,
    lost,
    read_only,
    translate,
    undone,
)
from session_history.providers.postgresql.link import Hosts, Link, unlimited
from session_history.providers.postgresql.tls import FILE_ERRORS
from session_history_hooks import ConfigurationError, SessionHistoryError, Unavailable

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("session_history")

IDLE = 300.0
"""Seconds after which a connection that nobody used is replaced: firewalls drop such ones without a word."""

CONNECTING_ERRORS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, ValueError)
"""A PGPORT that is no number is a ValueError."""

FAREWELL = 1.0
"""Seconds that a server gets to acknowledge the end of a connection, or of a statement that took too long."""


@dataclass(slots=True, eq=False)
class Pool:
    """Lends connections to what is to be done, a bounded number at once.

    Work that was begun runs to its end, also when its caller is cancelled: nobody is left with a statement in the air.
    What still waits for its first connection then is dropped.

    :ivar timeout: seconds for one call, with the wait for a connection; its work may extend them. A call whose outcome
        is unknown gets them once more, to learn it.
    """

    address: Address
    size: int
    timeout: float
    caching: bool
    _idle: list[Link] = field(init=False, default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _waiting: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _places: asyncio.Semaphore = field(init=False)
    _hosts: Hosts = field(init=False)
    _farewell: AsyncGenerator[None, None] | None = field(init=False, default=None)
    _closed: bool = field(init=False, default=False)
    _abandoned: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.size)
        self._hosts = Hosts(self.address)

    async def run(self, work: Callable[[Link], Awaitable[T]], *, again: bool) -> T:
        """Do ``work`` with a connection.

        :param again: it may be done twice: it is, if its outcome got lost with the connection.
        """
        if self._closed:
            raise Unavailable(f"{self.address.shown} is closed")
        task = asyncio.create_task(self._insist(work, again=again))
        self._tasks.add(task)
        self._waiting.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task in self._waiting:
                task.cancel()
            raise

    async def first(self, work: Callable[[Link], Awaitable[T]], *, again: bool) -> T:
        """As :meth:`run`, and a pool in which it fails is closed."""
        try:
            return await self.run(work, again=again)
        except asyncio.CancelledError:
            self.abandon()
            raise
        except BaseException:
            await self.close()
            raise

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._waiting.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio would log it, with a traceback, if nobody were left to see it

    async def close(self) -> None:
        """Finish what waits, then close all connections. Who is cancelled in that waits no longer; the rest is done."""
        self._closed = True
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
            await asyncio.gather(*(_close(link) for link in self._idle))
        finally:
            self.abandon()
        if self._farewell is not None:
            await self._farewell.aclose()

    def abandon(self) -> None:
        """Close now what is idle, and each other connection when what was begun with it has ended."""
        self._closed = self._abandoned = True
        self.abort()

    def abort(self) -> None:
        """Drop what is idle, without a word to the server."""
        while self._idle:
            self._idle.pop().connection.terminate()

    def hang_up(self) -> None:
        """Drop what is idle of an event loop that was closed."""
        while self._idle:
            self._idle.pop().hang_up()

    async def _insist(self, work: Callable[[Link], Awaitable[T]], *, again: bool) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        unknown = False
        refused: SessionHistoryError | None = None
        pause = 0.005
        while True:
            try:
                return await self._attempt(work, deadline)
            except SessionHistoryError:
                raise
            except _NoConnectionError as error:
                failure = _Failure(error.reason, asked=False)
            except DRIVER_ERRORS as error:
                failure = _Failure(translate(error, self.address.shown), lost=lost(error), undone=undone(error))
            if not failure.asked:
                if not unknown or loop.time() > deadline or isinstance(failure.reason, ConfigurationError):
                    raise refused or failure.reason
                refused = failure.reason  # the last try only says that the time was up
            elif not unknown and again and failure.lost:
                logger.warning("a call was lost, and is done again: %s", failure.reason)
                unknown, deadline = True, loop.time() + self.timeout
            elif not (failure.undone or (again and failure.lost)) or loop.time() > deadline:
                raise failure.reason
            await asyncio.sleep(random.uniform(0.2, 1) * pause)
            pause = min(2 * pause, 0.5)

    async def _attempt(self, work: Callable[[Link], Awaitable[T]], deadline: float) -> T:
        link: Link | None = None
        try:
            async with asyncio.timeout_at(deadline) as limit:
                link = await self._take()
                link.extend = partial(self._extend, limit)
                outcome = await work(link)
        except BaseException as error:
            if link is not None:
                await self._give_back_after(link, error)
            elif isinstance(error, CONNECTING_ERRORS):
                raise _NoConnectionError(self._reason(error)) from None
            raise
        self._give_back(link)
        return outcome

    def _extend(self, limit: asyncio.Timeout) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + self.timeout)

    def _reason(self, error: Exception) -> SessionHistoryError:
        if isinstance(error, TimeoutError) and self._places.locked():
            return Unavailable(f"{self.address.shown}: all {self.size} connections of this event loop are in use")
        if isinstance(error, FILE_ERRORS) and (flaw := self.address.tls.flaw()):
            return ConfigurationError(f"{self.address.shown}: {flaw}")
        return translate(error, self.address.shown)

    async def _take(self) -> Link:
        await self._places.acquire()
        try:
            link = self._rested() or await self._connect()
        except BaseException:
            self._places.release()
            raise
        if task := asyncio.current_task():
            self._waiting.discard(task)
        return link

    def _rested(self) -> Link | None:
        """The connection that was used last: it is the likeliest to be alive."""
        oldest = asyncio.get_running_loop().time() - IDLE
        while self._idle:
            link = self._idle.pop()
            if link.left >= oldest and not link.connection.is_closed():
                return link
            link.connection.terminate()
        return None

    async def _connect(self) -> Link:
        if self._farewell is None:
            self._farewell = self._until_the_loop_ends()
            await anext(self._farewell)
        return await self._hosts.connect(self.timeout, caching=self.caching)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """An event loop that ends closes its generators: the one moment to close connections that nobody stopped."""
        try:
            yield
        finally:
            self.abort()
            await asyncio.sleep(0)  # in which the sockets are closed

    def _give_back(self, link: Link) -> None:
        link.left = asyncio.get_running_loop().time()
        link.extend = unlimited  # else it would keep the call, and what that has read
        self._idle.append(link)
        self._places.release()
        if self._abandoned:
            self.abort()

    async def _give_back_after(self, link: Link, error: BaseException) -> None:
        if forgotten(error) and self.caching:
            logger.warning("%s does not keep prepared statements: going on without", self.address.shown)
            self.caching = False
        if link.usable_after(error):
            self._give_back(link)
            return
        if lost(error) or read_only(error):
            self.abort()  # what happened to one has happened to all, most of the time
        if read_only(error):
            self._hosts.turn_away(link.dsn)
        try:
            # Whoever is cancelled here is so by an event loop that ends.
            await _close(link) if isinstance(error, Exception) else link.connection.terminate()
        finally:
            self._places.release()


class _Failure(NamedTuple):
    """What an error of the driver means. The error itself may show content, so what we raise has it not as its context.

    :ivar asked: something was asked of the server.
    """

    reason: SessionHistoryError
    asked: bool = True
    lost: bool = False
    undone: bool = False


class _NoConnectionError(Exception):
    """Nothing was asked of the server yet."""

    def __init__(self, reason: SessionHistoryError) -> None:
        super().__init__(reason)
        self.reason = reason


async def _close(link: Link) -> None:
    """Close a connection; a statement that still runs on it is cancelled first, and has ended afterwards."""
    with suppress(*DRIVER_ERRORS):
        await link.connection.close(timeout=FAREWELL)
    link.connection.terminate()
