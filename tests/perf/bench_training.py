"""Training steps side by side: TRL's DPOTrainer, our own plain way, and the shared prefix; what objectives cost.

All of it takes about half an hour on two cores with 12 GB of memory, and writes results/training.{json,md,svg};
`--quick` prints two points of the comparison with TRL in a few minutes and writes nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from measure import RESULTS, about, made_by
from training_parts import ALL, QUICK, Part, Play, against
from training_plots import draw
from training_tables import TABLES
from training_turns import THREADS
from training_world import World

from cwdpo.base import files

PACKAGES = ("torch", "transformers", "peft", "deepspeed", "trl", "accelerate", "datasets")
INTRODUCTION = (
    "A random Qwen2.5-VL of 19.6M parameters (75M with 151,936 words), LoRA of rank 16 on the language model, float32,"
    " 8 pairs a step, 480-pixel JPEG files. Every side is a process of its own with"
    f" OMP_NUM_THREADS={THREADS}, from the same adapter weights over the same batches; they take turns step by step,"
    " the others stopped. Medians of the steps after the first, in CPU seconds of all threads and workers: on a free"
    " core that is the time. Points are named image tokens / response tokens (without the end of the turn) / words."
)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two points beside TRL, nothing is written")
    quick = parser.parse_args(arguments).quick
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    with tempfile.TemporaryDirectory() as folder:
        found = play({"against": partial(against, points=QUICK)} if quick else ALL, World(Path(folder) / "world"))
    text = document(found)
    print(text)
    if not quick:
        files.write_text(RESULTS / "training.md", text)
        files.write_json(RESULTS / "training.json", {**about(__file__, PACKAGES), "parts": plain(found)})
        draw(found, RESULTS / "training.svg")


def play(parts: Mapping[str, Part], world: World) -> dict[str, list[Play]]:
    """Every part, one after the other."""
    return {name: part(world) for name, part in parts.items()}


def document(parts: Mapping[str, Sequence[Play]]) -> str:
    """Markdown."""
    sections = [f"## {TABLES[name][0]}\n\n{TABLES[name][1](plays)}" for name, plays in parts.items()]
    return "\n\n".join(["# Training", INTRODUCTION, *sections, made_by(__file__, PACKAGES)]) + "\n"


def plain(parts: Mapping[str, Sequence[Play]]) -> dict[str, Any]:
    """What was measured, for JSON."""
    return {name: [asdict(play) for play in plays] for name, plays in parts.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
