"""Probes in a running training, never of a step twice, and what comes of them; it is a function of their files alone.

What lies where says `record.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed
from cwdpo.dynamics.alarms import Evidence, examine
from cwdpo.dynamics.curriculum.pace import Pacing
from cwdpo.dynamics.curves import curve
from cwdpo.dynamics.early_stop.rule import Rule, Stop, best
from cwdpo.dynamics.probing import Prober, findings_of, probes_in_memory, response_rows, scorer_of, token_rows
from cwdpo.dynamics.rows import GRADES, IN_RUN, TOP, write_probes
from cwdpo.dynamics.samples import load_probe_set, load_settings
from cwdpo.dynamics.settings import BETA, about_probes
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.inference import TrainedReplica, evaluating, pending_of
from cwdpo.model.looking import Lens
from cwdpo.train.steering.ordering import PacedOrder, starting_mean_logps
from cwdpo.train.steering.record import START, Record, finite

if TYPE_CHECKING:
    from cwdpo.train.loop import Trainer


class Observer:
    """Probes every so many steps and says how far the training goes on.

    Attributes:
        sees_start: False where a training that nobody looked at at first has gone on already: there is no step 0 to
            compare with, and it cannot be looked at.
    """

    def __init__(self, trainer: Trainer, every: int, probe_set: Path, rule: Rule | None = None) -> None:
        self._trainer, self._every, self._rule = trainer, every, rule
        self._context = trainer.context
        self._samples, self._settings = load_probe_set(probe_set), load_settings(probe_set)
        step, rank = trainer.progress.step, trainer.context.rank
        self._record = Record(self._context, self._samples, self._settings.block, step)
        seen = rank.is_first and (step == 0 or self._record.has(0))
        self.sees_start = bool(distributed.from_first_rank(seen, rank))
        self._heard: list[dict[str, Any]] = []
        if trainer.context.execution.alarms and rank.is_first:
            trainer.logged = self._heard
        self._told: set[str] = set()
        engine = trainer.engine
        partitioned = engine.zero_stage == 3
        self._replica = TrainedReplica(rank, engine.model, trainer.collator.processor, partitioned=partitioned)
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
        responses = (row["responses"] for row in self._record.rows(step))
        return [given[grade][1] / given[grade][0] for given in responses for grade in GRADES]

    @property
    def result(self) -> int | None:
        """The step whose policy is the result, where it need not be the last one's."""
        if self._rule is None or self._rule.keep == "last":
            return None
        return best(self._rule.measured(self._points(self._trainer.progress.step))).step

    def publish(self) -> None:
        """Write the rows of all steps into the artefact, on the first rank, and what a next round needs of them."""
        if not self._context.rank.is_first:
            return
        spec: Any = self._trainer.spec
        steps = self._record.steps()
        points = {step: self._record.rows(step) for step in steps}
        lines = self._record.lines(steps[-1])
        findings = findings_of(lines, spec.stage, spec.objective.name)
        about = {**self._about(steps), "seconds": sum(line["seconds"] for line in lines), "findings": findings}
        rows = response_rows(points, points[0], self._settings.cooling)
        write_probes(self._context.out / IN_RUN, rows, token_rows(points), about)
        if self._trainer.hands_over:
            self._record.hand_over()

    def _about(self, steps: Sequence[int]) -> dict[str, Any]:
        spec: Any = self._trainer.spec
        return {
            **about_probes(self._settings, spec.stage, self._every, getattr(spec.objective, "beta", BETA)),
            "steps": list(steps), "total": self._trainer.total, "samples": len(self._samples), "where": "run",
        }  # fmt: skip

    @cached_property
    def _prober(self) -> Prober:
        """Made at the first probe. Collective."""
        trainer, collator = self._trainer, self._trainer.collator
        own = replace(self._context, partial=self._record.folder)
        scorer = scorer_of(own, trainer.engine.deepspeed, collator, self._samples, trainer.spec.policy.dtype)
        if trainer.scorer.way.apart:  # the way of a probe set may be another one than that of what is trained on
            splits_prefixes(trainer.engine.model)
        lens = Lens(scorer, TOP, keeps_states=trainer.spec.tuning.name == "lora")
        longest = min(self._settings.block, len(self._samples))
        return Prober(own, lens, collator, self._record.folder / START, self._replica.lockstep, longest)

    def _probe_if_due(self, step: int) -> None:
        """Read all samples at a step that is a multiple of `every`, or the last one, unless it is there. Collective."""
        if step % self._every and step != self._trainer.end:
            return
        if distributed.from_first_rank(self._context.rank.is_first and self._record.has(step), self._context.rank):
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
        """All blocks of a step that are not there yet.

        Raises:
            Interrupted: a signal asked to stop; finished blocks, and what was trained before, are kept.
        """
        blocks = self._record.blocks(step)
        if not pending_of(blocks):
            return
        with evaluating(self._replica.model):
            for index, writes in self._replica.blocks(blocks):
                rows = self._prober.rows(index, blocks.members(index), step, writes)
                if writes:
                    blocks.write(index, [dict(row) for row in rows])
                if self._trainer.asked_to_stop(together=self._replica.lockstep):
                    break
        self._context.barrier()  # a rank without blocks of its own may wait longer than an exchange may take
        if self._trainer.asked_to_stop(together=True):
            self._trainer.interrupt("probing")

    def _note(self, step: int, seconds: float) -> None:
        """Write the line of a step, and tell it."""
        points = {at: self._record.rows(at) for at in sorted({0, step})}
        table = curve(probes_in_memory(points, self._about([step]), self._settings.cooling))
        line = {"step": step, **{name: float(value) for name, value in table.loc[step].items()}, "seconds": seconds}
        self._record.write(step, line, self._heard)
        self._heard.clear()
        self._context.event("probe", **finite(line))
        if self._context.execution.alarms:
            self._raise_alarms(step)

    def _raise_alarms(self, step: int) -> None:
        """Tell of what the probes and the curve so far show, each finding once."""
        spec: Any = self._trainer.spec
        points, logged = self._record.lines(step), self._record.logged(step)
        evidence = Evidence(spec.stage, spec.objective.name, points, logged, total=self._trainer.total)
        for finding in examine(evidence, self._context.execution.alarms):
            if finding.name not in self._told:
                self._told.add(finding.name)
                self._context.event("alarm", name=finding.name, step=step, sentence=finding.sentence)

    def _points(self, step: int) -> list[dict[str, float]]:
        """The lines of all steps up to one, the same on all ranks. Collective."""
        found = self._record.lines(step) if self._context.rank.is_first else None
        read: list[dict[str, float]] = distributed.from_first_rank(found, self._context.rank)
        return read
