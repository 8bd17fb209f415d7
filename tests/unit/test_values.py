"""Tests of values: a storable one comes back equal, another one is refused with its path before anything is written.

And nothing that was said shows up in an error, in a ``repr`` or in a log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import logging
import math
import sqlite3
import traceback
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from session_history import (
    Content,
    DataContent,
    Identity,
    ImageContent,
    Message,
    Session,
    SessionHistoryService,
    SqliteSessionHistoryService,
    TextContent,
    with_session_history,
)
from session_history.errors import (
    Corrupt,
    IncompatibleStore,
    InvalidCursor,
    InvalidKey,
    InvalidMessage,
    LimitExceeded,
    NotStorable,
    SessionDeleted,
    SessionExists,
    SessionNotFound,
    TurnClosed,
    TurnIdReused,
)
from session_history.log.reader import TurnWindow
from session_history.records.messages import StoredMessage
from session_history.records.record import Author, MessageRef, Record
from session_history.records.summary import SessionSummary
from session_history.records.values import decode, encode
from session_history.view.assembly import TurnView
from session_history_hooks import Entry, SessionKey, Snapshot
from support import same

Json = dict[str, Any]

DEEPEST = 128
LARGEST = 2**8192 - 1

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers() | st.sampled_from([2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40, LARGEST, -LARGEST])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
STORABLE = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=12)
OBJECTS = st.dictionaries(TEXT, STORABLE)

MESSAGE_FIELDS = st.sampled_from(["id", "type", "role", "content", "metadata", "text", "data", "image_url", "read"])
NEARLY_MESSAGES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(MESSAGE_FIELDS | TEXT, inner), max_leaves=12
).filter(lambda value: isinstance(value, dict))

EXACT = [
    0,
    -1,
    LARGEST,
    -LARGEST,
    2**64,
    -(2**63) - 1,
    10**2000,
    True,
    1,
    1.0,
    0.0,
    -0.0,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    1e16,
    1e22,
    1e23,
    0.1 + 0.2,
    123456789012345680.0,
    "",
    "\0",
    "\u2028\u2029",
    "\x7f\x80\x85\ufeff\ufffe\uffff\U0010ffff",
    "\\u0000 \\ud800 \\",
    '"</script>',
    "e\u0301 \u00e9",
    {"": ""},
    {"\0": {"": None}},
    {"b": 1, "a": 2},
    {"1": 1, "01": 1},
    {"__proto__": {}, "constructor": None, "$ref": "#", "v": 2, "by": "x", "runs": []},
    [[], {}, [[]], [{}]],
    [True, 1, 1.0, "1"],
]


def nested(depth: int, innermost: object = None) -> list[Any]:
    """So many lists, one in another."""
    value: list[Any] = [] if innermost is None else [innermost]
    for _ in range(depth - 1):
        value = [value]
    return value


def alternating(depth: int) -> Json:
    """So many dicts and lists, one in another."""
    value: Any = {} if depth % 2 else []
    for level in range(depth - 1, 0, -1):
        value = {"k": value} if level % 2 else [value]
    assert isinstance(value, dict)
    return value


@given(STORABLE)
def test_decode_undoes_encode(value: object) -> None:
    assert same(decode(encode(value, "value")), value)


@pytest.mark.parametrize("value", EXACT, ids=lambda value: ascii(value)[:30])
def test_decode_undoes_encode_exactly(value: object) -> None:
    assert same(decode(encode(value, "value")), value)


@given(FLOATS)
@example(math.nextafter(0, 1))
@example(-0.0)
def test_floats_keep_every_bit(value: float) -> None:
    assert decode(encode(value, "value")).hex() == value.hex()


@given(st.integers(-LARGEST, LARGEST))
def test_integers_keep_every_digit(value: int) -> None:
    assert same(decode(encode(value, "value")), value)


@given(STORABLE)
def test_same_value_gives_same_bytes(value: object) -> None:
    assert encode(decode(encode(value, "value")), "value") == encode(value, "value")


@pytest.mark.parametrize("deepest", [nested(DEEPEST), alternating(DEEPEST)], ids=["lists", "both"])
def test_deepest_value_comes_back(deepest: object) -> None:
    assert same(decode(encode(deepest, "value")), deepest)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "[NaN]", "", "{", "1 2", '"\\ud800"'])
def test_decode_takes_only_what_encode_gives(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(text.encode())


async def kept_messages(service: SessionHistoryService, session_id: str) -> list[Json]:
    session = await service.get_session("u", session_id, native=True)
    assert session is not None
    return session.messages


fresh_ids = map("s{}".format, count())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(OBJECTS, min_size=1, max_size=3), metadata=OBJECTS, title=TEXT)
async def test_service_returns_values_as_they_were_added(
    service: SessionHistoryService, said: list[Json], metadata: Json, title: str
) -> None:
    session_id = next(fresh_ids)
    await service.create_session("u", session_id, title=title, metadata=metadata)
    async with service.turn("u", session_id, native=True) as turn:
        turn.add(said)
    session = await service.get_session("u", session_id, native=True)
    assert session is not None
    await service.append_message(session, said)
    assert same(session.messages, said + said)
    assert same(await kept_messages(service, session_id), said + said)
    listed = next(listed for listed in await service.list_sessions("u") if listed.id == session_id)
    for shown in (session, listed):
        assert same(shown.metadata, metadata)
        assert shown.title == title


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(NEARLY_MESSAGES, min_size=1, max_size=4))
async def test_stored_dict_is_readable_as_a_message(service: SessionHistoryService, said: list[Json]) -> None:
    session_id = next(fresh_ids)
    async with service.turn("u", session_id, native=True) as turn:
        turn.add(said)
    session = await service.get_session("u", session_id)
    assert session is not None
    assert [type(message) for message in session.messages] == [Message] * len(said)
    for message in session.messages:
        assert isinstance(message.text, str)


async def test_exact_values_come_back_from_stores(service: SessionHistoryService) -> None:
    said = [{"value": value} for value in [*EXACT, nested(DEEPEST - 1), alternating(DEEPEST - 1)]]
    async with service.turn("u", "s", native=True) as turn:
        turn.add(said)
        assert same(turn.messages, said)
    assert same(await kept_messages(service, "s"), said)


async def test_neutral_dicts_come_back_verbatim(service: SessionHistoryService) -> None:
    session = await service.create_session("u", "s")
    said = [{"extra": value, "content": [{"data": value, "type": "data"}], "role": "user"} for value in EXACT]
    await service.append_message(session, said)
    assert same(await kept_messages(service, "s"), said)


async def test_message_objects_come_back_equal(service: SessionHistoryService) -> None:
    session = await service.create_session("u", "s")
    said = [
        Message(role="user", content=[DataContent(data=value)], metadata={"k": value}, extra=value) for value in EXACT
    ]
    await service.append_message(session, said)
    assert same([message.model_dump() for message in session.messages], [message.model_dump() for message in said])
    read = await service.get_session("u", "s")
    assert read is not None
    assert same([message.model_dump() for message in read.messages], [message.model_dump() for message in said])


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


class Integer(int):
    pass


class Real(float):
    pass


class Table(dict[str, Any]):
    pass


class Row(list[Any]):
    pass


@dataclasses.dataclass
class Point:
    x: int = 1


def cyclic_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def cyclic_dict() -> Json:
    value: Json = {}
    value["again"] = [value]
    return value


SUBCLASSES = [
    Colour.RED,
    Word.RED,
    Number.ONE,
    Text("x"),
    Integer(1),
    Real(1.0),
    Table(a=1),
    Row([1]),
    OrderedDict(a=1),
    defaultdict(int, a=1),
    Counter("a"),
]

FOREIGN = [
    (1, 2),
    (),
    {1},
    frozenset(),
    b"bytes",
    bytearray(b"bytes"),
    memoryview(b"bytes"),
    1j,
    datetime(2026, 1, 1, tzinfo=UTC),
    date(2026, 1, 1),
    Decimal(1),
    Fraction(1, 2),
    UUID(int=0),
    Path("x"),
    range(3),
    object(),
    int,
    ...,
    NotImplemented,
    ValueError("x"),
]

Refusal = tuple[Any, str, str]
"""A value, the steps that lead from it to the flaw, and the reason."""

REFUSED: list[Refusal] = [
    *[(value, "", "is not a finite number") for value in (math.nan, math.inf, -math.inf)],
    *[
        (value, "", f"is of type {type(value).__name__}, which cannot be stored exactly")
        for value in SUBCLASSES + FOREIGN
    ],
    *[
        ({key: 1}, "", f"has a key of type {type(key).__name__}, not str")
        for key in (1, 1.0, None, True, b"k", ("k",), Word.RED, Text("k"))
    ],
    *[(text, "", "holds a lone surrogate") for text in ("\ud800", "a\udfffb", "\ud83d\ude00", "x" * 9999 + "\udc00")],
    ({"\ud800": 1}, "['\\ud800']", "holds a lone surrogate"),
    ({"ok": 1, "a\udc00 b": {}}, "['a\\udc00 b']", "holds a lone surrogate"),
    (LARGEST + 1, "", "has more than 8192 bits"),
    (-LARGEST - 1, "", "has more than 8192 bits"),
    ([1, [math.nan]], "[1][0]", "is not a finite number"),
    ({"a": {"": [math.nan]}}, ".a[''][0]", "is not a finite number"),
    ({"a b": {"中文": math.nan}}, "['a b'].中文", "is not a finite number"),
]

TOO_DEEP: list[Any] = [nested(DEEPEST + 1), alternating(DEEPEST + 1), nested(5000), cyclic_list(), cyclic_dict()]


def name_of(value: object) -> str:
    # No repr: that of a cyclic or a very deep value is no name.
    return type(value).__name__


@pytest.mark.parametrize(("value", "steps", "reason"), REFUSED, ids=[name_of(value) for value, _, _ in REFUSED])
def test_encode_of_an_unstorable_value_raises_not_storable(value: object, steps: str, reason: str) -> None:
    with pytest.raises(NotStorable) as refusal:
        encode({"here": [value]}, "value")
    assert (refusal.value.path, refusal.value.reason) == (f"value.here[0]{steps}", reason)
    assert str(refusal.value) == f"value.here[0]{steps} {reason}"


@pytest.mark.parametrize("value", TOO_DEEP, ids=name_of)
def test_encode_of_a_value_that_is_too_deep_raises_not_storable(value: object) -> None:
    with pytest.raises(NotStorable) as refusal:
        encode(value, "value")
    assert refusal.value.reason == "is nested more than 128 levels deep"


STEPS = st.lists(st.integers(0, 3) | st.from_regex(r"[a-z_]{1,9}", fullmatch=True), max_size=12)


def planted(steps: list[int | str], value: object, beside: object) -> object:
    """A value at the end of the steps, among others that can be stored."""
    for step in reversed(steps):
        value = {"Beside": beside, step: value} if isinstance(step, str) else [beside] * step + [value, beside]
    return value


@given(steps=STEPS, flawed=st.sampled_from([math.nan, 1j, (), "\udc00", Word.RED, LARGEST + 1]), beside=LEAVES)
def test_path_leads_to_the_flaw(steps: list[int | str], flawed: object, beside: object) -> None:
    with pytest.raises(NotStorable) as refusal:
        encode(planted(steps, flawed, beside), "value")
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    assert refusal.value.path == f"value{path}"


async def everything(service: SessionHistoryService) -> list[Json]:
    """All that there is of all sessions of the user."""
    sessions = [await service.get_session("u", listed.id, native=True) for listed in await service.list_sessions("u")]
    return [session.model_dump() for session in sessions if session is not None]


GOOD = {"role": "user", "content": "fine"}


def holding(value: object) -> Json:
    return {"role": "user", "content": "fine", "extra": [value]}


async def append(service: SessionHistoryService, session: Session[Any], value: object) -> None:
    await service.append_message(session, holding(value))


async def append_many(service: SessionHistoryService, session: Session[Any], value: object) -> None:
    await service.append_message(session, [GOOD, holding(value)])


async def append_object(service: SessionHistoryService, session: Session[Any], value: object) -> None:
    await service.append_message(session, Message(role="user", content="fine", extra=[value]))


async def add(service: SessionHistoryService, session: Session[Any], value: object, *, native: bool = False) -> None:
    async with service.turn("u", session.id, native=native) as turn:
        try:
            turn.add([GOOD, holding(value)])
        finally:
            assert turn.messages == []


async def add_natively(service: SessionHistoryService, session: Session[Any], value: object) -> None:
    await add(service, session, value, native=True)


async def update_metadata(service: SessionHistoryService, session: Session[Any], value: object) -> None:
    await service.update_session("u", session.id, metadata={"extra": [value]})


async def create_with_metadata(service: SessionHistoryService, session: Session[Any], value: object) -> None:
    await service.create_session("u", "another", metadata={"extra": [value]})


Writing = Callable[[SessionHistoryService, Session[Any], Any], Awaitable[None]]

WRITINGS: dict[str, tuple[Writing, str]] = {
    "append": (append, "message.extra[0]"),
    "append many": (append_many, "messages[1].extra[0]"),
    "add": (add, "messages[1].extra[0]"),
    "add natively": (add_natively, "messages[1].extra[0]"),
    "update metadata": (update_metadata, "metadata.extra[0]"),
    "create with metadata": (create_with_metadata, "metadata.extra[0]"),
}


@contextlib.asynccontextmanager
async def nothing_changes(service: SessionHistoryService, *, native: bool) -> AsyncIterator[Session[Any]]:
    """Hands out a session and insists that it stays as it is, in the store and in the caller's hands."""
    await service.append_message(await service.create_session("u", metadata={"kept": True}), GOOD)
    [listed] = await service.list_sessions("u")
    session: Session[Any] | None = (
        await service.get_session("u", listed.id, native=True) if native else await service.get_session("u", listed.id)
    )
    assert session is not None
    before, held = await everything(service), session.model_dump()
    yield session
    assert await everything(service) == before
    assert session.model_dump() == held


