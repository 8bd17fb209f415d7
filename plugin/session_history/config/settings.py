"""The runtime configuration: environment variables and a TOML file.

``SESSION_HISTORY_URL``
    The store, e.g. ``sqlite:///history.db``.
``SESSION_HISTORY_OPTION_<NAME>``
    An option of the provider, e.g. ``SESSION_HISTORY_OPTION_SYNCHRONOUS=NORMAL``.
``SESSION_HISTORY_CONFIG``
    A TOML file with the same settings, and with wrappers. A URL in the environment replaces the whole file; an option
    in the environment replaces this option of the file::

        [session-history]
        url = "sqlite:///history.db"

        [session-history.options]
        synchronous = "NORMAL"
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from session_history.config.sources import CONFIG, OPTION, PREFIX, TABLE, URL, Sources
from session_history.config.validation import names_of
from session_history.errors import ConfigurationError, did_you_mean
from session_history.providers.common.options import flaws

logger: logging.Logger = logging.getLogger("session_history")


class Settings(BaseModel):
    """The settings of one service.

    :ivar url: the store; ``None`` if a wrapper names its own URLs. Never in ``repr``, because it may hold a password.
    :ivar options: options of the provider, like those in the query of the URL.
    :ivar wrappers: names of wrappers around the provider, outermost first.
    :ivar wrapper_options: the options of each wrapper.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str | None = Field(default=None, repr=False)
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    wrappers: list[str] = Field(default_factory=list)
    wrapper_options: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False, alias="wrapper-options")
    _sources: Sources = PrivateAttr(default_factory=Sources)

    def model_post_init(self, context: object, /) -> None:
        """Take the sources from the context of the validation."""
        if isinstance(context, Sources):
            self._sources = context

    @property
    def sources(self) -> Sources:
        """The places where the settings were written."""
        return self._sources

    @model_validator(mode="after")
    def _check_wrappers(self) -> Self:
        if len(set(self.wrappers)) < len(self.wrappers):
            raise ValueError("wrappers names a wrapper twice")
        if unused := sorted(self.wrapper_options.keys() - set(self.wrappers)):
            raise ValueError(f"there are options for {unused[0]!r}, which wrappers does not name")
        if self.url is None and not self.wrappers:
            raise ValueError("url is missing")
        return self


def load(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the configuration.

    :param path: the TOML file, instead of the one that ``SESSION_HISTORY_CONFIG`` names.
    :raises ConfigurationError: no store is configured, or a setting is unknown or wrong.
    """
    _warn_about_unknown(environ)
    file = path if path is not None else environ.get(CONFIG)
    url = environ.get(URL)
    variables = _variables(environ)
    if url:
        settings = _settings({"url": url}, Sources(variable=URL, variables=variables))
        if file:
            logger.warning("%s replaces all of %s, wrappers included", URL, file)
    elif file:
        table = _table(Path(file), "" if path is not None else f" (named by {CONFIG})")
        settings = _settings(table, Sources(os.fspath(file), variables=variables))
    else:
        raise ConfigurationError(
            f"no store is configured: set {URL}, e.g. to sqlite:///history.db, or name a file in {CONFIG}"
        )
    options = {name: environ[variable] for name, variable in variables.items()}
    return settings.model_copy(update={"options": {**settings.options, **options}})


def _settings(values: Mapping[str, Any], sources: Sources) -> Settings:
    try:
        return Settings.model_validate(values, context=sources)
    except ValidationError as error:
        found = flaws(error)
    # Raised outside of the handler, the error has no context, which would show unknown names.
    texts = [_unknown(flaw.option) if flaw.unknown else str(flaw) for flaw in found]
    raise ConfigurationError(f"{sources.table()}: {'; '.join(texts)}")


def _unknown(name: str) -> str:
    close = did_you_mean(name, names_of(Settings)) or "."
    return f"unknown setting {name!r}{close} Options of the store belong to [{TABLE}.options]."


def _table(path: Path, named_by: str) -> dict[str, Any]:
    """Read the table of a file.

    :param named_by: the place of the path, for an error.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}{named_by} cannot be read: {error.strerror}") from None
    except ValueError as error:
        # The parser's message holds the line number and the column, but no text of the file.
        raise ConfigurationError(f"{path}{named_by} is not TOML: {error}") from None
    table = document.get(TABLE)
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}{named_by} has no table [{TABLE}]")
    return table


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable of each option that the environment sets."""
    return {name.removeprefix(OPTION).lower(): name for name in environ if name.startswith(OPTION)}


def _warn_about_unknown(environ: Mapping[str, str]) -> None:
    """Log unknown variables. They are not an error: Kubernetes makes such variables for a service of our name."""
    ours = {name for name in environ if name.startswith(PREFIX) and not name.startswith(OPTION)}
    unknown = sorted(ours - {URL, CONFIG})
    if unknown:
        logger.warning("not among the settings of session-history: %s", ", ".join(unknown))
