"""What makes a training depend on its probes: part of what it computes, and so of its identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from cwdpo.base.config import Config
from cwdpo.base.errors import StoreError
from cwdpo.dynamics.curriculum import Curriculum
from cwdpo.dynamics.early_stop import EarlyStop

if TYPE_CHECKING:
    from cwdpo.train.loop import Trainer
    from cwdpo.train.steering.observer import Observer


class Steering(Config):
    """Probes that a training acts on; the probe set is a parent."""

    every: int = Field(gt=0)
    """Optimizer steps between two probes."""
    early_stop: EarlyStop | None = None
    """When it ends before its schedule does."""
    curriculum: Curriculum | None = None
    """Which pairs come when."""

    def observer(self, trainer: Trainer) -> Observer:
        """Who looks at a training and acts; `StoreError` where nobody can tell any more how it began."""
        from cwdpo.train.steering.observer import Observer

        observer = Observer(trainer, self.every, trainer.context.inputs["probe_set"], self.early_stop)
        if not observer.sees_start:
            raise StoreError(
                f"{trainer.context.partial}: the probe of step 0, which this training goes by, is gone; delete"
                f" {trainer.checkpoints.folder} to start over"
            )
        if self.curriculum:
            observer.pace(self.curriculum)
        return observer
