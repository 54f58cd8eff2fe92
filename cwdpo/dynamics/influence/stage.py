"""Stage `influence`: at the kept snapshots of a finished LoRA training, what a step on some samples does to others.

Inputs: `run` (the training), `adapter` (what it went on from, if anything), `model`, `images`, `probe_set`. One process
on one device does it; each step's rows are a block, so that a killed job goes on where it was.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from typing import Any

from pydantic import Field, model_validator

from cwdpo.base import distributed, files
from cwdpo.base.config import Config
from cwdpo.base.context import Blocks, StageContext
from cwdpo.base.runtime import Rank
from cwdpo.data.encoding import Collator
from cwdpo.dynamics.influence.losses import unsupported
from cwdpo.dynamics.influence.measure import Observed
from cwdpo.dynamics.influence.rows import ABOUT, TABLE, write_rows
from cwdpo.dynamics.influence.subject import Subject, Weights
from cwdpo.dynamics.probing import scorer_of
from cwdpo.dynamics.rows import GRADES
from cwdpo.dynamics.samples import ProbeSample, load_probe_set
from cwdpo.model.config import Dtype, Lora, Policy
from cwdpo.model.load import context_length, load_model, load_policy_processor, trainable_policy
from cwdpo.model.snapshots import Snapshots
from cwdpo.objectives import PreferenceObjective, SupervisedObjective


class InfluenceSpec(Config):
    """Which updates are made, on what policy, and which responses are observed."""

    policy: Policy
    tuning: Lora = Lora()
    """Of the run."""
    objective: SupervisedObjective | PreferenceObjective
    """Whose loss an update goes down: of a sample's chosen response and its graded negatives. The reference of a
    preference objective is the policy at the start of the run."""
    every: int = Field(gt=0)
    """Optimizer steps of the run between two policies that are looked at; its start and its end always are."""
    updates: int = Field(default=3, gt=0)
    """How many samples of the probe set, the first ones that have a graded negative."""
    observations: int = Field(default=14, gt=0)
    """How many responses of the probe set, the first ones, sample by sample and each in the order chosen, hard, medium,
    easy, greedy, shuffled, other."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the plain SGD step. Large enough for its effect to stand out from rounding (1e-6 nats in float32), small
    enough for the first order to say most of it: compare `predicted` with `measured`."""
    dtype: Dtype = "float32"
    """Precision of weights and activations here, whatever the run's: in bfloat16 one step is lost to rounding."""
    seed: int = 0
    """Of the run, for its initial adapter where it went on from none."""

    @model_validator(mode="after")
    def _loss_of_one_sample(self) -> InfluenceSpec:
        why = unsupported(self.objective)
        if why:
            raise ValueError(f"objective '{self.objective.name}' {why}; influence cannot be computed for it")
        return self


def run(context: StageContext) -> None:
    """Write influence.parquet and influence.json.

    Raises:
        DataError: the training has not kept the snapshots that are asked for.
    """
    if context.rank.is_first:
        Measuring(replace(context, rank=Rank(local_rank=context.rank.local_rank))).run()
    context.barrier()


class Measuring:
    """One run, looked at with the first samples of one probe set."""

    def __init__(self, context: StageContext) -> None:
        self.context = context
        self.spec: InfluenceSpec = context.spec
        samples = load_probe_set(context.inputs["probe_set"])
        self.updated = list(islice((one for one in samples if _negatives(one)), self.spec.updates))
        observed = ((one, kind) for one in samples for kind in one.responses)
        self.observed = list(islice(observed, self.spec.observations))
        self.snapshots = Snapshots(context.inputs["run"], context.inputs.get("adapter"))
        self.steps = self.snapshots.every(self.spec.every)
        self.blocks = Blocks(context, self.steps, 1)

    def run(self) -> None:
        """Measure at the steps that are not there yet, and publish."""
        if self.blocks.pending():
            self._measure()
        found = list(self.blocks.rows())
        write_rows(self.context.out / TABLE, [row for block in found for row in block["rows"]])
        files.write_json(self.context.out / ABOUT, self._about(sum(block["seconds"] for block in found)))

    def _measure(self) -> None:
        subject = self._subject()
        reference = subject.reference()
        for index in self.blocks.pending():
            began, step = time.perf_counter(), self.steps[index]
            rows = [{"step": step, **row} for row in subject.rows(step, self._next(index), reference)]
            self.blocks.write(index, [{"step": step, "seconds": time.perf_counter() - began, "rows": rows}])

    def _next(self, index: int) -> int | None:
        """The step after that of a block, unless rounds that are not this run lie between the two."""
        step, *later = self.steps[index : index + 2]
        return later[0] if later and (step or not self.snapshots.begin) else None

    def _subject(self) -> Subject:
        spec, inputs = self.spec, self.context.inputs
        policy = spec.policy.model_copy(update={"dtype": spec.dtype})
        loaded = load_model(policy, inputs["model"])
        model = trainable_policy(loaded, spec.tuning, inputs.get("adapter"), spec.seed)
        model = model.to(distributed.device_of(self.context.rank)).eval()
        processor = load_policy_processor(policy, inputs["model"])
        collator = Collator(processor, inputs["images"], context_length(model))
        used = list({one.id: one for one in [*self.updated, *(sample for sample, _ in self.observed)]}.values())
        scorer = scorer_of(self.context, model, collator, used, spec.dtype)
        observed = [
            Observed(sample.id, kind, collator.group(sample.sample, [sample.responses[kind]]))
            for sample, kind in self.observed
        ]
        updated = {one.id: collator.group(one.sample, self._texts(one)) for one in self.updated}
        weights = Weights(model, self.snapshots)
        return Subject(scorer, weights, updated, observed, spec.objective, spec.learning_rate)

    def _texts(self, sample: ProbeSample) -> list[str]:
        """The responses that enter an update's loss."""
        return [sample.responses["chosen"], *(_negatives(sample) if self.spec.objective.uses_rejected else [])]

    def _about(self, seconds: float) -> dict[str, Any]:
        return {
            **self.spec.model_dump(mode="json"),
            "steps": self.steps,
            "total": self.snapshots.course["total"],
            "updated": [one.id for one in self.updated],
            "observed": [[sample.id, kind] for sample, kind in self.observed],
            "seconds": seconds,
        }


def _negatives(sample: ProbeSample) -> list[str]:
    """Its graded ones, the hardest first."""
    return [sample.responses[grade] for grade in GRADES if grade in sample.responses]
