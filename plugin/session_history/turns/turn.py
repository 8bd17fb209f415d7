"""One turn: the history before it, what is said in it, and one entry in the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from session_history.errors import Conflict, Corrupt, NotStorable, SessionDeleted, TurnClosed, TurnIdReused, Unavailable
from session_history.log.leases import LEASE_SECONDS, Lease
from session_history.log.reader import Window
from session_history.log.session_log import SessionLog
from session_history.records.messages import Message, MessageInput, StoredMessage, freeze, thaw
from session_history.records.record import Author, Continuation, HistoryStart, MessageRef, Record, Status, new_id
from session_history.records.values import check, copied, encode, plain
from session_history.turns.answer import TEXT, Shape, from_messages, to_messages
from session_history.turns.draft import Draft
from session_history.view import assembly as view
from session_history.view.repair import Repair, repaired
from session_history_hooks import Entry, Head, Position, SessionKey

M = TypeVar("M", default=Message)

logger: logging.Logger = logging.getLogger("session_history")


class Turn(Generic[M]):
    """A turn that is going on.

    :ivar user_id: whose session it is.
    :ivar session_id: which session it is.
    :ivar id: the id of this turn, unique in its session; a repeat of it stores nothing twice.
    :ivar recorded: what a turn of this id recorded before, else ``None``. If it did, nothing is stored now.
    :ivar state_kept: whether the log took the :attr:`state`: not if another turn stored one since this turn began.
        ``None`` before that is known.
    """

    def __init__(
        self,
        log: SessionLog,
        key: SessionKey,
        turn_id: str | None,
        window: Window,
        *,
        native: bool,
        slot: str | None = None,
    ) -> None:
        self.user_id: str = key.user_id
        self.session_id: str = key.session_id
        self.id: str = turn_id if turn_id is not None else new_id()
        self.state_kept: bool | None = None
        self._given_id = turn_id
        self._window = window
        self._log = log
        self._key = key
        self._known = window.head
        self._lease: Lease | None = None
        self._native = native
        self._slot = slot
        self._state = window.kept.slot.state if window.kept else None
        self._state_at = window.kept.seq if window.kept else 0
        self._draft = Draft()
        self._inputs = 0
        self._shape: Shape = None
        self._answer: list[int] = []
        self._pieces: list[str] = []
        self._status: Status | None = None
        self._alone = True  # nobody else appended since it was opened
        self._cut_off: Unavailable | None = None
        self._last_words: Callable[[BaseException], None] = lambda _: None  # what a runtime adds when it is cut off
        self._record = window.found
        self._pending: tuple[Record, str] | None = None
        self._claim_id = new_id()

    def __repr__(self) -> str:
        return f"Turn(id={self.id!r}, history={len(self._repaired[0])}, messages={len(self._messages)})"

    @cached_property
    def history(self) -> list[M]:
        """What was said before this turn, for the model to see: every tool call in it has one result."""
        return thaw(self._repaired[0], native=self._native)

    @property
    def repairs(self) -> list[Repair]:
        """What was done so that every tool call in the history has one result; the log is as it was."""
        return self._repaired[1]

    @cached_property
    def _placed(self) -> list[tuple[MessageRef, StoredMessage]]:
        """What was said before this turn, as it was said."""
        kept = self._window.kept
        return view.behind(self._window.turns, kept.begin) if kept and kept.begin else view.placed(self._window.turns)

    @cached_property
    def _said(self) -> Sequence[StoredMessage]:
        kept = self._window.kept
        return [message for _, message in self._placed] if kept and kept.begin else view.flat(self._window.turns)

    @cached_property
    def _repaired(self) -> tuple[Sequence[StoredMessage], list[Repair]]:
        return repaired(self._said)

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
    def state(self) -> dict[str, Any] | None:
        """What the agent of this turn's slot knows besides the messages; set it, to any JSON object, to store it, too.

        :raises LookupError: the turn was opened without a slot.
        :raises NotStorable: when set to something that would not come back equal.
        :raises TurnClosed: when set after the turn has ended.
        """
        self._insist_slot()
        return None if self._state is None else dict(copied(self._state))

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        kept = self._window.kept
        self._keep(state, kept.begin if kept else None)

    def _insist_slot(self) -> str:
        if self._slot is None:
            raise LookupError('this turn has no slot for a state: open it with turn(..., slot="name of the agent")')
        return self._slot

    def _go_on(self, place: MessageRef) -> int:
        """Go on with the turn of a message of the history; the message's index in this turn from now on."""
        turn = next(turn for turn in reversed(self._window.turns) if turn.holds(place))
        message = turn.messages[turn.places().index(place)]
        self._draft.go_on(Continuation(turn.place.seq, turn.newest), place, message)
        return len(self._messages) - 1

    def _keep(self, state: dict[str, Any], begin: HistoryStart | None, pending: MessageRef | None = None) -> None:
        slot = self._insist_slot()
        self._insist_open()
        if type(state) is not dict:
            raise NotStorable("state", f"must be a dict, not {type(state).__name__}")
        check(state, "state")
        self._state = copied(state)
        self._draft.keep(slot, self._state, begin, pending)

    @property
    def messages(self) -> list[M]:
        """What was added to this turn so far."""
        return thaw(self._messages, native=self._native)

    @property
    def _messages(self) -> list[StoredMessage]:
        return self._draft.messages

    def add(self, messages: MessageInput) -> None:
        """Add to the turn; it is stored when the turn ends, all of it or nothing.

        :raises InvalidMessage: something is no message. Nothing was added.
        :raises NotStorable: something would not come back equal. Nothing was added.
        :raises TurnClosed: the turn has ended.
        :raises Unavailable: the service was stopped during the turn.
        """
        self._take(freeze(messages, native=self._native))

    def _take(self, messages: list[StoredMessage]) -> None:
        self._insist_open()
        self._end_text()
        self._draft.add(messages)

    def _insist_open(self) -> None:
        if self._status is not None:
            raise self._cut_off or TurnClosed("the turn has ended; open another one")

    def _take_input(self, messages: list[StoredMessage]) -> None:
        """Add the input of a decorated handler, which a repeated turn id must share.

        :raises TurnIdReused: the recorded input is another.
        """
        if self._record is not None:
            self._insist_same_input(messages)
        self._take(messages)
        self._inputs = len(messages)

    def _for_handler(self, messages: list[StoredMessage]) -> list[M]:
        """History and input, repaired together: the input may hold results of calls in the history."""
        self._repaired = repaired([*self._said, *messages])
        return thaw(self._repaired[0], native=self._native)

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

    def _push_answer(self, messages: list[StoredMessage]) -> None:
        self._take(messages)
        self._answer += range(len(self._messages) - len(messages), len(self._messages))

    def _end_text(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            assert isinstance(self._shape, list)
            self._shape.append(TEXT)
            self._answer.append(len(self._messages))
            self._draft.add(to_messages("".join(pieces), native=self._native)[1])

    def _replay(self) -> Any:
        """The recorded answer, in the shape it had."""
        assert self._record is not None
        try:
            answer = [self._record.messages[index] for index in self._record.answer]
            return from_messages(self._record.shape, iter(answer))
        except (IndexError, StopIteration):
            raise Corrupt(f"the recorded answer of a turn of {self._key} lacks a message") from None

    def _insist_same_input(self, messages: list[StoredMessage]) -> None:
        recorded = self._record.messages[: self._record.inputs] if self._record else ()
        if [_identity(message) for message in messages] != [_identity(message) for message in recorded]:
            raise TurnIdReused(self._key)

    def _close(self, status: Status) -> None:
        self._end_text()
        self._status = status

    async def _claim(self) -> None:
        """Make the session this turn's own; doing it again changes nothing.

        :raises SessionBusy: it is another turn's.
        :raises Conflict: the session is not what it was when it was read.
        """
        record = Record(by=Author.TURN, base=self._base, status=Status.OPEN, lease=LEASE_SECONDS)
        entry = Entry(self._claim_id, record.encode())
        moved = await self._log.append_at(self._key, entry, record, self._known)
        if moved is None:
            moved, seq, _ = await self._stored_before(entry.id)
            if moved.tail.seq != seq:  # another turn has taken this one for dead by now
                raise Conflict(moved)
        self._known = moved
        self._lease = self._lease or Lease(self._log.provider, self._key, self._tail)
        if self._status is not None:  # the service was stopped meanwhile
            try:
                await self._store(self._status)
            finally:
                self._end_lease()
                self._lease = None

    def _tail(self) -> Position:
        assert self._known is not None
        return self._known.tail

    def _end_lease(self) -> None:
        if self._lease is not None:
            self._lease.end()

    @property
    def _base(self) -> int:
        head = self._window.head
        return head.tail.seq if head else 0

    async def _store(self, status: Status) -> None:
        """Store what is not stored yet; doing it again changes nothing.

        :param status: how the turn stands.
        """
        while pending := self._pending or self._next_entry(status):
            self._pending = pending
            record, entry_id = pending
            moved = await self._append(record, entry_id)
            stored = (moved, moved.tail.seq, record) if moved else await self._stored_before(entry_id)
            if self._pending is not pending:
                continue  # another task that stores this turn was told first
            self._pending = None
            if moved is None and entry_id == self.id:
                self._yield_to_the_first(stored[2])
            else:
                await self._stored(*stored)

    def _next_entry(self, status: Status) -> tuple[Record, str] | None:
        if self._record is not None:
            return None
        record = self._draft.record(
            status,
            must=self._lease is not None and self._status is not None,
            on=self._state_at,
            base=self._base,
            inputs=self._inputs,
            shape=self._shape,
            answer=tuple(self._answer),
            turn_id=self._given_id,
            lease=LEASE_SECONDS if self._lease and status is Status.OPEN and self._status is None else None,
        )
        if record is None:
            return None
        return record, self.id if record.keeps_its_id and record.part is None else new_id()

    async def _append(self, record: Record, entry_id: str) -> Head | None:
        if self._lease is None:
            return await self._log.append(self._key, record, known=self._known, entry_id=entry_id)
        assert self._known is not None
        return await self._log.append_next(self._key, record, mine=self._known, entry_id=entry_id)

    async def _stored_before(self, entry_id: str) -> tuple[Head, int, Record]:
        """What an attempt of this append stored whose outcome was not known."""
        found = await self._log.find(self._key, entry_id)
        if found is None:
            raise SessionDeleted(self._key)
        return found

    async def _stored(self, head: Head, seq: int, record: Record) -> None:
        self._draft.stored(seq, record)
        self._alone = self._alone and seq == (self._known.tail.seq if self._known else 0) + 1
        self._known = head
        if record.lease is None:
            self._end_lease()
            self._lease = None
        if record.slots:
            summary = await self._log.summary(self._key, head)
            self.state_kept = summary.slots.get(self._insist_slot()) == seq
            if not self.state_kept:
                logger.warning(
                    "%s: the state of %r is not stored: another turn stored one meanwhile", self._key, self._slot
                )
            self._state_at = seq if self.state_kept else self._state_at

    def _yield_to_the_first(self, record: Record) -> None:
        """Another run of this turn was faster: what it recorded is the answer."""
        self._record = record
        if self._inputs:
            self._insist_same_input(self._messages[: self._inputs])


def _identity(message: StoredMessage) -> tuple[str, bytes]:
    return message.format, encode(message.value, "message")
