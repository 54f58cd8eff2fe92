"""The schema of an experiment and of a grid: what a user writes in YAML.

An experiment is one path through the pipeline: data, model, Stage 1, Stage 2, benchmarks, one seed. A grid is many:
a base, named cases, axes (their product), and seeds. A case may name a method, whose stages are a file of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, model_validator

from cwdpo.base.config import Config, merged, read_yaml, validate, with_override
from cwdpo.base.errors import ConfigError, name_valid
from cwdpo.base.identity import canonical_json
from cwdpo.base.runtime import Execution
from cwdpo.data.sources import DataSource
from cwdpo.dynamics.settings import Probe
from cwdpo.evaluate.benchmarks import Benchmark
from cwdpo.model.config import Lora, ModelSource, Tuning
from cwdpo.objectives import PreferenceObjective
from cwdpo.objectives.online import Online
from cwdpo.train.engine import check_precision
from cwdpo.train.settings import Stage1, Stage2, lacking, read_beside_the_start


class Experiment(Config):
    """One path through the pipeline."""

    data: DataSource
    """What is trained on."""
    model: ModelSource
    """What is trained."""
    tuning: Tuning = Lora()
    """Which parameters are trained; Stage 2 goes on with Stage 1's."""
    stage1: Stage1 | None = None
    """Supervised training, or None to skip it."""
    stage2: Stage2 | None = None
    """Preference training, or None to skip it."""
    benchmarks: tuple[Benchmark, ...] = ()
    """What the result is scored on."""
    probe: Probe | None = None
    """Which held-out samples both stages are watched on, and how often; None watches nothing."""
    seed: int = 0
    """Adapter initialisation and data order of both stages."""
    execution: Execution = Execution()
    """Where and how it runs; no part of any identity."""

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError(f"benchmarks: a name occurs twice ({', '.join(names)})")
        try:
            check_precision(self.model.dtype, self.execution)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        self._check_supplies()
        self._check_probes()
        return self

    def _probed_later(self) -> bool:
        """Whether a training is probed by the adapters that it has kept."""
        stages = [stage for stage in (self.stage1, self.stage2) if stage]
        measured = self.probe is not None and self.probe.influence is not None
        return bool(stages) and (measured or not all(probed_in_run(self, stage) for stage in stages))

    def _check_probes(self) -> None:
        """Raise `ValueError` where something is to act on probes that there are not, or no adapter is kept for them."""
        lora = isinstance(self.tuning, Lora)
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            rule = stage.early_stop if stage else None
            wanting = [key for key in ("early_stop", "curriculum") if getattr(stage, key, None)]
            if wanting and self.probe is None:
                raise ValueError(f"{name}.{wanting[0]}: it goes by probes: set probe, if only to {{}}")
            if rule and rule.keep == "best" and not lora:
                raise ValueError(f"{name}.early_stop.keep: best goes back to a kept adapter, so it needs tuning lora")
        if self.probe and self.probe.influence and not lora:
            raise ValueError("probe.influence: it is measured on kept adapters, so it needs tuning lora")
        kept = self.execution.snapshot_every
        if self.probe and lora and self._probed_later() and (not kept or self.probe.every % kept):
            raise ValueError(
                f"probe.every: {self.probe.every} is no multiple of execution.snapshot_every ({kept}), and other steps"
                f" leave no adapter to read; set execution.snapshot_every to {self.probe.every}"
            )

    def _check_supplies(self) -> None:
        """Raise `ValueError` where a stage needs what its negatives cannot come with, or the tuning does not allow."""
        stages = {"stage1": self.stage1, "stage2": self.stage2}
        for name, stage in stages.items():
            fault = lacking(stage, self.data.may_supply) if stage else None
            if fault:
                raise ValueError(f"{name}: {fault}")
            compared = read_beside_the_start(stage) if stage else None
            if compared and not isinstance(self.tuning, Lora):
                raise ValueError(
                    f"{name}: the KL divergence of objective '{compared}' is taken to a frozen second adapter, so it"
                    " needs tuning lora"
                )


