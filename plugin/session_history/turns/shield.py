"""Waiting for a task in a scope that was cancelled."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from typing import Any


async def wait_shielded(task: asyncio.Future[Any]) -> None:
    """Wait for a task. A scope of anyio that was cancelled cancels all that waits in it, again and again.

    Starlette and others cancel such a scope when a client disconnects. Without a shield the loop would spin.
    """
    anyio: Any = sys.modules.get("anyio")
    with nullcontext() if anyio is None else anyio.CancelScope(shield=True):
        await asyncio.wait([task])
