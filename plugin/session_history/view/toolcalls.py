"""Tool calls and results in a message, in the shapes of model APIs, and the substitute for a missing result."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple

from session_history.records.messages import StoredMessage

UNKNOWN_OUTCOME = "The call was interrupted and its outcome is unknown."


class ToolShape(Enum):
    """The shape of calls and results.

    - ``CHAT``, OpenAI chat: ``tool_calls`` of the assistant, answered by messages of the role ``tool``.
    - ``ITEMS``, OpenAI Responses: items of a ``type`` such as ``function_call`` and ``function_call_output``.
    - ``NEUTRAL``, AgentScope Runtime and our own: items with the call id in the data of the content.
    - ``BLOCKS``, Anthropic: blocks ``tool_use`` of the assistant, ``tool_result`` of the user.
    - ``MSGS``, AgentScope 1.x: blocks ``tool_use`` of the assistant, ``tool_result`` of the messages right behind,
      which hold only results.
    """

    CHAT = auto()
    ITEMS = auto()
    NEUTRAL = auto()
    BLOCKS = auto()
    MSGS = auto()

    @property
    def in_blocks(self) -> bool:
        """Tell whether a result is a block of a message; else it is a message of its own."""
        return self is ToolShape.BLOCKS or self is ToolShape.MSGS


class Result(NamedTuple):
    """A result in a message.

    :ivar position: the index of its block in the content; 0 for a whole message.
    :ivar call_id: ``None`` if it names its call in a way that is not known here.
    """

    position: int
    call_id: str | None


class Tools(NamedTuple):
    """The calls and results in a message.

    :ivar only_results: it holds nothing else. Computed for ``MSGS`` only.
    """

    shape: ToolShape
    calls: list[str]
    results: list[Result]
    only_results: bool = True


def may_hold_tools(value: dict[str, Any]) -> bool:
    """Tell whether a message may hold calls or results. Cheap, since every message of every turn is asked."""
    get = value.get
    if get("type", "message") != "message" or "tool_calls" in value or get("role") == "tool":
        return True
    content = get("content")
    if type(content) is list:
        for part in content:
            if type(part) is dict and part.get("type") in _BLOCKS:
                return True
    return False


_BLOCKS = ("tool_use", "tool_result")

_NAMED_BY_ID = "local_shell_call_output"
"""The only output type of OpenAI that has the id of its call as ``id``."""


def read(value: dict[str, Any]) -> Tools | None:
    """Return the calls and results in a message; ``None`` if it holds none."""
    return _item(value) or _chat(value) or (_msg(value) if _is_msg(value) else _blocks(value))


def missing_result(shape: ToolShape, call_id: str, asked: StoredMessage) -> dict[str, Any]:
    """Return a result for a call that has none: a block in the shape of blocks, else a message.

    :param asked: the message that holds the call.
    """
    if shape is ToolShape.CHAT:
        return {"role": "tool", "tool_call_id": call_id, "content": UNKNOWN_OUTCOME}
    if shape is ToolShape.BLOCKS:
        return {"type": "tool_result", "tool_use_id": call_id, "content": UNKNOWN_OUTCOME, "is_error": True}
    if shape is ToolShape.MSGS:
        name = next(part.get("name") for part in _dicts(asked.value["content"]) if part.get("id") == call_id)
        return {"type": "tool_result", "id": call_id, "name": name, "output": UNKNOWN_OUTCOME}
    if shape is ToolShape.ITEMS:
        return _item_result(asked.value["type"], call_id)
    return _neutral_result(asked.value, call_id)


def message_of_results(shape: ToolShape, blocks: list[Any], asked: StoredMessage) -> dict[str, Any]:
    """Return a message that holds blocks of results.

    :param asked: the message that holds the calls.
    """
    if shape is ToolShape.BLOCKS:
        return {"role": "user", "content": blocks}
    return {
        "id": f"{asked.value.get('id')}:results",
        "name": "system",
        "role": "system",
        "content": blocks,
        "metadata": {},
        "timestamp": asked.value["timestamp"],
    }


def _chat(value: dict[str, Any]) -> Tools | None:
    role = value.get("role")
    if role == "tool":
        return Tools(ToolShape.CHAT, [], [Result(0, _text(value.get("tool_call_id")))])
    calls = _dicts(value.get("tool_calls")) if role == "assistant" else []
    ids = [call["id"] for call in calls if _text(call.get("id")) is not None]
    return Tools(ToolShape.CHAT, ids, []) if ids else None


def _item(value: dict[str, Any]) -> Tools | None:
    kind = value.get("type")
    if not isinstance(kind, str) or not kind.endswith(("_call", "_output")):
        return None
    call_id = _text(value.get("id" if kind == _NAMED_BY_ID else "call_id"))
    shape, ids = (ToolShape.NEUTRAL, list(_data(value))) if call_id is None else (ToolShape.ITEMS, [call_id])
    if not ids:
        return None
    return Tools(shape, ids, []) if kind.endswith("_call") else Tools(shape, [], [Result(0, each) for each in ids])


def _is_msg(value: dict[str, Any]) -> bool:
    """Tell whether it is a ``Msg`` of AgentScope 1.x. One of 2.x has a name, too, but no timestamp."""
    return "name" in value and "timestamp" in value


def _msg(value: dict[str, Any]) -> Tools | None:
    content = value.get("content")
    if not isinstance(content, list):
        return None
    named = [(position, part) for position, part in enumerate(content) if _text(_dict(part).get("id")) is not None]
    uses = [part["id"] for _, part in named if part.get("type") == "tool_use"]
    calls = uses if value.get("role") == "assistant" else []
    results = [Result(position, part["id"]) for position, part in named if part.get("type") == "tool_result"]
    return (
        Tools(ToolShape.MSGS, calls, results, only_results=len(content) == len(results)) if calls or results else None
    )


def _blocks(value: dict[str, Any]) -> Tools | None:
    content = value.get("content")
    if not isinstance(content, list) or "name" in value:  # a message with a name is a Msg of AgentScope
        return None
    calls, results = [], []
    for position, part in enumerate(content):
        kind = _dict(part).get("type")
        if kind == "tool_use" and value.get("role") == "assistant" and _text(part.get("id")) is not None:
            calls.append(part["id"])
        elif kind == "tool_result" and value.get("role") == "user" and _text(part.get("tool_use_id")) is not None:
            results.append(Result(position, part["tool_use_id"]))
    return Tools(ToolShape.BLOCKS, calls, results) if calls or results else None


def _item_result(kind: str, call_id: str) -> dict[str, Any]:
    told: dict[str, dict[str, Any]] = {
        "apply_patch_call": {"status": "failed", "output": UNKNOWN_OUTCOME},
        "shell_call": {"output": [{"stdout": "", "stderr": UNKNOWN_OUTCOME, "outcome": {"type": "timeout"}}]},
        "tool_search_call": {"execution": "client", "status": "incomplete", "tools": []},
    }
    if kind + "_output" == _NAMED_BY_ID:
        return {"type": _NAMED_BY_ID, "id": call_id, "output": UNKNOWN_OUTCOME}
    name = "tool_search_output" if kind == "tool_search_call" else f"{kind}_output"
    return {"type": name, "call_id": call_id, **told.get(kind, {"output": UNKNOWN_OUTCOME})}


def _neutral_result(call: dict[str, Any], call_id: str) -> dict[str, Any]:
    role = {"role": "tool"} if "role" in call else {}
    name = {name: item for name, item in _data(call)[call_id].items() if name == "name"}
    data = {"call_id": call_id, **name, "output": UNKNOWN_OUTCOME}
    return {"type": f"{call['type']}_output", **role, "content": [{"type": "data", "data": data}]}


def _data(value: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the data of the contents that name a call, by its id."""
    parts = (part.get("data") for part in _dicts(value.get("content")) if part.get("type") == "data")
    found = (data for data in parts if isinstance(data, dict))
    return {data["call_id"]: data for data in found if _text(data.get("call_id")) is not None}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
