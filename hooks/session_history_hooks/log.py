"""The log of a session, as providers store it."""

from __future__ import annotations

from dataclasses import dataclass, field

from session_history_hooks.keys import SessionKey


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a log.

    :ivar generation: counts the lives of a session id: 0, and one more after each delete.
    :ivar seq: 1, 2, 3 … without gaps; 0 stands before the first entry.
    """

    generation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One atomic batch of what was said.

    :ivar id: unique within a generation; the idempotency key of the append.
    :ivar payload: opaque to a provider.
    """

    id: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A summary of the log up to and including entry ``seq``.

    :ivar entry_id: the id of that entry.
    :ivar summary: opaque to a provider; small, and part of every listing.
    """

    seq: int
    entry_id: str
    summary: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log stands.

    :ivar tail: position of the newest entry. A tombstone has seq 0.
    :ivar tail_id: id of the newest entry; ``""`` for a tombstone.
    :ivar deleted: a tombstone: the session was deleted and not created again.
    :ivar heartbeat: moved by :meth:`~session_history_hooks.SessionHistoryProvider.renew`.
    :ivar rewrites: how often this generation was rewritten.
    :ivar active_us: last append or delete, microseconds since the epoch by the store's clock; grows
        with every append of a session, also when the clock does not.
    :ivar snapshot: the newest snapshot that was handed in, which may be older than ``tail``.
    """

    key: SessionKey
    tail: Position
    tail_id: str
    deleted: bool
    heartbeat: int
    rewrites: int
    active_us: int
    snapshot: Snapshot | None

    @property
    def current_snapshot(self) -> Snapshot | None:
        """The snapshot if it covers the tail, else ``None``."""
        snapshot = self.snapshot
        covers = snapshot and (snapshot.seq, snapshot.entry_id) == (self.tail.seq, self.tail_id)
        return snapshot if covers else None


@dataclass(frozen=True, slots=True)
class Log:
    """A stretch of a log and the head it was read with, both of one moment.

    :ivar first: seq of the first entry here; ``head.tail.seq + 1`` if there is none.
    :ivar entries: ascending and gapless.
    :ivar match: seq and entry of the id that was asked for, also outside the stretch.
    """

    head: Head
    first: int
    entries: tuple[Entry, ...]
    match: tuple[int, Entry] | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands.

    :ivar replayed: the entry's id was there already; nothing was written now.
    """

    position: Position
    replayed: bool


def select_seqs(tail: int, page: int, *, last: int | None, before: int | None, after: int | None) -> range:
    """The seqs that :meth:`~session_history_hooks.SessionHistoryProvider.read` returns.

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
