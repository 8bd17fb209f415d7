"""Errors of the service."""

from __future__ import annotations

STATUS = {
    "OTSAuthFailed": 403,
    "OTSConditionCheckFail": 403,
    "OTSInternalServerError": 500,
    "OTSInvalidPK": 400,
    "OTSMethodNotAllowed": 405,
    "OTSObjectAlreadyExist": 409,
    "OTSObjectNotExist": 404,
    "OTSOutOfColumnCountLimit": 400,
    "OTSOutOfRowSizeLimit": 400,
    "OTSParameterInvalid": 400,
    "OTSQuotaExhausted": 403,
    "OTSRequestBodySizeExceed": 413,
    "OTSServerBusy": 503,
    "OTSTableNotReady": 404,
    "OTSUnsupportOperation": 400,
}


class Refused(Exception):
    """An error in answer to a request or to a row of a batch."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return STATUS[self.code]


def invalid(message: str) -> Refused:
    return Refused("OTSParameterInvalid", message)


def internal_error() -> Refused:
    return Refused("OTSInternalServerError", "Internal server error.")
