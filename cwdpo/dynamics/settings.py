"""What a user writes about probes: which samples, how often, and who is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cwdpo.base.config import Config, Place
from cwdpo.base.errors import name_valid
from cwdpo.dynamics.alarms import ALARMS
from cwdpo.model.config import Policy
from cwdpo.negatives.graded import Graded

Split = Literal["val", "train", "test"]
StageName = Literal["stage1", "stage2"]

BETA = 0.1
"""Of what is derived from margins where a stage has no beta of its own."""


class Cooling(Config):
    """The scale on which the cooling weight of graded negatives is recorded (Eq. 6), for every method alike."""

    l_floor: float = -3.0
    """Mean log-probability, nats per token, at which a negative counts half."""
    tau: float = Field(default=1.0, gt=0)
    """Width of the transition, nats per token."""


class ProbeSet(Config):
    """Which samples are probed, and with what responses."""

    samples: int = Field(default=40, gt=0)
    """How many images; fewer where the split, or the first candidates drawn from it (four times as many), have fewer
    that every grade has a negative for. One costs less than a training sample does."""
    split: Split = "val"
    """Where they are from."""
    seed: int = 0
    """Of the draw of images, and of the controls."""
    negatives: Graded = Graded(source="graded")
    """Their hard, medium and easy negatives; sources that ask the policy are refused."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest greedy answer of the base model, end-of-turn included."""
    block: int = Field(default=8, gt=0)
    """Samples that are read together: the unit of sharding and resume."""
    cooling: Cooling = Cooling()
    """The scale of the recorded cooling weights."""

    @model_validator(mode="after")
    def _made_without_the_policy(self) -> ProbeSet:
        for grade, source in self.negatives.of:
            if source.parts():
                raise ValueError(
                    f"negatives.of.{grade}: source '{source.source}' asks the policy or an endpoint first, and a probe"
                    " set is the same for every policy; valid: perturb, dataset"
                )
        return self


class Influence(Config):
    """What one step on some samples does to others, measured on the kept adapters (Proposition 1, Figure 5)."""

    updates: int = Field(default=3, gt=0)
    """Samples of the probe set that a step is made on, the first ones."""
    observations: int = Field(default=4, gt=0)
    """Responses of the probe set that are observed, the first ones, sample by sample."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the plain SGD step."""


class Probe(ProbeSet):
    """Probing of both stages: a fixed set of samples is read every so many steps."""

    every: int = Field(default=100, gt=0)
    """Optimizer steps between two probes; the first and the last step are always probed."""
    influence: Influence | None = None
    """What steps on some samples do to others; None measures nothing of the kind. Needs tuning lora."""
    alarms: Annotated[tuple[str, ...], Place()] = ()
    """What is looked for and told while training runs (which then is when probes are made): squeezing, peaking,
    stale_negatives, constraint_never_active, loser_gradient, divergence."""

    @field_validator("alarms")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ALARMS:
                raise ValueError(f"unknown alarm {name_valid(name, ALARMS)}")
        return names

    @property
    def of_set(self) -> ProbeSet:
        """The part that the samples depend on."""
        return ProbeSet(**{name: getattr(self, name) for name in ProbeSet.model_fields})


class ProbeSetSpec(Config):
    """What a stage `probe_set` makes; the records and the base model are parents."""

    policy: Policy
    set: ProbeSet


class ProbeSpec(Config):
    """What a stage `probe` reads; the run, the probe set and the base model are parents."""

    policy: Policy
    stage: StageName
    """Which stage the run is, for those who read the rows."""
    every: int = Field(gt=0)
    """Steps between two probes."""
    beta: float = BETA
    """Of the preference loss, for what is derived from margins."""


def about_probes(settings: ProbeSet, stage: StageName, every: int, beta: float) -> dict[str, Any]:
    """What probe.json says of how a stage was probed."""
    return {"stage": stage, "every": every, "beta": beta, **settings.cooling.model_dump()}