Outcome = tuple[str, str, str]
"""The kind of a value, and the path and the reason of its refusal."""

ACCEPTED = "is accepted"


async def outcome(value: object, work: Awaitable[None]) -> Outcome:
    try:
        await work
    except NotStorable as refusal:
        return name_of(value), refusal.path, refusal.reason
    return name_of(value), "", ACCEPTED


@pytest.mark.parametrize("native", [False, True], ids=["neutral", "native"])
@pytest.mark.parametrize("writing", WRITINGS)
async def test_refused_message_writes_nothing(service: SessionHistoryService, writing: str, native: bool) -> None:
    write, path = WRITINGS[writing]
    async with nothing_changes(service, native=native) as session:
        outcomes = [await outcome(value, write(service, session, value)) for value, _, _ in REFUSED]
        assert outcomes == [(name_of(value), path + steps, reason) for value, steps, reason in REFUSED]


@pytest.mark.parametrize("native", [False, True], ids=["neutral", "native"])
@pytest.mark.parametrize("writing", WRITINGS)
async def test_message_that_is_too_deep_writes_nothing(
    service: SessionHistoryService, writing: str, native: bool
) -> None:
    write, start = WRITINGS[writing]
    async with nothing_changes(service, native=native) as session:
        outcomes = [await outcome(value, write(service, session, value)) for value in TOO_DEEP]
        assert {reason for _, _, reason in outcomes} == {"is nested more than 128 levels deep"}
        assert all(path.startswith(start) for _, path, _ in outcomes)


