"""Where rows stand: user, session and a place in the session, which tells entries, head and parts apart."""

from __future__ import annotations

from typing import Any

from tablestore import INF_MAX, INF_MIN

from session_history_hooks import Position, SessionKey

PrimaryKey = list[tuple[str, Any]]

SEQ_BITS = 32
MAX_SEQ = 2**SEQ_BITS - 1
MAX_GENERATION = 2**31 - 2
"""One below what fits: the place of the very last entry is the head's."""

HEAD_PLACE = 2**63 - 1
"""The ``q`` of a head. It is the first row of a session that is read backwards."""

Place = int | type
"""``q``, or an end of the range of all."""
LOWEST: Place = INF_MIN


def place_of(position: Position) -> int:
    return position.generation << SEQ_BITS | position.seq


def position_of(place: int) -> Position:
    return Position(place >> SEQ_BITS, place & MAX_SEQ)


def primary_key(key: SessionKey, place: Place) -> PrimaryKey:
    return [("u", key.user_id), ("s", key.session_id), ("q", place)]


def below_session(user_id: str, session_id: str | type) -> PrimaryKey:
    """In front of all rows of a session; with INF_MAX, behind all sessions of a user."""
    return [("u", user_id), ("s", session_id), ("q", INF_MAX if session_id is INF_MAX else INF_MIN)]


def listing_key(user_id: str, recency: Place, session_id: str | type, place: Place) -> PrimaryKey:
    return [("u", user_id), ("r", recency), ("s", session_id), ("q", place)]
