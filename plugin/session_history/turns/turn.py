"""A turn as it is asked for, and as users hold it: the history before it, and what is said in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, get_args

from typing_extensions import TypeVar

from session_history.errors import InvalidMessage, NotStorable, TranscriptEdited
from session_history.log.reader import TurnWindow, WindowSize, window_size
from session_history.records.markers import Marker
from session_history.records.messages import WORDS, Message, MessageInput, StoredMessage, check_fits, freeze, thaw
from session_history.records.produced import is_words, produced_or_refused
from session_history.records.record import HistoryStart, MessageRef, Status
from session_history.records.values import check, copied
from session_history.turns.draft import Draft
from session_history.turns.input import Input, frozen_input
from session_history.turns.options import PATIENCE, Concurrent, OnRepeat
from session_history.turns.writer import Writer
from session_history.view.assembly import messages_of, with_refs
from session_history.view.budget import TokenBudget
from session_history.view.repair import Repair, repaired
from session_history.view.selection import own_history
from session_history.view.transcript import is_known, unsaid
from session_history_hooks import SessionKey, check_key

M = TypeVar("M", default=Message)


_CONCURRENT = get_args(Concurrent)
_ON_REPEAT = get_args(OnRepeat)


@dataclass(slots=True)
class TurnRequest:
    """A turn that is asked for. Its options are checked when it is made.

    :ivar messages: the input.
    :ivar size: that of the window.
    """

    key: SessionKey
    native: bool
    input: InitVar[Input | Sequence[StoredMessage] | None] = None
    turn_id: str | None = None
    last_turns: InitVar[int | None] = None
    token_budget: InitVar[TokenBudget | None] = None
    slot: str | None = None
    concurrent: Concurrent = "keep"
    patience: float = PATIENCE
    durable: bool = False
    on_repeat: OnRepeat = "replay"
    alternate: bool = False
    messages: Sequence[StoredMessage] = field(init=False, repr=False)
    size: WindowSize = field(init=False)

    def __post_init__(
        self,
        input: Input | Sequence[StoredMessage] | None,  # noqa: A002 - the field's word
        last_turns: int | None,
        token_budget: TokenBudget | None,
    ) -> None:
        """Check the options.

        :raises InvalidKey: the turn id or the slot cannot be a key.
        :raises ValueError: the window, a policy or the patience is not one; or a durable turn has no input.
        :raises InvalidMessage: the input is not text, a message or a list of them.
        :raises NotStorable: the input would not come back equal.
        """
        for name, value in (("turn_id", self.turn_id), ("slot", self.slot)):
            if value is not None:
                check_key(name, value)
        self.size = window_size(last_turns, token_budget)
        _check_choice("concurrent", self.concurrent, _CONCURRENT)
        _check_choice("on_repeat", self.on_repeat, _ON_REPEAT)
        if type(self.patience) not in (int, float) or not 0 <= self.patience < float("inf"):
            raise ValueError(f"patience must be a number of seconds of at least 0, not {self.patience!r}")
        self.messages = () if input is None else frozen_input(input, native=self.native)
        if self.durable and not self.messages:
            raise ValueError("durable=True stores the input before the handler runs: give the input, as input=…")


def check_options(**options: Any) -> None:
    """Check the options of all turns of a decorator or a middleware. :raises ValueError: see :class:`TurnRequest`."""
    TurnRequest(SessionKey("-", "-"), native=True, input="-", **options)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


class Prompt:
    """The messages that a model gets: the history of a window, and perhaps new input, repaired together."""

    def __init__(self, window: TurnWindow, *, alternate: bool = False) -> None:
        self._window = window
        self._alternate = alternate
        self._repaired: tuple[Sequence[StoredMessage], list[Repair]] | None = None

    @cached_property
    def history(self) -> list[tuple[MessageRef, StoredMessage]]:
        """Return the messages before the turn as they were said, each with its reference."""
        start = self._start
        return own_history(self._window.turns, start) if start else with_refs(self._window.turns)

    @property
    def messages(self) -> Sequence[StoredMessage]:
        return self._repaired_now()[0]

    @property
    def repairs(self) -> list[Repair]:
        return self._repaired_now()[1]

    @property
    def omitted(self) -> int:
        return self._window.omitted

    def replace(self, messages: Sequence[StoredMessage]) -> None:
        """Take these messages in place of the history."""
        is_text = all([message.is_text for message in messages])  # noqa: C419 - a list is faster
        is_fine = is_text and not self._alternate
        self._repaired = (messages, []) if is_fine else repaired(messages, alternate=self._alternate)

    def unsaid(self, messages: Sequence[StoredMessage], turn_id: str) -> Sequence[StoredMessage]:
        """Return messages without those that the session has already, by their ids."""
        if not any(["id" in message.value for message in messages]):  # noqa: C419 - a list is faster
            return messages
        return unsaid(messages, self._window.turns, turn_id, earlier=self._window.turns_read)

    def has(self, message: StoredMessage) -> bool:
        """Tell whether the session has a message of this id."""
        return is_known(message, self._window.turns)

    def said(self) -> list[StoredMessage]:
        """Return the messages before the turn as they were said."""
        return [message for _, message in self.history] if self._start else messages_of(self._window.turns)

    @property
    def _start(self) -> HistoryStart | None:
        return self._window.state.start if self._window.state else None

    def _repaired_now(self) -> tuple[Sequence[StoredMessage], list[Repair]]:
        if self._repaired is None:
            self.replace(self.said())
        assert self._repaired is not None
        return self._repaired


class SlotState:
    """The state of the agent of a turn, as it was read or set last.

    :ivar slot: the name of the agent; ``None`` if the turn was opened without one.
    """

    def __init__(self, slot: str | None, window: TurnWindow, draft: Draft) -> None:
        self.slot = slot
        self._draft = draft
        self._start = window.state.start if window.state else None
        self._value = window.state.value if window.state else None

    @property
    def value(self) -> dict[str, Any] | None:
        return self._value

    def require_slot(self) -> str:
        """Return the name of the agent. :raises LookupError: the turn was opened without one."""
        if self.slot is None:
            raise LookupError('this turn has no slot for a state: open it with slot="name of the agent"')
        return self.slot

    def set(self, value: dict[str, Any]) -> None:
        """Set the state; the agent's own history begins where it did."""
        self.save(value, self._start, None)

    def save(self, value: dict[str, Any], start: HistoryStart | None, pending: MessageRef | None) -> None:
        """Set the state. :raises NotStorable: it would not come back equal."""
        slot = self.require_slot()
        self._draft.require_open()
        if type(value) is not dict:
            raise NotStorable("state", f"must be a dict, not {type(value).__name__}")
        check(value, "state")
        self._value = copied(value)
        self._draft.save_state(slot, self._value, start, pending)