def probed_in_run(experiment: Experiment, stage: Stage1 | Stage2) -> bool:
    """Whether a stage is probed while it runs: something acts on it, or nothing is kept that could be probed later."""
    probe = experiment.probe
    return probe is not None and bool(stage.steered or probe.alarms or not isinstance(experiment.tuning, Lora))


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid: a case (with its axis values) and a seed.

    Attributes:
        family: the case as the grid file names it, without axis values.
    """

    case: str
    seed: int
    experiment: Experiment
    family: str

    @property
    def name(self) -> str:
        """`case/seed`, unique in the grid."""
        return f"{self.case}/{self.seed}"


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
    """Repetitions."""

    @model_validator(mode="after")
    def _methods_in_cases(self) -> GridFile:
        if "method" in self.axes:
            raise ValueError("axes.method: methods belong to cases; write a case for each, such as dpo: {method: dpo}")
        return self

    @model_validator(mode="after")
    def _distinct_seeds(self) -> GridFile:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one occurs twice ({', '.join(map(str, self.seeds))})")
        return self


@dataclass(frozen=True)
class Grid:
    """A named grid and its cells.

    Attributes:
        options: what was typed to name it, such as `--grid demo --set seeds=[0]`.
    """

    name: str
    options: str
    description: str
    cells: tuple[Cell, ...]

    @property
    def cases(self) -> list[str]:
        """Case names in the order of the file."""
        return list(dict.fromkeys(cell.case for cell in self.cells))


def config_folder() -> Path:
    """`$CWDPO_CONFIGS`, else `configs/` of the current folder, else of the checkout this package is installed from."""
    if os.environ.get("CWDPO_CONFIGS"):
        return Path(os.environ["CWDPO_CONFIGS"])
    here = Path("configs")
    return here if here.is_dir() else Path(__file__).resolve().parent.parent / "configs"


def find_config(kind: str, name: str) -> Path:
    """File of a named configuration (`grids`, `clusters`, ...), or the path itself if `name` is one.

    Raises:
        ConfigError: unknown name; lists the known ones.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    folder = config_folder() / kind
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(found.stem for found in folder.glob("*.yaml"))
        raise ConfigError(f"unknown {kind.removesuffix('s')} {name_valid(name, known)} (looked in {folder}/)")
    return path


def load_grid(name: str, overrides: Mapping[str, Any] | None = None) -> Grid:
    """Read and check a grid, whole, before anything is submitted.

    Args:
        name: of a file in `configs/grids/`, or a path.
        overrides: dotted keys of the base, as from `--set`; they win over cases. `seeds` sets the grid's seeds.

    Raises:
        ConfigError: names the file, the case and the key.
    """
    path = find_config("grids", name)
    changes = dict(overrides or {})
    content = read_yaml(path)
    if "seeds" in changes:
        content["seeds"] = changes.pop("seeds")
    grid = validate(GridFile, content, str(path))
    _check_base(grid, path)
    _check_used(grid, changes, "--set ", str(path))
    _check_used(grid, grid.overrides, f"{path}: overrides.", "it")
    _check_used(grid, grid.axes, f"{path}: axes.", "it")
    cells = [cell for case in grid.cases for cell in _cells(grid, path, case, changes)]
    typed = [f"--grid {name}", *(f"--set {key}={canonical_json(value)}" for key, value in (overrides or {}).items())]
    return Grid(path.stem, " ".join(typed), grid.description, tuple(cells))


def _check_base(grid: GridFile, path: Path) -> None:
    """Raise `ConfigError` for a key of the base that all methods set otherwise, so that it has no effect."""
    contents = [_content(grid, case) for case, changed in grid.cases.items() if "method" in {**grid.base, **changed}]
    for stage in ("stage1", "stage2"):
        for key, value in _leaves(grid.base.get(stage), stage):
            if contents and not any(_at(content, key) == value for content in contents):
                raise ConfigError(
                    f"{path}: base.{key}: the method of every case sets it otherwise, so that {value!r} has no effect;"
                    f" put it under `overrides` (`{key}: {value!r}`) to have it in all of them"
                )


