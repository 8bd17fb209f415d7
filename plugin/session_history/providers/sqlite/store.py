"""The identity of the store in a file."""

from __future__ import annotations

import sqlite3

from session_history_hooks import Corrupt, Shard, StoreInfo
from session_history_hooks.stored import checked_info


def info(connection: sqlite3.Connection) -> StoreInfo:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    row = connection.execute("SELECT incarnation, shard_number, shard_count FROM store").fetchone()
    try:
        incarnation, number, count = row
        return checked_info(StoreInfo(incarnation, version, None if number is None else Shard(number, count)))
    except (TypeError, ValueError):
        raise Corrupt("the identity of the store is missing or unreadable") from None


def take(connection: sqlite3.Connection, shard: Shard) -> StoreInfo:
    """Take a place among shards if the store has none. Return the store with the place that it has."""
    connection.execute(
        "UPDATE store SET shard_number = ?, shard_count = ? WHERE shard_number IS NULL", (shard.number, shard.count)
    )
    return info(connection)
