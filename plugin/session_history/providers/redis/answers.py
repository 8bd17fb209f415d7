"""Answers of the scripts as values of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from session_history.providers.redis.codec import decode_entries, decode_listed_head
from session_history.providers.redis.list_range import ListRange
from session_history_hooks import Corrupt, Entry, Head, ListingCursor, Page, SessionKey


def entries_of(raws: Sequence[bytes], fetched: ListRange | None, seqs: range, head: Head) -> tuple[Entry, ...]:
    """Return the entries ``seqs``.

    :param raws: the elements of the range ``fetched``.
    :raises Corrupt: an entry is missing or unreadable.
    """
    if not seqs:
        return ()
    part = fetched.slice_of(seqs, head.tail.seq, len(raws)) if fetched else None
    if part is None:
        raise Corrupt(f"{head.key} lacks some of its entries {seqs[0]} to {seqs[-1]}")
    return decode_entries(raws[part], head.key)


def match_of(answer: Sequence[bytes], key: SessionKey) -> tuple[int, Entry] | None:
    """Return seq and entry from what the script ``read`` found by an entry's id."""
    return (int(answer[0]), decode_entries(answer[1:], key)[0]) if answer else None


def page_of(answer: Sequence[Any], user_id: str) -> Page:
    """Return the page of a listing from the answer of the script ``list``."""
    session_ids, heads = answer[1][::2], answer[1][1::2]
    page = (decode_listed_head(raw, user_id, name) for name, raw in zip(session_ids, heads, strict=True))
    return Page(tuple(page), _cursor(*answer[2:]))


def _cursor(session_id: bytes | None = None, score: bytes = b"") -> str | None:
    # The server may write a score with an exponent.
    return ListingCursor(-int(float(score)), session_id.decode()).encode() if session_id is not None else None
