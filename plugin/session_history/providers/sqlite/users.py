"""The users of a file, and their tombstones."""

from __future__ import annotations

import sqlite3

from session_history.providers.sqlite import heads
from session_history_hooks import ListingCursor, Page, UserPage

_NEXT_USER = "SELECT min(user_id) FROM head WHERE user_id > "

_USERS = f"""WITH RECURSIVE users (user_id) AS (
        {_NEXT_USER} ?
        UNION ALL SELECT ({_NEXT_USER} users.user_id) FROM users WHERE user_id IS NOT NULL
    ) SELECT user_id FROM users WHERE user_id IS NOT NULL LIMIT ?"""
"""Jumps from one user to the next, over all sessions of the first."""


def list_users(connection: sqlite3.Connection, limit: int, cursor: str | None) -> UserPage:
    rows = connection.execute(_USERS, (_decode(cursor), limit + 1)).fetchall()
    users = tuple(user_id for (user_id,) in rows[:limit])
    return UserPage(users, _encode(users[-1]) if len(rows) > limit else None)


def list_tombstones(connection: sqlite3.Connection, user_id: str, limit: int, cursor: str | None) -> Page:
    rows = connection.execute(
        f"{heads.SELECT} WHERE user_id = ? AND deleted = 1 AND session_id > ? ORDER BY session_id LIMIT ?",
        (user_id, _decode(cursor), limit + 1),
    ).fetchall()
    tombstones = tuple(heads.decode(row) for row in rows[:limit])
    return Page(tombstones, _encode(tombstones[-1].key.session_id) if len(rows) > limit else None)


def _encode(name: str) -> str:
    return ListingCursor(0, name).encode()


def _decode(cursor: str | None) -> str:
    return "" if cursor is None else ListingCursor.decode(cursor).session_id
