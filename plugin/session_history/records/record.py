"""The payload of an entry: one record, and its bytes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple

from session_history.errors import Corrupt, IncompatibleStore
from session_history.records.messages import StoredMessage
from session_history.records.values import decode, encode_checked
from session_history_hooks import Entry, SessionKey
from session_history_hooks.stored import LAST_US

VERSION = 1


class Author(StrEnum):
    """The kind of call that wrote an entry."""

    TURN = "turn"
    APPEND = "append"
    SESSION = "session"


class Status(StrEnum):
    """The state of a turn. OPEN: more entries may follow."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class MessageRef(NamedTuple):
    """A message in a log: the seq of its entry, and its offset in that entry.

    Inside a record, a seq of 0 means the entry of the record itself.
    """

    seq: int
    offset: int

    def resolved(self, seq: int) -> MessageRef:
        """Return the reference with ``seq`` in place of 0."""
        return self if self.seq else MessageRef(seq, self.offset)


class Continuation(NamedTuple):
    """The turn that an entry continues.

    :ivar first: seq of the turn's first entry.
    :ivar newest: seq of the turn's newest entry that the author knew.
    """

    first: int
    newest: int


class Revision(NamedTuple):
    """A later version of a message of the same turn.

    :ivar ref: the message in its first version.
    :ivar kept: how many blocks of its content, from the first, did not change. ``message`` leaves them out.
    """

    ref: MessageRef
    kept: int
    message: StoredMessage


class HistoryStart(NamedTuple):
    """The point from which an agent keeps its history word by word. Its summary covers what lies before.

    :ivar ref: the message at which the history begins.
    :ivar skip: how many blocks of that message the agent does not keep.
    """

    ref: MessageRef
    skip: int


class Slot(NamedTuple):
    """The state of one agent in a session.

    :ivar base_seq: seq of the entry with the state that this one is based on; 0 if there was none.
    :ivar start: where the agent's own history begins; ``None`` for the whole session.
    :ivar pending: a message in which the agent waits for an answer. The agent sees it in any window.
    """

    state: dict[str, Any]
    base_seq: int
    start: HistoryStart | None = None
    pending: MessageRef | None = None

    def __repr__(self) -> str:
        return f"Slot(base_seq={self.base_seq})"

    def resolved(self, seq: int) -> Slot:
        """Return the slot with absolute references, given the seq of its entry."""
        start = self.start and self.start._replace(ref=self.start.ref.resolved(seq))
        return self._replace(start=start, pending=self.pending and self.pending.resolved(seq))


