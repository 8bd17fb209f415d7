"""The ownership of an agent: it holds one session, and nothing of another."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from agentscope.agent import Agent
from agentscope.permission import PermissionContext, PermissionMode
from agentscope.state import AgentState, ToolContext

from session_history.errors import AgentBusy
from session_history.runtimes.agentscope.state import SyncMarker, add_permissions, owner_of, replace_permissions
from session_history.turns.recorder import TurnRecorder
from session_history_hooks import SessionKey

logger: logging.Logger = logging.getLogger("session_history")


class HeldReply(Protocol):
    """A reply of an agent that has not ended.

    :ivar middleware: the middleware that records it.
    :ivar owner: the owner of its session.
    :ivar is_left: its consumer has the newest event, and perhaps never comes back.
    :ivar is_over: its turn has ended.
    """

    middleware: object
    agent: Agent
    owner: str
    is_left: bool
    is_over: bool

    async def abandon(self) -> None: ...


_chain: ContextVar[tuple[HeldReply, ...]] = ContextVar("session_history_replies", default=())


@contextmanager
def entered(reply: HeldReply) -> Iterator[None]:
    """Let what runs in here, and the tasks that it starts, know that it belongs to a reply."""
    token = _chain.set((*_chain.get(), reply))
    try:
        yield
    finally:
        with suppress(ValueError):  # Python closes a coroutine whose loop is gone in another context
            _chain.reset(token)


def reply_around(agent: Agent, middleware: object) -> HeldReply | None:
    """Return the reply of a middleware that the caller belongs to, also if its turn has ended."""
    chain = [reply for reply in _chain.get() if reply.agent is agent and reply.middleware is middleware]
    return chain[-1] if chain else None


def is_nested(agent: Agent, middleware: object) -> bool:
    """Tell whether another middleware of the agent records the same reply already, perhaps to another store."""
    live = [reply for reply in _chain.get() if reply.agent is agent and not reply.is_over and not reply.is_left]
    return bool(live) and all(reply.middleware is not middleware for reply in live)


class Holding:
    """The memory of an agent object between its replies.

    :ivar replies: the replies that have not ended, one per middleware.
    :ivar state: the state that the agent had when it was loaded last.
    :ivar owner: the owner of the session that it was loaded from.
    """

    def __init__(self, state: AgentState) -> None:
        self.replies: list[HeldReply] = []
        self.state: AgentState = state
        self.owner: str = ""
        self._permissions = state.permission_context  # the object that the agent's permission engine holds on to
        self._host = PermissionContext()
        self._groups: list[str] = []
        self._is_host_known = not (SyncMarker.owner_in(state) or state.context or state.summary)
        if self._is_host_known:
            self._host = state.permission_context.model_copy(deep=True)
            self._groups = list(state.tool_context.activated_groups)

    async def settle(self, key: SessionKey) -> None:
        """End the replies that were left, each in its own session, since the agent begins another one.

        :raises AgentBusy: a reply in another session is going on.
        """
        owner = owner_of(key)
        replies = list(self.replies)
        if any(reply.owner != owner for reply in replies) and not all(reply.is_left for reply in replies):
            raise AgentBusy(key)
        for reply in replies:
            await reply.abandon()

    def forget(self, reply: HeldReply) -> None:
        """Forget a reply that has ended."""
        self.replies = [each for each in self.replies if each is not reply]

    def claim(self, state: AgentState, recorder: TurnRecorder[Any]) -> None:
        """Make the agent that of a session: what it holds of another one, or of one that is lost, is dropped."""
        owner = owner_of(recorder.key)
        before = SyncMarker.owner_in(state) or (self.owner if state is self.state else "")
        self._follow_permissions(state)
        marker = SyncMarker.of(state, before)
        unsaved = state.context[marker.messages if marker else 0 :]
        if before not in ("", owner):
            if unsaved:
                text = "%s: the agent held %d messages of another session that were not stored"
                logger.warning(text, recorder.key, len(unsaved))
            self._drop(state)
        elif marker and marker.version not in ("", recorder.loaded_version) and recorder.stored_state is None:
            logger.warning("%s: the agent drops what it held of a session that is no longer there", recorder.key)
            self._drop(state)
            state.context = unsaved
        self.state = state
        self.owner = owner

    def _drop(self, state: AgentState) -> None:
        blank, tools = AgentState(), state.tool_context
        for name in AgentState.model_fields.keys() - {"session_id", "permission_context", "tool_context"}:
            setattr(state, name, getattr(blank, name))
        state.tool_context = ToolContext(
            max_cache_files=tools.max_cache_files,
            max_cache_bytes=tools.max_cache_bytes,
            activated_groups=list(self._groups),
        )
        self._drop_permissions()

    def _drop_permissions(self) -> None:
        """Go back to the permissions of the host. If they are not known, what permits is dropped."""
        if self._is_host_known:
            replace_permissions(self._permissions, self._host)
            return
        self._permissions.mode = PermissionMode.DEFAULT
        self._permissions.allow_rules = {}
        self._permissions.working_directories = {}

    def _follow_permissions(self, state: AgentState) -> None:
        """Have the agent's permission engine follow a state that was put in the place of another one.

        The engine holds on to one object for ever, so the values move, and the earlier state keeps a copy of its own.
        """
        given = state.permission_context
        if given is self._permissions:
            return
        if self.state.permission_context is self._permissions:
            self.state.permission_context = self._permissions.model_copy(deep=True)
        replace_permissions(self._permissions, given)
        if not SyncMarker.owner_in(state):
            add_permissions(self._permissions, self._host)
            if "mode" not in given.model_fields_set:
                self._permissions.mode = self._host.mode
        state.permission_context = self._permissions


_holdings: WeakKeyDictionary[Agent, Holding] = WeakKeyDictionary()


def holding_of(agent: Agent) -> Holding:
    """Return what is known of an agent object."""
    holding = _holdings.get(agent)
    if holding is None:
        holding = _holdings[agent] = Holding(agent.state)
    return holding
