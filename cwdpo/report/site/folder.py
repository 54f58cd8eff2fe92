"""The folder of a report: written whole, and never over files that no report wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, StoreError
from cwdpo.version import package_version

MARKER = "cwdpo-report.json"
"""Names every file of a report, so that the next one knows what it may replace."""

LEFT_BY_VIEWERS = {".DS_Store", "Thumbs.db"}
"""What file managers leave in a folder that somebody looks at."""


@contextmanager
def report_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends, in place of an earlier report.

    Raises:
        ConfigError: `folder` has files that are no report's; nothing is touched.
        StoreError: it cannot be written.
    """
    target = folder.resolve()  # a link to a folder stays a link
    check_replaceable(target)
    with files.folder_written_whole(target) as temporary:
        yield temporary
        files.write_json(temporary / MARKER, {"cwdpo": package_version(), "files": sorted(_names(temporary))})
        check_replaceable(target)  # somebody may have put a file there meanwhile


def check_replaceable(folder: Path) -> None:
    """Raise `ConfigError` unless a report may be written to `folder`: new, empty, or nothing but an earlier report."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the report")
    if foreign := sorted(_names(folder) - _own(folder)):
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise ConfigError(
            f"{folder} has {foreign[0]}{more}, which no report wrote and a new one would remove; name another folder,"
            " or move it away"
        )


def _names(folder: Path) -> set[str]:
    """All files below a folder, and links whatever they lead to."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    found = (path for path in found if path.name not in LEFT_BY_VIEWERS)
    return {path.relative_to(folder).as_posix() for path in found}


def _own(folder: Path) -> set[str]:
    """Files that the report there says are its own; none where no report is there."""
    try:
        found = files.read_json(folder / MARKER)
        return {*map(str, found["files"]), MARKER}
    except (StoreError, KeyError, TypeError):
        return set()
