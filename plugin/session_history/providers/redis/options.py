"""Options of the provider, and the parts of its URL."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import Field, field_validator, model_validator
from redis.asyncio.connection import Connection, SSLConnection

from session_history_hooks import Durability, ProviderOptions

PLAIN = ("redis", "valkey")
TLS = ("rediss", "valkeys")
CLUSTER = "+cluster"
SCHEMES = (*PLAIN, *TLS, *(scheme + CLUSTER for scheme in PLAIN + TLS))

PORT = 6379

MAX_TTL = 100 * 366 * 86_400
"""Seconds in a hundred years."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a URL.

    :ivar addresses: of one server, or of several of a cluster.
    """

    tls: bool
    cluster: bool
    addresses: tuple[Address, ...]
    database: int
    username: str | None
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """:raises ValueError: the URL is not valid. The error does not repeat it."""
        scheme, _, rest = url.partition("://")
        login, at, place = rest.rpartition("@")
        if "?" in place:
            raise ValueError("options in a URL are for from_url: give them as arguments")
        hosts, _, path = place.partition("/")
        username, colon, password = login.partition(":")
        return cls(
            tls=scheme.removesuffix(CLUSTER) in TLS,
            cluster=scheme.endswith(CLUSTER),
            addresses=tuple(_address(host) for host in hosts.split(",")),
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
        raise ValueError("the URL has no host: write redis://localhost:6379/0")
    return Address(host, _number("port", port, 2**16))


def _number(what: str, text: str, end: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < end):
        raise ValueError(f"the {what} in the URL must be a number below {end}")
    return int(text)


class RedisOptions(ProviderOptions):
    """``redis://[user[:password]@]host[:port][/database]``; ``rediss`` for TLS. Also ``valkey`` and ``valkeys``.

    ``redis+cluster://host[:port][,host[:port]…]`` is a cluster: any of its servers, at least one of which answers. User
    and password are percent-encoded. See :class:`~session_history.providers.redis.RedisProvider` for the options.
    """

    prefix: str = Field(default="sh", min_length=1, max_length=64)
    timeout: Seconds = 5.0
    ttl: int | None = Field(default=None, ge=1, le=MAX_TTL)
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
    def _check_url(cls, url: str) -> str:
        RedisUrl.parse(url)
        return url

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if set(prefix) & set("{}\0"):
            raise ValueError("must have no braces and no NUL")
        return prefix

    @model_validator(mode="after")
    def _check_combination(self) -> RedisOptions:
        parts = self.parts
        if parts.cluster and parts.database:
            raise ValueError("a cluster has only database 0")
        if len(parts.addresses) > 1 and not parts.cluster:
            raise ValueError("several hosts are a cluster: write redis+cluster://")
        if not parts.tls and self.model_fields_set & {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"}:
            raise ValueError("options of TLS require the scheme rediss, valkeys or rediss+cluster")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("ssl_keyfile requires ssl_certfile: set ssl_certfile, too")
        if not self.wait_replicas and "wait_timeout" in self.model_fields_set:
            raise ValueError("wait_timeout requires wait_replicas: set both, or neither")
        if self.wait_replicas and self.wait_timeout >= self.timeout:
            raise ValueError("wait_timeout must be shorter than timeout")
        return self

    @cached_property
    def parts(self) -> RedisUrl:
        """The parts of the URL."""
        return RedisUrl.parse(self.url)

    @property
    def redacted_url(self) -> str:
        """The URL without user and password."""
        scheme = self.url.partition("://")[0]
        path = f"/{self.parts.database}" if not self.parts.cluster else ""
        return f"{scheme}://{','.join(map(str, self.parts.addresses))}{path}"

    @property
    def plain_scheme(self) -> str:
        """The scheme for the same store without TLS."""
        scheme = self.url.partition("://")[0]
        name = scheme.removesuffix(CLUSTER)
        return dict(zip(TLS, PLAIN, strict=True)).get(name, name) + scheme.removeprefix(name)

    @property
    def wait_ms(self) -> int:
        return math.ceil(self.wait_timeout * 1000)

    def connection(self, address: Address) -> Connection:
        """Return a connection that opens at its first use.

        It never retries and has no timeout: the client does both for a whole call.
        """
        kind = Connection
        settings: dict[str, Any] = {}
        if self.parts.tls:
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
            db=self.parts.database,
            username=self.parts.username,
            password=self.parts.password,
            protocol=3,
            socket_timeout=None,
            socket_connect_timeout=None,
            **settings,
        )
