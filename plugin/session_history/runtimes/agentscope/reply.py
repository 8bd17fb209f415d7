"""One reply: the agent's context before it, and what it adds to the session."""

from __future__ import annotations

import logging
from itertools import takewhile
from typing import Any, NamedTuple

from agentscope.agent import Agent
from agentscope.message import Msg

from session_history.errors import NotStorable, SessionHistoryError
from session_history.records.messages import StoredMessage
from session_history.records.record import HistoryStart, MessageRef
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
)
from session_history.runtimes.agentscope.said import SaidMessages
from session_history.runtimes.agentscope.state import SyncMarker, owner_of, restore
from session_history.runtimes.agentscope.state import dumped as dumped_state
from session_history.turns.recorder import TurnRecorder

logger: logging.Logger = logging.getLogger("session_history")


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
    :ivar input: the messages that the reply answers, checked.
    :ivar said: the messages that the reply adds to the session.
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
        self.input: list[StoredMessage] = list(
            map(check_input, self._inputs)
        )  # refused now, not after the model was paid for
        self._resumes = inputs is not None and not isinstance(inputs, (Msg, list))
        self._answers = inputs
        self._old: list[Msg] = []  # the messages of the log, in the order of the context, which they begin
        self._old_blocks = 0  # of the last of them
        self._heard: set[str] = set()  # ids of messages that the agent got before this reply and the log lacks
        self.said: SaidMessages = SaidMessages(agent.name, agent.state, recorder)
        stored = recorder.stored_state
        self._start: HistoryStart | _OwnStart | None = stored.start if stored else None
        self._pending = stored.pending if stored else None
        value = stored.value if stored else None
        self._saved: tuple[object, ...] = value, self._start, self._pending is not None
        self._saves_state = True
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
        version = self._recorder.loaded_version
        is_current = marker is not None and version is not None and marker.version == version
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
        SyncMarker.put(state, self._owner, version or "", begins, clean=False)

    def _join(self) -> None:
        """Find what the log has in a context that another middleware loaded: all up to the last message it knows."""
        context = self._state.context
        ids = {id_of(*each) for each in self._recorder.history}
        known = max((number for number, msg in enumerate(context, start=1) if msg.id in ids), default=0)
        self._old, self._heard = context[:known], {msg.id for msg in context[known:]}
        if self._resumes and self._old and self._is_own_parked(self._old[-1]):
            parked = self._old.pop()
            self.said.resume(*self._find(parked.id), parked)
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
        self.said.resume(*self._find(parked.id), parked)

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

    def take(self) -> None:
        """Add to the turn what is new in the agent's context. What cannot be stored of it is marked."""
        if self._old and len(self._old[-1].content) > self._old_blocks:
            added = self._old[-1].content[self._old_blocks :]
            self._old_blocks += len(added)
            self.said.add_blocks(added)  # this reply said it, though the agent put it into an older message
        for msg in self._after_old():
            self.said.take(msg)

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
        self.said.give(self.input)

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
            self.said.recognize(msg)
        if is_shortened:
            self._start = self._own_start()

    def _left_of_old(self) -> list[Msg]:
        """Return the messages of the log that the context still has. One that was cut in two is another object."""
        old = {msg.id for msg in self._old} - {msg.id for msg, _ in self.said}
        return [msg for msg in self._context if msg not in self.said and msg.id in old]

    def _own_start(self) -> HistoryStart | _OwnStart | None:
        """Return the first message that the agent keeps, and how many of its blocks it does not keep."""
        context = self._context
        if not context:
            newest = self.said.newest
            return _OwnStart(newest.index, len(newest.content)) if newest else self._start
        msg = context[0]
        if msg in self.said:
            accumulator = self.said.of(msg)
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
            state, own = dumped_state(self._state), self.said.own
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

    def finish(self, *, failing: bool) -> None:
        """Add what is left: the text that was streamed last, or the input, if the agent did not even take that.

        :param failing: there is an error already, which another one must not hide.
        """
        try:
            self.take()
            if failing:
                self.said.add_lost_results()
            self.said.add_streamed()
            if all(message.value["id"] in self._heard for message in self._recorder.messages):
                for msg in self._inputs:
                    self.said.take(msg)
            self.save_state()
        except SessionHistoryError:
            if not failing:
                raise

    def mark(self, *, well: bool) -> None:
        """Note in the agent's state how far its context is what the log says.

        :param well: the reply ended, or was parked, as it should.
        """
        recorder = self._recorder
        if self._nested or SyncMarker.owner_in(self._state) != self._owner:
            return
        is_current = recorder.is_in_sync and self._saves_state
        # A version that is gone: the next reply drops what the agent has of it.
        version = recorder.version if is_current else recorder.loaded_version if recorder.lost_past else None
        is_verbatim = well and is_current and not recorder.turn.markers
        clean = is_verbatim and not any(self._is_flawed(*each) for each in self.said)
        SyncMarker.put(self._state, self._owner, version or "", self._context, clean=clean)

    def _is_flawed(self, msg: Msg, accumulator: MessageAccumulator) -> bool:
        """Tell whether a message is shown otherwise than the agent has it."""
        if self._is_own_parked(msg):
            return False
        # A tool that outlived its own reply may have put its result into this one.
        return accumulator.has_orphan_result or needs_repair(msg)
