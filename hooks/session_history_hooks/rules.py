"""The rules of the contract as pure functions, for providers that decide in Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from session_history_hooks.abilities import check_restore
from session_history_hooks.keys import SessionKey
from session_history_hooks.limits import Limits
from session_history_hooks.listing import ListingCursor, Page
from session_history_hooks.log import Appended, Conflict, Entry, Head, Log, Position, Snapshot, select_seqs

SeqOf = Callable[[str], int | None]
"""Returns the seq of the newest entry with an id or key; ``None`` if no entry of the generation has it."""


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


def find_replay(
    head: Head | None, entry: Entry, at: Position, tail_origin: str | None, seq_of: SeqOf
) -> Appended | None:
    """Return the answer to an append whose entry is stored already; ``None`` if the entry may be stored now.

    :param head: the current head.
    :raises Conflict: the entry may not be stored.
    """
    if head is None or head.deleted:
        if at != Position(head.tail.generation + 1 if head else 0, 0):
            raise Conflict(head)
        return None
    keys: tuple[str, ...] = ()
    if at.generation == head.tail.generation:
        seq = seq_of(entry.id)
        if seq is not None:
            return Appended(Position(at.generation, seq), replayed=True)
        keys = tuple(key for key in entry.keys if seq_of(key) is not None)
    if keys or not ends_at(head, at, tail_origin):
        raise Conflict(head, keys=keys)
    return None


def ends_at(head: Head, at: Position, tail_origin: str | None) -> bool:
    """Tell whether a log ends at a position, with an entry of this origin; ``None`` is any origin."""
    return head.tail == at and tail_origin in (None, head.tail_origin)


def head_after(head: Head | None, key: SessionKey, entry: Entry, snapshot: Snapshot | None) -> Head:
    """Return the head after an append by the clock of this process.

    :param head: the head before it: ``None`` or a tombstone if the entry begins a generation.
    """
    living = head if head and not head.deleted else None
    generation = living.tail.generation if living else head.tail.generation + 1 if head else 0
    now = _next_us(head)
    return Head(
        key,
        Position(generation, living.tail.seq + 1 if living else 1),
        entry.origin,
        deleted=False,
        heartbeat=living.heartbeat if living else 0,
        rewrite_id=living.rewrite_id if living else "",
        active_us=living.active_us if living and entry.bookkeeping else now,
        changed_us=now,
        snapshot=snapshot or (living.snapshot if living else None),
    )


def tombstone_of(head: Head) -> Head:
    """Return the head after a delete by the clock of this process."""
    now = _next_us(head)
    return Head(
        head.key,
        Position(head.tail.generation, 0),
        "",
        deleted=True,
        heartbeat=0,
        rewrite_id="",
        active_us=now,
        changed_us=now,
        snapshot=None,
    )


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


def entries_to_restore(
    found: Head | None, origins: Callable[[int, int], Sequence[str]], head: Head, entries: Sequence[Entry], behind: str
) -> Sequence[Entry] | None:
    """Return the entries that a restore has to add; ``None`` if there is nothing to write.

    Tell a tombstone, for which there are no entries to add but the head, by ``head.deleted``.

    :param found: the current head.
    :param origins: returns the origins of the stored entries between two seqs, both included.
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
    low, high = max(first - 1, 1), min(found.tail.seq, head.tail.seq)
    expected = [behind][: first - 1] + [entry.origin for entry in entries]
    if found.tail.seq < first - 1 or list(origins(low, high)) != expected[: high - low + 1]:
        raise Conflict(found)
    return entries[found.tail.seq - first + 1 :] or None


def _next_us(head: Head | None) -> int:
    """Return the time in microseconds, but later than the last change: a clock may go back."""
    return max(time.time_ns() // 1000, head.changed_us + 1 if head else 0)


def _listing_order(head: Head) -> tuple[int, str]:
    return -head.active_us, head.key.session_id
