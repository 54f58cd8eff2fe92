"""Building and entering images in tests: the project's own scripts, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
CLOSED = ("--cleanenv", "--containall", "--no-home")
"""What keeps everything of the host out."""


@dataclass(frozen=True)
class Apptainer:
    """A container program, and the environment in which the build script finds it."""

    program: str
    environment: Mapping[str, str]

    def run(self, *arguments: str | Path, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run it; what it printed and its exit status."""
        command = [self.program, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env={**self.environment}
        )

    def succeed(self, *arguments: str | Path, seconds: float = 300) -> str:
        """`run`, and what it printed; it must end well."""
        done = self.run(*arguments, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
        return done.stdout

    def build(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None, seconds: float = 1800
    ) -> subprocess.CompletedProcess[str]:
        """Run `containers/build.sh`; output and messages together in `stdout`."""
        return subprocess.run(
            self.building(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            env={**self.environment, **(environment or {})},
        )

    @staticmethod
    def building(*arguments: str | Path) -> list[str]:
        """The command line of the build script."""
        return [str(CONTAINERS / "build.sh"), *map(str, arguments)]


def find(program: str) -> Apptainer:
    """A container program, first on the PATH of what it is run with."""
    folder = Path(program).parent
    path = f"{folder}:{folder.parent / 'sbin'}:{os.environ['PATH']}"
    return Apptainer(program, {**os.environ, "PATH": path})


def left_behind(folder: Path) -> Sequence[str]:
    """Names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())
