"""Storable values and their bytes.

JSON comes from pydantic-core: it keeps big integers and every finite float exact, and is there anyway.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from pydantic_core import from_json, to_json

from session_history.errors import NotStorable

DEPTH = 128
"""The deepest nesting of dicts and lists. The JSON reader stops at 200; an entry wraps a value in a few levels."""

INT_BITS = 8192
"""The longest integer. CPython reads and writes at most 4,300 digits, which are about 14,280 bits."""

_SHOWN_KEY = 40
_CONTAINERS = frozenset({dict, list})


def encode(value: object, path: str) -> bytes:
    """Return the bytes of a value that :func:`decode` turns into an equal one.

    Storable are exactly dicts with ``str`` keys, lists, ``str``, ``int``, finite ``float``, ``bool`` and ``None``;
    equal means equal type, value and order of keys, recursively.

    :param path: the name of the value in an error.
    :raises NotStorable: with the path of the offending part.
    """
    check(value, path)
    return to_json(value)


encode_checked = to_json
"""Return the bytes of an envelope of ours around values that were checked one by one."""


def check(value: object, path: str) -> None:
    """Check that a value is storable. :raises NotStorable: see :func:`encode`."""
    flaw = flaw_of(value)
    if flaw is not None:
        steps, reason = flaw
        raise NotStorable(path + "".join(reversed(steps)), reason)


def copied(value: Any) -> Any:
    """Return a deep copy of a storable value."""
    if type(value) is dict:
        copy = value.copy()
        for name, item in value.items():
            if type(item) in _CONTAINERS:
                copy[name] = copied(item)
        return copy
    if type(value) is list:
        return [copied(item) if type(item) in _CONTAINERS else item for item in value]
    return value


def plain(text: str) -> str:
    """Return the text itself: a subclass of ``str``, such as an enum, may show another one."""
    return str.__str__(text)


def check_count(name: str, value: int | None, *, least: int = 0) -> int | None:
    """Return the value. :raises ValueError: neither ``None`` nor a whole number of at least ``least``."""
    if value is not None and (type(value) is not int or value < least):
        raise ValueError(f"{name} must be a whole number of at least {least}, or None, not {value!r}")
    return value


def decode(data: bytes) -> Any:
    """Read JSON. :raises ValueError: not JSON, or it holds NaN or an infinity."""
    return from_json(data, allow_inf_nan=False)


_Flaw = tuple[list[str], str]


def flaw_of(value: object) -> _Flaw | None:
    """Return the flaw of a value that is not storable: the steps that lead to it, innermost first, and the reason."""
    return _flaw(value, DEPTH)


def _flaw(value: object, depth: int) -> _Flaw | None:
    """Return the flaw of a value: the steps that lead to it, innermost first, and the reason."""
    kind = type(value)
    if kind is str:
        return _flaw_of_text(value)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return None
    if kind is dict or kind is list:
        if depth == 0:
            return [], f"is nested more than {DEPTH} levels deep"
        return _flaw_of_dict(value, depth) if kind is dict else _flaw_of_list(value, depth)  # type: ignore[arg-type]
    return _flaw_of_number(value)


def _flaw_of_number(value: object) -> _Flaw | None:
    kind = type(value)
    if kind is int:
        return ([], f"has more than {INT_BITS} bits") if value.bit_length() > INT_BITS else None  # type: ignore[attr-defined]
    if kind is float:
        return None if isfinite(value) else ([], "is not a finite number")  # type: ignore[arg-type]
    return [], f"is of type {kind.__name__}, which cannot be stored exactly"


def _flaw_of_text(value: str) -> _Flaw | None:
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return [], "holds a lone surrogate"
    return None


def _flaw_of_dict(value: dict[object, object], depth: int) -> _Flaw | None:
    for key, item in value.items():
        if type(key) is not str:
            return [], f"has a key of type {type(key).__name__}, not str"
        flaw = _flaw_of_text(key) or _flaw(item, depth - 1)
        if flaw:
            flaw[0].append(step(key))
            return flaw
    return None


def _flaw_of_list(value: list[object], depth: int) -> _Flaw | None:
    for index, item in enumerate(value):
        flaw = _flaw(item, depth - 1)
        if flaw:
            flaw[0].append(f"[{index}]")
            return flaw
    return None


def step(key: str) -> str:
    """Return the step of a path to the item of a dict."""
    if len(key) > _SHOWN_KEY:
        key = key[:_SHOWN_KEY] + "…"
    return f".{key}" if key.isidentifier() else f"[{key!a}]"
