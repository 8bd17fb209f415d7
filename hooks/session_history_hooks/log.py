"""The identity of a session and its log, as providers store them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from session_history_hooks.errors import InvalidKey, SessionHistoryError

KEY_BYTES = 512
"""The longest key, in UTF-8 bytes: two of them fit into the 1 KB of a primary key column of Tablestore."""


def check_key(field: str, value: object) -> str:
    """Return ``value`` if it is a valid key.

    A key is any text of 1 to 512 UTF-8 bytes that is not blank. No character has a special
    meaning and nothing is normalised: NFC and NFD spellings are two keys.

    :raises InvalidKey: ``value`` is not a ``str``, is blank or too long, or contains NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidKey(field, f"must be a str, not {type(value).__name__}")
    value = str.__str__(value)  # A subclass of str may override __str__; the key is the text itself.
    if not value.strip():
        raise InvalidKey(field, "must not be blank")
    if "\0" in value:
        raise InvalidKey(field, "must not contain NUL")
    size = utf8_bytes(field, value)
    if size > KEY_BYTES:
        raise InvalidKey(field, f"must have at most {KEY_BYTES} UTF-8 bytes, not {size}")
    return value


def utf8_bytes(field: str, value: str) -> int:
    """Return the size of a text. :raises InvalidKey: it contains a lone surrogate."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        raise InvalidKey(field, "must not contain a lone surrogate") from None


@dataclass(frozen=True, slots=True, order=True)
class SessionKey:
    """The identity of a session: always the pair, never one joined string.

    :raises InvalidKey: see :func:`check_key`.
    """

    user_id: str
    session_id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_id", check_key("user_id", self.user_id))
        object.__setattr__(self, "session_id", check_key("session_id", self.session_id))


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a log.

    :ivar generation: 0 for the first life of a session id, and one more after each delete.
    :ivar seq: 1, 2, 3 … without gaps; 0 is the place before the first entry.
    """

    generation: int
    seq: int


new_origin: Callable[[], str] = partial(secrets.token_urlsafe, 12)
"""Returns 96 random bits as 16 characters, for the origin of an entry or the id of a rewrite."""


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
    :ivar keys: the keys of the entry that this generation has already, in the order of the entry. Empty if the append
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
        if self.head is None:
            return "the session has no log"
        generation, seq = self.head.tail.generation, self.head.tail.seq
        if self.head.deleted:
            return f"generation {generation} of the session was deleted"
        rewritten = ", and some of it was rewritten" if self.head.rewrite_id else ""
        return f"the log of generation {generation} ends at entry {seq}{rewritten}"


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


SeqOf = Callable[[str], int | None]
"""Returns the seq of the newest entry with an id or key; ``None`` if no entry of the generation has it."""


def find_replay(
    head: Head | None, entry: Entry, at: Position, tail_origin: str | None, seq_of: SeqOf
) -> Appended | None:
    """Return the answer to an append whose entry is stored already; ``None`` if the entry may be stored now.

    :param head: the current head.
    :raises Conflict: the entry may not be stored.
    """
    if head is None or head.deleted:
        if at != Position(head.tail.generation + 1 if head else 0, 0):
            raise Conflict(head)
        return None
    keys: tuple[str, ...] = ()
    if at.generation == head.tail.generation:
        seq = seq_of(entry.id)
        if seq is not None:
            return Appended(Position(at.generation, seq), replayed=True)
        keys = tuple(key for key in entry.keys if seq_of(key) is not None)
    if keys or not ends_at(head, at, tail_origin):
        raise Conflict(head, keys=keys)
    return None


def ends_at(head: Head, at: Position, tail_origin: str | None) -> bool:
    """Tell whether a log ends at a position, with an entry of this origin; ``None`` is any origin."""
    return head.tail == at and tail_origin in (None, head.tail_origin)


def head_after(head: Head | None, key: SessionKey, entry: Entry, snapshot: Snapshot | None) -> Head:
    """Return the head after an append by the clock of this process.

    :param head: the head before it: ``None`` or a tombstone if the entry begins a generation.
    """
    living = head if head and not head.deleted else None
    generation = living.tail.generation if living else head.tail.generation + 1 if head else 0
    now = _next_us(head)
    return Head(
        key,
        Position(generation, living.tail.seq + 1 if living else 1),
        entry.origin,
        deleted=False,
        heartbeat=living.heartbeat if living else 0,
        rewrite_id=living.rewrite_id if living else "",
        active_us=living.active_us if living and entry.bookkeeping else now,
        changed_us=now,
        snapshot=snapshot or (living.snapshot if living else None),
    )


def tombstone_of(head: Head) -> Head:
    """Return the head after a delete by the clock of this process."""
    now = _next_us(head)
    return Head(
        head.key,
        Position(head.tail.generation, 0),
        "",
        deleted=True,
        heartbeat=0,
        rewrite_id="",
        active_us=now,
        changed_us=now,
        snapshot=None,
    )


def _next_us(head: Head | None) -> int:
    """Return the time in microseconds, but later than the last change: a clock may go back."""
    return max(time.time_ns() // 1000, head.changed_us + 1 if head else 0)
