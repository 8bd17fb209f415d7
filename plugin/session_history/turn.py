"""One turn: the history before it, what is said in it, and one entry in the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar
from uuid import uuid4

from typing_extensions import TypeVar as TypeVarWithDefault

from session_history import view
from session_history.answer import TEXT, Shape, from_messages, to_messages
from session_history.errors import Corrupt, SessionDeleted, SessionHistoryError, TurnClosed, TurnIdReused, Unavailable
from session_history.log import PATIENCE, SessionLog, Window
from session_history.messages import Message, MessageInput, Stored, copied, freeze, thaw
from session_history.record import Author, Record, Status
from session_history.values import encode, plain
from session_history_hooks import SessionKey, check_key

M = TypeVarWithDefault("M", default=Message)
T = TypeVar("T")

logger: logging.Logger = logging.getLogger("session_history")

_LOOK_AGAIN = 0.005
"""Seconds between two looks at turns that are being stored, perhaps by another event loop."""

INTERRUPTIONS = (asyncio.CancelledError, GeneratorExit, TimeoutError, KeyboardInterrupt, SystemExit)
"""What ends a turn from outside: its partial answer counts. Any other exception is the handler's failure."""


class Turn(Generic[M]):
    """A turn that is going on.

    :ivar user_id: whose session it is.
    :ivar session_id: which session it is.
    :ivar id: the id of this turn, unique in its session; a repeat of it stores nothing twice.
    :ivar history: what was said before this turn, for the model to see.
    :ivar recorded: what a turn of this id recorded before, else ``None``. If it did, nothing is stored now.
    """

    def __init__(self, log: SessionLog, key: SessionKey, turn_id: str | None, window: Window, *, native: bool) -> None:
        self.user_id: str = key.user_id
        self.session_id: str = key.session_id
        self.id: str = turn_id if turn_id is not None else uuid4().hex
        self._given_id = turn_id
        self._spare_id = uuid4().hex
        self.history: list[M] = thaw(view.flat(window.turns), native=native)
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

    def __repr__(self) -> str:
        return f"Turn(id={self.id!r}, history={len(self.history)}, messages={len(self._messages)})"

    @property
    def recorded(self) -> list[M] | None:
        return None if self._record is None else thaw(copied(self._record.messages), native=self._native)

    @property
    def messages(self) -> list[M]:
        """What was added to this turn so far."""
        return thaw(copied(self._messages), native=self._native)

    def add(self, messages: MessageInput) -> None:
        """Add to the turn; it is stored when the turn ends, all of it or nothing.

        :raises InvalidMessage: something is no message. Nothing was added.
        :raises NotStorable: something would not come back equal. Nothing was added.
        :raises TurnClosed: the turn has ended.
        :raises Unavailable: the service was stopped during the turn.
        """
        self._take(freeze(messages, native=self._native))

    def _take(self, messages: list[Stored]) -> None:
        if self._status is not None:
            raise self._cut_off or TurnClosed("the turn has ended; open another one")
        self._end_text()
        self._messages += messages

    def _take_input(self, messages: list[Stored]) -> None:
        """Add the input of a decorated handler, which a repeated turn id must share.

        :raises TurnIdReused: the recorded input is another.
        """
        if self._record is not None:
            self._insist_same_input(messages)
        self._take(messages)
        self._inputs = len(messages)

    def _take_answer(self, answer: object) -> None:
        """Add what a decorated handler returned."""
        self._shape, messages = to_messages(answer, native=self._native)
        self._push_answer(messages)

    def _take_streamed(self, item: object) -> None:
        """Add what a decorated handler yielded; pieces of text up to the next message are one message."""
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
            answer = copied(self._record.messages[index] for index in self._record.answer)
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
        entry_id = self.id if record.keeps_its_id else self._spare_id
        if await self._log.append(self._key, record, known=self._known, entry_id=entry_id) is None:
            await self._yield_to_the_first()

    async def _yield_to_the_first(self) -> None:
        """Another run of this turn was faster: what it recorded is the answer."""
        self._record = await self._log.record(self._key, self.id)
        if self._record is None:
            raise SessionDeleted(self._key)
        if self._inputs:
            self._insist_same_input(self._messages[: self._inputs])


