"""A connection to the server, and the statements that are sent over it."""

from __future__ import annotations

import hashlib
import socket
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from session_history.providers.postgresql.errors import lost, reconnect_helps
from session_history_hooks import SessionHistoryError

Row = Any
"""A ``Record`` of asyncpg."""

IDLE_TRANSACTION_MS = 30_000
"""Milliseconds without a statement after which the server ends a transaction. The locks of a client that vanished would
otherwise last for the hours that TCP takes to notice.
"""


class _DriverConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types.
    """A connection of asyncpg that can be ended after its event loop was closed."""

    def shut_down_socket(self) -> None:
        """End the connection without its event loop, in which nothing runs any more.

        Event loops other than asyncio's close their sockets themselves.
        """
        socket_ = self._transport.get_extra_info("socket")
        if isinstance(socket_, TransportSocket):
            with suppress(OSError):
                socket_.shutdown(socket.SHUT_RDWR)


CONNECTION_CLASS: type[Any] = _DriverConnection
"""The class of the connections that asyncpg is to make."""


class Connection:
    """A connection, and the statements that the server has prepared for it.

    :ivar driver: asyncpg's connection.
    :ivar dsn: the URL of the host that it leads to.
    :ivar idle_since: the end of its last use, on the clock of its event loop.
    :ivar extend_deadline: gives the next statement of the call the whole timeout again.
    """

    def __init__(self, driver: Any, *, statement_cache: bool, dsn: str = "") -> None:
        self.driver = driver
        self.dsn = dsn
        self.idle_since: float = 0.0
        self.extend_deadline: Callable[[], None] = no_deadline
        self._prepared: dict[str, Any] | None = {} if statement_cache else None
        self._replication_unconfirmed = False
        driver.add_log_listener(self._on_warning)

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Run a statement, and return its rows.

        :raises asyncpg.StatementCompletionUnknownError: it may be lost with the primary.
        """
        rows = await self._fetch(statement, *values)
        self._require_replicated()
        return rows

    async def _fetch(self, statement: str, *values: object) -> list[Row]:
        if self._prepared is None:
            return await self.driver.fetch(statement, *values)  # type: ignore[no-any-return]
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = await self.driver.prepare(statement, name=statement_name(statement))
            self._prepared[statement] = prepared
        return await prepared.fetch(*values)  # type: ignore[no-any-return]

    async def run_for_each(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each row of values, without a round trip for each. Call this in a transaction."""
        await self.driver.executemany(statement, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Run a transaction without a rollback: an error inside ends the connection, and so the transaction.

        A server that no longer answers would not answer a rollback either.
        """
        # READ COMMITTED, so that each statement sees the commits before it: the server may have another default.
        # SET LOCAL ends with the transaction, so that a pooler can give the session to another client.
        await self.driver.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED; "
            f"SET LOCAL idle_in_transaction_session_timeout TO {IDLE_TRANSACTION_MS}"
        )
        yield
        self.extend_deadline()
        await self.driver.execute("COMMIT")
        self._require_replicated()

    def usable_after(self, error: BaseException) -> bool:
        """Return whether the connection is in the same state as before the failed call."""
        if self.driver.is_closed() or self.driver.is_in_transaction():
            return False
        return isinstance(error, SessionHistoryError) or not (lost(error) or reconnect_helps(error))

    def _on_warning(self, _: object, message: Any) -> None:
        # The function of the server identifies this warning. Its text is in the language of the server, and its
        # SQLSTATE is that of any warning.
        if message.server_source_function == "SyncRepWaitForLSN":
            self._replication_unconfirmed = True

    def _require_replicated(self) -> None:
        """Raise an error if the server stopped its wait for a standby.

        A server whose wait is cancelled, by an administrator or by a time limit of its own, reports success with a
        warning.
        """
        if self._replication_unconfirmed:
            raise asyncpg.StatementCompletionUnknownError("the wait for a standby was cut short")


def no_deadline() -> None:
    """Extend nothing: no call uses the connection."""


def statement_name(statement: str) -> str:
    """Return a name that identifies the text of a statement.

    Behind a pooler, a prepared statement with this name may belong to another client. It is then the same statement.
    """
    return f"session_history_{hashlib.sha256(statement.encode()).hexdigest()[:32]}"
