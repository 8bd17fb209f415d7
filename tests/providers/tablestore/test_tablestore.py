"""The provider for Tablestore: the contract, start and stop, credentials, options and errors."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from tablestore import AsyncOTSClient, Condition, OTSClient, OTSServiceError, Row, RowExistenceExpectation
from tablestore.credentials import Credentials, CredentialsProvider

from providers.tablestore.support import connect_to, provider
from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.errors import STATUS
from servers.tablestore.signatures import Account
from servers.tablestore_client import async_client
from servers.tablestore_client import table as table_arguments
from session_history import SessionHistoryService, TablestoreSessionHistoryService, create_tablestore_client
from session_history.config.registry import open_provider
from session_history.errors import ConfigurationError, IncompatibleStore, MissingDriver, StoreReadOnly, Unavailable
from session_history.providers import tablestore
from session_history.providers.memory import MemoryProvider
from session_history.providers.tablestore import TablestoreOptions, TablestoreProvider, errors, keys, rows, table
from session_history.providers.tablestore import columns as col
from session_history.providers.tablestore.digests import IdDigests
from session_history.providers.tablestore.rows import ALWAYS, HeadRow
from session_history_hooks import Appended, Corrupt, Entry, LimitExceeded, Position, SessionKey, Shard, Snapshot
from session_history_hooks.testing import Connect, ProviderContract
from session_history_hooks.testing.restorable_logs import tombstone
from session_history_hooks.testing.subject import opened

KEY = SessionKey("u", "s")
SECRET = "a-secret-of-ours"


class TestTablestore(ProviderContract):
    @pytest.fixture
    def connect(self, server: TablestoreServer) -> Connect:
        server.apart = 0.003
        return connect_to(server)


def entry(number: int) -> Entry:
    return Entry(f"e{number}", b"payload", origin=f"o{number}")


# Start


async def test_starts_at_once_create_one_table(server: TablestoreServer, caplog: pytest.LogCaptureFixture) -> None:
    providers = [provider(server.endpoint) for _ in range(8)]
    await asyncio.gather(*(each.start() for each in providers))
    await asyncio.gather(*(each.append(KEY, entry(1), at=Position(0, 0)) for each in providers))
    assert "about a minute" in caplog.text
    async with async_client(server) as client:
        assert await client.list_table() == ("session_history",)
    for each in providers:
        await each.stop()


async def test_start_logs_that_it_waits_for_a_new_table(
    server: TablestoreServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LOG_INTERVAL", 0.2)
    server.ready_after = 0.8
    made = provider(server.endpoint)
    began = time.monotonic()
    await made.start()
    assert time.monotonic() - began > 0.7
    assert "still waiting" in caplog.text
    assert "OTSTableNotReady" in caplog.text
    await made.append(KEY, entry(1), at=Position(0, 0))
    await made.stop()


async def test_start_waits_for_a_new_table_that_is_not_described_yet(server: TablestoreServer) -> None:
    def not_described(api: str, _table: str) -> bool:
        return api == "DescribeTable" and server.count("CreateTable") == 1

    server.faults = Faults(kinds=("refused",), code="OTSObjectNotExist", when=not_described, times=3)
    async with SessionHistoryService(provider(server.endpoint)) as service:
        await service.create_session("u", "s")
    assert server.count("DescribeTable") == 5


async def test_start_with_a_table_that_never_becomes_ready_raises_unavailable(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "READY_TIMEOUT", 0.3)
    server.ready_after = 3600
    with pytest.raises(Unavailable, match="OTSTableNotReady"):
        await provider(server.endpoint).start()


async def test_start_without_create_requires_the_table(server: TablestoreServer) -> None:
    with pytest.raises(ConfigurationError, match=r"'session_history'.*create=True"):
        await provider(server.endpoint, create=False).start()
    async with async_client(server) as client:
        assert await client.list_table() == ()
    maker = provider(server.endpoint)
    await maker.start()
    await maker.stop()
    server.requests.clear()
    user = provider(server.endpoint, create=False)
    await user.start()
    assert server.count("CreateTable") == 0
    assert await user.health()
    await user.stop()


@pytest.mark.parametrize(
    "key", [[("u", "STRING"), ("s", "STRING")], [("u", "STRING"), ("s", "STRING"), ("q", "INTEGER")]]
)
async def test_start_with_a_foreign_table_raises_incompatible_store(
    server: TablestoreServer, key: list[tuple[str, str]]
) -> None:
    async with async_client(server) as client:
        await client.create_table(*table_arguments("session_history", *key))
        with pytest.raises(IncompatibleStore, match="session_history"):
            await provider(server.endpoint).start()
        assert await client.list_table() == ("session_history",)


async def test_start_with_a_table_without_index_raises_incompatible_store(server: TablestoreServer) -> None:
    async with async_client(server) as client:
        await client.create_table(*table_arguments("session_history", *table.KEY, defined=table.DEFINED))
    with pytest.raises(IncompatibleStore, match="session_history_recent"):
        await provider(server.endpoint).start()


async def test_providers_with_two_tables_share_nothing(server: TablestoreServer) -> None:
    one, other = provider(server.endpoint, table="one"), provider(server.endpoint, table="other")
    await asyncio.gather(one.start(), other.start())
    await one.append(KEY, entry(1), at=Position(0, 0))
    assert await other.read(KEY) is None
    assert (await other.list("u", limit=5)).heads == ()
    await asyncio.gather(one.stop(), other.stop())


async def test_table_that_is_created_again_has_another_incarnation(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    before = await made.store_info(shard=Shard(1, 2))
    assert (before.format, before.shard) == (1, Shard(1, 2))
    async with async_client(server) as client:
        await client.delete_secondary_index("session_history", "session_history_recent")
        await client.delete_table("session_history")
        other = provider(server.endpoint)
        await other.start()
        after = await made.store_info()
        assert after == await other.store_info()
        assert after.incarnation != before.incarnation
        assert after.shard is None
        await client.delete_row("session_history", Row(keys.STORE), None)
    again = await made.store_info(shard=Shard(0, 2))
    assert again.incarnation not in (before.incarnation, after.incarnation)
    assert await other.store_info() == replace(again, shard=Shard(0, 2))
    await asyncio.gather(made.stop(), other.stop())


async def test_store_of_a_newer_layout_is_not_started(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    await made.stop()
    for columns, error in (([(col.LAYOUT_VERSION, 2)], IncompatibleStore), ([(col.SHARD, 1)], Corrupt)):
        async with async_client(server) as client:
            await client.put_row("session_history", Row(keys.STORE, columns), None)
        with pytest.raises(error, match=r"the row of the store|identifies the store"):
            await made.start()


async def test_start_after_a_failed_start_succeeds(server: TablestoreServer) -> None:
    made = provider(server.endpoint, create=False)
    with pytest.raises(ConfigurationError):
        await made.start()
    assert not await made.health()
    with pytest.raises(Unavailable, match="never started"):
        await made.read(KEY)
    maker = provider(server.endpoint)
    await maker.start()
    await made.start()
    assert await made.health()
    await asyncio.gather(made.stop(), maker.stop())


# Stop, loops and processes


async def test_stop_finishes_a_running_append(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    server.delay = 0.2
    appending = asyncio.create_task(made.append(KEY, entry(1), at=Position(0, 0)))
    await asyncio.sleep(0.05)
    await made.stop()
    assert (await appending).position == Position(0, 1)


async def test_cancelled_append_writes_entry_and_head(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    server.delay = 0.1
    appending = asyncio.create_task(
        made.append(KEY, entry(1), at=Position(0, 0), snapshot=Snapshot(1, "o1", b"summary"))
    )
    await asyncio.sleep(0.05)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    await made.stop()
    server.delay = 0
    async with opened(connect_to(server)) as other:
        [head] = (await other.list("u", limit=5)).heads
    assert head.current_snapshot == Snapshot(1, "o1", b"summary")


def test_service_works_on_several_event_loops_in_turn(server: TablestoreServer) -> None:
    service = TablestoreSessionHistoryService(create_tablestore_client(server.endpoint, "inst", "ak", "sk"))

    async def say(text: str) -> int:
        async with service.turn("u", "s") as turn:
            turn.add({"role": "user", "content": text})
            return len(turn.history)

    asyncio.run(service.start())
    assert [asyncio.run(say(text)) for text in ("one", "two", "three")] == [0, 1, 2]
    asyncio.run(service.stop())
    asyncio.run(service.start())
    assert asyncio.run(say("four")) == 3
    asyncio.run(service.stop())


async def test_calls_after_a_fork_raise_unavailable(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    child = multiprocessing.get_context("fork").Process(target=forked, args=(made,))
    with (
        pytest.warns(DeprecationWarning, match="fork") if sys.version_info >= (3, 12) else pytest.MonkeyPatch.context()
    ):
        child.start()
    await asyncio.to_thread(child.join, 30)
    assert child.exitcode == 0
    await made.append(KEY, entry(1), at=Position(0, 0))
    await made.stop()


def forked(made: TablestoreProvider) -> None:
    async def tried() -> None:
        for call in (made.read(KEY), restarted(made)):
            with pytest.raises(Unavailable, match="fork"):
                await call
        os._exit(0)

    asyncio.run(tried())
    os._exit(3)


async def restarted(made: TablestoreProvider) -> None:
    await made.stop()
    await made.start()


def test_process_without_a_stop_ends_silently(server: TablestoreServer) -> None:
    program = f"""
