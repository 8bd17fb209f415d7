"""A turn that is asked for: its session, its input and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, get_args

from session_history.log.reader import WindowSize, window_size
from session_history.records.messages import StoredMessage
from session_history.turns.input import Input, frozen_input
from session_history.turns.options import PATIENCE, Concurrent, OnRepeat
from session_history.view.budget import TokenBudget
from session_history_hooks import SessionKey, check_key

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
            raise ValueError("patience must be a number of seconds of at least 0")
        self.messages = () if input is None else frozen_input(input, native=self.native)
        if self.durable and not self.messages:
            raise ValueError("durable=True stores the input before the handler runs: give the input, as input=…")


def check_options(**options: Any) -> None:
    """Check the options of all turns of a decorator or a middleware. :raises ValueError: see :class:`TurnRequest`."""
    TurnRequest(SessionKey("-", "-"), native=True, input="-", **options)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}")