def new_id() -> str:
    """Return an id for an entry. Later ids sort later, so that a store's index of them grows at its end."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError)
_LONGEST_LEASE = 10**9
_AUTHORS = {author.value: author for author in Author}
_STATUSES: dict[str | None, Status | None] = {None: None} | {status.value: status for status in Status}


@dataclass(slots=True)  # not frozen: a frozen one takes three times as long to make, and a load makes many
class Record:
    """One atomic batch.

    :ivar at_us: when its author wrote it, in microseconds by the author's clock. Shown, never sorted by.
    :ivar base: seq of the newest entry that the author saw.
    :ivar changes: new values of ``title`` and ``metadata``, as far as they change.
    :ivar inputs: the messages that are the input of the turn. A repeat of the turn must bring the same ones.
    :ivar shape: the shape of the answer, see :mod:`session_history.turns.answer`.
    :ivar answer: the messages that are the answer. A handler may have added others.
    :ivar turn_id: the id that the caller gave the turn. The entry has this id, too, if it holds the turn's answer;
        else it has another one, so that the turn can be tried again.
    :ivar continues: the turn that this entry continues; ``None`` if the entry begins one.
    :ivar slots: the states that changed, by the names of their agents.
    :ivar unseen: no model sees the turn: it failed in this one entry, and no tool may have run in it.
    :ivar lease: an exclusive turn goes on, and nobody but its author may append behind this entry. The number is the
        seconds without a heartbeat after which the author counts as dead.
    """

    by: Author
    base: int
    messages: tuple[StoredMessage, ...] = field(default=(), repr=False)
    at_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    changes: dict[str, Any] = field(default_factory=dict, repr=False)
    status: Status | None = None
    inputs: tuple[MessageRef, ...] = ()
    shape: Any = None
    answer: tuple[MessageRef, ...] = ()
    turn_id: str | None = None
    continues: Continuation | None = None
    revisions: tuple[Revision, ...] = field(default=(), repr=False)
    slots: dict[str, Slot] = field(default_factory=dict)
    unseen: bool = False
    lease: float | None = None

    @property
    def is_answered(self) -> bool:
        """Tell whether a repeat of this turn gets its answer; else the turn's id stays free for a new attempt."""
        return self.status is Status.COMPLETED or (self.status is Status.INTERRUPTED and bool(self.answer))

    @property
    def begins_turn(self) -> bool:
        return self.by is Author.TURN and bool(self.messages) and self.continues is None

    @property
    def refers_back(self) -> bool:
        """Tell whether the record names other entries of its log, by their seqs."""
        return self.continues is not None or bool(self.slots)

    def entry(self, entry_id: str) -> Entry:
        """Return a new entry that holds the record."""
        return Entry(entry_id, self.encode(), bookkeeping=self.by is Author.SESSION)

    def encode(self) -> bytes:
        document: dict[str, Any] = {"v": VERSION, "by": self.by.value, "base": self.base, "at": self.at_us}
        if self.status is not None:
            document["status"] = self.status.value
        optional = {
            "inputs": _count_or_refs(self.inputs),
            "shape": self.shape,
            "answer": list(map(_short, self.answer)),
            "turn": self.turn_id,
            "changes": self.changes,
            "continues": self.continues,
            "revisions": [[*ref, kept, new.format, new.value] for ref, kept, new in self.revisions],
            "slots": {
                name: [state, base_seq, start and [*start.ref, start.skip], pending]
                for name, (state, base_seq, start, pending) in self.slots.items()
            },
            "unseen": self.unseen or None,
            "lease": self.lease,
        }
        document |= {name: value for name, value in optional.items() if value not in (None, 0, {}, [])}
        if self.shape == []:
            document["shape"] = []  # the answer was an empty list, which is not the same as no answer
        document["runs"] = list(_runs(self.messages))
        return encode_checked(document)

    @classmethod
    def decode(cls, payload: bytes, key: SessionKey, seq: int) -> Record:
        """Read the payload of the entry at ``seq``.

        :raises Corrupt: not a record.
        :raises IncompatibleStore: a newer version's record.
        """
        try:
            document = decode(payload)
            if document["v"] == VERSION:
                return cls._of(document)
        except _NO_RECORD:
            raise Corrupt(f"entry {seq} of {key} is not a record") from None
        raise IncompatibleStore(f"entry {seq} of {key} has a version that this session-history does not know")

    @classmethod
    def decode_all(cls, payloads: Sequence[bytes], key: SessionKey, first: int) -> list[Record]:
        """Read the payloads of neighbouring entries, which is faster together than one by one.

        :param first: seq of the first of them.
        :raises Corrupt: see :meth:`decode`.
        :raises IncompatibleStore: see :meth:`decode`.
        """
        try:
            documents = decode(b"[%b]" % b",".join(payloads))
            if len(documents) == len(payloads) and all(document["v"] == VERSION for document in documents):
                return list(map(cls._of, documents))
        except _NO_RECORD:
            pass
        return [cls.decode(payload, key, seq) for seq, payload in enumerate(payloads, start=first)]

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Record:
        get = document.get
        messages = _messages(document["runs"])
        base, at_us, turn_id = document["base"], document["at"], get("turn")
        if type(base) is not int or type(at_us) is not int or base < 0 or not 0 <= at_us <= LAST_US:
            raise TypeError("not a whole number, or out of range")
        if turn_id is not None and type(turn_id) is not str:
            raise TypeError("an id is no text")
        return cls(
            by=_AUTHORS[document["by"]],
            base=base,
            messages=tuple(messages),
            at_us=at_us,
            changes=_changes(document["changes"]) if "changes" in document else {},
            status=_STATUSES[get("status")],
            inputs=_inputs(get("inputs", 0), len(messages)),
            shape=_shape(document["shape"]) if "shape" in document else None,
            answer=tuple(map(_ref, get("answer", ()))),
            turn_id=turn_id,
            continues=Continuation(*_ints(document["continues"], 2)) if "continues" in document else None,
            revisions=tuple(map(_revision, document["revisions"])) if "revisions" in document else (),
            slots={name: _slot(*slot) for name, slot in get("slots", {}).items()},
            unseen=get("unseen") is True,
            lease=checked_lease(document["lease"]) if "lease" in document else None,
        )


