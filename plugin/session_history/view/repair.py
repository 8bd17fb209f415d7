"""Every tool call that a model sees has exactly one result, where the model looks for it. The log stays as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from session_history.records.messages import StoredMessage
from session_history.view.toolcalls import Result, Shape, Tools, concerned, holder, read, stand_in

_OTHERS = {"user", "system", "developer"}
"""Roles that end the model's say: what it called for must have been answered by then."""


Kind = Literal["result added", "result left out", "result moved"]


@dataclass(frozen=True, slots=True)
class Repair:
    """What was repaired.

    :ivar kind: a result was added to a call that had none; left out, since no call was before it or another result of
        its call was; or moved to its call, since it came too late.
    :ivar call_id: the call.
    :ivar index: which message of the history holds the result; or where the one that was left out would stand.
    """

    kind: Kind
    call_id: str
    index: int


def repaired(messages: Sequence[StoredMessage]) -> tuple[Sequence[StoredMessage], list[Repair]]:
    """Messages as a model takes them, and what was repaired; if nothing was, the very same sequence.

    Shapes are told message by message, see :class:`~session_history.view.toolcalls.Shape`. Anything else is left alone.
    """
    if not any([not message.is_text and concerned(message.value) for message in messages]):  # noqa: C419 - a list is faster
        return messages, []
    pairing = _Pairing(messages)
    return _Building(pairing).built() if pairing.flawed else (messages, [])


@dataclass(slots=True)
class _Round:
    """Calls that are answered together.

    :ivar slot: index of the message behind which further results of it belong.
    :ivar host: the message behind the slot holds its results, as blocks.
    :ivar closed: it is too late for a result.
    """

    shape: Shape
    slot: int
    calls: list[_Call] = field(default_factory=list)
    answered: bool = False
    host: bool = False
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
        self._waiting: dict[tuple[Shape, str], list[_Call]] = {}
        self._open: defaultdict[Shape, list[_Round]] = defaultdict(list)
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
        """Close the rounds whose results can not stand at an index, nor behind it."""
        for shape in (Shape.CHAT, Shape.MSGS):
            if tools is None or tools.shape is not shape or not tools.results or not tools.alone:
                self._close_all(shape)
        if any(round_.slot < index - 1 for round_ in self._open[Shape.BLOCKS]):
            self._close_all(Shape.BLOCKS)
        blocks = tools is not None and tools.shape.in_blocks  # of calls, too: the user's message must follow them
        if blocks or (tools is None and message.role in _OTHERS):
            self._close_all(Shape.ITEMS)
            self._close_all(Shape.NEUTRAL)

    def _close_all(self, shape: Shape) -> None:
        for round_ in self._open.pop(shape, ()):
            round_.closed = True

    def _answer(self, index: int, tools: Tools) -> None:
        if tools.shape is Shape.BLOCKS and tools.results:
            for round_ in self._open[Shape.BLOCKS]:
                round_.host = True
        for rank, result in enumerate(tools.results):
            if result.call_id is None:
                self._take_for_answered(index)
            else:
                # Anthropic wants results ahead of any other block.
                self._pair(index, tools.shape, result, result.call_id, first=result.position == rank)

    def _take_for_answered(self, index: int) -> None:
        """A result that does not say of which call: the format is another one, and its calls are left alone."""
        for round_ in self._open[Shape.CHAT]:
            round_.slot = index
            for call in round_.calls:
                call.answered = True

    def _pair(self, index: int, shape: Shape, result: Result, call_id: str, *, first: bool) -> None:
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
        if shape is not Shape.BLOCKS and call.round is self._open[shape][-1]:  # what is called meanwhile stays behind
            call.round.slot = index

    def _ask(self, index: int, message: StoredMessage, tools: Tools) -> None:
        if not tools.calls:
            return
        round_ = self._round(index, tools.shape)
        for call_id in tools.calls:
            call = _Call(call_id, message, round_)
            round_.calls.append(call)
            # Some models give the same ids again and again: what comes now is not the result of a call long past.
            earlier = self._waiting.get((tools.shape, call_id), [])
            self._waiting[tools.shape, call_id] = [*(other for other in earlier if not other.round.closed), call]

    def _round(self, index: int, shape: Shape) -> _Round:
        """The round of a call: messages that call, one behind another without a result, call together."""
        newest = self._open[shape][-1:]
        if newest and not newest[0].answered:
            newest[0].slot = index
            return newest[0]
        round_ = _Round(shape, index)
        self.rounds.append(round_)
        self._open[shape].append(round_)
        return round_


class _Building:
    """Puts the messages together anew, and notes what is different."""

    def __init__(self, pairing: _Pairing) -> None:
        self._pairing = pairing
        self._built: list[StoredMessage] = []
        self._repairs: list[Repair] = []
        self._rounds: defaultdict[int, list[_Round]] = defaultdict(list)
        for round_ in pairing.rounds:
            self._rounds[round_.slot + round_.host].append(round_)

    def built(self) -> tuple[list[StoredMessage], list[Repair]]:
        for index, message in enumerate(self._pairing.messages):
            for call_id in self._pairing.left_out.get(index, ()):
                self._repairs.append(Repair("result left out", call_id, len(self._built)))
            rounds = self._rounds.get(index, ())
            self._keep(message, self._pairing.removed.get(index, ()), [round_ for round_ in rounds if round_.host])
            for round_ in rounds:
                if not round_.host:
                    self._add(round_)
        return self._built, self._repairs

    def _keep(self, message: StoredMessage, removed: Sequence[int], hosted: Sequence[_Round]) -> None:
        """A message without the results that must not stay, and with the blocks that belong into it."""
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
        """What a round lacks, behind it."""
        missing = self._missing(round_)
        if missing and round_.shape.in_blocks:
            asked = round_.calls[0].asked
            missing = [StoredMessage(asked.format, holder(round_.shape, missing, asked))]
        self._built += missing

    def _missing(self, round_: _Round) -> list[Any]:
        """The results that do not stand where they should, in the order of their calls: messages, or blocks of one."""
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
    result = stand_in(shape, call.id, call.asked)
    return result if shape.in_blocks else StoredMessage(call.asked.format, result)
