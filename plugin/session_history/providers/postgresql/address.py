"""Where the database is: a URL as libpq takes it, made fit for asyncpg."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from session_history.providers.postgresql.tls import Tls
from session_history_hooks import ConfigurationError

SCHEMES = ("postgresql", "postgres")

PASSED_ON = frozenset(
    {
        "host", "port", "dbname", "user", "password", "passfile", "service",
        "sslmode", "sslnegotiation", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl",
        "ssl_min_protocol_version", "ssl_max_protocol_version",
        "target_session_attrs", "krbsrvname", "gsslib",
        "application_name", "options",
    }
)  # fmt: skip
"""What asyncpg, or the server, does as libpq would."""

HARMLESS = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"utf8", "utf-8", "auto"},
    "gssencmode": {"disable", "prefer"},
    "sslcompression": {"0"},
}
"""What asyncpg can not be told, with the values for which that makes no difference."""


@dataclass(frozen=True, slots=True)
class Address:
    """:ivar dsns: for asyncpg, one for each host; they may hold a password.
    :ivar connect_timeout: seconds for a host; ``None`` = as long as the call may take.
    :ivar shown: the URL without user, password and query, for errors and ``repr``.
    """

    dsns: tuple[str, ...] = field(repr=False)
    connect_timeout: float | None
    shown: str
    tls: Tls = field(repr=False)


def parse(url: str) -> Address:
    """:raises ConfigurationError: not a URL of PostgreSQL, or a setting that can not be kept. The URL is not shown."""
    if not isinstance(url, str) or not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise ConfigurationError("a URL is needed: postgresql://user:password@host:port/database")
    if "#" in url or "\0" in url:
        raise ConfigurationError("the URL has a fragment or holds NUL: write %23 for a # in it")
    address, _, query = url.partition("?")
    settings = _settings(query)
    # A ? in a password that was not percent-encoded makes settings of its rest.
    doubtful = "@" not in address and any("@" in each for pair in settings.items() for each in pair)
    connect_timeout = _seconds(settings.pop("connect_timeout", None))
    _insist_known(settings, shown=not doubtful)
    _insist_once(address, settings)
    address = address.removesuffix("/")  # else it names a database, whose name is empty
    passed_on = {name: value for name, value in settings.items() if name in PASSED_ON}
    shown = "postgresql://" if doubtful else _shown(address)
    dsns = _each_host(address, passed_on)
    if len(dsns) > 1 and not os.environ.get("PGTARGETSESSIONATTRS"):
        # A standby is of no use to us, and a connection to one would be kept for as long as it is only read from.
        passed_on.setdefault("target_session_attrs", "read-write")
        dsns = _each_host(address, passed_on)
    return Address(dsns, connect_timeout, shown, Tls.of(settings))


def _settings(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigurationError("the query of the URL is not a list of name=value") from None
    if len(dict(pairs)) < len(pairs):
        raise ConfigurationError("the query of the URL names a setting twice")
    return dict(pairs)


def _seconds(value: str | None) -> float | None:
    """As libpq takes it: 0 and less mean no limit."""
    try:
        seconds = int(value or 0)
    except ValueError:
        raise ConfigurationError("connect_timeout must be a whole number of seconds") from None
    return float(seconds) if seconds > 0 else None


def _insist_known(settings: dict[str, str], *, shown: bool) -> None:
    for name, value in settings.items():
        if name in HARMLESS and value.lower() not in HARMLESS[name]:
            raise ConfigurationError(f"{name}={value} is not possible with the driver asyncpg: leave it out")
        if name not in PASSED_ON and name not in HARMLESS:
            raise ConfigurationError(
                f"unknown setting {name!r} in the URL"
                if shown
                else "unknown setting in the URL: characters such as ? and @ in a password must be percent-encoded"
            )


def _insist_once(address: str, settings: dict[str, str]) -> None:
    """The driver would overlook the setting."""
    login, _, place = address.partition("://")[2].rpartition("@")
    hosts, _, database = place.partition("/")
    user, _, password = login.partition(":")
    said = {"host": hosts, "port": hosts, "dbname": database, "user": user, "password": password}
    twice = [name for name in settings if said.get(name)]
    if twice:
        raise ConfigurationError(f"the URL names it already, so leave the setting out: {', '.join(twice)}")


def _each_host(address: str, settings: dict[str, str]) -> tuple[str, ...]:
    """Asyncpg would wait for the first of several hosts for as long as there is time."""
    scheme, _, rest = address.partition("://")
    login, at, place = rest.rpartition("@")
    hosts, slash, database = place.partition("/")
    if hosts:
        addresses = [f"{scheme}://{login}{at}{host}{slash}{database}" for host in hosts.split(",")]
        return tuple(_dsn(each, settings) for each in addresses)
    named, ports = settings.get("host", "").split(","), settings.get("port", "").split(",")
    if len(named) == 1 or len(ports) not in {1, len(named)}:
        return (_dsn(address, settings),)  # wrong numbers are the driver's to refuse
    ports = ports * len(named) if len(ports) == 1 else ports
    places = [{"host": host, "port": port} if port else {"host": host} for host, port in zip(named, ports, strict=True)]
    return tuple(_dsn(address, {**settings, **place}) for place in places)


def _dsn(address: str, settings: dict[str, str]) -> str:
    return f"{address}?{urlencode(settings)}" if settings else address


def _shown(address: str) -> str:
    return f"postgresql://{address.partition('://')[2].rpartition('@')[2]}"
