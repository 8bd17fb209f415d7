"""Markers: a product of a handler, a tool or a model is stored in any case; the turn lists what cannot be stored."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from numbers import Integral
from typing import Any
from uuid import UUID

import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from session_history import Message, SessionHistoryService, Turn, with_session_history
from session_history.errors import InvalidMessage, NotStorable
from session_history.records.messages import NATIVE, StoredMessage
from session_history.records.salvage import salvaged

pytestmark = pytest.mark.every_store

HERE = {"user_id": "u", "session_id": "s"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}
WHEN = datetime(2026, 11, 30, 12, tzinfo=UTC)
PRICE = Decimal("19.90")
NUMBER = UUID(int=7)

Json = dict[str, Any]


class Mood(Enum):
    GOOD = "good"


class Int64:
    """An integer as numpy has it: none of Python's, but registered as one."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


Integral.register(Int64)


@dataclass
class Seat:
    row: int = 12


def result(content: object) -> Json:
    return {"role": "tool", "tool_call_id": "c", "content": content}


async def stored(service: SessionHistoryService) -> list[Json]:
    session = await service.get_session("u", "s", native=True)
    return session.messages if session else []


async def history(service: SessionHistoryService) -> list[Json]:
    async with service.turn("u", "s", native=True) as turn:
        return turn.history


ODD: dict[str, tuple[object, object, str, str]] = {
    "datetime": (WHEN, str(WHEN), "datetime.datetime", "converted"),
    "decimal": (PRICE, str(PRICE), "decimal.Decimal", "converted"),
    "uuid": (NUMBER, str(NUMBER), "uuid.UUID", "converted"),
    "fraction": (Fraction(1, 3), "1/3", "fractions.Fraction", "converted"),
    "int of a library": (Int64(3), 3, f"{__name__}.Int64", "converted"),
    "bytes": (b"\xff\xfe", "2 bytes", "bytes", "replaced"),
    "object": (object(), "object", "object", "replaced"),
    "error": (ValueError("secret"), "ValueError", "ValueError", "replaced"),
    "nan": (float("nan"), "nan", "float", "converted"),
    "large number": (1 << 9000, "9001 bits", "int", "replaced"),
    "tuple": ((1, "a"), [1, "a"], "tuple", "converted"),
    "set": ({1}, [1], "set", "converted"),
    "enum": (Mood.GOOD, "good", f"{__name__}.Mood", "converted"),
    "dataclass": (Seat(), {"row": 12}, f"{__name__}.Seat", "converted"),
    "mapping": (OrderedDict(a=1), {"a": 1}, "collections.OrderedDict", "converted"),
}


