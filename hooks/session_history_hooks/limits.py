"""What a provider claims of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from session_history_hooks.errors import LimitExceeded
from session_history_hooks.log import Entry, Position, Snapshot


class Durability(StrEnum):
    """What an acknowledged append survives."""

    PROCESS = "process"
    """Nothing: it is gone with the process that keeps it, be that the caller's or a server."""
    HOST = "host"
    """The death of that process, not that of the machine."""
    DISK = "disk"
    """A power cut."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Claims of a provider; the contract suite tests them.

    :ivar entry_bytes: the largest payload of an entry.
    :ivar summary_bytes: the largest summary of a snapshot.
    :ivar entries: the most entries in one generation.
    :ivar page: how many entries a read returns that asks for no number, and the most heads of a listing page.
    :ivar remembered_ids: how many of the newest ids an append is checked against; ``None`` = all.
    :ivar durability: what an acknowledged append survives.
    :ivar atomic_head: a reader never sees an entry without its head or the reverse.
    """

    entry_bytes: int
    summary_bytes: int
    entries: int
    page: int
    remembered_ids: int | None
    durability: Durability
    atomic_head: bool

    def check(self, entry: Entry, snapshot: Snapshot | None, at: Position | None = None) -> None:
        """Refuse what is too large, or has no place behind ``at``.

        :param at: where an append goes; ``None`` for a rewrite, which makes no log longer.

        :raises LimitExceeded: see there.
        """
        self._check("entry bytes", len(entry.payload), self.entry_bytes)
        self._check("summary bytes", len(snapshot.summary) if snapshot else 0, self.summary_bytes)
        self._check("entries", at.seq + 1 if at else 0, self.entries)

    @staticmethod
    def _check(what: str, size: int, limit: int) -> None:
        if size > limit:
            raise LimitExceeded(what, size, limit)
