"""The last reports of a home, for as long as nothing that they were made from has changed.

A memo holds what a report printed and wrote, every file and folder that was looked at for it, and one digest of their
stamps as they were right before (`base.trail`). The same report is asked for again: where all of them have the same
stamps now, it is what was printed, and neither the grid nor the store is read. What the memo itself is named after is
all that is no file: options, folder, user, machine, the code of this package, versions, the environment, the screen.

There is no memo of what holds only for a moment (a stage at work, a queue), nor of what changed a moment ago.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.trail import Trail, digest_now
from cwdpo.version import code_version

PACKAGE = Path(__file__).resolve().parent.parent
FOLDER = "cache/reports"
"""Of a home."""
KEPT = 8
"""So many of a home, the newest ones."""

SETTINGS = (
    "COLORTERM", "COLUMNS", "FORCE_COLOR", "HOME", "LANG", "LINES", "NO_COLOR", "TERM", "TZ", "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)  # fmt: skip
PREFIXES = ("CWDPO_", "HF_", "HUGGINGFACE_", "LC_", "PYTHON", "TRANSFORMERS_", "XDG_")
"""Variables that may change what is found, or how it is shown."""

_DIGEST = 64  # hex digits of SHA-256


@dataclass(frozen=True)
class Said:
    """What a report printed and wrote.

    Attributes:
        written: path -> text.
    """

    printed: str
    written: Mapping[str, str]

    def write(self) -> None:
        """The files, as far as they are not what they should be."""
        for path, text in self.written.items():
            if _content(Path(path)) != text.encode():
                files.write_text(Path(path), text)


@dataclass(frozen=True)
class Memo:
    """A report that may have been made before.

    Attributes:
        options: everything that was asked for.
    """

    home: Path
    options: Mapping[str, Any]

    @cached_property
    def path(self) -> Path:
        """Where it is kept."""
        about = {"home": os.path.abspath(self.home), "options": dict(self.options), **_circumstances()}
        name = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        return self.home / FOLDER / f"{name[:32]}.z"

    def find(self) -> Said | None:
        """The report, if it would be the same now."""
        content = _content(self.path)
        if content is None or hashlib.sha256(content[_DIGEST:]).hexdigest().encode() != content[:_DIGEST]:
            return None
        found = json.loads(zlib.decompress(content[_DIGEST:]))
        same = digest_now(found["paths"]) == found["stamps"]
        return Said(found["printed"], found["written"]) if same else None

    def keep(self, said: Said, trail: Trail) -> None:
        """For the next time, where it can be told then whether it still holds; a home may be read-only."""
        if not trail.lasting:
            return
        content = {"paths": list(trail.stamps), "stamps": trail.digest, **asdict(said)}
        packed = zlib.compress(json.dumps(content).encode(), level=1)
        with suppress(StoreError, OSError):
            files.write_bytes(self.path, hashlib.sha256(packed).hexdigest().encode() + packed)
            _forget_old(self.path.parent)


def _forget_old(folder: Path) -> None:
    found = sorted(folder.glob("*.z"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-KEPT]:
        path.unlink(missing_ok=True)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _circumstances() -> dict[str, Any]:
    """What a report depends on beside files that it looks at."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    names = [name for name in os.environ if name in SETTINGS or name.startswith(PREFIXES)]
    return {
        "folder": os.getcwd(), "host": os.uname().nodename, "user": [os.geteuid(), os.getegid(), os.getgroups()],
        "code": code_version(), "sources": digest_now(_sources()), "python": [sys.version, sys.prefix, sys.path],
        "packages": digest_now(packages),
        "environment": {name: os.environ[name] for name in names},
        "screen": [sys.stdout.isatty(), sys.stdout.encoding, *shutil.get_terminal_size()],
    }  # fmt: skip


def _sources() -> Iterator[str]:
    """All that belongs to this package, without what Python compiles of it."""
    for folder, inner, names in os.walk(PACKAGE):
        inner[:] = sorted(name for name in inner if name != "__pycache__")
        yield from (f"{folder}/{name}" for name in sorted(names))
