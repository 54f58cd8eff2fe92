"""Which version of this program is running."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COMMIT_FILE = "commit.json"
"""In a copy of this package, beside this file: what `code_version` said where the copy was made."""


def package_version() -> str:
    """The installed version."""
    try:
        return version("cwdpo")
    except PackageNotFoundError:
        return "0+unknown"


@cache
def code_version() -> dict[str, str | bool | None]:
    """Version, commit of the checkout the code runs from (None outside one), and whether it has uncommitted changes."""
    folder = Path(__file__).resolve().parent
    copied = folder / COMMIT_FILE
    if copied.exists():
        return dict(json.loads(copied.read_text(encoding="utf-8")))
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", str(folder)) if commit else None
    return {"version": package_version(), "commit": commit, "dirty": bool(changes) if commit else None}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
