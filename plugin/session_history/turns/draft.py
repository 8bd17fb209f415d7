"""The draft of a turn: its messages so far, and the records made of them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from session_history.errors import TurnClosed, Unavailable
from session_history.records.fitting import count_fitting, fitted
from session_history.records.markers import Marker
from session_history.records.messages import StoredMessage, room_of, size_of
from session_history.records.record import (
    Author,
    Continuation,
    HistoryStart,
    MessageRef,
    Record,
    Revision,
    Slot,
    Status,
)
from session_history.records.values import encode_checked
from session_history.turns.answer import TEXT, AnswerShape, text_answer
from session_history.view.effects import is_harmless


class StoredPart(NamedTuple):
    """The beginning of a turn that stands in the log.

    :ivar messages: how many of the turn's messages.
    :ivar continues: how the next entry names the turn; ``None`` if none stands there.
    :ivar status: that of the newest entry.
    """

    messages: int = 0
    continues: Continuation | None = None
    status: Status | None = None


class Draft:
    """The messages of a turn, of which some may be stored already.

    :param turn_id: the id that the caller gave the turn, if any.
    :param base: seq of the newest entry that the turn's author saw.
    :param state_seq: seq of the entry with the state that a new one is based on; 0 without one.
    :ivar messages: in their newest versions.
    :ivar status: how the turn ended; ``None`` while it takes more.
    :ivar stop_error: why the turn takes no more, if the service was stopped.
    :ivar stored_status: status of the newest record that stands in the log.
    :ivar markers: what is not stored as it was produced, each once, in order.
    """

    def __init__(self, *, turn_id: str | None, base: int, state_seq: int, native: bool) -> None:
        self.messages: list[StoredMessage] = []
        self.status: Status | None = None
        self.stop_error: Unavailable | None = None
        self.stored_status: Status | None = None
        self.markers: dict[Marker, None] = {}
        self.state_seq = state_seq
        self._turn_id = turn_id
        self._base = base
        self._native = native
        self._refs: list[MessageRef] = []  # to the messages that are stored, which come first
        self._stored: dict[int, StoredMessage] = {}  # messages that were revised since, as the log has them
        self._recorded: list[StoredMessage] = []  # all messages, as they were when the newest record was made
        self._slots: dict[str, Slot] = {}
        self._recorded_slots: dict[str, Slot] = {}
        self._continues: Continuation | None = None
        self._lost_past = False
        self._inputs: list[int] = []
        self._answer: list[int] = []
        self._shape: AnswerShape = None
        self._pieces: list[str] = []  # of the text that is being streamed
        self._text_index: int | None = None  # of the message that holds the text so far

    def require_open(self) -> None:
        """Check that the turn still takes messages. :raises TurnClosed: it has ended."""
        if self.status is not None:
            raise self.stop_error or TurnClosed("the turn has ended; open another one")

    def close(self, status: Status) -> None:
        self.end_text()
        self.status = status

    def add(self, messages: Sequence[StoredMessage]) -> int:
        """Add messages; return the index of the first."""
        self.require_open()
        if self._pieces:
            self.end_text()
        self.messages += messages
        return len(self.messages) - len(messages)

    def note(self, markers: Iterable[Marker]) -> None:
        """Note what is not stored as it was produced."""
        self.markers.update(dict.fromkeys(markers))

    def add_input(self, messages: Sequence[StoredMessage]) -> None:
        first = self.add(messages)
        self._inputs += range(first, len(self.messages))

    def inputs(self) -> list[StoredMessage]:
        return [self.messages[index] for index in self._inputs]

    def add_answer(self, messages: Sequence[StoredMessage], shape: AnswerShape, *, streamed: bool = False) -> int:
        """Add an answer, or a further item of a streamed one; return the index of its first message."""
        first = self.add(messages)
        if streamed:
            self._answer += range(first, len(self.messages))
            self._item_shapes().append(shape)
        else:  # what was streamed before is a message, and not the answer
            self._answer = list(range(first, len(self.messages)))
            self._shape = shape
        return first

    def add_piece(self, text: str) -> None:
        """Add a piece of a streamed text. Pieces up to the next message become one message."""
        self.require_open()
        self._item_shapes()
        if text:  # an empty piece is a sign of life and says nothing
            self._pieces.append(text)

    def flush_text(self) -> None:
        """Make a message of the streamed text so far. Further pieces revise it."""
        if not self._pieces:
            return
        index = len(self.messages) if self._text_index is None else self._text_index
        message, markers = text_answer("".join(self._pieces), f"messages[{index}]", native=self._native)
        self.note(markers)
        if self._text_index is None:
            self._item_shapes().append(TEXT)
            self._text_index = len(self.messages)
            self._answer.append(self._text_index)
            self.messages.append(message)
        else:
            self._replace(self._text_index, message)

    def end_text(self) -> None:
        """End the text that is being streamed: further pieces are another message."""
        self.flush_text()
        self._pieces, self._text_index = [], None

    def _item_shapes(self) -> list[Any]:
        if not isinstance(self._shape, list):
            self._shape = []
        return self._shape

    def withdraw_answer(self) -> None:
        """Leave the turn without an answer, since another run of it was stored first."""
        self._answer, self._shape = [], None

    def revise(self, index: int, message: StoredMessage) -> None:
        """Put a later version in the place of a message."""
        self.require_open()
        self._replace(index, message)

    def _replace(self, index: int, message: StoredMessage) -> None:
        if not 0 <= index < len(self.messages):
            raise IndexError(f"this turn has no message {index}; it has {len(self.messages)}")
        earlier = self.messages[index]
        if index < len(self._refs) and _differ(earlier, message):
            self._stored.setdefault(index, earlier)
        self.messages[index] = message

    def resume(self, continues: Continuation, ref: MessageRef, message: StoredMessage) -> int:
        """Continue a turn that was left open, and a message of it; return the index of the message.

        :raises ValueError: messages were added before.
        """
        self.require_open()
        if ref in self._refs:
            return self._refs.index(ref)
        if len(self.messages) > len(self._refs) or (self._continues and self._continues.first != continues.first):
            raise ValueError("resume a turn before you add messages, and only one turn")
        self._continues = self._continues or continues
        self.messages.append(message)
        self._refs.append(ref)
        return len(self.messages) - 1

    def save_state(
        self, slot: str, state: dict[str, Any], start: HistoryStart | None, pending: MessageRef | None
    ) -> None:
        self.require_open()
        if not self._lost_past:
            self._slots[slot] = Slot(state, 0, start, pending)

    @property
    def has_state(self) -> bool:
        return bool(self._slots)

    def ref(self, index: int) -> MessageRef:
        """Return a reference to a message. A seq of 0 stands for the record that is made next."""
        return self._refs[index] if index < len(self._refs) else MessageRef(0, index - len(self._refs))

    @property
    def stored(self) -> StoredPart:
        """Return what of the turn stands in the log."""
        return StoredPart(len(self._refs), self._continues, self.stored_status)

    def begin_anew(self, base: int, part: StoredPart) -> None:
        """Forget what was stored behind a part, since it is lost. The state is, too: it may tell of what was lost.

        :param base: seq of the newest entry of the log as it is now.
        """
        self._lost_past, self._base = True, base
        self._refs, self._slots = self._refs[: part.messages], {}
        # The log may have earlier versions of these messages than were stored last.
        self._stored = {index: StoredMessage(self.messages[index].format, {}) for index in range(part.messages)}
        _, self._continues, self.stored_status = part

    def record(self, status: Status, *, lease: float | None, required: bool) -> Record | None:
        """Return what is not stored yet; ``None`` if that is nothing.

        :param status: how the turn stands now.
        :param lease: see :class:`~session_history.records.record.Record`.
        :param required: return a record in any case.
        """
        new = tuple(self.messages[len(self._refs) :])
        revisions = tuple(_revision(self._refs[at], old, self.messages[at]) for at, old in self._stored.items())
        ends_open_turn = self.stored_status is Status.OPEN and status is not Status.OPEN
        if not (new or revisions or self._slots or ends_open_turn or required):
            return None
        self._recorded, self._recorded_slots = list(self.messages), dict(self._slots)
        is_end = status is not Status.OPEN
        return Record(
            by=Author.TURN,
            base=self._base,
            messages=new,
            status=status,
            inputs=tuple(map(self.ref, self._inputs)) if is_end else (),
            shape=self._shape if is_end else None,
            answer=tuple(map(self.ref, self._answer)) if is_end else (),
            turn_id=self._turn_id,
            continues=self._continues,
            revisions=revisions,
            unseen=status is Status.FAILED and not self._continues and all(map(is_harmless, new)),
            slots={name: slot._replace(base_seq=self.state_seq) for name, slot in self._slots.items()},
            lease=lease,
        )

    def part(self, record: Record, limit: int, lease: float | None) -> Record | None:
        """Return the first part of a record that is too large for one entry. The turn stays open behind it.

        :param limit: the bytes of an entry.
        :param lease: see :class:`~session_history.records.record.Record`.
        :returns: ``None`` if there is nothing to part.
        """
        sizes = [*map(size_of, record.messages), *(size_of(revision.message) for revision in record.revisions)]
        count = count_fitting(sizes, room_of(limit))
        if count == len(sizes) and not record.slots:
            count -= 1
        if count <= 0:
            return None
        messages = record.messages[:count]
        return replace(
            record,
            messages=messages,
            revisions=record.revisions[: count - len(messages)],
            status=Status.OPEN,
            inputs=(),
            shape=None,
            answer=(),
            slots={},
            unseen=False,
            lease=lease,
        )

    def fit(self, limit: int) -> bool:
        """Put markers in the place of what is too large for any entry; return whether there was something.

        :param limit: the bytes of an entry.
        """
        room = room_of(limit)
        known = len(self.markers)
        for index in range(len(self._refs), len(self.messages)):
            self.messages[index] = self._fitted(self.messages[index], room, index)
        for index, earlier in self._stored.items():
            self._fit_revision(index, earlier, room)
        if len(self.markers) == known and self._slots:
            self.note([Marker("state", "dict", "too large")])
            self._slots = {}
        return len(self.markers) > known

    def _fit_revision(self, index: int, earlier: StoredMessage, room: int) -> None:
        _, kept, new = _revision(self._refs[index], earlier, self.messages[index])
        message = self._fitted(new, room, index)
        if message is new:
            return
        value = message.value
        if kept:
            content = value["content"] if isinstance(value["content"], list) else [value["content"]]
            value = value | {"content": [*self.messages[index].value["content"][:kept], *content]}
        self.messages[index] = StoredMessage(new.format, value)

    def _fitted(self, message: StoredMessage, room: int, index: int) -> StoredMessage:
        if size_of(message) <= room:
            return message
        value, markers = fitted(message.value, room, f"messages[{index}]")
        smaller = StoredMessage(message.format, value)
        if size_of(smaller) >= size_of(message):
            return message
        self.note(markers)
        return smaller

    def mark_stored(self, seq: int, record: Record) -> None:
        """Note that the newest record stands in the log. It lacks what was said since it was made."""
        revised = {self._refs.index(revision.ref) for revision in record.revisions}
        left = {index: earlier for index, earlier in self._stored.items() if index not in revised}
        self._refs += [MessageRef(seq, index) for index in range(len(record.messages))]
        pairs = enumerate(zip(self._recorded[: len(self._refs)], self.messages, strict=False))
        self._stored = {index: earlier for index, (earlier, message) in pairs if _differ(earlier, message)} | left
        if self._slots:
            stored = self._recorded_slots if record.slots else {}
            new = [(name, slot) for name, slot in self._slots.items() if slot is not stored.get(name)]
            self._slots = {name: _moved(slot, seq, len(record.messages)) for name, slot in new}
        self.stored_status = record.status
        if record.messages or self._continues:
            self._continues = Continuation(self._continues.first if self._continues else seq, seq)


def _moved(slot: Slot, seq: int, count: int) -> Slot:
    """Return a state that is not stored yet, after a record with ``count`` messages was stored at ``seq``."""

    def moved(ref: MessageRef) -> MessageRef:
        if ref.seq:
            return ref
        return MessageRef(seq, ref.offset) if ref.offset < count else MessageRef(0, ref.offset - count)

    return slot._replace(
        start=slot.start and slot.start._replace(ref=moved(slot.start.ref)),
        pending=slot.pending and moved(slot.pending),
    )


def _differ(one: StoredMessage, other: StoredMessage) -> bool:
    return one is not other and not (one.value == other.value and _same(one.value, other.value))


def _revision(ref: MessageRef, old: StoredMessage, new: StoredMessage) -> Revision:
    kept = _common_blocks(old.value.get("content"), new.value.get("content"))
    value = new.value | {"content": new.value["content"][kept:]} if kept else new.value
    return Revision(ref, kept, StoredMessage(new.format, value))


def _common_blocks(old: Any, new: Any) -> int:
    """Return how many blocks at the beginning of two contents are the same."""
    if not isinstance(old, list) or not isinstance(new, list):
        return 0
    pairs = enumerate(zip(old, new, strict=False))
    return next((index for index, (one, other) in pairs if not _same(one, other)), min(len(old), len(new)))


def _same(one: Any, other: Any) -> bool:
    return one is other or encode_checked(one) == encode_checked(other)
