"""Whether the trainings and generations of a plan fit into the memory that a rank has, and what was measured so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cwdpo.jobs.clusters import KINDS
from cwdpo.jobs.forecast.estimates import Estimates
from cwdpo.jobs.forecast.memory import GeneratingNeed, Need, Parts, TrainingNeed, advice, fits
from cwdpo.jobs.forecast.samples import seeing
from cwdpo.jobs.forecast.tasks import Generating, Task, Training


@dataclass(frozen=True)
class Fit:
    """The stage of one kind and model that takes most.

    Attributes:
        need: what it is computed from.
        memory: bytes of a GPU, or of this machine's share of a rank; 0 where nobody knows.
        advice: settings with which it would fit: {} where it does, None where no setting is enough.
        measured: most bytes that finished stages of this kind and model took; 0 where there are none.
    """

    stage: str
    method: str
    need: Need
    parts: Parts
    memory: float
    advice: dict[str, Any] | None
    measured: float

    @property
    def fits(self) -> bool | None:
        """None where nobody knows what there is."""
        return fits(self.parts.total, self.memory) if self.memory else None

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        need = self.need
        own: dict[str, Any] = {"ranks": need.ranks, "zero_stage": need.execution.zero_stage}
        if isinstance(need, TrainingNeed):
            own |= {"micro_batch": need.execution.micro_batch, "samples_of_a_pass": need.samples}
            own |= {"tokens_of_a_sample": round(need.tokens), "gradient_checkpointing": need.trained.recomputed}
        else:
            own = {"ranks": need.ranks, "inference": need.execution.inference, "block": need.block}
            own |= {"answers_at_a_time": need.block * need.draws, "replica_size": need.execution.replica_size}
        return {
            "stage": self.stage, "method": self.method, "model": need.model.name, "sizes_from": need.model.source,
            "settings": own, "bytes": self.parts.as_json(), "memory": round(self.memory), "fits": self.fits,
            "would_fit_with": self.advice, "measured": round(self.measured),
        }  # fmt: skip


def fits_of(tasks: Iterable[Task], estimates: Estimates) -> list[Fit]:
    """The one that takes most of each stage and model, in the order of the tasks."""
    found: dict[tuple[str, str], Fit] = {}
    for task in tasks:
        if isinstance(task, Training | Generating) and task.stage != "pretrain" and task.subject.model is not None:
            made = _fit(task, estimates)
            known = found.get((task.stage, task.subject.key))
            if known is None or made.parts.total > known.parts.total:
                found[task.stage, task.subject.key] = made
    return [_advised(one) for one in found.values()]


def _fit(task: Training | Generating, estimates: Estimates) -> Fit:
    device = estimates.device(KINDS[task.stage])
    need = need_of(task, estimates.ranks(task.stage), device.gpu)
    pasts = [past for past in estimates.history.of(task.stage) if task.subject.key in past.models]
    measured = max((past.peak for past in pasts), default=0.0)
    return Fit(task.stage, task.method, need, need.parts(), device.memory, {}, measured)


def _advised(fit: Fit) -> Fit:
    return replace(fit, advice=advice(fit.need, fit.memory)) if fit.fits is False else fit


def need_of(task: Training | Generating, ranks: int, gpu: bool) -> Need:
    """What a task holds on each of so many ranks."""
    subject = task.subject
    assert subject.model is not None, "only asked about models whose sizes are known"
    if isinstance(task, Generating):
        return GeneratingNeed(
            subject.model, subject.dtype, subject.longest + task.text, task.block, task.draws, task.new, subject.rank,
            task.execution, ranks, gpu,
        )  # fmt: skip
    rows = seeing(task.rows, subject.longest)
    if task.sampled:  # any of them may be as long as it can get
        rows = tuple(replace(row, length=task.sampled.new) for row in rows)
    sampled = need_of(task.sampled, ranks, gpu) if task.sampled else None
    assert not isinstance(sampled, TrainingNeed), "what is sampled is generated"
    return TrainingNeed(
        subject.model, subject.dtype, rows, task.trained, task.execution, ranks, gpu, task.frozen_copy, sampled,
        task.batch,
    )  # fmt: skip
