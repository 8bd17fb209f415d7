"""Checks of the servers when a provider starts."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from redis.exceptions import BusyLoadingError, NoPermissionError, ResponseError

from session_history.providers.redis.client import Client
from session_history.providers.redis.options import RedisOptions
from session_history.providers.redis.pool import ServerPool
from session_history.providers.redis.tls import answers_plain_text, check_files
from session_history_hooks import ConfigurationError, Durability, StoreReadOnly, Unavailable

logger: logging.Logger = logging.getLogger("session_history")

OLDEST = 7
"""Flags of scripts require Redis 7.0. Every Valkey has them, and reports a Redis version of 7.2."""


async def check_store(client: Client, options: RedisOptions) -> None:
    """Connect for the first time, and check that all masters are fit for the options.

    :raises ConfigurationError: a server keeps less than the options claim, is too old, speaks no TLS or is of another
        kind than the URL says; or a file of TLS is not usable.
    :raises StoreReadOnly: a server is a replica, or the user lacks a right.
    :raises Unavailable: no server could be used in time.
    """
    if options.parts.tls:
        check_files(options)
    try:
        await client.retry(lambda: _check_masters(client, options), starting=True)
    except Unavailable:
        if options.parts.tls and await answers_plain_text(options.parts.addresses[0]):
            raise ConfigurationError(f"{options.redacted_url} speaks no TLS: write {options.plain_scheme}://") from None
        raise


async def _check_masters(client: Client, options: RedisOptions) -> None:
    for server in await client.masters():
        await _check_server(server, options)


async def _check_server(server: ServerPool, options: RedisOptions) -> None:
    waiting = [("WAIT", 0, 0)] if options.wait_replicas else []
    settings = ("CONFIG", "GET", "appendfsync", "no-appendfsync-on-rewrite")
    info, config, *waited = await server.execute([("INFO",), settings, *waiting])
    if waited and isinstance(waited[0], NoPermissionError):
        raise StoreReadOnly(f"{options.redacted_url} does not allow this user WAIT, which wait_replicas requires")
    if isinstance(info, NoPermissionError):
        logger.warning("%s: the user may not call INFO, so the server was not checked", options.redacted_url)
        return
    if isinstance(info, ResponseError):
        raise info
    facts = _facts(info)
    if facts.get("loading") == "1":  # it says meanwhile that it keeps no append-only file
        raise BusyLoadingError("the server loads its data")
    _check_kind(facts, options)
    if options.durability is not Durability.PROCESS:
        _check_durability(facts, config, options)
    _check_eviction(facts, options)


def _facts(info: bytes) -> Mapping[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _check_kind(facts: Mapping[str, str], options: RedisOptions) -> None:
    url = options.redacted_url
    version = re.match(r"\d+", facts.get("redis_version", ""))
    if version and int(version[0]) < OLDEST:
        raise ConfigurationError(f"{url} is too old: the provider requires Redis 7.0 or Valkey 7.2")
    if facts.get("cluster_enabled") == "1" and not options.parts.cluster:
        raise ConfigurationError(f"{url} belongs to a cluster: write redis+cluster:// or rediss+cluster://")
    if facts.get("role") == "slave" and not options.parts.cluster:
        raise StoreReadOnly(f"{url} is a replica and cannot be written")


def _check_durability(facts: Mapping[str, str], config: Any, options: RedisOptions) -> None:
    url = options.redacted_url
    if facts.get("aof_enabled") == "0":
        raise ConfigurationError(
            f"{url} keeps no append-only file, so an acknowledged append does not survive the end of the server:"
            " set appendonly yes, or durability=process"
        )
    if not isinstance(config, dict):
        logger.warning(
            "%s: the user may not call CONFIG GET, so durability=%s was not checked", url, options.durability
        )
    elif options.durability is Durability.DISK:
        _check_disk(config, options)
    elif config.get(b"appendfsync") == b"everysec":
        # While the disk is slow, the server delays its write(2), too, for up to two seconds.
        raise ConfigurationError(
            f"{url} may answer before it has written to its append-only file (appendfsync everysec), so an"
            " acknowledged append may not survive the end of the server: set appendfsync no or always, or"
            " durability=process"
        )


def _check_disk(config: Mapping[bytes, bytes], options: RedisOptions) -> None:
    url = options.redacted_url
    if config.get(b"appendfsync", b"always") != b"always":
        raise ConfigurationError(
            f"{url} does not write to disk before it answers: set appendfsync always, or durability=process"
        )
    if config.get(b"no-appendfsync-on-rewrite") == b"yes":
        raise ConfigurationError(
            f"{url} does not write to disk before it answers while it rewrites its append-only file:"
            " set no-appendfsync-on-rewrite no, or durability=host"
        )


def _check_eviction(facts: Mapping[str, str], options: RedisOptions) -> None:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys") or (policy.startswith("volatile") and options.ttl):
        logger.warning(
            "%s evicts keys when its memory is full (maxmemory-policy %s), so sessions may be lost: set noeviction",
            options.redacted_url,
            policy,
        )
