"""Refusals: full servers, missing rights, logins, TLS, durability, and invalid options."""

from __future__ import annotations

import logging
import re
import shutil
import ssl
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers.redis.support import started
from servers import certificates
from servers.proxy import Proxy
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history import SessionHistoryService
from session_history.providers.redis import RedisProvider
from session_history_hooks import (
    ConfigurationError,
    Conflict,
    Durability,
    Position,
    SessionKey,
    Shard,
    StoreFull,
    StoreReadOnly,
    Unavailable,
)
from session_history_hooks.testing.subject import KEY, append, entry, fill, read
from support import ROOT


async def test_full_server_refuses_appends_and_allows_deletes(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        async with started(own_server.url) as provider:
            await fill(provider, 2)
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreFull):
                await append(provider, 3)
            assert len((await read(provider)).entries) == 2
            assert await provider.health() is False
            assert await provider.delete(KEY) is True
            assert await provider.delete_user(KEY.user_id) == 0
            client.config_set("maxmemory", 0)
            assert await provider.health() is True
            assert (await read(provider)).head.deleted
            assert (await provider.append(KEY, entry(1), at=Position(1, 0))).position == Position(1, 1)


async def test_full_server_does_not_replay_an_entry_of_an_earlier_generation(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        async with started(own_server.url) as provider:
            await append(provider, 1)
            await provider.delete(KEY)
            await provider.append(KEY, entry(2), at=Position(1, 0))
            with pytest.raises(Conflict):
                await append(provider, 2)
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreFull):
                await append(provider, 2)


async def test_server_that_cannot_save_takes_no_writes_and_is_not_healthy(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        async with started(own_server.url) as provider:
            await fill(provider, 2)
            client.config_set("save", "3600 1")
            blocked = own_server.folder / "dump.rdb"
            blocked.mkdir()
            client.bgsave()
            own_server.wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
            assert await provider.health() is False
            for refused in (append(provider, 3), provider.delete(KEY)):
                with pytest.raises(Unavailable, match="cannot write to its disk"):
                    await refused
            blocked.rmdir()
            client.bgsave()
            own_server.wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")
            assert await provider.health() is True
            assert await provider.delete(KEY) is True


async def test_cluster_with_a_full_master_is_not_healthy(cluster: ValkeyCluster, prefix: str) -> None:
    async with started(cluster.url, prefix=prefix) as provider:
        assert await provider.health() is True
        with cluster.masters()[-1].client() as client:
            client.config_set("maxmemory", 1)
            try:
                assert await provider.health() is False
            finally:
                client.config_set("maxmemory", 0)
        assert await provider.health() is True


@pytest.mark.usefixtures("_valkey_installed")
async def test_full_disk_of_the_append_only_file_is_store_full(disk: Path) -> None:
    server = ValkeyServer(appendonly="yes", appendfsync="everysec")
    room = server.folder / "room"
    library = Path(shutil.copy(disk, server.folder))  # The server may run as another user.
    library.chmod(0o755)
    server.environment = {
        "LD_PRELOAD": str(library), "DISK_FOLDER": str(server.folder / "appendonlydir"), "DISK_ROOM": str(room),
    }  # fmt: skip
    with server, server.client() as client:
        async with started(server.url) as provider:
            await append(provider, 1)
            server.wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
            room.write_text("0")
            await append(provider, 2)  # The server notices the full disk a moment later.
            server.wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "err")
            assert await provider.health() is False
            for refused in (append(provider, 3), provider.delete(KEY)):
                with pytest.raises(StoreFull, match="its disk is full"):
                    await refused
            assert len((await read(provider)).entries) == 2
            room.unlink()
            server.wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "ok")
            assert await provider.health() is True
            assert await provider.delete(KEY) is True


async def test_append_to_a_replica_or_without_rights_raises_store_read_only(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+hunter2"], keys=["*"], commands=["+@read", "+hello", "+info"]
        )
        reading = f"redis://reader:hunter2@127.0.0.1:{own_server.port}"
        async with started(own_server.url, timeout=3) as provider, started(reading) as reader:
            await fill(provider, 1)
            with pytest.raises(StoreReadOnly, match="NOPERM"):
                await append(reader, 2)
            client.replicaof("127.0.0.1", "1")
            assert await provider.health() is False
            with pytest.raises(StoreReadOnly, match="replica"):
                await append(provider, 2)
            assert len((await read(provider)).entries) == 1
            with pytest.raises(StoreReadOnly, match="replica"):
                await RedisProvider(own_server.url, timeout=60).start()


