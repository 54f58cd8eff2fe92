"""No container: a Python environment that every node sees."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from cwdpo.base.config import Config
from cwdpo.jobs.containers.host import Host


class Bare(Config):
    """A virtual environment on a file system that login and compute nodes share."""

    name: Literal["bare"] = "bare"
    python: str | None = None
    """Interpreter on the compute nodes; the one that runs `submit` where nothing is said."""

    @property
    def image(self) -> None:
        """There is none."""

    def enter(self, arguments: Sequence[str], host: Host) -> list[str]:
        """Command that starts Python with `arguments`."""
        return [self.python or sys.executable, *arguments]
