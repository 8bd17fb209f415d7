"""The hosts of an address, and the connections to them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import asyncpg

from session_history.providers.postgresql.address import Address
from session_history.providers.postgresql.connection import CONNECTION_CLASS, Connection
from session_history.providers.postgresql.errors import NEXT_HOST


class Hosts:
    """The hosts in the order in which they are asked for a connection: first the one that accepted the last."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._dsns = address.dsns
        self._tls: ssl.SSLContext | None = None

    async def connect(self, timeout: float, *, statement_cache: bool) -> Connection:  # noqa: ASYNC109
        """Connect to a host.

        :param timeout: seconds for all hosts together. Each host gets its share, so that a host that does not answer
            leaves time for the others.
        """
        share = timeout / len(self._dsns)
        self._tls = self._tls or self._address.tls.context()
        limit = min(share, self._address.connect_timeout or share)
        connection = await self._connect_to_first_of(self._dsns, limit, statement_cache)
        self._dsns = (connection.dsn, *(each for each in self._dsns if each != connection.dsn))
        return connection

    def move_last(self, dsn: str) -> None:
        """Ask this host after all others."""
        self._dsns = (*(each for each in self._dsns if each != dsn), dsn)

    async def _connect_to_first_of(
        self,
        dsns: Sequence[str],
        limit: float,
        statement_cache: bool,  # noqa: FBT001
    ) -> Connection:
        first, *others = dsns
        try:
            driver = await asyncpg.connect(
                first, timeout=limit, ssl=self._tls, statement_cache_size=0, connection_class=CONNECTION_CLASS
            )
            return Connection(driver, statement_cache=statement_cache, dsn=first)
        except NEXT_HOST:
            if not others:
                raise
        return await self._connect_to_first_of(others, limit, statement_cache)
