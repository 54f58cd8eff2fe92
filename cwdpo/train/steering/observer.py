"""Probes in a running training: rows on disk at every probed step, one line of means to act on, never a step twice.

    partial/probe/step-000100/blocks/*.jsonl    rows, see `dynamics/probing.py`
    partial/probe/step-000100/point.json        the line of `dynamics/curves.py`, and what it took
    partial/probe/start/*.safetensors           what the policy at the start leaves behind for divergences

A resumed training goes back to its checkpoint: what was probed after that step is read again, so that the files tell of
one training. What it decides is a function of these files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed, files
from cwdpo.base.context import Blocks
from cwdpo.dynamics.alarms import Evidence, examine
from cwdpo.dynamics.curriculum.pace import Pacing
from cwdpo.dynamics.curves import curve
from cwdpo.dynamics.early_stop.rule import Rule, Stop, best
from cwdpo.dynamics.probing import Prober, probes_in_memory, response_rows, scorer_of, token_rows
from cwdpo.dynamics.rows import GRADES, IN_RUN, TOP, Row, write_probes
from cwdpo.dynamics.samples import ProbeSample, load_probe_set, load_settings
from cwdpo.dynamics.settings import BETA, about_probes
from cwdpo.model.inference import TrainedReplica, evaluating, pending_of
from cwdpo.model.looking import Lens
from cwdpo.model.snapshots import name_of
from cwdpo.train.steering.ordering import PacedOrder, starting_mean_logps

if TYPE_CHECKING:
    from cwdpo.train.loop import Trainer

POINT = "point.json"


class Observer:
    """Probes every so many steps and says how far the training goes on."""

    def __init__(self, trainer: Trainer, every: int, probe_set: Path, rule: Rule | None = None) -> None:
        self._trainer, self._every, self._rule = trainer, every, rule
        self._context = trainer.context
        self._folder = trainer.context.partial / IN_RUN
        self._samples, self._settings = load_probe_set(probe_set), load_settings(probe_set)
        self._told: set[str] = set()
        self._forget_after(trainer.progress.step)
        engine = trainer.engine
        partitioned = engine.zero_stage == 3
        self._replica = TrainedReplica(
            trainer.context.rank, engine.model, trainer.collator.processor, partitioned=partitioned
        )
        self._prober = self._made(partitioned)
        self.stopped: Stop | None = None
        self._order: PacedOrder | None = None

    def look(self, step: int) -> int:
        """Probe where a probe is due; returns the step up to which training goes on, `step` itself where it ends."""
        self._probe_if_due(step)
        points = self._points(step)
        self.stopped = self._rule.stop(points) if self._rule else None
        if self.stopped and self.stopped.step <= step:
            self._context.event("stopped_early", step=step, best=self.stopped.best, why=self.stopped.why)
            return step
        self._tell_order(step)
        return min(self._every * (step // self._every + 1), self._trainer.end)

    def pace(self, curriculum: Pacing) -> None:
        """Have a curriculum choose the training's batches from now on."""
        trainer: Any = self._trainer
        start = starting_mean_logps(trainer.samples, trainer.task.reference, trainer.collator)
        trainer.order = self._order = PacedOrder(trainer.samples, trainer.spec, curriculum, start)

    def _tell_order(self, step: int) -> None:
        """What the newest probe says of graded negatives, the same on all ranks. Collective."""
        if self._order is None:
            return
        newest, first = self._every * (step // self._every), self._context.rank.is_first
        found = [self._graded(at) for at in (0, newest)] if first else None
        start, now = distributed.from_first_rank(found, self._context.rank)
        cooling = self._settings.cooling
        self._order.hear(start, now, cooling.l_floor, cooling.tau)

    def _graded(self, step: int) -> list[float]:
        """Mean log-probability of every graded negative at a probed step, nats per token."""
        responses = (row["responses"] for row in self._rows(step))
        return [given[grade][1] / given[grade][0] for given in responses for grade in GRADES]

    @property
    def result(self) -> int | None:
        """The step whose policy is the result, where it need not be the last one's."""
        if self._rule is None or self._rule.keep == "last":
            return None
        return best(self._rule.measured(self._points(self._trainer.progress.step))).step

    def publish(self) -> None:
        """Write the rows of all steps into the artefact, on the first rank."""
        if not self._context.rank.is_first:
            return
        steps = self._steps()
        points = {step: self._rows(step) for step in steps}
        seconds = [files.read_json(self._folder / name_of(step) / POINT)["seconds"] for step in steps]
        about = {**self._about(steps), "seconds": sum(seconds)}
        rows = response_rows(points, points[0], self._settings.cooling)
        write_probes(self._context.out / IN_RUN, rows, token_rows(points), about)

    def _about(self, steps: Sequence[int]) -> dict[str, Any]:
        spec: Any = self._trainer.spec
        return {
            **about_probes(self._settings, spec.stage, self._every, getattr(spec.objective, "beta", BETA)),
            "steps": list(steps), "total": self._trainer.total, "samples": len(self._samples), "where": "run",
        }  # fmt: skip

    def _made(self, partitioned: bool) -> Prober:
        trainer, collator = self._trainer, self._trainer.collator
        own = replace(self._context, partial=self._folder)
        scorer = scorer_of(own, trainer.engine.deepspeed, collator, self._samples, trainer.spec.policy.dtype)
        lens = Lens(scorer, TOP, keeps_states=trainer.spec.tuning.name == "lora")
        longest = min(self._settings.block, len(self._samples))
        return Prober(own, lens, collator, self._folder / "start", partitioned, longest)

    def _probe_if_due(self, step: int) -> None:
        """Read all samples at a step that is a multiple of `every`, or the last one, unless it is there. Collective."""
        if step % self._every and step != self._trainer.end:
            return
        path = self._folder / name_of(step) / POINT
        if distributed.from_first_rank(self._context.rank.is_first and path.exists(), self._context.rank):
            return
        if self._rule and self._rule.keep == "best":
            self._trainer.keeper.keep(self._trainer.engine, step)
        began = time.perf_counter()
        self._read(step)
        self._context.barrier()
        if self._context.rank.is_first:
            self._note(step, time.perf_counter() - began)
        self._context.barrier()

    def _read(self, step: int) -> None:
        """All blocks of a step."""
        blocks = self._blocks(step)
        if not pending_of(blocks):
            return
        with evaluating(self._replica.model):
            for index, writes in self._replica.blocks(blocks):
                rows = self._prober.rows(index, blocks.members(index), step, writes)
                if writes:
                    blocks.write(index, [dict(row) for row in rows])

    def _blocks(self, step: int) -> Blocks[ProbeSample]:
        own = replace(
            self._context,
            partial=self._folder / name_of(step),
            event=lambda *_, **__: None,
            stopping=lambda: False,
        )
        return Blocks(own, self._samples, self._settings.block)

    def _note(self, step: int, seconds: float) -> None:
        """Write the line of a step, and tell it."""
        points = {at: self._rows(at) for at in sorted({0, step})}
        table = curve(probes_in_memory(points, self._about([step]), self._settings.cooling))
        point = {"step": step, **{name: float(value) for name, value in table.loc[step].items()}, "seconds": seconds}
        files.write_json(self._folder / name_of(step) / POINT, _finite(point))
        self._context.event("probe", **_finite(point))
        self._raise_alarms(step)

    def _raise_alarms(self, step: int) -> None:
        """Tell of what the probes so far show, each finding once."""
        spec: Any = self._trainer.spec
        names = self._context.execution.alarms
        points, logged = self._read_points(step), self._trainer.logged
        evidence = Evidence(spec.stage, spec.objective.name, points, logged, total=self._trainer.total)
        for finding in examine(evidence, names):
            if finding.name not in self._told:
                self._told.add(finding.name)
                self._context.event("alarm", name=finding.name, step=step, sentence=finding.sentence)

    def _points(self, step: int) -> list[dict[str, float]]:
        """The lines of all steps up to one, the same on all ranks. Collective."""
        found = self._read_points(step) if self._context.rank.is_first else None
        read: list[dict[str, float]] = distributed.from_first_rank(found, self._context.rank)
        return read

    def _read_points(self, step: int) -> list[dict[str, float]]:
        lines = (files.read_json(self._folder / name_of(at) / POINT) for at in self._steps() if at <= step)
        return [{name: _number(value) for name, value in line.items()} for line in lines]

    def _steps(self) -> list[int]:
        return sorted(int(path.parent.name.removeprefix("step-")) for path in self._folder.glob(f"step-*/{POINT}"))

    def _rows(self, step: int) -> list[Row]:
        return list(self._blocks(step).rows())

    def _forget_after(self, step: int) -> None:
        """Drop what was probed of a course that this training has gone back from."""
        for path in self._folder.glob("step-*") if self._context.rank.is_first else ():
            if int(path.name.removeprefix("step-")) > step:
                files.remove_tree(path)


def _finite(point: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no infinity: what is not finite is written as text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in point.items()}


def _number(value: float | str) -> float:
    return float(value)
