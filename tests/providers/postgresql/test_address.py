"""URLs and options of PostgreSQL: their translation, their errors, and passwords that must not show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from session_history.config.registry import open_provider
from session_history.providers.postgresql import PostgresqlProvider
from session_history.providers.postgresql.address import parse
from session_history_hooks import ConfigurationError, Unavailable

SECRET = "hunter2"

WRITE = "target_session_attrs=read-write"
ANY = "target_session_attrs=any"


class TestUrls:
    async def test_url_gives_each_setting_to_libpq_or_the_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[tuple[Any, ...]] = []

        def make(*settings: Any) -> None:
            made.append(settings)
            raise Unavailable("this test does not connect")

        monkeypatch.setattr("session_history.providers.postgresql.Pool", make)
        provider = open_provider(
            f"postgresql://u:{SECRET}@h:5433,i/db?sslmode=verify-full&sslrootcert=%2Fa%20b&application_name=x"
            "&channel_binding=prefer&connect_timeout=3&schema=s&pool_size=4&timeout=2.5",
            {"target_session_attrs": "read-write"},
        )
        with pytest.raises(Unavailable):
            await provider.start()
        [(address, *settings)] = made
        passed_on = "sslmode=verify-full&sslrootcert=%2Fa+b&target_session_attrs=read-write&application_name=x"
        assert address.dsns == tuple(f"postgresql://u:{SECRET}@{host}/db?{passed_on}" for host in ("h:5433", "i"))
        assert address.connect_timeout == 3
        assert settings == [4, 2.5, True]
        assert repr(provider) == "PostgresqlProvider('postgresql://h:5433,i/db', schema='s')"

    @pytest.mark.parametrize(
        ("url", "dsns"),
        [
            ("postgresql://h/", ["postgresql://h"]),
            ("postgresql:///", ["postgresql://"]),
            ("postgresql://h/?dbname=d&password=p", ["postgresql://h?dbname=d&password=p"]),
            ("postgres://h/d", ["postgres://h/d"]),
            ("postgres://h,[::1]:1/d", [f"postgres://h/d?{WRITE}", f"postgres://[::1]:1/d?{WRITE}"]),
            ("postgresql://h,i/d?target_session_attrs=any", [f"postgresql://{h}/d?{ANY}" for h in "hi"]),
            ("postgresql:///d?host=h,i", [f"postgresql:///d?host={h}&{WRITE}" for h in "hi"]),
            ("postgresql:///d?host=h,i&port=1", [f"postgresql:///d?host={h}&port=1&{WRITE}" for h in "hi"]),
            (
                "postgresql:///d?host=h,i&port=1,2",
                [f"postgresql:///d?host={h}&{WRITE}" for h in ("h&port=1", "i&port=2")],
            ),
            ("postgresql:///d?host=h,i&port=1,2,3", ["postgresql:///d?host=h%2Ci&port=1%2C2%2C3"]),
        ],
    )
    def test_url_becomes_one_dsn_for_each_host(self, url: str, dsns: list[str]) -> None:
        assert parse(url).dsns == tuple(dsns)

    def test_both_schemes_of_libpq_make_the_same_provider(self) -> None:
        assert repr(open_provider("postgres://u@h/db", {})) == repr(open_provider("postgresql://u@h/db", {}))


class TestErrors:
    @pytest.mark.parametrize(
        ("url", "options", "text"),
        [
            ("mysql://h/db", {}, "must have the form postgresql://"),
            ("postgresql://h/db#x", {}, "%23"),
            ("postgresql://h/db?nonsense=1", {}, "unknown setting 'nonsense'"),
            ("postgresql://h/db?channel_binding=require", {}, "channel_binding can only be disable or prefer"),
            ("postgresql://h/db?host=a&host=b", {}, "twice"),
            ("postgresql://h/db?host", {}, "name=value"),
            ("postgresql://h/db?connect_timeout=soon", {}, "whole number"),
            ("postgresql://h/db?port=5433", {}, "leave the setting out: port"),
            ("postgresql://h/db?sslmode=verfy", {}, "sslmode must be one of disable, .*verify-full$"),
            ("postgresql://h/db?sslnegotiation=now", {}, "sslnegotiation must be one of postgres, direct"),
            ("postgresql://h/db?target_session_attrs=primry", {}, "target_session_attrs must be .*read-write"),
            ("postgresql://h:port/db", {}, "a port must be a number from 1 to 65535"),
            ("postgresql://h:1,[::1]:0/db", {}, "a port must be"),
            ("postgresql:///db?host=h,i&port=1,65536", {}, "a port must be"),
            ("postgresql://u:hunter2@h/db?user=x&password=y&dbname=z", {}, "setting out: user, password, dbname"),
            ("postgresql://h/db", {"pool_size": 0}, "pool_size"),
            ("postgresql://h/db", {"timeout": float("inf")}, "timeout"),
            ("postgresql://h/db", {"schema": "s" * 64}, "schema must be"),
            ("postgresql://h/db", {"schema": ""}, "schema must be"),
            ("postgresql://h/db", {"durability": "process"}, "durability"),
        ],
    )
    def test_wrong_url_or_option_raises_configuration_error(self, url: str, options: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            PostgresqlProvider(url, **options)

    def test_wrong_environment_variable_raises_configuration_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGTARGETSESSIONATTRS", "primry")
        with pytest.raises(ConfigurationError, match="PGTARGETSESSIONATTRS must be one of any, "):
            PostgresqlProvider("postgresql://h/d")

    @pytest.mark.parametrize(
        ("query", "text"),
        [
            ("size=1", r"unknown option 'size' in .*: did you mean 'pool_size'\?"),
            ("SSL-mode=require", r"unknown option 'SSL-mode' in .*: did you mean 'sslmode'"),
            ("ssl=true", "write sslmode=require, or sslmode=verify-full"),
            ("color=red", r"unknown option 'color' in .*\. Options: .*passfile.*, schema, .*timeout"),
        ],
    )
    def test_unknown_option_is_named_with_a_similar_one(self, query: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            open_provider(f"postgresql://h/db?{query}", {})

    @pytest.mark.parametrize("password", ["s@cret", "se/cret", "se?cret", "se?host=cret"])
    def test_password_that_is_not_percent_encoded_raises_configuration_error(self, password: str) -> None:
        url = f"postgresql://app:{password}@h/d"
        with pytest.raises(ConfigurationError, match="percent-encoded"):
            PostgresqlProvider(url)
        with pytest.raises(ConfigurationError, match="percent-encoded"):
            open_provider(url, {})

    @pytest.mark.parametrize(
        "address",
        [
            "u:{}@h/db",
            "u:a/{}@h/db",
            "u:a@{}@h/db",
            "u:a?{}@h/db",
            "u:{}?options=x@h/db",
            "u:a?{}=x@h/db",
            "u:a?sslmode={}@h/db",
            "u:a?channel_binding={}@h/db",
            "u:a#{}@h/db",
            "u:a:{}@h/db",
            "h/db?user=u@s&password={}",
        ],
    )
    def test_password_shows_in_no_error_and_no_repr(self, address: str) -> None:
        url = f"postgresql://{address.format(SECRET)}"
        assert SECRET not in shown(lambda: PostgresqlProvider(url))
        assert SECRET not in shown(lambda: open_provider(url, {}))


def shown(make: Callable[[], object]) -> str:
    """Return the repr of a provider, or of the error that refuses it."""
    try:
        return repr(make())
    except ConfigurationError as error:
        return repr(error)
