"""What an entry holds: the payload of the log, and its bytes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any

from session_history.errors import Corrupt, IncompatibleStore
from session_history.messages import Stored
from session_history.values import decode, encode
from session_history_hooks import SessionKey

VERSION = 1


class Author(StrEnum):
    """What wrote an entry."""

    TURN = "turn"
    APPEND = "append"
    SESSION = "session"


class Status(StrEnum):
    """How a turn ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


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
    :ivar shape: the shape of the handler's answer, see :mod:`session_history.answer`.
    :ivar answer: the indexes of the messages that are the answer; the handler may have added others.
    :ivar turn_id: the id that the caller gave the turn. The entry has another one if the turn had no answer, so that it
        can be tried again.
    """

    by: Author
    base: int
    messages: tuple[Stored, ...] = field(default=(), repr=False)
    at_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    changes: dict[str, Any] = field(default_factory=dict, repr=False)
    status: Status | None = None
    inputs: int = 0
    shape: Any = None
    answer: tuple[int, ...] = ()
    turn_id: str | None = None

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
        }
        document |= {name: value for name, value in optional.items() if value not in (None, 0, {}) or name == "shape"}
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
        messages = [Stored(name, value) for name, values in document["runs"] for value in values]
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
        )


def _runs(messages: Iterable[Stored]) -> Iterable[list[Any]]:
    """Neighbours of one format share its name."""
    for name, run in groupby(messages, key=lambda message: message.format):
        yield [name, [message.value for message in run]]
