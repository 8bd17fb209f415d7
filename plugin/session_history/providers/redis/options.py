"""What can be configured, and where a URL points to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import Field, ValidationError, field_validator, model_validator
from redis.asyncio.connection import Connection, SSLConnection

from session_history_hooks import ConfigurationError, Durability, ProviderOptions

PLAIN = ("redis", "valkey")
TLS = ("rediss", "valkeys")
CLUSTER = "+cluster"
SCHEMES = (*PLAIN, *TLS, *(scheme + CLUSTER for scheme in PLAIN + TLS))

PORT = 6379

YEARS_100 = 100 * 366 * 86_400

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL says."""

    tls: bool
    cluster: bool
    seeds: tuple[Address, ...]
    database: int
    username: str | None
    password: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Place:
        """:raises ValueError: it is no such URL. The error does not repeat it."""
        scheme, _, rest = url.partition("://")
        login, at, place = rest.rpartition("@")
        if "?" in place:
            raise ValueError("options in a URL are for from_url: give them as arguments")
        hosts, _, path = place.partition("/")
        username, colon, password = login.partition(":")
        return cls(
            tls=scheme.removesuffix(CLUSTER) in TLS,
            cluster=scheme.endswith(CLUSTER),
            seeds=tuple(_address(host) for host in hosts.split(",")),
            database=_number("database", path or "0", 2**31),
            username=unquote(username) or None,
            password=unquote(password) if at and colon else None,
        )


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ValueError("names no host: write redis://localhost:6379/0")
    return Address(host, _number("port", port, 2**16))


def _number(what: str, text: str, end: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < end):
        raise ValueError(f"its {what} is no number below {end}")
    return int(text)


class RedisOptions(ProviderOptions):
    """``redis://[user[:password]@]host[:port][/database]``; ``rediss`` for TLS. Also ``valkey`` and ``valkeys``.

    ``redis+cluster://host[:port][,host[:port]…]`` is a cluster, of which one server that answers is enough. User and
    password are percent-encoded. See :class:`~session_history.providers.redis.RedisProvider` for the options.
    """

    prefix: str = Field(default="sh", min_length=1, max_length=64)
    timeout: Seconds = 5.0
    ttl: int | None = Field(default=None, ge=1, le=YEARS_100)
    durability: Durability = Durability.PROCESS
    wait_replicas: int = Field(default=0, ge=0)
    wait_timeout: Seconds = 1.0
    max_connections: int = Field(default=32, ge=1)
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_cert_reqs: Literal["required", "none"] = "required"

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        Place.of(url)
        return url

    @field_validator("prefix")
    @classmethod
    def _is_a_prefix(cls, prefix: str) -> str:
        if set(prefix) & set("{}\0"):
            raise ValueError("no braces and no NUL")
        return prefix

    @model_validator(mode="after")
    def _fit_together(self) -> RedisOptions:
        place = self.place
        if place.cluster and place.database:
            raise ValueError("a cluster has database 0 alone")
        if len(place.seeds) > 1 and not place.cluster:
            raise ValueError("several hosts make a cluster: write redis+cluster://")
        if not place.tls and self.model_fields_set & {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"}:
            raise ValueError("options of TLS need the scheme rediss, valkeys or rediss+cluster")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("ssl_keyfile is the key of a certificate: set ssl_certfile, too")
        if not self.wait_replicas and "wait_timeout" in self.model_fields_set:
            raise ValueError("wait_timeout is nothing without wait_replicas: set both, or none")
        if self.wait_replicas and self.wait_timeout >= self.timeout:
            raise ValueError("wait_timeout must be shorter than timeout")
        return self

    @cached_property
    def place(self) -> Place:
        return Place.of(self.url)

    @property
    def shown(self) -> str:
        """The URL without user and password."""
        scheme = self.url.partition("://")[0]
        path = f"/{self.place.database}" if not self.place.cluster else ""
        return f"{scheme}://{','.join(map(str, self.place.seeds))}{path}"

    @property
    def plain_scheme(self) -> str:
        """Its scheme, without TLS."""
        scheme = self.url.partition("://")[0]
        name = scheme.removesuffix(CLUSTER)
        return dict(zip(TLS, PLAIN, strict=True)).get(name, name) + scheme.removeprefix(name)

    @property
    def wait_ms(self) -> int:
        return math.ceil(self.wait_timeout * 1000)

    def connection(self, address: Address) -> Connection:
        """A connection that opens when it is used. It tries nothing again, and has no time-out: who uses it has one."""
        kind = Connection
        settings: dict[str, Any] = {}
        if self.place.tls:
            kind = SSLConnection
            settings = {
                "ssl_ca_certs": self.ssl_ca_certs,
                "ssl_certfile": self.ssl_certfile,
                "ssl_keyfile": self.ssl_keyfile,
                "ssl_cert_reqs": self.ssl_cert_reqs,
                "ssl_check_hostname": self.ssl_cert_reqs == "required",
            }
        return kind(
            host=address.host,
            port=address.port,
            db=self.place.database,
            username=self.place.username,
            password=self.place.password,
            protocol=3,
            socket_timeout=None,
            socket_connect_timeout=None,
            **settings,
        )


def checked(values: dict[str, Any]) -> RedisOptions:
    """:raises ConfigurationError: see there; it names the option, and shows no value."""
    try:
        return RedisOptions.model_validate(values)
    except ValidationError as error:
        flaws = [
            f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            for flaw in error.errors(include_input=False)
        ]
        raise ConfigurationError("; ".join(flaws)) from None
