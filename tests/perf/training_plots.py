"""How the step grows with image tokens, responses and pairs, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training_parts import Play
from training_sides import BATCH, LARGE
from training_world import SMALL

SIDES = {"TRL": "tab:red", "rows": "tab:orange", "shared": "tab:blue"}


def draw(parts: Mapping[str, Sequence[Play]], path: Path) -> None:
    """Write an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "cwdpo", "font.size": 9}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    _by_image(axes[0], parts["against"], "pairs per CPU second", lambda side: BATCH / side.seconds)
    _by_image(axes[1], parts["against"], "peak resident memory, GB", lambda side: side.peak / 1e9)
    _by_count(axes[2], parts["pairs"][0], "pairs in a step")
    _by_count(axes[3], parts["negatives"][0], "rejected responses of a pair")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _by_image(axes: Any, plays: Sequence[Play], what: str, value: Any) -> None:
    for name, colour in SIDES.items():
        for response, style in ((16, "o-"), (64, "s--")):
            found = [play for play in plays if (play.point.response_tokens, play.point.vocabulary) == (response, SMALL)]
            x = [play.point.image_tokens for play in found]
            label = f"{name}, {response}-token responses"
            axes.plot(x, [value(play.sides[name]) for play in found], style, color=colour, label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"image tokens (from {LARGE} on fewer pairs a pass)",
        ylabel=what,
        xticks=x,
        xticklabels=x,
    )
    axes.legend(fontsize=7)


def _by_count(axes: Any, play: Play, what: str) -> None:
    x = [int(name) for name in play.sides]
    axes.plot(x, [side.seconds for side in play.sides.values()], "o-", color=SIDES["shared"])
    axes.set(xlabel=what, ylabel="CPU seconds a step", xticks=x, xlim=(0, None), ylim=(0, None))
    axes.set_title(f"at {play.point}", fontsize=9)
