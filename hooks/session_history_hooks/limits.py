"""The limits that a provider claims."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from session_history_hooks.errors import LimitExceeded
from session_history_hooks.log import Entry, Position, Snapshot


class Durability(StrEnum):
    """The worst failure that an acknowledged append survives."""

    PROCESS = "process"
    """None: the append is lost when the process that holds the data ends. This may be the caller's or a server's."""
    HOST = "host"
    """The end of that process, but not a crash of its machine."""
    DISK = "disk"
    """A power cut."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a provider claims. The contract suite tests each of them.

    :ivar entry_bytes: the largest payload of an entry.
    :ivar summary_bytes: the largest summary of a snapshot.
    :ivar entries: the most entries in one generation.
    :ivar page: the most entries that a read without ``last`` returns, and the most heads in a page of a listing.
    :ivar remembered_ids: number of the newest ids that an append is checked against; ``None`` = all.
    :ivar durability: the worst failure that an acknowledged append survives.
    :ivar atomic_head: true if a reader never sees an entry without its head or a head without its entry.
    """

    entry_bytes: int
    summary_bytes: int
    entries: int
    page: int
    remembered_ids: int | None
    durability: Durability
    atomic_head: bool

    def check(self, entry: Entry, snapshot: Snapshot | None, at: Position | None = None) -> None:
        """Check that an entry and its snapshot fit these limits.

        :param at: the position that an append goes behind; ``None`` for a rewrite, which adds no entry.
        :raises LimitExceeded: the payload or the summary is too large, or the log is full.
        """
        self._check("entry bytes", len(entry.payload), self.entry_bytes)
        self._check("summary bytes", len(snapshot.summary) if snapshot else 0, self.summary_bytes)
        self._check("entries", at.seq + 1 if at else 0, self.entries)

    @staticmethod
    def _check(what: str, size: int, limit: int) -> None:
        if size > limit:
            raise LimitExceeded(what, size, limit)
