"""The DeepSpeed engine of a training stage, and its state by parameter name.

`Trainables` reads and writes master weights and Adam moments as full tensors under every ZeRO stage, which is what
lets a checkpoint load at another world size, ZeRO stage or micro-batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import ConfigError
from cwdpo.base.runtime import Execution
from cwdpo.train.config import Optimization

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


def check_precision(dtype: str, execution: Execution) -> None:
    """Raise `ConfigError` for ZeRO-0 with bf16, whose trajectory differs from every other combination."""
    if dtype == "bfloat16" and execution.zero_stage == 0:
        raise ConfigError("execution.zero_stage: 0 with model.dtype bfloat16 trains differently; use 1, 2 or 3")


def engine_config(optimization: Optimization, execution: Execution, dtype: str) -> dict[str, Any]:
    """DeepSpeed's configuration. It counts no accumulation: `Engine.at_boundary` says which micro-batch is the last."""
    return {
        "train_micro_batch_size_per_gpu": execution.micro_batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimization.clip,
        "bf16": {"enabled": dtype == "bfloat16"},
        # Sums of bf16 gradients would depend on how a global batch is cut into micro-batches.
        **({"data_types": {"grad_accum_dtype": "fp32"}} if dtype == "bfloat16" else {}),
        "zero_optimization": {"stage": execution.zero_stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        # DeepSpeed's throughput timer waits for the GPU before every forward pass; the curve has its own clock.
        "timers": {"throughput": {"enabled": False}},
    }


class Engine:
    """A model under DeepSpeed with torch's AdamW: forward, backward, step.

    Args:
        model: with `requires_grad` set on what is trained.
        config: from `engine_config`.
    """

    def __init__(self, model: Any, optimization: Optimization, config: dict[str, Any]) -> None:
        import deepspeed
        import torch

        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._adamw = torch.optim.AdamW(
            parameters, lr=0.0, betas=optimization.betas, weight_decay=optimization.weight_decay, fused=True
        )
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.model = model
        self.zero_stage = config["zero_optimization"]["stage"]
        self.deepspeed, *_ = deepspeed.initialize(model=model, optimizer=self._adamw, config=config)
        self.model.train()

    @property
    def device(self) -> Any:
        """Where inputs must be."""
        return self.deepspeed.device

    def at_boundary(self, last: bool) -> None:
        """Say before a forward pass whether its micro-batch is the last of the global batch."""
        self.deepspeed.set_gradient_accumulation_boundary(last)

    def backward(self, share: Tensor) -> None:
        """Accumulate the gradient of this micro-batch's share of the global loss.

        DeepSpeed averages over the ranks; shares are meant to be added, so that is multiplied back.
        """
        self.deepspeed.backward(share * self.deepspeed.world_size)

    def step(self, learning_rate: float) -> float:
        """After the last micro-batch of a global batch clip and update; returns the norm before clipping."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        norm = self._plain_norm() if self.zero_stage == 0 else None
        self.deepspeed.step()
        return norm if norm is not None else float(self.deepspeed.get_global_grad_norm())

    def _plain_norm(self) -> float:
        """Norm of the averaged gradients, which DeepSpeed does not report without ZeRO."""
        import torch

        norms = [parameter.grad.float().norm() for parameter in self.model.parameters() if parameter.grad is not None]
        return float(torch.stack(norms).norm()) if norms else 0.0

    def close(self) -> None:
        """Release hooks and buffers, so that another engine can start in this process."""
        self.deepspeed.destroy()


class Trainables:
    """Master weights and Adam moments of an engine by parameter name. Collective: every rank must call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._named = {name: parameter for name, parameter in engine.model.named_parameters() if name in engine.names}

    def weights(self) -> dict[str, Tensor]:
        """Full float32 master weights, on the CPU."""
        from deepspeed.utils import safe_get_full_fp32_param

        if self._engine.zero_stage == 0:
            return {name: parameter.detach().float().cpu().clone() for name, parameter in self._named.items()}
        return {name: safe_get_full_fp32_param(parameter).cpu().clone() for name, parameter in self._named.items()}

    def moments(self) -> dict[str, Tensor]:
        """Adam moments as `name|exp_avg`, and the step count as `step`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        result = {}
        for name, parameter in self._named.items():
            for key in MOMENTS:
                if self._engine.zero_stage == 0:
                    value = self._engine._adamw.state[parameter][key]
                else:
                    value = safe_get_full_optimizer_state(parameter, key)
                result[f"{name}|{key}"] = value.detach().float().cpu().clone()
        result["step"] = next(iter(self._engine._adamw.state.values()))["step"].detach().float().cpu().reshape(1)
        return result

    def restore(self, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Put back what `weights` and `moments` returned, under any ZeRO stage and world size."""
        self._create_state()
        for name, parameter in self._named.items():
            self._set(parameter, weights[name], None)
            for key in MOMENTS:
                self._set(parameter, moments[f"{name}|{key}"], key)
        for state in self._engine._adamw.state.values():
            state["step"].fill_(float(moments["step"]))

    def _set(self, parameter: Any, value: Tensor, key: str | None) -> None:
        """Replace a master weight (`key` None) or a moment by a full float32 tensor."""
        from deepspeed import utils

        value = value.to(self._engine.device)
        if self._engine.zero_stage == 0:
            (self._engine._adamw.state[parameter][key] if key else parameter.data).copy_(value)
        elif self._engine.zero_stage == 3:  # DeepSpeed's setter of full tensors fails where the ranks do not divide one
            part = _partition(value, parameter.ds_tensor.numel(), self._engine.deepspeed.global_rank)
            set_moment, set_weight = utils.safe_set_local_optimizer_state, utils.safe_set_local_fp32_param
            set_moment(parameter, part, key) if key else set_weight(parameter, part)
        else:
            set_moment, set_weight = utils.safe_set_full_optimizer_state, utils.safe_set_full_fp32_param
            set_moment(parameter, value, key) if key else set_weight(parameter, value)

    def _create_state(self) -> None:
        """Allocate AdamW's state, which it does itself at its first step only."""
        import torch

        adamw, optimizer = self._engine._adamw, self._engine.deepspeed.optimizer
        owned = [parameter for group in adamw.param_groups for parameter in group["params"]]
        # ZeRO-3 lends AdamW one partition at a time, at each step.
        for parameter in optimizer.fp32_partitioned_groups_flat if self._engine.zero_stage == 3 else owned:
            moments = {key: torch.zeros_like(parameter) for key in MOMENTS}
            # AdamW counts in place, in each state for itself, and its fused kernel counts where the parameter is.
            adamw.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
        link = getattr(optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if link:
            link()


def _partition(value: Tensor, size: int, rank: int) -> Tensor:
    """The `size` numbers of a flattened tensor that ZeRO-3 keeps on `rank`; zeros beyond its end. Shape (size,)."""
    import torch

    mine = value.flatten()[size * rank : size * (rank + 1)]
    return torch.nn.functional.pad(mine, (0, size - mine.numel()))
