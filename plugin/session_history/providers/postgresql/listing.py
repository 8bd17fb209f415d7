"""Pages of sessions, tombstones and users."""

from __future__ import annotations

from collections.abc import Sequence

from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.records import listed
from session_history.providers.postgresql.schema import PERIOD_BITS
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import ListingCursor, Page, UserPage
from session_history_hooks.stored import listed_page, listed_users

START = ListingCursor(2**63 - 1, "")


class Listing:
    """The walks of the contract.

    :param page: the most heads or users of a page.
    """

    def __init__(self, sql: Statements, page: int) -> None:
        self._sql = sql
        self._page = page

    async def sessions(self, connection: Connection, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        start = after or START
        values = (user_id, start.active_us >> PERIOD_BITS, start.active_us, start.session_id)
        return await self._walk(connection, self._sql.list, values, user_id, min(limit, self._page))

    async def tombstones(self, connection: Connection, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        """List in the order of the session ids."""
        values = (user_id, (after or START).session_id)
        return await self._walk(connection, self._sql.list_tombstones, values, user_id, min(limit, self._page))

    async def users(self, connection: Connection, limit: int, after: ListingCursor | None) -> UserPage:
        """List in the order of the user ids. A cursor holds the last one in the place of a session id."""
        limit = min(limit, self._page)
        wanted = limit + 1
        while True:
            rows = await connection.fetch(self._sql.list_users, (after or START).session_id, wanted)
            page = listed_users([row[0] for row in rows], limit, more=len(rows) == wanted)
            if page is not None:
                return page
            wanted *= 2  # so many damaged ids, at which no page can end

    async def _walk(
        self, connection: Connection, statement: str, values: Sequence[object], user_id: str, limit: int
    ) -> Page:
        wanted = limit + 1
        while True:
            rows = await connection.fetch(statement, *values, wanted)
            page = listed_page([listed(user_id, row) for row in rows], limit, more=len(rows) == wanted)
            if page is not None:
                return page
            wanted *= 2  # so many damaged rows, at which no page can end
