"""What an entry holds: the payload of the log, and its bytes."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple

from session_history.errors import Corrupt, IncompatibleStore, InvalidCursor
from session_history.records.messages import StoredMessage
from session_history.records.values import decode, encode
from session_history_hooks import SessionKey

VERSION = 1


class Author(StrEnum):
    """What wrote an entry."""

    TURN = "turn"
    APPEND = "append"
    SESSION = "session"


class Status(StrEnum):
    """How a turn ended; or that more of it is to come, at least if its author still lives."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")


class MessageRef(NamedTuple):
    """Where a message stands in a log: the seq of its entry, and its index in that."""

    seq: int
    message: int

    def cursor(self, generation: int) -> str:
        return f"{generation}.{self.seq}.{self.message}"

    @staticmethod
    def of_cursor(cursor: str) -> tuple[int, MessageRef]:
        """Generation and place. :raises InvalidCursor: not made by :meth:`cursor`."""
        match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        if match is None:
            raise InvalidCursor("not a cursor of a session")
        generation, seq, index = map(int, match.groups())
        return generation, MessageRef(seq, index)


class Continuation(NamedTuple):
    """Which turn an entry goes on with.

    :ivar first: seq of the turn's first entry.
    :ivar newest: seq of the turn's newest entry that the author knew.
    """

    first: int
    newest: int


class Revision(NamedTuple):
    """A later version of a message of the same turn.

    :ivar place: where its first version stands.
    :ivar kept: how many blocks of its content, from the first, stay as they were. They are left out of ``message``.
    """

    place: MessageRef
    kept: int
    message: StoredMessage


class HistoryStart(NamedTuple):
    """Where the history begins that an agent still keeps word by word; the rest is in its summary.

    :ivar place: the message at which it begins. A seq of 0 is that of the entry that says so.
    :ivar skip: how many blocks of that message it does not keep.
    """

    place: MessageRef
    skip: int


class Slot(NamedTuple):
    """The state of one agent in a session.

    :ivar on: seq of the entry that held the state on which this one is based; 0 if there was none.
    :ivar pending: a message that the agent is to see, whatever the window, since it waits for somebody in it. A seq of
        0 is that of the entry that says so.
    """

    state: dict[str, Any]
    on: int
    begin: HistoryStart | None = None
    pending: MessageRef | None = None

    def __repr__(self) -> str:
        return f"Slot(on={self.on})"


def new_id() -> str:
    """An id for an entry. Ids made later sort later, so that a store's index of them grows at its end."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError)
_AUTHORS = {author.value: author for author in Author}
_STATUSES: dict[str | None, Status | None] = {None: None} | {status.value: status for status in Status}


@dataclass(slots=True)  # not frozen: a frozen one takes three times as long to make, and a load makes many
class Record:
    """One atomic batch.

    :ivar at_us: when its author wrote it, by the author's clock: to be shown, never to be sorted by.
    :ivar base: seq of the newest entry that the author saw.
    :ivar changes: new values of ``title`` and ``metadata``, of those that change.
    :ivar inputs: how many of the messages, from the first, are a decorated handler's input.
    :ivar shape: the shape of the handler's answer, see :mod:`session_history.turns.answer`.
    :ivar answer: the indexes of the messages that are the answer; the handler may have added others.
    :ivar turn_id: the id that the caller gave the turn. The entry has another one if the turn had no answer, so that it
        can be tried again.
    :ivar part: the turn that this entry goes on with, if it is not its first.
    :ivar slots: the states that changed, by the names of their agents.
    :ivar lease: while this entry is the tail, its author alone may append; seconds without a sign of life after which
        the author is taken for dead.
    """

    by: Author
    base: int
    messages: tuple[StoredMessage, ...] = field(default=(), repr=False)
    at_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    changes: dict[str, Any] = field(default_factory=dict, repr=False)
    status: Status | None = None
    inputs: int = 0
    shape: Any = None
    answer: tuple[int, ...] = ()
    turn_id: str | None = None
    part: Continuation | None = None
    revisions: tuple[Revision, ...] = field(default=(), repr=False)
    slots: dict[str, Slot] = field(default_factory=dict)
    lease: float | None = None

    @property
    def keeps_its_id(self) -> bool:
        """Whether there is an answer to give to a repeat of this turn; else its id stays free for another attempt."""
        return self.status is Status.COMPLETED or (self.status is Status.INTERRUPTED and bool(self.answer))

    def encode(self) -> bytes:
        document: dict[str, Any] = {"v": VERSION, "by": self.by.value, "base": self.base, "at": self.at_us}
        if self.status is not None:
            document["status"] = self.status.value
        optional = {
            "inputs": self.inputs,
            "shape": self.shape,
            "answer": list(self.answer),
            "turn": self.turn_id,
            "changes": self.changes,
            "part": self.part,
            "revisions": [[*place, kept, new.format, new.value] for place, kept, new in self.revisions],
            "slots": {
                name: [state, on, begin and [*begin.place, begin.skip], pending]
                for name, (state, on, begin, pending) in self.slots.items()
            },
            "lease": self.lease,
        }
        document |= {
            name: value for name, value in optional.items() if value not in (None, 0, {}, []) or name == "shape"
        }
        document["runs"] = list(_runs(self.messages))
        return encode(document, "entry", wrapped=True)

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
        messages = [StoredMessage(name, value) for name, values in document["runs"] for value in values]
        if not {type(message.value) for message in messages} <= {dict}:
            raise TypeError("a message is no object")
        return cls(
            by=_AUTHORS[document["by"]],
            base=document["base"],
            messages=tuple(messages),
            at_us=document["at"],
            changes=get("changes", {}),
            status=_STATUSES[get("status")],
            inputs=get("inputs", 0),
            shape=get("shape"),
            answer=tuple(get("answer", ())),
            turn_id=get("turn"),
            part=Continuation(*_ints(document["part"], 2)) if "part" in document else None,
            revisions=tuple(map(_revision, document["revisions"])) if "revisions" in document else (),
            slots={name: _slot(*slot) for name, slot in get("slots", {}).items()},
            lease=get("lease"),
        )


def _revision(values: list[Any]) -> Revision:
    seq, index, kept = _ints(values[:3], 3)
    name, value = values[3:]
    if type(value) is not dict:
        raise TypeError("a message is no object")
    return Revision(MessageRef(seq, index), kept, StoredMessage(name, value))


def _slot(state: dict[str, Any], on: int, begin: list[int] | None, pending: list[int] | None = None) -> Slot:
    if type(state) is not dict:
        raise TypeError("a state is no object")
    _ints([on], 1)
    slot = Slot(state, on, pending=MessageRef(*_ints(pending, 2)) if pending else None)
    if begin is None:
        return slot
    seq, index, skip = _ints(begin, 3)
    return slot._replace(begin=HistoryStart(MessageRef(seq, index), skip))


def _ints(values: list[Any], count: int) -> list[int]:
    if len(values) != count or any(type(value) is not int for value in values):
        raise TypeError(f"not {count} whole numbers")
    return values


def _runs(messages: Iterable[StoredMessage]) -> Iterable[list[Any]]:
    """Neighbours of one format share its name."""
    for name, run in groupby(messages, key=lambda message: message.format):
        yield [name, [message.value for message in run]]
