"""The identity of a store."""

from __future__ import annotations

from dataclasses import dataclass

from session_history_hooks.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Shard:
    """The place of a store among the shards of a sharded one.

    :ivar number: 0 for the first shard.
    :ivar count: the number of shards.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ConfigurationError(f"there is no shard {self.number} of {self.count}")

    def __str__(self) -> str:
        return f"{self.number} of {self.count}"


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The identity of a store.

    :ivar incarnation: unique; made when the store was made, or the server's own. A store that lost all it held has
        another one. 1 to 512 characters.
    :ivar format: the version of the layout in which the store keeps its data; 1 or more.
    :ivar shard: the place that the store took among shards; ``None`` for a store of its own.
    """

    incarnation: str
    format: int
    shard: Shard | None = None
