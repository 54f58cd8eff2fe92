"""What grid, method and size files may say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import Field, field_validator, model_validator

from cwdpo.base.config import Config
from cwdpo.base.errors import name_valid
from cwdpo.data.sources import DataSource
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.negatives import Negatives


class MethodFile(Config):
    """The keys of a method file: the stages, laid over a grid's base and under its case."""

    description: str
    """What it is, in one sentence."""
    stage1: dict[str, Any] | None = None
    """As in an experiment, without what belongs to the data; a source of negatives only where it makes the method. null
    is no Stage 1."""
    stage2: dict[str, Any] | None = None
    """As in an experiment."""


class GridFile(Config):
    """The keys of a grid file."""

    description: str = ""
    """One sentence for `plan`."""
    tables_of: str | None = None
    """The grid whose tables its cells fill, where that is another one: a copy of `main` with changes has `main`."""
    include: tuple[str, ...] = ()
    """Grids that this one is made of, in place of a base and cases. Their cells are named `GRID:CASE`; stages that they
    share are computed once, as everywhere."""
    base: dict[str, Any]
    """The experiment that cases and axes change; `model` may be the name of a file in `configs/models/`."""
    cases: dict[str, dict[str, Any]] = Field(default={"default": {}}, min_length=1)
    """Name -> changes to the base, nested as in the base; `null` removes a section. `method: NAME` puts the stages of
    `configs/methods/NAME.yaml` between the two."""
    overrides: dict[str, Any] = {}
    """Dotted key -> value, for every case that has the section: over base, method and case, under axes and `--set`."""
    axes: dict[str, list[Any]] = {}
    """Dotted key -> values; every case that has the stage of a key is run with every combination."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Repetitions; of a grid that includes others, theirs unless said here."""

    @model_validator(mode="before")
    @classmethod
    def _others_or_own(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or not content.get("include"):
            return content
        for key in ("base", "cases", "overrides", "axes"):
            if key in content:
                raise ValueError(f"{key}: a grid that includes others has none of its own; leave out one of the two")
        return {**content, "base": {}}

    @model_validator(mode="after")
    def _methods_in_cases(self) -> GridFile:
        if "method" in self.axes:
            raise ValueError("axes.method: methods belong to cases; write a case for each, such as dpo: {method: dpo}")
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> GridFile:
        check_distinct("seeds", self.seeds)
        check_distinct("include", self.include)
        return self


class SizeFile(Config):
    """The keys of a size file: what is laid over any grid for it to run in another size, as in `main-demo`.

    Over a grid come `base`, then the grid's methods, cases and overrides, then `overrides`, then the grid's axes, then
    the stand-ins and settings by name, then `--set`.
    """

    description: str
    """What it is, in one sentence."""
    base: dict[str, Any] = {}
    """Laid over the base of the grid; methods and cases win over it."""
    overrides: dict[str, Any] = {}
    """Dotted key -> value, for every case that has the section, as in a grid; over the grid's own."""
    benchmarks: dict[str, dict[str, Any] | None] = {}
    """Name of a benchmark -> settings laid over it wherever a case asks it; null takes it out."""
    negatives: dict[str, dict[str, Any]] = {}
    """Source of negatives -> what is laid over it, or stands in for it where that names another `source`; also inside
    sources made of others."""
    data: dict[str, dict[str, Any]] = {}
    """Source of data -> the same."""
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    """In place of the grid's."""

    @field_validator("benchmarks")
    @classmethod
    def _known_benchmarks(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _known("benchmark", given, names_of(AnyBenchmark, "name"))

    @field_validator("negatives")
    @classmethod
    def _known_negatives(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _known_sources(given, names_of(Negatives, "source"))

    @field_validator("data")
    @classmethod
    def _known_data(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _known_sources(given, names_of(DataSource, "source"))

    @model_validator(mode="after")
    def _nothing_twice(self) -> SizeFile:
        check_distinct("seeds", self.seeds or ())
        return self


def names_of(union: Any, tag: str) -> list[str]:
    """The names of the members of a discriminated union, by its tag."""
    members = get_args(get_args(union)[0])
    return [str(name) for member in members for name in get_args(member.model_fields[tag].annotation)]


def check_distinct(key: str, values: Iterable[object]) -> None:
    """Raise `ValueError` where a value occurs twice."""
    found = list(values)
    if len(set(found)) < len(found):
        raise ValueError(f"{key}: one occurs twice ({', '.join(map(str, found))})")


def _known(kind: str, given: dict[str, Any], valid: Iterable[str]) -> dict[str, Any]:
    for name in given:
        if name not in valid:
            raise ValueError(f"unknown {kind} {name_valid(name, valid)}")
    return given


def _known_sources(given: dict[str, Any], valid: Iterable[str]) -> dict[str, Any]:
    """Both the sources that are replaced and those that stand in for them."""
    _known("source", {value["source"]: None for value in given.values() if "source" in value}, valid)
    return _known("source", given, valid)
