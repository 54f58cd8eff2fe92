"""Loading a policy: base model, processor, and a LoRA adapter, new or trained before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import ModelError
from cwdpo.base.identity import seed_from
from cwdpo.model.config import FullTuning, Lora, Policy
from cwdpo.model.patches import embed_patches_by_product
from cwdpo.model.processor import load_processor

if TYPE_CHECKING:
    from torch import nn


def load_policy_processor(policy: Policy, folder: Path) -> Any:
    """The processor, with the policy's pixel limits in place of the checkpoint's."""
    processor = load_processor(folder)
    if processor.tokenizer.pad_token_id is None:  # never attended to, so any token will do
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    if policy.min_pixels or policy.max_pixels:
        _limit_pixels(processor.image_processor, policy.min_pixels, policy.max_pixels)
    return processor


def _limit_pixels(images: Any, low: int | None, high: int | None) -> None:
    size = dict(images.size)
    if "shortest_edge" not in size or "longest_edge" not in size:
        raise ModelError(f"model.max_pixels: {type(images).__name__} has no pixel limits to set; its size is {size}")
    low, high = low or min(size["shortest_edge"], high or math.inf), high or max(size["longest_edge"], low or 0)
    images.size = {"shortest_edge": low, "longest_edge": high}


def load_model(policy: Policy, folder: Path, **options: Any) -> nn.Module:
    """The model of a folder, frozen, in evaluation mode, on the CPU unless `options` say otherwise.

    Raises:
        ModelError: the folder does not hold a vision-language model that transformers knows, or not all its weights.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    options |= {"dtype": getattr(torch, policy.dtype), "attn_implementation": "sdpa", "output_loading_info": True}
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot load the model: {' '.join(str(error).split())}") from error
    model, report = loaded
    missing = sorted(report["missing_keys"])  # transformers would go on with random values for them
    if missing:
        raise ModelError(f"{folder}: the weights lack {len(missing)} parameter(s), the first is {missing[0]}")
    embed_patches_by_product(model)
    return model.requires_grad_(False).eval()


def decoder_name(model: Any) -> str:
    """Module path of the language model inside a vision-language model, such as `model.language_model`."""
    decoder = model.get_decoder()
    names = [name for name, module in model.named_modules() if module is decoder]
    if not names:
        raise ModelError(f"{type(model).__name__}: cannot tell its language model from its vision tower")
    return names[0]


def lora_targets(model: Any) -> str:
    """Regular expression of the linear layers of the language model, leaving out vision tower and LM head.

    A list of suffixes such as q_proj would hit the vision tower too.
    """
    import torch

    prefix = decoder_name(model)
    decoder = model.get_submodule(prefix)
    linear = [name for name, module in decoder.named_modules() if isinstance(module, torch.nn.Linear)]
    leaves = {name.rsplit(".", 1)[-1] for name in linear}
    return rf"{prefix.replace('.', chr(92) + '.')}\..*\.({'|'.join(sorted(leaves))})"


def add_lora(model: Any, lora: Lora, seed: int) -> Any:
    """A PEFT model with a fresh trainable adapter, initialised from `seed` alone."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora_targets(model)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from("lora", lora.seed, seed))
        return get_peft_model(model, config, autocast_adapter_dtype=False)


def load_lora(model: Any, adapter: Path, trainable: bool) -> Any:
    """A PEFT model with the adapter of a PEFT folder.

    Raises:
        ModelError: the folder is no adapter, or one of another model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        loaded = PeftModel.from_pretrained(model, adapter, is_trainable=trainable, autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{adapter}: cannot load the adapter: {' '.join(str(error).split())}") from error
    return loaded if trainable else loaded.eval()


def load_frozen_adapter(policy: Any, adapter: Path, name: str) -> None:
    """Add an adapter to a PEFT model that already trains another one, which stays as it is."""
    policy.load_adapter(adapter, name, is_trainable=False, autocast_adapter_dtype=False)


def trainable_policy(model: Any, tuning: Lora | FullTuning, adapter: Path | None, seed: int) -> Any:
    """The model with what `tuning` trains requiring gradients; goes on with `adapter` where there is one."""
    if isinstance(tuning, FullTuning):
        # The LM head is outside the decoder, and not always tied to its embeddings.
        language = [model.get_submodule(decoder_name(model)), model.get_output_embeddings()]
        for part in [model] if tuning.train_vision else language:
            part.requires_grad_(True)
        return model
    return load_lora(model, adapter, trainable=True) if adapter else add_lora(model, tuning, seed)


def context_length(model: Any) -> int:
    """Longest sequence the model takes, in tokens."""
    return int(model.config.get_text_config().max_position_embeddings)
