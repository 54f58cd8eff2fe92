"""What a table file may say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from cwdpo.base.config import Config
from cwdpo.base.errors import name_valid
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.benchmark import Benchmark
from cwdpo.evaluate.question import Metric
from cwdpo.objectives import SupervisedObjective
from cwdpo.report.derived import HallucinationGain
from cwdpo.report.layout import Source
from cwdpo.report.published import PaperReference
from cwdpo.report.render.text import plain
from cwdpo.report.scored import FromBenchmark
from cwdpo.report.trainings import Probed, StepCost, StepsToMargin

PROBED = {
    "tv": Metric("tv", "TV", scale=1, digits=2, higher=False),
    "js": Metric("js", "JS", scale=1, digits=2, higher=False),
    "ece": Metric("ece", "ECE", scale=1, digits=2, higher=False),
    "top1_prob": Metric("top1_prob", "top-1 probability", scale=1, digits=2),
}
"""What the last probe of Stage 2 measured, by name."""

DERIVED: dict[str, tuple[Metric, Source]] = {
    "step_cost": (Metric("step_cost", "step cost", scale=1, digits=2, higher=False), StepCost()),
    "steps_to_margin": (Metric("steps_to_margin", "steps to margin", scale=1, digits=0, higher=False), StepsToMargin()),
    "hallucination_gain": (Metric("hallucination_gain", "hallucination gain", scale=1), HallucinationGain()),
}
"""What is made of several results, by name."""

STAGES1 = (
    "none",
    *(
        name
        for member in get_args(get_args(SupervisedObjective)[0])
        for name in get_args(member.model_fields["name"].annotation)
    ),
)


class ColumnFile(Config):
    """One column: a metric of a benchmark, a quantity of a probe, or one that is derived."""

    title: str = ""
    """As it is printed; "" is the metric's own."""
    group: str = ""
    """Columns of one group stand below one heading."""
    benchmark: str | None = None
    """Name of the benchmark, as in a grid."""
    metric: str | None = None
    """Of the benchmark."""
    probe: Literal["tv", "js", "ece", "top1_prob"] | None = None
    """Of the last probe of Stage 2: total variation and Jensen-Shannon divergence to the start of the stage,
    calibration error, mean probability of the likeliest token."""
    derived: Literal["step_cost", "steps_to_margin", "hallucination_gain"] | None = None
    """`step_cost`: seconds of a step of the last stage over those of the row that `cost_of` names, medians.
    `steps_to_margin`: steps of Stage 2 until the probe margin reaches the best one of the baseline.
    `hallucination_gain`: nSFT's, over the baseline."""
    direction: Literal["higher", "lower", "none"] | None = None
    """Which is better; `none` ranks nothing. null is the metric's own; `tv`, `js` and `top1_prob` tell how far a policy
    went, not how good it is, and rank nothing."""
    digits: int | None = Field(default=None, ge=0, le=6)
    """Printed after the point; null is the metric's own."""
    published: str = ""
    """Key in the paper's file; "" is the column's own."""

    @model_validator(mode="after")
    def _one_source(self) -> ColumnFile:
        given = [key for key in ("benchmark", "probe", "derived") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"needs one of benchmark, probe and derived; found {' and '.join(given) or 'none'}")
        if (self.benchmark is None) != (self.metric is None):
            raise ValueError("benchmark and metric belong together")
        self.measured()
        return self

    def measured(self) -> tuple[Metric, bool]:
        """What is printed, and whether one end of it is better."""
        if self.probe:
            return PROBED[self.probe], self.probe == "ece"
        if self.derived:
            return DERIVED[self.derived][0], True
        return _metric(str(self.benchmark), str(self.metric)), True

    def name(self) -> str:
        """Group and title, as a sentence names it."""
        title = self.title or self.measured()[0].title
        return f"{self.group} {title}" if self.group else title

    def source(self) -> Source:
        """Where its values are from."""
        if self.probe:
            return Probed(self.probe)
        if self.derived:
            return DERIVED[self.derived][1]
        return FromBenchmark(str(self.benchmark), self.measured()[0])


class RowFile(Config):
    """One row, whose key is a case of the grid."""

    label: str = ""
    """As it is printed; "" is its key."""
    stands_on: str
    """Objective of the Stage 1 that it stands on, or `none`; a note says where the grid has another one."""
    published: str = ""
    """Key in the paper's file; "" is the row's own."""
    cost_of: str = ""
    """Row whose steps cost 1, of the same stage; for `step_cost`."""

    @field_validator("stands_on")
    @classmethod
    def _known(cls, given: str) -> str:
        return _valid("objective", given, STAGES1)


class TableFile(Config):
    """The keys of a file in `configs/tables/`."""

    title: str
    """As it is printed."""
    grids: tuple[str, ...] = Field(min_length=1)
    """Whose cells fill it; one in another size (`main-demo`), or limited, counts as the grid itself."""
    paper: PaperReference | None = None
    """The published table that stands beside it on request."""
    baseline: str = ""
    """Row that differences are to; "" is the first one."""
    columns: dict[str, ColumnFile] = Field(min_length=1)
    """By key, in order."""
    rows: dict[str, RowFile] = Field(min_length=1)
    """By case of the grid, in order; what a grid does not have stays, without values."""
    groups: tuple[str, ...] = ()
    """Rows before which a line is drawn."""

    @model_validator(mode="after")
    def _told_apart(self) -> TableFile:
        """Notes name rows by their labels, and columns by group and title."""
        _each_its_own("rows", "label", {key: row.label or key for key, row in self.rows.items()})
        _each_its_own("columns", "group or title", {key: column.name() for key, column in self.columns.items()})
        return self

    @model_validator(mode="after")
    def _known_rows(self) -> TableFile:
        named = {"baseline": [self.baseline] if self.baseline else [], "groups": list(self.groups)}
        named |= {f"rows.{key}.cost_of": [row.cost_of] for key, row in self.rows.items() if row.cost_of}
        for key, rows in named.items():
            for row in rows:
                if row not in self.rows:
                    raise ValueError(f"{key}: unknown row {name_valid(row, self.rows)}")
        return self


def _each_its_own(section: str, key: str, names: Mapping[str, str]) -> None:
    """Raise `ValueError` where two of a section are printed by the same name."""
    seen: dict[str, str] = {}
    for found, name in names.items():
        first = seen.setdefault(plain(name), found)
        if first != found:
            raise ValueError(
                f"{section}.{first} and {section}.{found} are both printed as '{plain(name)}'; give one of them another"
                f" {key}"
            )


def _metric(benchmark: str, metric: str) -> Metric:
    """Raise `ValueError` for a benchmark or a metric that no grid could have."""
    kinds = {name: kind for kind in _kinds() for name in get_args(kind.model_fields["name"].annotation)}
    _valid("benchmark", benchmark, kinds)
    found = {one.key: one for one in kinds[benchmark].metrics}
    _valid(f"metric of {benchmark}", metric, found)
    return found[metric]


def _kinds() -> tuple[type[Benchmark], ...]:
    found: tuple[type[Benchmark], ...] = get_args(get_args(AnyBenchmark)[0])
    return found


def _valid(kind: str, given: str, valid: Iterable[str]) -> str:
    if given not in set(valid):
        raise ValueError(f"unknown {kind} {name_valid(given, valid)}")
    return given
