"""Checks of values that a store hands over, and pages of a listing in which some rows cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from session_history_hooks.abilities import UserPage
from session_history_hooks.errors import Corrupt, InvalidKey
from session_history_hooks.limits import ORIGIN_CHARACTERS
from session_history_hooks.listing import ListingCursor, Page
from session_history_hooks.log import Entry, Head, Log, SessionKey, Snapshot, check_key
from session_history_hooks.store import StoreInfo

__all__ = [
    "LAST_US",
    "MAX_NUMBER",
    "ListedRow",
    "checked_entry",
    "checked_head",
    "checked_info",
    "checked_log",
    "is_user_id",
    "listed_page",
    "listed_users",
]

LAST_US = 253_402_300_799_999_999
"""The last microsecond of the year 9999: dates end there."""

INCARNATION_CHARACTERS = 512
"""The most characters that name a store."""

_TYPES_OF_ENTRY = {"id": str, "payload": bytes, "origin": str, "bookkeeping": bool}

MAX_NUMBER = 2**62
"""The largest generation, heartbeat or seq. No store can reach it by counting."""


def checked_head(head: Head, *, entries: int = MAX_NUMBER) -> Head:
    """Return a head that a provider made from stored values.

    :param entries: the provider's ``limits.entries``.
    :raises Corrupt: a value has a wrong type or is out of range. The error names the session and the value.
    """
    flaw = _flaw_of_living(head, entries) if head.deleted is False else _flaw_of_tombstone(head)
    if flaw:
        raise Corrupt(f"the head of {head.key} has no valid {flaw}; the session can only be deleted")
    return head


def checked_entry(entry: Entry, key: SessionKey, seq: int) -> Entry:
    """Return an entry that a provider made from stored values.

    :raises Corrupt: a value has a wrong type. The error names session, entry and value.
    """
    for name, kind in _TYPES_OF_ENTRY.items():
        if type(getattr(entry, name)) is not kind:
            raise Corrupt(f"entry {seq} of {key} has no valid {name}")
    if entry.keys and not all(map(_is_key, entry.keys)):
        raise Corrupt(f"entry {seq} of {key} has no valid keys")
    return entry


def checked_log(log: Log) -> Log:
    """Return a log whose head and entries were read at one moment.

    :raises Corrupt: its newest entry is not the one that the head names.
    """
    head, entries = log.head, log.entries
    if entries and log.first + len(entries) - 1 == head.tail.seq and entries[-1].origin != head.tail_origin:
        raise Corrupt(f"the head of {head.key} names another entry than the one at its tail")
    return log


def checked_info(info: StoreInfo) -> StoreInfo:
    """Return the identity of a store that a provider made from stored values. :raises Corrupt: it is not valid."""
    shard = info.shard
    numbers = (info.format, shard.number, shard.count) if shard else (info.format,)
    is_name = type(info.incarnation) is str and 0 < len(info.incarnation) <= INCARNATION_CHARACTERS
    if not is_name or set(map(type, numbers)) != {int} or info.format < 1:
        raise Corrupt("the identity of the store is unreadable")
    return info


class ListedRow(NamedTuple):
    """A row of a listing.

    :ivar key: ``None`` if the id of the session is unreadable.
    :ivar head: ``None`` if the row is unreadable.
    :ivar place: the number by which rows are sorted, as a cursor holds it; ``None`` if no cursor can name the row.
    """

    key: SessionKey | None
    head: Head | None
    place: int | None


def listed_page(rows: Sequence[ListedRow], limit: int, *, more: bool) -> Page | None:
    """Return a page of a listing. It ends with a row that a cursor can name, so that no row is skipped or repeated.

    :param rows: in the order of the listing. A row with a head has a place.
    :param more: the store has more rows behind them.
    :returns: ``None`` if no page can end among these rows; the provider then has to read more of them.
    """
    end = _end([row.key is not None and row.place is not None for row in rows], limit, more=more)
    if end is None:
        return None
    cursor = None
    if more or end < len(rows):
        key, _, place = rows[end - 1]
        assert key is not None
        assert place is not None
        cursor = ListingCursor(place, key.session_id).encode()
    rows = rows[:end]
    heads = tuple([row.head for row in rows if row.head])
    if len(heads) == len(rows):
        return Page(heads, cursor)
    unreadable = tuple([row.key for row in rows if row.key and not row.head])
    return Page(heads, cursor, unreadable, len(rows) - len(heads) - len(unreadable))


def listed_users(user_ids: Sequence[object], limit: int, *, more: bool) -> UserPage | None:
    """Return a page of users. Its cursor holds the last one in the place of a session id.

    Parameters and result: see :func:`listed_page`.
    """
    are_valid = [is_user_id(user_id) for user_id in user_ids]
    end = _end(are_valid, limit, more=more)
    if end is None:
        return None
    found = tuple(str(user_id) for user_id, is_valid in zip(user_ids[:end], are_valid, strict=False) if is_valid)
    is_last = end == len(user_ids) and not more
    return UserPage(found, None if is_last else ListingCursor(0, found[-1]).encode(), unnamed=end - len(found))


def _end(are_places: Sequence[bool], limit: int, *, more: bool) -> int | None:
    """Return how many of these rows a page holds; ``None`` if it cannot end among them."""
    places = [number for number, is_place in enumerate(are_places) if is_place]
    if not more and len(places) <= limit:
        return len(are_places)
    return places[:limit][-1] + 1 if places else None


def is_user_id(value: object) -> bool:
    """Tell whether a stored value is the id of a user."""
    return _is_key(value)


def _flaw_of_living(head: Head, entries: int) -> str:
    seq, snapshot = head.tail.seq, head.snapshot
    if type(seq) is not int or not 0 < seq <= entries:
        return "seq"
    if not _is_origin(head.tail_origin):
        return "tail_origin"
    if head.rewrite_id != "" and not _is_origin(head.rewrite_id):
        return "rewrite_id"
    return _flaw_of_numbers(head) or (_flaw_of_snapshot(snapshot) if snapshot else "")


def _flaw_of_tombstone(head: Head) -> str:
    if head.deleted is not True:
        return "deleted"
    if (head.tail.seq, head.tail_origin, head.rewrite_id, head.snapshot) != (0, "", "", None):
        return "tombstone"
    return _flaw_of_numbers(head)


def _flaw_of_numbers(head: Head) -> str:
    generation, heartbeat = head.tail.generation, head.heartbeat
    if type(generation) is not int or not 0 <= generation <= MAX_NUMBER:
        return "generation"
    if type(heartbeat) is not int or not 0 <= heartbeat <= MAX_NUMBER:
        return "heartbeat"
    if type(head.active_us) is not int or not 0 <= head.active_us <= LAST_US:
        return "active_us"
    return "changed_us" if type(head.changed_us) is not int or not 0 <= head.changed_us <= LAST_US else ""


def _flaw_of_snapshot(snapshot: Snapshot) -> str:
    if type(snapshot.seq) is not int or not 0 <= snapshot.seq <= MAX_NUMBER or type(snapshot.origin) is not str:
        return "snapshot"
    return "" if type(snapshot.summary) is bytes else "summary"


def _is_key(value: object) -> bool:
    try:
        check_key("entry key", value)
    except InvalidKey:
        return False
    return True


def _is_origin(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= ORIGIN_CHARACTERS and value.isascii()
