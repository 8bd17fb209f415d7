"""What follows from the rows of a session: the entries say what was said, and the head lags behind them at worst.

An entry is stored when its row is: that one write decides who has a place, and each retry meets it. The head is written
along with it, and not in one transaction. So it may be that of a writer whose entry lost, or one entry late, until its
author or the next append mends it. What a reader is shown follows from both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from session_history.providers.tablestore.rows import (
    DIGEST_BYTES,
    REMEMBERED_IDS,
    EntryRow,
    HeadRow,
    digest,
    new_mark,
)
from session_history_hooks import Head, Position, SessionKey, Snapshot


class TornError(Exception):
    """Rows that never stood there together: the session changed while it was read."""


@dataclass(frozen=True, slots=True)
class Known:
    """Where a session stands.

    :ivar head: ``None`` for a session never seen.
    :ivar mark: of the head's row; ``None`` if there is none.
    :ivar recent: digests of the newest ids, the tail's last.
    :ivar settled: whether the head's row says the same.
    :ivar origin: of the tail; ``None`` for a session that is not there.
    :ivar rewrite: the mark of the entry that was rewritten last.
    """

    head: Head | None
    mark: int | None
    recent: bytes
    settled: bool
    origin: int | None = None
    rewrite: int = 0

    @property
    def living(self) -> Head | None:
        """The head of a session that is there."""
        return None if self.head is None or self.head.deleted else self.head

    def lives(self, generation: int) -> bool:
        return self.living is not None and self.living.tail.generation == generation

    def buries(self, generation: int) -> bool:
        """Whether this is the tombstone of a generation, which nobody replaces but by a new life."""
        return self.head is not None and self.head.deleted and self.head.tail.generation == generation

    @property
    def place(self) -> Position:
        """Behind which the next entry goes."""
        if self.head is None:
            return Position(0, 0)
        return Position(self.head.tail.generation + 1, 0) if self.head.deleted else self.head.tail

    @property
    def oldest_remembered(self) -> int:
        """Seq of the oldest entry whose id is remembered."""
        return self.place.seq - len(self.recent) // DIGEST_BYTES + 1

    def seqs(self, entry_id: str) -> list[int]:
        """Where an entry of this id may stand, by its digest."""
        wanted = digest(entry_id)
        starts = range(0, len(self.recent), DIGEST_BYTES)
        return [
            self.oldest_remembered + start // DIGEST_BYTES
            for start in starts
            if self.recent[start : start + DIGEST_BYTES] == wanted
        ]

    def next_active_us(self) -> int:
        """By this process's clock, and later than all that was before."""
        return max(time.time_ns() // 1000, self.head.active_us + 1 if self.head else 0)

    def behind(self, key: SessionKey, entry: EntryRow, snapshot: Snapshot | None) -> HeadRow:
        """The head's row once this entry stands at the tail."""
        living = self.living
        head = Head(
            key,
            entry.position,
            entry.id,
            deleted=False,
            heartbeat=living.heartbeat if living else 0,
            rewrites=living.rewrites if living else 0,
            active_us=max(entry.active_us, self.head.active_us if self.head else 0),
            snapshot=snapshot or (living.snapshot if living else None),
        )
        recent = (self.recent if living else b"") + digest(entry.id)
        recent = recent[-REMEMBERED_IDS * DIGEST_BYTES :]
        return HeadRow(head, recent, new_mark(), entry.origin, self.rewrite if living else 0)

    def changed(self, head: Head, *, rewrite: int | None = None) -> HeadRow:
        """The head's row with something else than its entries changed."""
        return HeadRow(head, self.recent, new_mark(), self.origin, self.rewrite if rewrite is None else rewrite)

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
        return HeadRow(head, b"", new_mark(), None)


UNSEEN = Known(None, None, b"", settled=True)


def settled(row: HeadRow) -> Known:
    """What is known after this head was written."""
    return Known(row.head, row.mark, row.recent, settled=True, origin=row.origin, rewrite=row.rewrite)


def derive(key: SessionKey, row: HeadRow | None, newest: Sequence[EntryRow]) -> Known:
    """What follows from a head's row and the newest entries, the newest first; ``recent`` is of these, unless settled.

    :raises TornError: they can not have stood there together.
    """
    written = row.head if row else None
    generation = _generation(written, newest[0] if newest else None)
    entries = [entry for entry in newest if entry.position.generation == generation]
    mark = row.mark if row else None
    if not entries:
        if written is not None and not written.deleted:
            raise TornError
        return Known(written, mark, b"", settled=True)
    tail = entries[0]
    living = row if row is not None and not row.head.deleted else None
    if living and living.origin == tail.origin:
        return settled(living)
    head = Head(
        key,
        tail.position,
        tail.id,
        deleted=False,
        heartbeat=living.head.heartbeat if living else 0,
        rewrites=living.head.rewrites if living else 0,
        active_us=max(tail.active_us, written.active_us if written else 0),
        snapshot=_fold(living, entries) if living else None,
    )
    recent = b"".join(digest(entry.id) for entry in reversed(entries[:REMEMBERED_IDS]))
    rewrite = living.rewrite if living else 0
    return Known(head, mark, recent, settled=False, origin=tail.origin, rewrite=rewrite)


def _generation(written: Head | None, newest: EntryRow | None) -> int:
    """The generation that lives, or would be the next to live. What stands in an older one is what a delete left."""
    generation = 0 if written is None else written.tail.generation + (1 if written.deleted else 0)
    if newest is not None and newest.position.generation > generation:
        raise TornError
    return generation


def _fold(row: HeadRow, entries: Sequence[EntryRow]) -> Snapshot | None:
    """What a head that lags may be trusted to know: not what was current_snapshot of an entry that lost its place."""
    snapshot = row.head.snapshot
    of_its_own = snapshot is not None and snapshot.seq == row.head.tail.seq
    return snapshot if not of_its_own or any(entry.origin == row.origin for entry in entries) else None
