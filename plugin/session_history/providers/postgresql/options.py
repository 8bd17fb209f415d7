"""The options that a URL or a runtime config can set."""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import ConfigDict, Field, model_validator

from session_history_hooks import ProviderOptions


class PostgresqlOptions(ProviderOptions):
    """``postgresql://user:password@host:port/database``, then ``?option=value``.

    :class:`~session_history.providers.postgresql.PostgresqlProvider` explains the first options. The others are
    settings of libpq.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(coerce_numbers_to_str=True)  # TOML has numbers.

    schema_: str | None = Field(default=None, alias="schema")  # pydantic has a "schema" of its own.
    pool_size: int = Field(default=10, ge=1)
    timeout: float = Field(default=10.0, gt=0)
    statement_cache: bool = True
    migrate: bool = True
    durability: Literal["disk", "host"] = "disk"

    host: str | None = None
    port: str | None = None
    dbname: str | None = None
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    passfile: str | None = None
    service: str | None = None
    sslmode: str | None = None
    sslnegotiation: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: str | None = Field(default=None, repr=False)
    sslrootcert: str | None = None
    sslcrl: str | None = None
    ssl_min_protocol_version: str | None = None
    ssl_max_protocol_version: str | None = None
    target_session_attrs: str | None = None
    krbsrvname: str | None = None
    gsslib: str | None = None
    application_name: str | None = None
    options: str | None = None
    connect_timeout: str | None = None
    channel_binding: str | None = None
    client_encoding: str | None = None
    gssencmode: str | None = None
    sslcompression: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_ssl(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "ssl" in values:  # The suggestion of a similar name would be a setting for a file.
            raise ValueError("ssl is not a setting of libpq: write sslmode=require, or sslmode=verify-full")
        return values

    @property
    def target(self) -> str:
        """The URL with the settings of libpq."""
        own = {"url", "schema_", "pool_size", "timeout", "statement_cache", "migrate", "durability"}
        settings = self.model_dump(exclude=own, exclude_none=True)
        return f"{self.url}?{urlencode(settings)}" if settings else self.url
