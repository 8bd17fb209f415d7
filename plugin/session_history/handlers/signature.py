"""The signature of a decorated handler: how a call is read, and how the handler itself is called."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any, NamedTuple

from session_history.turns.input import Input
from session_history.turns.turn import Turn

_IDENTITY: list[tuple[str, Any]] = [("user_id", Parameter.empty), ("session_id", Parameter.empty), ("turn_id", None)]
"""The keywords of a call that name its turn, if the decorator has no ``identify``, and their defaults."""

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Identity(NamedTuple):
    """The turn that a call asks for: what ``identify`` returns. A plain tuple of the same values will do."""

    user_id: str
    session_id: str
    input: Input
    turn_id: str | None = None

    def __repr__(self) -> str:
        return f"Identity(user_id={self.user_id!r}, session_id={self.session_id!r}, turn_id={self.turn_id!r})"


AnyIdentity = tuple[str, str, Input] | tuple[str, str, Input, str | None]


@dataclass(frozen=True, slots=True)
class HandlerCall:
    """A call of a decorated handler: the turn it asks for, and the handler's arguments by name without the messages."""

    identity: Identity
    arguments: dict[str, Any] = field(repr=False)


class HandlerSignature:
    """Reads the calls of one handler, and calls the handler itself.

    :ivar signature: the signature that callers see.
    """

    def __init__(self, handler: Callable[..., Any], identify: Callable[..., AnyIdentity] | None) -> None:
        self._handler = handler
        self._name = getattr(handler, "__name__", type(handler).__name__)
        self._own = inspect.signature(handler)
        parameters = list(self._own.parameters.values())
        self._owners = 1 if parameters and parameters[0].name in {"self", "cls"} else 0
        if len(parameters) <= self._owners or parameters[self._owners].kind not in _POSITIONAL:
            raise TypeError("the handler has no positional parameter for the messages")
        self._messages = parameters[self._owners].name
        self._declared = {parameter.name for parameter in parameters[self._owners + 1 :]}
        self._identify = identify
        own_request: list[tuple[str, Any]] = [("request", None)] if "request" in self._declared else []
        self._added = own_request if identify else _IDENTITY
        self._filled = {"turn"} if identify is None else {"turn", *dict(_IDENTITY)}
        self.signature: inspect.Signature = self._own.replace(parameters=self._seen_by_callers(parameters))

    def read(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> HandlerCall:
        """Read a call. :raises TypeError: it does not fit the handler, which was not called."""
        passed = self._without_filled(keywords)
        try:
            given = dict(self.signature.bind(*arguments, **passed).arguments)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None
        new = given.pop(self._messages)
        if self._identify is None:
            identity = Identity(given.pop("user_id"), given.pop("session_id"), new, given.pop("turn_id", None))
            filled = identity._asdict()
        else:
            identity = _identity(self._identify(*arguments[self._owners :], **keywords))
            filled = {**identity._asdict(), "request": new}
        wanted = {name: value for name, value in filled.items() if name in self._declared and name != "input"}
        if "request" in given:  # an argument of the caller's own
            wanted["request"] = given["request"]
        return HandlerCall(identity, {**given, **wanted})

    def _without_filled(self, keywords: dict[str, Any]) -> dict[str, Any]:
        """Return the keywords of a call that may reach the handler.

        :raises TypeError: one of the others is not for ``identify`` either.
        """
        for name in self._filled & keywords.keys():
            if self._identify is None or not _accepts(self._identify, name):
                raise TypeError(f"{self._name}(): {name!r} is filled in by the decorator and cannot be passed")
        return {name: value for name, value in keywords.items() if name not in self._filled}

    def invoke(self, call: HandlerCall, messages: list[Any], turn: Turn[Any]) -> Any:
        """Call the handler: return its coroutine or its generator."""
        values = {**call.arguments, self._messages: messages}
        if "turn" in self._declared:
            values["turn"] = turn
        bound = inspect.BoundArguments(self._own, OrderedDict(values))
        return self._handler(*bound.args, **bound.kwargs)

    def _seen_by_callers(self, parameters: list[Parameter]) -> list[Parameter]:
        """Return the handler's parameters without those that are filled in, with the added keywords ahead of ``**``."""
        first = self._owners + 1
        leading = [Parameter(parameter.name, Parameter.POSITIONAL_ONLY) for parameter in parameters[:first]]
        hidden = {*self._filled, *dict(self._added)}
        others = [parameter for parameter in parameters[first:] if parameter.name not in hidden]
        added = [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in self._added]
        rest = [others.pop()] if others and others[-1].kind is Parameter.VAR_KEYWORD else []
        return [*leading, *others, *added, *rest]


def _accepts(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has a parameter of this name, or takes any keyword."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())


def _identity(value: object) -> Identity:
    if not isinstance(value, tuple) or len(value) not in (3, 4):
        raise TypeError(f"identify must return an Identity, not {type(value).__name__}")
    return Identity(*value)
