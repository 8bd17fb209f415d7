"""The backups of ``backup-and-restore.md`` on Valkey: a server, a server with an append-only file, a cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from contract.backups import check_backup_and_restore
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis import RedisProvider

pytestmark = pytest.mark.usefixtures("_valkey_installed")

Backup = dict[ValkeyServer, Path]
"""The snapshot of each master."""


def back_up(servers: Sequence[ValkeyServer], folder: Path) -> Backup:
    for server in servers:
        save(server)
    return {server: Path(shutil.copy(server.folder / "dump.rdb", folder / f"{server.port}.rdb")) for server in servers}


def save(server: ValkeyServer) -> None:
    """Let a server write a snapshot, and wait until it is there. Its time counts in seconds."""
    with server.client() as client:
        before = client.lastsave()
        server.wait_until(lambda: client.time()[0] > before.timestamp())
        client.bgsave()
        server.wait_until(lambda: client.lastsave() > before)
        assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"


def put_back(server: ValkeyServer, snapshot: Path) -> None:
    """Put a snapshot in the place of all that a stopped server has."""
    shutil.rmtree(server.folder / "appendonlydir", ignore_errors=True)
    shutil.copy(snapshot, server.folder / "dump.rdb")
    if os.geteuid() == 0:
        shutil.chown(server.folder / "dump.rdb", "nobody")


def restore(backup: Backup, replicas: Sequence[ValkeyServer] = ()) -> None:
    for server in (*backup, *replicas):
        server.kill()
    for replica in replicas:
        (replica.folder / "dump.rdb").unlink(missing_ok=True)
    for server, snapshot in backup.items():
        put_back(server, snapshot)
        start_with_snapshot(server)
    for replica in replicas:
        replica.start()


def start_with_snapshot(server: ValkeyServer) -> None:
    """Start a server without its append-only file, and switch that on if the server has one."""
    wanted, server.settings["appendonly"] = server.settings["appendonly"], "no"
    server.start()
    with server.client() as client:
        client.config_set("appendonly", wanted)
        server.wait_until(lambda: not is_rewriting(client.info("persistence")))
    server.settings["appendonly"] = wanted


def is_rewriting(status: Mapping[str, int]) -> bool:
    return bool(status["aof_rewrite_in_progress"] or status["aof_rewrite_scheduled"])


@pytest.mark.parametrize("appendonly", ["no", "yes"])
async def test_restored_snapshot_shows_each_session_up_to_the_backup(tmp_path: Path, appendonly: str) -> None:
    with ValkeyServer(appendonly=appendonly, appendfsync="everysec") as server:
        backup: Backup = {}

        def restore_and_restart() -> None:
            restore(backup)
            if appendonly == "yes":
                server.restart()  # so that it loads its append-only file

        await check_backup_and_restore(
            partial(RedisProvider, server.url), lambda: backup.update(back_up([server], tmp_path)), restore_and_restart
        )


async def test_restored_snapshots_of_a_cluster_show_each_session_up_to_the_backup(tmp_path: Path) -> None:
    with ValkeyCluster() as cluster, cluster.without_fail_over():
        backup: Backup = {}

        def restore_cluster() -> None:
            restore(backup, [server for server in cluster.servers if server not in backup])
            cluster.wait_until_ready()

        await check_backup_and_restore(
            partial(RedisProvider, cluster.url, timeout=20.0),
            lambda: backup.update(back_up(cluster.masters(), tmp_path)),
            restore_cluster,
        )
