"""A message that grows while an agent replies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agentscope.message import ContentBlock, ToolCallBlock

from session_history.records.markers import Marker
from session_history.runtimes.agentscope.produced import produced_block


class MessageAccumulator:
    """All blocks that a message ever had, also those that the agent dropped.

    :ivar index: the index of the message in its turn.
    :ivar content: the blocks as JSON. The list is replaced, never changed in place.
    """

    def __init__(self, index: int, content: Sequence[dict[str, Any]] = ()) -> None:
        self.index = index
        self.content: list[dict[str, Any]] = list(content)
        self._places: dict[int, int] = {}  # in the content, by the identity of the block
        self._seen: list[ContentBlock] = []  # kept alive, so that no other object gets its identity

    def take(self, blocks: Iterable[ContentBlock]) -> list[Marker]:
        """Add the blocks that are new. Of the known ones only calls change: their state.

        :returns: what they lack of what was produced.
        """
        self.content = list(self.content)
        lacks: list[Marker] = []
        for block in blocks:
            place = self._places.get(id(block))
            if place is None or isinstance(block, ToolCallBlock):
                at = len(self.content) if place is None else place
                value, markers = produced_block(block, f"messages[{self.index}].content[{at}]")
                self.content[at : at + 1] = [value]
                lacks += markers
            if place is None:
                self._see(block, len(self.content) - 1)
        return lacks

    def align(self, blocks: Sequence[ContentBlock]) -> None:
        """Identify blocks with those at the end of the content. The agent may have replaced some by others."""
        for place, block in enumerate(blocks, start=len(self.content) - len(blocks)):
            if id(block) not in self._places and place >= 0:
                self._see(block, place)

    def dropped(self, left: Sequence[ContentBlock]) -> int:
        """Return how many blocks the agent dropped from the beginning, given those that are left."""
        return self._places.get(id(left[0]), 0) if left else len(self.content)

    @property
    def has_orphan_result(self) -> bool:
        """Tell whether it holds a result without its call."""
        calls = {block["id"] for block in self.content if block["type"] == "tool_call"}
        return any(block["type"] == "tool_result" and block["id"] not in calls for block in self.content)

    def _see(self, block: ContentBlock, place: int) -> None:
        self._seen.append(block)
        self._places[id(block)] = place