@pytest.mark.parametrize(("value", "expected", "kind", "how"), ODD.values(), ids=ODD.keys())
async def test_odd_value_in_a_result_is_marked_and_the_rest_stays_verbatim(
    service: SessionHistoryService,
    value: object,
    expected: object,
    kind: str,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns: list[Turn[Any]] = []

    @with_session_history(service, native=True)
    async def handler(messages: list[Json], turn: Turn[Json]) -> Any:
        turns.append(turn)
        return [CALL, result({"seat": "12A", "value": value}), {"role": "assistant", "content": "done"}]

    answer: Any = await handler("book", **HERE)
    assert answer[1]["content"]["value"] is value, "the caller gets what the handler returned"
    _, call, made, last = await history(service)
    assert (call, last) == (CALL, {"role": "assistant", "content": "done"})
    assert made["content"]["seat"] == "12A"
    kept = made["content"]["value"]
    assert str(expected) in kept if how == "replaced" else kept == expected
    (marker,) = turns[0].markers
    assert (marker.path, marker.type, marker.kind) == ("messages[2].content.value", kind, how)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert marker.path in warning
    assert kind in warning
    assert "12A" not in warning
    assert "secret" not in warning + str(await stored(service))


async def test_keys_that_are_no_text_become_text_and_none_is_lost(service: SessionHistoryService) -> None:
    async with service.turn("u", "s", native=True) as turn:
        turn.add([CALL, result({1: "int", "1": "str", None: "none", (1, 2): "tuple"})])
    content = (await stored(service))[1]["content"]
    assert sorted(content.values()) == ["int", "none", "str", "tuple"]
    assert content["1"] == "str"
    assert {marker.kind for marker in turn.markers} == {"converted"}


async def test_value_that_contains_itself_is_marked(service: SessionHistoryService) -> None:
    loop: Json = {"name": "loop"}
    loop["self"] = [loop]
    async with service.turn("u", "s", native=True) as turn:
        turn.add([CALL, result(loop)])
    content = (await stored(service))[1]["content"]
    assert content["name"] == "loop"
    assert "contains itself" in content["self"][0]


@pytest.mark.parametrize("native", [True, False])
async def test_answer_with_lone_surrogates_is_kept_but_for_these(service: SessionHistoryService, native: bool) -> None:
    options: Any = {"native": native}

    @with_session_history(service, **options)  # type: ignore[untyped-decorator]
    async def handler(messages: list[Any]) -> str:
        return "a \ud83d\ude00 pair, one \ud800 lone"

    assert await handler("q", **HERE) == "a \ud83d\ude00 pair, one \ud800 lone"
    assert "a \U0001f600 pair, one \ufffd lone" in str(await stored(service))


async def test_streamed_surrogates_of_neighbouring_pieces_become_one_character(service: SessionHistoryService) -> None:
    @with_session_history(service, native=True)
    async def handler(messages: list[Json]) -> AsyncIterator[str]:
        yield "a \ud83d"
        yield "\ude00"

    assert [piece async for piece in handler("q", **HERE)] == ["a \ud83d", "\ude00"]
    assert (await stored(service))[-1] == {"role": "assistant", "content": "a \U0001f600"}


async def test_list_with_something_that_is_no_message_keeps_the_rest(service: SessionHistoryService) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> Any:
        return ["fine", 5, {"no": "role"}]

    assert await handler("q", **HERE) == ["fine", 5, {"no": "role"}]
    messages = await stored(service)
    assert "[not stored: int]" in str(messages[2])
    assert messages[3] == {"no": "role"}


async def test_failed_turn_with_an_odd_result_is_known_to_the_next_call(service: SessionHistoryService) -> None:
    with pytest.raises(RuntimeError):
        async with service.turn("u", "s", native=True) as turn:
            turn.add({"role": "user", "content": "book"})
            turn.add([CALL, result({"booked": WHEN})])
            raise RuntimeError
    assert str(WHEN) in (await history(service))[2]["content"]["booked"]


async def test_words_of_the_user_are_refused_with_their_path(service: SessionHistoryService) -> None:
    async with service.turn("u", "s", native=True) as turn:
        with pytest.raises(NotStorable, match=r"^message\.content\.when is of type datetime"):
            turn.add({"role": "user", "content": {"when": WHEN}})
        with pytest.raises(NotStorable, match=r"^messages\[1\]\.content"):
            turn.add([{"role": "system", "content": "x"}, {"role": "user", "content": "\ud800"}])
        with pytest.raises(InvalidMessage):
            turn.add([5, "text"])  # type: ignore[list-item]
    assert await stored(service) == []


async def test_result_in_a_message_of_the_user_is_kept(service: SessionHistoryService) -> None:
    block = {"type": "tool_result", "tool_use_id": "c", "content": WHEN}
    async with service.turn("u", "s", native=True) as turn:
        turn.add({"role": "user", "content": [block]})
    assert str(WHEN) in (await stored(service))[0]["content"][0]["content"]
    assert turn.markers[0].path == "messages[0].content[0].content"


async def test_messages_of_an_sdk_are_taken_as_their_api_sent_them(service: SessionHistoryService) -> None:
    message = ChatCompletionMessage.model_validate({"role": "assistant", "content": "hi", "refusal": None})
    seen: list[Any] = []

    @with_session_history(service, native=True)
    async def handler(messages: list[Json], turn: Turn[Json]) -> Any:
        seen.append(turn)
        return [message, {"role": "assistant", "content": [message]}]

    await handler(ChatCompletionMessage(role="assistant", content="as input"), **HERE)
    plain = {"content": "hi", "refusal": None, "role": "assistant"}
    first, second, third = await stored(service)
    assert first == {"content": "as input", "role": "assistant"}
    assert (second, third) == (plain, {"role": "assistant", "content": [plain]})
    assert seen[0].markers == []


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [WHEN]}]}, "text"),
        ({"role": "user", "content": [{"toolResult": {"toolUseId": "c", "content": [WHEN]}}]}, None),
        ({"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}, WHEN]}, None),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}, WHEN]},
            "output_text",
        ),
        ({"role": "tool", "content": [{"type": "tool-result", "toolCallId": "c"}, WHEN]}, "text"),
        ({"id": "m", "role": "assistant", "parts": [{"type": "text", "text": "a"}, WHEN]}, "text"),
    ],
    ids=["anthropic", "bedrock", "gemini", "responses", "ai sdk", "ui message"],
)
async def test_marker_among_parts_is_a_text_part_of_the_shape(
    service: SessionHistoryService, message: Json, part: str | None
) -> None:
    value, (marker,) = salvaged(message, "m")
    found = [each for each in _dicts(value) if str(WHEN) in str(each.get("text", ""))]
    expected = {"text"} if part is None else {"type", "text"}
    assert [set(each) for each in found] == [expected]
    assert found[0].get("type") == part
    assert marker.type == "datetime.datetime"
    StoredMessage.checked(NATIVE, value)


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ({"type": "image_url", "image_url": object()}, {"type": "text", "text": "[not stored: object]"}),
        ({"image": {"format": "png", "source": {"bytes": b"12"}}}, {"text": "[not stored: bytes, 2 bytes]"}),
        ({"inline_data": {"mime_type": "a/b", "data": b"12"}}, {"text": "[not stored: bytes, 2 bytes]"}),
    ],
    ids=["openai", "bedrock", "gemini"],
)
async def test_media_that_cannot_be_stored_become_a_text_part(
    service: SessionHistoryService, part: Json, kept: Json
) -> None:
    key = "parts" if "inline_data" in part else "content"
    message = {"role": "assistant", key: [{**kept, "text": "before"}, part]}
    async with service.turn("u", "s", native=True) as turn:
        turn.add([{"role": "user", "content": "q"}, message])
    assert (await stored(service))[1][key] == [{**kept, "text": "before"}, kept]
    assert len(turn.markers) == 1


