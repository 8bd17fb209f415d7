"""The state of a session, derived from its head and its newest entries.

An entry is stored as soon as its row is stored. This one conditional write decides which entry gets a position, and a
retry finds it there. The head is written with the entry, but not in the same transaction. So a head may belong to a
writer whose entry lost the position, or it may be one entry late, until the author of the entry or the next append
corrects it. Readers therefore derive the state from the head and the entries together.

Entries of a restore are the other way round: many are written at once, and they count once the head names the newest
of them. Until then they are *staged*, and readers ignore them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from session_history.providers.tablestore.digests import IdDigests
from session_history.providers.tablestore.rows import NEVER_SEEN, EntryRow, HeadRow, random_id
from session_history_hooks import Head, Position, SessionKey, Snapshot


class TornReadError(Exception):
    """The rows that were read never stood there together. The session changed during the read."""


class Scan(NamedTuple):
    """Rows that were read from the head on backward.

    :ivar read_at: the time before the rows were read, by the clock of the cache.
    :ivar head: ``None`` if there is no such row.
    :ivar entries: the newest first.
    :ivar staged: restored entries that do not count yet.
    """

    read_at: int
    head: HeadRow | None
    entries: Sequence[EntryRow]
    staged: Sequence[EntryRow]


@dataclass(frozen=True, slots=True)
class SessionState:
    """The state of a session.

    :ivar row: the row of the head as it should be stored; ``None`` if the session was never seen.
    :ivar etag: the etag of the row that is stored; ``None`` if there is no such row.
    :ivar head_is_current: true if the stored row already shows this state.
    :ivar staged: restored entries that do not count yet.
    """

    row: HeadRow | None
    etag: int | None
    head_is_current: bool = True
    staged: Sequence[EntryRow] = ()

    @classmethod
    def of(cls, row: HeadRow, staged: Sequence[EntryRow] = ()) -> Self:
        """Return the state that a current head shows."""
        return cls(row, row.etag, staged=staged)

    @property
    def head(self) -> Head | None:
        return self.row.head if self.row else None

    @property
    def live_row(self) -> HeadRow | None:
        """The row of the head, if the session exists and is not deleted."""
        return None if self.row is None or self.row.head.deleted else self.row

    @property
    def live_head(self) -> Head | None:
        return self.live_row.head if self.live_row else None

    def is_live(self, generation: int) -> bool:
        return self.live_head is not None and self.live_head.tail.generation == generation

    def is_tombstone_of(self, generation: int) -> bool:
        """Return true for the tombstone of this generation. Only a new generation replaces it."""
        return self.head is not None and self.head.deleted and self.head.tail.generation == generation

    @property
    def append_at(self) -> Position:
        """The position that the next append must name."""
        if self.head is None:
            return Position(0, 0)
        return Position(self.head.tail.generation + 1, 0) if self.head.deleted else self.head.tail

    def ends_at(self, at: Position, tail_origin: str | None) -> bool:
        """Return whether an append may name this position and this origin."""
        if self.append_at != at:
            return False
        return tail_origin is None or self.live_head is None or self.live_head.tail_origin == tail_origin

    def ends_with(self, entry: EntryRow) -> bool:
        head = self.live_head
        return head is not None and (head.tail, head.tail_origin) == (entry.position, entry.entry.origin)

    @property
    def oldest_remembered(self) -> int:
        """The seq of the oldest entry that has a digest here."""
        return self.append_at.seq - (self.row.ids.entries if self.row else 0) + 1

    def seqs_of(self, names: Iterable[str]) -> list[int]:
        """Return the seqs of the entries with the digest of one of these ids or keys. Few other ids share a digest."""
        ids = self.row.ids if self.row else IdDigests()
        return [self.oldest_remembered + number for name in names for number in ids.find(name)]

    def next_us(self) -> int:
        """Return the time by the clock of this process, or a later time if the session was changed later."""
        return max(time.time_ns() // 1000, self.head.changed_us + 1 if self.head else 0)

    def head_after(self, key: SessionKey, entry: EntryRow, snapshot: Snapshot | None) -> HeadRow:
        """Return the row of the head after this entry was appended."""
        row = self.live_row or _begun(key)
        head = _with_tail(row.head, self.head, [entry], snapshot or row.head.snapshot)
        return replace(row, head=head, ids=row.ids.add(entry.names), etag=random_id())

    def restored_head(self, head: Head, entries: Iterable[EntryRow]) -> HeadRow:
        """Return the row of this head after these entries were restored."""
        row = self.live_row or _begun(head.key)
        ids = row.ids
        for entry in entries:
            ids = ids.add(entry.names)
        return replace(row, head=head, ids=ids, etag=random_id(), restored=head.tail.seq)

    def with_other_etag(self, key: SessionKey) -> HeadRow:
        """Return the row of the same head with another etag. For a session never seen, readers ignore this row."""
        return replace(self.row or _begun(key, tombstone_of=NEVER_SEEN), etag=random_id())

    def tombstone(self, key: SessionKey, generation: int) -> HeadRow:
        row = _begun(key, tombstone_of=generation)
        now = self.next_us()
        return replace(row, head=replace(row.head, active_us=now, changed_us=now))


UNSEEN = SessionState(None, None)


def derive(key: SessionKey, scan: Scan) -> SessionState:
    """Derive the state of a session.

    If the head is not current, the digests cover only the entries of this scan.

    :raises TornReadError: these rows cannot have stood there together.
    """
    row = scan.head
    etag = row.etag if row else None
    written = row.head if row and row.head.tail.generation != NEVER_SEEN else None
    generation = _live_generation(written, scan.entries)
    entries = [entry for entry in scan.entries if entry.position.generation == generation]
    if not entries:
        if written is not None and not written.deleted:
            raise TornReadError
        return SessionState(row if written else None, etag, staged=scan.staged)
    live = row if row and written and not written.deleted else None
    if live and (live.head.tail, live.head.tail_origin) == (entries[0].position, entries[0].entry.origin):
        return SessionState.of(live, scan.staged)
    return SessionState(_late_head(key, live, written, entries), etag, head_is_current=False, staged=scan.staged)


def _live_generation(written: Head | None, entries: Sequence[EntryRow]) -> int:
    """Return the generation that lives, or that a new session would begin. A delete left the entries of older ones."""
    generation = 0 if written is None else written.tail.generation + (1 if written.deleted else 0)
    if entries and entries[0].position.generation > generation:
        raise TornReadError
    return generation


def _late_head(key: SessionKey, live: HeadRow | None, written: Head | None, entries: Sequence[EntryRow]) -> HeadRow:
    """Return the row that corrects a head."""
    row = live or _begun(key)
    ids = IdDigests()
    for entry in reversed(entries):
        ids = ids.add(entry.names)
    snapshot = _trusted_snapshot(live, entries) if live else None
    return replace(row, head=_with_tail(row.head, written, entries, snapshot), ids=ids, etag=random_id())


def _with_tail(head: Head, written: Head | None, newest: Sequence[EntryRow], snapshot: Snapshot | None) -> Head:
    """Return a head that ends with the first of these entries. Its times never go back to those of a slower clock.

    :param written: the head ahead of these entries, perhaps a tombstone.
    """
    tail = newest[0]
    active_us = max(written.active_us if written else 0, *(entry.activity_us for entry in newest))
    changed_us = max(written.changed_us if written else 0, tail.appended_us or 0)
    return replace(
        head,
        tail=tail.position,
        tail_origin=tail.entry.origin,
        active_us=changed_us if tail.activity_us else active_us,
        changed_us=changed_us,
        snapshot=snapshot,
    )


def _trusted_snapshot(row: HeadRow, entries: Sequence[EntryRow]) -> Snapshot | None:
    """Return the snapshot of a late head, unless it covers an entry that lost its position."""
    head = row.head
    covers_own_entry = head.snapshot is not None and head.snapshot.seq == head.tail.seq
    is_stored = any((entry.position, entry.entry.origin) == (head.tail, head.tail_origin) for entry in entries)
    return head.snapshot if not covers_own_entry or is_stored else None


def _begun(key: SessionKey, *, tombstone_of: int | None = None) -> HeadRow:
    """Return the row of a head that has no entry yet, or the row of a tombstone."""
    head = Head(
        key,
        Position(tombstone_of or 0, 0),
        "",
        deleted=tombstone_of is not None,
        heartbeat=0,
        rewrite_id="",
        active_us=0,
        changed_us=0,
        snapshot=None,
    )
    return HeadRow(head, IdDigests(), random_id())
