"""The connections of one event loop."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from session_history.providers.postgresql.address import Address
from session_history.providers.postgresql.errors import DRIVER_ERRORS, forgotten, lost, spoilt, translate, undone
from session_history_hooks import ConfigurationError, SessionHistoryError, Unavailable

T = TypeVar("T")

Row = Any
"""A ``Record`` of asyncpg."""

logger: logging.Logger = logging.getLogger("session_history")

IDLE = 300.0
"""Seconds after which a connection that nobody used is replaced: firewalls drop such ones without a word."""

CONNECTING_ERRORS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, ValueError)
"""A port that is no number is a ValueError."""

FAREWELL = 1.0
"""Seconds that a server gets to acknowledge the end of a connection, or of a statement that took too long."""


class Link:
    """A connection, and the statements that the server has prepared for it."""

    def __init__(self, connection: Any, *, caching: bool) -> None:
        self.connection = connection
        self.left: float = 0.0
        self._prepared: dict[str, Any] | None = {} if caching else None

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        if self._prepared is None:
            return await self.connection.fetch(statement, *values)  # type: ignore[no-any-return]
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = await self.connection.prepare(statement, name=_name(statement))
            self._prepared[statement] = prepared
        return await prepared.fetch(*values)  # type: ignore[no-any-return]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Without a rollback: a server that does not answer would not answer that either. What fails in here takes
        the connection with it.
        """
        await self.connection.execute("BEGIN")
        yield
        await self.connection.execute("COMMIT")

    def usable_after(self, error: BaseException) -> bool:
        """Whether the connection stands as it did before what failed."""
        if self.connection.is_closed() or self.connection.is_in_transaction():
            return False
        return isinstance(error, SessionHistoryError) or not (lost(error) or spoilt(error))


def _name(statement: str) -> str:
    """Says what the statement is: behind a pooler, one of this name may be another client's, and must be the same."""
    return f"session_history_{hashlib.sha256(statement.encode()).hexdigest()[:32]}"


@dataclass(slots=True, eq=False)
class Pool:
    """Lends connections to what is to be done, a bounded number at once.

    Work that was begun runs to its end, also when its caller is cancelled: nobody is left with a statement in the air.

    :ivar timeout: seconds for one call, with the wait for a connection. A call whose outcome is unknown gets them once
        more, to learn it.
    """

    address: Address
    size: int
    timeout: float
    caching: bool
    _idle: list[Link] = field(init=False, default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(init=False, default_factory=set)
    _places: asyncio.Semaphore = field(init=False)
    _farewell: AsyncGenerator[None, None] | None = field(init=False, default=None)
    _closed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.size)

    async def run(self, work: Callable[[Link], Awaitable[T]], *, again: bool) -> T:
        """Do ``work`` with a connection.

        :param again: it may be done twice: it is, if its outcome got lost with the connection.
        """
        if self._closed:
            raise Unavailable(f"{self.address.shown} is closed")
        task = asyncio.create_task(self._insist(work, again=again))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asked may be gone
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what waits, then close all connections."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_close(link) for link in idle))
        if self._farewell is not None:
            await self._farewell.aclose()

    def abort(self) -> None:
        """Drop what is idle, without a word to the server."""
        while self._idle:
            self._idle.pop().connection.terminate()

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
                if not unknown or loop.time() > deadline or isinstance(error.reason, ConfigurationError):
                    raise refused or error.reason from None
                refused = error.reason  # the last try only says that the time was up
            except DRIVER_ERRORS as error:
                if not unknown and again and lost(error):
                    kind = type(error).__name__
                    logger.warning("%s was lost in a call, which is done again (%s)", self.address.shown, kind)
                    unknown, deadline = True, loop.time() + self.timeout
                elif not (undone(error) or (again and lost(error))) or loop.time() > deadline:
                    raise translate(error, self.address.shown) from None
            await asyncio.sleep(random.uniform(0.2, 1) * pause)
            pause = min(2 * pause, 0.5)

    async def _attempt(self, work: Callable[[Link], Awaitable[T]], deadline: float) -> T:
        link: Link | None = None
        try:
            async with asyncio.timeout_at(deadline):
                link = await self._take()
                outcome = await work(link)
        except BaseException as error:
            if link is not None:
                await self._give_back_after(link, error)
            elif isinstance(error, CONNECTING_ERRORS):
                raise _NoConnectionError(self._reason(error)) from None
            raise
        self._give_back(link)
        return outcome

    def _reason(self, error: Exception) -> SessionHistoryError:
        if isinstance(error, TimeoutError) and self._places.locked():
            return Unavailable(f"{self.address.shown}: all {self.size} connections of this event loop are in use")
        return translate(error, self.address.shown)

    async def _take(self) -> Link:
        await self._places.acquire()
        try:
            return self._rested() or await self._connect()
        except BaseException:
            self._places.release()
            raise

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
        connection = await asyncpg.connect(
            self.address.dsn, timeout=self.address.connect_timeout, statement_cache_size=0
        )
        return Link(connection, caching=self.caching)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """An event loop that ends closes its generators: the one moment to close connections that nobody stopped."""
        try:
            yield
        finally:
            self.abort()
            await asyncio.sleep(0)  # in which the sockets are closed

    def _give_back(self, link: Link) -> None:
        link.left = asyncio.get_running_loop().time()
        self._idle.append(link)
        self._places.release()

    async def _give_back_after(self, link: Link, error: BaseException) -> None:
        if forgotten(error) and self.caching:
            logger.warning("%s does not keep prepared statements: going on without", self.address.shown)
            self.caching = False
        if link.usable_after(error):
            self._give_back(link)
            return
        if lost(error):
            self.abort()  # what happened to one has happened to all, most of the time
        try:
            # Whoever is cancelled here is so by an event loop that ends.
            await _close(link) if isinstance(error, Exception) else link.connection.terminate()
        finally:
            self._places.release()


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
