"""Repair of tool calls: each one that a model sees has exactly one result, where the model looks for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from session_history.records.messages import StoredMessage
from session_history.view.toolcalls import (
    Result,
    Tools,
    ToolShape,
    may_hold_tools,
    message_of_results,
    missing_result,
    read,
)

_OTHERS = {"user", "system", "developer"}
"""Roles that end the model's turn to speak: its calls must be answered before."""


Kind = Literal["result added", "result left out", "result moved"]


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair of a history.

    :ivar kind: the result was added, to a call that had none; left out, since it had no call, or its call another
        result; or moved to its call, since it came too late.
    :ivar call_id: the call.
    :ivar index: the message of the history that holds the result; for one left out, where it would stand.
    """

    kind: Kind
    call_id: str
    index: int


def repaired(messages: Sequence[StoredMessage]) -> tuple[Sequence[StoredMessage], list[Repair]]:
    """Return messages as a model takes them, and the repairs; without repairs, the same sequence.

    Shapes are recognized message by message, see :class:`~session_history.view.toolcalls.ToolShape`. Messages of other
    shapes stay as they are.
    """
    if not any([not message.is_text and may_hold_tools(message.value) for message in messages]):  # noqa: C419 - a list is faster
        return messages, []
    pairing = _Pairing(messages)
    return _Builder(pairing).built() if pairing.flawed else (messages, [])


@dataclass(slots=True)
class _Round:
    """Calls that are answered together.

    :ivar slot: index of the message behind which further results belong.
    :ivar in_next: the message behind the slot holds the results, as blocks.
    :ivar closed: it is too late for a result.
    """

    shape: ToolShape
    slot: int
    calls: list[_Call] = field(default_factory=list)
    answered: bool = False
    in_next: bool = False
    closed: bool = False


@dataclass(slots=True)
class _Call:
    """:ivar moved: the result, if it stands where it must not stay."""

    id: str
    asked: StoredMessage
    round: _Round
    answered: bool = False
    moved: Any = None


class _Pairing:
    """Finds the result of every call.

    :ivar removed: positions of the results that must not stay, by the index of their message.
    :ivar left_out: the ids of those among them that have no call, by the index of their message.
    """

    def __init__(self, messages: Sequence[StoredMessage]) -> None:
        self.messages = messages
        self.rounds: list[_Round] = []
        self.removed: defaultdict[int, list[int]] = defaultdict(list)
        self.left_out: defaultdict[int, list[str]] = defaultdict(list)
        self._waiting: dict[tuple[ToolShape, str], list[_Call]] = {}
        self._open: defaultdict[ToolShape, list[_Round]] = defaultdict(list)
        for index, message in enumerate(messages):
            tools = read(message.value)
            self._close(index, message, tools)
            if tools is not None:
                self._answer(index, tools)
                self._ask(index, message, tools)

    @property
    def flawed(self) -> bool:
        return bool(self.removed) or any(not call.answered for round_ in self.rounds for call in round_.calls)

    def _close(self, index: int, message: StoredMessage, tools: Tools | None) -> None:
        """Close the rounds whose results cannot stand at an index, nor behind it."""
        for shape in (ToolShape.CHAT, ToolShape.MSGS):
            if tools is None or tools.shape is not shape or not tools.results or not tools.only_results:
                self._close_all(shape)
        if any(round_.slot < index - 1 for round_ in self._open[ToolShape.BLOCKS]):
            self._close_all(ToolShape.BLOCKS)
        blocks = tools is not None and tools.shape.in_blocks  # of calls, too: the user's message must follow them
        if blocks or (tools is None and message.role in _OTHERS):
            self._close_all(ToolShape.ITEMS)
            self._close_all(ToolShape.NEUTRAL)

    def _close_all(self, shape: ToolShape) -> None:
        for round_ in self._open.pop(shape, ()):
            round_.closed = True

    def _answer(self, index: int, tools: Tools) -> None:
        if tools.shape is ToolShape.BLOCKS and tools.results:
            for round_ in self._open[ToolShape.BLOCKS]:
                round_.in_next = True
        for rank, result in enumerate(tools.results):
            if result.call_id is None:
                self._take_for_answered(index)
            else:
                # Anthropic wants results ahead of any other block.
                self._pair(index, tools.shape, result, result.call_id, first=result.position == rank)

    def _take_for_answered(self, index: int) -> None:
        """Take a result that does not name its call. The format is another one, and its calls stay as they are."""
        for round_ in self._open[ToolShape.CHAT]:
            round_.slot = index
            for call in round_.calls:
                call.answered = True

    def _pair(self, index: int, shape: ToolShape, result: Result, call_id: str, *, first: bool) -> None:
        waiting = self._waiting.get((shape, call_id))
        if not waiting:
            self.removed[index].append(result.position)
            self.left_out[index].append(call_id)
            return
        call = waiting.pop()
        if not call.answered and (call.round.closed or not first):
            self.removed[index].append(result.position)
            message = self.messages[index]
            call.moved = message.value["content"][result.position] if shape.in_blocks else message
            return
        call.answered = call.round.answered = True
        if shape is not ToolShape.BLOCKS and call.round is self._open[shape][-1]:  # later calls stay behind it
            call.round.slot = index

    def _ask(self, index: int, message: StoredMessage, tools: Tools) -> None:
        if not tools.calls:
            return
        round_ = self._round(index, tools.shape)
        for call_id in tools.calls:
            call = _Call(call_id, message, round_)
            round_.calls.append(call)
            # Some models repeat ids: a result that comes now does not belong to a call long past.
            earlier = self._waiting.get((tools.shape, call_id), [])
            self._waiting[tools.shape, call_id] = [*(other for other in earlier if not other.round.closed), call]

    def _round(self, index: int, shape: ToolShape) -> _Round:
        """Return the round of a call: neighbouring messages with calls, without a result between, call together."""
        newest = self._open[shape][-1:]
        if newest and not newest[0].answered:
            newest[0].slot = index
            return newest[0]
        round_ = _Round(shape, index)
        self.rounds.append(round_)
        self._open[shape].append(round_)
        return round_


class _Builder:
    """Builds the repaired messages, and notes the repairs."""

    def __init__(self, pairing: _Pairing) -> None:
        self._pairing = pairing
        self._built: list[StoredMessage] = []
        self._repairs: list[Repair] = []
        self._rounds: defaultdict[int, list[_Round]] = defaultdict(list)
        for round_ in pairing.rounds:
            self._rounds[round_.slot + round_.in_next].append(round_)

    def built(self) -> tuple[list[StoredMessage], list[Repair]]:
        for index, message in enumerate(self._pairing.messages):
            for call_id in self._pairing.left_out.get(index, ()):
                self._repairs.append(Repair("result left out", call_id, len(self._built)))
            rounds = self._rounds.get(index, ())
            self._keep(message, self._pairing.removed.get(index, ()), [round_ for round_ in rounds if round_.in_next])
            for round_ in rounds:
                if not round_.in_next:
                    self._add(round_)
        return self._built, self._repairs

    def _keep(self, message: StoredMessage, removed: Sequence[int], hosted: Sequence[_Round]) -> None:
        """Add a message without the results that must not stay, and with the blocks that belong into it."""
        added = [block for round_ in hosted for block in self._missing(round_)]
        if not removed and not added:
            self._built.append(message)
            return
        tools = read(message.value)
        if tools is None or not tools.shape.in_blocks:
            return
        kept = [part for position, part in enumerate(message.value["content"]) if position not in removed]
        results = len(tools.results) - len(removed)
        content = [*kept[:results], *added, *kept[results:]]
        if content:
            self._built.append(StoredMessage(message.format, {**message.value, "content": content}))

    def _add(self, round_: _Round) -> None:
        """Add the results that a round lacks, behind it."""
        missing = self._missing(round_)
        if missing and round_.shape.in_blocks:
            asked = round_.calls[0].asked
            missing = [StoredMessage(asked.format, message_of_results(round_.shape, missing, asked))]
        self._built += missing

    def _missing(self, round_: _Round) -> list[Any]:
        """Return the results that a round lacks, in the order of their calls: messages, or blocks of one message."""
        missing: list[Any] = []
        for call in round_.calls:
            if not call.answered:
                index = len(self._built) + (0 if round_.shape.in_blocks else len(missing))
                kind: Kind = "result added" if call.moved is None else "result moved"
                self._repairs.append(Repair(kind, call.id, index))
                missing.append(_made_up(call) if call.moved is None else call.moved)
        return missing


def _made_up(call: _Call) -> Any:
    shape = call.round.shape
    result = missing_result(shape, call.id, call.asked)
    return result if shape.in_blocks else StoredMessage(call.asked.format, result)
