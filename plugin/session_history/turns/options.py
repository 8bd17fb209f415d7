"""The options of a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from session_history.records.messages import StoredMessage
from session_history.turns.input import Input
from session_history.view.budget import TokenBudget

Concurrent = Literal["keep", "reject", "queue"]
"""The policy for turns of one session that go on at once: keep both, in the order in which they end; reject the later
one; or let it wait for the earlier one."""

OnRepeat = Literal["replay", "rerun"]
"""The policy for a repeat of a turn that was interrupted: return the part of its answer that there is, or run again."""

PATIENCE = 300.0
"""Seconds that a turn waits for another one by default."""


class TurnPolicies(TypedDict, total=False):
    """Options that all turns of a handler share, see :meth:`session_history.SessionHistoryService.turn`."""

    last_turns: int | None
    token_budget: TokenBudget | None
    slot: str | None
    concurrent: Concurrent
    patience: float
    durable: bool
    on_repeat: OnRepeat
    alternate: bool


class TurnOptions(TurnPolicies, total=False):
    """Options of a turn, see :meth:`session_history.SessionHistoryService.turn`."""

    input: Input | Sequence[StoredMessage] | None
    turn_id: str | None
