"""The state of the servers of a store."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import ClusterDownError, ResponseError, TryAgainError

from session_history.providers.redis.client import Client
from session_history.providers.redis.commands import Command
from session_history.providers.redis.pool import ServerPool


class _ServerState(NamedTuple):
    """The state of a server.

    :ivar run_id: another one after each restart.
    :ivar slots: the ranges of slots that it has.
    """

    run_id: bytes
    node_id: bytes = b""
    epoch: bytes = b""
    slots: tuple[bytes, ...] = ()

    @property
    def slot_count(self) -> int:
        return sum(int(last or first) - int(first) + 1 for first, _, last in (r.partition(b"-") for r in self.slots))


async def state_of(client: Client) -> str:
    """Return a text that is another one after any change that matters to a scan of all keys.

    A server that was replaced or restarted reads the cursor of a scan differently. A slot that moves takes keys along.

    :raises Unavailable: slots are moving, or some have no server.
    """
    return await client.retry(lambda: _state_of(client))


async def _state_of(client: Client) -> str:
    client.forget_slots()
    states = [await _server_state(server, is_cluster=client.is_cluster) for server in await client.masters()]
    if client.is_cluster and sum(state.slot_count for state in states) != REDIS_CLUSTER_HASH_SLOTS:
        raise ClusterDownError("CLUSTERDOWN some slots have no server")
    return hashlib.blake2b(repr(states).encode(), digest_size=12).hexdigest()


async def _server_state(server: ServerPool, *, is_cluster: bool) -> _ServerState:
    commands: list[Command] = [("INFO", "server"), ("CLUSTER", "NODES")]
    answers = await server.execute(commands[: 1 + is_cluster])
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer
    [run_id] = [line for line in answers[0].split() if line.startswith(b"run_id:")]
    for line in answers[1].splitlines() if is_cluster else ():
        node_id, _, flags, _, _, _, epoch, _, *slots = line.split()
        if b"myself" in flags.split(b","):
            if any(each.startswith(b"[") for each in slots):
                raise TryAgainError("TRYAGAIN slots are moving")
            return _ServerState(run_id, node_id, epoch, tuple(slots))
    return _ServerState(run_id)
