"""What asyncpg leaves undone of TLS: the authorities that the system trusts, and which file is missing."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from session_history_hooks import ConfigurationError

FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")

SYSTEM = "system"
"""What ``sslrootcert`` is for the authorities that the system trusts."""

FOR_FILES_ONLY = ("sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version")

UNREAD = {"disable": FILES, "allow": ("sslrootcert", "sslcrl"), "prefer": ("sslrootcert", "sslcrl")}
"""Files that the driver does not look at, by ``sslmode``."""

FILE_ERRORS: tuple[type[Exception], ...] = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ssl.SSLError,
)
"""What comes of a file that can not be read, among other things."""


@dataclass(frozen=True, slots=True)
class Tls:
    """:ivar files: paths of the files that are read, by setting, of the URL or the environment.
    :ivar password: of the key file.
    """

    files: Mapping[str, str]
    password: str = field(repr=False)

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Tls:
        """:raises ConfigurationError: settings that do not go together."""
        files = {name: path for name in FILES if (path := setting(settings, name))}
        by_system = files.get("sslrootcert") == SYSTEM
        if by_system:
            _insist_full(settings)
        mode = setting(settings, "sslmode") or ("verify-full" if by_system else "prefer")
        unread = {*UNREAD.get(mode, ()), *(() if "sslcert" in files else ("sslkey",))}
        read = {name: path for name, path in files.items() if name not in unread}
        return cls(read, settings.get("sslpassword", ""))

    @property
    def by_system(self) -> bool:
        return self.files.get("sslrootcert") == SYSTEM

    def context(self) -> ssl.SSLContext | None:
        """What asyncpg can not make of the settings by itself; reads the files.

        :raises OSError: a file can not be read.
        """
        if not self.by_system:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        context.set_alpn_protocols(["postgresql"])  # without it a server refuses sslnegotiation=direct
        if certificate := self.files.get("sslcert"):
            context.load_cert_chain(certificate, self.files.get("sslkey"), lambda: self.password)
        return context

    def flaw(self) -> str | None:
        """Which file can not be read."""
        for name, path in self.files.items():
            if (name, path) == ("sslrootcert", SYSTEM):
                continue
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                return f"{name}: {path} can not be read ({error.strerror})"
        return None


def variable(name: str) -> str:
    """The variable of the environment for a setting."""
    return f"PG{name.upper().replace('_', '')}"


def setting(settings: Mapping[str, str], name: str) -> str | None:
    return settings.get(name) or os.environ.get(variable(name))


def _insist_full(settings: Mapping[str, str]) -> None:
    if (setting(settings, "sslmode") or "verify-full") != "verify-full":
        raise ConfigurationError(
            "sslrootcert=system goes with sslmode=verify-full only, as anybody can get a certificate"
        )
    beside = [name if name in settings else variable(name) for name in FOR_FILES_ONLY if setting(settings, name)]
    if beside:
        raise ConfigurationError(f"not possible with sslrootcert=system: {', '.join(beside)}")
