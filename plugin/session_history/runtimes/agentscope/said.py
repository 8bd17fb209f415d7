"""The messages that a reply adds to the session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from agentscope.event import (
    ModelCallEndEvent,
    ModelCallStartEvent,
    TextBlockDeltaEvent,
    TextBlockEndEvent,
    TextBlockStartEvent,
)
from agentscope.message import AssistantMsg, ContentBlock, Msg, TextBlock, ToolCallBlock
from agentscope.state import AgentState
from agentscope.tool import ToolResponse

from session_history.records.messages import StoredMessage
from session_history.records.record import MessageRef
from session_history.records.salvage import salvaged
from session_history.runtimes.agentscope.accumulator import MessageAccumulator
from session_history.runtimes.agentscope.messages import with_content
from session_history.runtimes.agentscope.produced import produced_result
from session_history.turns.recorder import TurnRecorder

_TEXT = (TextBlockStartEvent, TextBlockDeltaEvent, TextBlockEndEvent)


class SaidMessages:
    """The messages of a turn. What cannot be stored of them is marked.

    :param name: the name of the agent.
    """

    def __init__(self, name: str, state: AgentState, recorder: TurnRecorder[dict[str, Any]]) -> None:
        self._name = name
        self._state = state
        self._recorder = recorder
        self._messages: dict[int, tuple[Msg, MessageAccumulator]] = {}  # by identity
        self._given: dict[str, int] = {}  # indexes of inputs that were stored before the agent took them, by id
        self._streamed: Msg | None = None
        self._model_ended = False
        self._results: list[tuple[ToolCallBlock, ToolResponse]] = []

    def __contains__(self, msg: Msg) -> bool:
        return id(msg) in self._messages

    def __iter__(self) -> Iterator[tuple[Msg, MessageAccumulator]]:
        return iter(list(self._messages.values()))

    @property
    def newest(self) -> MessageAccumulator | None:
        pair = next(reversed(self._messages.values()), None)
        return pair[1] if pair else None

    @property
    def own(self) -> MessageAccumulator | None:
        """The message of this reply, if it has one yet."""
        return next((each for msg, each in reversed(self._messages.values()) if msg.id == self._state.reply_id), None)

    def of(self, msg: Msg) -> MessageAccumulator:
        """Return what was said in a message. :raises KeyError: it is not one of the turn."""
        return self._messages[id(msg)][1]

    def give(self, inputs: Sequence[StoredMessage]) -> None:
        """Add what the reply answers, before the agent takes it."""
        for stored in inputs:
            if stored.value["id"] not in self._given:
                self._given[stored.value["id"]] = self._recorder.add([stored])

    def resume(self, ref: MessageRef, stored: StoredMessage, parked: Msg) -> None:
        """Continue a message that the log has.

        :param parked: the same, as the agent has it.
        """
        accumulator = MessageAccumulator(self._recorder.resume(ref), stored.value["content"])
        accumulator.align(parked.content)
        self._messages[id(parked)] = parked, accumulator

    def take(self, msg: Msg) -> None:
        """Add a message of the context, or what is new in it."""
        if msg not in self:
            accumulator = self.own if msg.id == self._state.reply_id else None
            if accumulator is None:
                index = self._given.pop(msg.id, None)
                accumulator = MessageAccumulator(self._add(msg) if index is None else index)
            self._messages[id(msg)] = msg, accumulator
        self._revise(msg, self.of(msg), msg.content)

    def add_blocks(self, blocks: list[ContentBlock]) -> None:
        """Add blocks to the message of this reply that the agent's own message lacks."""
        accumulator = self.own
        if not blocks:
            return
        if accumulator is None:
            self.take(AssistantMsg(self._name, blocks, id=self._state.reply_id))
            return
        msg = next(msg for msg, each in self._messages.values() if each is accumulator)
        self._revise(msg, accumulator, blocks)

    def recognize(self, msg: Msg) -> None:
        """Identify a message of the context that the agent has put in the place of another one."""
        accumulator = self.of(msg) if msg in self else None
        if accumulator is None:
            accumulator = next((each for new, each in reversed(self._messages.values()) if new.id == msg.id), None)
        if accumulator is not None:
            accumulator.align(msg.content)
            self._messages[id(msg)] = msg, accumulator

    def hear(self, item: object) -> None:
        """Follow the text that is streamed. The context gets it only when the agent goes on after the model's end."""
        if self._model_ended:
            self._streamed = None
        self._model_ended = isinstance(item, ModelCallEndEvent)
        if isinstance(item, ModelCallStartEvent):
            self._streamed = AssistantMsg(self._name, [], id=item.reply_id)
        elif isinstance(item, _TEXT) and self._streamed is not None:
            self._streamed.append_event(item)

    def add_streamed(self) -> None:
        """Add the text that was streamed last and is not in the context."""
        content = self._streamed.content if self._streamed is not None else []
        self.add_blocks([each for each in content if isinstance(each, TextBlock) and each.text])

    def note_result(self, call: ToolCallBlock, response: ToolResponse) -> None:
        """Note what a tool returned. AgentScope may fail before the agent has it."""
        self._results.append((call, response))

    def add_lost_results(self) -> None:
        """Add the results of tools that the agent never got."""
        own = self.own
        if own is None:
            return
        known = Counter(block["id"] for block in own.content if block["type"] == "tool_result")
        for call, response in self._results:
            known[call.id] -= 1
            if known[call.id] < 0:
                path = f"messages[{own.index}].content[{len(own.content)}]"
                metadata, markers = salvaged(response.metadata, f"{path}.metadata")
                self._recorder.note_markers(markers)
                self.add_blocks([produced_result(call, response, metadata)])

    def _add(self, msg: Msg) -> int:
        """Add a message without its content; return its index."""
        stored, markers = with_content(msg, [], f"messages[{len(self._recorder.messages)}]")
        self._recorder.note_markers(markers)
        return self._recorder.add([stored])

    def _revise(self, msg: Msg, accumulator: MessageAccumulator, blocks: Sequence[ContentBlock]) -> None:
        """Add blocks to a message, and bring its other fields up to date."""
        self._recorder.note_markers(accumulator.take(blocks))
        stored, markers = with_content(msg, accumulator.content, f"messages[{accumulator.index}]")
        self._recorder.note_markers(markers)
        self._recorder.revise(accumulator.index, stored)
