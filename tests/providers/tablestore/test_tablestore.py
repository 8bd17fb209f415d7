"""The provider for Tablestore: the contract, starts and stops, credentials, options and errors."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from tablestore import AsyncOTSClient, OTSClient
from tablestore.credentials import Credentials, CredentialsProvider

from providers.tablestore.support import connect_to, provider
from servers.tablestore import Faults, TablestoreServer
from servers.tablestore.errors import STATUS, Refused
from servers.tablestore_client import async_client
from servers.tablestore_client import table as table_arguments
from session_history import SessionHistoryService, TablestoreSessionHistoryService, create_tablestore_client
from session_history.config.registry import open_provider
from session_history.errors import ConfigurationError, IncompatibleStore, MissingDriver, StoreReadOnly, Unavailable
from session_history.providers.tablestore import TablestoreProvider, errors, heads, table
from session_history_hooks import Appended, Corrupt, Entry, LimitExceeded, Position, SessionKey, Snapshot
from session_history_hooks.testing import Connect, ProviderContract, provider_machine

KEY = SessionKey("u", "s")
SECRET = "a-secret-of-ours"


@pytest.fixture
def server() -> Iterator[TablestoreServer]:
    with TablestoreServer() as server:
        yield server


class TestTablestore(ProviderContract):
    @pytest.fixture
    def connect(self, server: TablestoreServer) -> Connect:
        server.apart = 0.003
        return connect_to(server)


class TestTablestoreInSmallPages(ProviderContract):
    """Each page of a range holds two rows, as if rows were large."""

    @pytest.fixture
    def connect(self, server: TablestoreServer) -> Connect:
        server.scan_limit = 2
        return connect_to(server)

    # These are about a thousand rows, and as much as fits.
    test_read_without_last_returns_at_most_a_page = None  # type: ignore[assignment]
    test_listing_page_holds_at_most_the_claimed_number = None  # type: ignore[assignment]
    test_append_of_the_largest_entry_and_summary_is_stored = None  # type: ignore[assignment]


def new_tablestore() -> Connect:
    server = TablestoreServer().__enter__()
    connect = connect_to(server)
    weakref.finalize(connect, server.__exit__, None, None, None)
    return connect


TestTablestoreAtRandom = provider_machine(new_tablestore).TestCase
TestTablestoreAtRandom.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def entry(number: int) -> Entry:
    return Entry(f"e{number}", b"payload")


# Start


async def test_it_makes_its_table_once(server: TablestoreServer, caplog: pytest.LogCaptureFixture) -> None:
    providers = [provider(server.endpoint) for _ in range(8)]
    await asyncio.gather(*(each.start() for each in providers))
    await asyncio.gather(*(each.append(KEY, entry(1), at=Position(0, 0)) for each in providers))
    assert "about a minute" in caplog.text
    async with async_client(server) as client:
        assert await client.list_table() == ("session_history",)
    for each in providers:
        await each.stop()


async def test_it_waits_for_its_table_and_says_so(
    server: TablestoreServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "TELL_EVERY", 0.2)
    server.ready_after = 0.8
    made = provider(server.endpoint)
    began = time.monotonic()
    await made.start()
    assert time.monotonic() - began > 0.7
    assert "still waiting" in caplog.text
    assert "OTSTableNotReady" in caplog.text
    await made.append(KEY, entry(1), at=Position(0, 0))
    await made.stop()


async def test_it_waits_for_a_table_that_is_not_described_yet(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, real = server._service._calls["DescribeTable"]

    def late(request: Any) -> Any:
        if server.count("CreateTable") and server.count("DescribeTable") < 5:
            raise Refused("OTSObjectNotExist", "Requested table does not exist.")
        return real(request)

    monkeypatch.setitem(server._service._calls, "DescribeTable", (kind, late))
    async with SessionHistoryService(provider(server.endpoint)) as service:
        await service.create_session("u", "s")
    assert server.count("DescribeTable") == 5


async def test_a_table_that_never_becomes_ready_is_an_error(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "READY_PATIENCE", 0.3)
    server.ready_after = 3600
    with pytest.raises(Unavailable, match="OTSTableNotReady"):
        await provider(server.endpoint).start()


async def test_it_may_expect_its_table(server: TablestoreServer) -> None:
    with pytest.raises(ConfigurationError, match=r"'session_history'.*create=False"):
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
async def test_another_table_of_that_name_is_left_alone(server: TablestoreServer, key: list[tuple[str, str]]) -> None:
    async with async_client(server) as client:
        await client.create_table(*table_arguments("session_history", *key))
        with pytest.raises(IncompatibleStore, match="session_history"):
            await provider(server.endpoint).start()
        assert await client.list_table() == ("session_history",)


async def test_a_table_without_its_index_is_refused(server: TablestoreServer) -> None:
    async with async_client(server) as client:
        await client.create_table(*table_arguments("session_history", *table.KEY, defined=table.DEFINED))
    with pytest.raises(IncompatibleStore, match="session_history_recent"):
        await provider(server.endpoint).start()


async def test_two_tables_are_two_stores(server: TablestoreServer) -> None:
    one, other = provider(server.endpoint, table="one"), provider(server.endpoint, table="other")
    await asyncio.gather(one.start(), other.start())
    await one.append(KEY, entry(1), at=Position(0, 0))
    assert await other.read(KEY) is None
    assert (await other.list("u", limit=5)).heads == ()
    await asyncio.gather(one.stop(), other.stop())


async def test_a_start_that_failed_may_be_tried_again(server: TablestoreServer) -> None:
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


async def test_what_runs_is_finished_by_a_stop(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    server.delay = 0.2
    appending = asyncio.create_task(made.append(KEY, entry(1), at=Position(0, 0)))
    await asyncio.sleep(0.05)
    await made.stop()
    assert (await appending).position == Position(0, 1)


async def test_a_cancelled_append_keeps_head_and_entry_together(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    server.delay = 0.1
    appending = asyncio.create_task(
        made.append(KEY, entry(1), at=Position(0, 0), snapshot=Snapshot(1, "e1", b"summary"))
    )
    await asyncio.sleep(0.05)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    await made.stop()
    server.delay = 0
    async with SessionHistoryService(provider(server.endpoint)) as service:
        [head] = (await service._provider.list("u", limit=5)).heads
    assert head.current_snapshot == Snapshot(1, "e1", b"summary")


def test_one_service_serves_several_event_loops_in_turn(server: TablestoreServer) -> None:
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


async def test_a_fork_is_told_what_to_do(server: TablestoreServer) -> None:
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


def test_a_provider_that_is_dropped_ends_its_thread(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    asyncio.run(made.start())
    assert made._opened is not None
    thread = made._opened.thread._thread
    del made
    thread.join(10)
    assert not thread.is_alive()


def test_a_process_ends_without_a_stop_and_without_a_word(server: TablestoreServer) -> None:
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


async def test_a_client_of_another_loop_is_refused(server: TablestoreServer) -> None:
    client = async_client(server)
    await client.list_table()
    with pytest.raises(ConfigurationError, match="a client of its own"):
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
    async def test_they_come_from_the_environment(
        self, server: TablestoreServer, monkeypatch: pytest.MonkeyPatch, prefix: str
    ) -> None:
        monkeypatch.setenv(f"{prefix}_ACCESS_KEY_ID", "ak")
        monkeypatch.setenv(f"{prefix}_ACCESS_KEY_SECRET", "sk")
        async with SessionHistoryService.from_url(url_of(server)) as service:
            await service.create_session("u", "s")
        assert server.count("BatchWriteRow") >= 1

    async def test_none_at_all(self, server: TablestoreServer) -> None:
        with pytest.raises(ConfigurationError, match="TABLESTORE_ACCESS_KEY_ID and TABLESTORE_ACCESS_KEY_SECRET"):
            SessionHistoryService.from_url(url_of(server))

    @pytest.mark.parametrize("given", [{"access_key_id": "ak"}, {"access_key_secret": SECRET}, {"sts_token": SECRET}])
    def test_half_of_them(self, given: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="missing") as refusal:
            create_tablestore_client("https://inst.example.com", "inst", **given)
        assert SECRET not in str(refusal.value)

    def test_half_of_them_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "of one pair")
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "ak")
        monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "sk")
        client = create_tablestore_client("https://inst.example.com", "inst")
        assert client.credentials_provider.get_credentials().get_access_key_id() == "ak"

    async def test_a_temporary_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with TablestoreServer(security_token=SECRET) as server:
            monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "ak")
            monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "sk")
            with pytest.raises(ConfigurationError):
                await started(SessionHistoryService.from_url(url_of(server)))
            monkeypatch.setenv("TABLESTORE_SESSION_TOKEN", SECRET)
            await started(SessionHistoryService.from_url(url_of(server)))

    async def test_a_provider_of_them_is_asked_before_each_request(self) -> None:
        with TablestoreServer(security_token="first") as server:
            renewing = Renewing()
            client = create_tablestore_client(
                server.endpoint, "inst", credentials_provider=renewing, region="cn-hangzhou"
            )
            async with TablestoreSessionHistoryService(client) as service:
                await service.create_session("u", "one")
                server.account = server.account.__class__("inst", "ak", "sk", "second")
                renewing.token = "second"
                await service.create_session("u", "two")
                assert len(await service.list_sessions("u")) == 2

    def test_a_provider_and_a_key(self) -> None:
        with pytest.raises(ConfigurationError, match="give one of them"):
            create_tablestore_client("https://i.example.com", "i", "ak", "sk", credentials_provider=Renewing())

    async def test_version_4_signs_by_url(self, server: TablestoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", "ak")
        monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", "sk")
        made = open_provider(f"{url_of(server)}&region=cn-hangzhou", {})
        assert isinstance(made, TablestoreProvider)
        assert type(made._table._client._signer).__name__ == "SignV4"
        await made.start()
        await made.stop()

    async def test_refused_ones_are_named_and_not_shown(self, server: TablestoreServer) -> None:
        client = create_tablestore_client(server.endpoint, "inst", "ak", SECRET)
        with pytest.raises(ConfigurationError, match=r"credentials.*clock") as refusal:
            await TablestoreProvider(client).start()
        shown = repr(refusal.value) + repr(TablestoreProvider(client))
        assert SECRET not in shown
        assert refusal.value.__cause__ is None

    @pytest.mark.parametrize("url", [f"tablestore://ak:{SECRET}@i.example.com", f"tablestore://{SECRET}@i.example.com"])
    def test_they_do_not_belong_in_a_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="credentials do not belong in a URL") as refusal:
            SessionHistoryService.from_url(url)
        assert SECRET not in str(refusal.value)

    @pytest.mark.parametrize("option", ["access_key_secret", "access_key_id", "sts_token"])
    def test_nor_in_its_query(self, option: str) -> None:
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
    def test_a_url_that_names_no_end_point(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="names no end point"):
            SessionHistoryService.from_url(url)

    def test_the_host_names_the_instance(self) -> None:
        made = open_provider("tablestore://my-inst.cn-hangzhou.ots.aliyuncs.com", {})
        assert isinstance(made, TablestoreProvider)
        assert made._table._client.protocol.instance_name == "my-inst"
        assert made._table._client.host == "https://my-inst.cn-hangzhou.ots.aliyuncs.com"
        with pytest.raises(ConfigurationError, match="option instance"):
            open_provider("tablestore://ots.example.com", {})

    def test_options_arrive(self) -> None:
        made = open_provider(
            "tablestore://i.example.com", {"instance": "i", "table": "t", "create": False, "timeout": 3}
        )
        assert isinstance(made, TablestoreProvider)
        assert (made._table.name, made._table._timeout, made._create) == ("t", 3, False)
        assert repr(made) == "TablestoreProvider('t')"

    @pytest.mark.parametrize(
        "query", ["timeout=0", "timeout=inf", "timeout=x", "create=perhaps", "table=a-b", "nonsense=1"]
    )
    def test_an_unfit_option_is_named(self, query: str) -> None:
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
    def test_an_unfit_argument_is_named(self, given: dict[str, Any], named: str) -> None:
        client = create_tablestore_client("https://i.example.com", "i")
        with pytest.raises(ConfigurationError, match=named):
            TablestoreSessionHistoryService(client, **given)

    @pytest.mark.parametrize("client", [None, "https://i.example.com", OTSClient("http://x", "a", "b", "c")])
    def test_no_async_client(self, client: object) -> None:
        with pytest.raises(ConfigurationError, match="AsyncOTSClient is needed"):
            TablestoreSessionHistoryService(client)

    @pytest.mark.parametrize("end_point", ["", "i.example.com", None])
    def test_no_end_point(self, end_point: Any) -> None:
        with pytest.raises(ConfigurationError, match="end_point"):
            create_tablestore_client(end_point, "i")

    def test_the_client_is_that_of_the_sdk(self) -> None:
        client = create_tablestore_client("https://i.example.com", "i", max_connection=7)
        assert type(client) is AsyncOTSClient
        assert client.max_connection == 7


def test_a_missing_sdk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_package_is_imported_without_the_sdk() -> None:
    program = "import sys, session_history; sys.exit('tablestore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Errors


async def test_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with TablestoreServer() as server:
        made = provider(server.endpoint)
        await made.start()
    assert not await made.health()
    monkeypatch.setattr(table.Patience.__init__, "__defaults__", (0.3,))
    calls = [
        made.read(KEY),
        made.append(KEY, entry(1), at=Position(0, 0)),
        made.renew(KEY, at=Position(0, 1)),
        made.rewrite(KEY, entry(1), at=Position(0, 1), rewrites=0, snapshot=None),
        made.list("u", limit=1),
        made.delete(KEY),
        made.delete_user("u"),
    ]
    for call in calls:
        with pytest.raises(Unavailable, match="no success within"):
            await call
    await made.stop()
    with pytest.raises(Unavailable):
        await provider(server.endpoint).start()


async def test_who_waits_behind_others_does_not_wait_for_all_of_them(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "PATIENCE", 0.2)
    made = provider(server.endpoint)
    await made.start()
    server.faults = Faults(kinds=("delay",), delay=0.6)
    rivals = [asyncio.create_task(made.append(KEY, entry(number), at=Position(0, 0))) for number in range(1, 5)]
    outcomes = await asyncio.gather(*rivals, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Appended, Unavailable, Unavailable, Unavailable]
    assert "other calls" in str(outcomes[1])
    server.faults = None
    await made.stop()


@pytest.mark.parametrize("code", ["OTSTimeout", "OTSRequestTimeout", "OTSServerBusy"])
async def test_what_the_service_asks_to_repeat_is_repeated(
    server: TablestoreServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    async with SessionHistoryService(provider(server.endpoint)) as service:
        real, refused = server._service.answer, False

        async def answer(*args: Any) -> bytes:
            nonlocal refused
            if refused:
                return await real(*args)
            refused = True
            raise Refused(code, "Not now.")

        monkeypatch.setitem(STATUS, code, 400)
        monkeypatch.setattr(server._service, "answer", answer)
        await service.create_session("u", "s")
        assert refused


async def test_a_table_that_was_dropped_is_named(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    async with async_client(server) as client:
        await client.delete_secondary_index("session_history", "session_history_recent")
        await client.delete_table("session_history")
    for call in (made.read(KEY), made.append(KEY, entry(1), at=Position(0, 0))):
        with pytest.raises(Unavailable, match="table"):
            await call
    await made.stop()


async def test_a_server_that_comes_back_is_used_again() -> None:
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


async def test_a_request_that_hangs_has_an_end(server: TablestoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = provider(server.endpoint, timeout=0.2)
    await made.start()
    server.faults = Faults(kinds=("delay",), delay=5, times=1)
    began = time.monotonic()
    assert (await made.append(KEY, entry(1), at=Position(0, 0))).position == Position(0, 1)
    assert time.monotonic() - began < 2
    await made.stop()


async def test_what_may_not_be_written_is_told_so(server: TablestoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, error in {
        "OTSNoPermissionAccess": StoreReadOnly,
        "OTSAuthFailed": ConfigurationError,
        "OTSParameterInvalid": Unavailable,
    }.items():
        assert type(errors._refusal(code, "request-1")) is error
        assert code in str(errors._refusal(code, "request-1"))


async def test_an_unreadable_head_is_corrupt_and_can_be_deleted(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    await made.append(KEY, entry(1), at=Position(0, 0))
    await overwrite(server, KEY, [("v", 1), ("g", 0), ("r", -5), ("n", 1)])
    for call in (made.read(KEY), made.append(KEY, entry(2), at=Position(0, 5))):
        with pytest.raises(Corrupt, match="unreadable"):
            await call
    assert await made.delete(KEY)
    log = await made.read(KEY)
    assert log is not None
    assert (log.head.deleted, log.head.tail) == (True, Position(0, 0))
    assert (await made.append(KEY, entry(1), at=Position(1, 0))).position == Position(1, 1)
    await made.stop()


async def test_a_missing_entry_is_corrupt_and_not_a_shorter_log(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    for number in range(1, 4):
        await made.append(KEY, entry(number), at=Position(0, number - 1))
    async with async_client(server) as client:
        from tablestore import Row

        await client.delete_row("session_history", Row([("u", "u"), ("s", "s"), ("q", 2)]))
    with pytest.raises(Corrupt, match="lacks"):
        await made.read(KEY)
    log = await made.read(KEY, last=1)
    assert log is not None
    assert log.head.tail == Position(0, 3)
    assert await made.delete(KEY)
    await made.stop()


async def test_a_newer_version_is_left_alone(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    await made.append(KEY, entry(1), at=Position(0, 0))
    await overwrite(server, KEY, [("v", 2), ("g", 0)])
    with pytest.raises(IncompatibleStore, match="version 2"):
        await made.read(KEY)
    with pytest.raises(IncompatibleStore):
        await made.delete(KEY)
    await made.stop()


async def test_the_last_generation_is_the_last(server: TablestoreServer) -> None:
    made = provider(server.endpoint)
    await made.start()
    for generation in (2**31 - 3, 2**31 - 2):
        tombstone = [("v", 1), ("g", generation), ("n", 0), ("i", ""), ("t", 5), ("b", 0), ("e", 0)]
        await overwrite(server, KEY, [*tombstone, ("k", bytearray()), ("x", generation)])
        if generation == 2**31 - 3:
            assert (await made.append(KEY, entry(1), at=Position(generation + 1, 0))).position.seq == 1
        else:
            with pytest.raises(LimitExceeded, match="generations"):
                await made.append(KEY, entry(1), at=Position(generation + 1, 0))
    await made.stop()


async def overwrite(server: TablestoreServer, key: SessionKey, columns: list[tuple[str, Any]]) -> None:
    """Put something else in place of a head."""
    from tablestore import Condition, Row, RowExistenceExpectation

    row = Row([("u", key.user_id), ("s", key.session_id), ("q", 2**63 - 1)], columns)
    async with async_client(server) as client:
        await client.put_row("session_history", row, Condition(RowExistenceExpectation.IGNORE))


async def test_no_content_in_logs(server: TablestoreServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = provider(server.endpoint)
    await made.start()
    server.faults = Faults(share=0.5, seed=1)
    for number in range(1, 21):
        await made.append(
            KEY,
            Entry(f"e{number}", SECRET.encode()),
            at=Position(0, number - 1),
            snapshot=Snapshot(number, f"e{number}", SECRET.encode()),
        )
    await made.stop()
    assert SECRET not in caplog.text
    server.faults = None


async def test_a_log_that_was_asked_for_is_kept(server: TablestoreServer, caplog: pytest.LogCaptureFixture) -> None:
    chosen = logging.getLogger("chosen")
    chosen.setLevel(logging.DEBUG)
    made = TablestoreProvider(create_tablestore_client(server.endpoint, "inst", "ak", "sk", logger_name="chosen"))
    await made.start()
    await made.stop()
    assert "DescribeTable" in caplog.text
