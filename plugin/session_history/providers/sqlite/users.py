"""The users of a file, and their tombstones."""

from __future__ import annotations

import sqlite3

from session_history.providers.sqlite import heads
from session_history_hooks import ListingCursor, Page, UserPage
from session_history_hooks.stored import listed_users

_NEXT_USER = "SELECT min(user_id) FROM head WHERE user_id > "

_USERS = f"""WITH RECURSIVE users (user_id) AS (
        {_NEXT_USER} ?
        UNION ALL SELECT ({_NEXT_USER} users.user_id) FROM users WHERE user_id IS NOT NULL
    ) SELECT user_id FROM users WHERE user_id IS NOT NULL LIMIT ?"""
"""Jumps from one user to the next, over all sessions of the first."""


def list_users(connection: sqlite3.Connection, limit: int, cursor: str | None) -> UserPage:
    wanted = limit + 1
    while True:
        rows = heads.fetch(connection, _USERS, (_decode(cursor), wanted))
        page = listed_users([user_id for (user_id,) in rows], limit, more=len(rows) == wanted)
        if page is not None:
            return page
        wanted *= 2  # so many damaged ids, at which no page can end


def list_tombstones(connection: sqlite3.Connection, user_id: str, limit: int, cursor: str | None) -> Page:
    condition = "user_id = ? AND deleted = 1 AND session_id > ? ORDER BY session_id"
    return heads.page(connection, condition, (user_id, _decode(cursor)), limit, heads.listed_by_id)


def _decode(cursor: str | None) -> str:
    return "" if cursor is None else ListingCursor.decode(cursor).session_id
