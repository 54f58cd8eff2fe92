"""Installed packages beside the locks of the checkout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cwdpo
from cwdpo.jobs.doctor.check import Finding, ok, unchecked, warning

LOCKS = ("torch.lock", "requirements.lock")
SHOWN = 4


def lock_folder() -> Path | None:
    """`containers/` of the checkout this package runs from; None outside of one."""
    folder = Path(cwdpo.__file__).resolve().parents[1] / "containers"
    return folder if all((folder / name).is_file() for name in LOCKS) else None


def lock_digest(folder: Path) -> str:
    """Hex SHA-256 of the locks, as an image carries it in its label `cwdpo.lock`."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in LOCKS)).hexdigest()


def pinned(folder: Path) -> dict[str, str]:
    """Package -> version that the locks name."""
    text = "\n".join((folder / name).read_text(encoding="utf-8") for name in LOCKS)
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


def check_packages(wanted: Mapping[str, str]) -> Iterator[Finding]:
    """Versions of this environment beside those that were tested."""
    if not wanted:
        yield unchecked("packages", "this cwdpo runs from no checkout, so there are no locks to compare with")
        return
    found = {name: _installed(name) for name in wanted}
    wrong = [
        f"{name} {have or 'missing'} (pinned: {wanted[name]})"
        for name, have in found.items()
        if have is None or _public(have) != _public(wanted[name])
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        text = f"{len(wrong)} of {len(wanted)} differ from the lock: {', '.join(wrong[:SHOWN])}{more}"
        yield warning("packages", text, "make setup, or make container, from this checkout")
    else:
        yield ok("packages", f"all {len(wanted)} as pinned")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _public(text: str) -> str:
    """Without the local part, which names the build: 2.13.0+cpu is 2.13.0."""
    return text.partition("+")[0]
