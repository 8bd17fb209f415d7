"""The SDK's client, and where its credentials come from."""

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
"""Environment variables of an access key, and of the token of a temporary one. The first pair that is set counts."""

OPTIONS = {
    "enable_native", "encoding", "extra_headers", "force_close", "keepalive_timeout", "logger_name", "max_connection",
    "native_fallback", "retry_policy", "socket_timeout", "ssl_version",
}  # fmt: skip
"""What else ``AsyncOTSClient`` takes, in version 6.4. It overlooks any other."""


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
    """An ``AsyncOTSClient`` for one provider, without I/O. The provider repeats what failed, so the client does not.

    :raises ConfigurationError: an argument is missing or unfit, or there are no credentials.
    """
    if unknown := options.keys() - OPTIONS:
        raise ConfigurationError(
            f"AsyncOTSClient has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(OPTIONS))}"
        )
    if credentials_provider is None:
        access_key_id, access_key_secret, sts_token = _credentials(access_key_id, access_key_secret, sts_token)
    elif access_key_id or access_key_secret or sts_token:
        raise ConfigurationError("credentials are given, and a provider of credentials as well: give one of them")
    try:
        return AsyncOTSClient(
            end_point.rstrip("/") if isinstance(end_point, str) else end_point,  # the SDK would ask for another path
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
        raise ConfigurationError("an access key of Tablestore is an id and a secret: one of the two is missing")
    for names in CREDENTIALS:
        found = [os.environ.get(name) or None for name in names]
        if found[0] and found[1]:
            return found[0], found[1], found[2]
    pairs = ", or ".join(f"{names[0]} and {names[1]}" for names in CREDENTIALS)
    raise ConfigurationError(f"no credentials for Tablestore: set {pairs}, or give a client that has them")
