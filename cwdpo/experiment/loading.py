"""From the name of a grid to its cells: files read, laid over one another, and checked whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from shlex import quote
from typing import Any

from cwdpo.base.config import merged, validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.identity import canonical_json
from cwdpo.experiment.files import Reader
from cwdpo.experiment.folders import Files, find_config, find_grid
from cwdpo.experiment.grid import Cell, Grid, submitted_grid
from cwdpo.experiment.origins import Layer, told
from cwdpo.experiment.overrides import Content, applies, check_used, leaves, overridden, value_at
from cwdpo.experiment.schema import Experiment
from cwdpo.experiment.standing_in import resized, stood_in
from cwdpo.experiment.written import GridFile, SizeFile

WITHIN = ":"
"""Between the name of an included grid and that of its case."""


def load_grid(name: str, overrides: Mapping[str, Any] | None = None) -> Grid:
    """Read and check a grid, whole, before anything is submitted.

    Args:
        name: of a file in `configs/grids/`, such a name with a size (`main-demo`), a path, or the path of the
            `grid.json` of a submitted one.
        overrides: dotted keys of the base, as from `--set`; they win over cases. `seeds` sets the grid's seeds, `limit`
            that of every benchmark.

    Raises:
        ConfigError: names the file, the case and the key.
    """
    changes = dict(overrides or {})
    if name.endswith(".json"):
        return _submitted(Path(name), changes)
    settings = [f"{key}={canonical_json(value)}" for key, value in changes.items()]
    typed = " ".join([f"--grid {quote(name)}", *(f"--set {quote(one)}" for one in settings)])
    found, reader = find_grid(name), Reader()
    limit = changes.pop("limit", None)
    seeds = {"seeds": changes.pop("seeds")} if "seeds" in changes else {}
    cells = _cells(list(_parts(found, reader, seeds, ())), changes, limit, found.where)
    file = _read(found, reader, {})
    # What it needs and reports is its own.
    named = found.name if limit is None else f"{found.name}-limit-{limit}"
    return Grid(named, typed, file.description, cells, file.tables_of or found.grid.stem)


def _submitted(path: Path, changes: Mapping[str, Any]) -> Grid:
    if changes:
        raise ConfigError(f"--set {next(iter(changes))}: {path} is a grid as it was submitted; name the grid itself")
    return submitted_grid(path)


def _cells(parts: Sequence[Part], changes: Mapping[str, Any], limit: int | None, where: str) -> tuple[Cell, ...]:
    """The cells of all parts; `ConfigError` for a change that none would notice, and for a name that two have."""
    check_used(changes, [content for part in parts for content in part.contents.values()], "--set ", where)
    cells = tuple(cell for part in parts for cell in part.cells(changes, limit))
    for name, count in Counter(cell.name for cell in cells).items():
        if count > 1:
            raise ConfigError(f"{where}: there are {count} cells of the name '{name}'")
    return cells


@dataclass(frozen=True)
class Part:
    """One grid file with cases of its own.

    Attributes:
        prefix: of its cases.
    """

    prefix: str
    found: Files
    file: GridFile
    size: SizeFile | None
    reader: Reader

    @cached_property
    def contents(self) -> dict[str, dict[str, Any]]:
        """Of each case: base, method and case, one laid over the other."""
        return {case: self._content(case) for case in self.file.cases}

    def _content(self, case: str) -> dict[str, Any]:
        base = self.reader.with_model(self.file.base, self._base)
        changed = self.reader.with_model(self.file.cases[case], self._case(case))
        stages = {} if (method := self._method(case)) is None else self.reader.stages(*method)
        content: dict[str, Any] = merged(merged(base, stages), changed)
        content.pop("method", None)
        return content

    def _method(self, case: str) -> tuple[str, str] | None:
        """The method of a case, and the key that names it; None where neither has one, or the case says null."""
        for before, content in ((self._case(case), self.file.cases[case]), (self._base, self.file.base)):
            if "method" in content:
                return None if content["method"] is None else (str(content["method"]), f"{before}method")
        return None

    @property
    def where(self) -> str:
        """For errors."""
        return self.found.where

    @property
    def _base(self) -> str:
        return f"{self.found.grid}: base."

    def _case(self, name: str) -> str:
        return f"{self.where}, case '{name}': "

    def _layers(self, case: str, name: str, point: Content, content: Content, changes: Content) -> list[Layer]:
        """Who wrote what of a case at a point of the axes."""
        places: list[tuple[str, Content]] = [(self._base, self.file.base)]
        if self.size:
            places.append((f"{self.found.size}: base.", self.size.base))
        if method := self._method(case):
            places.append((f"{find_config('methods', method[0])}: ", self.reader.stages(*method)))
        places.append((self._case(name), self.file.cases[case]))
        places.append((f"{self.found.grid}: overrides.", self.file.overrides))
        if self.size:
            places.append((f"{self.found.size}: overrides.", self.size.overrides))
        places.append((f"{self.found.grid}: axes.", point))
        if self.size:
            by_name, benchmarks = stood_in(content, self.size)
            places += [(f"{self.found.size}: ", by_name), (self._case(name), benchmarks)]
        places.append(("--set ", changes))
        return [layer for place in places for layer in self.reader.layers(*place)]

    def check(self) -> None:
        """Raise `ConfigError` for keys that have no effect."""
        self._check_base()
        for name, keys in (("overrides", self.file.overrides), ("axes", self.file.axes)):
            check_used(keys, self.contents.values(), f"{self.where}: {name}.", "it")

    def _check_base(self) -> None:
        """Raise `ConfigError` for a key of the base that all methods set otherwise."""
        base, cases = self.file.base, self.file.cases
        contents = [self.contents[case] for case, changed in cases.items() if "method" in {**base, **changed}]
        for stage in ("stage1", "stage2"):
            for key, value in leaves(base.get(stage), stage):
                if contents and not any(value_at(content, key) == value for content in contents):
                    raise ConfigError(
                        f"{self.where}: base.{key}: the method of every case sets it otherwise, so that {value!r} has"
                        f" no effect; put it under `overrides` (`{key}: {value!r}`) to have it in all of them"
                    )

    def cells(self, changes: Mapping[str, Any], limit: int | None) -> Iterator[Cell]:
        """Every case with every combination of the axes and every seed.

        Args:
            changes: what `--set` says.
        """
        for case, laid in self.contents.items():
            for name, point, content in self._points(case, laid):
                sized = resized(content, self.size)
                experiment = _limited(overridden(sized, changes, self.reader, "--set "), limit)
                line = told(partial(self._layers, case, name, point, content, changes), f"{self.where}, case '{name}'")
                for seed in self.file.seeds:
                    checked = validate(Experiment, {**experiment, "seed": seed}, line)
                    experiment = dict(checked)  # the next seed has the very same sections, checked already
                    yield Cell(self.prefix + name, seed, checked, self.prefix + case)

    def _points(self, case: str, content: Content) -> Iterator[tuple[str, Content, dict[str, Any]]]:
        """Name, keys and content of each combination of the axes, overrides applied."""
        start = overridden(content, self.file.overrides, self.reader, f"{self.found.grid}: overrides.")
        if self.size:
            start = overridden(start, self.size.overrides, self.reader, f"{self.found.size}: overrides.")
        axes = {key: values for key, values in self.file.axes.items() if applies(key, start)}
        for values in product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            name = " ".join([case, *(f"{key}={value}" for key, value in point.items())])
            yield name, point, overridden(start, point, self.reader, f"{self.found.grid}: axes.")


def _parts(
    found: Files, reader: Reader, seeds: Mapping[str, Any], way: Sequence[Path], prefix: str = ""
) -> Iterator[Part]:
    """The grid itself, or those that it includes.

    Args:
        seeds: `seeds` where somebody said them, else nothing.
        way: files that include this one.
    """
    if found.grid in way:
        raise ConfigError(f"include: {' -> '.join(str(path) for path in (*way, found.grid))} goes round in a circle")
    file, size = _read(found, reader, seeds), reader.size(found.size) if found.size else None
    if not file.include:
        part = Part(prefix, found, file, size, reader)
        part.check()
        yield part
    for name in file.include:
        inner = _included(name, found)
        own = {"seeds": file.seeds} if "seeds" in file.model_fields_set else {}
        yield from _parts(inner, reader, own, (*way, found.grid), f"{prefix}{inner.name}{WITHIN}")


def _included(name: str, by: Files) -> Files:
    """A grid that another one includes, in the size of that one."""
    try:
        found = find_grid(name)
    except ConfigError as error:
        raise ConfigError(f"{by.grid}: include: {error}") from error
    if not found.grid.is_file():
        raise ConfigError(f"{by.grid}: include: {found.grid}: no such file")
    return replace(found, size=found.size or by.size)


def _read(found: Files, reader: Reader, seeds: Mapping[str, Any]) -> GridFile:
    """A grid file with the base and the seeds of its size."""
    content = dict(reader.yaml(found.grid))
    size = reader.size(found.size) if found.size else None
    if size and isinstance(content.get("base"), Mapping):
        content["base"] = merged(content["base"], size.base)
    if size and size.seeds:
        content["seeds"] = size.seeds
    return validate(GridFile, {**content, **seeds}, found.where)


def _limited(content: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The same with every benchmark asked only so much."""
    benchmarks = content.get("benchmarks")
    if limit is None or not isinstance(benchmarks, list):
        return content
    return {**content, "benchmarks": [{**one, "limit": limit} if isinstance(one, dict) else one for one in benchmarks]}
