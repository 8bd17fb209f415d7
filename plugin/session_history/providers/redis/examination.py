"""What a server says of itself when a provider starts."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from session_history.providers.redis.connections import Server
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.servers import Servers
from session_history.providers.redis.tls import check_files, speaks_none
from session_history_hooks import ConfigurationError, Durability, StoreReadOnly, Unavailable

logger: logging.Logger = logging.getLogger("session_history")

OLDEST = 7
"""Flags of scripts came with Redis 7.0; every Valkey has them, and says that it is a Redis 7.2."""


async def introduce(servers: Servers, options: RedisOptions) -> None:
    """Speak to servers for the first time.

    :raises ConfigurationError: files of TLS are none, or a server speaks no TLS; and as :func:`examine`.
    :raises StoreReadOnly: as there.
    """
    if options.place.tls:
        check_files(options)
    try:
        await servers.insist(lambda: examine(servers, options), starting=True)
    except Unavailable:
        if options.place.tls and await speaks_none(options.place.seeds[0]):
            raise ConfigurationError(f"{options.shown} speaks no TLS: write {options.plain_scheme}://") from None
        raise


async def examine(servers: Servers, options: RedisOptions) -> None:
    """See that all servers that are written to keep what the options claim, as far as they may be asked.

    :raises ConfigurationError: it does not, or is too old, or is not the kind of server that the URL names.
    :raises StoreReadOnly: it is a replica, or this user may not do what a provider does.
    """
    for server in await servers.masters():
        await _examine(server, options)


async def _examine(server: Server, options: RedisOptions) -> None:
    waiting = [("WAIT", 0, 0)] if options.wait_replicas else []
    settings = ("CONFIG", "GET", "appendfsync", "no-appendfsync-on-rewrite")
    info, config, *waited = await server.ask([("INFO",), settings, *waiting])
    if waited and isinstance(waited[0], NoPermissionError):
        raise StoreReadOnly(f"{options.shown} does not allow this user WAIT, which wait_replicas needs")
    if isinstance(info, NoPermissionError):
        logger.warning("%s: the user may not call INFO, so what it keeps could not be examined", options.shown)
        return
    if isinstance(info, ResponseError):
        raise info
    facts = _facts(info)
    _check_kind(facts, options)
    if options.durability is not Durability.PROCESS:
        _check_durability(facts, config, options)
    _check_eviction(facts, options)


def _facts(info: bytes) -> Mapping[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _check_kind(facts: Mapping[str, str], options: RedisOptions) -> None:
    version = re.match(r"\d+", facts.get("redis_version", ""))
    if version and int(version[0]) < OLDEST:
        raise ConfigurationError(f"{options.shown} is too old: Redis 7.0 or Valkey 7.2 is needed")
    if facts.get("cluster_enabled") == "1" and not options.place.cluster:
        raise ConfigurationError(f"{options.shown} belongs to a cluster: write redis+cluster:// or rediss+cluster://")
    if facts.get("role") == "slave" and not options.place.cluster:
        raise StoreReadOnly(f"{options.shown} is a replica that can not be written")


def _check_durability(facts: Mapping[str, str], config: Any, options: RedisOptions) -> None:
    if facts.get("aof_enabled") == "0":
        raise ConfigurationError(
            f"{options.shown} keeps no append-only file, so an acknowledged append does not survive its end:"
            " set appendonly yes, or durability=process"
        )
    if not isinstance(config, dict):
        logger.warning(
            "%s: the user may not call CONFIG GET, so durability=%s is not examined", options.shown, options.durability
        )
    elif options.durability is Durability.DISK:
        _check_disk(config, options)
    elif config.get(b"appendfsync") == b"everysec":
        # While the disk is slow, the server puts off its write(2), too, for up to two seconds.
        raise ConfigurationError(
            f"{options.shown} may answer before the system has got what it writes (appendfsync everysec), so an"
            " acknowledged append may not survive its end: set appendfsync no or always, or durability=process"
        )


def _check_disk(config: Mapping[bytes, bytes], options: RedisOptions) -> None:
    if config.get(b"appendfsync", b"always") != b"always":
        raise ConfigurationError(
            f"{options.shown} does not write to disk before it answers: set appendfsync always, or durability=process"
        )
    if config.get(b"no-appendfsync-on-rewrite") == b"yes":
        raise ConfigurationError(
            f"{options.shown} does not write to disk before it answers while its append-only file is rewritten:"
            " set no-appendfsync-on-rewrite no, or durability=host"
        )


def _check_eviction(facts: Mapping[str, str], options: RedisOptions) -> None:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys") or (policy.startswith("volatile") and options.ttl):
        logger.warning(
            "%s evicts keys when its memory is full (maxmemory-policy %s): sessions may be lost. Set noeviction",
            options.shown,
            policy,
        )
