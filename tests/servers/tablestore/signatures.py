"""Signatures of requests and responses."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from .errors import Refused, invalid

DATE = "%Y-%m-%dT%H:%M:%S.%fZ"
ALLOWED_SKEW = timedelta(minutes=15)
SIGNATURES = {"x-ots-signature", "x-ots-signaturev4"}
REQUIRED = ("x-ots-date", "x-ots-apiversion", "x-ots-accesskeyid", "x-ots-instancename", "x-ots-contentmd5")


@dataclass(frozen=True)
class Account:
    instance: str
    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def signing_key(account: Account, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Check the signature of a request and return the key that signs its response.

    :raises Refused: the request does not come from the account.
    """
    own = {name.lower(): value.strip() for name, value in headers.items() if name.lower().startswith("x-ots-")}
    _check_headers(account, own, body)
    signed = _lines({name: value for name, value in own.items() if name not in SIGNATURES})
    text = _bytes(f"{path}\nPOST\n\n{signed}\n")
    if given := own.get("x-ots-signaturev4"):
        key = _derived_key(account, own)
        expected = _base64(_hmac(key, text + b"ots", "sha256"))
    else:
        given = own.get("x-ots-signature", "")
        key = account.access_key_secret.encode()
        expected = _base64(_hmac(key, text, "sha1"))
    if not hmac.compare_digest(_bytes(given), expected.encode()):
        raise Refused("OTSAuthFailed", "Signature mismatch.")
    return key


def response_headers(account: Account, key: bytes, path: str, body: bytes, request_id: str) -> dict[str, str]:
    headers = {
        "x-ots-contentmd5": md5(body),
        "x-ots-contenttype": "protocol buffer",
        "x-ots-date": datetime.now(UTC).strftime(DATE),
        "x-ots-requestid": request_id,
    }
    signature = _base64(_hmac(key, f"{_lines(headers)}\n{path}".encode(), "sha1"))
    return {**headers, "Authorization": f"OTS {account.access_key_id}:{signature}"}


def md5(body: bytes) -> str:
    return _base64(hashlib.md5(body).digest())


def _check_headers(account: Account, headers: Mapping[str, str], body: bytes) -> None:
    for name in REQUIRED:
        if name not in headers:
            raise invalid(f"Missing header: {name}.")
    if headers["x-ots-apiversion"] != "2015-12-31":
        raise invalid(f"Unsupported API version: {headers['x-ots-apiversion']}.")
    if headers["x-ots-contentmd5"] != md5(body):
        raise Refused("OTSAuthFailed", "Mismatch between MD5 value of request body and x-ots-contentmd5 in header.")
    _check_date(headers["x-ots-date"])
    if headers["x-ots-accesskeyid"] != account.access_key_id:
        raise Refused("OTSAuthFailed", "The AccessKeyID does not exist.")
    if headers["x-ots-instancename"] != account.instance:
        raise Refused("OTSAuthFailed", "The instance is not found.")
    if headers.get("x-ots-ststoken") != account.security_token:
        raise Refused("OTSAuthFailed", "The security token is invalid.")


def _check_date(text: str) -> None:
    try:
        date = datetime.strptime(text, DATE).replace(tzinfo=UTC)
    except ValueError:
        raise invalid("Invalid date format of x-ots-date.") from None
    if abs(datetime.now(UTC) - date) > ALLOWED_SKEW:
        raise Refused("OTSAuthFailed", "Mismatch between system time and x-ots-date.")


def _derived_key(account: Account, headers: Mapping[str, str]) -> bytes:
    """Return the signing key of version 4.

    :raises Refused: the day or the region of the key is missing.
    """
    key = f"aliyun_v4{account.access_key_secret}".encode()
    for part in (headers.get("x-ots-signdate"), headers.get("x-ots-signregion"), "ots", "aliyun_v4_request"):
        if not part:
            raise invalid("A signature of version 4 takes x-ots-signdate and x-ots-signregion.")
        key = _hmac(key, _bytes(part), "sha256")
    return base64.b64encode(key)


def _bytes(text: str) -> bytes:
    """Return the bytes of a header. aiohttp keeps bytes that are not UTF-8 as surrogates."""
    return text.encode(errors="surrogateescape")


def _lines(headers: Mapping[str, str]) -> str:
    return "\n".join(sorted(f"{name}:{value}" for name, value in headers.items()))


def _hmac(key: bytes, text: bytes, method: str) -> bytes:
    return hmac.new(key, text, method).digest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
