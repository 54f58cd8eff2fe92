"""The policy as it was before the first step, beside the one that is trained.

With LoRA it costs an adapter: the one the stage went on from is loaded a second time and never trained (a stage that
began with a fresh one started from the base model). With full training it costs a second model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import Policy
from cwdpo.model.inference import evaluating
from cwdpo.model.load import load_frozen_adapter, load_model
from cwdpo.model.scoring import Scorer
from cwdpo.model.zero3 import Zero3Loading

START = "start"
"""Name of the frozen adapter."""


class StartingPolicy(Protocol):
    """Scores like the policy did before the first step."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context in which the trained model itself is the policy at the start; LoRA only."""

    def scorer(self, scorer: Scorer) -> Scorer:
        """What scores in the way of `scorer`, inside `active`."""

    def close(self) -> None:
        """Release what it holds of its own."""


class StartingAdapter:
    """The trained model with the adapter it began with.

    Args:
        policy: a PEFT model.
        adapter: what it went on from; None for a fresh adapter.
    """

    def __init__(self, policy: Any, adapter: Path | None) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        if adapter is not None:
            load_frozen_adapter(policy, adapter, START)
        self._policy = policy
        self._layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Swap adapters, without dropout; a layer that has none of that name gives what the base model does."""
        # PEFT's own set_adapter also changes what requires gradients, which DeepSpeed has already noted.
        before = [layer._active_adapter for layer in self._layers]
        for layer in self._layers:
            layer._active_adapter = [START]
        try:
            with evaluating(self._policy):
                yield
        finally:
            for layer, name in zip(self._layers, before, strict=True):
                layer._active_adapter = name

    def scorer(self, scorer: Scorer) -> Scorer:
        """The very same: it is the model that changes."""
        return scorer

    def close(self) -> None:
        """It goes with the trained model."""


class StartingCopy:
    """A second, frozen model; partitioned like the first one under ZeRO-3.

    Args:
        config: of the engine that trains.
    """

    def __init__(self, context: StageContext, policy: Policy, config: dict[str, Any]) -> None:
        import deepspeed

        self._engine: Any = None
        partitioned = config["zero_optimization"]["stage"] == 3
        with Zero3Loading(config) if partitioned else nullcontext():
            model: Any = load_model(policy, context.inputs["model"])
        if partitioned:
            inference = {"train_micro_batch_size_per_gpu": 1, "bf16": config["bf16"], "zero_optimization": {"stage": 3}}
            self._engine, *_ = deepspeed.initialize(model=model, config=inference)
            self._engine.eval()  # returns nothing
            model = self._engine
        else:
            model = model.to(distributed.device_of(context.rank))
        self._model = model

    @contextmanager
    def active(self) -> Iterator[None]:
        """Nothing to swap: the copy is a model of its own."""
        yield

    def scorer(self, scorer: Scorer) -> Scorer:
        """The copy, scored in the same way."""
        if scorer.way.apart:
            splits_prefixes(self._model)
        return scorer.of_another(self._model)

    def close(self) -> None:
        """Take DeepSpeed's hooks off, so that another engine can start in this process."""
        if self._engine is not None:
            self._engine.destroy()
