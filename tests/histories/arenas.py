"""The stores of ``make histories``, with all that a nemesis may do to each."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from servers.postgresql import Server, running, servers
from servers.proxy import Proxy
from servers.valkey import ValkeyServer

DELAY = 1.2
"""Seconds by which a late answer is late: longer than the lease of a client."""

Act = Callable[[], object]


@dataclass
class Arena:
    """A store.

    :ivar url: for clients, through the proxy if there is one.
    :ivar direct_url: for those that no fault is to reach.
    :ivar pids: returns the processes of the server.
    :ivar restart: kills the server and starts it again; what was acknowledged has to be there.
    :ivar back_up: makes a backup, in the place of the one before.
    :ivar restore: puts the backup in the place of the store while no client runs, and returns when it began.
    :ivar restore_live: does that while clients go on.
    :ivar opened_backup: opens a store of its own that holds the backup, and yields its URL.
    """

    url: str
    direct_url: str
    proxy: Proxy | None = None
    pids: Callable[[], list[int]] = list
    restart: Act | None = None
    back_up: Act | None = None
    restore: Callable[[], int] | None = None
    restore_live: Callable[[], int] | None = None
    opened_backup: Callable[[], AbstractContextManager[str]] | None = None
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def stopped(pids: Iterable[int | None]) -> Iterator[None]:
    """Stop processes for a while."""
    running = [pid for pid in pids if pid is not None]
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def sqlite(folder: Path) -> Iterator[Arena]:
    path, backup = folder / "history.db", folder / "backup.db"
    url = f"sqlite:///{path}"

    def back_up() -> None:
        backup.unlink(missing_ok=True)
        backup.touch(0o600)
        copy(path, backup)

    def restore_live() -> int:
        began = time.monotonic_ns()
        copy(backup, path)
        return began

    def restore() -> int:
        began = time.monotonic_ns()
        for each in folder.glob("history.db*"):
            each.unlink()
        shutil.copy(backup, path)
        path.chmod(0o600)
        return began

    yield Arena(
        url, url, back_up=back_up, restore=restore, restore_live=restore_live,
        opened_backup=lambda: nullcontext(f"sqlite:///{backup}"),
    )  # fmt: skip


def copy(source: Path, target: Path) -> None:
    """Copy a store of SQLite that may be in use, into one that may be in use."""
    with closing(sqlite3.connect(source, timeout=30)) as read, closing(sqlite3.connect(target, timeout=30)) as written:
        read.backup(written)


@contextmanager
def valkey(folder: Path) -> Iterator[Arena]:
    """A server that writes each command to its disk; a backup is a dump of its memory."""
    backup = folder / "backup.rdb"
    with ValkeyServer(appendonly="yes", appendfsync="always", dbfilename="dump.rdb") as server:
        with Proxy(server.port, delay=DELAY) as proxy:

            def back_up() -> None:
                with server.client() as client:
                    client.save()
                shutil.copy(server.folder / "dump.rdb", backup)

            def restore() -> int:
                began = time.monotonic_ns()
                server.kill()
                shutil.rmtree(server.folder / "appendonlydir")
                shutil.copy(backup, server.folder / "dump.rdb")
                server.settings["appendonly"] = "no"
                server.start()
                with server.client() as client:
                    client.config_set("appendonly", "yes")
                    server.wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
                server.settings["appendonly"] = "yes"
                return began

            @contextmanager
            def opened_backup() -> Iterator[str]:
                copy = ValkeyServer(dbfilename="dump.rdb")
                shutil.copy(backup, copy.folder / "dump.rdb")
                with copy:
                    yield copy.url

            yield Arena(
                f"redis://127.0.0.1:{proxy.port}/0?durability=disk", f"{server.url}?durability=disk", proxy,
                lambda: [server.pid], server.restart,
                back_up, restore, restore, opened_backup,
            )  # fmt: skip


@contextmanager
def postgresql(folder: Path) -> Iterator[Arena]:
    """A server whose folder is copied while all its processes are stopped."""
    with servers() as machine, running(machine) as server, Proxy(server.port, delay=DELAY) as proxy:
        backup = server.data.with_suffix(".backup")

        def back_up() -> None:
            shutil.rmtree(backup, ignore_errors=True)
            with stopped(server.pids()):
                subprocess.run(["cp", "-Rp", server.data, backup], check=True)

        def restart() -> None:
            server.kill()
            server.start()

        def restore() -> int:
            new, old = server.data.with_suffix(".new"), server.data.with_suffix(".old")
            subprocess.run(["cp", "-Rp", backup, new], check=True)
            began = time.monotonic_ns()
            server.kill()
            server.data.rename(old)
            new.rename(server.data)
            started_without_lock(server)
            shutil.rmtree(old)
            return began

        @contextmanager
        def opened_backup() -> Iterator[str]:
            copy = Server(machine)
            subprocess.run(["cp", "-Rp", backup, copy.data], check=True)
            started_without_lock(copy)
            try:
                yield copy.url()
            finally:
                copy.kill()

        yield Arena(
            server.url(proxy=proxy), server.url(), proxy, server.pids, restart,
            back_up, restore, restore, opened_backup,
        )  # fmt: skip


def started_without_lock(server: Server) -> None:
    """Start a server on the copy of the folder of a running one."""
    (server.data / "postmaster.pid").unlink(missing_ok=True)
    server.start()


@contextmanager
def tablestore(folder: Path) -> Iterator[Arena]:
    """The emulator, which keeps its tables in memory: it may be stopped, not killed."""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "servers.tablestore"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        endpoint = server.stdout.readline().strip().removeprefix("http://")
        with Proxy(int(endpoint.rpartition(":")[2]), delay=DELAY) as proxy:
            options = "?instance=inst&tls=false"
            keys = {"TABLESTORE_ACCESS_KEY_ID": "ak", "TABLESTORE_ACCESS_KEY_SECRET": "sk"}
            yield Arena(
                f"tablestore://127.0.0.1:{proxy.port}{options}", f"tablestore://{endpoint}{options}", proxy,
                lambda: [server.pid], environment=keys,
            )  # fmt: skip
        server.kill()


ARENAS: dict[str, Callable[[Path], AbstractContextManager[Arena]]] = {
    each.__name__: each for each in (sqlite, valkey, postgresql, tablestore)
}
