"""The client of the SDK and its credentials."""

from __future__ import annotations

import os
from typing import Any

from tablestore import AsyncOTSClient, OTSClientError
from tablestore.retry import NoRetryPolicy

from session_history_hooks import ConfigurationError

CREDENTIALS = (
    ("TABLESTORE_ACCESS_KEY_ID", "TABLESTORE_ACCESS_KEY_SECRET", "TABLESTORE_SESSION_TOKEN"),
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"),
)
"""Environment variables: the id and the secret of an access key, and the token of a temporary key.

The first row with an id and a secret is used.
"""

OPTIONS = {
    "enable_native", "encoding", "extra_headers", "force_close", "keepalive_timeout", "logger_name", "max_connection",
    "native_fallback", "retry_policy", "socket_timeout", "ssl_version",
}  # fmt: skip
"""The other options of ``AsyncOTSClient`` in version 6.4. The SDK ignores an unknown option without a word."""


def create_client(
    end_point: str,
    instance_name: str,
    access_key_id: str | None = None,
    access_key_secret: str | None = None,
    *,
    sts_token: str | None = None,
    credentials_provider: Any = None,
    region: str | None = None,
    **options: Any,
) -> Any:
    """Return an ``AsyncOTSClient`` for one provider, without I/O.

    The client repeats no request, because the provider does that.

    :raises ConfigurationError: an argument is missing or invalid, or no credentials were found.
    """
    if unknown := options.keys() - OPTIONS:
        raise ConfigurationError(
            f"AsyncOTSClient has no option {', '.join(sorted(unknown))}; its options are {', '.join(sorted(OPTIONS))}"
        )
    if credentials_provider is None:
        access_key_id, access_key_secret, sts_token = _credentials(access_key_id, access_key_secret, sts_token)
    elif access_key_id or access_key_secret or sts_token:
        raise ConfigurationError("give either an access key or credentials_provider, not both")
    try:
        return AsyncOTSClient(
            # With a slash at the end, the SDK would ask for another path than it signs.
            end_point.rstrip("/") if isinstance(end_point, str) else end_point,
            access_key_id,
            access_key_secret,
            instance_name,
            credentials_provider=credentials_provider,
            region=region,
            sts_token=sts_token or None,
            **{"retry_policy": NoRetryPolicy(), **options},
        )
    except OTSClientError as error:
        raise ConfigurationError(f"Tablestore: {error.get_error_message()}") from None


def _credentials(
    access_key_id: str | None, access_key_secret: str | None, sts_token: str | None
) -> tuple[str, str, str | None]:
    if access_key_id and access_key_secret:
        return access_key_id, access_key_secret, sts_token
    if access_key_id or access_key_secret or sts_token:
        raise ConfigurationError("an access key of Tablestore is an id and a secret: one of them is missing")
    for names in CREDENTIALS:
        key_id, secret, token = (os.environ.get(name) or None for name in names)
        if key_id and secret:
            return key_id, secret, token
    pairs = ", or ".join(f"{names[0]} and {names[1]}" for names in CREDENTIALS)
    raise ConfigurationError(f"found no credentials for Tablestore: set {pairs}, or pass a client with credentials")