async def test_message_object_is_refused_like_its_dict(service: SessionHistoryService) -> None:
    async with nothing_changes(service, native=False) as session:
        outcomes = [await outcome(value, append_object(service, session, value)) for value, _, _ in REFUSED]
    assert [found for found in outcomes if found[2] == ACCEPTED] == []
    assert outcomes == [(name_of(value), f"message.extra[0]{steps}", reason) for value, steps, reason in REFUSED]


@pytest.mark.parametrize("value", [Point(), TextContent(text="x"), iter([1])], ids=name_of)
async def test_message_object_does_not_turn_other_objects_into_dicts(
    service: SessionHistoryService, value: object
) -> None:
    async with nothing_changes(service, native=False) as session:
        with pytest.raises(NotStorable, match=r"^message.extra\[0\] is of type \w+, which cannot be stored exactly$"):
            await append_object(service, session, value)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "user", "content": "\ud800"}, "message.content"),
        ({"role": "user", "content": [{"type": "text", "text": "\ud800"}]}, "message.content[0].text"),
        ([GOOD, GOOD, {"role": "\ud800"}], "messages[2].role"),
        ([GOOD, {"\ud800": 1}], "messages[1]['\\ud800']"),
        (Message(role="user", content=[DataContent(data=["\ud800"])]), "message.content[0].data[0]"),
        ([Message(role="user", metadata={"k": "\ud800"})], "messages[0].metadata.k"),
    ],
)
async def test_path_names_the_part_of_the_message(service: SessionHistoryService, message: Any, path: str) -> None:
    async with nothing_changes(service, native=False) as session:
        with pytest.raises(NotStorable) as refusal:
            await service.append_message(session, message)
        assert refusal.value.path == path


