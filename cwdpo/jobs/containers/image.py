"""The image that jobs run in: told by its digest, kept under a name of its own, known by a stage that runs in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import ConfigError
from cwdpo.base.identity import digest
from cwdpo.jobs.containers.sif import check_sif, labels_of

REVISION = "org.opencontainers.image.revision"
VARIABLE = "CWDPO_IMAGE"
"""Tells a process in an image which one it is."""

LABELS_INSIDE = Path("/.singularity.d/labels.json")


@dataclass(frozen=True)
class Image:
    """One image file at one moment.

    Attributes:
        path: the file that jobs run.
        digest: `sha256:` and 64 hexadecimal digits.
        size: bytes.
        modified: seconds since 1970, as `stat` shows them on a node.
        labels: what its builder said of it.
    """

    path: str
    digest: str
    size: int
    modified: int
    labels: Mapping[str, str]

    @property
    def short(self) -> str:
        """The digest as tables show it."""
        return short(self.digest)

    def as_json(self) -> dict[str, Any]:
        """For files; `Image(**...)` reads it."""
        return asdict(self)


def short(value: str) -> str:
    """`sha256:0123456789ab` of a digest."""
    return value[: len("sha256:") + 12]


def named(provenance: Mapping[str, Any]) -> str:
    """How people call the image that a stage was computed in."""
    found = provenance.get("image")
    if not isinstance(found, dict) or not found:
        return "no image"
    told = found.get("digest")
    return short(str(told)) if told else f"{found.get('file')}, entered by hand"


def identify(path: Path, cache: Path) -> Image:
    """What an image file is. Its digest is computed once (10 GB take half a minute) and kept in the folder `cache`.

    Raises:
        ConfigError: not there, no SIF file, or not a whole one; says which.
    """
    check_sif(path)
    stat = path.stat()
    key = digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino])[:16]
    kept = cache / f"image-{key}.json"
    if not kept.exists():
        files.write_json(kept, {"digest": f"sha256:{files.sha256_file(path)}", "path": str(path)})
    found = files.read_json(kept)["digest"]
    return Image(str(path), found, stat.st_size, _seconds(path), labels_of(path))


def keep(image: Image, folder: Path, cache: Path) -> Image:
    """The image under a name that stays: what was submitted runs, even after a new image took the old one's name.

    A second name (hard link) in `folder` takes no space. Where the file system does not allow one, jobs use the file
    itself, and refuse to run when it has changed.

    Args:
        folder: of the names that stay.
        cache: as in `identify`.
    """
    target = folder / f"{image.digest.removeprefix('sha256:')[:16]}.sif"
    if target.exists() and not _holds(target, image, cache):
        target.unlink()  # somebody wrote over the file that it was a name of
    if not target.exists():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            os.link(Path(image.path).resolve(), target)
    return replace(image, path=str(target), modified=_seconds(target)) if target.exists() else image


def _holds(path: Path, image: Image, cache: Path) -> bool:
    try:
        return path.samefile(image.path) or identify(path, cache).digest == image.digest
    except ConfigError:
        return False


def _seconds(path: Path) -> int:
    """When a file was written, as `stat` on a node prints it."""
    return path.stat().st_mtime_ns // 10**9


def image_here(environ: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """The image this process runs in, for provenance; None outside of one.

    The digest is None where the image was entered by hand: a process in it cannot see the file.
    """
    name = environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER")
    if name is None:
        return None
    labels = json.loads(LABELS_INSIDE.read_text(encoding="utf-8")) if LABELS_INSIDE.exists() else {}
    return {
        "digest": environ.get(VARIABLE), "file": Path(name).name, "revision": labels.get(REVISION),
        "lock": labels.get("cwdpo.lock"),
    }  # fmt: skip
