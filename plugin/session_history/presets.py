"""The services whose stores come with the package, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from session_history.errors import MissingDriver
from session_history.service import SessionHistoryService


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
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 10.0,
    ) -> None:
        from session_history.providers.sqlite import SqliteProvider  # noqa: PLC0415 - only what is used is loaded

        super().__init__(SqliteProvider(path, synchronous=synchronous, busy_timeout=busy_timeout))


class TablestoreSessionHistoryService(SessionHistoryService):
    """Keeps conversations in Aliyun Tablestore, for any number of processes and hosts.

    :param tablestore_client: see :func:`create_tablestore_client`; nobody else may use it.
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
    """A client for :class:`TablestoreSessionHistoryService`, made without I/O: an ``AsyncOTSClient`` of the SDK.

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
    """Say what to install, if the driver of a store is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        remedy = f"pip install 'session-history[{extra}]'"
        raise MissingDriver(f"the module {error.name!r} is missing: {remedy}", name=error.name) from error
