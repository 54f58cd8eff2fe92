"""How long the command line takes to start, beside an empty Python and the command lines of other tools."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import publish
from processes import Cost, Line, cheapest, cwdpo

EMPTY = "python -c pass"
OTHERS = ("trl", "accelerate", "torchrun", "transformers", "deepspeed", "mlflow")
"""Programs of other packages; those that are not installed are left out."""


def main() -> None:
    """Start everything in turns and write results/cli.md."""
    with tempfile.TemporaryDirectory() as home:
        costs = cheapest(lines(Path(home)), rounds=3)
    rows = [row(name, found, costs[EMPTY]) for name, found in costs.items()]
    publish(
        __file__, "Starting a command", ("what", "CPU seconds (best of 3)", "times empty Python", "MB"), rows, NOTES
    )


NOTES = (
    "Whole processes, files in the page cache. The demo grid has 10 cells; nothing of it was computed. The others only"
    " show their help. `cwdpo` imports torch in none of these (a test holds it to that)."
)


def lines(home: Path) -> dict[str, Line]:
    """Name -> command."""
    here = Path(sys.executable).parent
    others = {f"{name} --help": (here / name, "--help") for name in OTHERS if (here / name).exists()}
    return {
        EMPTY: (sys.executable, "-c", "pass"),
        "cwdpo --help": cwdpo("--help"),
        "cwdpo plan --help": cwdpo("plan", "--help"),
        "cwdpo plan --grid demo": cwdpo("plan", "--grid", "demo", "--home", home),
        "cwdpo status --grid demo": cwdpo("status", "--grid", "demo", "--home", home),
        "python -c 'import torch'": (sys.executable, "-c", "import torch"),
        **others,
    }


def row(name: str, found: Cost, empty: Cost) -> tuple[str, ...]:
    """One command."""
    return name, f"{found.seconds:.2f}", f"{found.seconds / empty.seconds:.0f}", f"{found.peak_mb:.0f}"


if __name__ == "__main__":
    main()
