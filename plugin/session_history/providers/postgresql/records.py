"""The rows of the tables, as heads and entries, and the values of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from session_history.providers.postgresql.connection import Row
from session_history.providers.postgresql.ids import decoded, encoded
from session_history.providers.postgresql.schema import MAX_SEQ
from session_history_hooks import Corrupt, Entry, Head, InvalidKey, Position, SessionKey, Snapshot
from session_history_hooks.stored import ListedRow, checked_head

PART = 12
"""The place of ``part`` in a row of a read."""

SnapshotValues = tuple[int | None, bytes | None, bytes | None]


def head_of(key: SessionKey, row: Row) -> Head:
    """Return a head.

    :param row: the columns of a head, as ``HEAD_COLUMNS`` has them.
    :raises Corrupt: a column holds a wrong value.
    """
    seq, tail_origin, deleted, rewrite_id, summary, generation, heartbeat, active_us, changed_us, *snapshot = row
    snapshot_seq, snapshot_origin = snapshot
    head = Head(
        key,
        Position(generation, seq),
        decoded(tail_origin, key),
        deleted=deleted,
        heartbeat=heartbeat,
        rewrite_id=decoded(rewrite_id, key),
        active_us=active_us,
        changed_us=changed_us,
        snapshot=None if snapshot_seq is None else Snapshot(snapshot_seq, decoded(snapshot_origin, key), summary),
    )
    return checked_head(head, entries=MAX_SEQ)


def listed(user_id: str, row: Row) -> ListedRow:
    """Return a row of a listing.

    :param row: the session id, and the columns of a head.
    """
    try:
        key = SessionKey(user_id, row[0])
    except InvalidKey:
        return ListedRow(None, None, None)
    active_us = row[8]
    place = active_us if active_us >= 0 else None
    try:
        return ListedRow(key, head_of(key, row[1:]), place)
    except Corrupt:
        return ListedRow(key, None, place)


def head_values(head: Head) -> tuple[object, ...]:
    snapshot_seq, snapshot_origin, summary = snapshot_values(head.snapshot)
    return (
        head.tail.seq,
        encoded(head.tail_origin),
        head.deleted,
        encoded(head.rewrite_id),
        summary,
        head.tail.generation,
        head.heartbeat,
        head.active_us,
        head.changed_us,
        snapshot_seq,
        snapshot_origin,
    )


def snapshot_values(snapshot: Snapshot | None) -> SnapshotValues:
    return (snapshot.seq, encoded(snapshot.origin), snapshot.summary) if snapshot else (None, None, None)


class Found(NamedTuple):
    """The rows of a read.

    :ivar entries: by seq, ascending; ``None`` for an entry whose payload was withheld.
    :ivar matches: the same.
    """

    head: Head
    entries: dict[int, Entry | None]
    matches: dict[int, Entry | None]

    @classmethod
    def of(cls, key: SessionKey, rows: Iterable[Row]) -> Found:
        parts: tuple[list[Row], ...] = ([], [], [])
        for row in rows:
            parts[row[0]].append(row)
        [head], entries, matches = parts
        if matches and all(row[PART] for row in matches):
            raise Corrupt(f"{key} lacks an entry of which it has a key")
        return cls(head_of(key, head[1:PART]), _entries(entries, key), _entries(matches, key))


def _entries(rows: Sequence[Row], key: SessionKey) -> dict[int, Entry | None]:
    """:param rows: of entries, and with a part above 0 of their keys, in any order."""
    if not rows:
        return {}
    firsts = sorted([row for row in rows if not row[PART]], key=_SEQ)
    keys = {} if len(firsts) == len(rows) else _keys(rows, key)
    # This runs for each entry that is read, so it calls nothing that it can do without.
    return {
        seq: None
        if payload is None
        else Entry(decoded(entry_id, key), payload, decoded(origin, key), keys.get(seq, ()), None, bookkeeping)
        for seq, origin, bookkeeping, entry_id, payload in map(_VALUES, firsts)
    }


def _keys(rows: Sequence[Row], key: SessionKey) -> dict[int, tuple[str, ...]]:
    keys: dict[int, tuple[str, ...]] = {}
    for row in sorted((row for row in rows if row[PART]), key=itemgetter(PART)):
        keys[row[1]] = (*keys.get(row[1], ()), decoded(row[4], key))
    return keys


_SEQ = itemgetter(1)
_VALUES = itemgetter(slice(1, 6))


def entry_rows(log: int, seq: int, entry: Entry) -> Iterator[tuple[object, ...]]:
    """Yield the values of the row of an entry, and of a row for each of its keys."""
    yield log, seq, 0, entry.bookkeeping, encoded(entry.id), encoded(entry.origin), entry.payload
    for part, key in enumerate(entry.keys, 1):
        yield log, seq, part, False, encoded(key), b"", b""
