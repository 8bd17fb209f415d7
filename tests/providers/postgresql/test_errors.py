"""Errors of a PostgreSQL provider, and the secrets that they must not show."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest

from providers.postgresql.support import OnOwnServer, fail_statements, open_provider_of, provider_of
from servers.ports import free_port
from servers.postgresql import PASSWORD, USER, Server
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import (
    Appended,
    ConfigurationError,
    Durability,
    Position,
    SessionHistoryError,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)
from session_history_hooks.testing.subject import append, fill, read

WRONG = "s3same-open"


class TestErrors(OnOwnServer):
    @pytest.fixture(autouse=True)
    def unknown_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look up ``nowhere.test`` without a name server."""
        known = asyncio.BaseEventLoop.getaddrinfo

        async def look_up(loop: asyncio.BaseEventLoop, host: str, *args: Any, **options: Any) -> Any:
            if host == "nowhere.test":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return await known(loop, host, *args, **options)

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)

    async def test_start_without_a_connection_says_why_and_shows_no_secret(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        cases = {
            server.url(password=WRONG): (ConfigurationError, "refuses this user or password"),
            server.url(user="nobody", password=WRONG): (ConfigurationError, "refuses this user or password"),
            server.url("nowhere"): (ConfigurationError, "has no database of this name; without a name in the URL"),
            f"postgresql://{USER}:{WRONG}@127.0.0.1:{free_port()}/postgres": (Unavailable, "cannot be reached"),
            f"postgresql://{USER}:{WRONG}@nowhere.test/postgres": (Unavailable, "host name is unknown"),
            f"{server.url()}?sslmode=verify-full&sslrootcert=/nowhere": (ConfigurationError, "sslrootcert: /nowhere"),
            f"{server.url()}?sslmode=require&sslcert=/none": (ConfigurationError, "sslcert: /none cannot be read"),
            f"{server.url()}?sslmode=require": (ConfigurationError, "has no TLS, and sslmode requires it"),
            f"{server.url()}?target_session_attrs=standby": (Unavailable, "what target_session_attrs asks for"),
            f"{server.url()}?options=-c%20nonsense%3D1": (SessionHistoryError, None),
        }
        for url, (kind, text) in cases.items():
            provider = provider_of(url, None, timeout=2.0)
            with pytest.raises(kind, match=text) as caught:
                await provider.start()
            assert await provider.health() is False
            with pytest.raises(SessionHistoryError):
                await provider.migration()
            for secret in (WRONG, PASSWORD):
                assert secret not in repr(provider) + repr(caught.value) + str(caught.value) + caplog.text
            assert (caught.value.__cause__, caught.value.__context__) == (None, None)

    @pytest.mark.parametrize(
        ("state", "error"),
        [
            ("53100", StoreFull),
            ("53200", Unavailable),
            ("25006", StoreReadOnly),
            ("42501", StoreReadOnly),
            ("57014", Unavailable),
            ("22000", Unavailable),
        ],
    )
    async def test_append_that_the_server_refuses_raises_the_error_of_its_sqlstate(
        self, provider: PostgresqlProvider, admin: Any, schema: str, state: str, error: type[Exception]
    ) -> None:
        await fill(provider, 1)
        await fail_statements(admin, schema, state, times=1)
        with pytest.raises(error, match=state) as caught:
            await append(provider, 2)
        assert type(caught.value) is error
        assert "payload" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert (await read(provider)).head.tail == Position(0, 1)
        assert await append(provider, 2) == Appended(Position(0, 2), replayed=False)

    async def test_start_on_a_read_only_server_raises_store_read_only(self, home: str, schema: str) -> None:
        async with open_provider_of(home, schema) as provider:
            await fill(provider, 1)
        with pytest.raises(StoreReadOnly):
            await provider_of(f"{home}?options=-c%20default_transaction_read_only%3Don", schema).start()

    async def test_start_on_a_server_without_fsync_requires_durability_host(self, server: Server, schema: str) -> None:
        with pytest.raises(ConfigurationError, match="synchronous_commit and fsync are off"):
            await provider_of(server.url(), schema, durability="disk").start()
        assert provider_of(server.url(), schema, durability="disk").limits.durability is Durability.DISK
        assert provider_of(server.url(), schema).limits.durability is Durability.HOST

    def test_provider_without_its_driver_names_the_extra(self) -> None:
        code = (
            "import sys; sys.modules['asyncpg'] = None; from session_history.config.registry import open_provider;"
            "open_provider('postgresql://h/db', {})"
        )
        run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert "MissingDriver" in run.stderr
        assert "pip install 'session-history[postgresql]'" in run.stderr
