"""An HTTP server on loopback, with a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from aiohttp import web

from . import limits
from .errors import Refused, internal_error
from .faults import Faults, Kind
from .service import RowFault, Service, Settings, error_body, table_names
from .signatures import Account, md5, response_headers, signing_key
from .tables import Table

T = TypeVar("T")


@dataclass(frozen=True)
class Exchange:
    """An authenticated request.

    :ivar key: signs the response.
    """

    api: str
    body: bytes
    key: bytes


class TablestoreServer(Settings):
    """One instance of Tablestore on 127.0.0.1, for clients in any thread, loop or process.

    A test may change these and the attributes of :class:`Settings` at any time.

    :ivar faults: requests that fail.
    :ivar delay: the seconds that each request waits.
    :ivar rate: the most requests within a second of the clock. The server throttles others.
    :ivar requests: API and table of each request. The names of several tables are joined with a comma.
    """

    def __init__(
        self,
        instance: str = "inst",
        access_key_id: str = "ak",
        access_key_secret: str = "sk",
        *,
        security_token: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__()
        self.account = Account(instance, access_key_id, access_key_secret, security_token)
        self.faults: Faults | None = None
        self.delay = 0.0
        self.rate: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.endpoint = ""
        self._port = port
        self._service = Service(self)
        self._second = (0, 0)
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tablestore-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server.

        :raises Exception: the server itself failed in a request. A client may have taken this for an injected fault.
        """
        self._stop()
        if self._failure and error is None:
            raise self._failure

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def count(self, api: str) -> int:
        return sum(name == api for name, _ in self.requests)

    @property
    def units(self) -> Counter[str]:
        """The capacity units of all requests so far: ``read`` and ``write``."""
        return self._service.units.copy()

    def sizes(self, table: str) -> tuple[int, int]:
        """Return the bytes of the rows of a table, and of its indexes; zeros if the table is missing."""

        async def sizes() -> tuple[int, int]:
            return self._service.sizes(table)

        return self._run(sizes())

    def copy(self, table: str) -> Table:
        """Return a copy of a table with its rows, for :meth:`paste`."""

        async def copy() -> Table:
            return self._service.copy(table)

        return self._run(copy())

    def paste(self, table: Table) -> None:
        """Put a copy of a table in the place of the table of its name."""

        async def paste() -> None:
            self._service.paste(table)

        self._run(paste())

    def _stop(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> None:
        app = web.Application(client_max_size=0)  # a body that is too large gets an error of the protocol
        app.router.add_route("*", "/{api}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        _, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://127.0.0.1:{port}"

    async def _end(self) -> None:
        await self._runner.cleanup()
        waiting = asyncio.all_tasks() - {asyncio.current_task()}  # for a delay, or for a client that left
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid4())
        sent = await request.read()
        try:
            exchange = self._authenticated(request, sent)
            body = await self._answer(exchange, request)
        except Refused as refused:
            body = error_body(refused)
            headers = {"x-ots-requestid": request_id, "x-ots-contentmd5": md5(body)}
            return web.Response(status=refused.status, body=body, headers=headers)
        except Exception as error:
            self._failure = error
            raise
        return web.Response(
            body=body, headers=response_headers(self.account, exchange.key, request.path, body, request_id)
        )

    def _authenticated(self, request: web.Request, body: bytes) -> Exchange:
        if request.method != "POST":
            raise Refused("OTSMethodNotAllowed", "Only POST method for requests is supported.")
        if len(body) > limits.BODY:
            raise Refused("OTSRequestBodySizeExceed", "The size of message body exceeds the upper limit.")
        key = signing_key(self.account, request.path, request.headers, body)
        return Exchange(request.match_info["api"], body, key)

    async def _answer(self, exchange: Exchange, request: web.Request) -> bytes:
        parsed = self._service.parsed(exchange.api, exchange.body)
        table = ",".join(table_names(parsed))
        self.requests.append((exchange.api, table))
        if self.delay:
            await asyncio.sleep(self.delay)
        self._throttle()
        faults = self.faults or Faults(kinds=())
        fault = faults.next(exchange.api, table)
        if fault == "delay":
            await asyncio.sleep(faults.delay)
        if fault == "refused":
            raise Refused(faults.code, "Refused on purpose.")
        _fail(fault, "before", request)
        answer = await self._service.answer(exchange.api, parsed, _row_fault(faults, fault, parsed))
        _fail(fault, "after", request)
        return answer

    def _throttle(self) -> None:
        second = int(self.clock())
        self._second = (second, self._second[1] + 1 if self._second[0] == second else 1)
        if self.rate is not None and self._second[1] > self.rate:
            raise Refused("OTSServerBusy", "Server is busy.")


def _fail(fault: Kind | None, at: str, request: web.Request) -> None:
    if fault == at:
        raise internal_error()
    if fault == f"drop {at}":
        if request.transport is not None:  # None if the client closed it first
            request.transport.abort()
        raise asyncio.CancelledError


def _row_fault(faults: Faults, fault: Kind | None, request: Any) -> RowFault | None:
    if fault is None or not fault.startswith("row"):
        return None
    rows = sum(len(table.rows) for table in request.tables)
    return RowFault(faults.row_of(rows), after=fault == "row after")
