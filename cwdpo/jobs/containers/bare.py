"""No container: a Python environment that every node sees."""

from __future__ import annotations

import sys
from typing import Literal

from cwdpo.base.config import Config


class Bare(Config):
    """A virtual environment on a file system that login and compute nodes share."""

    name: Literal["bare"] = "bare"
    python: str | None = None
    """Interpreter on the compute nodes; the one that runs `submit` where nothing is said."""

    def python_command(self) -> list[str]:
        """How a rank starts Python."""
        return [self.python or sys.executable]
