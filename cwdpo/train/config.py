"""What training computes: optimizer, schedule, batch, and how long. Where it runs is `Execution`."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cwdpo.base.config import Config, Neutral
from cwdpo.model.config import Lora, Policy, Tuning
from cwdpo.model.decoding import Decoding
from cwdpo.objectives import PreferenceObjective, SupervisedObjective
from cwdpo.train.rewards import CiderReward, Reward
from cwdpo.train.steering import Steering

Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimization(Config):
    """AdamW with a warm-up and a decay, over global batches."""

    batch_size: int = Field(default=128, gt=0)
    """Samples of a global batch: all ranks, all micro-batches of one optimizer step."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data; a fraction is rounded up to whole steps."""
    max_steps: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Stop after this many steps; the schedule ends there too."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay after the warm-up: to 0, or none."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's averaging factors."""
    clip: float = Field(default=1.0, ge=0)
    """Largest norm of the global gradient; 0 turns clipping off."""
    max_length: Annotated[int | None, Neutral(None)] = Field(default=None, gt=0)
    """Most tokens of image, prompt and response; None is the model's context."""

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole training."""
        steps = math.ceil(self.epochs * steps_per_epoch)
        return min(steps, self.max_steps) if self.max_steps else steps

    def learning_rate_at(self, step: int, total: int) -> float:
        """Learning rate of step `step` (0-based): a function of the step alone, so a resume needs no state."""
        warm = math.ceil(self.warmup * total)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        progress = (step - warm) / max(total - warm, 1)
        decay = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
        return self.learning_rate * decay[self.schedule]


SAMPLED: dict[str, Any] = {"strategy": "sample", "max_new_tokens": 64, "block": 8}
"""How responses are sampled where nothing else is said; eight prompts of eight responses are 18 GB of keys and values
in a 72B model."""


class Rollouts(Config):
    """How responses are sampled while training, and what they are worth."""

    prompts: int | None = Field(default=None, gt=0)
    """Prompts whose responses are sampled by one state of the policy, at least batch_size; None is batch_size."""
    decoding: Decoding = Decoding(**SAMPLED)
    """Of one response. `block` prompts (8 unless said) are sampled together: what keys and values take memory for. The
    log-probabilities that losses compare are those at temperature 1 and top-p 1, whatever is said here."""
    reward: Reward = CiderReward()
    """What is maximised."""

    @field_validator("decoding", mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        return {**SAMPLED, **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _sampled(self) -> Rollouts:
        if self.decoding.strategy != "sample":
            raise ValueError(f"decoding.strategy: '{self.decoding.strategy}' samples nothing; valid: sample")
        if self.decoding.candidates != 1:
            raise ValueError("decoding.candidates: leave it out; objective.samples says how many responses there are")
        return self


class TrainingSpec(Config):
    """What both stages share."""

    stage: ClassVar[Literal["stage1", "stage2"]]
    """Whose training it is, for those who read its probes."""

    policy: Policy
    tuning: Tuning = Lora()
    optimization: Optimization = Optimization()
    one_per_image: bool = False
    """Draw one caption per image and epoch by seed, instead of training on every record."""
    seed: int = 0
    steering: Annotated[Steering | None, Neutral(None)] = None
    """Probes that the training acts on."""


class Stage1Spec(TrainingSpec):
    """Supervised training."""

    stage: ClassVar[Literal["stage1", "stage2"]] = "stage1"
    objective: SupervisedObjective
    portion: Annotated[Literal["stage1", "stage2"], Neutral("stage1")] = "stage1"
    """Whose share of the images is trained on."""


class Round(Config):
    """One of the rounds that a training is cut into."""

    number: int = Field(ge=0)
    """Counted from 0."""
    of: int = Field(ge=2)
    """How many there are."""

    @property
    def is_last(self) -> bool:
        """True when nothing goes on from it."""
        return self.number == self.of - 1

    def end(self, total: int) -> int:
        """The step it ends after, of `total` steps of all rounds."""
        return (self.number + 1) * total // self.of


class Stage2Spec(TrainingSpec):
    """Preference training."""

    stage: ClassVar[Literal["stage1", "stage2"]] = "stage2"
    objective: PreferenceObjective
    rollouts: Annotated[Rollouts | None, Neutral(None)] = None
    """Of objectives that sample their own responses."""
    round: Annotated[Round | None, Neutral(None)] = None
    """Which part of the training this is; None is all of it."""
