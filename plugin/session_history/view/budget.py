"""Windows by a number of tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.records.record import MessageRef
from session_history.records.values import copied
from session_history.view.assembly import TurnView, for_model


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """As many whole turns as fit, the newest first; none if the newest turn does not fit.

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
            raise ValueError("tokens must be a whole number of at least 0")
        if not callable(self.count) or inspect.iscoroutinefunction(self.count):
            raise TypeError("count must be an ordinary function of a message")


class BudgetedWindow:
    """Fills a window of one session within a budget. It counts no turn twice.

    :param turn_id: see :func:`session_history.view.assembly.for_model`.
    """

    def __init__(
        self,
        budget: TokenBudget,
        turn_id: str | None,
        *,
        input: Sequence[StoredMessage] = (),  # noqa: A002 - the field's word
    ) -> None:
        self._budget = budget
        self._turn_id = turn_id
        self._counted: dict[MessageRef, int] = {}

    def newest(self, turns: Sequence[TurnView], _: int = 0) -> list[TurnView] | None:
        """Return the newest turns for the model that fit; ``None`` if older turns than those at hand may fit, too."""
        left = self._budget.tokens
        visible = for_model(turns, self._turn_id)
        for back, turn in enumerate(reversed(visible)):
            if not turn.whole:
                break
            left -= self._tokens(turn)
            if left < 0:
                return visible[len(visible) - back :]
        return None

    def _tokens(self, turn: TurnView) -> int:
        if turn.start not in self._counted:
            self._counted[turn.start] = sum(map(self._count, turn.messages))
        return self._counted[turn.start]

    def _count(self, message: StoredMessage) -> int:
        tokens = self._budget.count(copied(message.value))
        if type(tokens) is not int:
            raise ValueError(f"the count of a TokenBudget must return an int, not {type(tokens).__name__}")
        if tokens < 0:
            raise ValueError("the count of a TokenBudget must return at least 0")
        return tokens
