"""The places where settings were written, for errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PREFIX = "SESSION_HISTORY_"
OPTION = PREFIX + "OPTION_"
URL = PREFIX + "URL"
CONFIG = PREFIX + "CONFIG"
TABLE = "session-history"


@dataclass(frozen=True, slots=True)
class Sources:
    """The places of the settings of one service, in words that fit behind "in".

    Settings from different places may be equal, so no field is compared.

    :ivar file: the path of the TOML file; ``""`` without one.
    :ivar variable: the environment variable of the URL; ``""`` if the file has the URL.
    :ivar variables: the environment variable of each option that one sets.
    """

    file: str = field(default="", compare=False)
    variable: str = field(default="", compare=False)
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def url(self) -> str:
        """The place of the URL."""
        return self.variable or f"the URL in {self.table()}"

    def option(self, name: str) -> str:
        """Return the place of an option of the store."""
        return self.variables.get(name) or self.table("options")

    def table(self, name: str = "") -> str:
        """Return the place of the settings that are not options, or of a table of options."""
        header = f"[{TABLE}.{name}]" if name else f"[{TABLE}]"
        return f"{self.file}, {header}" if self.file else header

    def wrapper(self, name: str) -> str:
        """Return the place of the options of a wrapper."""
        return self.table(f"wrapper-options.{name}")