def _leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in nested mappings that is none."""
    if not isinstance(content, Mapping):
        yield from [] if content is None else [(path, content)]
        return
    for key, value in content.items():
        yield from _leaves(value, f"{path}.{key}")


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def _cells(grid: GridFile, path: Path, case: str, overrides: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells of one case: every combination of the axes, every seed."""
    start = _content(grid, case)
    for key, value in _applicable(start, grid.overrides):
        start = _with_model(with_override(start, key, value))
    axes = {key: values for key, values in grid.axes.items() if _applies(key, start)}
    for values in product(*axes.values()):
        point = list(zip(axes, values, strict=True))
        name = " ".join([case, *(f"{key}={value}" for key, value in point)])
        content = start
        for key, value in [*point, *_applicable(start, overrides)]:
            content = _with_model(with_override(content, key, value))
        for seed in grid.seeds:
            experiment = validate(Experiment, {**content, "seed": seed}, f"{path}, case '{name}'")
            content = dict(experiment)  # the next seed has the very same sections, checked already
            yield Cell(name, seed, experiment, case)


def _content(grid: GridFile, case: str) -> dict[str, Any]:
    """The base, the method and the case, one laid over the other."""
    base, changed = _with_model(grid.base), _with_model(grid.cases[case])
    name = changed.pop("method", base.pop("method", None))
    try:
        stages = {} if name is None else _stages(str(name))
    except ConfigError as error:
        raise ConfigError(f"case '{case}': {error}") from error
    content: dict[str, Any] = merged(merged(base, stages), changed)
    return content


def _stages(method: str) -> dict[str, Any]:
    """What `configs/methods/NAME.yaml` says of both stages; a stage it has not is none."""
    path = find_config("methods", method)
    file = validate(MethodFile, read_yaml(path), str(path))
    return {"stage1": file.stage1, "stage2": file.stage2}


def _with_model(content: Mapping[str, Any]) -> dict[str, Any]:
    """`model: NAME` replaced by the content of `configs/models/NAME.yaml`."""
    if not isinstance(content.get("model"), str):
        return dict(content)
    return {**content, "model": read_yaml(find_config("models", content["model"]))}


def _check_used(grid: GridFile, overrides: Mapping[str, Any], before: str, file: str) -> None:
    """Raise `ConfigError` for an override that no case of the grid would notice."""
    cases = [_content(grid, case) for case in grid.cases] if overrides else []
    for key in overrides:
        if not any(_applies(key, content) for content in cases):
            raise ConfigError(f"{before}{key}: no case of {file} has a section {_optional_part(key)}")


def _applicable(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """Overrides of sections this case has."""
    return [(key, value) for key, value in overrides.items() if _applies(key, content)]


def _applies(key: str, content: Mapping[str, Any]) -> bool:
    """False for a key inside a section that a case is without: `stage2.x=1` does not give it a Stage 2."""
    section = _optional_part(key)
    below: Any = content
    for part in section.split(".") if section else ():
        if part == "rollouts" and (below.get("objective") or {}).get("name") in ONLINE:
            return True  # also where the case is content with the defaults
        below = below.get(part) if isinstance(below, Mapping) else None
        if below is None:
            return False
    return True


def _optional_part(key: str) -> str:
    """The longest beginning of a dotted key that not every case has: `stage2.sft_phase` of its learning rate."""
    parts = key.split(".")[:-1]
    if "of" in parts:  # sources of negatives that stand inside another one, such as `stage2.negatives.of.policy`
        return ".".join(parts)
    return ".".join(parts[: next((place for place, part in enumerate(parts) if part not in _OPTIONAL), len(parts))])


_OBJECTIVES = get_args(get_args(PreferenceObjective)[0])
ONLINE = {member.model_fields["name"].default for member in _OBJECTIVES if issubclass(member, Online)}
"""Names of the objectives that sample their own responses."""

_OPTIONAL = ("stage1", "stage2", "sft_phase", "rollouts", "refresh", "early_stop", "curriculum", "probe")
