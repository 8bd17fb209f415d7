"""The rules of the contract as pure functions, for providers that decide in Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from session_history_hooks.abilities import check_restore
from session_history_hooks.limits import Limits
from session_history_hooks.listing import ListingCursor, Page
from session_history_hooks.log import (
    Conflict,
    Entry,
    Head,
    Log,
    Position,
    ends_at,
    find_replay,
    head_after,
    select_seqs,
    tombstone_of,
)

__all__ = [
    "ends_at",
    "entries_to_restore",
    "find_replay",
    "head_after",
    "list_page",
    "overlap_to_compare",
    "read_log",
    "rewritten",
    "tombstone_of",
]


def read_log(
    head: Head,
    entries: Sequence[Entry],
    match: int | None,
    limits: Limits,
    *,
    last: int | None,
    before: int | None,
    after: int | None,
) -> Log:
    """Return what :meth:`~session_history_hooks.SessionHistoryProvider.read` returns of a log.

    :param entries: all entries of the log.
    :param match: the seq of the entry with the requested id.
    """
    seqs = select_seqs(len(entries), limits.page, last=last, before=before, after=after)
    found = [entries[seq - 1] for seq in seqs]
    first = seqs.start
    if last is None and after is None:
        found = limits.fitting(reversed(found))[::-1]
        first = seqs.stop - len(found)
    elif last is None:
        found = limits.fitting(found)
    matched = (match, entries[match - 1]) if match else None
    return Log(head, first if found else len(entries) + 1, tuple(found), matched)


def list_page(heads: Iterable[Head], page: int, *, limit: int, cursor: str | None) -> Page:
    """Return what :meth:`~session_history_hooks.SessionHistoryProvider.list` returns of a user's sessions.

    :param heads: of all sessions of the user, in any order; deleted ones are left out.
    :param page: the provider's ``limits.page``.
    :raises InvalidCursor: the cursor was not made by a listing.
    """
    start = ListingCursor.decode(cursor) if cursor is not None else None
    living = sorted((head for head in heads if not head.deleted), key=_listing_order)
    if start is not None:
        living = [head for head in living if _listing_order(head) > (-start.active_us, start.session_id)]
    shown = tuple(living[: min(limit, page)])
    return Page(shown, ListingCursor.behind(shown[-1]).encode() if len(living) > len(shown) else None)


def rewritten(head: Head | None, old: Entry | None, entry: Entry, at: Position, last_rewrite_id: str) -> Entry:
    """Return the entry that a rewrite leaves.

    :param head: the current head.
    :param old: the entry at ``at``, if there is one.
    :raises Conflict: the entry may not be rewritten.
    """
    if head is None or old is None or (head.tail.generation, head.rewrite_id) != (at.generation, last_rewrite_id):
        raise Conflict(head)
    if (old.id, old.origin) != (entry.id, entry.origin):
        raise Conflict(head)
    return replace(old, payload=entry.payload, text=entry.text)


def overlap_to_compare(found: Head | None, head: Head, entries: Sequence[Entry]) -> range:
    """Return the seqs of the stored entries whose origins :func:`entries_to_restore` needs.

    :param found: the current head.
    """
    if found is None or found.deleted or head.deleted:
        return range(0)
    return range(max(head.tail.seq - len(entries), 1), min(found.tail.seq, head.tail.seq) + 1)


def entries_to_restore(
    found: Head | None, origins: Sequence[str], head: Head, entries: Sequence[Entry], behind: str
) -> Sequence[Entry] | None:
    """Return the entries that a restore has to add; ``None`` if there is nothing to write.

    Tell a tombstone, for which there are no entries to add but the head, by ``head.deleted``.

    :param found: the current head.
    :param origins: the origins of the entries that :func:`overlap_to_compare` names, in this order.
    :raises Conflict: the session may not be restored.
    :raises ValueError: see :func:`~session_history_hooks.check_restore`.
    """
    first = check_restore(head, entries, behind)
    if found is None or found.deleted:
        if found == head:
            return None
        if first > 1 or (found and found.tail.generation >= head.tail.generation + head.deleted):
            raise Conflict(found)
        return entries
    if head.deleted or (found.tail.generation, found.rewrite_id) != (head.tail.generation, head.rewrite_id):
        raise Conflict(found)
    expected = [behind][: first - 1] + [entry.origin for entry in entries]
    if found.tail.seq < first - 1 or list(origins) != expected[: len(overlap_to_compare(found, head, entries))]:
        raise Conflict(found)
    return entries[found.tail.seq - first + 1 :] or None


def _listing_order(head: Head) -> tuple[int, str]:
    return -head.active_us, head.key.session_id
