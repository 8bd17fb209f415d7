"""The recorder: the one interface between a turn and its driver, such as a decorated handler or a runtime's adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic

from session_history.errors import Corrupt
from session_history.log.recorded import StoredState
from session_history.records.markers import Marker
from session_history.records.messages import StoredMessage
from session_history.records.record import Continuation, HistoryStart, MessageRef, Status
from session_history.records.salvage import salvaged
from session_history.records.values import flaw_of, plain
from session_history.turns.answer import VALUE, from_messages, to_messages
from session_history.turns.input import checked_messages, require_stored
from session_history.turns.lifecycle import OpenTurn, OpenTurns, enter, run_to_completion
from session_history.turns.turn import M, Turn
from session_history_hooks import Head, SessionKey


class TurnRecorder(Generic[M]):
    """Drives one turn: takes its input and its answer, and decides when it is stored.

    A recorder comes from :meth:`session_history.SessionHistoryService.record_turn`. The turn is stored when that
    context ends; :meth:`checkpoint` stores it earlier, too.

    :ivar turn: the turn as its users see it.
    :ivar key: the session.
    """

    def __init__(self, opened: OpenTurn[M], turns: OpenTurns) -> None:
        self.turn: Turn[M] = opened.turn
        self.key: SessionKey = opened.key
        self._opened = opened
        self._turns = turns
        self._draft = opened.draft
        self._writer = opened.writer

    def __repr__(self) -> str:
        return f"TurnRecorder({self.turn!r})"

    # Before the model

    @property
    def is_replay(self) -> bool:
        """Tell whether this turn was answered before: then nothing is stored, and :meth:`replay` has the answer."""
        return self._writer.recorded is not None

    @property
    def history(self) -> Sequence[tuple[MessageRef, StoredMessage]]:
        """The messages before this turn, verbatim and not repaired, each with its reference."""
        return self._opened.prompt.history

    @property
    def stored_state(self) -> StoredState | None:
        """The state of the turn's slot, as the log has it; ``None`` without one."""
        return self._opened.window.state

    @property
    def loaded_version(self) -> str | None:
        """The version of the log when the turn was opened, see :attr:`version`; ``None`` for a session never seen."""
        return _version(self._opened.window.head)

    @property
    def input(self) -> Sequence[StoredMessage]:
        """The input of this turn, without what a client sent again."""
        return self._draft.inputs()

    def add_input(self, messages: Sequence[StoredMessage]) -> None:
        """Add input that was not known when the turn was opened. A repeat of this turn's id must bring the same one.

        :raises TurnIdReused: the turn was recorded with another input.
        :raises TurnClosed: the turn has ended.
        """
        self._draft.add_input(checked_messages(messages))
        if self.is_replay:
            self._writer.require_same_input(is_whole=False)

    def prompt(
        self,
        new: Sequence[StoredMessage] = (),
        *,
        convert: Callable[[StoredMessage], StoredMessage] | None = None,
    ) -> Sequence[StoredMessage]:
        """Return what the model gets: the history and new messages, as the model's API accepts them.

        :param new: messages behind the history. They may hold results of calls in the history.
        :param convert: brings each message of the history into the runtime's own format first.
        """
        said = self._opened.prompt.said()
        self._opened.prompt.replace([*(map(convert, said) if convert else said), *new])
        return self._opened.prompt.messages

    def enter(self) -> None:
        """Note that the running task is in this turn, if it is exclusive: the parts of a stream may run in several."""
        if self._writer.is_exclusive:
            enter(self._writer)

    # While the model answers

    @property
    def messages(self) -> Sequence[StoredMessage]:
        """The messages of this turn so far, in their newest versions."""
        return self._draft.messages

    def add(self, messages: Sequence[StoredMessage], *, answer: bool = False) -> int:
        """Add messages; return the index of the first in this turn, for :meth:`revise`.

        What cannot be stored of them is marked, see :meth:`note_markers`.

        :param answer: they are the answer, or a part of it: :meth:`replay` gives their values to a repeat of this turn.
        :raises TurnClosed: the turn has ended.
        """
        first = len(self._draft.messages)
        kept = [self._kept(message, first + at) for at, message in enumerate(require_stored(messages))]
        if not answer:
            return self._draft.add(kept)
        indexes = [self._draft.add_answer([message], VALUE, streamed=True) for message in kept]
        return indexes[0] if indexes else first

    def note_markers(self, markers: Iterable[Marker]) -> None:
        """Note what the messages of this turn lack of what was produced.

        ``turn.markers`` lists it, and the log warns of it.
        """
        self._draft.note(markers)

    def add_answer(self, answer: object) -> None:
        """Add the answer as a handler returned it: text, messages, lists of them, or ``None``.

        What cannot be stored of it is marked, see :meth:`note_markers`.

        :raises InvalidMessage: nothing in it is any of these.
        """
        shape, messages, markers = to_messages(answer, native=self._opened.native, first=len(self._draft.messages))
        self._draft.add_answer(messages, shape)
        self._draft.note(markers)

    def add_piece(self, item: object) -> None:
        """Add an item of a streamed answer. Pieces of text up to the next message are one message.

        :raises InvalidMessage: see :meth:`add_answer`.
        """
        self._draft.require_open()
        if isinstance(item, str):
            self._draft.add_piece(plain(item))
            return
        self._draft.end_text()
        shape, messages, markers = to_messages(item, native=self._opened.native, first=len(self._draft.messages))
        self._draft.add_answer(messages, shape, streamed=True)
        self._draft.note(markers)

    def revise(self, index: int, message: StoredMessage) -> None:
        """Put a later version in the place of a message of this turn, also of one that is stored already.

        :param index: the index of the message in this turn.
        :raises IndexError: this turn has no such message.
        """
        (given,) = require_stored([message])
        self._draft.revise(index, self._kept(given, index))

    def _kept(self, message: StoredMessage, index: int) -> StoredMessage:
        """Return a message of an adapter as it can be stored."""
        if flaw_of(message.value) is None:
            return message
        self._draft.require_open()
        value, markers = salvaged(message.value, f"messages[{index}]")
        self._draft.note(markers)
        return StoredMessage(message.format, value)

    def resume(self, ref: MessageRef) -> int:
        """Continue the turn of a message of the history. What is added from now on belongs to that turn.

        Call it before you add anything. Another message of the same turn may be resumed, too.

        :returns: the index of the message in this turn, for :meth:`revise`.
        :raises LookupError: the history has no such message.
        :raises ValueError: messages were added before, or another turn was resumed.
        """
        turns = self._opened.window.turns
        turn = next((turn for turn in reversed(turns) if turn.contains(ref)), None)
        if turn is None:
            raise LookupError(f"the history has no message at {tuple(ref)}")
        message = turn.messages[turn.refs().index(ref)]
        return self._draft.resume(Continuation(turn.start.seq, turn.newest_seq), ref, message)

    def ref(self, index: int) -> MessageRef:
        """Return a reference to a message of this turn, for :meth:`save_state`."""
        return self._draft.ref(index)

    def save_state(
        self, state: dict[str, Any], *, start: HistoryStart | None = None, pending: MessageRef | None = None
    ) -> None:
        """Store the agent's state with the next entry of this turn.

        :param start: where the history begins that the agent keeps word by word.
        :param pending: the message in which the agent waits for an answer from outside.
        :raises LookupError: the turn was opened without a slot.
        :raises NotStorable: the state would not come back equal.
        """
        self._opened.state.save(state, start, pending)

    # Storing

    async def checkpoint(self, status: Status = Status.OPEN) -> None:
        """Store what the turn said so far. It is stored also if the caller is cancelled meanwhile.

        A turn with an id may have checkpoints, too: only the entry that ends the turn carries its answer, so a repeat
        finds either the whole answer, or makes another attempt.

        :param status: how the turn stands. A turn with an id stays open until its context ends.
        :raises ValueError: the turn has an id, and the status ends it.
        :raises TurnClosed: the turn has ended.
        """
        self._draft.require_open()
        if status is not Status.OPEN and self._writer.is_named:
            raise ValueError("a turn with an id ends with its context; a checkpoint leaves it open")
        self._draft.flush_text()
        await run_to_completion(lambda: self._writer.store(status))

    def park(self) -> None:
        """Leave the turn open when its context ends: it waits for an answer from outside, and is resumed later."""
        self._opened.outcome = Status.OPEN

    def on_stop(self, callback: Callable[[BaseException], None]) -> None:
        """Have ``callback`` add what is left, if the service is stopped before the turn ends.

        :param callback: gets the error that the turn ends with. It may add messages, and must not wait.
        """
        self._opened.on_stop = callback

    async def abandon(self) -> None:
        """Store the turn as interrupted, since its consumer left without closing it."""
        await self._turns.end_early(self._opened, Status.INTERRUPTED, GeneratorExit())

    # Afterwards

    def replay(self) -> Any:
        """Return the recorded answer, in the shape it had. Only if :attr:`is_replay`.

        :raises TurnIdReused: the turn was recorded with another input.
        :raises Corrupt: the record lacks a message of the answer.
        """
        recorded = self._writer.recorded
        if recorded is None:
            raise LookupError("this turn was not answered before")
        if self._draft.inputs():
            self._writer.require_same_input()
        try:
            return from_messages(recorded.shape, iter(recorded.answer))
        except StopIteration:
            raise Corrupt(f"the recorded answer of a turn of {self.key} lacks a message") from None

    @property
    def version(self) -> str | None:
        """The version of the log at the newest entry that this turn knows of; ``None`` for a session never seen.

        Two versions are equal only if the log was neither appended to, nor rewritten, nor lost in between.
        """
        return _version(self._writer.head)

    @property
    def lost_past(self) -> bool:
        """Tell whether the store lost what this turn knew of the session, while it was open."""
        return self._writer.lost_past

    @property
    def is_in_sync(self) -> bool:
        """Tell whether the log holds just the loaded history and what this turn stored, state included."""
        return self._writer.is_contiguous and self._writer.state_kept is not False and self._writer.is_idle


def _version(head: Head | None) -> str | None:
    return f"{head.tail_origin} {head.rewrite_id}" if head else None
