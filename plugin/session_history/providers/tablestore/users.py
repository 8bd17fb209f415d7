"""Walks through the users of a table, and through the tombstones of a user."""

from __future__ import annotations

from dataclasses import replace

from tablestore import INF_MAX, INF_MIN

from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore import decoding, keys
from session_history.providers.tablestore.keys import HEAD_NUMBER
from session_history.providers.tablestore.reader import PAGE
from session_history.providers.tablestore.table import Table
from session_history_hooks import ListingCursor, Page, UserPage
from session_history_hooks.stored import is_user_id, listed_page

USERS_PAGE = 100
"""The most users of a page. Each takes a request."""

_BEHIND, _AT_HEAD = 0, 1
"""Where a walk through the tombstones goes on: behind a session, or at its head."""


class Walks:
    """Walks through a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def users(self, limit: int, after: ListingCursor | None) -> UserPage:
        """List users. One small read finds the first row behind the rows of the user before."""
        found: list[str] = []
        unnamed = 0
        last = after.session_id if after else None
        while len(found) < min(limit, USERS_PAGE):
            page = await self._table.rows(
                keys.FIRST if last is None else keys.bound(last, INF_MAX, INF_MAX),
                keys.END,
                limit=1,
                columns=[col.LAYOUT_VERSION],
            )
            if not page.rows:
                return UserPage(tuple(found), unnamed=unnamed)
            last = decoding.user_of(page.rows[0])
            if is_user_id(last):
                found.append(last)
            else:
                unnamed += last != keys.STORE_USER
        return UserPage(tuple(found), ListingCursor(0, found[-1]).encode(), unnamed)

    async def tombstones(self, user_id: str, limit: int, after: ListingCursor | None) -> Page:
        """List the tombstones among the next rows of a user, with one request.

        A page that ends within a session goes on at its head, so a long session costs no more than a page.
        """
        start = keys.bound(user_id, INF_MIN, INF_MIN)
        if after:
            start = keys.bound(user_id, after.session_id, HEAD_NUMBER if after.active_us == _AT_HEAD else INF_MAX)
        end = keys.bound(user_id, INF_MAX, INF_MAX)
        page = await self._table.page(start, end, limit=PAGE, columns=col.OF_TOMBSTONE)
        rows = [listed for row in page.rows if (listed := decoding.read_tombstone(row)) is not None]
        found = listed_page(rows, limit, more=False)
        assert found is not None
        if found.cursor is not None or page.next_key is None:
            return found
        return replace(found, cursor=ListingCursor(_AT_HEAD, dict(page.next_key)[col.SESSION_ID]).encode())
