"""Checks of a provider's options. Their errors name the option, and never show a value: it may be a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from session_history_hooks import ConfigurationError

M = TypeVar("M", bound=BaseModel)


class Flaw(NamedTuple):
    """An error in one option.

    :ivar option: its name; ``""`` if the error concerns several options.
    :ivar unknown: there is no option of this name.
    """

    option: str
    reason: str
    unknown: bool

    def __str__(self) -> str:
        return f"{self.option}: {self.reason}" if self.option else self.reason


def flaws(error: ValidationError) -> list[Flaw]:
    """Return the errors that pydantic found, without the values."""
    return [
        Flaw(
            option=".".join(map(str, each["loc"])),
            reason=each["msg"].removeprefix("Value error, "),
            unknown=each["type"] == "extra_forbidden",
        )
        for each in error.errors(include_input=False, include_context=False, include_url=False)
    ]


def validated(options: type[M], values: Mapping[str, Any]) -> M:
    """Return the options that ``values`` make.

    :raises ConfigurationError: an option is unknown, missing or wrong.
    """
    try:
        return options.model_validate(values)
    except ValidationError as error:
        found = flaws(error)
    raise ConfigurationError(
        "; ".join(map(str, found))
    )  # After the handler, so that pydantic's error is not its context.


def require_seconds(option: str, value: object) -> None:
    """:raises ConfigurationError: ``value`` is not a finite number above 0."""
    if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{option} must be a number of seconds above 0")


def require_one_of(option: str, value: object, choices: Iterable[str]) -> None:
    """:raises ConfigurationError: ``value`` is not one of ``choices``."""
    names = tuple(choices)
    if value not in names:
        raise ConfigurationError(f"{option} must be {' or '.join(map(repr, names))}")
