"""Which benchmarks are ready: what a user downloaded, read once and written down in `<home>/benchmarks/`.

A receipt holds where the files lie, what was counted and the digest of the data: SHA-256 of the annotation files, path
and size of the images. Grids name benchmarks only; what lies where is no part of what is computed.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import ConfigError, DataError, StoreError
from cwdpo.base.identity import digest
from cwdpo.data.sources import DataSource
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import PreparedCaptions
from cwdpo.evaluate.reading.download import DEPTH, Download

FOLDER = "benchmarks"
"""Of a home."""
HUB = "hub"
"""In place of a folder: the copy on the Hugging Face hub."""
SHOWN = 10
"""Missing images that an error names."""

SOME = 3
"""Categories whose differing counts are said one by one."""

Preparable = Questions | PreparedCaptions


@dataclass(frozen=True)
class Prepared:
    """A benchmark that is ready.

    Attributes:
        settings: what decides which items it has, such as a version; {} for the defaults.
        root: the folder of the download.
        digest: of the data.
        counts: items by category.
        annotations: file, relative to the root -> its size, time of change (ns) and SHA-256.
        images: how many images lie beside the annotations.
        notes: what is not as published.
        data: the data set, of a captioning benchmark.
    """

    benchmark: str
    settings: Mapping[str, Any]
    root: str
    digest: str
    counts: Mapping[str, int]
    annotations: Mapping[str, tuple[int, int, str]]
    images: int
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """Its name, and its settings where they are not the defaults."""
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.benchmark} ({settings})" if settings else self.benchmark

    def check(self) -> None:
        """Raise `ConfigError` where the files are not those that were prepared."""
        for name, (size, changed, _) in self.annotations.items():
            path = Path(self.root) / name
            try:
                stat = path.stat()
            except OSError as error:
                raise ConfigError(f"benchmark '{self.benchmark}': {path}: {error.strerror}; {self._again}") from error
            if (stat.st_size, stat.st_mtime_ns) != (size, changed):
                raise ConfigError(
                    f"benchmark '{self.benchmark}': {path} has changed since it was prepared; {self._again}"
                )

    @property
    def _again(self) -> str:
        return f"say where it lies now: {command(self.benchmark, self.settings)}"


def command(name: str, settings: Mapping[str, Any], root: str = "FOLDER") -> str:
    """What makes a benchmark ready."""
    sets = "".join(f" --set {shlex.quote(f'{key}={value}')}" for key, value in settings.items())
    return f"cwdpo data prepare {name} --from {shlex.quote(root)}{sets}"


def ways(kind: type[Preparable], name: str, settings: Mapping[str, Any]) -> str:
    """The commands that make a benchmark ready, one of them from the hub where it has a copy."""
    hub = f", or: {command(name, settings, HUB)}" if getattr(kind, "hub", None) else ""
    return command(name, settings) + hub


def digest_of(download: Download) -> str:
    """Of what was read: the bytes of annotation files, paths and sizes of images."""
    annotations = [[name, files.sha256_file(download.root / name)] for name in sorted(download.files)]
    return digest([*annotations, sorted(download.images.items())])


def settings_of(benchmark: Preparable) -> dict[str, Any]:
    """What decides which items it has, where it is not the default."""
    fields = type(benchmark).model_fields
    names = benchmark.reads if isinstance(benchmark, Questions) else ("split",)
    return {name: getattr(benchmark, name) for name in names if getattr(benchmark, name) != fields[name].default}


def receipt_of(benchmark: Preparable, folder: Path) -> Path:
    """Where it is written down; `folder` is that of all receipts."""
    settings = "".join(f",{key}={value}" for key, value in settings_of(benchmark).items())
    return folder / f"{benchmark.name}{settings.replace('/', '%2F')}.json"


def find_prepared(benchmark: Preparable, folder: Path) -> Prepared:
    """The receipt of a benchmark; `Prepared.check` tells whether the files are still the same.

    Raises:
        ConfigError: it was not prepared in this home.
    """
    path = receipt_of(benchmark, folder)
    if not path.exists():
        again = command(benchmark.name, settings_of(benchmark))
        others = [one for one in all_prepared(folder) if one.benchmark == benchmark.name]
        beside = f" (other settings are: {', '.join(one.title for one in others)})" if others else ""
        raise ConfigError(
            f"benchmark '{benchmark.name}' is not ready in {folder.parent}{beside}; download {benchmark.source},"
            f" then run: {again}"
        )
    return _read(path)


def all_prepared(folder: Path) -> list[Prepared]:
    """Every receipt, by name."""
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def prepare(benchmark: Preparable, root: Path, folder: Path) -> Prepared:
    """Read a download as scoring will, check it, and write the receipt.

    Raises:
        DataError: the files are wrong or images are missing; a file beside the receipt then lists them all.
    """
    download = Download(root.expanduser().resolve())
    path = receipt_of(benchmark, folder)
    counts, data = _counted(benchmark, download)
    _check_missing(download, path.with_suffix(".missing.txt"))
    annotations = {name: _stamp(download.root / name) for name in sorted(download.files)}
    made = Prepared(
        benchmark.name,
        settings_of(benchmark),
        str(download.root),
        digest_of(download),
        counts,
        annotations,
        len(download.images),
        tuple(unlike_published(benchmark, download, counts)),
        None if data is None else data.model_dump(mode="json"),
    )
    files.write_json(path, asdict(made))
    return made


def _counted(benchmark: Preparable, download: Download) -> tuple[dict[str, int], DataSource | None]:
    """Items by category, and the data set of captions."""
    if isinstance(benchmark, Questions):
        questions = benchmark.loaded(download)
        return dict(Counter(question.category for question in questions)), None
    data, counts = benchmark.prepared(download)
    return counts, data


def _check_missing(download: Download, listing: Path) -> None:
    listing.unlink(missing_ok=True)
    if not download.missing:
        return
    names = list(dict.fromkeys(download.missing))
    files.write_text(listing, "".join(f"{name}\n" for name in names))
    shown = "".join(f"\n  {name}" for name in names[:SHOWN])
    found = len(download.images)
    raise DataError(
        f"{download.root}: {len(names)} of {len(names) + found} images are missing or empty:{shown}\nall of them:"
        f" {listing}\nAnnotations and images must lie in this folder or {DEPTH} folders below it; links will do."
    )


def unlike_published(benchmark: Preparable, download: Download, counts: Mapping[str, int]) -> list[str]:
    """What is not as published; benchmarks change, so that it is said and not refused.

    Args:
        counts: items by category.
    """
    known = benchmark.published if isinstance(benchmark, Questions) or not settings_of(benchmark) else {}
    notes = [
        f"{category or 'all'}: {counts.get(category, 0):,} items, published are {count:,}"
        for category, count in known.items()
        if counts.get(category, 0) != count
    ]
    if len(notes) > SOME:
        total, published = sum(counts.values()), sum(known.values())
        notes = [f"{total:,} items, published are {published:,}; {len(notes)} of {len(known)} categories differ"]
    return notes + _other_bytes(benchmark, download)


def _other_bytes(benchmark: Preparable, download: Download) -> list[str]:
    """Files whose published MD5 is known and another one."""
    notes = []
    known = {
        name: benchmark.checksums[Path(name).name] for name in download.files if Path(name).name in benchmark.checksums
    }
    for name, expected in known.items():
        with open(download.root / name, "rb") as file:
            found = file_digest(file, "md5").hexdigest()
        if found != expected:
            notes.append(f"{name}: MD5 {found}, published is {expected}")
    return notes


def _stamp(path: Path) -> tuple[int, int, str]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, files.sha256_file(path)


def _read(path: Path) -> Prepared:
    content = files.read_json(path)
    try:
        annotations = {name: tuple(stamp) for name, stamp in content["annotations"].items()}
        return Prepared(**{**content, "annotations": annotations, "notes": tuple(content["notes"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{path} is damaged; remove it and prepare the benchmark again") from error