@pytest.mark.parametrize("title", [1, b"x", Text("x"), Word.RED, "\ud800", ["x"]], ids=name_of)
async def test_refused_title_writes_nothing(service: SessionHistoryService, title: Any) -> None:
    async with nothing_changes(service, native=False) as session:
        with pytest.raises(NotStorable, match=r"^title "):
            await service.update_session("u", session.id, title=title)
        with pytest.raises(NotStorable, match=r"^title "):
            await service.create_session("u", "another", title=title)


async def test_deepest_message_and_metadata_are_kept(service: SessionHistoryService) -> None:
    message: Json = {"role": "user", "extra": nested(DEEPEST - 1)}
    metadata: Json = {"deep": nested(DEEPEST - 1)}
    session = await service.create_session("u", "s", metadata=metadata)
    await service.append_message(session, [message, message])
    async with service.turn("u", "s", native=True) as turn:
        turn.add(message)
    assert same(await kept_messages(service, "s"), [message] * 3)
    [listed] = await service.list_sessions("u")
    assert same(listed.metadata, metadata)


@pytest.mark.parametrize("depth", [1, 20, DEEPEST, 150, 190, 200, 300, 1200])
async def test_answer_in_nested_lists_is_kept_or_refused(service: SessionHistoryService, depth: int) -> None:
    """Either way the session stays readable, and a repeat gives what the first call gave."""

    @with_session_history(service, native=True)
    async def handler(messages: list[Json], *, answer: list[Any]) -> list[Any]:
        return answer

    answer = nested(depth, {"role": "assistant", "content": "Hello"})
    try:
        await handler("Hello", user_id="u", session_id="s", turn_id="t", answer=answer)
    except (NotStorable, InvalidMessage):
        session = await service.get_session("u", "s")
        assert session is not None
    else:
        again = await handler("Hello", user_id="u", session_id="s", turn_id="t", answer=[])
        assert unpacked(again) == unpacked(answer) == (depth, {"role": "assistant", "content": "Hello"})


