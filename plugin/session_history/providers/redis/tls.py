"""What keeps TLS from working until somebody changes the configuration."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from session_history.providers.redis.options import Address, RedisOptions
from session_history_hooks import ConfigurationError

PATIENCE = 1.0
"""Seconds for which a server may take to answer in plain text."""


def check_files(options: RedisOptions) -> None:
    """:raises ConfigurationError: one of them can not be read, or is not what it should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if options.ssl_ca_certs:
            context.load_verify_locations(options.ssl_ca_certs)
    except OSError as error:
        raise ConfigurationError(f"ssl_ca_certs: no file of certificates ({_why(error)})") from None
    try:
        if options.ssl_certfile:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"ssl_certfile, ssl_keyfile: no files of a certificate and its key without a password ({_why(error)})"
        ) from None


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__)


async def speaks_none(address: Address) -> bool:
    """Whether a server understands plain text. Such a one waits for the end of a line when it is greeted in TLS."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(1) in {b"+", b"-"}
            finally:
                writer.close()
    return False
