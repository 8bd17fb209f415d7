"""Scenarios of kills and returns. In each of them a store takes one blow after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers.postgresql import replicated, running, servers
from servers.tablestore import TablestoreServer
from servers.valkey import ValkeyCluster, ValkeyServer
from session_history.providers.redis.keys import Keys
from torture.manifest import USER
from torture.writers import Writers

LAG = 2.0
"""Seconds by which a replica may be behind its master on a busy machine."""


@dataclass
class Scene:
    """A store, and a blow to it.

    :ivar blow: kills something and brings back what has to come back; the writers go on by themselves.
    :ivar lossy: stretches of time in which a loss is allowed.
    """

    url: str
    blow: Callable[[Writers], object]
    lossy: list[tuple[float, float]] = field(default_factory=list)


Scenario = Callable[[Path], AbstractContextManager[Scene]]


def kill_a_writer(writers: Writers) -> None:
    writers.kill_one()
    writers.start()


@contextmanager
def sqlite_writer(folder: Path) -> Iterator[Scene]:
    yield Scene(f"sqlite:///{folder}/history.db", kill_a_writer)


@contextmanager
def tablestore_writer(folder: Path) -> Iterator[Scene]:
    with TablestoreServer() as server:
        os.environ |= {"TABLESTORE_ACCESS_KEY_ID": "ak", "TABLESTORE_ACCESS_KEY_SECRET": "sk"}
        yield Scene(f"tablestore://{server.endpoint.removeprefix('http://')}?instance=inst&tls=false", kill_a_writer)


@contextmanager
def postgresql_writer(folder: Path) -> Iterator[Scene]:
    with servers() as machine, running(machine) as server:
        yield Scene(server.url(), kill_a_writer)


@contextmanager
def valkey_writer(folder: Path) -> Iterator[Scene]:
    with ValkeyServer() as server:
        yield Scene(server.url, kill_a_writer)


@contextmanager
def postgresql_server(folder: Path) -> Iterator[Scene]:
    """All processes of the server at once; what it had not written is lost to it, and it recovers from its log."""
    with servers() as machine, running(machine) as server:

        def blow(writers: Writers) -> None:
            server.kill()
            server.start()

        yield Scene(server.url(), blow)


@contextmanager
def valkey_server(folder: Path) -> Iterator[Scene]:
    with ValkeyServer(appendonly="yes", appendfsync="always") as server:

        def blow(writers: Writers) -> None:
            server.kill()
            server.start()

        yield Scene(f"{server.url}?durability=disk", blow)


@contextmanager
def postgresql_primary(folder: Path) -> Iterator[Scene]:
    """The primary is gone for good, and the standby takes its place. A scene has one blow."""
    with servers() as machine, replicated(machine) as (primary, standby):

        def blow(writers: Writers) -> None:
            primary.kill()
            standby.promote()

        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        _, _, database = primary.url().rpartition("/")
        credentials = primary.url().removeprefix("postgresql://").partition("@")[0]
        yield Scene(f"postgresql://{credentials}@{hosts}/{database}?target_session_attrs=read-write", blow)


@contextmanager
def cluster_master(folder: Path) -> Iterator[Scene]:
    """The master that has the sessions; its replica takes over, and it comes back as that one's replica.

    Each acknowledged turn was waited for until the replica had it.
    """
    with ValkeyCluster(appendonly="yes") as cluster:
        yield Scene(f"{cluster.url}?wait_replicas=1", lambda writers: fail_over(cluster, writers))


@contextmanager
def cluster_master_not_waited_for(folder: Path) -> Iterator[Scene]:
    """As before, without waiting: what was acknowledged just before the blow may be lost."""
    with ValkeyCluster(appendonly="yes") as cluster:
        scene = Scene(cluster.url, lambda writers: None)

        def blow(writers: Writers) -> None:
            killed = fail_over(cluster, writers)
            scene.lossy.append((killed - LAG, killed))

        scene.blow = blow
        yield scene


def fail_over(cluster: ValkeyCluster, writers: Writers) -> float:
    """When the master was killed, by the monotonic clock."""
    master = cluster.owner(Keys("sh").of_user(USER)[0])
    master.kill()
    killed = time.monotonic()
    writers.wait_until_something_is_acknowledged()
    master.start()
    cluster.wait_until_ready()
    return killed


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        sqlite_writer, tablestore_writer, postgresql_writer, valkey_writer, postgresql_server, valkey_server,
        postgresql_primary, cluster_master, cluster_master_not_waited_for,
    )
}  # fmt: skip

ONE_BLOW = {"postgresql_primary"}
"""Scenes that do not come back as they were."""
