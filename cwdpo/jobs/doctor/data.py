"""The data and the models of a grid: there, readable and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.config import Config
from cwdpo.base.errors import DataError, ModelError
from cwdpo.data.records import Record
from cwdpo.data.sources import DataSource, Demo, Files, data_root
from cwdpo.experiment import Grid, evaluated_on
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok
from cwdpo.model.config import Checkpoint, checkpoint_folder

DECODED = 64
"""Images that are opened; the stage `pairs` opens all."""
LOOKED_AT = 2000
"""Images that are looked for."""


class Assets(Config):
    """Data sets and models outside the store, each once."""

    data: tuple[DataSource, ...] = ()
    models: tuple[Checkpoint, ...] = ()

    @property
    def outside(self) -> list[Files]:
        """Data sets that are not made by a stage."""
        return [source for source in self.data if not isinstance(source, Demo)]


def assets_of(grid: Grid) -> Assets:
    """What the cells of a grid read."""
    experiments = [cell.experiment for cell in grid.cells]
    data = [experiment.data for experiment in experiments if experiment.data]
    data += [source for one in experiments for source in evaluated_on(one)]
    models = [experiment.model for experiment in experiments if isinstance(experiment.model, Checkpoint)]
    return Assets(data=tuple(dict.fromkeys(data)), models=tuple(dict.fromkeys(models)))


def check_assets(assets: Assets) -> Iterator[Finding]:
    """Every data set and every model."""
    for source in assets.outside:
        yield from guarded(_name(source), check_data, source)
    for model in assets.models:
        yield from guarded(f"model {model.path}", check_model, model)
    if len(assets.outside) < len(assets.data):
        yield ok("data", "made by the grid itself: nothing to check")


def _name(source: Files) -> str:
    return f"data {source.root / source.annotations}"


def check_data(source: Files) -> Iterator[Finding]:
    """The annotation file whole, and a sample of the images."""
    name = _name(source)
    try:
        records = source.read(data_root(source))
    except DataError as error:
        yield failure(name, str(error), "correct or copy the annotation file again")
        return
    images = sorted({record.image for record in records})
    yield ok(name, f"{len(records):,} records of {len(images):,} images ({_splits(records)})")
    yield _images(source, images)


def _splits(records: Sequence[Record]) -> str:
    counts = {split: sum(record.split == split for record in records) for split in ("train", "val", "test")}
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def _images(source: Files, images: Sequence[str]) -> Finding:
    from cwdpo.data.images import check_images

    root, name = source.root.expanduser(), f"images {source.root}"
    looked_at, decoded = sample(images, LOOKED_AT), sample(images, DECODED)
    try:
        check_images(root, looked_at, "exists")
        check_images(root, decoded, "decode")
    except DataError as error:
        return failure(name, str(error), "copy these images again, or leave them out of the annotation file")
    return ok(name, f"{len(looked_at):,} of {len(images):,} looked for and there, {len(decoded)} of them decoded")


def sample(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of them, evenly spaced, first and last included."""
    if len(names) <= count:
        return list(names)
    return [names[number * (len(names) - 1) // (count - 1)] for number in range(count)]


def check_model(model: Checkpoint) -> Iterator[Finding]:
    """Configuration, processor, and every shard in the size its header says."""
    name = f"model {model.path}"
    try:
        folder = checkpoint_folder(model)
        count, size = _weights(folder)
    except ModelError as error:
        yield failure(name, str(error), "")
        return
    yield ok(name, f"configuration, processor and {count} file(s) of weights, {size / 1e9:.1f} GB, in {folder}")


def _weights(folder: Path) -> tuple[int, int]:
    """Number and bytes of the files with weights.

    Raises:
        ModelError: one is cut off, or lacks a tensor of the index.
    """
    wanted = _index(folder)
    names = sorted(wanted or {path.name for path in folder.glob("*.safetensors")})
    for name in names:
        _check_shard(folder / name, wanted.get(name, set()))
    return len(names), sum((folder / name).stat().st_size for name in names)


def _index(folder: Path) -> dict[str, set[str]]:
    """File -> tensors it must hold; empty where there is no index."""
    found: dict[str, set[str]] = {}
    for path in folder.glob("*.safetensors.index.json"):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path}: no index of weights ({error}); copy the model again") from error
        for tensor, file in entries.items():
            found.setdefault(file, set()).add(tensor)
    return found


def _check_shard(path: Path, tensors: set[str]) -> None:
    """Raise `ModelError` where a file of weights is not whole."""
    header, begin = _header(path)
    end = begin + max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    size = path.stat().st_size
    if size != end:
        raise ModelError(f"{path}: {size:,} bytes, but its header says {end:,}; copy or fetch the model again")
    lacking = sorted(tensors - header.keys())
    if lacking:
        raise ModelError(f"{path}: lacks {len(lacking)} tensor(s) that the index names, the first is {lacking[0]}")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begin."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if length > path.stat().st_size:
                raise ValueError("shorter than its header")
            return dict(json.loads(file.read(length))), 8 + length
        except ValueError as error:
            raise ModelError(f"{path}: no safetensors file, or cut off ({error}); copy the model again") from error
