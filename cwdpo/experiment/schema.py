"""The schema of an experiment: data, model, Stage 1, Stage 2, benchmarks, one seed; and what does not fit together."""

from __future__ import annotations

from pydantic import model_validator

from cwdpo.base.config import Config
from cwdpo.base.errors import ConfigError
from cwdpo.base.runtime import Execution
from cwdpo.data.sources import DataSource
from cwdpo.dynamics.settings import Probe
from cwdpo.endpoint.settings import Endpoint
from cwdpo.evaluate.benchmarks import AnyBenchmark
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.benchmarks.captions import Captions, KarpathyCaptions, PreparedCaptions
from cwdpo.model.config import Lora, ModelSource, Tuning
from cwdpo.train.engine import check_precision
from cwdpo.train.settings import Stage1, Stage2, lacking, read_beside_the_start


class Experiment(Config):
    """One path through the pipeline."""

    data: DataSource | None = None
    """What is trained on; an experiment that only asks benchmarks needs none."""
    model: ModelSource
    """What is trained."""
    tuning: Tuning = Lora()
    """Which parameters are trained; Stage 2 goes on with Stage 1's."""
    stage1: Stage1 | None = None
    """Supervised training, or None to skip it."""
    stage2: Stage2 | None = None
    """Preference training, or None to skip it."""
    benchmarks: tuple[AnyBenchmark, ...] = ()
    """What the result is scored on."""
    judge: Endpoint | None = None
    """Who rates the answers to benchmarks that need a judge; None leaves those without a value."""
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
        self._check_data()
        try:
            check_precision(self.model.dtype, self.execution)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        self._check_supplies()
        self._check_probes()
        return self

    @property
    def trained_on(self) -> DataSource:
        """The data of an experiment that trains."""
        assert self.data is not None, "checked when the experiment was read"
        return self.data

    def _check_data(self) -> None:
        """Raise `ValueError` where there is no data for what needs some."""
        if self.data:
            return
        if training := [name for name in ("stage1", "stage2", "probe") if getattr(self, name)]:
            raise ValueError(f"data: is required for {training[0]}")
        for benchmark in self.benchmarks:
            if isinstance(benchmark, Captions) and benchmark.data is None:
                raise ValueError(f"data: is required for benchmark '{benchmark.name}', unless that has data of its own")

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
            fault = lacking(stage, self.trained_on.may_supply) if stage else None
            if fault:
                raise ValueError(f"{name}: {fault}")
            compared = read_beside_the_start(stage) if stage else None
            if compared and not isinstance(self.tuning, Lora):
                raise ValueError(
                    f"{name}: the KL divergence of objective '{compared}' is taken to a frozen second adapter, so it"
                    " needs tuning lora"
                )


def evaluated_on(experiment: Experiment) -> list[DataSource]:
    """Data sets that the benchmarks of an experiment describe, but for those that are prepared in a home."""
    captions = [one for one in experiment.benchmarks if isinstance(one, KarpathyCaptions)]
    found = [described(one, experiment.data) for one in captions]
    return [data for data in found if data]


def evaluated_unnamed(experiment: Experiment) -> list[Questions | PreparedCaptions]:
    """Benchmarks of an experiment whose files must have been prepared."""
    found: list[Questions | PreparedCaptions] = []
    for one in experiment.benchmarks:
        if isinstance(one, Questions):
            found += [] if one.data else [one]
        elif isinstance(one, PreparedCaptions) and not described(one, experiment.data):
            found.append(one)
    return found


def described(benchmark: KarpathyCaptions, data: DataSource | None) -> DataSource | None:
    """The data set that a benchmark describes in an experiment on `data`; None where it is one that was prepared."""
    return benchmark.data or (data if data and benchmark.is_of(data) else None)


def probed_in_run(experiment: Experiment, stage: Stage1 | Stage2) -> bool:
    """Whether a stage is probed while it runs: something acts on it, or nothing is kept that could be probed later."""
    probe = experiment.probe
    return probe is not None and bool(stage.steered or probe.alarms or not isinstance(experiment.tuning, Lora))
