"""Answers of the scripts as values of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from session_history.providers.redis.codec import decode_head, is_count, require_known_format
from session_history_hooks import (
    Conflict,
    Corrupt,
    IncompatibleStore,
    InvalidKey,
    ListingCursor,
    SessionKey,
    Shard,
    StoreInfo,
)
from session_history_hooks.stored import ListedRow, checked_info


class Listed(NamedTuple):
    """The answer of the script ``list``.

    :ivar rows: those of the index, and then those that it lacks.
    :ivar scanned: the number of sessions that were looked at, expired ones included.
    :ivar more: the index has more of them.
    :ivar cursor: what goes on behind them; ``None`` also if no cursor can name the last of them.
    """

    rows: list[ListedRow]
    scanned: int
    more: bool
    cursor: str | None

    @classmethod
    def of(cls, answer: Sequence[Any], user_id: str) -> Listed:
        _, found, unlisted, scanned, last = answer
        rows = [listed(user_id, name, raw) for name, raw in zip(found[::2], found[1::2], strict=True)]
        rows += [listed(user_id, name, b"") for name in unlisted]
        return cls(rows, scanned, bool(last), _cursor(user_id, *last) if last else None)


def listed(user_id: str, session_id: bytes, raw: bytes) -> ListedRow:
    """Return a row of a listing by session id. :param raw: its head."""
    key = key_of(user_id, session_id)
    try:
        return ListedRow(key, decode_head(raw, key) if key else None, 0)
    except (Corrupt, IncompatibleStore):
        return ListedRow(key, None, 0)


def key_of(user_id: str, session_id: bytes) -> SessionKey | None:
    """Return the key of a session; ``None`` if its id is damaged."""
    try:
        return SessionKey(user_id, session_id.decode())
    except (UnicodeDecodeError, InvalidKey):
        return None


def conflict_of(answer: Sequence[Any], key: SessionKey) -> Conflict:
    """Return the error for the answer ``UNCHANGED`` of a script that writes entries."""
    _, raw, *more = answer
    return Conflict(decode_head(raw, key), keys=tuple(name.decode() for name in more[1:]), recreated=more[:1] == [1])


def store_info_of(answer: Sequence[Any]) -> StoreInfo:
    """Return the identity of a store from the answer of the script ``store_info``."""
    incarnation, version, place = answer[1]
    try:
        shard = Shard(*map(int, place.split(b"/"))) if place is not None else None
        info = checked_info(StoreInfo(incarnation.decode(), int(version), shard))
    except (AttributeError, TypeError, ValueError):
        raise Corrupt("the identity of the store is unreadable") from None
    require_known_format(info.format)
    return info


def _cursor(user_id: str, session_id: bytes, score: bytes) -> str | None:
    key, number = key_of(user_id, session_id), -float(score)  # The server may write a score with an exponent.
    return ListingCursor(int(number), key.session_id).encode() if key and is_count(number) else None
