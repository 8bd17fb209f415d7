"""The past of a turn: a state that an agent kept, and the turn that was answered under the same id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from session_history.errors import Corrupt
from session_history.records.messages import StoredMessage
from session_history.records.record import HistoryStart, MessageRef, Record, Slot, Status
from session_history.records.values import copied
from session_history_hooks import SessionKey


class StoredState(NamedTuple):
    """A state as the log keeps it.

    :ivar seq: seq of the entry with the state.
    :ivar base: seq of the newest entry that the entry's author had seen.
    :ivar value: a copy of the state.
    :ivar start: where the agent's own history begins; ``None`` for the whole session.
    :ivar pending: the message in which the agent waits for an answer.
    """

    seq: int
    base: int
    value: dict[str, Any]
    start: HistoryStart | None = None
    pending: MessageRef | None = None

    def __repr__(self) -> str:
        return f"StoredState(seq={self.seq})"

    @classmethod
    def of(cls, seq: int, base: int, slot: Slot) -> StoredState:
        absolute = slot.resolved(seq)
        return cls(seq, base, copied(absolute.state), absolute.start, absolute.pending)


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """A turn that was answered before.

    :ivar shape: the shape of its answer, see :mod:`session_history.turns.answer`.
    :ivar rerun_id: the id of the entry that answers the turn if it runs again.
    """

    status: Status | None
    messages: Sequence[StoredMessage] = field(repr=False)
    inputs: Sequence[StoredMessage] = field(repr=False)
    answer: Sequence[StoredMessage] = field(repr=False)
    shape: Any
    rerun_id: str = ""

    @classmethod
    def of(cls, record: Record, messages: Mapping[MessageRef, StoredMessage], key: SessionKey) -> RecordedTurn:
        """Return the turn that a record answers.

        :param messages: those of the turn.
        :raises Corrupt: one that the record names is not there.
        """
        try:
            inputs, answer = ([messages[ref] for ref in refs] for refs in (record.inputs, record.answer))
        except LookupError:
            raise Corrupt(f"the recorded answer of a turn of {key} lacks a message") from None
        return cls(record.status, list(messages.values()), inputs, answer, record.shape)
