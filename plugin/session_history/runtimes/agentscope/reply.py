"""One reply: what the agent knows before it, and what it adds to its session."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from agentscope.agent import Agent
from agentscope.event import (
    ModelCallEndEvent,
    ModelCallStartEvent,
    TextBlockDeltaEvent,
    TextBlockEndEvent,
    TextBlockStartEvent,
)
from agentscope.message import AssistantMsg, ContentBlock, Msg, TextBlock

from session_history.errors import NotStorable, SessionHistoryError
from session_history.records.messages import StoredMessage
from session_history.records.record import HistoryStart, MessageRef
from session_history.runtimes.agentscope.growing import MessageAccumulator
from session_history.runtimes.agentscope.messages import FORMAT, awaits, dumped, id_of, mended, restored, with_content
from session_history.runtimes.agentscope.state import SyncMarker, restore
from session_history.runtimes.agentscope.state import dumped as dumped_state
from session_history.turns.turn import Turn

logger: logging.Logger = logging.getLogger("session_history")

_TEXT = (TextBlockStartEvent, TextBlockDeltaEvent, TextBlockEndEvent)


class _Own(NamedTuple):
    """The beginning of an agent's own history, in a message of the turn that is going on.

    :ivar message: which of them.
    :ivar skip: how many of its blocks the agent does not keep.
    """

    message: int
    skip: int


class Reply:
    """Brings the context of an agent and a turn of its session together.

    :param inputs: what the reply answers: messages, an event that a parked reply waited for, or ``None``.
    :param whole: the agent gets all of its own history; else only the window that was read.
    """

    def __init__(self, agent: Agent, turn: Turn[dict[str, Any]], inputs: object, *, whole: bool) -> None:
        self._agent = agent
        self._turn = turn
        given = inputs if isinstance(inputs, list) else [inputs]
        self._inputs = [msg for msg in given if isinstance(msg, Msg)]
        for msg in self._inputs:  # now, not after the model was paid for
            dumped(msg, f"message {msg.id!r}")
        self._resumes = inputs is not None and not isinstance(inputs, (Msg, list))
        self._answers = inputs
        self._old: list[Msg] = []  # what the log had, in the order of the context, which it begins
        self._blocks = 0  # of the last of them
        self._heard: set[str] = set()  # ids of messages that came since, before this reply
        self._new: dict[int, tuple[Msg, MessageAccumulator]] = {}  # by identity
        kept = turn._window.kept
        self._begin: HistoryStart | _Own | None = kept.begin if kept else None
        self._pending = kept.pending if kept else None
        self._kept: tuple[object, ...] = turn._state, self._begin, self._pending is not None
        self._keeps_state = True
        self._streamed: Msg | None = None
        self._spoken = False
        self._load(whole=whole)

    def _load(self, *, whole: bool) -> None:
        state, head = self._agent.state, self._turn._window.head
        mark = SyncMarker.of(state)
        known = mark.messages if mark else 0
        old, new = state.context[:known], state.context[known:]
        current = mark is not None and head is not None and mark.entry_id == head.tail_id
        if not current and self._turn._state is not None:
            restore(state, self._turn._state)
        if self._resumes:
            self._take_up(str(getattr(self._answers, "reply_id", "")))
        if not (whole and current and mark and mark.clean):
            old = self._history()
            known_ids = {msg.id for msg in old}
            new = [msg for msg in new if msg.id not in known_ids]
        self._heard = {msg.id for msg in new}
        own = next((msg for msg in reversed(old) if msg.id == state.reply_id), None)
        if own is not None and self._is_parked(own):
            self._load_parked([msg for msg in old if msg is not own], new, own)
        else:
            self._old, state.context = old, [*old, *new]
        self._blocks = len(self._old[-1].content) if self._old else 0

    def _take_up(self, reply_id: str) -> None:
        """Have the agent wait for what is answered, if another reply of its name left its state last."""
        for _, stored in reversed(self._turn._placed):
            if stored.format == FORMAT and stored.value["id"] == reply_id and stored.value["name"] == self._agent.name:
                self._agent.state.reply_id = reply_id
                return

    def _load_parked(self, others: list[Msg], new: list[Msg], parked: Msg) -> None:
        """An agent looks for what it waits for in its last message, whatever others said since."""
        self._agent.state.context = [*others, *new, parked]
        if not self._resumes:
            self._old = [*others, parked]
            return
        self._old = others
        place, stored = self._stands(parked.id)
        growing = MessageAccumulator(self._turn._go_on(place), stored.value["content"])
        growing.align(parked.content)
        self._new[id(parked)] = parked, growing

    def _history(self) -> list[Msg]:
        history = [restored(*each) for each in self._turn._placed]
        repairs = sum(mended(msg) for msg in history if not self._is_parked(msg))
        if repairs:
            logger.info("%s: %d tool calls or results had no counterpart", self._turn._key, repairs)
        return history

    @property
    def is_parked(self) -> bool:
        """Whether the agent waits for something from outside now."""
        return self._agent.state.has_awaiting_tool_calls(self._agent.name)

    def _is_parked(self, msg: Msg) -> bool:
        """Whether it is the agent's own reply, and waits for something from outside."""
        return msg.id == self._agent.state.reply_id and msg.name == self._agent.name and awaits(msg)

    def _stands(self, msg_id: str) -> tuple[MessageRef, StoredMessage]:
        """Where a message of the history stands, and how it was said."""
        for place, stored in reversed(self._turn._placed):
            if id_of(place, stored) == msg_id:
                return place, stored
        raise LookupError("the history does not hold a message that the agent has of it")

    def hear(self, item: object) -> None:
        """Follow the text that is streamed: the context has it only when the agent goes on after the model's end."""
        if self._spoken:
            self._streamed = None
        self._spoken = isinstance(item, ModelCallEndEvent)
        if isinstance(item, ModelCallStartEvent):
            self._streamed = AssistantMsg(self._agent.name, [], id=item.reply_id)
        elif isinstance(item, _TEXT) and self._streamed is not None:
            self._streamed.append_event(item)

    def take(self) -> None:
        """Add to the turn what is new in the agent's context.

        :raises NotStorable: something would not come back equal. What came before it was added.
        """
        if self._old and len(self._old[-1].content) > self._blocks:
            added = self._old[-1].content[self._blocks :]
            self._blocks += len(added)
            self._say(added)  # it is this reply that says it, wherever it was put
        for msg in self._behind_old():
            self._take(msg)

    def _behind_old(self) -> list[Msg]:
        context, old = self._agent.state.context, self._old
        if not old or (len(context) >= len(old) and context[len(old) - 1] is old[-1]):
            return context[len(old) :]
        known = set(map(id, old))  # somebody put something ahead of them
        return [msg for msg in context if id(msg) not in known]

    def _take(self, msg: Msg) -> None:
        if id(msg) not in self._new:
            growing = self._own() if msg.id == self._agent.state.reply_id else None
            if growing is None:
                growing = MessageAccumulator(len(self._turn._messages))
                self._turn._take([with_content(msg, [])])
            self._new[id(msg)] = msg, growing
        _, growing = self._new[id(msg)]
        try:
            growing.take(msg.content)
        finally:
            self._turn._draft.revise(growing.index, with_content(msg, growing.content))

    def _own(self) -> MessageAccumulator | None:
        """The message of this reply, if it has one yet."""
        own = (growing for msg, growing in reversed(self._new.values()) if msg.id == self._agent.state.reply_id)
        return next(own, None)

    def _say(self, blocks: list[ContentBlock]) -> None:
        """Add blocks to the message of this reply that are not in the agent's own."""
        growing = self._own()
        if not blocks:
            return
        if growing is None:
            self._take(AssistantMsg(self._agent.name, blocks, id=self._agent.state.reply_id))
            return
        msg = next(msg for msg, each in self._new.values() if each is growing)
        growing.take(blocks)
        self._turn._draft.revise(growing.index, with_content(msg, growing.content))

    def compressed(self, first: tuple[int, int]) -> None:
        """The agent may have shortened its context: what is left of it is known.

        :param first: what :meth:`first` said before.
        """
        if self.first() != first:
            self._old = self._left_of_old()
            self._blocks = len(self._old[-1].content) if self._old else 0
        for msg in self._behind_old():
            self._recognize(msg)
        if self.first() != first:
            self._begin = self._where_it_begins()

    def first(self) -> tuple[int, int]:
        """Tells whether the context still begins as it did."""
        context = self._agent.state.context
        return (id(context[0]), len(context[0].content)) if context else (0, 0)

    def _left_of_old(self) -> list[Msg]:
        """A message that the agent cut in two is another object."""
        old = {msg.id for msg in self._old} - {msg.id for msg, _ in self._new.values()}
        return [msg for msg in self._agent.state.context if id(msg) not in self._new and msg.id in old]

    def _recognize(self, msg: Msg) -> None:
        growing = self._new[id(msg)][1] if id(msg) in self._new else None
        if growing is None:
            growing = next((each for new, each in reversed(self._new.values()) if new.id == msg.id), None)
        if growing is not None:
            growing.align(msg.content)
            self._new[id(msg)] = msg, growing

    def _where_it_begins(self) -> HistoryStart | _Own | None:
        """The first message that the agent keeps, and how many of its blocks it does not keep."""
        context = self._agent.state.context
        if not context:
            newest = next(reversed(self._new.values()), None)
            return _Own(newest[1].index, len(newest[1].content)) if newest else self._begin
        msg = context[0]
        if id(msg) in self._new:
            growing = self._new[id(msg)][1]
            return _Own(growing.index, growing.ahead_of(msg.content))
        if not any(msg is old for old in self._old):
            return self._begin
        place, stored = self._stands(msg.id)
        if stored.format != FORMAT:
            return HistoryStart(place, 0)  # its blocks are not those of the agent
        kept = self._turn._window.kept
        before = kept.begin.skip if kept and kept.begin and kept.begin.place == place else 0
        return HistoryStart(place, before + max(0, len(stored.value.get("content", ())) - len(msg.content)))

    def keep(self) -> None:
        """Have the agent's state stored, if it has changed."""
        try:
            state, own = dumped_state(self._agent.state), self._own()
            now = state, self._begin, self.is_parked
            if now != self._kept:
                draft, begin = self._turn._draft, self._begin
                begin = HistoryStart(draft.place(begin.message), begin.skip) if isinstance(begin, _Own) else begin
                pending = draft.place(own.index) if own is not None else self._pending
                self._turn._keep(state, begin, pending if self.is_parked else None)
                self._kept = now
        except NotStorable as flaw:
            self._keeps_state = False
            logger.error("%s: the state of agent %r is not stored: %s", self._turn._key, self._agent.name, flaw)

    def finish(self, *, failing: bool) -> None:
        """Add what is left: what was streamed last, or the input, if the agent did not even take that.

        :param failing: there is an error already, which another one must not hide.
        """
        try:
            self.take()
            if self._streamed is not None:
                self._say([block for block in self._streamed.content if isinstance(block, TextBlock) and block.text])
            if all(message.value["id"] in self._heard for message in self._turn._messages):
                for msg in self._inputs:
                    self._take(msg)
            self.keep()
        except SessionHistoryError:
            if not failing:
                raise

    def at_stop(self, gather: Callable[[BaseException], None]) -> None:
        """Have what is left added, too, when the service is stopped before the reply ends."""
        self._turn._last_words = gather

    def mark(self, *, well: bool) -> None:
        """Leave word in the agent's state how far its context is what the log says.

        :param well: the reply ended, or was parked, as it should.
        """
        turn, state = self._turn, self._agent.state
        if turn._known is not None:
            current = turn._alone and turn.state_kept is not False and turn._pending is None and self._keeps_state
            # A tool that outlived its own reply may have put its result into this one.
            clean = well and current and not any(growing.has_strays for _, growing in self._new.values())
            SyncMarker.put(state, turn._known.tail_id if current else "", clean=clean)
