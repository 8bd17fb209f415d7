"""The state of an agent of AgentScope 2, besides its messages."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentscope.permission import PermissionContext, PermissionRule
from agentscope.state import AgentState
from pydantic import ValidationError

from session_history.errors import Corrupt, NotStorable

Rules = dict[str, list[PermissionRule]]

MARK = "session_history"
"""Where an agent's ``middle_context`` says up to where its context is what the log says. It stays out of the log."""


_NOT_KEPT: Any = {
    "session_id": True,
    "context": True,
    "tool_context": {"read_file_cache"},
    "middle_context": {MARK},
}


class SyncMarker(NamedTuple):
    """What an agent has in common with the log.

    :ivar entry_id: the log's newest entry, if the agent's state is what it was then or came of it; else ``""``.
    :ivar messages: how many messages of the context, from the first, the log knows.
    :ivar last: the id of the last of them; ``""`` if there are none.
    :ivar clean: they are what the log shows.
    """

    entry_id: str
    messages: int
    last: str
    clean: bool

    @classmethod
    def of(cls, state: AgentState) -> SyncMarker | None:
        """``None`` also if the context is not the one that was marked, and something that came since."""
        match state.middle_context.get(MARK):
            case [str(entry_id), int(messages), str(last), bool(clean)] if last == _id_of(messages, state):
                return cls(entry_id, messages, last, clean)
        return None

    @classmethod
    def put(cls, state: AgentState, entry_id: str, *, clean: bool) -> None:
        """SyncMarker all of the context as known."""
        known = len(state.context)
        state.middle_context[MARK] = list(cls(entry_id, known, _id_of(known, state) or "", clean))


def _id_of(number: int, state: AgentState) -> str | None:
    """The id of the message of this number, from 1, of the context; ``""`` for number 0."""
    if not 0 < number <= len(state.context):
        return None if number else ""
    return state.context[number - 1].id


def dumped(state: AgentState) -> dict[str, Any]:
    """A state as JSON, without the messages, which the log has, and without what can be read from files again.

    :raises NotStorable: another middleware keeps something in it that is no JSON.
    """
    try:
        return state.model_dump(mode="json", exclude=_NOT_KEPT)
    except ValueError:  # pydantic's own, or of one that holds itself
        raise NotStorable("the agent's state", "holds something that is no JSON") from None


def restore(state: AgentState, value: dict[str, Any]) -> None:
    """Give an agent the state that the log has.

    :raises Corrupt: this version of agentscope can not read it.
    """
    try:
        kept = AgentState.model_validate(value)
    except ValidationError:
        raise Corrupt("the session has a state of the agent that this version of agentscope can not read") from None
    kept.tool_context.read_file_cache = state.tool_context.read_file_cache
    for name in value.keys() & AgentState.model_fields.keys() - {"permission_context"}:
        setattr(state, name, getattr(kept, name))
    if "permission_context" in value:
        _restore_permissions(state.permission_context, kept.permission_context)


def _restore_permissions(permissions: PermissionContext, kept: PermissionContext) -> None:
    """In place: the agent's permission engine holds on to the object.

    What the host forbids, or wants to be asked for, stays so; working directories are its own affair, too.
    """
    permissions.mode = kept.mode
    permissions.allow_rules = kept.allow_rules
    permissions.working_directories = kept.working_directories | permissions.working_directories
    permissions.deny_rules = _united(kept.deny_rules, permissions.deny_rules)
    permissions.ask_rules = _united(kept.ask_rules, permissions.ask_rules)


def _united(one: Rules, other: Rules) -> Rules:
    """The rules of both, by tool."""
    missing = {tool: [rule for rule in rules if rule not in one.get(tool, [])] for tool, rules in other.items()}
    return {tool: [*one.get(tool, []), *missing.get(tool, [])] for tool in one | other}
