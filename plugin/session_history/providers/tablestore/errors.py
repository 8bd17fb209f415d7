"""Outcomes of writes, and the contract's errors for errors of the SDK and the service.

The texts of the SDK and the service may show content, so they are left out.
"""

from __future__ import annotations

import socket
from enum import Enum
from http import HTTPStatus
from typing import Any

import aiohttp
from tablestore import OTSClientError, OTSServiceError

from session_history_hooks import ConfigurationError, SessionHistoryError, StoreFull, StoreReadOnly, Unavailable

_TRANSIENT = {
    "OTSInternalServerError", "OTSNotEnoughCapacityUnit", "OTSOperationConflict", "OTSOperationThrottled",
    "OTSPartitionUnavailable", "OTSRequestTimeout", "OTSRowOperationConflict", "OTSServerBusy", "OTSServerUnavailable",
    "OTSTableNotReady", "OTSTimeout",
}  # fmt: skip
"""Codes after which a request may be repeated. They do not say whether a write was stored."""


class Outcome(Enum):
    """The outcome of a write of one row."""

    DONE = "done"
    REFUSED = "refused"
    """The condition does not hold. This attempt wrote nothing, but an earlier one may have written the row."""
    UNKNOWN = "unknown"


class TransientError(Exception):
    """A request that may have been done, and that may succeed if it is repeated."""


class NotConnectedError(TransientError):
    """A request without a connection.

    :ivar final: the error for a caller that does not repeat the request.
    """

    def __init__(self, final: SessionHistoryError) -> None:
        super().__init__(str(final))
        self.final = final


class TableMissing(Unavailable):
    """The table does not exist."""


def outcome_of(row: Any) -> Outcome:
    if row.is_ok:
        return Outcome.DONE
    if row.error_code == "OTSConditionCheckFail":
        return Outcome.REFUSED
    if row.error_code in _TRANSIENT:
        return Outcome.UNKNOWN
    if row.error_code == "OTSObjectNotExist":
        raise TableMissing("Tablestore: the table does not exist any more")
    raise _refusal(row.error_code, "")


def translate(error: Exception, table: str, timeout: float) -> Exception:
    """Return the contract's error for the error of a request; a :class:`TransientError` if it may be repeated.

    :param timeout: the seconds that the request was allowed to take.
    """
    if isinstance(error, OTSServiceError):
        return _from_service(error, table)
    if isinstance(error, OTSClientError):
        return _from_sdk(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return NotConnectedError(_connection_error(error))
    if isinstance(error, TimeoutError):
        return TransientError(f"no answer within {timeout:g} s")
    if isinstance(error, RuntimeError) and ("loop" in str(error) or "task" in str(error)):
        return ConfigurationError(
            "the Tablestore client was used on another event loop before: pass a client that nothing else uses"
        )
    return TransientError(type(error).__name__)


def _from_sdk(error: OTSClientError) -> Exception:
    status = error.get_http_status()
    if status is None:
        return Unavailable(f"the SDK of Tablestore refuses the request: {type(error).__name__}")
    return TransientError(f"the SDK does not trust the answer, HTTP status {status}")


def _connection_error(error: aiohttp.ClientConnectorError) -> SessionHistoryError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConfigurationError(
            "Tablestore: the certificate of the end point is not trusted, or it belongs to another host"
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return ConfigurationError("Tablestore: the end point does not speak TLS; is it an HTTPS end point?")
    if isinstance(error.os_error, socket.gaierror):
        return Unavailable("Tablestore: the host of the end point was not found")
    return Unavailable("Tablestore: the end point refuses connections")


def _from_service(error: OTSServiceError, table: str) -> Exception:
    code, status = error.get_error_code() or "", error.get_http_status() or 0
    if code in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(f"{code or status}, request {error.get_request_id()}")
    if code == "OTSObjectNotExist":
        return TableMissing(f"Tablestore has no table {table!r}")
    if code == "OTSQuotaExhausted" and "frequent" in (error.get_error_message() or ""):
        return TransientError(code)
    return _refusal(code or f"HTTP status {status}", error.get_request_id() or "")


def _refusal(code: str, request_id: str) -> SessionHistoryError:
    details = f"{code}, request {request_id}" if request_id else code
    if code in {"OTSAuthFailed", "OTSInvalidAccessKeyID"}:
        return ConfigurationError(f"Tablestore refuses the credentials, or the clock of this host is wrong: {details}")
    if code in {"OTSNoPermissionAccess", "OTSUnauthorizedAccess"}:
        return StoreReadOnly(f"the credentials do not have the right for this request to Tablestore: {details}")
    if code == "OTSQuotaExhausted":
        return StoreFull(f"Tablestore: a quota is exhausted: {details}")
    return Unavailable(f"Tablestore refuses the request: {details}")
