"""Messages of AgentScope 2: as the log keeps them, and as an agent gets them back."""

from __future__ import annotations

from collections import Counter
from typing import Any

from agentscope.message import (
    AssistantMsg,
    ContentBlock,
    HintBlock,
    Msg,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolCallState,
    ToolResultBlock,
    ToolResultState,
    UserMsg,
)
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from session_history.errors import Corrupt, NotStorable
from session_history.records.markers import Marker
from session_history.records.messages import Message, StoredMessage, TextContent
from session_history.records.record import MessageRef
from session_history.records.values import check
from session_history.runtimes.agentscope.produced import free_form, produced_fields
from session_history.view.shapes import UNKNOWN_OUTCOME

FORMAT = "agentscope.msg/2"
"""Format of a ``Msg`` of AgentScope 2: its ``model_dump(mode="json")``, with markers for what is not JSON."""

_OUTCOMES = {
    ToolCallState.ASKING.value: "The call has not run: it waits for the user's consent.",
    ToolCallState.SUBMITTED.value: "The call was handed over, and its result is not there yet.",
}
"""The result that other agents see of a call in which an agent waits for an answer."""


def check_input(msg: Msg) -> StoredMessage:
    """Return a message that an agent is about to answer.

    :raises NotStorable: it would not come back equal.
    """
    path = f"message {msg.id!r}"
    for name, value in free_form(msg).items():
        check(value, f"{path}.{name}")
    try:
        value = msg.model_dump(mode="json")
    except ValueError:  # pydantic's own error, or that of an object that holds itself
        raise NotStorable(path, "holds something that is not JSON") from None
    check(value, path)
    return StoredMessage(FORMAT, value)


def with_content(msg: Msg, content: list[dict[str, Any]], path: str) -> tuple[StoredMessage, list[Marker]]:
    """Return a message with its content as JSON, and what it lacks of what was produced.

    :param path: the name of the message.
    """
    fields, markers = produced_fields(msg, path)
    return StoredMessage(FORMAT, {name: fields.get(name, content) for name in Msg.model_fields}), markers


def id_of(ref: MessageRef, stored: StoredMessage) -> str:
    """Return the id of the message that an agent gets: always the same one."""
    return str(stored.value["id"]) if stored.format == FORMAT else f"{ref.seq}.{ref.offset}"


def restored(ref: MessageRef, stored: StoredMessage) -> Msg:
    """Return the message that an agent gets: a ``Msg`` as it was, any other as text with a role.

    :raises Corrupt: it is of AgentScope's format, and this AgentScope cannot read it.
    """
    if stored.format != FORMAT:
        return _converted(stored, id_of(ref, stored))
    value = stored.to_dict()
    if isinstance(value["content"], str):  # a marker: the message was too large for the store
        value["content"] = [{"type": "text", "text": value["content"], "id": id_of(ref, stored)}]
    try:
        return Msg.model_validate(value)
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
    """Leave out of a message what a model's API refuses, and give every call in it one result.

    Refused are text of white space, thoughts that nothing follows, and arguments that are not JSON, such as those of a
    call that was cut.

    :returns: how many blocks were made up, changed or left out.
    """
    changes = _pair(msg) + sum(map(_mend, msg.content))
    shown = _shown(msg.content)
    changes += len(msg.content) - len(shown)
    msg.content = shown
    return changes


def needs_repair(msg: Msg) -> bool:
    """Tell whether a model's API may refuse a message as it is."""
    copy = msg.model_copy(update={"content": [block.model_copy() for block in msg.content]})
    return repair(copy) > 0


def first_kept(stored: list[dict[str, Any]], msg: Msg) -> int:
    """Return how many blocks of a stored message an agent dropped from the beginning, given what it has of it.

    The number of blocks does not tell: a repair may have made some up, and left some out.
    """
    estimate = max(0, len(stored) - len(msg.content))
    for block in msg.content:
        same = [at for at, each in enumerate(stored) if (each.get("type"), each.get("id")) == (block.type, block.id)]
        if same:
            return min(same, key=lambda at: abs(at - estimate))
    return estimate


def _shown(content: list[ContentBlock]) -> list[ContentBlock]:
    """Return the blocks that an API takes. A thought needs a text or a call behind it, before the next result."""
    shown: list[ContentBlock] = []
    is_followed = False
    for block in reversed(content):
        if isinstance(block, ThinkingBlock):
            if is_followed:
                shown.append(block)
        elif not _is_blank(block):
            is_followed = not isinstance(block, (ToolResultBlock, HintBlock))
            shown.append(block)
    return shown[::-1]


def _is_blank(block: ContentBlock) -> bool:
    text = block.text if isinstance(block, TextBlock) else block.hint if isinstance(block, HintBlock) else None
    return isinstance(text, str) and not text.strip()


def _mend(block: ContentBlock) -> bool:
    """Give a call arguments, if it has none that are JSON; return whether that was so."""
    if not isinstance(block, ToolCallBlock) or _is_object(block.input):
        return False
    block.input = "{}"
    return True


def _is_object(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False


def _pair(msg: Msg) -> int:
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
