"""One reply: the agent's context before it, and what it adds to the session."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from agentscope.agent import Agent
from agentscope.event import (
    ModelCallEndEvent,
    ModelCallStartEvent,
    TextBlockDeltaEvent,
    TextBlockEndEvent,
    TextBlockStartEvent,
)
from agentscope.message import AssistantMsg, ContentBlock, Msg, TextBlock, ToolCallBlock
from agentscope.tool import ToolResponse

from session_history.errors import NotStorable, SessionHistoryError
from session_history.records.messages import StoredMessage
from session_history.records.record import HistoryStart, MessageRef
from session_history.records.salvage import salvaged
from session_history.runtimes.agentscope.accumulator import MessageAccumulator
from session_history.runtimes.agentscope.messages import (
    FORMAT,
    awaits,
    check_input,
    first_kept,
    id_of,
    needs_repair,
    repair,
    restored,
    with_content,
)
from session_history.runtimes.agentscope.produced import produced_result
from session_history.runtimes.agentscope.state import SyncMarker, owner_of, restore
from session_history.runtimes.agentscope.state import dumped as dumped_state
from session_history.turns.recorder import TurnRecorder

logger: logging.Logger = logging.getLogger("session_history")

_TEXT = (TextBlockStartEvent, TextBlockDeltaEvent, TextBlockEndEvent)


class _OwnStart(NamedTuple):
    """The beginning of an agent's own history, in a message of the turn that is going on.

    :ivar message: the index of the message in the turn.
    :ivar skip: how many of its blocks the agent does not keep.
    """

    message: int
    skip: int


class Reply:
    """Brings the context of an agent and the turn of its reply together.

    :param inputs: what the reply answers: messages, an event that a parked reply waited for, or ``None``.
    :param whole: the agent gets all of its own history; else only the window that was read.
    :param nested: another middleware has loaded the agent for the same reply, perhaps from another store.
    """

    def __init__(
        self, agent: Agent, recorder: TurnRecorder[dict[str, Any]], inputs: object, *, whole: bool, nested: bool
    ) -> None:
        self._name = agent.name
        self._state = agent.state  # the app may give the agent another one when it has left this reply
        self._paused: list[Msg] | None = None  # the context as it was when the consumer got the newest event
        self._kept: list[Msg] = []
        self._context_kept: list[Msg] | None = None
        self._nested = nested
        self._recorder = recorder
        self._owner = owner_of(recorder.key)
        given = inputs if isinstance(inputs, list) else [inputs]
        self._inputs = [msg for msg in given if isinstance(msg, Msg)]
        self.input = list(map(check_input, self._inputs))  # refused now, not after the model was paid for
        self._given: dict[str, int] = {}  # indexes of inputs that were stored before the agent took them, by id
        self._resumes = inputs is not None and not isinstance(inputs, (Msg, list))
        self._answers = inputs
        self._old: list[Msg] = []  # the messages of the log, in the order of the context, which they begin
        self._old_blocks = 0  # of the last of them
        self._heard: set[str] = set()  # ids of messages that the agent got before this reply and the log lacks
        self._new: dict[int, tuple[Msg, MessageAccumulator]] = {}  # by identity
        stored = recorder.stored_state
        self._start: HistoryStart | _OwnStart | None = stored.start if stored else None
        self._pending = stored.pending if stored else None
        value = stored.value if stored else None
        self._saved: tuple[object, ...] = value, self._start, self._pending is not None
        self._saves_state = True
        self._streamed: Msg | None = None
        self._results: list[tuple[ToolCallBlock, ToolResponse]] = []
        self._model_ended = False
        if nested:
            self._join()
        else:
            self._load(value, whole=whole)

    def _load(self, stored: dict[str, Any] | None, *, whole: bool) -> None:
        """Bring the agent's state and context to what the log says.

        :param stored: the agent's state, as the log has it.
        """
        state = self._state
        marker = SyncMarker.of(state, self._owner)
        known = marker.messages if marker else 0
        old, new = state.context[:known], state.context[known:]
        tail_origin = self._recorder.loaded_tail_origin
        is_current = marker is not None and tail_origin is not None and marker.origin == tail_origin
        if not is_current and stored is not None:
            restore(state, stored)
        if self._resumes:
            self._take_up(str(getattr(self._answers, "reply_id", "")))
        if not (whole and is_current and marker and marker.clean):
            old = self._history()
            known_ids = {msg.id for msg in old}
            new = [msg for msg in new if msg.id not in known_ids]
        self._heard = {msg.id for msg in new}
        own = next((msg for msg in reversed(old) if msg.id == state.reply_id), None)
        if own is not None and self._is_own_parked(own):
            self._load_parked([msg for msg in old if msg is not own], new, own)
        else:
            self._old, state.context = old, [*old, *new]
        self._old_blocks = len(self._old[-1].content) if self._old else 0
        pairs = zip(self._old, state.context, strict=False)
        begins = [msg for msg, _ in takewhile(lambda pair: pair[0] is pair[1], pairs)]
        SyncMarker.put(state, self._owner, tail_origin or "", begins, clean=False)

    def _join(self) -> None:
        """Find what the log has in a context that another middleware loaded: all up to the last message it knows."""
        context = self._state.context
        ids = {id_of(*each) for each in self._recorder.history}
        known = max((number for number, msg in enumerate(context, start=1) if msg.id in ids), default=0)
        self._old, self._heard = context[:known], {msg.id for msg in context[known:]}
        if self._resumes and self._old and self._is_own_parked(self._old[-1]):
            self._resume(self._old.pop())
        self._old_blocks = len(self._old[-1].content) if self._old else 0

    def has_state_of(self, agent: Agent) -> bool:
        """Tell whether the agent still has the state that it had when this reply began."""
        return agent.state is self._state

    def pause(self) -> None:
        """Remember the messages of the context, since the app may change it before the reply goes on, or ends."""
        context = self._state.context
        is_same = context is self._context_kept and len(context) == len(self._kept)
        if not (is_same and (not context or context[-1] is self._kept[-1])):
            self._kept, self._context_kept = list(context), context
        self._paused = self._kept

    def resume(self) -> None:
        """Go on with the context of the agent."""
        self._paused = None

    @property
    def _context(self) -> list[Msg]:
        return self._state.context if self._paused is None else self._paused

    def _take_up(self, reply_id: str) -> None:
        """Let the agent wait for the event that came. Another reply under its name may have stored its state last."""
        for _, stored in reversed(self._recorder.history):
            if stored.format == FORMAT and stored.value["id"] == reply_id and stored.value["name"] == self._name:
                self._state.reply_id = reply_id
                return

    def _load_parked(self, others: list[Msg], new: list[Msg], parked: Msg) -> None:
        """Put the parked message last: there the agent looks for the calls in which it waits."""
        self._state.context = [*others, *new, parked]
        if not self._resumes:
            self._old = [*others, parked]
            return
        self._old = others
        self._resume(parked)

    def _resume(self, parked: Msg) -> None:
        """Continue a message that the log has."""
        ref, stored = self._find(parked.id)
        accumulator = MessageAccumulator(self._recorder.resume(ref), stored.value["content"])
        accumulator.align(parked.content)
        self._new[id(parked)] = parked, accumulator

    def _history(self) -> list[Msg]:
        history = [restored(*each) for each in self._recorder.history]
        repairs = sum(repair(msg) for msg in history if not self._is_own_parked(msg))
        if repairs:
            logger.info(
                "%s: %d blocks were made up, mended or left out, since a model's API would refuse the history",
                self._recorder.key,
                repairs,
            )
        return history

    @property
    def is_parked(self) -> bool:
        """Tell whether the agent now waits for an answer from outside."""
        return self._state.has_awaiting_tool_calls(self._name)

    def _is_own_parked(self, msg: Msg) -> bool:
        """Tell whether it is the agent's own reply, and waits for an answer from outside."""
        return msg.id == self._state.reply_id and msg.name == self._name and awaits(msg)

    def _find(self, msg_id: str) -> tuple[MessageRef, StoredMessage]:
        """Return a message of the history, as it was said, and its reference."""
        for ref, stored in reversed(self._recorder.history):
            if id_of(ref, stored) == msg_id:
                return ref, stored
        raise LookupError("the history does not hold a message that the agent has of it")

    def hear(self, item: object) -> None:
        """Follow the text that is streamed. The context gets it only when the agent goes on after the model's end."""
        if self._model_ended:
            self._streamed = None
        self._model_ended = isinstance(item, ModelCallEndEvent)
        if isinstance(item, ModelCallStartEvent):
            self._streamed = AssistantMsg(self._name, [], id=item.reply_id)
        elif isinstance(item, _TEXT) and self._streamed is not None:
            self._streamed.append_event(item)

    def take(self) -> None:
        """Add to the turn what is new in the agent's context. What cannot be stored of it is marked."""
        if self._old and len(self._old[-1].content) > self._old_blocks:
            added = self._old[-1].content[self._old_blocks :]
            self._old_blocks += len(added)
            self._add_blocks(added)  # this reply said it, though the agent put it into an older message
        for msg in self._after_old():
            self._take(msg)

    def _after_old(self) -> list[Msg]:
        """Return the messages of the context behind those of the log."""
        context, old = self._context, self._old
        if not old or (len(context) >= len(old) and context[len(old) - 1] is old[-1]):
            return context[len(old) :]
        known = set(map(id, old))  # a message was put ahead of them
        return [msg for msg in context if id(msg) not in known]

    def take_input(self) -> None:
        """Add what the reply answers, before the agent takes it."""
        self.take()  # what it heard before
        for stored in self.input:
            if stored.value["id"] not in self._given:
                self._given[stored.value["id"]] = self._recorder.add([stored])

    def _take(self, msg: Msg) -> None:
        if id(msg) not in self._new:
            accumulator = self._own() if msg.id == self._state.reply_id else None
            if accumulator is None:
                index = self._given.pop(msg.id, None)
                accumulator = MessageAccumulator(self._add(msg) if index is None else index)
            self._new[id(msg)] = msg, accumulator
        self._revise(msg, self._new[id(msg)][1], msg.content)

    def _add(self, msg: Msg) -> int:
        """Add a message without its content; return its index."""
        stored, markers = with_content(msg, [], f"messages[{len(self._recorder.messages)}]")
        self._recorder.note_markers(markers)
        return self._recorder.add([stored])

    def _revise(self, msg: Msg, accumulator: MessageAccumulator, blocks: Sequence[ContentBlock]) -> None:
        """Add blocks to a message of this turn, and bring its other fields up to date."""
        self._recorder.note_markers(accumulator.take(blocks))
        stored, markers = with_content(msg, accumulator.content, f"messages[{accumulator.index}]")
        self._recorder.note_markers(markers)
        self._recorder.revise(accumulator.index, stored)

    def _own(self) -> MessageAccumulator | None:
        """Return the message of this reply, if it has one yet."""
        own = (each for msg, each in reversed(self._new.values()) if msg.id == self._state.reply_id)
        return next(own, None)

    def _add_blocks(self, blocks: list[ContentBlock]) -> None:
        """Add blocks to the message of this reply that the agent's own message lacks."""
        accumulator = self._own()
        if not blocks:
            return
        if accumulator is None:
            self._take(AssistantMsg(self._name, blocks, id=self._state.reply_id))
            return
        msg = next(msg for msg, each in self._new.values() if each is accumulator)
        self._revise(msg, accumulator, blocks)

    def context_start(self) -> tuple[int, int]:
        """Return what identifies the beginning of the context: its first message, and how many blocks that has."""
        context = self._context
        return (id(context[0]), len(context[0].content)) if context else (0, 0)

    def compressed(self, start: tuple[int, int]) -> None:
        """Follow a compression of the context: what is left of it is known.

        :param start: the :meth:`context_start` before.
        """
        is_shortened = self.context_start() != start
        if is_shortened:
            self._old = self._left_of_old()
            self._old_blocks = len(self._old[-1].content) if self._old else 0
        for msg in self._after_old():
            self._recognize(msg)
        if is_shortened:
            self._start = self._own_start()

    def _left_of_old(self) -> list[Msg]:
        """Return the messages of the log that the context still has. One that was cut in two is another object."""
        old = {msg.id for msg in self._old} - {msg.id for msg, _ in self._new.values()}
        return [msg for msg in self._context if id(msg) not in self._new and msg.id in old]

    def _recognize(self, msg: Msg) -> None:
        accumulator = self._new[id(msg)][1] if id(msg) in self._new else None
        if accumulator is None:
            accumulator = next((each for new, each in reversed(self._new.values()) if new.id == msg.id), None)
        if accumulator is not None:
            accumulator.align(msg.content)
            self._new[id(msg)] = msg, accumulator

    def _own_start(self) -> HistoryStart | _OwnStart | None:
        """Return the first message that the agent keeps, and how many of its blocks it does not keep."""
        context = self._context
        if not context:
            newest = next(reversed(self._new.values()), None)
            return _OwnStart(newest[1].index, len(newest[1].content)) if newest else self._start
        msg = context[0]
        if id(msg) in self._new:
            accumulator = self._new[id(msg)][1]
            return _OwnStart(accumulator.index, accumulator.dropped(msg.content))
        if not any(msg is old for old in self._old):
            return self._start
        try:
            ref, stored = self._find(msg.id)
        except LookupError:  # another middleware loaded more than this one, see _join
            return self._start
        if stored.format != FORMAT:
            return HistoryStart(ref, 0)  # its blocks are not those of the agent
        state = self._recorder.stored_state
        before = state.start.skip if state and state.start and state.start.ref == ref else 0
        return HistoryStart(ref, before + first_kept(stored.value["content"], msg))

    def save_state(self) -> None:
        """Have the agent's state stored, if it has changed."""
        try:
            state, own = dumped_state(self._state), self._own()
            now = state, self._start, self.is_parked
            if now != self._saved:
                start = self._start
                if isinstance(start, _OwnStart):
                    start = HistoryStart(self._recorder.ref(start.message), start.skip)
                pending = self._recorder.ref(own.index) if own is not None else self._pending
                self._recorder.save_state(state, start=start, pending=pending if self.is_parked else None)
                self._saved = now
        except NotStorable as flaw:
            self._saves_state = False
            logger.error("%s: the state of agent %r is not stored: %s", self._recorder.key, self._name, flaw)

    def note_result(self, call: ToolCallBlock, response: ToolResponse) -> None:
        """Note what a tool returned. AgentScope may fail before the agent has it."""
        self._results.append((call, response))

    def _add_lost_results(self) -> None:
        """Add the results of tools that the agent never got."""
        own = self._own()
        if own is None:
            return
        known = Counter(block["id"] for block in own.content if block["type"] == "tool_result")
        for call, response in self._results:
            known[call.id] -= 1
            if known[call.id] < 0:
                path = f"messages[{own.index}].content[{len(own.content)}]"
                metadata, markers = salvaged(response.metadata, f"{path}.metadata")
                self._recorder.note_markers(markers)
                self._add_blocks([produced_result(call, response, metadata)])

    def finish(self, *, failing: bool) -> None:
        """Add what is left: the text that was streamed last, or the input, if the agent did not even take that.

        :param failing: there is an error already, which another one must not hide.
        """
        try:
            self.take()
            if failing:
                self._add_lost_results()
            if self._streamed is not None:
                content = self._streamed.content
                texts: list[ContentBlock] = [each for each in content if isinstance(each, TextBlock) and each.text]
                self._add_blocks(texts)
            if all(message.value["id"] in self._heard for message in self._recorder.messages):
                for msg in self._inputs:
                    self._take(msg)
            self.save_state()
        except SessionHistoryError:
            if not failing:
                raise

    def mark(self, *, well: bool) -> None:
        """Note in the agent's state how far its context is what the log says.

        :param well: the reply ended, or was parked, as it should.
        """
        tail_origin = self._recorder.tail_origin
        if self._nested or SyncMarker.owner_in(self._state) != self._owner:
            return
        is_current = self._recorder.is_in_sync and self._saves_state
        is_verbatim = well and is_current and not self._recorder.turn.markers
        clean = is_verbatim and not any(self._is_flawed(*each) for each in self._new.values())
        SyncMarker.put(self._state, self._owner, tail_origin or "" if is_current else "", self._context, clean=clean)

    def _is_flawed(self, msg: Msg, accumulator: MessageAccumulator) -> bool:
        """Tell whether a message is shown otherwise than the agent has it."""
        if self._is_own_parked(msg):
            return False
        # A tool that outlived its own reply may have put its result into this one.
        return accumulator.has_orphan_result or needs_repair(msg)
