"""How much of a session a turn reads: all, a number of turns, or as many as fit into a number of tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from session_history.records.messages import StoredMessage
from session_history.records.record import MessageRef
from session_history.records.values import check_count, copied
from session_history.view import assembly as view


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """As many whole turns as fit, the newest first; none if the newest alone does not fit.

    :ivar tokens: how many there are to spend.
    :ivar count: how many tokens a message takes, of 0 and more. It gets a copy of the stored value.
    """

    tokens: int
    count: Callable[[dict[str, Any]], int] = field(repr=False)

    def __post_init__(self) -> None:
        """:raises ValueError: ``tokens`` is no number of tokens.
        :raises TypeError: ``count`` can not be called.
        """
        if type(self.tokens) is not int or self.tokens < 0:
            raise ValueError("tokens must be a whole number of at least 0")
        if not callable(self.count) or inspect.iscoroutinefunction(self.count):
            raise TypeError("count must be an ordinary function of a message")


Size = int | TokenBudget | None
"""How much of a session a turn reads; ``None``: all of it."""


def size(last_turns: int | None, token_budget: TokenBudget | None) -> Size:
    """The one of both that was given.

    :raises ValueError: both were, or ``last_turns`` is no number of turns.
    :raises TypeError: ``token_budget`` is no budget.
    """
    check_count("last_turns", last_turns)
    if token_budget is None:
        return last_turns
    if not isinstance(token_budget, TokenBudget):
        raise TypeError(f"token_budget must be a TokenBudget, not {type(token_budget).__name__}")
    if last_turns is not None:
        raise ValueError("give last_turns or token_budget, not both")
    return token_budget


class Spending:
    """Spends a budget on the turns of one session, counting none twice.

    :param turn_id: see :func:`session_history.view.assembly.for_model`.
    """

    def __init__(self, budget: TokenBudget, turn_id: str | None) -> None:
        self._budget = budget
        self._turn_id = turn_id
        self._counted: dict[MessageRef, int] = {}

    def newest(self, shown: Sequence[view.TurnView], _: int = 0) -> list[view.TurnView] | None:
        """The newest turns for the model that fit; ``None`` if older ones than the stretch holds may fit, too."""
        left = self._budget.tokens
        visible = view.for_model(shown, self._turn_id)
        for behind, turn in enumerate(reversed(visible)):
            if not turn.whole:
                break
            left -= self._tokens(turn)
            if left < 0:
                return visible[len(visible) - behind :]
        return None

    def _tokens(self, turn: view.TurnView) -> int:
        if turn.place not in self._counted:
            self._counted[turn.place] = sum(map(self._count, turn.messages))
        return self._counted[turn.place]

    def _count(self, message: StoredMessage) -> int:
        tokens = self._budget.count(copied(message.value))
        if type(tokens) is not int:
            raise ValueError(f"the count of a TokenBudget must return an int, not {type(tokens).__name__}")
        if tokens < 0:
            raise ValueError("the count of a TokenBudget must return at least 0")
        return tokens
