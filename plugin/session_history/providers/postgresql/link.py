"""A connection: how one comes about, and what is asked over it."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import weakref
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from session_history.providers.postgresql.address import Address
from session_history.providers.postgresql.errors import NEXT_HOST, lost, spoilt
from session_history_hooks import SessionHistoryError

Row = Any
"""A ``Record`` of asyncpg."""

ABANDONED = 30_000
"""Milliseconds without a statement after which the server ends a transaction: a client that is gone without a word
would keep its locks for the hours that TCP takes to notice.
"""


class Link:
    """A connection, and the statements that the server has prepared for it.

    :ivar dsn: of the host that it leads to.
    :ivar extend: gives what comes next the whole time of a call.
    """

    def __init__(self, connection: Any, *, caching: bool, dsn: str = "") -> None:
        self.connection = connection
        self.dsn = dsn
        self.left: float = 0.0
        self.extend: Callable[[], None] = unlimited
        self._prepared: dict[str, Any] | None = {} if caching else None
        self._cut_short = False
        connection.add_log_listener(self._hear)
        _LINKS.add(self)

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """:raises asyncpg.StatementCompletionUnknownError: it may be lost with the primary."""
        rows = await self._fetch(statement, *values)
        self._insist_replicated()
        return rows

    async def _fetch(self, statement: str, *values: object) -> list[Row]:
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
        # Each statement sees what was committed before it, also where the server's default is another. SET LOCAL ends
        # with the transaction, so that a pooler may hand on the session.
        await self.connection.execute(
            f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout TO {ABANDONED}"
        )
        yield
        self.extend()
        await self.connection.execute("COMMIT")
        self._insist_replicated()

    def _hear(self, _: object, message: Any) -> None:
        # Its text is in the language of the server, and its SQLSTATE that of any warning.
        if message.server_source_function == "SyncRepWaitForLSN":
            self._cut_short = True

    def _insist_replicated(self) -> None:
        """A server whose wait for a standby is cancelled, by an administrator or a time limit of its own, warns, and
        reports success.
        """
        if self._cut_short:
            raise asyncpg.StatementCompletionUnknownError("the wait for a standby was cut short")

    def hang_up(self) -> None:
        """End the connection of an event loop that was closed, without it: nothing can be done there any more. The
        event loops of others close their sockets themselves.
        """
        socket_ = self.connection._transport.get_extra_info("socket")
        if isinstance(socket_, TransportSocket):
            with suppress(OSError):
                socket_.shutdown(socket.SHUT_RDWR)

    def usable_after(self, error: BaseException) -> bool:
        """Whether the connection stands as it did before what failed."""
        if self.connection.is_closed() or self.connection.is_in_transaction():
            return False
        return isinstance(error, SessionHistoryError) or not (lost(error) or spoilt(error))


def unlimited() -> None:
    """Nothing limits what comes next."""


_LINKS: weakref.WeakSet[Link] = weakref.WeakSet()


def _disown() -> None:
    """In a child, what is collected must not be ended by the driver: this would take it out of the epoll instance that
    the child shares with its parent, which would never hear of its connections again.
    """
    for link in _LINKS:
        link.connection._aborted = True


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_disown)


def _name(statement: str) -> str:
    """Says what the statement is: behind a pooler, one of this name may be another client's, and must be the same."""
    return f"session_history_{hashlib.sha256(statement.encode()).hexdigest()[:32]}"


class Hosts:
    """The hosts of an address. The one that took the last connection is asked first for the next."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._dsns = address.dsns
        self._tls: ssl.SSLContext | None = None

    async def connect(self, timeout: float, *, caching: bool) -> Link:  # noqa: ASYNC109
        """:param timeout: seconds for all hosts; one that does not answer must leave some for the others."""
        share = timeout / len(self._dsns)
        self._tls = self._tls or self._address.tls.context()
        link = await self._first_of(self._dsns, min(share, self._address.connect_timeout or share), caching)
        self._dsns = (link.dsn, *(each for each in self._dsns if each != link.dsn))
        return link

    def turn_away(self, dsn: str) -> None:
        """Ask this host after all others."""
        self._dsns = (*(each for each in self._dsns if each != dsn), dsn)

    async def _first_of(self, dsns: Sequence[str], limit: float, caching: bool) -> Link:  # noqa: FBT001
        first, *others = dsns
        try:
            connection = await asyncpg.connect(first, timeout=limit, ssl=self._tls, statement_cache_size=0)
            return Link(connection, caching=caching, dsn=first)
        except NEXT_HOST:
            if not others:
                raise
        return await self._first_of(others, limit, caching)
