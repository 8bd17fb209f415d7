"""The proxy gives each request its fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice

import pytest

from servers.proxy import Mishap, Mishaps, Proxy


class Echo:
    """A server that sends back the bytes it receives.

    :ivar received: all of these bytes.
    :ivar tasks: one for each connection.
    """

    def __init__(self) -> None:
        self.received = b""
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        while data := await reader.read(2**16):
            self.received += data
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo(unused_tcp_port: int) -> AsyncIterator[tuple[Echo, Proxy]]:
    made = Echo()
    async with await asyncio.start_server(made.serve, "127.0.0.1", unused_tcp_port):
        with Proxy(unused_tcp_port) as proxy:
            yield made, proxy
        await asyncio.gather(*made.tasks)


async def answers_to(proxy: Proxy, *requests: bytes) -> list[bytes | None]:
    """Send requests on one connection, and return the answers: b"" = it was closed, None = no answer came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    answers: list[bytes | None] = []
    for request in requests:
        writer.write(request)
        try:
            answers.append(await asyncio.wait_for(reader.read(2**16), 0.3))
        except TimeoutError:
            answers.append(None)
        except ConnectionError:
            answers.append(b"")
    writer.close()
    return answers


@pytest.mark.parametrize(
    ("mishap", "answers", "received"),
    [
        (Mishap.CUT_BEFORE, [b"a", b""], b"a"),
        (Mishap.CUT_AFTER, [b"a", b""], b"ab"),
        (Mishap.DELAY, [b"a", b"b"], b"ab"),
        (Mishap.HALF_OPEN, [b"a", None], b"a"),
        (Mishap.MUTE, [b"a", None], b"ab"),
    ],
)
async def test_request_has_the_fate_of_its_mishap(
    echo: tuple[Echo, Proxy], mishap: Mishap, answers: list[bytes | None], received: bytes
) -> None:
    server, proxy = echo
    proxy.mishaps = iter([None, mishap])
    assert await answers_to(proxy, b"a", b"b") == answers
    assert server.received == received
    assert (proxy.requests, proxy.connections) == (2, 1)
    assert await answers_to(proxy, b"c") == [b"c"], "the next connection is as good as new"


async def test_muted_connections_pass_no_answer_on(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"a")
    assert await reader.read(9) == b"a"
    proxy.mute()
    writer.write(b"b")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(9), 0.2)
    writer.close()
    assert await answers_to(proxy, b"c") == [b"c"]


def test_mishaps_of_the_same_seed_are_the_same() -> None:
    first, again, other = (Mishaps(seed, share=0.5) for seed in (1, 1, 2))
    fates = list(islice(first, 200))
    assert fates == list(islice(again, 200)) != list(islice(other, 200))
    assert set(fates) == {None, *Mishap}
    assert sum(fate is not None for fate in fates) == first.happened.total()
