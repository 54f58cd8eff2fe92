"""What a user writes about Stage 1 and Stage 2, and what of it does not fit together."""

from __future__ import annotations

from pydantic import Field, model_validator

from cwdpo.base.config import Config
from cwdpo.dynamics.curriculum import Curriculum
from cwdpo.dynamics.early_stop import EarlyStop
from cwdpo.negatives import Negatives, makers
from cwdpo.negatives.source import Part
from cwdpo.objectives import PreferenceObjective, Sft, SftRevised, SupervisedObjective
from cwdpo.objectives.online import Online
from cwdpo.objectives.preference import Preference
from cwdpo.objectives.supervised import Supervised
from cwdpo.objectives.supply import SUPPLIES, Supply
from cwdpo.train.config import Optimization, Rollouts, Round


class Stage1(Config):
    """Supervised training on the Stage-1 share of the images."""

    objective: SupervisedObjective = Sft()
    """What is minimised."""
    negatives: Negatives | None = None
    """Where rejected responses come from; needed by objectives that use them."""
    optimization: Optimization = Optimization(learning_rate=1e-5)
    """Batch, schedule, optimizer."""
    early_stop: EarlyStop | None = None
    """When it ends before its schedule does, by what its probes show (`probe` says which); None never."""

    @model_validator(mode="after")
    def _negatives_where_needed(self) -> Stage1:
        _check_negatives("stage1", self.objective, self.negatives)
        return self

    @property
    def steered(self) -> bool:
        """Whether the training acts on its probes."""
        return self.early_stop is not None

    @property
    def objectives(self) -> tuple[Supervised, ...]:
        """Its one objective."""
        return (self.objective,)

    @property
    def uses_rejected(self) -> bool:
        """True when rejected responses are needed."""
        return self.objective.uses_rejected

    @property
    def requires(self) -> tuple[Supply, ...]:
        """What every rejected response must come with."""
        return tuple(sorted(self.objective.requires))


class SftPhase(Config):
    """Supervised training on Stage 2's own pairs, before its preference phase and its reference."""

    objective: SupervisedObjective = SftRevised()
    """What is minimised."""
    optimization: Optimization = Optimization(epochs=2.0, learning_rate=1e-5)
    """Batch, schedule, optimizer; the learning rate of OPA-DPO's phase is not printed."""

    @model_validator(mode="after")
    def _accumulates(self) -> SftPhase:
        if self.objective.needs_batch_mean:
            raise ValueError("objective.constraint_estimate: current_batch is for stage1 only; use previous_step")
        return self


class Refresh(Config):
    """Stage 2 in rounds: the policy that a round leaves behind is asked for the negatives of the next one."""

    rounds: int = Field(ge=2)
    """How many; each trains its part of the steps of `optimization`."""

    @property
    def parts(self) -> list[Round]:
        """Each round."""
        return [Round(number=number, of=self.rounds) for number in range(self.rounds)]


