"""Answers of the scripts as values of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from session_history.providers.redis.codec import decode_head, require_known_format
from session_history_hooks import (
    Conflict,
    Corrupt,
    Head,
    ListingCursor,
    Page,
    SessionKey,
    Shard,
    StoreInfo,
)


def page_of(answer: Sequence[Any], user_id: str) -> Page:
    """Return the page of a listing from the answer of the script ``list``."""
    session_ids, heads = answer[1][::2], answer[1][1::2]
    page = (listed_head(raw, user_id, name) for name, raw in zip(session_ids, heads, strict=True))
    return Page(tuple(page), _cursor(*answer[2:]))


def listed_head(raw: bytes, user_id: str, session_id: bytes) -> Head:
    """Return the head of a session whose id stands beside it."""
    try:
        key = SessionKey(user_id, session_id.decode())
    except ValueError:
        raise Corrupt("a head has a name that is not a session id") from None
    head = decode_head(raw, key)
    if head is None:
        raise Corrupt(f"the head of {key} is unreadable")
    return head


def conflict_of(answer: Sequence[Any], key: SessionKey) -> Conflict:
    """Return the error for the answer ``UNCHANGED`` of a script that writes entries."""
    _, raw, *more = answer
    return Conflict(decode_head(raw, key), keys=tuple(name.decode() for name in more[1:]), recreated=more[:1] == [1])


def store_info_of(answer: Sequence[Any]) -> StoreInfo:
    """Return the identity of a store from the answer of the script ``store_info``."""
    incarnation, version, place = answer[1]
    try:
        shard = Shard(*map(int, place.split(b"/"))) if place is not None else None
        info = StoreInfo(incarnation.decode(), int(version), shard)
    except (TypeError, ValueError):
        raise Corrupt("the identity of the store is unreadable") from None
    require_known_format(info.format)
    return info


def _cursor(session_id: bytes | None = None, score: bytes = b"") -> str | None:
    # The server may write a score with an exponent.
    return ListingCursor(-int(float(score)), session_id.decode()).encode() if session_id is not None else None
