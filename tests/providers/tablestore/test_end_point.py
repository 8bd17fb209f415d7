"""End points without a usable server and the errors of a start; options that the SDK would ignore."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import ssl
import time
from pathlib import Path

import pytest
from tablestore import AsyncOTSClient

from providers.tablestore.support import provider
from servers.certificates import certificate
from servers.ports import free_port
from servers.tablestore import Faults, TablestoreServer
from session_history import create_tablestore_client
from session_history.errors import ConfigurationError, SessionHistoryError, Unavailable
from session_history.providers.tablestore import client, table
from session_history_hooks import Position, SessionKey
from session_history_hooks.testing.subject import entry


async def refusal(end_point: str) -> SessionHistoryError:
    """Return the error of a start, which must come at once."""
    made = provider(end_point)
    began = time.monotonic()
    with pytest.raises(SessionHistoryError) as caught:
        await made.start()
    await made.stop()
    assert time.monotonic() - began < table.RETRY_TIMEOUT / 3
    return caught.value


async def test_start_without_a_server_raises_unavailable() -> None:
    error = await refusal(f"http://127.0.0.1:{free_port()}")
    assert isinstance(error, Unavailable)
    assert "refuses connections" in str(error)


async def test_start_with_an_unknown_host_raises_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await refusal("https://no-such-instance.invalid")
    assert isinstance(error, Unavailable)
    assert "host of the end point was not found" in str(error)


async def test_start_with_tls_at_a_plain_server_raises_configuration_error() -> None:
    with TablestoreServer() as server:
        error = await refusal(server.endpoint.replace("http:", "https:"))
    assert isinstance(error, ConfigurationError)
    assert "does not speak TLS" in str(error)


async def test_start_with_an_untrusted_certificate_raises_configuration_error(tmp_path: Path) -> None:
    made, key = certificate(tmp_path, "own")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with listening:
        error = await refusal(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert isinstance(error, ConfigurationError)
    assert "certificate" in str(error)


async def test_append_waits_for_a_server_that_restarts() -> None:
    port = free_port()
    with TablestoreServer(port=port) as server:
        made = provider(server.endpoint)
        await made.start()
    appending = asyncio.create_task(made.append(SessionKey("u", "s"), entry(1), at=Position(0, 0)))
    await asyncio.sleep(0.3)  # connections are refused meanwhile
    assert not appending.done()
    restarted = TablestoreServer(port=port)
    restarted.faults = Faults(kinds=("drop before",), when=lambda api, _: api == "GetRange")
    with restarted:
        await provider(server.endpoint).start()  # creates the table, which the server has forgotten
        restarted.faults = None
        assert (await appending).position == Position(0, 1)
        await made.stop()


def test_create_client_with_an_unknown_option_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"has no option max_conections; its options are .*max_connection"):
        create_tablestore_client("https://host", "inst", "ak", "sk", max_conections=3)


def test_options_are_those_of_the_installed_sdk() -> None:
    makers = (AsyncOTSClient.__init__, *(base.__init__ for base in AsyncOTSClient.__bases__))
    read = {name for maker in makers for name in re.findall(r"kwargs\.get\('(\w+)'", inspect.getsource(maker))}
    assert read - {"sts_token"} == client.OPTIONS
