"""TLS to a PostgreSQL server: trusted certificates, and errors."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.postgresql.support import OnOwnServer, open_provider_of, provider_of
from servers.certificates import certificate
from servers.ports import free_port
from servers.postgresql import Server
from servers.proxy import Proxy
from session_history.providers.postgresql import PostgresqlProvider
from session_history_hooks import ConfigurationError, Unavailable

TLS_REQUEST = bytes.fromhex("00000008 04d2162f")
"""The first bytes of a client that asks for TLS."""


class TestTls(OnOwnServer):
    @pytest.fixture(autouse=True)
    def home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hide certificates in the home folder of the user."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    @pytest.fixture
    def own(self, tmp_path: Path) -> tuple[Path, Path]:
        return certificate(tmp_path, "own")

    @pytest.fixture
    def url(self, server: Server, own: tuple[Path, Path]) -> Iterator[str]:
        """The URL of the server behind a proxy that speaks TLS."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*own)
        with Proxy(server.port, tls=tls, tls_request=TLS_REQUEST) as proxy:
            yield server.url(proxy=proxy)

    async def test_sslmode_require_and_verify_full_with_the_certificate_connect(
        self, url: str, own: tuple[Path, Path], schema: str
    ) -> None:
        for settings in ("sslmode=require", f"sslmode=verify-full&sslrootcert={own[0]}"):
            async with open_provider_of(f"{url}?{settings}", schema) as provider:
                assert await provider.health()

    async def test_sslrootcert_system_trusts_the_authorities_of_the_system(
        self, url: str, own: tuple[Path, Path], schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(own[0]))  # OpenSSL looks for them there.
        client = f"sslcert={own[0]}&sslkey={own[1]}"
        for settings in ("sslrootcert=system", f"sslmode=verify-full&sslrootcert=system&{client}"):
            async with open_provider_of(f"{url}?{settings}", schema) as provider:
                assert await provider.health()
        monkeypatch.setenv("PGSSLROOTCERT", "system")
        async with open_provider_of(url, schema) as provider:
            assert await provider.health()

    async def test_certificate_that_is_not_trusted_raises_configuration_error(
        self, url: str, schema: str, tmp_path: Path
    ) -> None:
        other, _ = certificate(tmp_path, "other")
        for settings in (f"sslmode=verify-full&sslrootcert={other}", "sslrootcert=system"):
            with pytest.raises(ConfigurationError, match=r"certificate is not trusted \(self.signed certificate\)"):
                await provider_of(f"{url}?{settings}", schema).start()

    async def test_certificate_of_another_host_is_refused_by_verify_full_only(
        self, url: str, own: tuple[Path, Path], schema: str
    ) -> None:
        elsewhere = url.replace("127.0.0.1", "localhost")
        with pytest.raises(ConfigurationError, match=r"not trusted \(Hostname mismatch.*'localhost'\)"):
            await provider_of(f"{elsewhere}?sslmode=verify-full&sslrootcert={own[0]}", schema).start()
        async with open_provider_of(f"{elsewhere}?sslmode=verify-ca&sslrootcert={own[0]}", schema) as provider:
            assert await provider.health()

    @pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
    async def test_sslmode_that_verifies_requires_a_root_certificate(self, url: str, schema: str, mode: str) -> None:
        with pytest.raises(ConfigurationError, match=r"no ~/\.postgresql/root\.crt\. Name .*sslrootcert=system"):
            await provider_of(f"{url}?sslmode={mode}", schema).start()

    async def test_unusable_file_raises_configuration_error(
        self, url: str, own: tuple[Path, Path], schema: str, tmp_path: Path
    ) -> None:
        _, other = certificate(tmp_path, "other")
        nonsense = tmp_path / "nonsense"
        nonsense.write_text("nonsense")
        for settings, text in {
            f"sslmode=verify-full&sslrootcert={nonsense}": "certificate or key file",
            f"sslrootcert=system&sslcert={nonsense}": "certificate or key file",
            f"sslmode=require&sslcert={own[0]}&sslkey={other}": "certificate or key file",
            f"sslmode=require&sslcert={tmp_path}": f"sslcert: {tmp_path} cannot be read",
            f"sslrootcert=system&sslcert={own[0]}&sslkey=/none": "sslkey: /none cannot be read",
        }.items():
            with pytest.raises(ConfigurationError, match=text):
                await provider_of(f"{url}?{settings}", schema).start()

    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ("sslmode=require&sslrootcert=system", "requires sslmode=verify-full"),
            ("sslrootcert=system&sslcrl=/x", "not possible with sslrootcert=system: sslcrl"),
        ],
    )
    def test_setting_that_contradicts_sslrootcert_system_raises_configuration_error(
        self, settings: str, text: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=text):
            PostgresqlProvider(f"postgresql://h/d?{settings}")

    @pytest.mark.parametrize("name", ["PGSSLCRL", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION"])
    def test_variable_that_contradicts_sslrootcert_system_raises_configuration_error(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
    async def test_unreadable_file_is_named_only_if_it_is_read(
        self, settings: str, server: Server, schema: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGSSLROOTCERT", "/no/such.crt")
        read = settings in {"sslmode=verify-full&sslrootcert=/none", "sslcert=/none"}
        down = f"postgresql://app@127.0.0.1:{free_port()}/d?{settings}".rstrip("?")
        with pytest.raises(ConfigurationError if read else Unavailable, match="/none" if read else "cannot be reached"):
            await provider_of(down, schema).start()
        if not read:
            async with open_provider_of(f"{server.url()}?{settings}".rstrip("?"), schema) as provider:
                assert await provider.health()
