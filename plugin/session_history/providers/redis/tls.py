"""Mistakes in the configuration of TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from session_history.providers.redis.options import Address, RedisOptions
from session_history_hooks import ConfigurationError

PLAIN_TEXT_TIMEOUT = 1.0
"""Seconds that a server may take to answer in plain text."""


def check_files(options: RedisOptions) -> None:
    """Load the files that the options name.

    :raises ConfigurationError: a file cannot be read, or holds something else.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if options.ssl_ca_certs:
            context.load_verify_locations(options.ssl_ca_certs)
    except OSError as error:
        raise ConfigurationError(f"ssl_ca_certs: not a readable file of certificates ({_cause(error)})") from None
    try:
        if options.ssl_certfile:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "ssl_certfile, ssl_keyfile: not readable files of a certificate and its key without a password"
            f" ({_cause(error)})"
        ) from None


def _cause(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__)


async def answers_plain_text(address: Address) -> bool:
    """Return True if a server answers without TLS.

    A handshake alone does not show this: such a server takes it for the first half of a line, and waits for the rest.
    """
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PLAIN_TEXT_TIMEOUT):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(1) in {b"+", b"-"}
            finally:
                writer.close()
    return False
