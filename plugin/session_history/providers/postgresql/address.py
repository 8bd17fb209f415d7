"""Where the database is: a URL as libpq takes it, made fit for asyncpg."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus, urlencode

from session_history.providers.postgresql.tls import Tls, setting, variable
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
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("utf8", "utf-8", "auto"),
    "gssencmode": ("disable", "prefer"),
    "sslcompression": ("0",),
}
"""What asyncpg can not be told, with the values for which that makes no difference."""

CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}

MAX_PORT = 65535

ENCODE = "characters such as @ / ? in a user or password must be percent-encoded"


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
    _insist_encoded(address)
    doubtful = _doubtful(address, query)
    settings = _settings(query, doubtful=doubtful)
    connect_timeout = _seconds(settings.pop("connect_timeout", None))
    _insist_known(settings, doubtful=doubtful)
    _insist_possible(settings)
    _insist_ports(address, settings.get("port", ""), doubtful=doubtful)
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


def _insist_encoded(address: str) -> None:
    """A raw @ or / in a password would make a host or a database of its rest."""
    login_and_hosts, _, database = address.partition("://")[2].partition("/")
    if login_and_hosts.count("@") > 1 or "@" in database:
        raise ConfigurationError(ENCODE)


def _doubtful(address: str, query: str) -> bool:
    """Whether the query may be the rest of a password with a raw ? in it, so that nothing of it must show."""
    return "@" not in address and "@" in unquote_plus(query)


def _settings(query: str, *, doubtful: bool) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        flaw = ENCODE if doubtful else "the query of the URL is not a list of name=value"
        raise ConfigurationError(flaw) from None
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


def _insist_known(settings: dict[str, str], *, doubtful: bool) -> None:
    for name in settings:
        if name not in PASSED_ON and name not in HARMLESS:
            raise ConfigurationError(ENCODE if doubtful else f"unknown setting {name!r} in the URL")


def _insist_possible(settings: dict[str, str]) -> None:
    for name, harmless in HARMLESS.items():
        if settings.get(name, harmless[0]).lower() not in harmless:
            raise ConfigurationError(
                f"{name} can be {' or '.join(harmless)} with the driver asyncpg, which changes nothing: leave it out"
            )
    for name, choices in CHOICES.items():
        if (setting(settings, name) or choices[0]) not in choices:
            source = name if settings.get(name) else variable(name)
            raise ConfigurationError(f"{source} must be one of {', '.join(choices)}")


def _insist_ports(address: str, ports: str, *, doubtful: bool) -> None:
    """:param ports: as the setting says; in the address, each host may have its own."""
    hosts = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
    named = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    for port in filter(None, [*named, *ports.split(",")]):
        if not (port.isdecimal() and 1 <= int(port) <= MAX_PORT):
            raise ConfigurationError(ENCODE if doubtful else f"a port must be a number from 1 to {MAX_PORT}")


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
