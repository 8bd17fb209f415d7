"""A reply that is going on: when what it said is stored, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from agentscope.agent import Agent
from agentscope.event import ReplyEndEvent
from agentscope.message import ToolCallBlock
from agentscope.tool import ToolResponse
from agentscope.types import ReplyFinishedReason

from session_history.errors import TurnClosed
from session_history.log.session_log import RETRY_TIMEOUT
from session_history.records.record import Status
from session_history.runtimes.agentscope.ownership import entered, holding_of
from session_history.runtimes.agentscope.reply import Reply
from session_history.runtimes.agentscope.state import owner_of
from session_history.turns.recorder import TurnRecorder

END: Any = object()
"""Stands for the end of a stream of events."""


class RunningReply:
    """A reply that is going on.

    :param middleware: the middleware that records it.
    :ivar owner: the owner of its session.
    :ivar is_left: its consumer has the newest event, and perhaps never comes back.
    :ivar is_over: its turn has ended.
    """

    def __init__(self, middleware: object, agent: Agent, recorder: TurnRecorder[dict[str, Any]], reply: Reply) -> None:
        self.middleware = middleware
        self.agent = agent
        self.owner: str = owner_of(recorder.key)
        self.is_left: bool = False
        self.is_over: bool = False
        self._recorder = recorder
        self._reply = reply
        self._ended: Status | None = None
        self._well = False
        self._lock = asyncio.Lock()  # tools may run side by side
        self._is_closing = False
        self._closed = asyncio.Event()

    async def next_of(self, items: AsyncGenerator[Any, None]) -> Any:
        """Return the next event, or :data:`END`. The end of a reply is stored before anybody hears of it."""
        with entered(self):
            item = await anext(items, END)
        self._reply.said.hear(item)
        if isinstance(item, ReplyEndEvent):
            interrupted = item.finished_reason == ReplyFinishedReason.INTERRUPTED
            self._ended = Status.INTERRUPTED if interrupted else Status.COMPLETED
            await self.store(self._ended)
        return item

    async def store_input(self) -> None:
        """Store what the reply answers, before its model is called."""
        self._reply.take_input()
        await self._recorder.checkpoint()

    def pause(self) -> None:
        """Note that an event goes to the consumer. The consumer may leave, and use the agent for another session."""
        self._reply.pause()
        self.is_left = True

    def resume(self) -> None:
        """Note that the consumer came back.

        :raises TurnClosed: the agent began another reply meanwhile, or has another state.
        """
        self.require_own_agent()
        if self.is_over:
            raise TurnClosed("this reply was left: the agent has begun another one")
        self.is_left = False
        self._reply.resume()

    @property
    def has_own_agent(self) -> bool:
        """Tell whether the agent still holds the session of this reply, so that nothing goes from one to another."""
        is_lost = self.is_over and holding_of(self.agent).owner != self.owner
        return self._reply.has_state_of(self.agent) and not is_lost

    def require_own_agent(self) -> None:
        """Check that the agent still holds it. :raises TurnClosed: it was given to another session."""
        if not self.has_own_agent:
            raise TurnClosed("the agent was given to another session during this reply")

    async def store(self, status: Status = Status.OPEN) -> None:
        """Store what was said so far."""
        async with self._lock:
            if not self.is_over:
                self._reply.take()
                self._reply.save_state()
                await self._recorder.checkpoint(status)

    def require_running(self) -> None:
        """Check before a tool begins that its reply was not left while the call was being stored.

        :raises TurnClosed: the turn is over.
        """
        if self.is_over:
            raise TurnClosed("the reply was left before this call of a tool began")

    def note_result(self, call: ToolCallBlock, response: ToolResponse) -> None:
        """Note what a tool returned, before AgentScope takes it."""
        self._reply.said.note_result(call, response)

    @contextmanager
    def compressing(self) -> Iterator[None]:
        """Take what the agent is about to leave out of its context, then follow what became of it."""
        self._reply.take()
        start = self._reply.context_start()
        try:
            yield
        finally:
            self._reply.compressed(start)

    async def __aenter__(self) -> None:
        self._recorder.on_stop(self._gather)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._gather(error)

    def _gather(self, error: BaseException | None) -> None:
        """Add what is left at the end of the reply."""
        if self.is_over:
            return
        parked = error is None and self._ended is None and self._reply.is_parked
        if parked:
            self._recorder.park()
        left = isinstance(error, GeneratorExit)
        self._well = parked or (self._ended is Status.COMPLETED and (error is None or left))
        self._reply.finish(failing=error is not None)

    async def abandon(self) -> None:
        """End a reply whose consumer left, since the agent is to reply to something else."""
        if self._is_closing:  # perhaps by Python, some steps of the loop after the consumer has left
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), RETRY_TIMEOUT)
        async with self._lock:
            self._gather(GeneratorExit())
            await self._recorder.abandon()
            self.end()

    def end(self) -> None:
        """Note that the turn is over."""
        if not self.is_over:
            self.is_over = True
            self._reply.mark(well=self._well)
            holding_of(self.agent).forget(self)
            self._closed.set()
