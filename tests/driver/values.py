"""Values that tools and models produce, odd ones among them, and how each is to be kept."""

from __future__ import annotations

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from math import isfinite, nan
from numbers import Integral, Number
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel

from support import same

Json = dict[str, Any]


class Int64:
    """An integer like those of numpy: registered, and no subclass of ``int``."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


class Ratio:
    """A number like those of other libraries."""

    def __str__(self) -> str:
        return "2/3"


class Mute(Ratio):
    """A number whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


Integral.register(Int64)
Number.register(Ratio)


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


class Mood(Enum):
    GOOD = "good"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Seat:
    row: object


class Model(BaseModel):
    text: str
    when: date


Pair = namedtuple("Pair", "one two")  # noqa: PYI024 - untyped on purpose


class Closed(Mapping[str, Any]):
    """A mapping that cannot be read any more, like a row of a closed cursor."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("closed")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("closed")

    def __len__(self) -> int:
        raise RuntimeError("closed")


class Opaque:
    """An object of which nothing is known."""


def _loop(token: str) -> Json:
    loop: Json = {"token": token}
    loop["inner"] = [loop, {"again": loop}]
    return loop


def _list_loop(token: str) -> list[Any]:
    loop: list[Any] = [token]
    loop.append(loop)
    return loop


def _deep(token: str) -> list[Any]:
    deep: list[Any] = [token]
    for _ in range(150):
        deep = [deep]
    return deep


PLAIN: list[Callable[[str], Any]] = [
    lambda token: token,
    lambda token: {"token": token, "rows": [1, -2.5, None, True, {"ü": "\U0001f600"}]},
    lambda token: [token, 1 << 80, 0.1, ""],
    lambda token: {"": token, "[not stored": "by the tool itself", "a b": {}},
]

ODD: list[Callable[[str], Any]] = [
    lambda _: datetime(2026, 11, 30, 12, tzinfo=UTC),
    lambda _: date(2026, 11, 30),
    lambda _: time(12, 30),
    lambda _: timedelta(days=3),
    lambda _: Decimal("19.90"),
    lambda _: UUID(int=7),
    lambda _: b"\xff\xfe\x00",
    lambda _: bytearray(b"abc"),
    lambda _: memoryview(b"abc"),
    lambda token: (token, 1),
    lambda token: ((token,), ()),
    lambda token: {token},
    lambda token: frozenset({token, 1}),
    lambda _: nan,
    lambda _: -float("inf"),
    lambda _: 1 << 9000,
    lambda _: Int64(3),
    lambda _: Ratio(),
    lambda _: Mute(),
    lambda _: 1j,
    ValueError,
    lambda _: Opaque(),
    lambda _: Opaque,
    lambda _: print,
    lambda token: (part for part in token),
    _loop,
    _list_loop,
    _deep,
    lambda token: f"{token} lone \ud800",
    lambda token: f"{token} pair \ud83d\ude00, lone \udc00\ud83d",
    Text,
    lambda _: Mood.GOOD,
    lambda _: Level.HIGH,
    lambda token: Seat(row=token),
    lambda token: Seat(row=Seat(row=Decimal(len(token)))),
    lambda token: Model(text=token, when=date(2026, 11, 30)),
    lambda token: Pair(token, date(2026, 11, 30)),
    lambda token: OrderedDict(token=token),
    lambda token: MappingProxyType({"token": token}),
    lambda _: Closed(),
    lambda token: {1: token, "1": "text", None: "none", (1, 2): "tuple", Mood.GOOD: "enum"},
    lambda token: {"\ud800": token, Text("key"): token, Decimal(1): token, True: token},
]


PARTS: list[Callable[[str], Any]] = [
    lambda _: datetime(2026, 11, 30, 12, tzinfo=UTC),
    lambda _: b"\xff\xfe\x00",
    lambda _: Decimal("19.90"),
    lambda _: Opaque(),
    ValueError,
    lambda _: nan,
    lambda _: Ratio(),
    lambda _: Closed(),
]
"""Values of which a marker takes the place, also as a part of a message."""


def value(random: Random, token: str, oddness: float, depth: int = 2) -> Any:
    """Return what a tool returned. Odd values stand at random places of plain ones."""
    if random.random() >= oddness:
        return random.choice(PLAIN)(token)
    odd = random.choice(ODD)(token)
    around = random.randrange(depth + 3)
    if around == 0:
        return {"token": token, "when": odd, "more": value(random, token, oddness / 2)}
    if around == 1:
        return [token, odd, [odd, {"x y": odd}]]
    return {"token": token, "odd": odd} if around == 2 else odd


class Deviation(NamedTuple):
    """A place where a value is not kept as it was: what a marker has to say of it.

    :ivar type: ``None`` for any.
    """

    path: str
    type: str | None
    kind: str


class Mismatch(AssertionError):
    """A value is kept neither equal nor as a marker."""


def deviations(given: Any, kept: Any, path: str) -> list[Deviation]:
    """Return where a value is kept as a marker, or converted. :raises Mismatch: it is kept in no such way."""
    return list(_deviations(given, kept, path, ()))


def _deviations(given: Any, kept: Any, path: str, around: tuple[int, ...]) -> Iterator[Deviation]:
    text = marker_text(kept)
    is_inside = isinstance(given, dict) and isinstance(kept, dict) and given.keys() == kept.keys()
    if text is not None and ", too large: " in text and not is_inside and not same(given, kept):
        yield Deviation(path, None, "too large")
        return
    if isinstance(given, BaseModel):
        given = given.model_dump(mode="json")
    if type(given) is dict or type(given) is list or _members(given) is not None:
        yield from _of_container(given, kept, path, around)
    elif type(given) is str or isinstance(given, (Text, Enum)):
        yield from _of_text(given, kept, path)
    elif given is None or type(given) is bool or (_is_number(given) and _is_storable_number(given)):
        _require(same(given, kept), path)
    elif isinstance(given, Int64):
        _require(same(given.value, kept), path)
        yield Deviation(path, type_name(given), "converted")
    elif _is_told(given):
        _require(_unwrapped(kept) == _text_of(given), path)
        yield Deviation(path, type_name(given), "converted")
    else:
        _require(text is not None and text.startswith(f"[not stored: {type_name(given)}"), path)
        _require(_size_of(given) in (text or ""), path)
        yield Deviation(path, type_name(given), "replaced")


def _of_text(given: Any, kept: Any, path: str) -> Iterator[Deviation]:
    plain = str.__str__(given) if isinstance(given, str) else given.value
    said = _without_surrogates(plain) if isinstance(plain, str) else plain
    _require(same(said, kept), path)
    if type(given) is not str:
        yield Deviation(path, type_name(given), "converted")
    if said != plain:
        yield Deviation(path, "str", "converted")


def _of_container(given: Any, kept: Any, path: str, around: tuple[int, ...]) -> Iterator[Deviation]:
    text = marker_text(kept)
    told = text or ""
    if isinstance(given, Closed) or id(given) in around or "nested more than" in told:
        reason = "not readable" if isinstance(given, Closed) else "contains itself" if id(given) in around else "nested"
        _require(reason in told, path)
        yield Deviation(path, type_name(given), "replaced")
        return
    members: Any = given if type(given) in (dict, list) else _members(given)
    if type(given) not in (dict, list):
        yield Deviation(path, type_name(given), "converted")
    _require(type(kept) is type(members) and len(kept) == len(members), path)
    inner = (*around, id(given))
    if isinstance(members, list):
        for index, (one, other) in enumerate(zip(members, kept, strict=True)):
            yield from _deviations(one, other, f"{path}[{index}]", inner)
        return
    for (key, one), (name, other) in zip(members.items(), kept.items(), strict=True):
        yield from _of_key(key, name, path)
        yield from _deviations(one, other, path + step(name), inner)


def _of_key(key: Any, name: str, path: str) -> Iterator[Deviation]:
    if type(key) is str and _without_surrogates(key) == key:
        _require(name == key, path)
        return
    yield Deviation(f"{path}: a key", type_name(key), "converted")
    shown = _without_surrogates(str.__str__(key)) if isinstance(key, str) else str(key)
    _require(name.rstrip("'") in {shown, f"[{type_name(key)}]"}, path)


def _require(condition: bool, path: str) -> None:
    if not condition:
        raise Mismatch(f"{path} is kept neither equal nor as a marker")


def _members(given: Any) -> dict[Any, Any] | list[Any] | None:
    """Return the dict or the list that a value is to be converted to."""
    if isinstance(given, Closed):
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, (list, tuple, set, frozenset)):
        return list(given)
    if is_dataclass(given) and not isinstance(given, type):
        return dict(vars(given))
    return None


def _is_number(given: Any) -> bool:
    return type(given) in (int, float)


def _is_storable_number(given: Any) -> bool:
    return isfinite(given) if type(given) is float else given.bit_length() <= 8192


TOLD = (date, time, timedelta, Decimal, UUID, Number)
"""Types whose text is stored."""


def _is_told(given: Any) -> bool:
    return isinstance(given, TOLD) and not isinstance(given, int)


def _text_of(given: Any) -> str:
    return f"[{type_name(given)}]" if isinstance(given, Mute) else str(given)


def _size_of(given: Any) -> str:
    """Return what the marker of a value has to tell of its size."""
    if isinstance(given, int):
        return f"{given.bit_length()} bits"
    return f"{len(given)} bytes" if isinstance(given, (bytes, bytearray, memoryview)) else ""


def _unwrapped(kept: Any) -> Any:
    """Return the text of a text part, or of an object that holds only a text."""
    if isinstance(kept, dict):
        texts = [text for name, text in kept.items() if name not in {"type", "part_kind"}]
        return texts[0] if len(texts) == 1 else None
    return kept


def _without_surrogates(text: str) -> str:
    joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", _joined, text)
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


def _joined(pair: re.Match[str]) -> str:
    high, low = map(ord, pair[0])
    return chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)


def type_name(given: Any) -> str:
    kind = type(given)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def step(key: str) -> str:
    shown = key if len(key) <= 40 else key[:40] + "…"
    return f".{shown}" if shown.isidentifier() else f"[{shown!a}]"


def marker_text(kept: Any) -> str | None:
    """Return the text of a marker: it stands as a text, in an object, or as a text part, perhaps in a list."""
    if isinstance(kept, list) and len(kept) == 1:
        return marker_text(kept[0]) if isinstance(kept[0], dict) else None
    if isinstance(kept, dict) and len(kept) <= 2:
        return next((text for text in map(marker_text, kept.values()) if text), None)
    return kept if isinstance(kept, str) and kept.startswith("[not stored: ") and kept.endswith("]") else None
