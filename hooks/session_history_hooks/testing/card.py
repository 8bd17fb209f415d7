"""A provider on a card: what its limits claim, and what a turn takes in this run."""

from __future__ import annotations

import statistics
import time
from dataclasses import fields

from session_history_hooks import Durability, Limits, Position, SessionHistoryProvider
from session_history_hooks.testing.subject import KEY, Subject, append, covering, fill

SURVIVES = {
    Durability.PROCESS: "nothing: it is gone with the process that keeps it",
    Durability.HOST: "the death of the process that keeps it",
    Durability.DISK: "a power cut",
}

TURNS = 30
WINDOW = 20


def claims(limits: Limits) -> dict[str, str]:
    """A line of the card for each field of the limits."""
    together = "together" if limits.atomic_head else "perhaps apart, for a moment"
    remembered = limits.remembered_ids
    return {
        "durability": f"an acknowledged append survives | {SURVIVES[limits.durability]}",
        "atomic_head": f"entry and head are seen | {together}",
        "entry_bytes": f"an entry holds | {limits.entry_bytes:,} bytes",
        "summary_bytes": f"a summary holds | {limits.summary_bytes:,} bytes",
        "entries": f"a session holds | {limits.entries:,} entries",
        "page": f"a page holds | {limits.page:,} entries, or heads of a listing",
        "remembered_ids": f"ids are remembered | {'all' if remembered is None else f'the newest {remembered:,}'}",
    }


def card(name: str, limits: Limits, turn: str) -> str:
    """A table of Markdown."""
    lines = [*claims(limits).values(), f"a turn in this run | {turn}"]
    return "\n".join([f"| `{name}` | |", "|---|---|", *(f"| {line} |" for line in lines)])


class CardContract(Subject):
    """Prints the card: ``pytest -rP -k test_its_card``."""

    async def test_its_card(self, provider: SessionHistoryProvider) -> None:
        await fill(provider, WINDOW)
        loads, appends = [], []
        for number in range(WINDOW + 1, WINDOW + TURNS + 1):
            began = time.perf_counter()
            log = await provider.read(KEY, last=WINDOW)
            loaded = time.perf_counter()
            await append(provider, number, covering(number))
            loads.append(loaded - began)
            appends.append(time.perf_counter() - loaded)
            assert log is not None
            assert log.head.tail == Position(0, number - 1)
        load, store = (f"{1000 * statistics.median(times):.2f} ms" for times in (loads, appends))
        print(card(type(provider).__name__, provider.limits, f"load of {WINDOW} entries {load}, append {store}"))  # noqa: T201
        assert set(claims(provider.limits)) == {field.name for field in fields(Limits)}