import asyncio, logging
logging.disable(logging.CRITICAL)
from session_history import *
service = TablestoreSessionHistoryService(create_tablestore_client({server.endpoint!r}, "inst", "ak", "sk"))
asyncio.run(service.start())
asyncio.run(service.create_session("u", "s"))
"""
    command = [sys.executable, "-W", "error", "-W", "ignore::ImportWarning", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_start_with_a_client_of_another_loop_raises_configuration_error(server: TablestoreServer) -> None:
    client = async_client(server)
    await client.list_table()
    with pytest.raises(ConfigurationError, match="a client that nothing else uses"):
        await TablestoreProvider(client).start()
    await client.close()


# Credentials


@pytest.fixture
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TABLESTORE_", "ALIBABA_CLOUD_")):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_credentials")
class TestCredentials:
    @pytest.mark.parametrize("prefix", ["TABLESTORE", "ALIBABA_CLOUD"])
    async def test_credentials_come_from_the_environment(
        self, server: TablestoreServer, monkeypatch: pytest.MonkeyPatch, prefix: str
    ) -> None:
        monkeypatch.setenv(f"{prefix}_ACCESS_KEY_ID", "ak")
        monkeypatch.setenv(f"{prefix}_ACCESS_KEY_SECRET", "sk")
        async with SessionHistoryService.from_url(url_of(server)) as service:
            await service.create_session("u", "s")
        assert server.count("BatchWriteRow") >= 1

    async def test_missing_credentials_are_named(self, server: TablestoreServer) -> None:
        with pytest.raises(ConfigurationError, match="TABLESTORE_ACCESS_KEY_ID and TABLESTORE_ACCESS_KEY_SECRET"):
            SessionHistoryService.from_url(url_of(server))

    @pytest.mark.parametrize("given", [{"access_key_id": "ak"}, {"access_key_secret": SECRET}, {"sts_token": SECRET}])
    def test_half_of_an_access_key_is_refused(self, given: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="missing") as refusal:
            create_tablestore_client("https://inst.example.com", "inst", **given)
        assert SECRET not in str(refusal.value)

    def test_half_of_an_access_key_in_the_environment_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "of one pair")
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "ak")
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "sk")
        client = create_tablestore_client("https://inst.example.com", "inst")
        assert client.credentials_provider.get_credentials().get_access_key_id() == "ak"

    async def test_temporary_key_needs_its_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with TablestoreServer(security_token=SECRET) as server:
            monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "ak")
            monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "sk")
            with pytest.raises(ConfigurationError):
                await started(SessionHistoryService.from_url(url_of(server)))
            monkeypatch.setenv("TABLESTORE_SESSION_TOKEN", SECRET)
            await started(SessionHistoryService.from_url(url_of(server)))

    async def test_credentials_provider_is_asked_before_each_request(self) -> None:
        with TablestoreServer(security_token="first") as server:
            renewing = Renewing()
            client = create_tablestore_client(
                server.endpoint, "inst", credentials_provider=renewing, region="cn-hangzhou"
            )
            async with TablestoreSessionHistoryService(client) as service:
                await service.create_session("u", "one")
                server.account = Account("inst", "ak", "sk", "second")
                renewing.token = "second"
                await service.create_session("u", "two")
                assert len(await service.list_sessions("u")) == 2

    def test_credentials_provider_together_with_a_key_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="not both"):
            create_tablestore_client("https://i.example.com", "i", "ak", "sk", credentials_provider=Renewing())

    async def test_refused_credentials_are_not_shown(self, server: TablestoreServer) -> None:
        client = create_tablestore_client(server.endpoint, "inst", "ak", SECRET)
        with pytest.raises(ConfigurationError, match=r"credentials.*clock") as refusal:
            await TablestoreProvider(client).start()
        shown = repr(refusal.value) + repr(TablestoreProvider(client))
        assert SECRET not in shown
        assert refusal.value.__cause__ is None

    @pytest.mark.parametrize("url", [f"tablestore://ak:{SECRET}@i.example.com", f"tablestore://{SECRET}@i.example.com"])
    def test_credentials_in_a_url_are_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="credentials do not belong in a URL") as refusal:
            SessionHistoryService.from_url(url)
        assert SECRET not in str(refusal.value)

    @pytest.mark.parametrize("option", ["access_key_secret", "access_key_id", "sts_token"])
    def test_credentials_in_the_query_of_a_url_are_refused(self, option: str) -> None:
        with pytest.raises(ConfigurationError, match="unknown option") as refusal:
            SessionHistoryService.from_url(f"tablestore://i.cn-hangzhou.ots.aliyuncs.com?{option}={SECRET}")
        assert SECRET not in str(refusal.value)


class Renewing(CredentialsProvider):  # type: ignore[misc] # untyped
    token = "first"

    def get_credentials(self) -> Credentials:
        return Credentials("ak", "sk", self.token)


def url_of(server: TablestoreServer) -> str:
    return server.endpoint.replace("http", "tablestore") + "?instance=inst&tls=false"


async def started(service: SessionHistoryService) -> None:
    async with service:
        pass


# Options


@pytest.mark.usefixtures("_no_credentials")
class TestOptions:
    @pytest.fixture(autouse=True)
    def _credentials(self, monkeypatch: pytest.MonkeyPatch, _no_credentials: None) -> None:
        monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "ak")
        monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "sk")

    @pytest.mark.parametrize(
        "url", ["tablestore://", "tablestore:///x", "tablestore://i.example.com/table", "tablestore://i.example.com#x"]
    )
    def test_url_without_an_end_point_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="names no end point"):
            SessionHistoryService.from_url(url)

    def test_host_names_the_instance(self) -> None:
        options = TablestoreOptions(url="tablestore://my-inst.cn-hangzhou.ots.aliyuncs.com")
        assert options.instance_name == "my-inst"
        with pytest.raises(ConfigurationError, match="option instance"):
            open_provider("tablestore://ots.example.com", {})

    def test_options_reach_client_and_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []

        def client(*args: Any, **named: Any) -> str:
            given.append((args, named))
            return "the client"

        def provider(*args: Any, **named: Any) -> MemoryProvider:
            given.append((args, named))
            return MemoryProvider()

        monkeypatch.setattr(tablestore, "create_client", client)
        monkeypatch.setattr(tablestore, "TablestoreProvider", provider)
        options = {"instance": "i", "region": "r", "table": "t", "create": False, "timeout": 3}
        open_provider("tablestore://i.example.com", options)
        assert given == [
            (("https://i.example.com", "i"), {"region": "r"}),
            (("the client",), {"table": "t", "create": False, "timeout": 3}),
        ]

    def test_repr_shows_the_table(self) -> None:
        made = open_provider("tablestore://i.cn-hangzhou.ots.aliyuncs.com?table=t", {})
        assert repr(made) == "TablestoreProvider('t')"

    @pytest.mark.parametrize(
        "query", ["timeout=0", "timeout=inf", "timeout=x", "create=perhaps", "table=a-b", "nonsense=1"]
    )
    def test_invalid_option_is_named(self, query: str) -> None:
        with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
            SessionHistoryService.from_url(f"tablestore://i.cn-hangzhou.ots.aliyuncs.com?{query}")

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"table": "1st"}, "table"),
            ({"table": "t" * 250}, "table"),
            ({"timeout": 0}, "timeout"),
            ({"timeout": "1"}, "timeout"),
        ],
    )
    def test_invalid_argument_is_named(self, given: dict[str, Any], named: str) -> None:
        client = create_tablestore_client("https://i.example.com", "i")
        with pytest.raises(ConfigurationError, match=named):
            TablestoreSessionHistoryService(client, **given)

    @pytest.mark.parametrize("client", [None, "https://i.example.com", OTSClient("http://x", "a", "b", "c")])
    def test_client_of_another_class_is_refused(self, client: object) -> None:
        with pytest.raises(ConfigurationError, match="must be an AsyncOTSClient"):
            TablestoreSessionHistoryService(client)

    @pytest.mark.parametrize("end_point", ["", "i.example.com", None])
    def test_invalid_end_point_is_refused(self, end_point: Any) -> None:
        with pytest.raises(ConfigurationError, match="end_point"):
            create_tablestore_client(end_point, "i")

    def test_create_client_passes_options_to_the_sdk(self) -> None:
        client = create_tablestore_client("https://i.example.com", "i", max_connection=7)
        assert type(client) is AsyncOTSClient
        assert client.max_connection == 7


def test_missing_sdk_raises_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tablestore" or "providers.tablestore" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tablestore", None)
    for attempt in (
        lambda: create_tablestore_client("https://i.example.com", "i"),
        lambda: TablestoreSessionHistoryService(None),
        lambda: SessionHistoryService.from_url("tablestore://i.example.com"),
    ):
        with pytest.raises(MissingDriver, match=r"session-history\[tablestore\]"):
            attempt()


# Errors


async def test_calls_without_a_server_raise_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with TablestoreServer() as server:
        made = provider(server.endpoint)
        await made.start()
    assert not await made.health()
    monkeypatch.setattr(table, "RETRY_TIMEOUT", 0.3)
    calls = [
        made.read(KEY),
        made.append(KEY, entry(1), at=Position(0, 0)),
        made.renew(KEY, at=Position(0, 1)),
        made.rewrite(KEY, entry(1), at=Position(0, 1), rewrite_id="r", last_rewrite_id="", snapshot=None),
        made.list("u", limit=1),
        made.delete(KEY),
        made.delete_user("u"),
        made.store_info(),
        made.list_users(limit=1),
        made.list_tombstones("u", limit=1),
        made.restore(tombstone(1)),
    ]
    for call in calls:
        with pytest.raises(Unavailable, match="no success within"):
            await call
    await made.stop()


async def test_append_behind_slow_appends_raises_unavailable_in_time(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = provider(server.endpoint)
    await made.start()
    monkeypatch.setattr(table, "RETRY_TIMEOUT", 0.2)
    server.faults = Faults(kinds=("delay",), delay=0.6)
    rivals = [asyncio.create_task(made.append(KEY, entry(number), at=Position(0, 0))) for number in range(1, 5)]
    outcomes = await asyncio.gather(*rivals, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Appended, Unavailable, Unavailable, Unavailable]
    assert "earlier calls" in str(outcomes[1])
    server.faults = None
    await made.stop()


@pytest.mark.parametrize("code", ["OTSTimeout", "OTSRequestTimeout", "OTSServerBusy"])
async def test_request_is_repeated_after_a_transient_error(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setitem(STATUS, code, 400)  # so that only the code says that the error is transient
    async with SessionHistoryService(provider(server.endpoint)) as service:
        server.faults = Faults(kinds=("refused",), code=code, times=1)
        await service.create_session("u", "s")
        assert server.faults.injected == 1


async def test_calls_after_the_table_was_dropped_name_it(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    async with async_client(server) as client:
        await client.delete_secondary_index("session_history", "session_history_recent")
        await client.delete_table("session_history")
    for call in (made.read(KEY), made.append(KEY, entry(1), at=Position(0, 0))):
        with pytest.raises(Unavailable, match="table"):
            await call
    await made.stop()


async def test_read_waits_until_connections_last_again() -> None:
    with TablestoreServer() as server:
        made = provider(server.endpoint)
        await made.start()
        await made.append(KEY, entry(1), at=Position(0, 0))
        server.faults = Faults(kinds=("drop before",))
        reading = asyncio.create_task(made.read(KEY))
        await asyncio.sleep(0.2)
        server.faults = None
        log = await reading
        assert log is not None
        assert log.head.tail == Position(0, 1)
        await made.stop()


async def test_request_without_an_answer_is_repeated_after_the_timeout(server: TablestoreServer) -> None:
    made = provider(server.endpoint, timeout=0.2)
    await made.start()
    server.faults = Faults(kinds=("delay",), delay=5, times=1)
    began = time.monotonic()
    assert (await made.append(KEY, entry(1), at=Position(0, 0))).position == Position(0, 1)
    assert time.monotonic() - began < 2
    await made.stop()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("OTSNoPermissionAccess", StoreReadOnly),
        ("OTSAuthFailed", ConfigurationError),
        ("OTSParameterInvalid", Unavailable),
    ],
)
def test_error_of_the_service_becomes_one_of_the_contract(code: str, expected: type[Exception]) -> None:
    error = errors.translate(OTSServiceError(403, code, SECRET, "request-1"), "t", 10)
    assert type(error) is expected
    assert f"{code}, request request-1" in str(error)
    assert SECRET not in str(error)


async def test_session_with_an_unreadable_head_is_corrupt_and_can_be_deleted(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    await made.append(KEY, entry(1), at=Position(0, 0))
    await overwrite_head(server, [(col.LAYOUT_VERSION, 1), (col.GENERATION, 0), (col.RECENCY, -5), (col.SEQ, 1)])
    for call in (made.read(KEY), made.append(KEY, entry(2), at=Position(0, 5))):
        with pytest.raises(Corrupt, match="unreadable"):
            await call
    assert await made.delete(KEY)
    log = await made.read(KEY)
    assert log is not None
    assert (log.head.deleted, log.head.tail) == (True, Position(0, 0))
    assert (await made.append(KEY, entry(1), at=Position(1, 0))).position == Position(1, 1)
    await made.stop()


async def test_session_without_one_of_its_entries_is_corrupt(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    for number in range(1, 4):
        await made.append(KEY, entry(number), at=Position(0, number - 1))
    async with async_client(server) as client:
        await client.delete_row("session_history", Row(keys.primary_key(KEY, 2)))
    with pytest.raises(Corrupt, match="lacks"):
        await made.read(KEY)
    log = await made.read(KEY, last=1)
    assert log is not None
    assert log.head.tail == Position(0, 3)
    assert await made.delete(KEY)
    await made.stop()


async def test_session_of_a_newer_layout_raises_incompatible_store(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    await made.append(KEY, entry(1), at=Position(0, 0))
    await overwrite_head(server, [(col.LAYOUT_VERSION, 2), (col.GENERATION, 0)])
    with pytest.raises(IncompatibleStore, match="version 2"):
        await made.read(KEY)
    with pytest.raises(IncompatibleStore):
        await made.delete(KEY)
    await made.stop()


async def test_append_after_the_last_generation_raises_limit_exceeded(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    for generation in (2**31 - 3, 2**31 - 2):
        await overwrite_head(server, tombstone_columns(generation))
        if generation == 2**31 - 3:
            assert (await made.append(KEY, entry(1), at=Position(generation + 1, 0))).position.seq == 1
        else:
            with pytest.raises(LimitExceeded, match="generations"):
                await made.append(KEY, entry(1), at=Position(generation + 1, 0))
    await made.stop()


def tombstone_columns(generation: int) -> list[tuple[str, Any]]:
    head = replace(tombstone(generation), key=KEY)
    columns: list[tuple[str, Any]] = rows.put_head(HeadRow(head, IdDigests(), generation), ALWAYS).row.attribute_columns
    return columns


async def overwrite_head(server: TablestoreServer, columns: list[tuple[str, Any]]) -> None:
    row = Row(keys.primary_key(KEY, keys.HEAD_NUMBER), columns)
    async with async_client(server) as client:
        await client.put_row("session_history", row, Condition(RowExistenceExpectation.IGNORE))


async def test_logs_show_no_content(server: TablestoreServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = provider(server.endpoint)
    await made.start()
    server.faults = Faults(share=0.5, seed=1)
    for number in range(1, 21):
        await made.append(
            KEY,
            replace(entry(number), payload=SECRET.encode()),
            at=Position(0, number - 1),
            snapshot=Snapshot(number, f"o{number}", SECRET.encode()),
        )
    await made.stop()
    assert SECRET not in caplog.text
    server.faults = None


async def test_logger_with_a_level_of_the_user_keeps_it(
    server: TablestoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = logging.getLogger("chosen")
    chosen.setLevel(logging.DEBUG)
    made = TablestoreProvider(create_tablestore_client(server.endpoint, "inst", "ak", "sk", logger_name="chosen"))
    await made.start()
    await made.stop()
    assert "DescribeTable" in caplog.text