class Turn(Generic[M]):
    """A turn that is going on.

    :ivar user_id: the user of the session.
    :ivar session_id: the session.
    :ivar id: the id of this turn, unique in its session; a repeat of it stores nothing twice.
    """

    def __init__(
        self,
        key: SessionKey,
        turn_id: str,
        *,
        native: bool,
        prompt: Prompt,
        state: SlotState,
        draft: Draft,
        writer: Writer,
    ) -> None:
        self.user_id: str = key.user_id
        self.session_id: str = key.session_id
        self.id: str = turn_id
        self._native = native
        self._prompt = prompt
        self._state = state
        self._draft = draft
        self._writer = writer

    def __repr__(self) -> str:
        return f"Turn(id={self.id!r}, history={len(self._prompt.messages)}, messages={len(self._draft.messages)})"

    @cached_property
    def history(self) -> list[M]:
        """The messages before this turn, as the model's API accepts them."""
        return thaw(self._prompt.messages, native=self._native)

    @property
    def repairs(self) -> list[Repair]:
        """The changes without which the model's API would refuse the history. The log stays as it is."""
        return self._prompt.repairs

    @property
    def omitted(self) -> int:
        """The number of the session's messages that the window leaves out, by turns or by tokens."""
        return self._prompt.omitted

    @property
    def recorded(self) -> list[M] | None:
        """The messages that a turn of this id recorded before, else ``None``. If it did, nothing is stored now."""
        recorded = self._writer.recorded
        return None if recorded is None else thaw(recorded.messages, native=self._native)

    @property
    def recorded_status(self) -> Literal["completed", "interrupted"] | None:
        """The status of the recorded turn: ``"interrupted"`` if its answer is partial; ``None`` if none is recorded."""
        if self._writer.recorded is None:
            return None
        return "completed" if self._writer.recorded.status is Status.COMPLETED else "interrupted"

    @property
    def state(self) -> dict[str, Any] | None:
        """The state of the agent whose slot the turn was opened with. Set it, to any JSON object, to store it, too.

        :raises LookupError: the turn was opened without a slot.
        :raises NotStorable: when set to something that would not come back equal.
        :raises TurnClosed: when set after the turn has ended.
        """
        self._state.require_slot()
        return None if self._state.value is None else dict(copied(self._state.value))

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._state.set(state)

    @property
    def state_kept(self) -> bool | None:
        """Tell whether the log took the :attr:`state`. It does not if another turn stored one since this turn began.

        ``None`` before that is known.
        """
        return self._writer.state_kept

    @property
    def messages(self) -> list[M]:
        """The messages that were added to this turn so far."""
        return thaw(self._draft.messages, native=self._native)

    @property
    def markers(self) -> list[Marker]:
        """The parts of what was added that are not stored as they were, each with its path and its type."""
        return list(self._draft.markers)

    def add(self, messages: MessageInput) -> None:
        """Add messages to the turn. They are stored when the turn ends, all or none.

        Words of the user are checked. What a model or a tool produced is kept in any case: a part that cannot be
        stored is named in :attr:`markers`. If the first call brings a whole transcript, what the session has already is
        not added again.

        :raises InvalidMessage: words of the user are not a message, or nothing is. Nothing was added.
        :raises NotStorable: words of the user would not come back equal. Nothing was added.
        :raises LimitExceeded: words of the user are larger than an entry. Nothing was added.
        :raises TurnIdReused: the turn was recorded with other words of the user.
        :raises TranscriptEdited: it repeats messages of the session, but not as they are. Nothing was added.
        :raises TurnClosed: the turn has ended.
        :raises Unavailable: the service was stopped during the turn.
        """
        markers: list[Marker] = []
        try:
            kept: Sequence[StoredMessage] = freeze(messages, native=self._native)
        except (InvalidMessage, NotStorable):
            kept, markers = produced_or_refused(messages, len(self._draft.messages), native=self._native)
        if not self._draft.messages and self._writer.recorded is None:
            given, kept = kept, self._unsaid(kept)
            if len(kept) < len(given):
                self._writer.warn_of_transcript()
        if all([message.role in WORDS and (message.is_text or is_words(message.value)) for message in kept]):  # noqa: C419 - a list is faster
            check_fits(kept, self._writer.entry_bytes)
        self._draft.add(kept)
        if markers:
            self._draft.note(markers)
        if self._writer.recorded is not None:
            self._writer.require_same_words()

    def _unsaid(self, messages: Sequence[StoredMessage]) -> Sequence[StoredMessage]:
        """Return messages without those that the session has.

        What ends with words of the model may be new although its ids are not: some SDKs repeat ids.
        """
        is_input = not messages or messages[-1].role in WORDS
        try:
            new = self._prompt.unsaid(messages, self.id)
        except TranscriptEdited:
            if is_input or self._prompt.has(messages[-1]):
                raise
            return messages
        return new if new or is_input else messages
