"""The interface of a shape: it tells what a message holds, and how its parts are replaced."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, IntEnum, auto
from typing import Any, NamedTuple, Protocol

Json = dict[str, Any]

UNKNOWN_OUTCOME = "The call was interrupted and its outcome is unknown."

OMITTED = "Earlier messages are left out."

WHOLE = -1
"""The position of a part that is the message itself, or its text as a ``str``."""


class Place(Enum):
    """Where the results of calls may be.

    - ``BEHIND``: in the messages right behind the calls, which hold only results.
    - ``NEXT``: in the very next message, ahead of its other parts.
    - ``BEFORE_INPUT``: behind the call, before the next message of the user, developer or system.
    """

    BEHIND = auto()
    NEXT = auto()
    BEFORE_INPUT = auto()


class Speaker(Enum):
    """The speaker of a message. RESULTS: tools only."""

    MODEL = auto()
    INPUT = auto()
    RESULTS = auto()
    UNKNOWN = auto()


class Kind(IntEnum):
    """The kind of a part.

    - ``CONTENT``: anything that is not named here.
    - ``FRAME``: says nothing to the model.
    - ``BLANK``: text of white space, or none.
    - ``HOSTED_CALL``, ``HOSTED_RESULT``: of a tool that the model's provider runs, both said by the model.
    - ``PENDING``: a call that holds its result in itself, and has none yet.
    """

    CONTENT = auto()
    FRAME = auto()
    BLANK = auto()
    REASONING = auto()
    CALL = auto()
    RESULT = auto()
    HOSTED_CALL = auto()
    HOSTED_RESULT = auto()
    PENDING = auto()


class Part(NamedTuple):
    """A part of a message.

    :ivar at: its index among the parts of the message, or ``WHOLE``.
    :ivar call_id: the call that it is or answers; ``None`` for a result that does not name its call.
    :ivar name: the name of the tool, where a result may name only that.
    :ivar waits: a person is asked about the call. It stays without a result while nothing follows.
    """

    kind: Kind
    at: int
    call_id: str | None = None
    name: str | None = None
    waits: bool = False


class Reading(NamedTuple):
    """The parts of a message of a shape."""

    shape: Shape
    speaker: Speaker
    parts: Sequence[Part]

    def of(self, kind: Kind) -> list[Part]:
        return [part for part in self.parts if part.kind is kind]


class Shape(Protocol):
    """The shape of the messages of one API.

    :ivar place: where results may be.
    :ivar in_parts: a result is a part of a message; else it is a message.
    :ivar user_first: the API refuses a history that begins with the model.
    :ivar alternates: the API refuses two neighbours of one role.
    :ivar call_after_input: the API refuses a call behind another message of the model.
    :ivar ends_in_reasoning: the API accepts reasoning at the end of what the model said.
    """

    @property
    def place(self) -> Place: ...
    @property
    def in_parts(self) -> bool: ...
    @property
    def user_first(self) -> bool: ...
    @property
    def alternates(self) -> bool: ...
    @property
    def call_after_input(self) -> bool: ...
    @property
    def ends_in_reasoning(self) -> bool: ...

    def read(self, value: Json) -> Reading | None:
        """Return what a message holds; ``None`` if it has another shape, or nothing that the repair looks at."""

    def without(self, value: Json, removed: Collection[int]) -> Json | None:
        """Return a message without some of its parts; ``None`` if nothing is left of it."""

    def missing(self, call: Part, asked: Json) -> Json:
        """Return a result for a call of a message: a part or a message."""

    def taken(self, value: Json, at: int) -> Json:
        """Return a result of a message: a part or a message."""

    def hosting(self, value: Json, results: list[Json]) -> Json:
        """Return a message with further results, where the API looks for them."""

    def message_of(self, results: list[Json], asked: Json) -> Json:
        """Return a message that holds results, which are parts, of the calls of a message."""

    def completed(self, value: Json, pending: Collection[int]) -> Json:
        """Return a message in which calls that hold their results have one."""

    def opening(self) -> Json:
        """Return a message of the user to stand ahead of the model's first one."""


class PartsShape:
    """A shape whose messages hold a list of parts in one field."""

    place = Place.BEHIND
    in_parts = True
    user_first = False
    alternates = False
    call_after_input = False
    ends_in_reasoning = True
    field = "content"

    def without(self, value: Json, removed: Collection[int]) -> Json | None:
        parts = value.get(self.field)
        if WHOLE in removed or not isinstance(parts, list):
            return None
        kept = [part for at, part in enumerate(parts) if at not in removed]
        return {**value, self.field: kept} if kept else None

    def taken(self, value: Json, at: int) -> Json:
        result: Json = value[self.field][at]
        return result

    def hosting(self, value: Json, results: list[Json]) -> Json:
        parts = value[self.field]
        reading = self.read(value)
        leading = 0
        for part in reading.parts if reading else ():
            if part.kind not in {Kind.RESULT, Kind.FRAME}:
                break
            leading += 1
        return {**value, self.field: [*parts[:leading], *results, *parts[leading:]]}

    def read(self, value: Json) -> Reading | None:
        raise NotImplementedError

    def missing(self, call: Part, asked: Json) -> Json:
        raise NotImplementedError

    def message_of(self, results: list[Json], asked: Json) -> Json:  # noqa: ARG002 - some need it
        return {"role": "user", self.field: results}

    def completed(self, value: Json, pending: Collection[int]) -> Json:  # noqa: ARG002 - only where a call holds its result
        return value

    def opening(self) -> Json:
        return {"role": "user", "content": OMITTED}


class MessageShape(PartsShape):
    """A shape in which each result is a message."""

    in_parts = False

    def taken(self, value: Json, at: int) -> Json:  # noqa: ARG002 - the message is the result
        return value

    def hosting(self, value: Json, results: list[Json]) -> Json:  # noqa: ARG002 - nothing hosts a message
        return value


def or_blank(parts: list[Part]) -> list[Part]:
    """Return the parts of the model's message, or that it is empty."""
    return parts or [Part(Kind.BLANK, WHOLE)]


def is_blank(text: object) -> bool:
    return isinstance(text, str) and (not text or text.isspace())


def text_of(value: object) -> str | None:
    return value if isinstance(value, str) else None


def role_of(value: Json) -> str | None:
    return text_of(value.get("role"))


def dicts(value: object) -> list[Json]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def is_noteworthy(parts: Sequence[Part]) -> bool:
    """Tell whether the repair has to look at one of the parts."""
    return any([part.kind is not Kind.CONTENT for part in parts])  # noqa: C419 - a list is faster


_MODEL = {"assistant", "model"}

_INPUT = {"user", "system", "developer"}


def speaker_of(role: str | None, parts: Sequence[Part] = ()) -> Speaker:
    """Return the speaker of a message of a role."""
    if parts and all([part.kind is Kind.RESULT for part in parts]):  # noqa: C419 - a list is faster
        return Speaker.RESULTS
    if role in _MODEL:
        return Speaker.MODEL
    return Speaker.INPUT if role in _INPUT else Speaker.UNKNOWN
