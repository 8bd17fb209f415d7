"""Validation of settings and options, with errors that name the setting and never its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from session_history.errors import ConfigurationError, SessionHistoryError, did_you_mean
from session_history_hooks import ProviderOptions

M = TypeVar("M", bound=BaseModel)

_UNKNOWN = "extra_forbidden"
"""Pydantic's type of the error about a field that the model does not have."""


class _Flaw(NamedTuple):
    name: str
    message: str
    unknown: bool


def validated(
    model: type[M],
    values: Mapping[str, Any],
    *,
    source: str,
    noun: str = "option",
    hint: str = "",
    names_may_be_secret: bool = False,
) -> M:
    """Return the model of these values.

    :param source: the place where the values were written, for the error.
    :param noun: the word for a field of the model.
    :param hint: a sentence to show for an unknown name, instead of the names that are known.
    :param names_may_be_secret: do not show unknown names: they may be a part of a password that was not encoded.
    :raises ConfigurationError: a value is missing, unknown or wrong.
    """
    try:
        return model.model_validate(values)
    except SessionHistoryError:
        raise
    except ValidationError as error:
        flaws = [_flaw(each) for each in error.errors(include_input=False)]
    # Raised outside of the handler, the error has no context, which would show unknown names.
    if names_may_be_secret and any(flaw.unknown for flaw in flaws):
        raise ConfigurationError(f"{source}: characters such as ? and @ in a password must be percent-encoded")
    known = _names(model)
    hint = hint or f"{noun.capitalize()}s: {', '.join(known) or 'none'}"
    texts = [_unknown(flaw.name, noun, known, hint) if flaw.unknown else _wrong(flaw) for flaw in flaws]
    raise ConfigurationError(f"{source}: {'; '.join(texts)}")


def _names(model: type[BaseModel]) -> list[str]:
    """Return the names that a user may write. The URL of a provider is not among its options."""
    not_options = ProviderOptions.model_fields.keys() if issubclass(model, ProviderOptions) else ()
    return sorted(field.alias or name for name, field in model.model_fields.items() if name not in not_options)


def _flaw(error: Any) -> _Flaw:
    name = ".".join(map(str, error["loc"]))
    return _Flaw(name, error["msg"].removeprefix("Value error, "), error["type"] == _UNKNOWN)


def _unknown(name: str, noun: str, known: list[str], hint: str) -> str:
    return f"unknown {noun} {name!r}{did_you_mean(name, known) or '.'} {hint}"


def _wrong(flaw: _Flaw) -> str:
    return f"{flaw.name}: {flaw.message}" if flaw.name else flaw.message
