"""End points that can not be reached, and what is told of them; options that the SDK would overlook."""

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
from servers.tablestore import TablestoreServer
from session_history import create_tablestore_client
from session_history.errors import ConfigurationError, SessionHistoryError, Unavailable
from session_history.providers.tablestore import client, table
from session_history_hooks import Position, SessionKey
from session_history_hooks.testing.subject import entry


async def refusal(end_point: str) -> SessionHistoryError:
    """The error of a start, which comes at once."""
    made = provider(end_point)
    began = time.monotonic()
    with pytest.raises(SessionHistoryError) as caught:
        await made.start()
    await made.stop()
    assert time.monotonic() - began < table.PATIENCE / 3
    return caught.value


async def test_nobody_listens() -> None:
    error = await refusal(f"http://127.0.0.1:{free_port()}")
    assert isinstance(error, Unavailable)
    assert "takes no connection" in str(error)


async def test_a_host_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await refusal("https://no-such-instance.invalid")
    assert isinstance(error, Unavailable)
    assert "host of the end point is not known" in str(error)


async def test_tls_to_a_server_that_has_none() -> None:
    with TablestoreServer() as server:
        error = await refusal(server.endpoint.replace("http:", "https:"))
    assert isinstance(error, ConfigurationError)
    assert "no TLS" in str(error)


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    made, key = certificate(tmp_path, "own")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with listening:
        error = await refusal(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert isinstance(error, ConfigurationError)
    assert "certificate" in str(error)


async def test_a_server_that_was_there_is_waited_for() -> None:
    port = free_port()
    with TablestoreServer(port=port) as server:
        made = provider(server.endpoint)
        await made.start()
    appending = asyncio.create_task(made.append(SessionKey("u", "s"), entry(1), at=Position(0, 0)))
    await asyncio.sleep(0.3)  # in which it is refused some times
    assert not appending.done()
    with TablestoreServer(port=port) as server:
        await provider(server.endpoint).start()
        assert (await appending).position == Position(0, 1)
        await made.stop()


def test_an_option_that_the_sdk_would_overlook() -> None:
    with pytest.raises(ConfigurationError, match=r"has no max_conections; it has .*max_connection"):
        create_tablestore_client("https://host", "inst", "ak", "sk", max_conections=3)


def test_the_options_are_those_of_the_installed_sdk() -> None:
    makers = (AsyncOTSClient.__init__, *(base.__init__ for base in AsyncOTSClient.__bases__))
    read = {name for maker in makers for name in re.findall(r"kwargs\.get\('(\w+)'", inspect.getsource(maker))}
    assert read - {"sts_token"} == client.OPTIONS
