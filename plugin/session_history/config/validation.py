"""Validation of settings and options, with errors that say where a setting was written, and never show a secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from session_history.errors import ConfigurationError, did_you_mean
from session_history.providers.common.options import Flaw, flaws
from session_history_hooks import ProviderOptions

M = TypeVar("M", bound=BaseModel)

SECRET = re.compile("pass|pwd|secret|token|key|cred|auth", re.IGNORECASE)

PERCENT_ENCODE = "characters such as ?, & and @ in a password must be percent-encoded"

SHOWN_CHARACTERS = 32
"""The longest value that an error shows."""


def may_be_secret(name: str) -> bool:
    """Tell whether an option may hold a secret, by its name."""
    return SECRET.search(name) is not None


@dataclass(frozen=True, slots=True)
class Written:
    """The settings that a user wrote, and where.

    :ivar values: the settings by name.
    :ivar place_of: returns the place of a setting, in words that fit behind "in".
    :ivar hidden: the settings of which no error may show name or value: they may be a part of a password.
    """

    values: Mapping[str, Any]
    place_of: Callable[[str], str]
    hidden: Collection[str] = ()

    def places_in(self, text: str) -> str:
        """Return the places of the settings that a text names; ``""`` if it names none of them."""
        named = [name for name in self.values if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
        return " and in ".join(dict.fromkeys(map(self.place_of, named)))


def validated(model: type[M], written: Written, *, source: str) -> M:
    """Return the model of the options of a store or a wrapper.

    :param source: the store or the wrapper, for the error.
    :raises ConfigurationError: an option is missing, unknown or wrong.
    """
    try:
        return model.model_validate(written.values)
    except ValidationError as error:
        found = flaws(error)
    # Raised outside of the handler, the error has no context, which would show unknown names.
    texts = [_unknown(flaw, model, written) if flaw.unknown else _wrong(flaw, model, written) for flaw in found]
    raise ConfigurationError(f"{source}: {'; '.join(dict.fromkeys(texts))}")


def names_of(model: type[BaseModel]) -> list[str]:
    """Return the names that a user may write. The URL of a provider is not among its options."""
    not_options = ProviderOptions.model_fields.keys() if issubclass(model, ProviderOptions) else ()
    return sorted(field.alias or name for name, field in model.model_fields.items() if name not in not_options)


def _unknown(flaw: Flaw, model: type[BaseModel], written: Written) -> str:
    place = written.place_of(flaw.option)
    if flaw.option in written.hidden:
        return f"an unknown option in {place}, which may be a part of a password: {PERCENT_ENCODE}"
    known = names_of(model)
    close = did_you_mean(flaw.option, known) or "."
    return f"unknown option {flaw.option!r} in {place}{close} Options: {', '.join(known) or 'none'}"


def _wrong(flaw: Flaw, model: type[BaseModel], written: Written) -> str:
    if not flaw.option:
        return f"{flaw} (in {written.places_in(flaw.reason) or written.place_of('url')})"
    name = flaw.option if flaw.option in written.values else flaw.option.partition(".")[0]
    value = written.values.get(name)
    is_shown = name in written.values and name not in written.hidden and _is_harmless(model, name, value)
    return f"{flaw} ({f'{value!r} ' if is_shown else ''}in {written.place_of(name)})"


def _is_harmless(model: type[BaseModel], name: str, value: object) -> bool:
    """Tell whether an error may show the wrong value of an option, since it is certainly not a secret."""
    field = next((field for key, field in model.model_fields.items() if name == (field.alias or key)), None)
    return (
        field is not None
        and field.repr
        and not may_be_secret(name)
        and _is_choice(field.annotation)
        and isinstance(value, (str, int, float))
        and len(str(value)) <= SHOWN_CHARACTERS
        and not set(str(value)) & set("@:/")
    )


def _is_choice(kind: Any) -> bool:
    """Tell whether a type has only numbers, truth values and names of choices."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _is_choice(get_args(kind)[0])
    if origin in {Union, UnionType}:
        return all(map(_is_choice, get_args(kind)))
    return origin is Literal or (isinstance(kind, type) and issubclass(kind, (int, float, Enum, NoneType)))