def unpacked(value: Any) -> tuple[int, Any]:
    """Return the number of lists around the innermost value."""
    depth = 0
    while isinstance(value, list) and len(value) == 1:
        depth, value = depth + 1, value[0]
    return depth, value


async def test_text_of_a_str_enum_is_recorded_as_it_reads(service: SessionHistoryService) -> None:
    class Answer(str, enum.Enum):  # noqa: UP042 - how people wrote a StrEnum before there was one
        YES = "yes"

    @with_session_history(service, native=True)
    async def handler(messages: list[Json]) -> str:
        assert messages[-1] == {"role": "user", "content": "yes"}
        return Answer.YES

    assert await handler(Answer.YES, user_id="u", session_id="s", turn_id="t") == "yes"
    assert await handler("yes", user_id="u", session_id="s", turn_id="t") == "yes"
    assert [message["content"] for message in await kept_messages(service, "s")] == ["yes", "yes"]


SPOILERS: dict[str, object] = {"other text": "changed", "NaN": math.nan, "set": {1}, "object": object()}
"""What user code may put into a dict that it was handed, with its effect on a store that shares the dict."""


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS.keys())
async def test_added_message_stays_when_the_caller_changes_its_dict(
    service: SessionHistoryService, spoiler: object
) -> None:
    said: Json = {"role": "user", "content": "Hello", "extra": {"list": [1]}}
    as_said = json.loads(json.dumps(said))
    async with service.turn("u", "s", native=True) as turn:
        turn.add(said)
        said["content"] = said["extra"]["list"] = spoiler
    assert await kept_messages(service, "s") == [as_said]


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS.keys())
async def test_added_message_stays_when_turn_messages_are_changed(
    service: SessionHistoryService, spoiler: object
) -> None:
    async with service.turn("u", "s", native=True) as turn:
        turn.add({"role": "user", "content": "Hello"})
        turn.messages[0]["content"] = spoiler
    assert await kept_messages(service, "s") == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS.keys())
async def test_input_stays_when_a_handler_changes_its_messages(service: SessionHistoryService, spoiler: object) -> None:
    @with_session_history(service, native=True)
    async def handler(messages: list[Json]) -> str:
        messages[-1]["content"] = spoiler
        return "Hi"

    for _ in range(2):
        said = {"role": "user", "content": "Hello"}
        assert await handler(said, user_id="u", session_id="s", turn_id="t") == "Hi"
    assert await kept_messages(service, "s") == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ]


async def test_input_stays_when_a_handler_changes_metadata(service: SessionHistoryService) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> str:
        assert messages[-1].metadata is not None
        messages[-1].metadata["inner"]["n"] = 2
        return "Hi"

    said = Message(role="user", content="Hello", metadata={"inner": {"n": 1}})
    await handler(said, user_id="u", session_id="s")
    session = await service.get_session("u", "s")
    assert session is not None
    assert session.messages[0].metadata == {"inner": {"n": 1}}


SECRET = "tell-nobody-4711"


class Gossip:
    """Shows itself wherever it is asked to."""

    def __repr__(self) -> str:
        return SECRET


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it came from, as far as Python tells."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def shown(error: BaseException) -> str:
    texts = [f"{one} {one!r}" for one in chain(error)]
    return "\n".join([*texts, *traceback.format_exception(error)])