def checked_lease(value: Any) -> float | None:
    """Return the lease of a record or a summary. :raises TypeError: it is no number of seconds."""
    if value is not None and (type(value) not in (int, float) or not 0 < value <= _LONGEST_LEASE):
        raise TypeError("not a number of seconds")
    lease: float | None = value
    return lease


def _messages(runs: Any) -> list[StoredMessage]:
    if type(runs) is not list:
        raise TypeError("no list of messages")
    messages = [StoredMessage(name, value) for name, values in runs for value in values]
    if not {type(message.value) for message in messages} <= {dict} or not {type(name) for name, _ in runs} <= {str}:
        raise TypeError("a message is no object, or its format no name")
    return messages


def _changes(changes: Any) -> dict[str, Any]:
    if type(changes.get("metadata", {})) is not dict or type(changes.get("title")) not in (str, type(None)):
        raise TypeError("no title or metadata")
    return changes  # type: ignore[no-any-return]  # a dict, since it has a method get


def _shape(shape: Any) -> Any:
    if shape is not None and type(shape) not in (str, list):
        raise TypeError("no shape of an answer")
    return shape


def _short(ref: MessageRef) -> int | MessageRef:
    """Return the offset of a message of the record's own entry, else the whole reference."""
    return ref if ref.seq else ref.offset


def _count_or_refs(inputs: tuple[MessageRef, ...]) -> int | list[int | MessageRef]:
    """Return the number of the inputs if they are the first messages of the record's own entry."""
    if all(ref == (0, offset) for offset, ref in enumerate(inputs)):
        return len(inputs)
    return list(map(_short, inputs))


def _inputs(value: Any, count: int) -> tuple[MessageRef, ...]:
    """Return the inputs of a record with ``count`` messages."""
    if type(value) is not int:
        return tuple(map(_ref, value))
    if not 0 <= value <= count:
        raise ValueError("more inputs than messages")
    return tuple(map(_ref, range(value)))


def _ref(value: Any) -> MessageRef:
    return MessageRef(*_ints([0, value] if type(value) is int else value, 2))


def _revision(values: list[Any]) -> Revision:
    seq, index, kept = _ints(values[:3], 3)
    name, value = values[3:]
    if type(value) is not dict or type(name) is not str:
        raise TypeError("a message is no object")
    return Revision(MessageRef(seq, index), kept, StoredMessage(name, value))


def _slot(state: dict[str, Any], base_seq: int, start: list[int] | None, pending: list[int] | None = None) -> Slot:
    if type(state) is not dict:
        raise TypeError("a state is no object")
    _ints([base_seq], 1)
    slot = Slot(state, base_seq, pending=MessageRef(*_ints(pending, 2)) if pending else None)
    if start is None:
        return slot
    seq, index, skip = _ints(start, 3)
    return slot._replace(start=HistoryStart(MessageRef(seq, index), skip))


def _ints(values: list[Any], count: int) -> list[int]:
    if len(values) != count or any(type(value) is not int or value < 0 for value in values):
        raise TypeError(f"not {count} whole numbers")
    return values


def _runs(messages: Iterable[StoredMessage]) -> Iterable[list[Any]]:
    """Yield runs of neighbours of one format, which share its name."""
    for name, run in groupby(messages, key=lambda message: message.format):
        yield [name, [message.value for message in run]]
