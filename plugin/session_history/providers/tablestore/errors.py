"""What became of a request, and what the errors of the SDK and the service mean. Their texts may show content."""

from __future__ import annotations

import socket
from enum import Enum
from http import HTTPStatus
from typing import Any

import aiohttp
from tablestore import OTSClientError, OTSServiceError

from session_history_hooks import ConfigurationError, SessionHistoryError, StoreFull, StoreReadOnly, Unavailable

_BUSY = {
    "OTSInternalServerError", "OTSNotEnoughCapacityUnit", "OTSOperationConflict", "OTSOperationThrottled",
    "OTSPartitionUnavailable", "OTSRequestTimeout", "OTSRowOperationConflict", "OTSServerBusy", "OTSServerUnavailable",
    "OTSTableNotReady", "OTSTimeout",
}  # fmt: skip
"""What the service asks to repeat, and what says nothing of whether a write was stored."""


class Outcome(Enum):
    """What became of a row that was to be written."""

    DONE = "done"
    REFUSED = "refused"
    """Its condition does not hold. Nothing was written, unless by an earlier try."""
    UNKNOWN = "unknown"


class TransientError(Exception):
    """It may succeed another time, and may have been done."""


class NotReachedError(TransientError):
    """There was no connection.

    :ivar final: what it means to one who does not try again.
    """

    def __init__(self, final: SessionHistoryError) -> None:
        super().__init__(str(final))
        self.final = final


class TableMissing(Unavailable):
    """There is no such table."""


def outcome_of(row: Any) -> Outcome:
    if row.is_ok:
        return Outcome.DONE
    if row.error_code == "OTSConditionCheckFail":
        return Outcome.REFUSED
    if row.error_code in _BUSY:
        return Outcome.UNKNOWN
    if row.error_code == "OTSObjectNotExist":
        raise TableMissing("Tablestore does not have the table any more")
    raise _refusal(row.error_code, "")


def translated(error: Exception, table: str, timeout: float) -> Exception:
    """Our error for one that a request ended with; a :class:`TransientError` if it may be repeated.

    :param timeout: seconds that the request was given.
    """
    if isinstance(error, OTSServiceError):
        return _of_service(error, table)
    if isinstance(error, OTSClientError):
        return _of_sdk(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return NotReachedError(_not_reached(error))
    if isinstance(error, TimeoutError):
        return TransientError(f"no answer within {timeout:g} s")
    if isinstance(error, RuntimeError) and ("loop" in str(error) or "task" in str(error)):
        return ConfigurationError(
            "the client was used on another event loop before: give the service a client of its own"
        )
    return TransientError(type(error).__name__)


def _of_sdk(error: OTSClientError) -> Exception:
    status = error.get_http_status()
    if status is None:
        return Unavailable(f"the SDK of Tablestore refuses: {type(error).__name__}")
    return TransientError(f"an answer that the SDK does not trust, HTTP status {status}")


def _not_reached(error: aiohttp.ClientConnectorError) -> SessionHistoryError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConfigurationError("Tablestore: the certificate of the end point is not trusted, or is another host's")
    if isinstance(error, aiohttp.ClientSSLError):
        return ConfigurationError("Tablestore: there is no TLS with the end point; is it one of HTTPS?")
    if isinstance(error.os_error, socket.gaierror):
        return Unavailable("Tablestore: the host of the end point is not known")
    return Unavailable("Tablestore: the end point takes no connection")


def _of_service(error: OTSServiceError, table: str) -> Exception:
    code, status = error.get_error_code() or "", error.get_http_status() or 0
    if code in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(f"{code or status}, request {error.get_request_id()}")
    if code == "OTSObjectNotExist":
        return TableMissing(f"Tablestore has no table {table!r}")
    if code == "OTSQuotaExhausted" and "frequent" in (error.get_error_message() or ""):
        return TransientError(code)
    return _refusal(code or f"HTTP status {status}", error.get_request_id() or "")


def _refusal(code: str, request_id: str) -> SessionHistoryError:
    """The error for a code. The service's own message may show content."""
    told = f"{code}, request {request_id}" if request_id else code
    if code in {"OTSAuthFailed", "OTSInvalidAccessKeyID"}:
        return ConfigurationError(f"Tablestore refuses the credentials, or this host's clock is wrong: {told}")
    if code in {"OTSNoPermissionAccess", "OTSUnauthorizedAccess"}:
        return StoreReadOnly(f"Tablestore does not allow this to these credentials: {told}")
    if code == "OTSQuotaExhausted":
        return StoreFull(f"Tablestore: {told}")
    return Unavailable(f"Tablestore refuses: {told}")