SECRET_MESSAGES: dict[str, Any] = {
    "text": SECRET,
    "bytes": SECRET.encode(),
    "list of text": [SECRET],
    "nested list": [[{"role": SECRET}]],
    "set": {SECRET},
    "object": Gossip(),
    "no role": {"content": SECRET},
    "no role, in a list": [GOOD, {"content": [{"type": "text", "text": SECRET}]}],
    "role": {"role": [SECRET]},
    "type": {"role": "user", "type": {SECRET: SECRET}},
    "id": {"role": "user", "id": [SECRET]},
    "metadata": {"role": "user", "metadata": SECRET},
    "content": {"role": "user", "content": {"text": SECRET}},
    "content list": {"role": "user", "content": [SECRET, {"text": [SECRET]}]},
    "content type": {"role": "user", "content": [{"type": [SECRET], "text": SECRET}]},
    "surrogate": {"role": "user", "content": f"{SECRET}\ud800"},
    "surrogate in data": {"role": "user", "content": [{"type": "data", "data": [f"{SECRET}\udc00"]}]},
    "foreign": {"role": "user", "content": "x", "extra": [Decimal(4711), Gossip(), SECRET.encode()]},
    "int": {"role": "user", "n": LARGEST + 1, "content": SECRET},
    "too deep": {"role": "user", "content": "x", "extra": nested(DEEPEST, SECRET)},
    "object in a message": Message(role="user", content=SECRET, extra=Gossip()),
    "surrogate in a message": Message(role="user", content=f"{SECRET}\ud800"),
}


@pytest.mark.parametrize("message", SECRET_MESSAGES.values(), ids=SECRET_MESSAGES.keys())
async def test_refusal_shows_no_content(service: SessionHistoryService, message: Any) -> None:
    session = await service.create_session("u", "s")
    with pytest.raises((NotStorable, InvalidMessage)) as refusal:
        await service.append_message(session, message)
    assert SECRET not in shown(refusal.value)
    async with service.turn("u", "s") as turn:
        with pytest.raises((NotStorable, InvalidMessage)) as refusal:
            turn.add(message)
        assert SECRET not in shown(refusal.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Message(content=SECRET),  # type: ignore[call-arg]
        lambda: Message(role=[SECRET]),  # type: ignore[arg-type]
        lambda: Message(role="user", content=[SECRET]),  # type: ignore[list-item]
        lambda: Message(role="user", metadata=SECRET),  # type: ignore[arg-type]
        lambda: Message.model_validate(SECRET),
        lambda: Message.model_validate_json(SECRET),
        lambda: Message.model_validate_json(f'{{"role": ["{SECRET}"]}}'),
        lambda: TextContent(text=[SECRET]),  # type: ignore[arg-type]
        lambda: ImageContent(image_url=[SECRET]),  # type: ignore[arg-type]
        lambda: Content(type=[SECRET]),  # type: ignore[arg-type]
        lambda: Session(id="s", user_id="u", messages=[SECRET]),
        lambda: Session(id="s", user_id="u", metadata=SECRET),  # type: ignore[arg-type]
    ],
)
def test_error_of_an_invalid_model_shows_no_content(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        make()
    assert SECRET not in shown(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: setattr(message, "content", SECRET),
        lambda message: message.content.append({"type": "text", "text": SECRET}),
        lambda message: setattr(message.content[0], "text", [SECRET]),
        lambda message: setattr(message, "metadata", [SECRET]),
        lambda message: setattr(message, "role", [SECRET]),
    ],
    ids=["content", "part", "text", "metadata", "role"],
)
async def test_refusal_of_a_changed_message_shows_no_content(
    service: SessionHistoryService, change: Callable[[Message], None]
) -> None:
    """Neither an error nor a warning may show the content of a message."""
    message = Message(role="user", content="Hello")
    change(message)
    session = await service.create_session("u", "s")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        refusal = await refused(service.append_message(session, message), NotStorable, InvalidMessage)
    assert refusal is None or SECRET not in shown(refusal)
    assert not [warning for warning in warned if SECRET in str(warning.message)]


async def reuse_turn_id(service: SessionHistoryService) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> str:
        return SECRET

    await handler(f"{SECRET} 1", user_id="u", session_id="s", turn_id="t")
    await handler(f"{SECRET} 2", user_id="u", session_id="s", turn_id="t")


async def answer_with(service: SessionHistoryService, answer: object) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> Any:
        return answer

    await handler(SECRET, user_id="u", session_id="s")


