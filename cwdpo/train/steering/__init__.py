"""Probing a training while it runs, and acting on what is seen.

`observe` stands in the `__init__`, which is no source of any stage: what a training computes depends on how it is
probed only where its own settings say that it acts on probes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cwdpo.base.context import WATCHED
from cwdpo.train.steering.settings import Steering

if TYPE_CHECKING:
    from cwdpo.train.loop import Trainer
    from cwdpo.train.steering.observer import Observer


def observe(trainer: Trainer) -> Observer | None:
    """Who looks at a training, where it is to be probed; None where it is not."""
    if trainer.spec.steering:
        return trainer.spec.steering.observer(trainer)
    every = trainer.context.execution.probe_every
    if every is None or WATCHED not in trainer.context.inputs:
        return None
    from cwdpo.train.steering.observer import Observer

    observer = Observer(trainer, every, trainer.context.inputs[WATCHED])
    if observer.sees_start:
        return observer
    trainer.context.event("not_watched", why=f"it went on at step {trainer.progress.step}, and nobody saw its start")
    return None


__all__ = ["Steering", "observe"]
