"""What the driver and the server raise, as errors of ours. Their own text may show content, so it is left out."""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
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

_PASSING = (TryAgainError, ClusterDownError, BusyLoadingError)
_FINAL = (AuthenticationError, AuthorizationError)


def passes(error: Exception, *, cluster: bool) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, (*_FINAL, SessionHistoryError)):
        return False
    if isinstance(error, MovedError):
        return cluster
    return isinstance(error, (*_PASSING, *LOST)) or code(error) == "BUSY"


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
    name = code(error)
    if isinstance(error, _FINAL):
        return ConfigurationError(f"{shown} refuses the user or the password ({name})")
    if isinstance(error, OutOfMemoryError):
        return StoreFull(f"{shown} has no memory left (maxmemory); nothing was written")
    if isinstance(error, NoPermissionError):
        return StoreReadOnly(f"{shown} does not allow this user what a provider needs (NOPERM): see the page on Redis")
    if isinstance(error, ReadOnlyError):
        return StoreReadOnly(f"{shown} is a replica that can not be written")
    if isinstance(error, AskError):
        return ConfigurationError(f"{shown} belongs to a cluster: write redis+cluster:// or rediss+cluster://")
    if name == "WRONGTYPE":
        return IncompatibleStore(f"{shown} has keys of somebody else under this prefix")
    if isinstance(error, (RedisError, *LOST)):
        return Unavailable(f"{shown} can not be used now ({name})")
    raise error
