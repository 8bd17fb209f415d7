"""Messages of AgentScope 2: as the log keeps them, and as an agent gets them back."""

from __future__ import annotations

from collections import Counter
from typing import Any

from agentscope.message import (
    AssistantMsg,
    Msg,
    TextBlock,
    ToolCallBlock,
    ToolCallState,
    ToolResultBlock,
    ToolResultState,
    UserMsg,
)
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from session_history.errors import Corrupt, NotStorable
from session_history.records.messages import Message, StoredMessage, TextContent
from session_history.records.record import MessageRef
from session_history.records.values import check
from session_history.view.shapes import UNKNOWN_OUTCOME

FORMAT = "agentscope.msg/2"
"""Format of a ``Msg`` of AgentScope 2: exactly its ``model_dump(mode="json")``."""

_OUTCOMES = {
    ToolCallState.ASKING.value: "The call has not run: it waits for the user's consent.",
    ToolCallState.SUBMITTED.value: "The call was handed over, and its result is not there yet.",
}
"""The result that other agents see of a call in which an agent waits for an answer."""


def dumped(model: BaseModel, path: str, *, exclude: set[str] | None = None) -> dict[str, Any]:
    """Return a message, or a block of one, as JSON.

    :raises NotStorable: it would not come back equal.
    """
    try:
        value = model.model_dump(mode="json", exclude=exclude)
    except ValueError:  # pydantic's own error, or that of an object that holds itself
        raise NotStorable(path, "holds something that is not JSON") from None
    check(value, path)
    return value


def with_content(msg: Msg, content: list[dict[str, Any]]) -> StoredMessage:
    """Return a message with its content as JSON.

    :raises NotStorable: it would not come back equal.
    """
    fields = dumped(msg, f"message {msg.id!r}", exclude={"content"})
    return StoredMessage(FORMAT, {name: fields.get(name, content) for name in Msg.model_fields})


def id_of(ref: MessageRef, stored: StoredMessage) -> str:
    """Return the id of the message that an agent gets: always the same one."""
    return str(stored.value["id"]) if stored.format == FORMAT else f"{ref.seq}.{ref.offset}"


def restored(ref: MessageRef, stored: StoredMessage) -> Msg:
    """Return the message that an agent gets: a ``Msg`` as it was, any other as text with a role.

    :raises Corrupt: it is of AgentScope's format, and this AgentScope cannot read it.
    """
    if stored.format != FORMAT:
        return _converted(stored, id_of(ref, stored))
    try:
        return Msg.model_validate(stored.to_dict())
    except ValidationError:
        raise Corrupt("this version of agentscope cannot read a message of the session") from None


def _converted(stored: StoredMessage, msg_id: str) -> Msg:
    message = Message.read(stored.to_dict())
    parts = [part.text if isinstance(part, TextContent) else to_json(part).decode() for part in message.content or ()]
    if not parts:
        parts = [to_json(stored.value).decode()]
    if message.role == "user":
        return UserMsg("user", [TextBlock(text=text) for text in parts], id=msg_id)
    return AssistantMsg(message.role, [TextBlock(text=text) for text in parts], id=msg_id)


def awaits(msg: Msg) -> bool:
    """Tell whether a call in it waits for a confirmation, or for its execution outside."""
    answered = {block.id for block in msg.content if isinstance(block, ToolResultBlock)}
    return any(
        block.state == ToolCallState.ASKING or (block.state == ToolCallState.SUBMITTED and block.id not in answered)
        for block in msg.content
        if isinstance(block, ToolCallBlock)
    )


def repair(msg: Msg) -> int:
    """Give every call in a message one result, where models look for it.

    :returns: how many results were made up or left out.
    """
    unanswered = Counter(block.id for block in msg.content if isinstance(block, ToolResultBlock))
    unasked = Counter(block.id for block in msg.content if isinstance(block, ToolCallBlock))
    orphans = [block for block in msg.content if isinstance(block, ToolCallBlock) and not _taken(unanswered, block.id)]
    strays = [block for block in msg.content if isinstance(block, ToolResultBlock) and not _taken(unasked, block.id)]
    for call in orphans:
        state, call.state = call.state, ToolCallState.FINISHED
        msg.content.insert(_end_of_round(msg, call), _made_up(call, state))
    msg.content = [block for block in msg.content if not any(block is stray for stray in strays)]
    return len(orphans) + len(strays)


def _taken(ids: Counter[str], block_id: str) -> bool:
    """Take one id; return whether there was one left."""
    ids[block_id] -= 1
    return ids[block_id] >= 0


def _end_of_round(msg: Msg, call: ToolCallBlock) -> int:
    """Return the index behind a call, and behind the calls and results that follow it at once."""
    index = next(index for index, block in enumerate(msg.content) if block is call)
    while index < len(msg.content) and isinstance(msg.content[index], (ToolCallBlock, ToolResultBlock)):
        index += 1
    return index


def _made_up(call: ToolCallBlock, state: str) -> ToolResultBlock:
    return ToolResultBlock(
        id=call.id,
        name=call.name,
        output=_OUTCOMES.get(state, UNKNOWN_OUTCOME),
        state=ToolResultState.INTERRUPTED,
        created_at=call.created_at,
    )
