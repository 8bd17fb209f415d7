"""TLS to a PostgreSQL server: who is trusted, and what is said when it is not possible."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from providers.postgresql.support import OnOwnServer, provider_of
from servers.certificates import certificate
from servers.ports import free_port
from servers.postgresql import Server
from servers.proxy import Proxy
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import ConfigurationError, Unavailable
from session_history_hooks.testing.subject import opened

TLS_REQUEST = bytes.fromhex("00000008 04d2162f")
"""With what a client asks for TLS, ahead of anything else."""


class TestTls(OnOwnServer):
    @pytest.fixture(autouse=True)
    def home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without certificates of the user's."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    @pytest.fixture
    def own(self, tmp_path: Path) -> tuple[Path, Path]:
        return certificate(tmp_path, "own")

    @pytest.fixture
    def url(self, server: Server, own: tuple[Path, Path]) -> Iterator[str]:
        """Of the server, behind a proxy that speaks TLS."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*own)
        with Proxy(server.port, tls=tls, tls_request=TLS_REQUEST) as proxy:
            yield server.url(proxy=proxy)

    async def test_who_is_trusted(self, url: str, own: tuple[Path, Path], schema: str) -> None:
        for settings in ("sslmode=require", f"sslmode=verify-full&sslrootcert={own[0]}"):
            async with opened(partial(provider_of, f"{url}?{settings}", schema)) as provider:
                assert await provider.health()

    async def test_the_authorities_of_the_system(
        self, url: str, own: tuple[Path, Path], schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(own[0]))  # where OpenSSL looks for them
        client = f"sslcert={own[0]}&sslkey={own[1]}"
        for settings in ("sslrootcert=system", f"sslmode=verify-full&sslrootcert=system&{client}"):
            async with opened(partial(provider_of, f"{url}?{settings}", schema)) as provider:
                assert await provider.health()
        monkeypatch.setenv("PGSSLROOTCERT", "system")
        async with opened(lambda: provider_of(url, schema)) as provider:
            assert await provider.health()

    async def test_a_certificate_that_is_not_trusted(self, url: str, schema: str, tmp_path: Path) -> None:
        other, _ = certificate(tmp_path, "other")
        for settings in (f"sslmode=verify-full&sslrootcert={other}", "sslrootcert=system"):
            with pytest.raises(ConfigurationError, match=r"certificate is not trusted \(self.signed certificate\)"):
                await provider_of(f"{url}?{settings}", schema).start()

    async def test_a_certificate_of_another_host(self, url: str, own: tuple[Path, Path], schema: str) -> None:
        elsewhere = url.replace("127.0.0.1", "localhost")
        with pytest.raises(ConfigurationError, match=r"not trusted \(Hostname mismatch.*'localhost'\)"):
            await provider_of(f"{elsewhere}?sslmode=verify-full&sslrootcert={own[0]}", schema).start()
        async with opened(
            lambda: provider_of(f"{elsewhere}?sslmode=verify-ca&sslrootcert={own[0]}", schema)
        ) as provider:
            assert await provider.health()

    @pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
    async def test_nobody_to_trust(self, url: str, schema: str, mode: str) -> None:
        with pytest.raises(ConfigurationError, match=r"no ~/\.postgresql/root\.crt\. Name .*sslrootcert=system"):
            await provider_of(f"{url}?sslmode={mode}", schema).start()

    async def test_files_that_are_none(self, url: str, own: tuple[Path, Path], schema: str, tmp_path: Path) -> None:
        _, other = certificate(tmp_path, "other")
        nonsense = tmp_path / "nonsense"
        nonsense.write_text("nonsense")
        for settings, text in {
            f"sslmode=verify-full&sslrootcert={nonsense}": "certificate or key of its settings",
            f"sslrootcert=system&sslcert={nonsense}": "certificate or key of its settings",
            f"sslmode=require&sslcert={own[0]}&sslkey={other}": "certificate or key of its settings",
            f"sslmode=require&sslcert={tmp_path}": f"sslcert: {tmp_path} can not be read",
            f"sslrootcert=system&sslcert={own[0]}&sslkey=/none": "sslkey: /none can not be read",
        }.items():
            with pytest.raises(ConfigurationError, match=text):
                await provider_of(f"{url}?{settings}", schema).start()

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ("sslmode=require&sslrootcert=system", "with sslmode=verify-full only"),
            ("sslrootcert=system&sslcrl=/x", "not possible with sslrootcert=system: sslcrl"),
        ],
    )
    def test_what_does_not_go_with_the_systems(self, settings: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            PostgresqlProvider(f"postgresql://h/d?{settings}")

    @pytest.mark.parametrize("name", ["PGSSLCRL", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION"])
    def test_a_variable_that_does_not_go_with_the_systems(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "TLSv1.3")
        with pytest.raises(ConfigurationError, match=f"not possible with sslrootcert=system: {name}$"):
            PostgresqlProvider("postgresql://h/d?sslrootcert=system")

    @pytest.mark.parametrize(
        "settings",
        [
            "",
            "sslmode=disable&sslcert=/none",
            "sslmode=verify-full&sslrootcert=/none",
            "sslcert=/none",
            "sslkey=/none",
        ],
    )
    async def test_a_file_is_blamed_only_for_what_it_can_cause(
        self, settings: str, server: Server, schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGSSLROOTCERT", "/no/such.crt")
        read = settings in {"sslmode=verify-full&sslrootcert=/none", "sslcert=/none"}
        down = f"postgresql://app@127.0.0.1:{free_port()}/d?{settings}".rstrip("?")
        with pytest.raises(
            ConfigurationError if read else Unavailable, match="/none" if read else "can not be reached"
        ):
            await provider_of(down, schema).start()
        if not read:
            async with opened(lambda: provider_of(f"{server.url()}?{settings}".rstrip("?"), schema)) as provider:
                assert await provider.health()
