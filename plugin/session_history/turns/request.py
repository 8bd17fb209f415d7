"""A turn that is asked for: its options, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast, get_args

from pydantic import BaseModel

from session_history.errors import InvalidMessage
from session_history.log.reader import WindowSize, window_size
from session_history.records.messages import MessageInput, Role, StoredMessage, freeze, text_message
from session_history.records.values import check, plain
from session_history.view.budget import TokenBudget
from session_history_hooks import SessionKey, check_key

Concurrent = Literal["keep", "reject", "queue"]
"""The policy for turns of one session that go on at once: keep both, in the order in which they end; reject the later
one; or let it wait for the earlier one."""

OnRepeat = Literal["replay", "rerun"]
"""The policy for a repeat of a turn that was interrupted: return the part of its answer that there is, or run again."""

Input = str | MessageInput
"""The new input of a turn: text of the user, or messages."""

PATIENCE = 300.0
"""Seconds that a turn waits for another one by default."""


class TurnOptions(TypedDict, total=False):
    """Options of a turn, see :meth:`session_history.SessionHistoryService.turn`."""

    input: Input | Sequence[StoredMessage] | None
    turn_id: str | None
    last_turns: int | None
    token_budget: TokenBudget | None
    slot: str | None
    concurrent: Concurrent
    patience: float
    durable: bool
    on_repeat: OnRepeat
    alternate: bool


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A turn that is asked for, with checked options."""

    key: SessionKey
    native: bool
    input: Sequence[StoredMessage] = field(repr=False)
    turn_id: str | None
    size: WindowSize
    slot: str | None
    concurrent: Concurrent
    patience: float
    durable: bool
    on_repeat: OnRepeat
    alternate: bool

    @classmethod
    def of(
        cls,
        key: SessionKey,
        *,
        native: bool,
        input: Input | Sequence[StoredMessage] | None = None,  # noqa: A002 - the field's word
        turn_id: str | None = None,
        last_turns: int | None = None,
        token_budget: TokenBudget | None = None,
        slot: str | None = None,
        concurrent: Concurrent = "keep",
        patience: float = PATIENCE,
        durable: bool = False,
        on_repeat: OnRepeat = "replay",
        alternate: bool = False,
    ) -> TurnRequest:
        """Check the options.

        :raises InvalidKey: the turn id or the slot cannot be a key.
        :raises ValueError: the window, a policy or the patience is not one; or a durable turn has no input.
        :raises InvalidMessage: the input is not text, a message or a list of them.
        :raises NotStorable: the input would not come back equal.
        """
        _check_choice("on_repeat", on_repeat, OnRepeat)
        messages = frozen_input(input, native=native)
        if durable and not messages:
            raise ValueError("durable=True stores the input before the handler runs: give the input, as input=…")
        return cls(
            key,
            native,
            messages,
            check_key("turn_id", turn_id) if turn_id is not None else None,
            window_size(last_turns, token_budget),
            check_key("slot", slot) if slot is not None else None,
            check_concurrent(concurrent),
            _check_patience(patience),
            durable,
            on_repeat,
            alternate,
        )


def check_options(*, native: bool = True, **options: Any) -> None:
    """Check the options of the turns of a decorator or a middleware. :raises ValueError: see :meth:`TurnRequest.of`."""
    TurnRequest.of(SessionKey("-", "-"), native=native, input="-", **options)


def frozen_input(value: Input | Sequence[StoredMessage] | None, *, native: bool) -> list[StoredMessage]:
    """Return an input as messages.

    :raises InvalidMessage: it is none.
    :raises NotStorable: it would not come back equal.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return freeze(text_message(Role.USER, plain(value), native=native), native=native)
    if isinstance(value, bytes) or not isinstance(value, (BaseModel, dict, Sequence)):
        raise InvalidMessage(
            "the input", f"must be text, a Message, a dict or a list of them, not {type(value).__name__}"
        )
    if isinstance(value, Sequence) and any(isinstance(message, StoredMessage) for message in value):
        return checked_messages(value)
    return freeze(cast("MessageInput", value), native=native)


def checked_messages(messages: Any) -> list[StoredMessage]:
    """Return stored messages of an adapter.

    :raises TypeError: not a list of stored messages.
    :raises NotStorable: one was made past the checks, and would not come back equal.
    """
    for index, message in enumerate(require_stored(messages)):
        check(message.value, f"messages[{index}]")
    return list(messages)


def require_stored(messages: Any) -> Sequence[StoredMessage]:
    """Return the messages. :raises TypeError: not a list of stored messages."""
    if isinstance(messages, StoredMessage) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of StoredMessage, not {type(messages).__name__}")
    for index, message in enumerate(messages):
        if not isinstance(message, StoredMessage):
            kind = type(message).__name__
            raise TypeError(f"messages[{index}] must be a StoredMessage, not {kind}; StoredMessage.checked makes one")
    return messages


def check_concurrent(concurrent: Concurrent) -> Concurrent:
    """Return the policy. :raises ValueError: not one of those that there are."""
    _check_choice("concurrent", concurrent, Concurrent)
    return concurrent


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}")


def _check_patience(patience: float) -> float:
    if isinstance(patience, bool) or not isinstance(patience, (int, float)) or not 0 <= patience < float("inf"):
        raise ValueError("patience must be a number of seconds of at least 0")
    return float(patience)
