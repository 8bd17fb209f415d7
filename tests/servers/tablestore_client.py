"""What the tests on tests/servers/tablestore share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tablestore import (
    AsyncOTSClient,
    BatchGetRowRequest,
    BatchWriteRowRequest,
    BatchWriteRowResponse,
    CapacityUnit,
    OTSClient,
    OTSServiceError,
    PutRowItem,
    ReservedThroughput,
    Row,
    TableInBatchGetRowItem,
    TableInBatchWriteRowItem,
    TableMeta,
    TableOptions,
)
from tablestore.auth import RequestContext
from tablestore.retry import NoRetryPolicy

from servers.tablestore import TablestoreServer

Key = list[tuple[str, Any]]


class Threaded:
    """The sync client with the methods of the async one."""

    def __init__(self, client: OTSClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*args: Any, **named: Any) -> Any:
            return await asyncio.to_thread(method, *args, **named)

        return call

    async def close(self) -> None:
        self._client.connection.pool.clear()


def sync_client(server: TablestoreServer, **options: Any) -> OTSClient:
    given = {"retry_policy": NoRetryPolicy(), "access_key_id": "ak", "access_key_secret": "sk", "instance_name": "inst"}
    return OTSClient(server.endpoint, **{**given, **options})


def async_client(server: TablestoreServer, **options: Any) -> AsyncOTSClient:
    given = {"retry_policy": NoRetryPolicy(), "access_key_id": "ak", "access_key_secret": "sk", "instance_name": "inst"}
    return AsyncOTSClient(server.endpoint, **{**given, **options})


def table(name: str, *key: tuple[str, ...], defined: Sequence[tuple[str, str]] = (), **options: Any) -> tuple[Any, ...]:
    """The arguments of create_table."""
    throughput = ReservedThroughput(CapacityUnit(0, 0))
    return TableMeta(name, list(key), list(defined)), TableOptions(**options), throughput


def batch(table_name: str, items: Iterable[Any]) -> BatchWriteRowRequest:
    request = BatchWriteRowRequest()
    request.add(TableInBatchWriteRowItem(table_name, list(items)))
    return request


def puts(keys: Iterable[Key], *columns: tuple[Any, ...]) -> list[PutRowItem]:
    return [PutRowItem(Row(key, list(columns)), None) for key in keys]


def batch_of_keys(table_name: str, keys: list[Key], **options: Any) -> BatchGetRowRequest:
    request = BatchGetRowRequest()
    request.add(TableInBatchGetRowItem(table_name, keys, **{"max_version": 1, **options}))
    return request


def failures(response: BatchWriteRowResponse) -> list[tuple[int, str]]:
    """Number and error code of the rows that failed, of puts only."""
    return [(item.index, item.error_code) for item in response.get_put()[1]]


def sent(client: OTSClient, api: str, body: bytes, **headers: str) -> bytes:
    """
    What the server answers to a body that the SDK signs, but did not make; headers replace those it signed.

    :raises OTSServiceError: it refuses.
    """
    context = RequestContext(client.credentials_provider.get_credentials())
    path = f"/{api}"
    own = client.protocol._make_request_headers(body, path, client._signer, context)
    own.update({name.replace("_", "-"): value for name, value in headers.items()})
    status, reason, answered, answer = client.connection.send_receive(path, own, body)
    client.protocol.handle_error(api, path, status, reason, answered, answer, client._signer, context)
    return bytes(answer)


def code_of(error: OTSServiceError) -> tuple[int, str]:
    return error.get_http_status(), error.get_error_code()