RIGHTS = """
+hello +select +info +config|get +cluster|slots +asking +wait +multi +exec
+eval +evalsha +time +hget +hset +hdel +hlen +hmget +hscan +hexists +exists
+llen +lrange +lindex +lset +rpush
+zadd +zrem +zcard +zscore +zcount +zrange +zrangebyscore +zrandmember
+unlink +rename +pexpire +pexpireat +pttl +persist +scan +cluster|nodes
"""


async def test_documented_rights_are_enough(own_server: ValkeyServer) -> None:
    page = (ROOT / "docs" / "reference" / "redis.md").read_text()
    assert RIGHTS in page
    with own_server.client() as client:
        client.acl_setuser("writer", enabled=True, passwords=["+hunter2"], keys=["sh:*"], commands=RIGHTS.split())
    async with started(f"redis://writer:hunter2@127.0.0.1:{own_server.port}/1"):
        pass
    choices: list[dict[str, Any]] = [{"ttl": 60}, {}, {"wait_replicas": 1, "wait_timeout": 0.01}]
    for number, options in enumerate(choices):
        async with started(f"redis://writer:hunter2@127.0.0.1:{own_server.port}", **options) as provider:
            assert await provider.health() is True
            await call_everything(provider, SessionKey("user", f"s{number}"))
    async with started(f"redis://writer:hunter2@127.0.0.1:{own_server.port}") as provider:
        assert await provider.delete_user("user") == 3


async def call_everything(provider: RedisProvider, key: SessionKey) -> None:
    """Leave one session that is not deleted."""
    large = entry(1, bytes(2**17))
    with suppress(Unavailable):
        await provider.append(key, large, at=Position(0, 0))
    assert (await read(provider, key, last=1, entry_id="e1")).match == (1, large)
    await provider.renew(key, at=Position(0, 1))
    head = await provider.rewrite(key, large, at=Position(0, 1), rewrite_id="r", last_rewrite_id="", snapshot=None)
    assert await provider.delete(key) is True
    assert (await provider.list_tombstones(key.user_id, limit=9)).heads[-1].key == key
    with suppress(Unavailable):
        await provider.restore(replace(head, tail=Position(1, 1)), [large])
    page = await provider.list(key.user_id, limit=1)
    await provider.list(key.user_id, limit=1, cursor=page.cursor)
    assert (await provider.store_info(shard=Shard(0, 1))).shard == Shard(0, 1)
    assert (await provider.list_users(limit=9)).user_ids == (key.user_id,)


async def test_wait_replicas_without_the_right_to_wait_is_refused(own_server: ValkeyServer) -> None:
    url = f"redis://writer:hunter2@127.0.0.1:{own_server.port}"
    with own_server.client() as client:
        client.acl_setuser("writer", enabled=True, passwords=["+hunter2"], keys=["*"], commands=["+@all"])
        async with started(url, wait_replicas=1) as provider:
            client.execute_command("ACL SETUSER writer -wait")
            with pytest.raises(Unavailable, match=r"the entry is stored, but .*NOPERM") as refusal:
                await append(provider, 1)
            assert "writer" not in all_texts(refusal.value)
            assert [each.id for each in (await read(provider)).entries] == ["e1"]
        with pytest.raises(StoreReadOnly, match="WAIT"):
            await RedisProvider(url, wait_replicas=1).start()


