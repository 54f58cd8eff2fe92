"""What the genuine formats of all benchmarks share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from cwdpo.base.config import Config
from cwdpo.data.demo_benchmarks.scenes import Seen


class Format(Config):
    """The files of a benchmark, in the format in which it is published, about generated scenes.

    Its fields are those settings of the benchmark that decide how the files are written.
    """

    name: str
    """A literal in each format: the benchmark's name."""

    @abstractmethod
    def write(self, scenes: Sequence[Seen], folder: Path) -> None:
        """Write annotations with true answers, and the images beside or inside them, below an empty folder."""
