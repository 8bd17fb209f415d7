"""What the driver and the server raise, as errors of ours. Their own text may show content, so it is left out."""

from __future__ import annotations

import errno
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

LOST: tuple[type[Exception], ...] = (DriverConnectionError, DriverTimeoutError, OSError, EOFError)
"""A connection broke, or none could be made: what was asked for has happened or has not."""

_PASSING = (TryAgainError, ClusterDownError, BusyLoadingError, ReadOnlyError)

_PASSING_CODES = {"BUSY", "NOREPLICAS"}

_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class Absent(ConnectionError):
    """There is no server: for good as a rule, but also for a while, when it is replaced or restarts."""


class Nameless(Absent):
    """The name of its host is unknown."""


class Deserted(Absent):
    """Nobody listens on its port."""


class Distrusted(ConnectionError):
    """A certificate is not trusted; with the reason."""


_FINAL = (AuthenticationError, AuthorizationError, Distrusted)


def told_apart(error: Exception, handled: BaseException | None) -> Exception:
    """A lost connection, or what the driver hides behind it.

    :param handled: what the caller was about to handle when it asked, which Python takes for a cause.
    """
    cause = error.__cause__ or error.__context__
    while cause is not None and cause is not handled:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Distrusted(cause.verify_message)
        if isinstance(cause, socket.gaierror) and cause.errno in _UNKNOWN_NAME:
            return Nameless()
        if isinstance(cause, OSError) and _was_refused(cause):
            return Deserted()
        cause = cause.__cause__ or cause.__context__
    return error


def _was_refused(error: OSError) -> bool:
    """Where a name leads to several addresses, asyncio has nothing but a text that names the error of each."""
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def passes(error: Exception, *, cluster: bool) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, (*_FINAL, SessionHistoryError)):
        return False
    if isinstance(error, AskError):  # or MOVED
        return cluster
    return isinstance(error, (*_PASSING, *LOST)) or code(error) in _PASSING_CODES


def reason(error: Exception) -> str:
    """A few words of ours."""
    if isinstance(error, Nameless):
        return "its host name is unknown"
    return "nobody listens there" if isinstance(error, Deserted) else code(error)


def code(error: Exception) -> str:
    """The word that an answer of the server begins with, or the kind of error."""
    if isinstance(error, ResponseError):
        word = str(getattr(error, "status_code", None) or str(error).partition(" ")[0])
        if word.isalpha() and word.isupper():
            return word
    return type(error).__name__


def translated(error: Exception, shown: str) -> SessionHistoryError:  # noqa: PLR0911 - a table
    """Our error for one of the driver.

    :param shown: the URL without its secrets.
    """
    if isinstance(error, SessionHistoryError):
        return error
    if mistake := _mistake(error):
        return ConfigurationError(f"{shown} {mistake}")
    if isinstance(error, OutOfMemoryError):
        return StoreFull(f"{shown} has no memory left (maxmemory); nothing was written")
    if isinstance(error, NoPermissionError):
        return StoreReadOnly(f"{shown} does not allow this user what a provider needs (NOPERM): see the page on Redis")
    if isinstance(error, ReadOnlyError):
        return StoreReadOnly(f"{shown} is a replica that can not be written")
    if code(error) == "WRONGTYPE":
        return IncompatibleStore(f"{shown} has keys of somebody else under this prefix")
    if isinstance(error, (RedisError, *LOST)):
        return Unavailable(f"{shown} can not be used now ({reason(error)})")
    raise error


def _mistake(error: Exception) -> str | None:
    """What is wrong with the configuration, if anything."""
    if isinstance(error, Distrusted):
        return f"has a certificate that is not trusted: {error}"
    if isinstance(error, AuthenticationError) and "HELLO must be called" in str(error):  # NOAUTH
        return "wants a password, and the URL has none"
    if isinstance(error, _FINAL):
        return f"refuses the user or the password ({code(error)})"
    if isinstance(error, AskError):
        return "belongs to a cluster: write redis+cluster:// or rediss+cluster://"
    if isinstance(error, ResponseError) and "DB index" in str(error):  # the driver chooses it before all else
        return "has no database of this number"
    return None
