"""Errors of the driver and the server as errors of the contract. Their own texts may show content, so no error of ours
repeats them.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as DriverConnectionError,
)
from redis.exceptions import (
    TimeoutError as DriverTimeoutError,
)

from session_history_hooks import (
    ConfigurationError,
    IncompatibleStore,
    SessionHistoryError,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)

CONNECTION_ERRORS: tuple[type[Exception], ...] = (DriverConnectionError, DriverTimeoutError, OSError, EOFError)
"""A connection broke or could not be made, so the outcome of the call is unknown."""

_TRANSIENT = (TryAgainError, ClusterDownError, BusyLoadingError, ReadOnlyError)

_TRANSIENT_CODES = {"BUSY", "NOREPLICAS"}

_HOST_NOT_FOUND = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class ServerAbsent(ConnectionError):
    """No server is there. This may be a mistake in the URL, or last only while a server is replaced or restarts."""


class HostNotFound(ServerAbsent):
    """The name of the host is unknown."""


class ConnectionRefused(ServerAbsent):
    """No program listens on the port."""


class CertificateRejected(ConnectionError):
    """The server's certificate is not trusted. The text is the reason."""


_PERMANENT = (AuthenticationError, AuthorizationError, CertificateRejected)


def root_cause(error: Exception, handled: BaseException | None) -> Exception:
    """Return the reason for a lost connection, where the driver's error hides a reason that we tell apart.

    :param handled: the exception that the caller was handling already. Python records it as a context, too.
    """
    cause = error.__cause__ or error.__context__
    while cause is not None and cause is not handled:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateRejected(cause.verify_message)
        if isinstance(cause, socket.gaierror) and cause.errno in _HOST_NOT_FOUND:
            return HostNotFound()
        if isinstance(cause, OSError) and _was_refused(cause):
            return ConnectionRefused()
        cause = cause.__cause__ or cause.__context__
    return error


def _was_refused(error: OSError) -> bool:
    # If a name has several addresses, asyncio raises one error, and only its text names the error of each address.
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def is_transient(error: Exception, *, cluster: bool) -> bool:
    """Return True if the same call may succeed a little later."""
    if isinstance(error, (*_PERMANENT, SessionHistoryError)):
        return False
    if isinstance(error, AskError):  # or its subclass for MOVED
        return cluster
    return isinstance(error, (*_TRANSIENT, *CONNECTION_ERRORS)) or error_code(error) in _TRANSIENT_CODES


def describe(error: Exception) -> str:
    """Return a reason in a few words, without any text of the error."""
    if isinstance(error, HostNotFound):
        return "its host name is unknown"
    return "nobody listens there" if isinstance(error, ConnectionRefused) else error_code(error)


def error_code(error: Exception) -> str:
    """Return the word with which the server's answer begins, or the type of the error."""
    if isinstance(error, ResponseError):
        word = str(getattr(error, "status_code", None) or str(error).partition(" ")[0])
        if word.isalpha() and word.isupper():
            return word
    return type(error).__name__


def translated(error: Exception, url: str) -> SessionHistoryError:  # noqa: PLR0911 - a table
    """Return our error for an error of the driver.

    :param url: the URL without its secrets.
    """
    if isinstance(error, SessionHistoryError):
        return error
    if mistake := _configuration_mistake(error):
        return ConfigurationError(f"{url} {mistake}")
    if isinstance(error, OutOfMemoryError):
        return StoreFull(f"{url} has no memory left (maxmemory); nothing was written")
    if error_code(error) == "MISCONF":
        return _disk_error(error, url)
    if isinstance(error, NoPermissionError):
        return StoreReadOnly(f"{url} does not allow this user what a provider needs (NOPERM): see the page on Redis")
    if isinstance(error, ReadOnlyError):
        return StoreReadOnly(f"{url} is a replica and cannot be written")
    if error_code(error) == "WRONGTYPE":
        return IncompatibleStore(f"{url} has keys of another program under this prefix: choose another prefix")
    if isinstance(error, (RedisError, *CONNECTION_ERRORS)):
        return Unavailable(f"{url} cannot be used now ({describe(error)})")
    raise error


def _disk_error(error: Exception, url: str) -> SessionHistoryError:
    """Return our error for a server that takes no writes since it cannot write its files."""
    if os.strerror(errno.ENOSPC) in str(error):
        return StoreFull(f"{url} takes no writes, deletes neither: its disk is full (MISCONF)")
    return Unavailable(f"{url} takes no writes, deletes neither: it cannot write to its disk (MISCONF)")


def _configuration_mistake(error: Exception) -> str | None:
    if isinstance(error, CertificateRejected):
        return f"has a certificate that is not trusted: {error}"
    if isinstance(error, AuthenticationError) and "HELLO must be called" in str(error):  # NOAUTH
        return "requires a password, and the URL has none"
    if isinstance(error, _PERMANENT):
        return f"refuses the user or the password ({error_code(error)})"
    if isinstance(error, AskError):
        return "belongs to a cluster: write redis+cluster:// or rediss+cluster://"
    if isinstance(error, ResponseError) and "DB index" in str(error):  # the driver selects the database first
        return "has no database of this number"
    return None
