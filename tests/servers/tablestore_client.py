"""Clients of the SDK for tests on tests/servers/tablestore, and short forms of its requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest.mock import patch

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
from tablestore.encoder import NativeEncodedBytes
from tablestore.retry import NoRetryPolicy

from servers.tablestore import TablestoreServer

Key = list[tuple[str, Any]]

CREDENTIALS: dict[str, Any] = {
    "retry_policy": NoRetryPolicy(), "access_key_id": "ak", "access_key_secret": "sk", "instance_name": "inst"
}  # fmt: skip


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
    return OTSClient(server.endpoint, **{**CREDENTIALS, **options})


def async_client(server: TablestoreServer, **options: Any) -> AsyncOTSClient:
    return AsyncOTSClient(server.endpoint, **{**CREDENTIALS, **options})


def table(name: str, *key: tuple[str, ...], defined: Sequence[tuple[str, str]] = (), **options: Any) -> tuple[Any, ...]:
    """Return the arguments of create_table."""
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
    """Return number and error code of the puts that failed."""
    return [(item.index, item.error_code) for item in response.get_put()[1]]


def send(client: OTSClient, api: str, body: bytes, **headers: str) -> bytes:
    """Return the server's answer to a body that the SDK did not encode, but signs.

    :param headers: replace the headers that were signed.
    :raises OTSServiceError: the server refuses the request.
    """
    protocol = client.protocol
    make_request = protocol.make_request

    def tampered_request(_list_table: str, signer: Any, context: Any) -> tuple[str, dict[str, str], bytes]:
        path, signed, encoded = make_request(api, signer, context)
        return path, {**signed, **headers}, encoded

    with (
        patch.object(protocol.encoder, "encode_request", lambda _api: NativeEncodedBytes(body)),
        patch.object(protocol, "make_request", tampered_request),
        patch.object(protocol, "parse_response", lambda *answer: bytes(answer[-1])),
    ):
        answer: bytes = client.list_table()
    return answer


def code_of(error: OTSServiceError) -> tuple[int, str]:
    return error.get_http_status(), error.get_error_code()
