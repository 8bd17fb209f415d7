"""Parts of TLS that asyncpg does not have: trust in the system's authorities, and errors that name a file."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from session_history_hooks import ConfigurationError

FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")

SYSTEM = "system"
"""The value of ``sslrootcert`` that stands for the authorities that the system trusts."""

NOT_WITH_SYSTEM = ("sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version")

UNREAD_FILES = {"disable": FILES, "allow": ("sslrootcert", "sslcrl"), "prefer": ("sslrootcert", "sslcrl")}
"""Files that the driver does not read, by ``sslmode``."""

FILE_ERRORS: tuple[type[Exception], ...] = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ssl.SSLError,
)
"""Errors that a missing or unreadable file causes. It is not their only cause."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The settings of TLS in the URL and the environment.

    :ivar files: paths of the files that are read, by setting.
    :ivar password: the password of the key file.
    """

    files: Mapping[str, str]
    password: str = field(repr=False)

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Tls:
        """:raises ConfigurationError: the settings contradict each other."""
        files = {name: path for name in FILES if (path := setting(settings, name))}
        trusts_system = files.get("sslrootcert") == SYSTEM
        if trusts_system:
            _require_verify_full(settings)
        mode = setting(settings, "sslmode") or ("verify-full" if trusts_system else "prefer")
        unread = {*UNREAD_FILES.get(mode, ()), *(() if "sslcert" in files else ("sslkey",))}
        read = {name: path for name, path in files.items() if name not in unread}
        return cls(read, settings.get("sslpassword", ""))

    @property
    def trusts_system(self) -> bool:
        return self.files.get("sslrootcert") == SYSTEM

    def context(self) -> ssl.SSLContext | None:
        """Read the files, and return a context for ``sslrootcert=system``, which asyncpg does not know.

        :returns: ``None`` = asyncpg makes a context itself.
        :raises OSError: a file cannot be read.
        """
        if not self.trusts_system:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        context.set_alpn_protocols(["postgresql"])  # A server refuses sslnegotiation=direct without it.
        if certificate := self.files.get("sslcert"):
            context.load_cert_chain(certificate, self.files.get("sslkey"), lambda: self.password)
        return context

    def file_error(self) -> str | None:
        """Return a text that names the first file that cannot be read."""
        for name, path in self.files.items():
            if (name, path) == ("sslrootcert", SYSTEM):
                continue
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                return f"{name}: {path} cannot be read ({error.strerror})"
        return None


def variable(name: str) -> str:
    """Return the name of the environment variable for a setting."""
    return f"PG{name.upper().replace('_', '')}"


def setting(settings: Mapping[str, str], name: str) -> str | None:
    return settings.get(name) or os.environ.get(variable(name))


def _require_verify_full(settings: Mapping[str, str]) -> None:
    if (setting(settings, "sslmode") or "verify-full") != "verify-full":
        raise ConfigurationError(
            "sslrootcert=system requires sslmode=verify-full: anybody can get a certificate from a public authority"
        )
    contradicting = [
        name if name in settings else variable(name) for name in NOT_WITH_SYSTEM if setting(settings, name)
    ]
    if contradicting:
        raise ConfigurationError(f"not possible with sslrootcert=system: {', '.join(contradicting)}")
