"""Errors of wrong options."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from session_history.errors import ConfigurationError
from session_history.providers.common.options import Flaw, flaws, require_one_of, require_seconds, validated

SECRET = "s3same-open"


class Options(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    size: int = 1
    password: str = ""
    names: list[int] = []

    @field_validator("password")
    @classmethod
    def _check_password(cls, password: str) -> str:
        if password == SECRET:
            raise ValueError("is too simple")
        return password

    @model_validator(mode="after")
    def _check_sizes(self) -> Options:
        if self.size == 13:
            raise ValueError("size and names do not fit together")
        return self


def error_of(values: dict[str, Any]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        validated(Options, values)
    return caught.value


def test_validated_with_right_values_returns_options() -> None:
    assert validated(Options, {"size": "3"}) == Options(size=3)


def test_validated_with_wrong_values_names_each_option() -> None:
    text = str(error_of({"size": "many", "names": [1, "x"]}))
    assert text.startswith("size: Input should be a valid integer")
    assert "; names.1: Input should be" in text


def test_validated_with_wrong_value_shows_the_reason_without_prefix() -> None:
    assert str(error_of({"password": SECRET})) == "password: is too simple"


def test_validated_with_flaw_of_several_options_names_none() -> None:
    assert str(error_of({"size": 13})) == "size and names do not fit together"


def test_error_of_validated_shows_no_value() -> None:
    error = error_of({"size": SECRET, "password": SECRET})
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_flaws_of_unknown_option_mark_it_as_unknown() -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"sise": 1, "size": "x"})
    assert [(flaw.option, flaw.unknown) for flaw in flaws(caught.value)] == [("size", False), ("sise", True)]
    assert str(Flaw("", "do not fit", unknown=False)) == "do not fit"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", None])
def test_require_seconds_of_no_positive_number_raises_configuration_error(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^timeout must be a number of seconds above 0$"):
        require_seconds("timeout", value)


def test_require_seconds_of_positive_number_raises_nothing() -> None:
    require_seconds("timeout", 1)
    require_seconds("timeout", 0.5)


def test_require_one_of_other_value_names_the_choices() -> None:
    require_one_of("durability", "host", ["disk", "host"])
    with pytest.raises(ConfigurationError, match=r"^durability must be 'disk' or 'host'$"):
        require_one_of("durability", SECRET, ["disk", "host"])