async def stream(service: SessionHistoryService, item: object) -> None:
    @with_session_history(service)
    async def handler(messages: list[Message]) -> AsyncIterator[Any]:
        yield SECRET
        yield item

    assert [piece async for piece in handler(SECRET, user_id="u", session_id="s")]


async def end_turn_in_a_deleted_session(service: SessionHistoryService, error: Exception | None = None) -> None:
    async with service.turn("u", "s") as turn:
        turn.add({"role": "user", "content": SECRET})
        await service.delete_session("u", "s")
        if error is not None:
            raise error


async def add_to_a_closed_turn(service: SessionHistoryService) -> None:
    async with service.turn("u", "s") as turn:
        pass
    turn.add({"role": "user", "content": SECRET})


async def append_too_much(service: SessionHistoryService) -> None:
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    await service.append_message(session, {"said": SECRET, "much": ["x" * 2**20] * 65})


async def create_twice(service: SessionHistoryService) -> None:
    await service.create_session("u", "t", title=SECRET, metadata={SECRET: SECRET})
    await service.create_session("u", "t", title=SECRET, metadata={SECRET: SECRET})


MISHAPS: list[tuple[type[Exception], Callable[[SessionHistoryService], Awaitable[object]]]] = [
    (TurnIdReused, reuse_turn_id),
    (InvalidMessage, lambda service: answer_with(service, {SECRET})),
    (InvalidMessage, lambda service: answer_with(service, Gossip())),
    (InvalidMessage, lambda service: answer_with(service, {"content": SECRET})),
    (InvalidMessage, lambda service: stream(service, {SECRET})),
    (SessionDeleted, end_turn_in_a_deleted_session),
    (KeyError, lambda service: end_turn_in_a_deleted_session(service, KeyError("of the handler"))),
    (TurnClosed, add_to_a_closed_turn),
    (SessionExists, create_twice),
    (SessionNotFound, lambda service: service.update_session("u", "never seen", title=SECRET)),
    (LimitExceeded, append_too_much),
    (LimitExceeded, lambda service: service.update_session("u", "s", metadata={"k": SECRET * 100_000})),
    (NotStorable, lambda service: service.update_session("u", "s", title=f"{SECRET}\ud800")),
    (NotStorable, lambda service: service.update_session("u", "s", metadata={"k": Gossip()})),
    (InvalidKey, lambda service: service.get_session(f"{SECRET}\0", "s")),
    (InvalidKey, lambda service: service.get_session("u", f"{SECRET}\ud800")),
    (InvalidKey, lambda service: service.list_sessions(SECRET * 100)),
    (InvalidCursor, lambda service: service.get_session("u", "s", before=SECRET)),
    (InvalidCursor, lambda service: service.list_sessions("u", cursor=SECRET)),
]


