"""What probing keeps on disk while all parameters are trained: distributions at the start, which no adapter gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cwdpo.base import files
from cwdpo.dynamics.settings import Probe
from cwdpo.experiment import Grid
from cwdpo.model.config import Checkpoint, FullTuning, checkpoint_folder

TOKENS = 16
"""Of a caption, end-of-turn included; longer answers take more in proportion."""

HALF = 2  # bytes


def starting_distributions(grid: Grid) -> str | None:
    """A sentence with the size, of the largest where cases differ; None where nothing of the kind is kept.

    The vocabulary of a tiny model is not known before it is made.
    """
    sizes = [(probe.samples, words) for probe, words in _probed(grid)]
    if not sizes:
        return None
    samples, words = max(sizes, key=lambda size: size[0] * size[1])
    return (
        f"probing keeps {samples * TOKENS * words * HALF / 1e9:.2f} GB beside each full training while it runs: the"
        f" starting distributions of {samples} answers of {TOKENS} tokens over {words:,} words, in half precision"
    )


def _probed(grid: Grid) -> Iterator[tuple[Probe, int]]:
    """Probes of full trainings, with the words of the model."""
    for cell in grid.cells:
        experiment = cell.experiment
        if experiment.probe and isinstance(experiment.tuning, FullTuning) and isinstance(experiment.model, Checkpoint):
            yield experiment.probe, _words(files.read_json(checkpoint_folder(experiment.model) / "config.json"))


def _words(config: dict[str, Any]) -> int:
    """Of a model's vocabulary; 0 where its configuration does not say."""
    text = config.get("text_config") or config
    return int(text.get("vocab_size") or config.get("vocab_size") or 0)
