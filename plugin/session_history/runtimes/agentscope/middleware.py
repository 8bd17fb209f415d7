"""The middleware: a turn around every reply of an agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from types import TracebackType
from typing import Any, Literal, get_args

from agentscope.agent import Agent
from agentscope.event import ReplyEndEvent
from agentscope.middleware import MiddlewareBase
from agentscope.types import ReplyFinishedReason

from session_history.configured import configured_service
from session_history.errors import SessionHistoryError, TurnClosed
from session_history.log.reader import window_size
from session_history.records.record import Status
from session_history.runtimes.agentscope.reply import Reply
from session_history.service import SessionHistoryService, check_service
from session_history.turns.lifecycle import check_options
from session_history.turns.options import Concurrent
from session_history.turns.recorder import TurnRecorder
from session_history.view.budget import TokenBudget
from session_history_hooks import check_key

logger: logging.Logger = logging.getLogger("session_history")

Save = Literal["turn", "step"]
"""The moments at which a reply is stored: at its end, or also before each of its steps."""


class SessionHistoryMiddleware(MiddlewareBase):
    """Loads the session before every reply of an agent, and appends to it afterwards, one turn per reply.

    The session is that of the user and of ``agent.state.session_id``. Every message is stored verbatim, in the format
    :data:`~session_history.runtimes.agentscope.FORMAT`. The agent's state is stored under the agent's name, without
    the messages. Before a reply, the agent's context becomes what the log says. Messages in it that the log lacks are
    stored with the next turn.

    A reply is stored when the agent emits its end. A parked reply waits for a confirmation or an execution outside;
    another process may continue it.

    :param service: where to keep history; without it the one that the runtime config names, on first use.
    :param user_id: the user of the session.
    :param save: ``"turn"``: one append per reply. ``"step"``: also before each reasoning and each call of a tool,
        still one turn.
    :param concurrent: see :meth:`session_history.SessionHistoryService.turn`.
    :param last_turns: see there. Without it the agent gets all of its history that its summary does not cover.
    :param token_budget: see there.
    :raises TypeError: ``service`` is not a SessionHistoryService.
    :raises InvalidKey: the user id cannot be a key.
    :raises ValueError: ``save`` or ``concurrent`` is not a supported value.
    """

    def __init__(
        self,
        service: SessionHistoryService | None = None,
        *,
        user_id: str,
        save: Save = "turn",
        concurrent: Concurrent = "keep",
        last_turns: int | None = None,
        token_budget: TokenBudget | None = None,
    ) -> None:
        check_service(service)
        self._service = service
        self._user_id = check_key("user_id", user_id)
        check_options(concurrent=concurrent)
        self._by_step = _check_save(save) == "step"
        self._concurrent = concurrent
        self._is_whole = window_size(last_turns, token_budget) is None
        self._window: dict[str, Any] = {"last_turns": last_turns, "token_budget": token_budget}
        self._running: dict[int, _RunningReply] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(user_id={self._user_id!r})"

    async def on_reply(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., AsyncGenerator[Any, None]]
    ) -> AsyncGenerator[Any, None]:
        if (left := self._running.get(id(agent))) is not None:
            await left.abandon()
        running: _RunningReply | None = None
        try:
            async with self._open_turn(agent) as recorder:
                reply = Reply(agent, recorder, input_kwargs.get("inputs"), whole=self._is_whole)
                running = self._running[id(agent)] = _RunningReply(recorder, reply)
                async with running, aclosing(next_handler(**input_kwargs)) as items:
                    async for item in items:
                        await running.follow(item)
                        yield item
        except SessionHistoryError as error:
            if running is None:  # AgentScope's app hides the reason from its users and from its operators
                logger.warning("a reply of agent %r did not begin: %r", agent.name, error)
            raise
        finally:
            if running is not None:
                if self._running.get(id(agent)) is running:
                    del self._running[id(agent)]
                running.end()

    async def on_compress_context(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., Awaitable[None]]
    ) -> None:
        running = self._running.get(id(agent))
        if running is None:
            await self._compress(agent, lambda: next_handler(**input_kwargs))
            return
        if self._by_step:
            await running.store()
        with running.compressing():
            await next_handler(**input_kwargs)

    async def _compress(self, agent: Agent, work: Callable[[], Awaitable[None]]) -> None:
        """Compress a context outside of a reply, and store the result at once."""
        running: _RunningReply | None = None
        try:
            async with self._open_turn(agent) as recorder:
                running = _RunningReply(recorder, Reply(agent, recorder, None, whole=self._is_whole))
                async with running:
                    with running.compressing():
                        await work()
        finally:
            if running is not None:
                running.end()

    async def on_acting(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., AsyncGenerator[Any, None]]
    ) -> AsyncGenerator[Any, None]:
        running = self._running.get(id(agent))
        if running is not None and self._by_step:
            await running.store()
            running.require_running()
        async for item in next_handler(**input_kwargs):
            yield item

    def _open_turn(self, agent: Agent) -> AbstractAsyncContextManager[TurnRecorder[dict[str, Any]]]:
        service = configured_service() if self._service is None else self._service
        return service.record_turn(
            self._user_id,
            agent.state.session_id,
            native=True,
            slot=agent.name,
            concurrent=self._concurrent,
            **self._window,
        )


class _RunningReply:
    """A reply that is going on."""

    def __init__(self, recorder: TurnRecorder[dict[str, Any]], reply: Reply) -> None:
        self._recorder = recorder
        self._reply = reply
        self._ended: Status | None = None
        self._well = False
        self._over = False
        self._lock = asyncio.Lock()  # tools may run side by side

    async def follow(self, item: object) -> None:
        """Follow an event. The end of a reply is stored before anybody hears of it."""
        self._reply.hear(item)
        if isinstance(item, ReplyEndEvent):
            interrupted = item.finished_reason == ReplyFinishedReason.INTERRUPTED
            self._ended = Status.INTERRUPTED if interrupted else Status.COMPLETED
            await self.store(self._ended)

    async def store(self, status: Status = Status.OPEN) -> None:
        """Store what was said so far."""
        async with self._lock:
            if not self._over:
                self._reply.take()
                self._reply.save_state()
                await self._recorder.checkpoint(status)

    def require_running(self) -> None:
        """Check before a tool begins that its reply was not left while the call was being stored.

        :raises TurnClosed: the turn is over.
        """
        if self._over:
            raise TurnClosed("the reply was left before this call of a tool began")

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
        self._gather(error)

    def _gather(self, error: BaseException | None) -> None:
        """Add what is left at the end of the reply."""
        if self._over:
            return
        parked = error is None and self._ended is None and self._reply.is_parked
        if parked:
            self._recorder.park()
        left = isinstance(error, GeneratorExit)
        self._well = parked or (self._ended is Status.COMPLETED and (error is None or left))
        self._reply.finish(failing=error is not None)

    async def abandon(self) -> None:
        """End a reply whose consumer left without closing it, since the agent is to reply to something else."""
        async with self._lock:
            self._gather(GeneratorExit())
            await self._recorder.abandon()
            self.end()

    def end(self) -> None:
        """Note that the turn is over."""
        if not self._over:
            self._over = True
            self._reply.mark(well=self._well)


def app_middlewares(
    service: SessionHistoryService | None = None,
    *,
    save: Save = "turn",
    concurrent: Concurrent = "keep",
    last_turns: int | None = None,
    token_budget: TokenBudget | None = None,
) -> Callable[[str, str, str], Coroutine[Any, Any, list[MiddlewareBase]]]:
    """Return ``extra_agent_middlewares`` for AgentScope's service app, so that each of its agents has a memory.

    The parameters are those of :class:`SessionHistoryMiddleware`. The app names users and sessions.

    :raises ConfigurationError: no service is given, and the runtime config is missing or wrong.
    """
    service = configured_service() if service is None else service

    def middleware(user_id: str) -> SessionHistoryMiddleware:
        return SessionHistoryMiddleware(
            service, user_id=user_id, save=save, concurrent=concurrent, last_turns=last_turns, token_budget=token_budget
        )

    middleware("anybody")  # wrong parameters raise now, not in the first reply

    async def middlewares(user_id: str, agent_id: str, session_id: str) -> list[MiddlewareBase]:  # noqa: ARG001
        return [middleware(user_id)]

    return middlewares


def _check_save(save: Save) -> Save:
    if save not in get_args(Save):
        raise ValueError(f"save must be one of {', '.join(map(repr, get_args(Save)))}")
    return save
