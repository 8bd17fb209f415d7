"""Blocks and messages that an agent, its model and its tools produced: stored in any case, perhaps with markers."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from agentscope.message import ContentBlock, DataBlock, Msg, TextBlock, ToolCallBlock, ToolResultBlock, ToolResultState
from agentscope.tool import ToolResponse
from pydantic import BaseModel, ValidationError

from session_history.records.markers import Marker
from session_history.records.salvage import marker_text, salvaged, type_name
from session_history.records.values import flaw_of, plain

_FREE = ("metadata", "structured_output")
"""The fields that hold any values. Only these change silently in AgentScope's own dump."""

Json = dict[str, Any]


def free_form(model: BaseModel) -> Json:
    """Return the fields of a message or a block that hold any values."""
    fields = type(model).model_fields
    return {name: getattr(model, name, None) for name in _FREE if name in fields} | (model.model_extra or {})


def produced_block(block: ContentBlock, path: str) -> tuple[Json, list[Marker]]:
    """Return a block as JSON that AgentScope can load again, and what it lacks."""
    value, markers = _produced(block, path, frozenset())
    if _loads(type(block), value):
        return value, markers
    return _placeholder(block), [Marker(path, type_name(block), "replaced")]


def produced_result(call: ToolCallBlock, response: ToolResponse, metadata: Any) -> ToolResultBlock:
    """Return the result of a call, as AgentScope would have made it.

    :param metadata: that of the response, as it can be stored.
    """
    return ToolResultBlock(
        id=call.id,
        name=call.name,
        output=[block for block in response.content if isinstance(block, (TextBlock, DataBlock))],
        state=response.state,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def produced_fields(msg: Msg, path: str) -> tuple[Json, list[Marker]]:
    """Return the fields of a message, besides its content, as JSON that AgentScope can load again."""
    value, markers = _produced(msg, path, frozenset({"content"}))
    if _loads(Msg, value | {"content": []}):
        return value, markers
    role = msg.role if msg.role in ("user", "system") else "assistant"
    empty = Msg(name=_text(msg.name) or role, role=role, id=_text(msg.id) or "unknown", content=[])
    return empty.model_dump(mode="json", exclude={"content"}), [Marker(path, type_name(msg), "replaced")]


def _produced(model: BaseModel, path: str, exclude: AbstractSet[str]) -> tuple[Json, list[Marker]]:
    exact = _exact(model, exclude)
    return (exact, []) if exact is not None else _converted(model, path, exclude)


def _converted(model: BaseModel, path: str, exclude: AbstractSet[str]) -> tuple[Json, list[Marker]]:
    """Return a model of which something changes as JSON, field by field."""
    value: Json = {}
    markers: list[Marker] = []
    for name in [*type(model).model_fields, *(model.model_extra or {})]:
        if name not in exclude:
            value[name], lacks = _field(model, name, f"{path}.{name}")
            markers += lacks
    return value, markers


def _exact(model: BaseModel, exclude: AbstractSet[str]) -> Json | None:
    """Return a model as JSON; ``None`` if something in it would change."""
    try:
        value = model.model_dump(mode="json", exclude=set(exclude), warnings="error")
    except Exception:  # of pydantic, or of a value's own methods
        return None
    is_same = flaw_of(value) is None and all(flaw_of(each) is None for each in free_form(model).values())
    return value if is_same else None


def _field(model: BaseModel, name: str, path: str) -> tuple[Any, list[Marker]]:
    field = getattr(model, name, None)
    if name in free_form(model):
        return salvaged(field, path)
    if isinstance(field, list) and field and all(isinstance(item, BaseModel) for item in field):
        pairs = [_produced(item, f"{path}[{index}]", frozenset()) for index, item in enumerate(field)]
        return [value for value, _ in pairs], [marker for _, markers in pairs for marker in markers]
    try:
        value = model.model_dump(mode="json", include={name}, warnings="error")[name]
    except Exception:  # see _exact
        return salvaged(field, path)
    return salvaged(value, path)


def _loads(kind: type[BaseModel], value: Json) -> bool:
    try:
        kind.model_validate(value)
    except ValidationError:
        return False
    return True


def _placeholder(block: ContentBlock) -> Json:
    """Return a block that says what it stands for. The result of a call stays its result."""
    text, block_id = marker_text(block, ""), _text(getattr(block, "id", None))
    if isinstance(block, ToolResultBlock) and block_id:
        state = block.state if block.state in tuple(ToolResultState) else ToolResultState.INTERRUPTED
        result = ToolResultBlock(id=block_id, name=_text(block.name) or "unknown", output=text, state=state)
        return result.model_dump(mode="json")
    return TextBlock(text=text, id=block_id or "unknown").model_dump(mode="json")


def _text(value: object) -> str:
    """Return a text as it can be stored; ``""`` for anything else."""
    return str(salvaged(plain(value), "")[0]) if isinstance(value, str) else ""