@pytest.mark.parametrize(("kind", "mishap"), MISHAPS)
async def test_error_shows_no_content(
    service: SessionHistoryService,
    kind: type[Exception],
    mishap: Callable[[SessionHistoryService], Awaitable[object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    await service.create_session("u", "s")
    with pytest.raises(kind) as raised:
        await mishap(service)
    assert SECRET not in shown(raised.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("payload", SECRET),
        ("payload", f'{{"{SECRET}": 1}}'),
        ("payload", f'{{"v": 1, "by": "{SECRET}"}}'),
        ("payload", f'{{"v": 1, "by": "append", "base": 0, "at": 0, "runs": "{SECRET}"}}'),
        ("payload", f'{{"v": "{SECRET}"}}'),
        ("summary", SECRET),
        ("summary", f'{{"v": 1, "{SECRET}": 1}}'),
        ("summary", f'["{SECRET}"]'),
    ],
)
async def test_error_of_a_damaged_store_shows_no_content(
    tmp_path: Path, column: str, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither an error nor a log may show the content of a damaged entry."""
    caplog.set_level(logging.DEBUG)
    async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
        await service.append_message(await service.create_session("u", "s"), {"role": "user", "content": "Hello"})
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as connection, connection:
        connection.execute(f"UPDATE {'entry' if column == 'payload' else 'head'} SET {column} = ?", (content.encode(),))
    async with SqliteSessionHistoryService(tmp_path / "history.db") as service:
        for reading in (service.get_session("u", "s"), service.list_sessions("u"), open_and_close(service)):
            refusal = await refused(reading, Corrupt, IncompatibleStore)
            assert refusal is None or SECRET not in shown(refusal)
        if column == "payload":
            assert await refused(service.get_session("u", "s"), Corrupt, IncompatibleStore) is not None
    assert SECRET not in caplog.text


async def open_and_close(service: SessionHistoryService) -> None:
    async with service.turn("u", "s"):
        pass


async def refused(work: Awaitable[object], *kinds: type[Exception]) -> Exception | None:
    try:
        await work
    except kinds as refusal:
        return refusal
    return None


def everything_with_a_repr() -> list[object]:
    part = TextContent.model_validate({"text": SECRET, "annotations": [SECRET]})
    message = Message(id="m", role="user", content=[part], metadata={"k": SECRET}, extra=SECRET)
    session = Session(id="s", user_id="u", messages=[message], title=SECRET, metadata={"k": SECRET})
    return [
        part,
        ImageContent(image_url=SECRET),
        DataContent(data=SECRET),
        Content.model_validate({"type": "file", "name": SECRET}),
        message,
        Message.read({"role": "user", "content": SECRET}),
        Message.read({SECRET: SECRET}),
        session,
        Session[Any](id="s", user_id="u", messages=[{"role": "user", "content": SECRET}]),
        StoredMessage("f", {SECRET: SECRET}),
        Record(Author.TURN, 0, (StoredMessage("f", {SECRET: SECRET}),), changes={"title": SECRET}, shape=["text"]),
        SessionSummary(SECRET, {SECRET: SECRET}),
        TurnView(MessageRef(1, 0), None, True, [StoredMessage("f", {SECRET: SECRET})]),
        TurnWindow(
            None,
            SessionSummary(SECRET),
            [TurnView(MessageRef(1, 0), None, True, [StoredMessage("f", {SECRET: SECRET})])],
        ),
        Identity("u", "s", SECRET),
        Entry("e", SECRET.encode()),
        Snapshot(1, "e", SECRET.encode()),
        [message, session],
    ]


@pytest.mark.parametrize("value", everything_with_a_repr(), ids=name_of)
def test_repr_shows_no_content(value: object) -> None:
    for text in (repr(value), str(value), f"{value}", f"{value!r:>5}", "%s" % (value,)):  # noqa: UP031 - one more way
        assert SECRET not in text


async def test_repr_of_objects_from_a_service_shows_no_content(service: SessionHistoryService) -> None:
    session = await service.create_session("u", "s", title=SECRET, metadata={"k": SECRET})
    await service.append_message(session, {"role": "user", "content": SECRET})
    async with service.turn("u", "s", turn_id="t") as turn:
        turn.add({"role": "user", "content": SECRET})
        assert SECRET not in f"{turn} {turn!r}"
    async with service.turn("u", "s", turn_id="t", native=True) as again:
        assert again.recorded is not None
        assert SECRET not in f"{again} {again!r}"
    listed = await service.list_sessions("u")
    log = await service.provider.read(SessionKey("u", "s"))
    page = await service.provider.list("u", limit=9)
    assert SECRET not in f"{session} {listed} {service} {log} {page} {await service.get_session('u', 's')}"


def parsed(folder: Path, pattern: str) -> list[Json]:
    """Return the files that Python can read, as JSON objects."""
    values = []
    for file in sorted(folder.glob(pattern)):
        with contextlib.suppress(ValueError):
            value = json.loads(file.read_bytes())
            values.append(value if isinstance(value, dict) else {"v": value})
    return values


def is_storable(value: object, levels: int = DEEPEST) -> bool:
    """The design's definition, said once more."""
    if isinstance(value, dict | list):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return levels > 0 and all(is_storable(part, levels - 1) for part in parts)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, float) or math.isfinite(value)


async def round_trip(service: SessionHistoryService, values: list[Json]) -> Counter[str]:
    session = await service.get_session("u", "s", native=True)
    assert session is not None
    for value in values:
        if is_storable(value):
            await service.append_message(session, value)
        else:
            with pytest.raises(NotStorable):
                await service.append_message(session, value)
    storable = [value for value in values if is_storable(value)]
    assert same(await kept_messages(service, "s"), storable)
    return Counter(stored=len(storable), refused=len(values) - len(storable))


async def test_json_that_must_parse_comes_back(service: SessionHistoryService, shared: Path) -> None:
    outcomes = await round_trip(service, parsed(shared / "data" / "json-test-suite", "y_*.json"))
    print(outcomes)
    assert outcomes["stored"] > 30


async def test_json_that_may_parse_comes_back_or_is_refused(service: SessionHistoryService, shared: Path) -> None:
    outcomes = await round_trip(service, parsed(shared / "data" / "json-test-suite", "i_*.json"))
    print(outcomes)
    assert outcomes["stored"] > 0
    assert outcomes["refused"] > 5
