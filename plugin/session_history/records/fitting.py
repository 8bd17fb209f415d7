"""Fitting of a message into an entry: its largest parts give way to markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from session_history.records.markers import Marker, Place, holds_parts, is_media_part, list_marker_at, marker_at
from session_history.records.salvage import marker_text
from session_history.records.values import encode_checked, step

_SHARE = 16
"""A part gives way if it takes at least one so-manieth of what is around it, or"""

_LARGE = 512
"""at least so many bytes, much more than its marker."""


def fitted(value: dict[str, Any], limit: int, path: str) -> tuple[dict[str, Any], list[Marker]]:
    """Return a message of at most ``limit`` bytes. As few of its parts as possible give way, the largest first.

    :param path: the name of the message.
    """
    fit = _Fit()
    reduced = fit.reduced(value, limit, path, Place())
    if _size(reduced) <= limit:
        return reduced, fit.markers
    # It consists of very many small parts.
    small = {name: item for name, item in value.items() if _size(item) * _SHARE < limit}
    named = small if _size(small) * 2 < limit else {name: small[name] for name in _NAMES if name in small}
    text = marker_text(value, f"too large: {_size(value)} bytes of JSON")
    place = Place(value, "content")
    marker = list_marker_at(place, text) if isinstance(value.get("content"), list) else text
    return {**named, "content": marker}, [Marker(path, "dict", "too large", _size(value))]


_NAMES = ("id", "role", "type", "name", "tool_call_id", "call_id")
"""Fields by which a message is recognized, also if it has very many others."""


class _Fit:
    def __init__(self) -> None:
        self.markers: list[Marker] = []

    def reduced(self, value: Any, limit: int, path: str, place: Place) -> Any:
        size = _size(value)
        if size <= limit:
            return value
        if not isinstance(value, (dict, list)):
            return self._marker(value, size, path, place)
        if (
            isinstance(value, list)
            and holds_parts(place, value)
            and (parts := self._parts(value, size - limit, path, place)) is not None
        ):
            return parts
        steps = value if isinstance(value, dict) else range(len(value))
        sizes = {key: _size(value[key]) for key in steps}
        gives_way = min(_LARGE, size / _SHARE)
        if place.holder is not None and max(sizes.values(), default=0) < gives_way:
            return self._marker(value, size, path, place)
        known = len(self.markers)
        reduced = value.copy()
        excess = size - limit
        for key in sorted(sizes, key=lambda key: sizes[key], reverse=True):
            if excess <= 0 or sizes[key] < gives_way:
                break
            name = step(key) if isinstance(key, str) else f"[{key}]"
            reduced[key] = self.reduced(
                value[key], max(0, sizes[key] - excess), path + name, Place(reduced, key, place)
            )
            excess -= sizes[key] - _size(reduced[key])
        if len(self.markers) > known and isinstance(value, dict) and is_media_part(place, value):
            del self.markers[known:]  # a part of an image is no image
            return self._marker(value, size, path, place)
        return reduced

    def _parts(self, parts: list[Any], excess: int, path: str, place: Place) -> list[Any] | None:
        """Return the parts of a message with less in the largest ones: each stays, with what it is the result of.

        :param excess: the bytes to save.
        :returns: ``None`` if that is not possible.
        """
        reduced, sizes, known = parts.copy(), list(map(_size, parts)), len(self.markers)
        for index in sorted(range(len(parts)), key=lambda index: sizes[index], reverse=True):
            if excess <= 0:
                break
            room, before = max(0, sizes[index] - excess), len(self.markers)
            smaller = self.reduced(parts[index], room, f"{path}[{index}]", Place(reduced, index, place))
            if _size(smaller) < sizes[index]:
                reduced[index] = smaller
                excess -= sizes[index] - _size(smaller)
            else:
                del self.markers[before:]
        if excess <= 0:
            return reduced
        del self.markers[known:]
        return None

    def _marker(self, value: Any, size: int, path: str, place: Place) -> Any:
        characters = len(value) if isinstance(value, str) else None
        self.markers.append(Marker(path, type(value).__name__, "too large", characters or size))
        told = f"{characters} characters" if characters is not None else f"{size} bytes of JSON"
        text = marker_text(value, f"too large: {told}")
        return list_marker_at(place, text) if isinstance(value, list) else marker_at(place, text)


def _size(value: Any) -> int:
    return len(encode_checked(value))


def count_fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of the first parts fit into a room together."""
    for count, size in enumerate(sizes):
        room -= size
        if room < 0:
            return count
    return len(sizes)
