"""The log of a session, as providers store it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from session_history_hooks.errors import SessionHistoryError
from session_history_hooks.keys import SessionKey


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a log.

    :ivar generation: 0 for the first life of a session id, and one more after each delete.
    :ivar seq: 1, 2, 3 … without gaps; 0 is the place before the first entry.
    """

    generation: int
    seq: int


def new_origin() -> str:
    """Return 96 random bits as 16 characters, for the origin of an entry or the id of a rewrite."""
    return secrets.token_urlsafe(12)


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch of messages and changes, appended atomically.

    :ivar id: the idempotency key of the append, perhaps the caller's. Unique within a generation, as far as ids are
        remembered.
    :ivar payload: opaque to a provider.
    :ivar origin: identifies the append: its author makes it, a retry keeps it, and another append never has it, also if
        that one has the same id and position. 1 to 64 visible ASCII characters.
    :ivar keys: further ids, such as those of single messages. They are checked and remembered like ``id``.
    :ivar text: the words by which a store that is :class:`~session_history_hooks.Searchable` finds the entry, with one
        space between two words. Other stores ignore it, and no read returns it.
    :ivar bookkeeping: nothing was said in this entry, such as a new title. It does not move the session in a listing.
    """

    id: str
    payload: bytes = field(repr=False)
    origin: str = field(default_factory=new_origin)
    keys: tuple[str, ...] = ()
    text: str | None = field(default=None, repr=False)
    bookkeeping: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A summary of the log up to and including entry ``seq``.

    :ivar origin: the origin of that entry.
    :ivar summary: opaque to a provider; small, and part of every listing.
    """

    seq: int
    origin: str
    summary: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log: its tail, its snapshot, and whether the session was deleted.

    :ivar tail: position of the newest entry. A tombstone has seq 0.
    :ivar tail_origin: the origin of the newest entry; ``""`` for a tombstone.
    :ivar deleted: true for a tombstone: the session was deleted and not created again.
    :ivar heartbeat: changed by :meth:`~session_history_hooks.SessionHistoryProvider.renew`.
    :ivar rewrite_id: the id of the newest rewrite in this generation; ``""`` if there was none.
    :ivar active_us: when something was last said, or the session was deleted, in microseconds since the epoch by the
        store's clock. It grows with every append that is not bookkeeping, even if the clock does not. The first entry
        of a generation sets it, too.
    :ivar changed_us: when the log last grew or was deleted, by the same clock; bookkeeping counts. It grows with every
        append, and is never less than ``active_us``.
    :ivar snapshot: the newest snapshot that the provider received. It may be older than ``tail``.
    """

    key: SessionKey
    tail: Position
    tail_origin: str
    deleted: bool
    heartbeat: int
    rewrite_id: str
    active_us: int
    changed_us: int
    snapshot: Snapshot | None

    @property
    def current_snapshot(self) -> Snapshot | None:
        """The snapshot if it covers the tail, else ``None``."""
        snapshot = self.snapshot
        covers = snapshot and (snapshot.seq, snapshot.origin) == (self.tail.seq, self.tail_origin)
        return snapshot if covers else None


@dataclass(frozen=True, slots=True)
class Log:
    """A range of entries and the head, both read at one moment.

    :ivar first: seq of the first entry in ``entries``; ``head.tail.seq + 1`` if ``entries`` is empty.
    :ivar entries: ascending and gapless.
    :ivar match: seq and entry of the requested id, also if it lies outside the range; ``None`` if no entry has this id.
        If several entries have it, since ids are not remembered for ever, the newest of them.
    """

    head: Head
    first: int
    entries: tuple[Entry, ...]
    match: tuple[int, Entry] | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of an append.

    :ivar position: the position of the entry.
    :ivar replayed: true if an entry with this id was stored before; this call wrote nothing.
    """

    position: Position
    replayed: bool


class Conflict(SessionHistoryError, RuntimeError):
    """The log does not end with the expected entry, or holds some keys of the new one. Nothing was written.

    :ivar head: the current head; ``None`` if the session was never seen.
    :ivar keys: the keys of the entry that this generation has already, in the order of the entry. None if the append
        names another generation.
    :ivar recreated: true if an earlier session of this id expired without a tombstone, and the current one was created
        since then. An append at ``(0, 0)``, whose author saw no session, may then go behind the current tail. Never
        true if an earlier session of this id was deleted.
    """

    def __init__(self, head: Head | None, *, keys: tuple[str, ...] = (), recreated: bool = False) -> None:
        if head is not None and not isinstance(head, Head):
            raise TypeError(f"Conflict takes the current Head or None, not {type(head).__name__}")
        super().__init__(head)
        self.head = head
        self.keys = keys
        self.recreated = recreated

    def __str__(self) -> str:
        if self.keys:
            return f"the log has {len(self.keys)} of the entry's keys already"
        return f"the log ends at {self.head.tail}" if self.head else "the session has no log"


def select_seqs(tail: int, page: int, *, last: int | None, before: int | None, after: int | None) -> range:
    """Return the seqs that :meth:`~session_history_hooks.SessionHistoryProvider.read` returns for these arguments.

    A read without ``last`` may return fewer of them, see :meth:`session_history_hooks.Limits.fitting`.

    :param tail: seq of the newest entry.
    :param page: the provider's ``limits.page``.
    """
    low = 1 if after is None else max(after + 1, 1)
    stop = tail + 1 if before is None else min(before, tail + 1)
    if last is not None:
        low = max(low, stop - last)
    elif after is not None:
        stop = min(stop, low + page)
    else:
        low = max(low, stop - page)
    return range(low, stop)
