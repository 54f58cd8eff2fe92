"""`cwdpo data prepare` and `cwdpo data list`: which benchmarks are ready, and what is wrong with a download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from cwdpo.base.config import parse_overrides, validate
from cwdpo.base.errors import ConfigError, CwdpoError, name_valid
from cwdpo.base.store import Store
from cwdpo.cli.app import Source, print_json
from cwdpo.evaluate.benchmarks import PREPARABLE
from cwdpo.evaluate.prepared import FOLDER, HUB, Preparable, Prepared, all_prepared, find_prepared, prepare, ways
from cwdpo.experiment import Grid, evaluated_unnamed


def prepare_benchmark(name: str, source: str, overrides: Sequence[str], home: Path | None, as_json: bool) -> None:
    """Prepare one and print what it holds.

    Raises:
        ConfigError: there is no such benchmark, setting or folder.
        DataError: the download cannot be used.
    """
    benchmark = _benchmark(name, overrides)
    store = Source("", (), home).store
    store.check_writable()
    root = _from_hub(benchmark, name, store.home) if source == HUB else Path(source)
    if root.expanduser().is_file():
        raise ConfigError(f"--from: '{root}' is a file; name the folder that it lies in")
    if not root.expanduser().is_dir():
        raise ConfigError(f"--from: no such folder '{root}'")
    made = prepare(benchmark, root, store.home / FOLDER)
    if as_json:
        print_json(asdict(made))
    else:
        typer.echo("\n".join([f"{made.title} is ready", *_about(made)]))


def _benchmark(name: str, overrides: Sequence[str]) -> Preparable:
    if name not in PREPARABLE:
        raise ConfigError(f"unknown benchmark {name_valid(name, PREPARABLE)}")
    kind = PREPARABLE[name]
    settings = parse_overrides(list(overrides))
    reads = getattr(kind, "reads", ("split",))
    if wrong := [key for key in settings if key not in reads]:
        raise ConfigError(
            f"--set {wrong[0]}: does not decide which items {name} has; valid: {', '.join(reads) or 'none'}"
        )
    return validate(kind, {"name": name, **settings}, "--set")


def _from_hub(benchmark: Preparable, name: str, home: Path) -> Path:
    """The folder of the hub's copy, fetched where it is not there yet."""
    from cwdpo.data.assets.hub import Repository, fetch_repository

    hub = getattr(benchmark, "hub", None)
    if hub is None:
        raise ConfigError(f"--from hub: the hub has no copy of {name} in its own format; download {benchmark.source}")
    repository = Repository("dataset", hub[0], None, tuple(hub[1:]))
    return fetch_repository(repository, home / "assets", lambda text: typer.echo(text, err=True)).folder


def _about(made: Prepared) -> list[str]:
    """What it holds, and what is not as published."""
    total = sum(made.counts.values())
    parts = [f"{category} {count:,}" for category, count in sorted(made.counts.items()) if category]
    shown = (
        f": {', '.join(parts)}" if 1 < len(parts) <= 14 else f" in {len(parts)} categories" if len(parts) > 1 else ""
    )
    images = f"{made.images:,} images beside them" if made.images else "images inside the files"
    names = ", ".join(made.annotations) if len(made.annotations) < 5 else f"{len(made.annotations)} files"
    return [
        f"  {total:,} items{shown}; {images}",
        f"  from {made.root} ({names})",
        *(f"  not as published: {note}" for note in made.notes),
    ]


def list_benchmarks(home: Path | None, as_json: bool) -> None:
    """Print all benchmarks: those that are ready, and what the others need."""
    folder = Source("", (), home).store.home / FOLDER
    found = all_prepared(folder) if folder.is_dir() else []
    lacking = {name: kind.source for name, kind in PREPARABLE.items() if name not in {one.benchmark for one in found}}
    if as_json:
        print_json({"ready": [{**asdict(one), "fault": _fault(one)} for one in found], "not_ready": lacking})
        return
    for one in found:
        fault = _fault(one)
        typer.echo(f"{one.title}: {f'NOT USABLE: {fault}' if fault else _line(one)}")
    for name, kind in PREPARABLE.items():
        if name in lacking:
            typer.echo(f"{name}: not ready; download {kind.source}, then run: {ways(kind, name, {})}")


def _line(made: Prepared) -> str:
    """What is ready, in a line."""
    unlike = "; not as published (prepare says in what)" if made.notes else ""
    return f"ready, {sum(made.counts.values()):,} items, {made.root}{unlike}"


def _fault(one: Prepared) -> str:
    """Why what was prepared cannot be used any more; "" where it can."""
    try:
        one.check()
    except CwdpoError as error:
        return str(error)
    return ""


def readiness(grid: Grid, store: Store) -> dict[str, str]:
    """Benchmark of a grid that is to be prepared -> what is wrong with what was, "" where nothing is."""
    benchmarks = dict.fromkeys(one for cell in grid.cells for one in evaluated_unnamed(cell.experiment))
    return {one.name: _unready(one, store) for one in benchmarks}


def _unready(benchmark: Preparable, store: Store) -> str:
    try:
        return _fault(find_prepared(benchmark, store.home / FOLDER))
    except CwdpoError as error:
        return str(error)
