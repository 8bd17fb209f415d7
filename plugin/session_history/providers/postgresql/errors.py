"""What the errors of the driver mean. Their own texts may show content or a secret, so none is handed on."""

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
    OSError,  # TimeoutError, too
)

NEXT_HOST: tuple[type[Exception], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,  # HAProxy takes a connection and hangs up when no server is behind it
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""Why another host may do better."""

_KINDS: dict[str, tuple[type[SessionHistoryError], str]] = {
    "08": (Unavailable, "can not be reached, or has closed the connection"),
    "25006": (StoreReadOnly, "can only be read: a standby, or set to read only"),
    "28": (ConfigurationError, "refuses this user or password"),
    "3D000": (ConfigurationError, "has no database of this name; a URL without one asks for that of the user's name"),
    "3F000": (ConfigurationError, "has no schema of this name"),
    "22P05": (ConfigurationError, "has an encoding without some of the characters; it takes UTF8"),
    "23505": (Corrupt, "holds entries behind the tail of their log, or one log of two sessions"),
    "42501": (StoreReadOnly, "does not give this user the rights that are needed"),
    "42P01": (Corrupt, "has lost a table of ours"),
    "42703": (Corrupt, "has lost a column of ours"),
    "53100": (StoreFull, "has no room: the disk is full"),
    "53200": (Unavailable, "is out of memory"),
    "53300": (Unavailable, "takes no more connections"),
    "57014": (Unavailable, "has cancelled the statement"),
    "57P": (Unavailable, "is starting, or is being shut down"),
    "40003": (Unavailable, "can not tell whether it was done, or whether a standby has it"),
    "40": (Unavailable, "is too busy: others kept coming first"),
    "XX001": (Corrupt, "is damaged"),
    "XX002": (Corrupt, "has a damaged index"),
}
"""By SQLSTATE, or how it begins; the longest that fits counts."""

_SILENCE: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "did not answer in time"),
    (socket.gaierror, "can not be found: its host name is unknown, or no name server answers"),
    (FileNotFoundError, "can not be reached: its socket is missing"),
    (asyncpg.TargetServerAttributeNotMatched, "has no host that is what target_session_attrs asks for"),
)
"""Why a server says nothing."""

OVERTAKEN = ("40001", "40P01")
"""SQLSTATEs of a transaction that was rolled back for the sake of another one."""

FORGOTTEN = ("26000", "42P05")
"""SQLSTATEs of a prepared statement that is missing, or there already: a pooler between us and the server does not keep
them apart."""

LOST = ("08", "57P", "40003")
"""SQLSTATEs after which a connection is of no use, or nobody knows what became of a statement."""


def translate(error: Exception, place: str) -> SessionHistoryError:
    """Our error for one of the driver's.

    :param place: how to name the database.
    """
    if isinstance(error, asyncpg.PostgresError):
        kind, text = _kind(error.sqlstate or "")
        return kind(f"{place} {text} ({error.sqlstate})")
    if isinstance(error, ssl.SSLError):
        return _tls(error, place)
    if isinstance(error, (asyncpg.ClientConfigurationError, ValueError)):
        return ConfigurationError(f"{place}: {_refusal(error)}")
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return ConfigurationError(f"{place} has no TLS, and sslmode insists on it")
    other = f"can not be reached, or has closed the connection ({type(error).__name__})"
    text = next((text for kind, text in _SILENCE if isinstance(error, kind)), other)
    return Unavailable(f"{place} {text}")


def _tls(error: ssl.SSLError, place: str) -> SessionHistoryError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(f"{place}: its certificate is not trusted ({error.verify_message.rstrip('.')})")
    if error.library not in {"SSL", None} or "PEM lib" in str(error):  # not of the handshake
        return ConfigurationError(f"{place}: a certificate or key of its settings is none, or they do not fit")
    return Unavailable(f"{place}: TLS failed ({error.reason or type(error).__name__})")


def _refusal(error: Exception) -> str:
    if str(error).startswith("root certificate file"):
        return (
            "sslmode=verify-ca and verify-full need a root certificate, and there is no ~/.postgresql/root.crt. "
            "Name its file with sslrootcert, or say sslrootcert=system for those that this system trusts"
        )
    return "the driver does not take this URL, or what a variable PG… of the environment adds to it"


def undone(error: BaseException) -> bool:
    """Whether nothing was done that would be done if it were tried again."""
    return _is(error, OVERTAKEN) or forgotten(error) or isinstance(error, asyncpg.InvalidCachedStatementError)


def forgotten(error: BaseException) -> bool:
    return _is(error, FORGOTTEN)


def read_only(error: BaseException) -> bool:
    """Whether another server may be the one that takes writes now."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


def spoilt(error: BaseException) -> bool:
    """Whether a new connection may do better: its statements are prepared anew, and it may lead to another server."""
    return forgotten(error) or read_only(error) or isinstance(error, asyncpg.InvalidCachedStatementError)


def lost(error: BaseException) -> bool:
    """Whether the connection is gone, and with it the answer."""
    return _is(error, LOST) or not isinstance(error, asyncpg.PostgresError)


def _is(error: BaseException, states: tuple[str, ...]) -> bool:
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(states)


def _kind(sqlstate: str) -> tuple[type[SessionHistoryError], str]:
    for length in (5, 3, 2):
        if sqlstate[:length] in _KINDS:
            return _KINDS[sqlstate[:length]]
    return Unavailable, "can not be read or written"
