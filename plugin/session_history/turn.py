"""One turn: the history before it, what is said in it, and one entry in the end."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from session_history import view
from session_history.answer import TEXT, Shape, from_messages, to_messages
from session_history.errors import Corrupt, SessionDeleted, TurnClosed, TurnIdReused, Unavailable
from session_history.log import SessionLog
from session_history.messages import Message, MessageInput, Stored, freeze, thaw
from session_history.record import Author, Record, Status, new_id
from session_history.repair import Repair, repaired
from session_history.values import encode, plain
from session_history.windows import Window
from session_history_hooks import SessionKey

M = TypeVar("M", default=Message)


class Turn(Generic[M]):
    """A turn that is going on.

    :ivar user_id: whose session it is.
    :ivar session_id: which session it is.
    :ivar id: the id of this turn, unique in its session; a repeat of it stores nothing twice.
    :ivar repairs: what was done so that every tool call in the history has one result; the log is as it was.
    :ivar recorded: what a turn of this id recorded before, else ``None``. If it did, nothing is stored now.
    """

    def __init__(self, log: SessionLog, key: SessionKey, turn_id: str | None, window: Window, *, native: bool) -> None:
        self.user_id: str = key.user_id
        self.session_id: str = key.session_id
        self.id: str = turn_id if turn_id is not None else new_id()
        self._given_id = turn_id
        self._shown = view.flat(window.turns)
        self.repairs: list[Repair]
        self._valid, self.repairs = repaired(self._shown)
        self._log = log
        self._key = key
        self._known = window.head
        self._native = native
        self._messages: list[Stored] = []
        self._inputs = 0
        self._shape: Shape = None
        self._answer: list[int] = []
        self._pieces: list[str] = []
        self._status: Status | None = None
        self._cut_off: Unavailable | None = None
        self._record = window.found
        self._entry_id: str | None = None

    def __repr__(self) -> str:
        return f"Turn(id={self.id!r}, history={len(self._valid)}, messages={len(self._messages)})"

    @cached_property
    def history(self) -> list[M]:
        """What was said before this turn, for the model to see: every tool call in it has one result."""
        return thaw(self._valid, native=self._native)

    @property
    def recorded(self) -> list[M] | None:
        return None if self._record is None else thaw(self._record.messages, native=self._native)

    @property
    def recorded_status(self) -> Literal["completed", "interrupted"] | None:
        """Whether what was recorded is the whole answer; ``None`` if nothing was."""
        if self._record is None:
            return None
        return "completed" if self._record.status is Status.COMPLETED else "interrupted"

    @property
    def messages(self) -> list[M]:
        """What was added to this turn so far."""
        return thaw(self._messages, native=self._native)

    def add(self, messages: MessageInput) -> None:
        """Add to the turn; it is stored when the turn ends, all of it or nothing.

        :raises InvalidMessage: something is no message. Nothing was added.
        :raises NotStorable: something would not come back equal. Nothing was added.
        :raises TurnClosed: the turn has ended.
        :raises Unavailable: the service was stopped during the turn.
        """
        self._take(freeze(messages, native=self._native))

    def _take(self, messages: list[Stored]) -> None:
        self._insist_open()
        self._end_text()
        self._messages += messages

    def _insist_open(self) -> None:
        if self._status is not None:
            raise self._cut_off or TurnClosed("the turn has ended; open another one")

    def _take_input(self, messages: list[Stored]) -> None:
        """Add the input of a decorated handler, which a repeated turn id must share.

        :raises TurnIdReused: the recorded input is another.
        """
        if self._record is not None:
            self._insist_same_input(messages)
        self._take(messages)
        self._inputs = len(messages)

    def _for_handler(self, messages: list[Stored]) -> list[M]:
        """History and input, repaired together: the input may hold results of calls in the history."""
        said, self.repairs = repaired([*self._shown, *messages])
        return thaw(said, native=self._native)

    def _take_answer(self, answer: object) -> None:
        """Add what a decorated handler returned."""
        self._shape, messages = to_messages(answer, native=self._native)
        self._push_answer(messages)

    def _take_streamed(self, item: object) -> None:
        """Add what a decorated handler yielded; pieces of text up to the next message are one message."""
        self._insist_open()
        shapes = self._shape = self._shape if isinstance(self._shape, list) else []
        if isinstance(item, str):
            piece = plain(item)
            encode(piece, "the streamed text")
            self._pieces += [piece] if piece else []  # an empty one, which some send as a sign of life, says nothing
        else:
            shape, messages = to_messages(item, native=self._native)
            self._push_answer(messages)
            shapes.append(shape)

    def _push_answer(self, messages: list[Stored]) -> None:
        self._take(messages)
        self._answer += range(len(self._messages) - len(messages), len(self._messages))

    def _end_text(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            assert isinstance(self._shape, list)
            self._shape.append(TEXT)
            self._answer.append(len(self._messages))
            self._messages += to_messages("".join(pieces), native=self._native)[1]

    def _replay(self) -> Any:
        """The recorded answer, in the shape it had."""
        assert self._record is not None
        try:
            answer = [self._record.messages[index] for index in self._record.answer]
            return from_messages(self._record.shape, iter(answer))
        except (IndexError, StopIteration):
            raise Corrupt(f"the recorded answer of a turn of {self._key} lacks a message") from None

    def _insist_same_input(self, messages: list[Stored]) -> None:
        recorded = self._record.messages[: self._record.inputs] if self._record else ()
        if [_identity(message) for message in messages] != [_identity(message) for message in recorded]:
            raise TurnIdReused(self._key)

    def _close(self, status: Status) -> None:
        self._end_text()
        self._status = status

    async def _store(self) -> None:
        """Store a closed turn; doing it again changes nothing."""
        if self._record is not None or not self._messages:
            return
        record = Record(
            by=Author.TURN,
            base=self._known.tail.seq if self._known else 0,
            messages=tuple(self._messages),
            status=self._status,
            inputs=self._inputs,
            shape=self._shape,
            answer=tuple(self._answer),
            turn_id=self._given_id,
        )
        if self._entry_id is None:  # else this is the second try of one append
            self._entry_id = self.id if record.keeps_its_id else new_id()
        if await self._log.append(self._key, record, known=self._known, entry_id=self._entry_id) is None:
            await self._yield_to_the_first()

    async def _yield_to_the_first(self) -> None:
        """Another run of this turn was faster: what it recorded is the answer."""
        self._record = await self._log.record(self._key, self.id)
        if self._record is None:
            raise SessionDeleted(self._key)
        if self._inputs:
            self._insist_same_input(self._messages[: self._inputs])


def _identity(message: Stored) -> tuple[str, bytes]:
    return message.format, encode(message.value, "message")
