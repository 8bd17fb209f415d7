"""The middleware: a turn around every reply of an agent."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Literal, get_args

from agentscope.agent import Agent
from agentscope.middleware import MiddlewareBase
from agentscope.tool import ToolResponse

from session_history.configured import configured_service
from session_history.errors import SessionHistoryError
from session_history.log.reader import window_size
from session_history.records.messages import check_fits
from session_history.runtimes.agentscope.ownership import entered, holding_of, is_nested, reply_around
from session_history.runtimes.agentscope.reply import Reply
from session_history.runtimes.agentscope.running import END, RunningReply
from session_history.service import SessionHistoryService, check_service
from session_history.turns.options import PATIENCE, Concurrent
from session_history.turns.recorder import TurnRecorder
from session_history.turns.turn import check_options
from session_history.view.budget import TokenBudget
from session_history_hooks import SessionKey, check_key

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
    :param patience: see there.
    :param durable: store what a reply answers before its model is called. After a crash the next reply sees it.
    :param last_turns: see there. Without it the agent gets all of its history that its summary does not cover.
    :param token_budget: see there.
    :raises TypeError: ``service`` is not a SessionHistoryService.
    :raises InvalidKey: the user id cannot be a key.
    :raises ValueError: ``save``, ``concurrent`` or another option is not a supported value.
    """

    def __init__(
        self,
        service: SessionHistoryService | None = None,
        *,
        user_id: str,
        save: Save = "turn",
        concurrent: Concurrent = "keep",
        patience: float = PATIENCE,
        durable: bool = False,
        last_turns: int | None = None,
        token_budget: TokenBudget | None = None,
    ) -> None:
        check_service(service)
        self._service = service
        self._user_id = check_key("user_id", user_id)
        self._by_step = _check_save(save) == "step"
        check_options(concurrent=concurrent, patience=patience, last_turns=last_turns, token_budget=token_budget)
        self._concurrent: Concurrent = concurrent
        self._patience = patience
        self._durable = durable
        self._is_whole = window_size(last_turns, token_budget) is None
        self._window: dict[str, Any] = {"last_turns": last_turns, "token_budget": token_budget}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(user_id={self._user_id!r})"

    async def on_reply(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., AsyncGenerator[Any, None]]
    ) -> AsyncGenerator[Any, None]:
        running: RunningReply | None = None
        try:
            await self._settle(agent)
            async with self._record_turn(agent) as recorder:
                running = self._begin(agent, recorder, input_kwargs.get("inputs"))
                if self._durable:
                    await running.store_input()
                async with running, aclosing(next_handler(**input_kwargs)) as items:
                    while (item := await running.next_of(items)) is not END:
                        running.pause()
                        yield item
                        running.resume()
        except SessionHistoryError as error:
            if running is None:  # AgentScope's app hides the reason from its users and from its operators
                logger.warning("a reply of agent %r did not begin: %r", agent.name, error)
            raise
        finally:
            if running is not None:
                running.end()

    async def on_compress_context(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., Awaitable[None]]
    ) -> None:
        self._require_own_agent(agent)
        running = self._running_of(agent)
        if running is None or running.is_left:
            await self._compress(agent, lambda: next_handler(**input_kwargs))
            return
        if self._by_step:
            await running.store()
        with running.compressing():
            await next_handler(**input_kwargs)

    async def _compress(self, agent: Agent, work: Callable[[], Awaitable[None]]) -> None:
        """Compress a context outside of a reply, and store the result at once."""
        running: RunningReply | None = None
        try:
            await self._settle(agent)
            async with self._record_turn(agent) as recorder:
                running = self._begin(agent, recorder, None)
                async with running:
                    with running.compressing(), entered(running):
                        await work()
        finally:
            if running is not None:
                running.end()

    async def on_check_permission(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., Awaitable[Any]]
    ) -> Any:
        decision = await next_handler(**input_kwargs)
        self._require_own_agent(agent)
        return decision

    async def on_acting(
        self, agent: Agent, input_kwargs: dict[str, Any], next_handler: Callable[..., AsyncGenerator[Any, None]]
    ) -> AsyncGenerator[Any, None]:
        running = self._running_of(agent)
        if running is not None and self._by_step:
            await running.store()
            running.require_running()
        async for item in next_handler(**input_kwargs):
            if running is not None and isinstance(item, ToolResponse):
                running.note_result(input_kwargs["tool_call"], item)
            if running is None or running.has_own_agent:
                yield item  # else the tool runs to its end, and the agent gets nothing of it
        self._require_own_agent(agent)

    async def _settle(self, agent: Agent) -> None:
        """End the replies that were left, before another turn begins.

        :raises SessionBusy: a reply in another session is going on.
        """
        if not is_nested(agent, self):
            await holding_of(agent).settle(SessionKey(self._user_id, agent.state.session_id))

    def _begin(self, agent: Agent, recorder: TurnRecorder[dict[str, Any]], inputs: object) -> RunningReply:
        nested = is_nested(agent, self)
        if not nested:
            holding_of(agent).claim(agent.state, recorder)
        reply = Reply(agent, recorder, inputs, whole=self._is_whole, nested=nested)
        check_fits(reply.input, self._used_service().provider.limits.entry_bytes)
        running = RunningReply(self, agent, recorder, reply)
        holding_of(agent).replies.append(running)
        return running

    def _running_of(self, agent: Agent) -> RunningReply | None:
        """Return the reply of this agent that the caller belongs to, or else the one that is going on."""
        reply = reply_around(agent, self)
        if reply is None or reply.is_over:
            reply = next((each for each in holding_of(agent).replies if each.middleware is self), None)
        return reply if isinstance(reply, RunningReply) else None

    def _require_own_agent(self, agent: Agent) -> None:
        """Check that what runs now belongs to the session that the agent holds.

        :raises TurnClosed: it was begun by a reply in another session, which was left.
        """
        reply = reply_around(agent, self)
        if isinstance(reply, RunningReply):
            reply.require_own_agent()

    def _record_turn(self, agent: Agent) -> AbstractAsyncContextManager[TurnRecorder[dict[str, Any]]]:
        return self._used_service().record_turn(
            self._user_id,
            agent.state.session_id,
            native=True,
            slot=agent.name,
            concurrent=self._concurrent,
            patience=self._patience,
            **self._window,
        )

    def _used_service(self) -> SessionHistoryService:
        return configured_service() if self._service is None else self._service


def app_middlewares(
    service: SessionHistoryService | None = None,
    *,
    save: Save = "turn",
    concurrent: Concurrent = "keep",
    patience: float = PATIENCE,
    durable: bool = False,
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
            service,
            user_id=user_id,
            save=save,
            concurrent=concurrent,
            patience=patience,
            durable=durable,
            last_turns=last_turns,
            token_budget=token_budget,
        )

    middleware("anybody")  # wrong parameters raise now, not in the first reply

    async def middlewares(user_id: str, agent_id: str, session_id: str) -> list[MiddlewareBase]:  # noqa: ARG001
        return [middleware(user_id)]

    return middlewares


def _check_save(save: Save) -> Save:
    if save not in get_args(Save):
        raise ValueError(f"save must be one of {', '.join(map(repr, get_args(Save)))}, not {save!r}")
    return save