class Stage2(Config):
    """Preference training on the rest, from Stage 1's result (or from the model itself without a Stage 1)."""

    objective: PreferenceObjective
    """What is minimised."""
    negatives: Negatives | None = None
    """Where rejected responses come from; needed by objectives that use them."""
    sft_phase: SftPhase | None = None
    """Supervised training on the same pairs first, whose result the preference phase starts from, as for OPA-DPO."""
    rollouts: Rollouts | None = None
    """How grpo and ppo sample and judge responses; None takes the defaults for them."""
    refresh: Refresh | None = None
    """Make negatives that come from the policy anew from time to time; None keeps those of the policy at the start."""
    optimization: Optimization = Optimization(learning_rate=5e-6)
    """Batch, schedule, optimizer."""
    early_stop: EarlyStop | None = None
    """As in Stage 1."""
    curriculum: Curriculum | None = None
    """Which pairs come when, by how hard their rejected responses are; None shuffles each pass over the data."""

    @model_validator(mode="after")
    def _consistent(self) -> Stage2:
        self._check_rollouts()
        for objective in self.objectives:
            _check_negatives("stage2", objective, self.negatives)
        if isinstance(self.objective, Supervised) and self.objective.needs_batch_mean:
            raise ValueError("objective.constraint_estimate: current_batch is for stage1 only; use previous_step")
        if self.refresh:
            self._check_refresh(self.refresh.rounds)
            if self.early_stop:
                raise ValueError(
                    "early_stop: a Stage 2 in rounds has its steps shared out beforehand: leave out refresh"
                )
        if self.curriculum:
            self._check_curriculum()
        return self

    def _check_curriculum(self) -> None:
        """Raise `ValueError` where pairs have no starting log-probabilities to be ordered by."""
        if not isinstance(self.objective, Preference):
            raise ValueError(f"curriculum: objective '{self.objective.name}' has no pairs with a reference to order by")
        if self.refresh:
            raise ValueError("curriculum: rounds have new pairs each: leave out refresh")

    def _check_refresh(self, rounds: int) -> None:
        """Raise `ValueError` where rounds would change nothing, or there are more of them than steps."""
        if not self.objective.uses_rejected or self.negatives is None:
            raise ValueError(f"refresh: objective '{self.objective.name}' uses no negatives: leave out refresh")
        if not any(map(_asks_policy, self.negatives.parts().values())):
            raise ValueError(
                f"refresh: negatives '{self.negatives.source}', as set here, are the same whatever the policy has"
                " learnt: leave out refresh, or take some from the policy itself, as source 'sample' does"
            )
        steps = self.optimization.max_steps
        if steps and steps < rounds:
            raise ValueError(f"refresh.rounds: {rounds} rounds need as many steps; optimization.max_steps is {steps}")

    def _check_rollouts(self) -> None:
        """Raise `ValueError` where responses are given to an objective that samples them, or the other way round."""
        name = self.objective.name
        if not isinstance(self.objective, Online):
            if self.rollouts:
                raise ValueError(f"objective '{name}' samples nothing: leave out rollouts; they are for grpo and ppo")
            return
        for key in ("negatives", "sft_phase", "refresh"):
            if getattr(self, key) is not None:
                raise ValueError(f"objective '{name}' samples its own responses and would not use {key}: leave it out")
        prompts, batch_size = self.sampling and self.sampling.prompts, self.optimization.batch_size
        if prompts and prompts < batch_size:
            raise ValueError(f"rollouts.prompts: {prompts} do not fill one batch of {batch_size} (batch_size)")

    @property
    def steered(self) -> bool:
        """Whether the training acts on its probes."""
        return self.early_stop is not None or self.curriculum is not None

    @property
    def sampling(self) -> Rollouts | None:
        """How responses are sampled; None for an objective that samples none."""
        if not isinstance(self.objective, Online):
            return None
        found = self.rollouts or Rollouts()
        as_default = found.prompts == self.optimization.batch_size
        return found.model_copy(update={"prompts": None}) if as_default else found

    @property
    def objectives(self) -> tuple[Supervised | Preference | Online, ...]:
        """Those of its phases."""
        return (self.sft_phase.objective, self.objective) if self.sft_phase else (self.objective,)

    @property
    def uses_rejected(self) -> bool:
        """True when rejected responses are needed, in any of its phases."""
        return any(objective.uses_rejected for objective in self.objectives)

    @property
    def requires(self) -> tuple[Supply, ...]:
        """What every rejected response must come with, for any of its phases."""
        return tuple(sorted(frozenset().union(*(objective.requires for objective in self.objectives))))


def _check_negatives(stage: str, objective: Supervised | Preference | Online, negatives: Negatives | None) -> None:
    """Raise `ValueError` where an objective needs rejected responses and there are none."""
    if objective.uses_rejected and negatives is None:
        raise ValueError(f"objective '{objective.name}' needs rejected responses: set {stage}.negatives")


def _asks_policy(part: Part) -> bool:
    """True when the policy has a say in what a part is."""
    return part.asks_policy or any(map(_asks_policy, part.parts().values()))


def lacking(stage: Stage1 | Stage2, by_data: frozenset[Supply]) -> str | None:
    """What a stage's objective needs beside rejected responses and its negatives do not make; None where nothing lacks.

    Args:
        by_data: what the data's own rejected responses come with.
    """
    if stage.negatives is None:
        return None
    made = stage.negatives.provides(by_data)
    for objective in stage.objectives:
        where = "" if objective is stage.objective else " of stage2.sft_phase"
        for supply in sorted(objective.requires - made):
            return (
                f"objective '{objective.name}'{where} needs {SUPPLIES[supply]}; negatives '{stage.negatives.source}',"
                f" as set here, make none; sources that do: {', '.join(makers(supply))}"
            )
    return None


def read_beside_the_start(stage: Stage1 | Stage2) -> str | None:
    """The name of an objective that compares whole distributions with those of the policy it started from."""
    supervised = (objective for objective in stage.objectives if isinstance(objective, Supervised))
    return next((objective.name for objective in supervised if "kl" in objective.reading.names), None)
