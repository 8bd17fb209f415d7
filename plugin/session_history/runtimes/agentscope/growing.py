"""A message of a turn that grows, as the message of a reply does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agentscope.message import ContentBlock, ToolCallBlock

from session_history.runtimes.agentscope.messages import dumped


class MessageAccumulator:
    """All the blocks that a message ever had, also those that the agent no longer keeps.

    :ivar index: which message of the turn it is.
    :ivar content: the blocks as JSON. The list is never changed, but replaced.
    """

    def __init__(self, index: int, content: Sequence[dict[str, Any]] = ()) -> None:
        self.index = index
        self.content: list[dict[str, Any]] = list(content)
        self._places: dict[int, int] = {}  # of the blocks that were seen, by their identity
        self._seen: list[ContentBlock] = []  # lest another object gets the identity of one of them

    def take(self, blocks: Iterable[ContentBlock]) -> None:
        """Add the blocks that are new. Of the others only calls change: what became of them.

        :raises NotStorable: a block would not come back equal. Those ahead of it were added.
        """
        self.content = list(self.content)
        for block in blocks:
            if id(block) not in self._places:
                self.content.append(dumped(block, f"block {block.id!r}"))
                self._see(block, len(self.content) - 1)
            elif isinstance(block, ToolCallBlock):
                self.content[self._places[id(block)]] = dumped(block, f"block {block.id!r}")

    def align(self, blocks: Sequence[ContentBlock]) -> None:
        """Take blocks for those at the end, whatever the agent put in place of some of them."""
        for place, block in enumerate(blocks, start=len(self.content) - len(blocks)):
            if id(block) not in self._places and place >= 0:
                self._see(block, place)

    def ahead_of(self, blocks: Sequence[ContentBlock]) -> int:
        """How many blocks the agent no longer keeps that has these left."""
        return self._places.get(id(blocks[0]), 0) if blocks else len(self.content)

    @property
    def has_strays(self) -> bool:
        """Whether it holds a result without its call."""
        calls = {block["id"] for block in self.content if block["type"] == "tool_call"}
        return any(block["type"] == "tool_result" and block["id"] not in calls for block in self.content)

    def _see(self, block: ContentBlock, place: int) -> None:
        self._seen.append(block)
        self._places[id(block)] = place
