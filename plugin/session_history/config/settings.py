"""The runtime configuration: environment variables and a TOML file.

``SESSION_HISTORY_URL``
    which store, e.g. ``sqlite:///history.db``.
``SESSION_HISTORY_OPTION_<NAME>``
    an option of the provider, e.g. ``SESSION_HISTORY_OPTION_SYNCHRONOUS=NORMAL``.
``SESSION_HISTORY_CONFIG``
    a TOML file with the same settings. A URL in the environment takes the place of the whole file; an option in
    the environment, of that option in the file::

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
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from session_history.errors import ConfigurationError

logger: logging.Logger = logging.getLogger("session_history")

PREFIX = "SESSION_HISTORY_"
OPTION = PREFIX + "OPTION_"
TABLE = "session-history"


class Config(BaseModel):
    """:ivar url: which store; not in ``repr``, since it may hold a password.
    :ivar options: options of the provider, like those in the query of the URL.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(repr=False)
    options: dict[str, Any] = Field(default_factory=dict, repr=False)


def load(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    :param path: the TOML file, instead of the one that ``SESSION_HISTORY_CONFIG`` names.
    :raises ConfigurationError: no URL, or a setting that is none.
    """
    _warn_of_unknown(environ)
    file = path if path is not None else environ.get(PREFIX + "CONFIG")
    url = environ.get(PREFIX + "URL")
    if url:
        settings = Config(url=url)
    elif file:
        settings = _read(Path(file))
    else:
        raise ConfigurationError(
            f"no store is configured: set {PREFIX}URL, e.g. to sqlite:///history.db, or name a file in {PREFIX}CONFIG"
        )
    return Config(url=settings.url, options={**settings.options, **_options(environ)})


def _read(path: Path) -> Config:
    table = _table(path)
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        flaws = "; ".join(_flaw(".".join(map(str, flaw["loc"])), flaw["msg"]) for flaw in error.errors())
        raise ConfigurationError(f"{path}, [{TABLE}]: {flaws}") from None


def _flaw(name: str, message: str) -> str:
    if message.startswith("Extra inputs"):
        return f"unknown setting {name!r}; options of the store belong to [{TABLE}.options]"
    return f"{name}: {message}"


def _table(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can not be read: {error.strerror}") from None
    except ValueError as error:
        # The parser's message holds line and column, and no line of the file.
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    table = document.get(TABLE)
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path} has no table [{TABLE}]")
    return table


def _options(environ: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(OPTION).lower(): value for name, value in environ.items() if name.startswith(OPTION)}


def _warn_of_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt variable is worth a word, and no error: Kubernetes makes such variables for a service of our name."""
    ours = {name for name in environ if name.startswith(PREFIX) and not name.startswith(OPTION)}
    unknown = sorted(ours - {PREFIX + "URL", PREFIX + "CONFIG"})
    if unknown:
        logger.warning("not among the settings of session-history: %s", ", ".join(unknown))
