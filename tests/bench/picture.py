"""The cost of a turn by the length of its session, drawn."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure


def draw(costs: dict[int, dict[str, float]], path: Path) -> None:
    """:param costs: milliseconds by messages in the session and by store."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    lengths = sorted(costs)
    for name in costs[lengths[0]]:
        axes.plot(lengths, [costs[length][name] for length in lengths], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="messages in the session", ylabel="milliseconds a turn")
    axes.set_title("Load 20 turns and append one")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
