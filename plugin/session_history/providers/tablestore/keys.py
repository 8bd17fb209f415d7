"""Primary keys of rows: the user, the session, and the number of the row in its session.

Rows of a session stand in the order of their numbers: first the chunks of large payloads, which have negative numbers,
then the entries in the order of their positions, and last the head.
"""

from __future__ import annotations

from typing import Any

from tablestore import INF_MAX, INF_MIN

from session_history.providers.tablestore.columns import RECENCY, ROW_NUMBER, SESSION_ID, USER_ID
from session_history_hooks import Position, SessionKey

PrimaryKey = list[tuple[str, Any]]

SEQ_BITS = 32
MAX_SEQ = 2**SEQ_BITS - 1
MAX_GENERATION = 2**31 - 2
"""One below what fits, because the last entry of the next generation would have the number of the head."""

HEAD_NUMBER = 2**63 - 1
"""The number of every head. A range that is read backward returns the head first."""

Bound = int | type
"""A number, or ``INF_MIN`` or ``INF_MAX`` as the end of a range."""
LOWEST: Bound = INF_MIN

STORE_USER = " "
STORE: PrimaryKey = [(USER_ID, STORE_USER), (SESSION_ID, " "), (ROW_NUMBER, 0)]
"""The key of the row that identifies the store. No session has this key, because blank ids are refused."""

FIRST: PrimaryKey = [(USER_ID, INF_MIN), (SESSION_ID, INF_MIN), (ROW_NUMBER, INF_MIN)]
END: PrimaryKey = [(USER_ID, INF_MAX), (SESSION_ID, INF_MAX), (ROW_NUMBER, INF_MAX)]
"""The bounds of the whole table."""


def number_of(position: Position) -> int:
    return position.generation << SEQ_BITS | position.seq


def position_of(number: int) -> Position:
    return Position(number >> SEQ_BITS, number & MAX_SEQ)


def primary_key(key: SessionKey, number: Bound) -> PrimaryKey:
    return bound(key.user_id, key.session_id, number)


def bound(user_id: str, session_id: str | type, number: Bound) -> PrimaryKey:
    """Return a bound within the rows of a user. ``INF_MIN`` stands before all sessions, ``INF_MAX`` after them."""
    return [(USER_ID, user_id), (SESSION_ID, session_id), (ROW_NUMBER, number)]


def index_key(user_id: str, recency: Bound, session_id: str | type, number: Bound) -> PrimaryKey:
    return [(USER_ID, user_id), (RECENCY, recency), (SESSION_ID, session_id), (ROW_NUMBER, number)]
