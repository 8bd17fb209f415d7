"""The state of an agent of AgentScope 2, besides its messages."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from agentscope.message import Msg
from agentscope.permission import PermissionContext, PermissionRule
from agentscope.state import AgentState
from pydantic import ValidationError

from session_history.errors import Corrupt, NotStorable
from session_history_hooks import SessionKey

Rules = dict[str, list[PermissionRule]]

MARKER = "session_history"
"""The key of a :class:`SyncMarker` in an agent's ``middle_context``. It stays out of the log."""

_OWNER_DIGITS = 32

_EXCLUDED: Any = {
    "session_id": True,
    "context": True,
    "tool_context": {"read_file_cache"},
    "middle_context": {MARKER},
}


class SyncMarker(NamedTuple):
    """A marker in an agent: whose it is, and how far its context is what the log says.

    :ivar owner: the owner of the session that the agent was loaded from, see :func:`owner_of`.
    :ivar version: the version of the log, if the agent's state is that of this version or grew from it; else ``""``.
    :ivar messages: how many messages of the context, from the first, the log has.
    :ivar last: the id of the last of them; ``""`` without messages.
    :ivar clean: those messages are what the log shows.
    """

    owner: str
    version: str
    messages: int
    last: str
    clean: bool

    @classmethod
    def of(cls, state: AgentState, owner: str) -> SyncMarker | None:
        """Return the marker of an owner; ``None`` also if the context does not begin with the marked messages."""
        match state.middle_context.get(MARKER):
            case [str(marked), str(version), int(messages), str(last), bool(clean)] if marked == owner:
                return cls(owner, version, messages, last, clean) if last == _id_of(messages, state) else None
        return None

    @staticmethod
    def owner_in(state: AgentState) -> str:
        """Return the owner of the session that a state was loaded from; ``""`` if it was never loaded."""
        match state.middle_context.get(MARKER):
            case [str(owner), *_]:
                return owner
        return ""

    @classmethod
    def put(cls, state: AgentState, owner: str, version: str, known: Sequence[Msg], *, clean: bool) -> None:
        """Mark messages as known. The context begins with them, unless the app has changed it."""
        last = known[-1].id if known else ""
        state.middle_context[MARKER] = list(cls(owner, version, len(known), last, clean))


def owner_of(key: SessionKey) -> str:
    """Return a digest of user and session. It stays the same in every process, and names nobody."""
    user = key.user_id.encode()
    return sha256(b"%d:%b%b" % (len(user), user, key.session_id.encode())).hexdigest()[:_OWNER_DIGITS]


def _id_of(number: int, state: AgentState) -> str | None:
    """Return the id of a message of the context by its number, from 1; ``""`` for number 0."""
    if not 0 < number <= len(state.context):
        return None if number else ""
    return state.context[number - 1].id


def dumped(state: AgentState) -> dict[str, Any]:
    """Return a state as JSON, without the messages, which the log has, and without caches of files.

    :raises NotStorable: another middleware keeps something in it that is not JSON.
    """
    try:
        return state.model_dump(mode="json", exclude=_EXCLUDED)
    except ValueError:  # pydantic's own error, or that of an object that holds itself
        raise NotStorable("the agent's state", "holds something that is not JSON") from None


def restore(state: AgentState, value: dict[str, Any]) -> None:
    """Give an agent the state that the log has.

    :raises Corrupt: this version of agentscope cannot read it.
    """
    try:
        kept = AgentState.model_validate(value)
    except ValidationError:
        raise Corrupt("this version of agentscope cannot read the state of the agent") from None
    kept.tool_context.read_file_cache = state.tool_context.read_file_cache
    for name in value.keys() & AgentState.model_fields.keys() - {"permission_context"}:
        setattr(state, name, getattr(kept, name))
    if "permission_context" in value:
        _restore_permissions(state.permission_context, kept.permission_context)


def _restore_permissions(permissions: PermissionContext, kept: PermissionContext) -> None:
    """Restore permissions in place, since the agent's permission engine holds on to the object.

    Rules of the host that deny or ask stay; so do the host's working directories.
    """
    permissions.mode = kept.mode
    permissions.allow_rules = kept.allow_rules
    permissions.working_directories = kept.working_directories | permissions.working_directories
    permissions.deny_rules = _union(kept.deny_rules, permissions.deny_rules)
    permissions.ask_rules = _union(kept.ask_rules, permissions.ask_rules)


def replace_permissions(permissions: PermissionContext, given: PermissionContext) -> None:
    """Replace all permissions by copies of others, in place."""
    copy = given.model_copy(deep=True)
    for name in PermissionContext.model_fields:
        setattr(permissions, name, getattr(copy, name))


def add_permissions(permissions: PermissionContext, host: PermissionContext) -> None:
    """Add the rules and the working directories of the host."""
    host = host.model_copy(deep=True)
    permissions.working_directories = host.working_directories | permissions.working_directories
    permissions.allow_rules = _union(permissions.allow_rules, host.allow_rules)
    permissions.deny_rules = _union(permissions.deny_rules, host.deny_rules)
    permissions.ask_rules = _union(permissions.ask_rules, host.ask_rules)


def _union(one: Rules, other: Rules) -> Rules:
    """Return the rules of both, by tool."""
    missing = {tool: [rule for rule in rules if rule not in one.get(tool, [])] for tool, rules in other.items()}
    return {tool: [*one.get(tool, []), *missing.get(tool, [])] for tool in one | other}
