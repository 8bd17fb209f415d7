"""The meaning of the driver's errors. The texts of those may show content or a secret, so ours never repeat them."""

from __future__ import annotations

import socket
import ssl

import asyncpg

from session_history_hooks import (
    ConfigurationError,
    Corrupt,
    SessionHistoryError,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # Includes TimeoutError.
)

NEXT_HOST: tuple[type[Exception], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,  # HAProxy accepts a connection, and closes it if no server is behind it.
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""After these errors, another host may accept a connection."""

_BY_SQLSTATE: dict[str, tuple[type[SessionHistoryError], str]] = {
    "08": (Unavailable, "cannot be reached, or has closed the connection"),
    "25006": (StoreReadOnly, "is read-only: a standby, or a server that is set to read-only"),
    "28": (ConfigurationError, "refuses this user or password"),
    "3D000": (ConfigurationError, "has no database of this name; without a name in the URL it is that of the user"),
    "3F000": (ConfigurationError, "has no schema of this name"),
    "22003": (Corrupt, "holds a number that is too large"),
    "22P05": (ConfigurationError, "has an encoding that lacks some characters; use a database with UTF8"),
    "23505": (Corrupt, "holds entries behind the tail of their log, or one log of two sessions"),
    "42501": (StoreReadOnly, "does not give this user the necessary rights"),
    "42P01": (Corrupt, "lacks a table of session-history"),
    "42703": (Corrupt, "lacks a column of session-history"),
    "53100": (StoreFull, "has no space: the disk is full"),
    "53200": (Unavailable, "is out of memory"),
    "53300": (Unavailable, "accepts no more connections"),
    "57014": (Unavailable, "has cancelled the statement"),
    "57P": (Unavailable, "is starting or shutting down"),
    "40003": (Unavailable, "does not know whether the statement was done, or whether a standby has it"),
    "40": (Unavailable, "is too busy: other transactions kept winning"),
    "XX001": (Corrupt, "is damaged"),
    "XX002": (Corrupt, "has a damaged index"),
}
"""Error and text by SQLSTATE or the beginning of one. The longest key that fits counts."""

_NO_ANSWER: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "did not answer in time"),
    (socket.gaierror, "cannot be found: its host name is unknown, or no name server answers"),
    (FileNotFoundError, "cannot be reached: its socket is missing"),
    (asyncpg.TargetServerAttributeNotMatched, "has no host that is what target_session_attrs asks for"),
)
"""Texts for errors without an answer from the server."""

ROLLED_BACK = ("40001", "40P01")
"""SQLSTATEs of a transaction that was rolled back in favour of another one."""

PREPARED_STATEMENT_MISSING = ("26000", "42P05")
"""SQLSTATEs of a prepared statement that is missing, or exists already: a pooler between provider and server mixes up
the statements of its clients.
"""

TOO_MANY = ("no more connections", "too many", "connections exceeded", "max client connections")
"""Parts of the texts with which poolers refuse a connection. PgBouncer sends them with the SQLSTATE of a violated
protocol, in English, and repeats there what the server behind it has said.
"""

LOST = ("08", "57P", "40003")
"""SQLSTATEs after which the connection is of no use, or the outcome of the statement is unknown."""


def translate(error: Exception, database: str) -> SessionHistoryError:
    """Return our error for one of the driver's.

    :param database: its URL without user, password and settings.
    """
    if isinstance(error, asyncpg.PostgresError):
        kind, text = _kind_and_text(error.sqlstate or "")
        return kind(f"{database} {text} ({error.sqlstate})")
    if isinstance(error, ssl.SSLError):
        return _tls_error(error, database)
    if isinstance(error, (asyncpg.ClientConfigurationError, ValueError)):
        return ConfigurationError(f"{database}: {_settings_error(error)}")
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return ConfigurationError(f"{database} has no TLS, and sslmode requires it")
    other = f"cannot be reached, or has closed the connection ({type(error).__name__})"
    text = next((text for kind, text in _NO_ANSWER if isinstance(error, kind)), other)
    return Unavailable(f"{database} {text}")


def _tls_error(error: ssl.SSLError, database: str) -> SessionHistoryError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(f"{database}: its certificate is not trusted ({error.verify_message.rstrip('.')})")
    if error.library not in {"SSL", None} or "PEM lib" in str(error):  # The handshake had not begun.
        return ConfigurationError(
            f"{database}: a certificate or key file of its settings is invalid, or the two do not fit"
        )
    return Unavailable(f"{database}: TLS failed ({error.reason or type(error).__name__})")


def _settings_error(error: Exception) -> str:
    if str(error).startswith("root certificate file"):
        return (
            "sslmode=verify-ca and verify-full need a root certificate, and there is no ~/.postgresql/root.crt. "
            "Name its file with sslrootcert, or write sslrootcert=system for those that this system trusts"
        )
    return "the driver does not accept this URL, or a variable PG… of the environment"


def rolled_back(error: BaseException) -> bool:
    """Return whether the failed statement changed nothing, and may succeed if it is tried again."""
    return (
        _has_sqlstate(error, ROLLED_BACK)
        or prepared_statement_missing(error)
        or isinstance(error, asyncpg.InvalidCachedStatementError)
    )


def prepared_statement_missing(error: BaseException) -> bool:
    return _has_sqlstate(error, PREPARED_STATEMENT_MISSING)


def read_only(error: BaseException) -> bool:
    """Return whether the server takes no writes. Another host may be the primary now."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


def reconnect_helps(error: BaseException) -> bool:
    """Return whether a new connection may succeed: it prepares its statements again, and may lead to another host."""
    return (
        prepared_statement_missing(error) or read_only(error) or isinstance(error, asyncpg.InvalidCachedStatementError)
    )


def too_many_connections(error: BaseException) -> bool:
    """Return whether a server or a pooler refused a connection because it has too many of them."""
    if _has_sqlstate(error, ("53300",)):
        return True
    return _has_sqlstate(error, ("08P01", "XX000")) and any(part in str(error).lower() for part in TOO_MANY)


def lost(error: BaseException) -> bool:
    """Return whether the answer of the server was lost, with the connection or without."""
    return _has_sqlstate(error, LOST) or not isinstance(error, asyncpg.PostgresError)


def _has_sqlstate(error: BaseException, states: tuple[str, ...]) -> bool:
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(states)


def _kind_and_text(sqlstate: str) -> tuple[type[SessionHistoryError], str]:
    for length in (5, 3, 2):
        if sqlstate[:length] in _BY_SQLSTATE:
            return _BY_SQLSTATE[sqlstate[:length]]
    return Unavailable, "cannot be read or written"
