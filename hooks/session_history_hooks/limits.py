"""The limits that a provider claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from session_history_hooks.errors import InvalidKey, LimitExceeded
from session_history_hooks.log import Entry, Head, Position, Snapshot, check_key, utf8_bytes

ENTRY_KEYS = 128
"""The most keys of an entry: a store that remembers 256 ids then remembers those of the newest entry, whole."""

ORIGIN_CHARACTERS = 64
"""The longest origin of an entry, and the longest id of a rewrite. ``new_origin`` makes 16 characters."""

TEXT_BYTES = 64 * 2**10
"""The longest text of an entry, in UTF-8 bytes."""


class Durability(StrEnum):
    """The worst failure that an acknowledged append survives."""

    PROCESS = "process"
    """None: the append is lost when the process that holds the data ends. This may be the caller's or a server's."""
    HOST = "host"
    """The end of that process, but not a crash of its machine."""
    DISK = "disk"
    """A power cut."""


class WaitingOrder(StrEnum):
    """The order in which turns begin that wait for an exclusive turn of their session."""

    NONE = "none"
    """Any order."""
    ARRIVAL = "arrival"
    """The order in which they began to wait, also if they wait in several processes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a provider claims. The contract suite tests each of them.

    :ivar entry_bytes: the largest payload of an entry.
    :ivar summary_bytes: the largest summary of a snapshot.
    :ivar entries: the most entries in one generation.
    :ivar page: the most entries that a read without ``last`` returns, and the most heads in a page of a listing.
    :ivar page_bytes: the most bytes of payload that a read without ``last`` returns, unless its first entry is larger.
    :ivar remembered_ids: number of the newest ids, keys included, that an append is checked against; ``None`` = all.
    :ivar durability: the worst failure that an acknowledged append survives.
    :ivar atomic_head: true if a reader never sees an entry without its head or a head without its entry.
    :ivar waiting: the order in which turns begin that wait for an exclusive turn.
    """

    entry_bytes: int
    summary_bytes: int
    entries: int
    page: int
    page_bytes: int
    remembered_ids: int | None
    durability: Durability
    atomic_head: bool
    waiting: WaitingOrder = WaitingOrder.NONE

    def check(self, entry: Entry, snapshot: Snapshot | None, at: Position | None = None) -> None:
        """Check that an entry and its snapshot fit these limits.

        :param at: the position that an append goes behind; ``None`` for a rewrite, which adds no entry.
        :raises LimitExceeded: a part of the entry or the summary is too large, or the log is full.
        :raises InvalidKey: the origin or a key is not valid, or a key is there twice.
        """
        self._check("entry bytes", len(entry.payload), self.entry_bytes)
        self._check("summary bytes", len(snapshot.summary) if snapshot else 0, self.summary_bytes)
        self._check("entries", at.seq + 1 if at else 0, self.entries)
        check_origin("origin", entry.origin)
        if entry.text is not None:
            self._check("text bytes", utf8_bytes("text", entry.text), TEXT_BYTES)
        if entry.keys:
            self._check("entry keys", len(entry.keys), ENTRY_KEYS)
            _check_keys(entry)

    def check_restore(self, head: Head, entries: Sequence[Entry]) -> None:
        """Check that a page of a session that is to be restored fits these limits.

        :raises LimitExceeded: an entry or the summary is too large, or there are too many entries.
        :raises InvalidKey: see :meth:`check`.
        """
        self._check("page entries", len(entries), self.page)
        if head.rewrite_id:
            check_origin("rewrite_id", head.rewrite_id)
        for entry in entries:
            self.check(entry, head.snapshot, Position(head.tail.generation, head.tail.seq - 1))

    def fitting(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the first of these entries, as many as a page may hold, but at least one. The rest is not read."""
        page: list[Entry] = []
        size = 0
        for entry in entries:
            size += len(entry.payload)
            if page and (size > self.page_bytes or len(page) == self.page):
                break
            page.append(entry)
        return page

    @staticmethod
    def _check(what: str, size: int, limit: int) -> None:
        if size > limit:
            raise LimitExceeded(what, size, limit)


def check_origin(field: str, value: object) -> None:
    """Check the origin of an entry, or the id of a rewrite.

    :raises InvalidKey: it is not 1 to 64 visible ASCII characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= ORIGIN_CHARACTERS:
        raise InvalidKey(field, f"must be a str of 1 to {ORIGIN_CHARACTERS} characters")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise InvalidKey(field, "must have only visible ASCII characters")


def _check_keys(entry: Entry) -> None:
    for key in entry.keys:
        check_key("entry key", key)
    if len({entry.id, *entry.keys}) <= len(entry.keys):
        raise InvalidKey("entry key", "must not be there twice, nor be the id of the entry")
