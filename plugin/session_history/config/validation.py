"""Validation of settings and options, with errors that name the setting and never its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from session_history.errors import ConfigurationError, did_you_mean
from session_history.providers.common.options import flaws
from session_history_hooks import ProviderOptions

M = TypeVar("M", bound=BaseModel)


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
    except ValidationError as error:
        found = flaws(error)
    # Raised outside of the handler, the error has no context, which would show unknown names.
    if names_may_be_secret and any(flaw.unknown for flaw in found):
        raise ConfigurationError(f"{source}: characters such as ? and @ in a password must be percent-encoded")
    known = _names(model)
    hint = hint or f"{noun.capitalize()}s: {', '.join(known) or 'none'}"
    texts = [_unknown(flaw.option, noun, known, hint) if flaw.unknown else str(flaw) for flaw in found]
    raise ConfigurationError(f"{source}: {'; '.join(texts)}")


def _names(model: type[BaseModel]) -> list[str]:
    """Return the names that a user may write. The URL of a provider is not among its options."""
    not_options = ProviderOptions.model_fields.keys() if issubclass(model, ProviderOptions) else ()
    return sorted(field.alias or name for name, field in model.model_fields.items() if name not in not_options)


def _unknown(name: str, noun: str, known: list[str], hint: str) -> str:
    return f"unknown {noun} {name!r}{did_you_mean(name, known) or '.'} {hint}"
