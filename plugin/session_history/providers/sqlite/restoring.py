"""The restore of sessions as they were elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from session_history.providers.sqlite import entries, heads
from session_history_hooks import Conflict, Entry, Head, LimitExceeded, Limits


def check_limits(limits: Limits, head: Head, page: Sequence[Entry]) -> None:
    """:raises LimitExceeded: an entry or the summary is too large, or there are too many entries."""
    ahead = replace(head.tail, seq=head.tail.seq - 1)
    for entry in page:
        limits.check(entry, head.snapshot, ahead)
    if len(page) > limits.page:
        raise LimitExceeded("page entries", len(page), limits.page)


def restore(connection: sqlite3.Connection, head: Head, page: Sequence[Entry], first: int, behind: str) -> bool:
    """Write a tombstone or a page of a log, see :meth:`~session_history_hooks.Restorable.restore`.

    :param first: seq of the first entry of the page.
    """
    found = heads.find(connection, head.key)
    stored = 0
    if found is None or found.head.deleted:
        if found and found.head == head:
            return False
        _require_earlier_life(found, head, first)
    else:
        _require_same_beginning(connection, found, head, page, first, behind)
        stored = found.head.tail.seq
        if stored >= head.tail.seq:
            return False
    log = heads.write(connection, head, found.log if found else None)
    for seq, entry in enumerate(page, first):
        if seq > stored:
            entries.add(connection, log, seq, entry, on_known="REPLACE")
    return True


def _require_earlier_life(tombstone: heads.Found | None, head: Head, first: int) -> None:
    """Check that ``head`` belongs behind a tombstone, or in place of one of its own generation."""
    found = tombstone.head if tombstone else None
    if first > 1 or (found and found.tail.generation >= head.tail.generation + head.deleted):
        raise Conflict(found)


def _require_same_beginning(
    connection: sqlite3.Connection, found: heads.Found, head: Head, page: Sequence[Entry], first: int, behind: str
) -> None:
    """Check that the log holds the beginning of the page, and the entry ahead of it."""
    log, stored = found
    if head.deleted or stored.tail.generation != head.tail.generation or stored.rewrite_id != head.rewrite_id:
        raise Conflict(stored)
    ahead = [behind] if behind else []
    expected = [*ahead, *(entry.origin for entry in page)]
    seqs = range(first - len(ahead), min(stored.tail.seq, head.tail.seq) + 1)
    origins = entries.origins(connection, log, seqs, head.key) if seqs else []
    if len(origins) < len(ahead) or origins != expected[: len(origins)]:
        raise Conflict(stored)
