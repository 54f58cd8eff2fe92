"""A penalty on the mean NLL of negatives that is either on or off in a step."""

from __future__ import annotations

from typing import ClassVar, Literal

from cwdpo.objectives.supervised import Beside, State, Supervised


class Switched(Supervised):
    """Carries from step to step whether the penalty is on."""

    constraint_estimate: Literal["previous_step", "current_batch"] = "previous_step"
    """What E[nll(y-)] switches the penalty: the previous step's exact global mean (free; the first step is on), or
    this batch's, which is Eq. 4 to the letter and needs gradient accumulation 1."""

    beside: ClassVar[Beside | None] = "rejected"

    @property
    def needs_batch_mean(self) -> bool:
        """True when the switch waits for the mean over the current global batch."""
        return self.constraint_estimate == "current_batch"

    def initial_state(self) -> State:
        """The penalty is on at the first step."""
        return {"penalty_on": 1.0}

    def next_state(self, state: State, beside_nll: float) -> State:
        """Switch the penalty by the global mean `beside_nll` = E[nll(y-)]."""
        return {"penalty_on": float((self.penalty(beside_nll, state) or 0.0) > 0)}