@pytest.mark.parametrize("login", ["default:hunter2", "nobody:hunter2", ":hunter2", "a%40b:hunter2%2f"])
async def test_refused_login_shows_no_password(
    own_server: ValkeyServer, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with own_server.client() as client:
        client.config_set("requirepass", "secret")
    provider = RedisProvider(f"redis://{login}@127.0.0.1:{own_server.port}", timeout=1)
    with pytest.raises(ConfigurationError, match="refuses the user or the password") as refusal:
        await provider.start()
    shown = repr(provider) + caplog.text + all_texts(refusal.value)
    assert "hunter2" not in shown
    assert "nobody" not in shown


async def test_missing_password_raises_configuration_error(own_server: ValkeyServer) -> None:
    with own_server.client() as client:
        client.config_set("requirepass", "secret")
    with pytest.raises(ConfigurationError, match="requires a password, and the URL has none"):
        await RedisProvider(own_server.url, timeout=60).start()


def all_texts(error: BaseException | None) -> str:
    """Return the texts of an error, its causes and its contexts."""
    return f"{error!r} {error} {all_texts(error.__cause__)} {all_texts(error.__context__)}" if error else ""


@pytest.mark.parametrize("login", ["", "user:hunter2@"])
@pytest.mark.parametrize(
    "rest",
    [
        "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1/x", "127.0.0.1/-1", "", "a,b", "127.0.0.1?speed=9",
        "127.0.0.1?timeout=0", "127.0.0.1?prefix=a{b", "127.0.0.1?ttl=0", "127.0.0.1?ssl_ca_certs=x",
        "127.0.0.1?wait_timeout=1", "127.0.0.1?wait_replicas=0&wait_timeout=1",
        "127.0.0.1?durability=none", "127.0.0.1?wait_replicas=1&wait_timeout=9",
    ],
)  # fmt: skip
def test_url_with_an_invalid_part_is_refused_without_its_password(login: str, rest: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        SessionHistoryService.from_url(f"redis://{login}{rest}")
    assert "hunter2" not in all_texts(refusal.value)


@pytest.mark.parametrize(
    "url", ["redis://u:hunter?2secret=x@h/0", "redis://u:a@b?hunter2=x@h/0", "valkey://u:a?b=c&hunter2@h/0"]
)
def test_password_with_a_question_mark_is_not_shown_as_an_option(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        SessionHistoryService.from_url(url)
    assert not re.search("2secret|hunter", all_texts(refusal.value))
    assert re.search("percent-encoded|list of name=value", str(refusal.value))


def test_constructor_refuses_invalid_arguments() -> None:
    mistyped: dict[str, Any] = {"timout": 3}
    with pytest.raises(TypeError, match="timout"):
        RedisProvider("redis://h", **mistyped)
    for prefix in ("a{b", "}", "\0"):
        with pytest.raises(ConfigurationError, match=r"^prefix: must have no braces and no NUL$"):
            RedisProvider("redis://h", prefix=prefix)
    for url in ("redis://h?timeout=3", "redis://h/0?timeout=3"):
        with pytest.raises(ConfigurationError, match="give them as arguments"):
            RedisProvider(url)
    with pytest.raises(ConfigurationError, match="options of TLS"):
        RedisProvider("redis://h", ssl_cert_reqs="required")


async def test_each_scheme_opens_a_store(single_url: str, cluster_url: str, prefix: str) -> None:
    place = single_url.partition("://")[2]
    places = cluster_url.partition("://")[2]
    for url in (f"redis://{place}", f"valkey://{place}", cluster_url, f"valkey+cluster://{places}"):
        async with SessionHistoryService.from_url(url, prefix=prefix) as service:
            assert await service.health() is True
    for scheme in ("rediss", "valkeys", "rediss+cluster", "valkeys+cluster"):
        service = SessionHistoryService.from_url(f"{scheme}://127.0.0.1:1?timeout=0.1&ssl_cert_reqs=none")
        with pytest.raises(Unavailable):
            await service.start()


async def test_scheme_of_another_kind_of_server_is_refused(server: ValkeyServer, cluster: ValkeyCluster) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\+cluster"):
        await RedisProvider(cluster.servers[0].url).start()
    with pytest.raises(ConfigurationError, match="does not belong to a cluster"):
        await RedisProvider(f"redis+cluster://127.0.0.1:{server.port}").start()
    with pytest.raises(ConfigurationError, match="database 0"):
        RedisProvider("redis+cluster://127.0.0.1:1/2")


async def test_start_checks_that_the_server_keeps_the_claimed_durability(
    own_server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with own_server.client() as client:
        async with started(own_server.url, durability="host"):
            pass
        client.config_set("appendfsync", "everysec")
        with pytest.raises(ConfigurationError, match="set appendfsync no or always"):
            await RedisProvider(own_server.url, durability="host").start()
        for when in ("no", "everysec"):
            client.config_set("appendfsync", when)
            with pytest.raises(ConfigurationError, match="set appendfsync always"):
                await RedisProvider(own_server.url, durability="disk").start()
        client.config_set("appendfsync", "always")
        for claim in (Durability.HOST, Durability.DISK):
            async with started(own_server.url, durability=claim) as provider:
                assert provider.limits.durability == claim
        client.config_set("no-appendfsync-on-rewrite", "yes")
        with pytest.raises(ConfigurationError, match="no-appendfsync-on-rewrite no"):
            await RedisProvider(own_server.url, durability="disk").start()
        async with started(own_server.url, durability="host"):
            pass
        client.config_set("appendonly", "no")
        for claim in (Durability.HOST, Durability.DISK):
            with pytest.raises(ConfigurationError, match="appendonly yes"):
                await RedisProvider(own_server.url, durability=claim).start()
        async with started(own_server.url):
            assert not caplog.records
        client.config_set("maxmemory-policy", "volatile-lru")
        async with started(own_server.url):
            assert not caplog.records
        async with started(own_server.url, ttl=9):
            assert "evicts" in caplog.records.pop().message
        client.config_set("maxmemory-policy", "allkeys-lru")
        async with started(own_server.url):
            assert "evicts" in caplog.records.pop().message


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate and its key. The certificate without the key is beside it, with the suffix ``.crt``."""
    made, key = certificates.certificate(tmp_path_factory.mktemp("tls"), "own")
    file = made.with_name("both.pem")
    file.write_text(key.read_text() + made.read_text())
    made.rename(f"{file}.crt")
    return file


async def test_tls_requires_a_trusted_certificate(server: ValkeyServer, certificate: Path, prefix: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with Proxy(server.port, tls=context) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}"
        async with started(url, prefix=prefix, ssl_ca_certs=f"{certificate}.crt") as provider:
            await fill(provider, 2)
            assert len((await read(provider)).entries) == 2
        async with started(url, prefix=prefix, ssl_cert_reqs="none") as provider:
            await append(provider, 3)
        for place in (url, f"rediss+cluster://127.0.0.1:{proxy.port}"):
            with pytest.raises(ConfigurationError, match="not trusted: self-signed certificate"):
                await RedisProvider(place, timeout=30).start()


async def test_tls_to_a_plain_text_server_names_the_plain_scheme(own_server: ValkeyServer) -> None:
    for scheme in ("rediss", "valkeys", "rediss+cluster", "valkeys+cluster"):
        url = f"{scheme}://127.0.0.1:{own_server.port}"
        plain = re.escape(scheme.replace("s+", "+").removesuffix("s"))
        with pytest.raises(ConfigurationError, match=f"speaks no TLS: write {plain}://$"):
            await RedisProvider(url, timeout=0.2).start()
    with own_server.frozen(), pytest.raises(Unavailable):  # without an answer the client cannot know
        await RedisProvider(url, timeout=0.2).start()


@pytest.fixture
def files(certificate: Path, tmp_path: Path) -> Path:
    """A folder with a certificate, a file that is not a certificate, and a locked key."""
    (tmp_path / "cert").write_bytes(certificate.read_bytes())
    (tmp_path / "junk").write_text("-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n")
    lock = ["openssl", "pkey", "-aes256", "-passout", "pass:hunter2", "-in", str(certificate)]
    subprocess.run([*lock, "-out", str(tmp_path / "locked")], check=True, capture_output=True)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ({"ssl_ca_certs": "none"}, "ssl_ca_certs.*No such file"),
        ({"ssl_ca_certs": "junk"}, "ssl_ca_certs"),
        ({"ssl_certfile": "none"}, "ssl_certfile.*No such file"),
        ({"ssl_certfile": "cert", "ssl_keyfile": "none"}, "ssl_keyfile.*No such file"),
        ({"ssl_certfile": "cert", "ssl_keyfile": "junk"}, "ssl_keyfile"),
        ({"ssl_certfile": "cert", "ssl_keyfile": "locked"}, "ssl_keyfile.*without a password"),
        ({"ssl_keyfile": "cert"}, "set ssl_certfile"),
    ],
)
async def test_invalid_tls_file_raises_configuration_error(names: dict[str, str], shown: str, files: Path) -> None:
    options: dict[str, Any] = {option: str(files / name) for option, name in names.items()}
    with pytest.raises(ConfigurationError, match=shown) as refusal:
        await RedisProvider("rediss://127.0.0.1:1", timeout=30, **options).start()
    assert "hunter2" not in all_texts(refusal.value)


async def test_unknown_database_raises_configuration_error(own_server: ValkeyServer) -> None:
    with pytest.raises(ConfigurationError, match="/99 has no database of this number"):
        await RedisProvider(f"redis://127.0.0.1:{own_server.port}/99").start()
