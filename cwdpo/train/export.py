"""Writing a trained policy: a PEFT folder, or a whole model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.model.head import VALUE_HEAD
from cwdpo.train.config import TrainingSpec
from cwdpo.train.engine import Engine, Trainables
from cwdpo.train.saving import saving


def save_policy(context: StageContext, engine: Engine, processor: Any, spec: TrainingSpec) -> None:
    """Write the result of a stage to `context.out`, in the policy's precision. Collective."""
    if spec.tuning.name == "lora":
        adapter = Trainables(engine).weights()
        if context.rank.is_first:
            with saving(context.out):
                save_adapter(engine.model, adapter, context.out, spec.policy.dtype)
    else:
        weights = _full_weights(engine)
        if context.rank.is_first:
            with saving(context.out):
                engine.model.save_pretrained(context.out, state_dict=weights)
                processor.save_pretrained(context.out)
    context.barrier()


def save_adapter(model: Any, weights: dict[str, Any], folder: Path, dtype: str) -> None:
    """A folder that `PeftModel.from_pretrained` loads; equal adapters have equal bytes, wherever the model lies."""
    import torch

    target = getattr(torch, dtype)
    in_precision = {name: value.to(target) for name, value in weights.items()}
    # Of several adapters the one that is trained; PEFT takes no more of the weights than what is the adapter's.
    model.save_pretrained(folder, state_dict=in_precision, selected_adapters=[model.active_adapter])
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card
    config = folder / "adapter_config.json"
    files.write_json(config, {**files.read_json(config), "base_model_name_or_path": None})


def _full_weights(engine: Engine) -> dict[str, Any] | None:
    """All weights of the model on rank 0, without a value head; under ZeRO-3 they are gathered first."""
    weights: dict[str, Any] | None
    if engine.zero_stage == 3:
        # What transformers noted while it loaded into partitions would give the parameters names of no checkpoint.
        engine.model._weight_conversions = None
        weights = engine.deepspeed._zero3_consolidated_16bit_state_dict()
    else:
        weights = engine.model.state_dict()
    return weights and {name: value for name, value in weights.items() if not name.startswith(f"{VALUE_HEAD}.")}
