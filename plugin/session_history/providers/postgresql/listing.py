"""Pages of sessions, tombstones and users."""

from __future__ import annotations

from session_history.providers.postgresql.connection import Connection
from session_history.providers.postgresql.records import head_of
from session_history.providers.postgresql.schema import PERIOD_BITS
from session_history.providers.postgresql.statements import Statements
from session_history_hooks import ListingCursor, Page, SessionKey, UserPage

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
        limit = min(limit, self._page)
        rows = await connection.fetch(
            self._sql.list, user_id, start.active_us >> PERIOD_BITS, start.active_us, start.session_id, limit + 1
        )
        heads = tuple(head_of(SessionKey(user_id, row[0]), row[1:]) for row in rows[:limit])
        return Page(heads, ListingCursor.behind(heads[-1]).encode() if len(rows) > limit else None)

    async def tombstones(self, connection: Connection, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        """List in the order of the session ids."""
        limit = min(limit, self._page)
        start = (after or START).session_id
        rows = await connection.fetch(self._sql.list_tombstones, user_id, start, limit + 1)
        heads = tuple(head_of(SessionKey(user_id, row[0]), row[1:]) for row in rows[:limit])
        return Page(heads, ListingCursor.behind(heads[-1]).encode() if len(rows) > limit else None)

    async def users(self, connection: Connection, limit: int, after: ListingCursor | None) -> UserPage:
        """List in the order of the user ids. A cursor holds the last one in the place of a session id."""
        limit = min(limit, self._page)
        rows = await connection.fetch(self._sql.list_users, (after or START).session_id, limit + 1)
        users = tuple(row[0] for row in rows[:limit])
        return UserPage(users, ListingCursor(0, users[-1]).encode() if len(rows) > limit else None)
