"""Services on the stores that come with the package, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypedDict

from typing_extensions import Unpack

from session_history.errors import MissingDriver
from session_history.service import SessionHistoryService


class PostgresqlArguments(TypedDict, total=False):
    """Options of :class:`PostgresqlSessionHistoryService`."""

    schema: str | None
    pool_size: int
    timeout: float
    statement_cache: bool
    migrate: bool
    durability: Literal["disk", "host"]


class RedisArguments(TypedDict, total=False):
    """Options of :class:`RedisSessionHistoryService`."""

    prefix: str
    timeout: float
    ttl: int | None
    durability: Literal["process", "host", "disk"]
    wait_replicas: int
    wait_timeout: float | None
    max_connections: int
    ssl_ca_certs: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_cert_reqs: Literal["required", "none"] | None


class InMemorySessionHistoryService(SessionHistoryService):
    """Keeps conversations in memory; they are gone with the process."""

    def __init__(self) -> None:
        from session_history.providers.memory import MemoryProvider  # noqa: PLC0415 - only what is used is loaded

        super().__init__(MemoryProvider())


class SqliteSessionHistoryService(SessionHistoryService):
    """Keeps conversations in one SQLite file, for any number of processes on one host.

    :param path: the file; it is made on start, its folder is not.
    :param synchronous: ``"FULL"`` = what was acknowledged survives a power cut; ``"NORMAL"`` = it survives the
        death of the process, and commits need no fsync.
    :param busy_timeout: seconds to wait for other processes before the store counts as unavailable.
    :param access: the users of this host that may read a new file: its ``"owner"``, or the ``"group"``, too.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 10.0,
        access: Literal["owner", "group"] = "owner",
    ) -> None:
        from session_history.providers.sqlite import SqliteProvider  # noqa: PLC0415 - only what is used is loaded

        super().__init__(SqliteProvider(path, synchronous=synchronous, busy_timeout=busy_timeout, access=access))


class PostgresqlSessionHistoryService(SessionHistoryService):
    """Keeps conversations in PostgreSQL, for any number of processes and hosts.

    :param url: ``postgresql://user@host/database``, as libpq takes it.
    :param options: those of the store, see the page PostgreSQL.
    :raises ConfigurationError: the URL, or the value of an option, does not fit.
    :raises TypeError: there is no such option.
    :raises MissingDriver: asyncpg is not installed.
    """

    def __init__(self, url: str, **options: Unpack[PostgresqlArguments]) -> None:
        with _driver("postgresql"):
            from session_history.providers.postgresql import PostgresqlProvider  # noqa: PLC0415 - as above

        super().__init__(PostgresqlProvider(url, **options))


class RedisSessionHistoryService(SessionHistoryService):
    """Keeps conversations in Redis or Valkey, single or as a cluster, for any number of processes and hosts.

    :param url: ``redis://host:port/0``, or ``redis+cluster://host:port``.
    :param options: those of the store, see the page Redis and Valkey.
    :raises ConfigurationError: the URL, or the value of an option, does not fit.
    :raises TypeError: there is no such option.
    :raises MissingDriver: redis-py is not installed.
    """

    def __init__(self, url: str, **options: Unpack[RedisArguments]) -> None:
        with _driver("redis"):
            from session_history.providers.redis import RedisProvider  # noqa: PLC0415 - as above

        super().__init__(RedisProvider(url, **options))


class TablestoreSessionHistoryService(SessionHistoryService):
    """Keeps conversations in Aliyun Tablestore, for any number of processes and hosts.

    :param tablestore_client: see :func:`create_tablestore_client`. The service owns it from now on.
    :param table: the name of the table. It takes about a minute to make one.
    :param create: whether a table that is missing is made on start.
    :param timeout: seconds that a request may take; a call goes on trying for 30 seconds.
    """

    def __init__(
        self,
        tablestore_client: Any,
        *,
        table: str = "session_history",
        create: bool = True,
        timeout: float = 10.0,
    ) -> None:
        with _driver("tablestore"):
            from session_history.providers.tablestore import TablestoreProvider  # noqa: PLC0415 - as above

        super().__init__(TablestoreProvider(tablestore_client, table=table, create=create, timeout=timeout))


def create_tablestore_client(
    end_point: str,
    instance_name: str,
    access_key_id: str | None = None,
    access_key_secret: str | None = None,
    *,
    sts_token: str | None = None,
    credentials_provider: Any = None,
    region: str | None = None,
    **options: Any,
) -> Any:
    """Return a client for :class:`TablestoreSessionHistoryService`, made without I/O: an ``AsyncOTSClient`` of the SDK.

    :param end_point: ``https://instance.region.ots.aliyuncs.com``.
    :param access_key_id: without key and provider they come from the environment: ``TABLESTORE_ACCESS_KEY_ID`` and
        ``TABLESTORE_ACCESS_KEY_SECRET`` (and ``TABLESTORE_SESSION_TOKEN``), or ``ALIBABA_CLOUD_ACCESS_KEY_ID`` and
        ``ALIBABA_CLOUD_ACCESS_KEY_SECRET`` (and ``ALIBABA_CLOUD_SECURITY_TOKEN``).
    :param sts_token: of a temporary key.
    :param credentials_provider: a ``tablestore.credentials.CredentialsProvider``, asked before each request.
    :param region: signs requests with version 4 for this region, instead of version 2.
    :param options: more of ``AsyncOTSClient``: ``max_connection``, ``socket_timeout``, ``extra_headers`` …
    :raises ConfigurationError: an argument is missing or unfit, or there are no credentials.
    """
    with _driver("tablestore"):
        from session_history.providers.tablestore import create_client  # noqa: PLC0415 - as above

    return create_client(
        end_point,
        instance_name,
        access_key_id,
        access_key_secret,
        sts_token=sts_token,
        credentials_provider=credentials_provider,
        region=region,
        **options,
    )


@contextmanager
def _driver(extra: str) -> Iterator[None]:
    """Turn a missing driver of a store into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        remedy = f"pip install 'session-history[{extra}]'"
        raise MissingDriver(f"the module {error.name!r} is missing: {remedy}", name=error.name) from error
