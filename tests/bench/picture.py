"""The cost of a turn by the length of its session, drawn."""

from __future__ import annotations

import io
from pathlib import Path

Costs = dict[int, dict[str, float]]
"""Milliseconds by messages in the session and by store."""

TITLE = "Load 20 turns and append one"
STYLE = """
svg { color: #1b2530; fill: currentColor }
@media (prefers-color-scheme: dark) { svg { color: #e6ebf1 } }
"""


def draw(costs: Costs, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    lengths = sorted(costs)
    for name in costs[lengths[0]]:
        axes.plot(lengths, [costs[length][name] for length in lengths], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="messages in the session", ylabel="milliseconds a turn")
    axes.set_title(TITLE)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(frameon=False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(accessible(drawn.getvalue(), described(costs)), encoding="utf-8")


def described(costs: Costs) -> str:
    shortest, *_, longest = sorted(costs)
    stores = ", ".join(
        f"{name} {costs[shortest][name]:.2f} and {costs[longest][name]:.2f} ms" for name in costs[shortest]
    )
    return f"A turn in a session of {shortest:,} and of {longest:,} messages takes: {stores}."


def accessible(drawing: str, description: str) -> str:
    """Return a drawing of Matplotlib with text for screen readers, and with ink that suits light and dark pages."""
    before, tag, after = drawing.partition("<svg ")
    attributes, _, content = after.replace("#000000", "currentColor").partition(">")
    texts = f'<title id="title">{TITLE}</title>\n <desc id="description">{description}</desc>'
    role = 'role="img" aria-labelledby="title description"'
    return f"{before}{tag}{role} {attributes}>\n {texts}\n <style>{STYLE}</style>{content}"