def _dicts(value: Any) -> list[Json]:
    if isinstance(value, list):
        return [each for part in value for each in _dicts(part)]
    if isinstance(value, dict):
        return [value, *(each for part in value.values() for each in _dicts(part))]
    return []


@pytest.mark.parametrize(
    ("message", "stored_as"),
    [
        (
            {"type": "function_call_output", "output": [{"type": "input_image", "image_url": b"12"}]},
            {
                "type": "function_call_output",
                "output": [{"type": "input_text", "text": "[not stored: bytes, 2 bytes]"}],
            },
        ),
        (
            {
                "role": "user",
                "parts": [{"part_kind": "user-prompt", "content": ["a", {"kind": "binary", "data": b"1"}]}],
            },
            {"role": "user", "parts": [{"part_kind": "user-prompt", "content": ["a", "[not stored: bytes, 1 bytes]"]}]},
        ),
        (
            {"kind": "response", "parts": [{"part_kind": "file", "content": {"kind": "binary", "data": b"1"}}]},
            {"kind": "response", "parts": [{"part_kind": "text", "content": "[not stored: bytes, 1 bytes]"}]},
        ),
        (
            {"content": [{"toolResult": {"toolUseId": "c", "content": [{"json": object()}]}}]},
            {
                "content": [
                    {"toolResult": {"toolUseId": "c", "content": [{"json": {"not_stored": "[not stored: object]"}}]}}
                ]
            },
        ),
        (
            {"content": [{"toolResult": {"toolUseId": "c", "content": object()}}]},
            {"content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "[not stored: object]"}]}}]},
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": object()}}]},
            {"tool_calls": [{"function": {"name": "f", "arguments": '{"not_stored":"[not stored: object]"}'}}]},
        ),
        (
            {"id": "m", "parts": [{"type": "tool-readFile", "toolCallId": "c", "output": object()}]},
            {"id": "m", "parts": [{"type": "tool-readFile", "toolCallId": "c", "output": "[not stored: object]"}]},
        ),
    ],
    ids=[
        "responses",
        "pydantic-ai",
        "pydantic-ai file",
        "bedrock json",
        "bedrock result",
        "arguments",
        "tool of files",
    ],
)
async def test_marker_is_what_the_loader_of_its_shape_takes(
    service: SessionHistoryService, message: Json, stored_as: Json
) -> None:
    async with service.turn("u", "s", native=True) as turn:
        turn.add([{"role": "assistant", "content": "a"}, message])
    assert (await stored(service))[1] == stored_as
    assert len(turn.markers) == 1


class Weather(BaseModel):
    city: str
    unit: str = "C"
    note: str | None = None
    picture: bytes = b""


async def test_result_that_is_a_model_keeps_its_defaults_and_what_is_json_of_it(service: SessionHistoryService) -> None:
    results = [Weather(city="Rome"), Weather(city="Rome", picture=b"\xff")]
    async with service.turn("u", "s", native=True) as turn:
        turn.add({"role": "tool", "tool_call_id": "c", "content": results})
    first, second = (await stored(service))[0]["content"]
    assert first == {"city": "Rome", "unit": "C", "picture": ""}
    assert second == {"city": "Rome", "unit": "C", "picture": "[not stored: bytes, 1 bytes]"}
    assert [marker.path for marker in turn.markers] == ["messages[0].content[1].picture"]


async def test_items_of_a_neutral_handler_that_have_a_type_and_no_role_are_kept(service: SessionHistoryService) -> None:
    items = [
        {"type": "function_call", "call_id": "c", "name": "pay", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "charged"},
    ]

    @with_session_history(service)
    async def handler(messages: list[Any]) -> Any:
        return items

    await handler("pay", user_id="u", session_id="s")
    assert (await stored(service))[1:] == items


class Endless:
    def model_dump(self, **options: Any) -> Endless:
        return Endless()


class Unmeasurable(bytes):
    def __len__(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize("odd", [Endless, Unmeasurable])
async def test_hostile_value_is_marked(service: SessionHistoryService, odd: Any) -> None:
    async with service.turn("u", "s", native=True) as turn:
        turn.add({"role": "tool", "tool_call_id": "c", "content": [odd(), "kept"]})
    assert (await stored(service))[0]["content"][1] == "kept"
    assert turn.markers