class OpenTurn(Generic[M]):
    """Loads a session, hands out the turn, and stores what the turn said. The data path of every skin.

    :param turns: the turns that are open, this one included while it is.
    """

    def __init__(
        self,
        log: SessionLog,
        key: SessionKey,
        turns: Turns,
        *,
        turn_id: str | None,
        last_turns: int | None,
        native: bool,
    ) -> None:
        self._log = log
        self._key = key
        self._turns = turns
        self._turn_id = check_key("turn_id", turn_id) if turn_id is not None else None
        self._last_turns = last_turns
        self._native = native
        self._turn: Turn[M] | None = None

    async def __aenter__(self) -> Turn[M]:
        await self._turns.ready()
        window = await self._log.for_turn(self._key, self._last_turns, self._turn_id)
        if window.head is not None and window.head.deleted:
            raise SessionDeleted(self._key)
        self._turn = Turn(self._log, self._key, self._turn_id, window, native=self._native)
        self._turns.add(self._turn)
        return self._turn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        turn = self._turn
        assert turn is not None
        if error is not None:
            status = Status.INTERRUPTED if isinstance(error, INTERRUPTIONS) else Status.FAILED
            await self._turns.end_early(turn, status, error)
        elif turn._cut_off is not None and turn._messages:
            raise turn._cut_off
        else:
            await self._turns.end(turn, Status.COMPLETED)


class Turns:
    """The turns of a service that are not stored yet.

    :param ready: makes sure that the service may be used.
    """

    def __init__(self, ready: Callable[[], Awaitable[None]]) -> None:
        self.ready = ready
        self._open: set[Turn[Any]] = set()

    def add(self, turn: Turn[Any]) -> None:
        self._open.add(turn)

    async def end(self, turn: Turn[Any], status: Status) -> None:
        """Store a turn, unless it has ended; also if the caller is cancelled meanwhile."""
        if turn._status is None and _a_loop_is_running():
            turn._close(status)
            await settled(lambda: self._store(turn))

    async def end_early(self, turn: Turn[Any], status: Status, error: BaseException) -> None:
        """Store a turn that did not end well. The error that ended it goes on, whatever becomes of this."""
        try:
            await self.end(turn, status)
        except SessionHistoryError as lost:
            _tell_of_loss(turn, lost, error)
        except asyncio.CancelledError as cancelled:
            if isinstance(cancelled.__cause__, SessionHistoryError):
                _tell_of_loss(turn, cancelled.__cause__, error)
            raise

    async def interrupt_all(self) -> None:
        """End what is open: a stream that nobody closed would otherwise be lost. Wait for what is being stored."""
        deadline = time.monotonic() + PATIENCE
        endings = [asyncio.ensure_future(self._cut_off(turn)) for turn in self._open if turn._status is None]
        if endings:
            await asyncio.wait(endings, timeout=PATIENCE)
        while self._open and time.monotonic() < deadline:  # noqa: ASYNC110 - an Event belongs to one loop
            await asyncio.sleep(_LOOK_AGAIN)

    async def _cut_off(self, turn: Turn[Any]) -> None:
        turn._cut_off = Unavailable("the service was stopped during the turn, which is stored as interrupted")
        try:
            await self.end(turn, Status.INTERRUPTED)
        except SessionHistoryError as lost:
            turn._cut_off = Unavailable("the service was stopped during the turn, which could not be stored")
            turn._cut_off.__cause__ = lost
            _tell_of_loss(turn, lost, turn._cut_off)

    async def _store(self, turn: Turn[Any]) -> None:
        try:
            await turn._store()
        finally:
            self._open.discard(turn)


async def settled(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Finish work although the caller is cancelled meanwhile; the cancellation goes on afterwards.

    If the work failed, too, its error is the cancellation's cause. A loop that shuts down cancels the work itself, too:
    it is then done again, once.

    :param work: doing it twice must be the same as doing it once.
    """
    cancelled: asyncio.CancelledError | None = None
    for _ in range(2):
        task = asyncio.ensure_future(work())
        # If this is dropped before the work is done, nobody asks for the work's error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if not task.cancelled():
            break
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


def _a_loop_is_running() -> bool:
    """Python may end what was left suspended when its loop is closed. Then ``stop()`` stores the turn."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tell_of_loss(turn: Turn[Any], lost: SessionHistoryError, error: BaseException) -> None:
    logger.error("a turn of %s could not be stored: %r", turn._key, lost)
    error.add_note(f"session-history: the turn could not be stored: {lost!r}")


def _identity(message: Stored) -> tuple[str, bytes]:
    return message.format, encode(message.value, "message")
