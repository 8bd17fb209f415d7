"""Windows by a number of tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from session_history.errors import TranscriptEdited
from session_history.records.messages import StoredMessage
from session_history.records.record import MessageRef
from session_history.records.values import copied
from session_history.view.assembly import TurnView, for_model
from session_history.view.groups import group_starts, input_count
from session_history.view.selection import FARTHEST
from session_history.view.transcript import unsaid


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """As many whole turns as fit, the newest first, beside the input of the next turn.

    A newest turn that alone does not fit is cut: its input stays if it fits, and as many of its newest messages as fit.
    A call and its results stay together.

    :ivar tokens: the most tokens of a window.
    :ivar count: returns the tokens of a message, 0 or more. It gets a copy of the stored value.
    """

    tokens: int
    count: Callable[[dict[str, Any]], int] = field(repr=False)

    def __post_init__(self) -> None:
        """Check the fields.

        :raises ValueError: ``tokens`` is not a number of tokens.
        :raises TypeError: ``count`` cannot be called.
        """
        if type(self.tokens) is not int or self.tokens < 0:
            raise ValueError(f"tokens must be a whole number of at least 0, not {self.tokens!r}")
        if not callable(self.count) or inspect.iscoroutinefunction(self.count):
            raise TypeError("count must be an ordinary function of a message")


class BudgetedWindow:
    """Fills a window of one session within a budget. It counts no message twice.

    :param turn_id: see :func:`session_history.view.assembly.for_model`.
    :param input: messages that are to follow the window. The budget pays for them first.
    """

    def __init__(self, budget: TokenBudget, turn_id: str | None, *, input: Sequence[StoredMessage] = ()) -> None:  # noqa: A002 - the field's name
        self._budget = budget
        self._turn_id = turn_id
        self._input = input
        self._counted: dict[MessageRef, list[int]] = {}
        self._counted_input: dict[int, int] = {}

    def newest(self, turns: Sequence[TurnView], _: int = 0) -> list[TurnView] | None:
        """Return the newest turns for the model that fit; ``None`` if older turns than those at hand may fit, too.

        If the newest turn alone does not fit, it is cut: see :attr:`session_history.view.assembly.TurnView.hidden`.
        """
        visible = for_model(turns, self._turn_id)
        left = self._left(visible)
        if left < 0:
            return []
        for back, turn in enumerate(reversed(visible)):
            if not turn.whole:
                break
            tokens = sum(self._tokens(turn))
            if tokens > left:
                return visible[len(visible) - back :] if back else self._cut(turn, left)
            left -= tokens
        is_far = len(turns) >= max(FARTHEST, 8 * len(visible))
        return [turn for turn in visible if turn.whole] if is_far else None

    def _cut(self, turn: TurnView, left: int) -> list[TurnView]:
        """Return a turn with its input, if that fits, and its newest groups that fit; nothing if none does."""
        tokens = self._tokens(turn)
        kept = input_count(turn.messages)
        if sum(tokens[:kept]) > left:
            kept = 0
        left -= sum(tokens[:kept])
        start = len(tokens)
        for begin in reversed(group_starts(turn.messages)):
            left -= sum(tokens[begin:start])
            if begin < kept or left < 0:
                break
            start = begin
        hidden = range(kept, start)
        return [replace(turn, hidden=hidden)] if len(hidden) < len(tokens) else []

    def _left(self, turns: Sequence[TurnView]) -> int:
        """Return the tokens that the input leaves, of which the session may have a part already."""
        try:
            new = unsaid(self._input, turns, self._turn_id)
        except TranscriptEdited:  # which refuses the turn
            new = ()
        for message in new:
            if id(message) not in self._counted_input:
                self._counted_input[id(message)] = self._count(message)
        return self._budget.tokens - sum(self._counted_input[id(message)] for message in new)

    def _tokens(self, turn: TurnView) -> list[int]:
        """Return the tokens of each message of a turn."""
        if turn.start not in self._counted:
            self._counted[turn.start] = list(map(self._count, turn.messages))
        return self._counted[turn.start]

    def _count(self, message: StoredMessage) -> int:
        tokens = self._budget.count(copied(message.value))
        if type(tokens) is not int:
            raise ValueError(f"the count of a TokenBudget must return an int, not {type(tokens).__name__}")
        if tokens < 0:
            raise ValueError("the count of a TokenBudget must return at least 0")
        return tokens
