"""Salvage of values that a handler, a tool or a model produced: all that can be stored is kept, the rest is marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from numbers import Integral, Number
from typing import Any, ClassVar
from uuid import UUID

from session_history.records.markers import Marker, MarkerKind, Place, is_media_part, list_marker_at, marker_at
from session_history.records.messages import Message, dumped_model, raw_fields
from session_history.records.values import DEPTH, INT_BITS, copied, flaw_of, plain, step

_TOLD = (date, datetime, time, timedelta, Decimal, UUID, Number)
"""Types whose text is the value. A loader that wants such a type reads the text."""


def salvaged(value: object, path: str) -> tuple[Any, list[Marker]]:
    """Return a storable copy of a value, and what it lacks.

    What has a near kin in JSON is converted: tuples, sets and subclasses of ``list`` to lists, mappings and dataclasses
    to dicts, keys to ``str``, subclasses of ``str``, ``int`` and ``float`` to these, integers of other libraries to
    ``int``, dates, other numbers and UUIDs to their text. Models of pydantic, such as the messages of an SDK, are
    dumped. Anything else becomes a text that says its type.

    :param path: the name of the value.
    """
    if flaw_of(value) is None:
        return copied(value), []
    salvage = _Salvage()
    return salvage.kept(value, path, DEPTH, Place()), salvage.markers


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module unless it is a builtin."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Salvage:
    def __init__(self) -> None:
        self.markers: list[Marker] = []
        self._texts: list[str] = []  # of the markers that say nothing of a value
        self._around: set[int] = set()  # identities of the containers around the value at hand

    def kept(self, value: Any, path: str, depth: int, place: Place) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(value, path)
        if kind is int or kind is float:
            return self._number(value, path, place)
        if kind is dict or kind is list:
            return self._container(value, value, path, depth, place)
        return self._converted(value, path, depth, place)

    def _text(self, value: str, path: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self._note(value, path, "converted", len(value))
            # A pair of surrogates is one character. A lone surrogate is not a character.
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value

    def _number(self, value: float, path: str, place: Place) -> Any:
        if type(value) is int and value.bit_length() > INT_BITS:
            return self._marker(value, path, place, f"{value.bit_length()} bits")
        return value if type(value) is int or isfinite(value) else self._text_of(value, path, place)

    def _container(self, original: object, value: Any, path: str, depth: int, place: Place) -> Any:
        """Keep a dict or a list. :param original: the object that it was converted from, or it itself."""
        if id(original) in self._around:
            return self._marker(original, path, place, "contains itself")
        if depth == 0:
            return self._marker(original, path, place, f"nested more than {DEPTH} levels deep")
        self._around.add(id(original))
        try:
            if type(value) is dict:
                return self._part_or_dict(value, path, depth, place)
            return [
                self.kept(item, f"{path}[{index}]", depth - 1, Place(value, index, place))
                for index, item in enumerate(value)
            ]
        finally:
            self._around.discard(id(original))

    def _part_or_dict(self, value: dict[Any, Any], path: str, depth: int, place: Place) -> Any:
        """Keep a dict. A part with media of which something is replaced is no such part any more: it becomes a text."""
        known = len(self._texts)
        kept = self._dict(value, path, depth, place)
        texts = self._texts[known:]
        return marker_at(place, " ".join(texts)) if texts and is_media_part(place, kept) else kept

    def _dict(self, value: dict[Any, Any], path: str, depth: int, place: Place) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name = self._key(key, path)
            while name in kept or (name is not key and name in value):
                name += "'"
            kept[name] = self.kept(item, path + step(name), depth - 1, Place(value, name, place))
        return kept

    def _key(self, key: Any, path: str) -> str:
        if type(key) is str:
            return self._text(key, f"{path}: a key")
        self._note(key, f"{path}: a key", "converted")
        if isinstance(key, str):
            return self._text(plain(key), f"{path}: a key")
        return _text_of(key) if key is None or isinstance(key, _TOLD) else f"[{type_name(key)}]"

    def _converted(self, value: Any, path: str, depth: int, place: Place) -> Any:
        try:
            plainer = _plainer(value)
        except Exception:  # of the value's own methods
            return self._marker(value, path, place, "not readable")
        if plainer is value:
            is_told = isinstance(value, _TOLD)
            return self._text_of(value, path, place) if is_told else self._marker(value, path, place, _length(value))
        if not _is_model(value):
            self._note(value, path, "converted")
        if type(plainer) in (dict, list):
            return self._container(value, plainer, path, depth, place)
        if depth == 0:
            return self._marker(value, path, place, f"nested more than {DEPTH} levels deep")
        return self.kept(plainer, path, depth - 1, place)

    def _text_of(self, value: object, path: str, place: Place) -> Any:
        self._note(value, path, "converted")
        return marker_at(place, self._text(_text_of(value), path))

    def _marker(self, value: object, path: str, place: Place, told: str) -> Any:
        self._note(value, path, "replaced", _size(value))
        text = marker_text(value, told)
        self._texts.append(text)
        return list_marker_at(place, text) if isinstance(value, list) else marker_at(place, text)

    def _note(self, value: object, path: str, kind: MarkerKind, size: int | None = None) -> None:
        self.markers.append(Marker(path, type_name(value), kind, size))


def marker_text(value: object, told: str) -> str:
    """Return the text of a marker. :param told: what else it says of the value; perhaps nothing."""
    return f"[not stored: {type_name(value)}{', ' if told else ''}{told}]"


def _plainer(value: Any) -> Any:
    """Return the value of JSON that is nearest to a value; the value itself without one."""
    if isinstance(value, Message):
        return raw_fields(value)
    if _is_model(value):
        return dumped_model(value)
    for kinds, convert in _Conversions.ALL:
        if isinstance(value, kinds):
            return convert(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    return value


class _Conversions:
    ALL: ClassVar[list[tuple[type | tuple[type, ...], Callable[[Any], Any]]]] = [
        (str, plain),
        (int, int.__int__),
        (float, float.__float__),
        (Enum, lambda value: value.value),
        (Integral, int),
        (Mapping, dict),
        ((list, tuple, set, frozenset), list),
    ]


def _is_model(value: object) -> bool:
    """Tell whether it is a model of pydantic."""
    return callable(getattr(type(value), "model_dump", None))


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # of the value's own method
        return f"[{type_name(value)}]"


def _length(value: object) -> str:
    size = _size(value)
    return "" if size is None else f"{size} bytes"


def _size(value: object) -> int | None:
    if isinstance(value, memoryview):
        return value.nbytes
    if isinstance(value, bytearray):
        return bytearray.__len__(value)
    return bytes.__len__(value) if isinstance(value, bytes) else None
