"""The address of the database: a URL of libpq, translated for asyncpg."""

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
"""Settings that asyncpg, or the server, treats as libpq does."""

HARMLESS = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("utf8", "utf-8", "auto"),
    "gssencmode": ("disable", "prefer"),
    "sslcompression": ("0",),
}
"""Settings that asyncpg does not know, with the values that change nothing for it."""

CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}

MAX_PORT = 65535

PERCENT_ENCODE = "characters such as @ / ? in a user or password must be percent-encoded"


@dataclass(frozen=True, slots=True)
class Address:
    """The hosts of a database, and the settings for connections to them.

    :ivar dsns: a URL of asyncpg for each host; it may hold a password.
    :ivar connect_timeout: seconds for a host; ``None`` = its share of the call's timeout.
    :ivar display: the URL without user, password and query, for errors and ``repr``.
    """

    dsns: tuple[str, ...] = field(repr=False)
    connect_timeout: float | None
    display: str
    tls: Tls = field(repr=False)


def parse(url: str) -> Address:
    """Return the address that a URL names.

    :raises ConfigurationError: the URL is not one of PostgreSQL, or a setting is not possible. The error does not show
        the URL.
    """
    if not isinstance(url, str) or not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        raise ConfigurationError("the URL must have the form postgresql://user:password@host:port/database")
    if "#" in url or "\0" in url:
        raise ConfigurationError("the URL holds a # or NUL: write %23 for a #")
    address, _, query = url.partition("?")
    _require_encoded(address)
    ambiguous = _is_ambiguous(address, query)
    settings = _settings(query, ambiguous=ambiguous)
    connect_timeout = _connect_timeout(settings.pop("connect_timeout", None))
    _require_known(settings, ambiguous=ambiguous)
    _require_possible(settings)
    _require_ports(address, settings.get("port", ""), ambiguous=ambiguous)
    _require_unique(address, settings)
    address = address.removesuffix("/")  # Otherwise it names a database, with an empty name.
    passed_on = {name: value for name, value in settings.items() if name in PASSED_ON}
    display = "postgresql://" if ambiguous else _display(address)
    dsns = _dsn_of_each_host(address, passed_on)
    if len(dsns) > 1 and not os.environ.get("PGTARGETSESSIONATTRS"):
        # A standby takes no writes, and a connection to one would stay in use as long as there are only reads.
        passed_on.setdefault("target_session_attrs", "read-write")
        dsns = _dsn_of_each_host(address, passed_on)
    return Address(dsns, connect_timeout, display, Tls.of(settings))


def _require_encoded(address: str) -> None:
    """Refuse a raw @ or / in a password: the rest would be read as a host or a database."""
    login_and_hosts, _, database = address.partition("://")[2].partition("/")
    if login_and_hosts.count("@") > 1 or "@" in database:
        raise ConfigurationError(PERCENT_ENCODE)


def _is_ambiguous(address: str, query: str) -> bool:
    """Return whether the query may be the rest of a password with a raw ``?``. No error may show it then."""
    return "@" not in address and "@" in unquote_plus(query)


def _settings(query: str, *, ambiguous: bool) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        flaw = PERCENT_ENCODE if ambiguous else "the query of the URL is not a list of name=value"
        raise ConfigurationError(flaw) from None
    if len(dict(pairs)) < len(pairs):
        raise ConfigurationError("the query of the URL names a setting twice")
    return dict(pairs)


def _connect_timeout(value: str | None) -> float | None:
    """Return the seconds of ``connect_timeout``; as in libpq, 0 and less mean no limit."""
    try:
        seconds = int(value or 0)
    except ValueError:
        raise ConfigurationError("connect_timeout must be a whole number of seconds") from None
    return float(seconds) if seconds > 0 else None


def _require_known(settings: dict[str, str], *, ambiguous: bool) -> None:
    for name in settings:
        if name not in PASSED_ON and name not in HARMLESS:
            raise ConfigurationError(PERCENT_ENCODE if ambiguous else f"unknown setting {name!r} in the URL")


def _require_possible(settings: dict[str, str]) -> None:
    for name, harmless in HARMLESS.items():
        if settings.get(name, harmless[0]).lower() not in harmless:
            raise ConfigurationError(
                f"{name} can only be {' or '.join(harmless)} with the driver asyncpg. Leave it out"
            )
    for name, choices in CHOICES.items():
        if (setting(settings, name) or choices[0]) not in choices:
            source = name if settings.get(name) else variable(name)
            raise ConfigurationError(f"{source} must be one of {', '.join(choices)}")


def _require_ports(address: str, ports: str, *, ambiguous: bool) -> None:
    """Check the ports of the hosts in the address, and those of the setting ``port``."""
    hosts = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
    named = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    for port in filter(None, [*named, *ports.split(",")]):
        if not (port.isdecimal() and 1 <= int(port) <= MAX_PORT):
            raise ConfigurationError(PERCENT_ENCODE if ambiguous else f"a port must be a number from 1 to {MAX_PORT}")


def _require_unique(address: str, settings: dict[str, str]) -> None:
    """Refuse a setting that the address names too: the driver would ignore the setting."""
    login, _, place = address.partition("://")[2].rpartition("@")
    hosts, _, database = place.partition("/")
    user, _, password = login.partition(":")
    named = {"host": hosts, "port": hosts, "dbname": database, "user": user, "password": password}
    twice = [name for name in settings if named.get(name)]
    if twice:
        raise ConfigurationError(
            f"the part before the ? names it already, so leave the setting out: {', '.join(twice)}"
        )


def _dsn_of_each_host(address: str, settings: dict[str, str]) -> tuple[str, ...]:
    """Return a URL for each host. With all hosts in one URL, asyncpg would give the first one all the time."""
    scheme, _, rest = address.partition("://")
    login, at, place = rest.rpartition("@")
    hosts, slash, database = place.partition("/")
    if hosts:
        addresses = [f"{scheme}://{login}{at}{host}{slash}{database}" for host in hosts.split(",")]
        return tuple(_dsn(each, settings) for each in addresses)
    named, ports = settings.get("host", "").split(","), settings.get("port", "").split(",")
    if len(named) == 1 or len(ports) not in {1, len(named)}:
        return (_dsn(address, settings),)  # The driver refuses a wrong number of ports.
    ports = ports * len(named) if len(ports) == 1 else ports
    places = [{"host": host, "port": port} if port else {"host": host} for host, port in zip(named, ports, strict=True)]
    return tuple(_dsn(address, {**settings, **place}) for place in places)


def _dsn(address: str, settings: dict[str, str]) -> str:
    return f"{address}?{urlencode(settings)}" if settings else address


def _display(address: str) -> str:
    return f"postgresql://{address.partition('://')[2].rpartition('@')[2]}"
