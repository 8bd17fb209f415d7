"""The state of a session, derived from its head and its newest entries.

An entry is stored as soon as its row is stored. This one conditional write decides which entry gets a position, and a
retry finds it there. The head is written with the entry, but not in the same transaction. So a head may belong to a
writer whose entry lost the position, or it may be one entry late, until the author of the entry or the next append
corrects it. Readers therefore derive the state from the head and the entries together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from session_history.providers.tablestore.rows import (
    DIGEST_BYTES,
    REMEMBERED_IDS,
    EntryRow,
    HeadRow,
    digest,
    random_id,
)
from session_history_hooks import Head, Position, SessionKey, Snapshot


class TornReadError(Exception):
    """The rows that were read never stood there together. The session changed during the read."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """The state of a session.

    :ivar head: ``None`` if the session was never seen.
    :ivar etag: the etag of the head's row; ``None`` if there is no such row.
    :ivar id_digests: the digests of the newest entry ids, the tail's last.
    :ivar head_is_current: true if the head's row already shows this state.
    :ivar origin: the origin of the newest entry; ``None`` if the session does not exist.
    :ivar rewritten_etag: the etag of the entry that was rewritten last; 0 if no entry was.
    """

    head: Head | None
    etag: int | None
    id_digests: bytes
    head_is_current: bool
    origin: int | None = None
    rewritten_etag: int = 0

    @classmethod
    def of(cls, row: HeadRow) -> Self:
        """Return the state that a current head shows."""
        return cls(
            row.head,
            row.etag,
            row.id_digests,
            head_is_current=True,
            origin=row.origin,
            rewritten_etag=row.rewritten_etag,
        )

    @property
    def live_head(self) -> Head | None:
        """The head, if the session exists and is not deleted."""
        return None if self.head is None or self.head.deleted else self.head

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

    @property
    def oldest_remembered(self) -> int:
        """The seq of the oldest entry that has a digest here."""
        return self.append_at.seq - len(self.id_digests) // DIGEST_BYTES + 1

    def seqs_of(self, entry_id: str) -> list[int]:
        """Return the seqs of the entries with the digest of this id. Few other ids share a digest."""
        wanted = digest(entry_id)
        starts = range(0, len(self.id_digests), DIGEST_BYTES)
        return [
            self.oldest_remembered + start // DIGEST_BYTES
            for start in starts
            if self.id_digests[start : start + DIGEST_BYTES] == wanted
        ]

    def next_active_us(self) -> int:
        """Return the time by the clock of this process, or a later time if the session was active later."""
        return max(time.time_ns() // 1000, self.head.active_us + 1 if self.head else 0)

    def head_after(self, key: SessionKey, entry: EntryRow, snapshot: Snapshot | None) -> HeadRow:
        """Return the row of the head after this entry was appended."""
        live = self.live_head
        head = Head(
            key,
            entry.position,
            entry.id,
            deleted=False,
            heartbeat=live.heartbeat if live else 0,
            rewrites=live.rewrites if live else 0,
            active_us=max(entry.active_us, self.head.active_us if self.head else 0),
            snapshot=snapshot or (live.snapshot if live else None),
        )
        digests = (self.id_digests if live else b"") + digest(entry.id)
        digests = digests[-REMEMBERED_IDS * DIGEST_BYTES :]
        return HeadRow(head, digests, random_id(), entry.origin, self.rewritten_etag if live else 0)

    def with_head(self, head: Head, *, rewritten_etag: int | None = None) -> HeadRow:
        """Return the row of another head on the same entries."""
        rewritten = self.rewritten_etag if rewritten_etag is None else rewritten_etag
        return HeadRow(head, self.id_digests, random_id(), self.origin, rewritten)

    def tombstone(self, key: SessionKey, generation: int) -> HeadRow:
        head = Head(
            key,
            Position(generation, 0),
            "",
            deleted=True,
            heartbeat=0,
            rewrites=0,
            active_us=self.next_active_us(),
            snapshot=None,
        )
        return HeadRow(head, b"", random_id(), None)


UNSEEN = SessionState(None, None, b"", head_is_current=True)


def derive(key: SessionKey, row: HeadRow | None, newest: Sequence[EntryRow]) -> SessionState:
    """Derive the state of a session from the row of its head and its newest entries, the newest first.

    If the head is not current, ``id_digests`` covers only these entries.

    :raises TornReadError: these rows cannot have stood there together.
    """
    written = row.head if row else None
    generation = _live_generation(written, newest[0] if newest else None)
    entries = [entry for entry in newest if entry.position.generation == generation]
    etag = row.etag if row else None
    if not entries:
        if written is not None and not written.deleted:
            raise TornReadError
        return SessionState(written, etag, b"", head_is_current=True)
    tail = entries[0]
    live = row if row is not None and not row.head.deleted else None
    if live and live.origin == tail.origin:
        return SessionState.of(live)
    head = Head(
        key,
        tail.position,
        tail.id,
        deleted=False,
        heartbeat=live.head.heartbeat if live else 0,
        rewrites=live.head.rewrites if live else 0,
        active_us=max(tail.active_us, written.active_us if written else 0),
        snapshot=_trusted_snapshot(live, entries) if live else None,
    )
    digests = b"".join(digest(entry.id) for entry in reversed(entries[:REMEMBERED_IDS]))
    rewritten_etag = live.rewritten_etag if live else 0
    return SessionState(head, etag, digests, head_is_current=False, origin=tail.origin, rewritten_etag=rewritten_etag)


def _live_generation(written: Head | None, newest: EntryRow | None) -> int:
    """Return the generation that lives, or that a new session would begin. A delete left the entries of older ones."""
    generation = 0 if written is None else written.tail.generation + (1 if written.deleted else 0)
    if newest is not None and newest.position.generation > generation:
        raise TornReadError
    return generation


def _trusted_snapshot(row: HeadRow, entries: Sequence[EntryRow]) -> Snapshot | None:
    """Return the snapshot of a late head, unless it covers an entry that lost its position."""
    snapshot = row.head.snapshot
    covers_own_entry = snapshot is not None and snapshot.seq == row.head.tail.seq
    return snapshot if not covers_own_entry or any(entry.origin == row.origin for entry in entries) else None
