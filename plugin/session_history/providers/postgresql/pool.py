"""The connections of one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from session_history.providers.common.backoff import pauses
from session_history.providers.postgresql.address import Address
from session_history.providers.postgresql.connection import Connection, no_deadline
from session_history.providers.postgresql.errors import (
    DRIVER_ERRORS,
    lost,
    prepared_statement_missing,
    read_only,
    rolled_back,
    too_many_connections,
    translate,
)
from session_history.providers.postgresql.hosts import Hosts
from session_history.providers.postgresql.refusals import Refusals
from session_history.providers.postgresql.tls import FILE_ERRORS
from session_history_hooks import ConfigurationError, SessionHistoryError, Unavailable

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("session_history")

MAX_IDLE = 300.0
"""Seconds after which an unused connection is replaced: firewalls drop such connections without notice."""

CONNECT_ERRORS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, ValueError)
"""A PGPORT that is not a number is a ValueError of the driver."""

CLOSE_TIMEOUT = 1.0
"""Seconds for a server to acknowledge the end of a connection, or of a statement that took too long."""

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.5
"""Seconds between two tries of a call, at first and at most."""


@dataclass(slots=True, eq=False)
class Pool:
    """A limited number of connections, each lent to one call at a time.

    A call that was begun runs to its end, even if its caller is cancelled, so that no statement is left half done.
    A call that still waits for its first connection is then dropped.

    While the server accepts no more connections, the calls share those that the pool has, in turn.

    :ivar timeout: seconds for one call, with its wait for a connection; a call may extend its deadline. A call whose
        outcome is unknown gets these seconds once more, to learn it.
    """

    address: Address
    size: int
    timeout: float
    statement_cache: bool
    _idle: list[Connection] = field(init=False, default_factory=list)
    _calls: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _waiting: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _slots: asyncio.Semaphore = field(init=False)
    _hosts: Hosts = field(init=False)
    _refusals: Refusals = field(init=False, default_factory=Refusals)
    _queue: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _in_line: int = field(init=False, default=0)
    _returned: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _closed: bool = field(init=False, default=False)
    _aborted: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.size)
        self._hosts = Hosts(self.address)

    async def run(self, call: Callable[[Connection], Awaitable[T]], *, idempotent: bool) -> T:
        """Run a call with a connection.

        :param idempotent: the call is run again if its outcome was lost with the connection.
        """
        if self._closed:
            raise Unavailable(f"{self.address.display} is closed")
        task = asyncio.create_task(self._retry(call, idempotent=idempotent))
        self._calls.add(task)
        self._waiting.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task in self._waiting:
                task.cancel()
            raise

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        self._waiting.discard(task)
        if not task.cancelled():
            task.exception()  # Otherwise asyncio logs the error with a traceback, if the caller was cancelled.

    async def close(self) -> None:
        """Wait for the calls that run, then close all connections.

        If this is cancelled, each connection is closed when its call ends.
        """
        self._closed = True
        try:
            while self._calls:
                await asyncio.wait(self._calls)
            await asyncio.gather(*(_close(connection) for connection in self._idle))
        finally:
            self._abort()

    async def abort(self) -> None:
        """Close idle connections now, and each other connection when its call has ended."""
        self._abort()
        await asyncio.sleep(0)  # The sockets are closed in the next round of the event loop.

    def _abort(self) -> None:
        self._closed = self._aborted = True
        self.terminate_idle()

    def terminate_idle(self) -> None:
        """Close idle connections without telling the server."""
        while self._idle:
            self._idle.pop().driver.terminate()

    def discard(self) -> None:
        """Shut down the sockets of idle connections of an event loop that was closed."""
        while self._idle:
            self._idle.pop().driver.shut_down_socket()

    async def _retry(self, call: Callable[[Connection], Awaitable[T]], *, idempotent: bool) -> T:
        """Run a call until it succeeds, or fails for good.

        - Without a connection, it fails at once. If an earlier try lost its answer, it is tried until the deadline.
          A server that accepts no more connections is asked until the deadline, too.
        - If the answer is lost, an idempotent call gets the whole timeout once more. Another call fails.
        - If the server rolled it back, it is tried until the deadline.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        outcome_unknown = False
        refused: SessionHistoryError | None = None
        waits = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                return await self._try(call, deadline)
            except SessionHistoryError:
                raise
            except _NoConnectionError as error:
                failure = _Failure(error.reason, sent=False)
            except DRIVER_ERRORS as error:
                failure = _Failure(
                    translate(error, self.address.display), lost=lost(error), rolled_back=rolled_back(error)
                )
            if not failure.sent:
                final = not outcome_unknown or loop.time() > deadline
                if final or isinstance(failure.reason, ConfigurationError):
                    raise refused or failure.reason
                refused = failure.reason  # The last try would only report that its time was up.
            elif not outcome_unknown and idempotent and failure.lost:
                logger.warning("connection lost, retrying: %s", failure.reason)
                outcome_unknown, deadline = True, loop.time() + self.timeout
            elif not (failure.rolled_back or (idempotent and failure.lost)) or loop.time() > deadline:
                raise failure.reason
            await asyncio.sleep(next(waits))

    async def _try(self, call: Callable[[Connection], Awaitable[T]], deadline: float) -> T:
        connection: Connection | None = None
        try:
            async with asyncio.timeout_at(deadline) as limit:
                connection = await self._acquire()
                connection.extend_deadline = partial(self._extend, limit)
                result = await call(connection)
        except BaseException as error:
            if connection is not None:
                await self._release_after(connection, error)
            elif isinstance(error, CONNECT_ERRORS):
                raise _NoConnectionError(self._reason(error)) from None
            raise
        self._release(connection)
        return result

    def _extend(self, limit: asyncio.Timeout) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + self.timeout)

    def _reason(self, error: Exception) -> SessionHistoryError:
        if isinstance(error, TimeoutError) and self._refusals.error:
            return translate(self._refusals.error, self.address.display)
        if isinstance(error, TimeoutError) and self._slots.locked():
            return Unavailable(f"{self.address.display}: all {self.size} connections of this event loop are in use")
        if isinstance(error, FILE_ERRORS) and (file_error := self.address.tls.file_error()):
            return ConfigurationError(f"{self.address.display}: {file_error}")
        return translate(error, self.address.display)

    async def _acquire(self) -> Connection:
        await self._slots.acquire()
        try:
            connection = await self._idle_or_new()
        except BaseException:
            self._slots.release()
            raise
        if task := asyncio.current_task():
            self._waiting.discard(task)
        return connection

    async def _idle_or_new(self) -> Connection:
        """Return an idle connection, or a new one. While the server accepts no more, wait for either, in turn."""
        if not self._in_line and (connection := self._take_idle() or await self._connect()):
            return connection
        self._in_line += 1  # The lock of the queue is free for a moment whenever it goes to the next.
        try:
            async with self._queue:
                return await self._returned_or_new()
        finally:
            self._in_line -= 1

    async def _returned_or_new(self) -> Connection:
        while True:
            self._returned.clear()
            if connection := self._take_idle() or await self._connect():
                return connection
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._refusals.until):
                    await self._returned.wait()

    async def _connect(self) -> Connection | None:
        """Return a new connection. ``None`` means that the server accepts no more, now or a moment ago."""
        if self._refusals.recent:
            return None
        try:
            connection = await self._hosts.connect(self.timeout, statement_cache=self.statement_cache)
        except DRIVER_ERRORS as error:
            if not too_many_connections(error):
                raise
            self._refusals.add(error)
            return None
        self._refusals.clear()
        return connection

    def _take_idle(self) -> Connection | None:
        """Return the connection that was used last: it is the likeliest to be alive."""
        oldest = asyncio.get_running_loop().time() - MAX_IDLE
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and not connection.driver.is_closed():
                return connection
            connection.driver.terminate()
        return None

    def _release(self, connection: Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        connection.extend_deadline = no_deadline  # Otherwise the connection keeps the call, and the rows it has read.
        self._idle.append(connection)
        self._returned.set()
        self._slots.release()
        if self._aborted:
            self.terminate_idle()

    async def _release_after(self, connection: Connection, error: BaseException) -> None:
        if prepared_statement_missing(error) and self.statement_cache:
            logger.warning("%s does not keep prepared statements: continuing without them", self.address.display)
            self.statement_cache = False
        if connection.usable_after(error):
            self._release(connection)
            return
        if lost(error) or read_only(error):
            self.terminate_idle()  # Most of the time, all connections have the same problem.
        if read_only(error):
            self._hosts.move_last(connection.dsn)
        try:
            # Only an event loop that ends cancels a call here, and it leaves no time for a close.
            await _close(connection) if isinstance(error, Exception) else connection.driver.terminate()
        finally:
            self._slots.release()


class _Failure(NamedTuple):
    """The meaning of a driver's error. That error may show content, so it must not be the context of ours.

    :ivar sent: a statement may have been sent to the server.
    """

    reason: SessionHistoryError
    sent: bool = True
    lost: bool = False
    rolled_back: bool = False


class _NoConnectionError(Exception):
    """No connection came about, so nothing was sent to the server."""

    def __init__(self, reason: SessionHistoryError) -> None:
        super().__init__(reason)
        self.reason = reason


async def _close(connection: Connection) -> None:
    """Close a connection. A statement that still runs on it is cancelled first, and has ended afterwards."""
    with suppress(*DRIVER_ERRORS):
        await connection.driver.close(timeout=CLOSE_TIMEOUT)
    connection.driver.terminate()
