"""The runtime configuration: environment variables and a TOML file.

``SESSION_HISTORY_URL``
    which store, e.g. ``sqlite:///history.db``.
``SESSION_HISTORY_OPTION_<NAME>``
    an option of the provider, e.g. ``SESSION_HISTORY_OPTION_SYNCHRONOUS=NORMAL``.
``SESSION_HISTORY_CONFIG``
    a TOML file with the same settings, which the variables override::

        [session-history]
        url = "sqlite:///history.db"

        [session-history.options]
        synchronous = "NORMAL"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from session_history.errors import ConfigurationError

PREFIX = "SESSION_HISTORY_"
OPTION = PREFIX + "OPTION_"
TABLE = "session-history"


class Config(BaseModel):
    """:ivar url: which store; not in ``repr``, since it may hold a password.
    :ivar options: options of the provider, like those in the query of the URL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(repr=False)
    options: dict[str, Any] = Field(default_factory=dict, repr=False)


def load(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    :param path: the TOML file, instead of the one that ``SESSION_HISTORY_CONFIG`` names.
    :raises ConfigurationError: no URL, or a setting that is none.
    """
    file = path if path is not None else environ.get(PREFIX + "CONFIG")
    settings = _read(Path(file)) if file else {}
    options = settings.get("options", {})
    settings["options"] = {**options, **_options(environ)} if isinstance(options, dict) else options
    if environ.get(PREFIX + "URL"):
        settings["url"] = environ[PREFIX + "URL"]
    if "url" not in settings:
        raise ConfigurationError(_nothing_configured(environ))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        flaws = "; ".join(f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg']}" for flaw in error.errors())
        raise ConfigurationError(f"[{TABLE}]: {flaws}") from None


def _read(path: Path) -> dict[str, Any]:
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


def _nothing_configured(environ: Mapping[str, str]) -> str:
    seen = sorted(name for name in environ if name.startswith(PREFIX))
    hint = f" Seen: {', '.join(seen)}." if seen else ""
    return (
        f"no store is configured: set {PREFIX}URL, e.g. to sqlite:///history.db, "
        f"or name a file in {PREFIX}CONFIG.{hint}"
    )
