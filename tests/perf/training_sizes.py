"""Qwen2.5-VL architectures with random weights, made on the device, and the operations that a step of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training_world import Point

from cwdpo.jobs.forecast.dimensions import released

MERGED = 4
"""Patches of an image token."""


@dataclass(frozen=True)
class Size:
    """What tells one size of the family from another.

    Attributes:
        text: fields of the language model's configuration.
        vision: fields of the vision tower's.
        tied: the LM head is the embedding.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    tied: bool

    @property
    def hidden(self) -> int:
        """Width of the language model."""
        return int(self.text["hidden_size"])


def _released(name: str) -> Size:
    """Of a released checkpoint, as `cwdpo plan` knows it."""
    found = released()[f"Qwen/Qwen2.5-VL-{name}-Instruct"]
    text = {**found["text_config"], "max_position_embeddings": 128000}
    return Size(text, found["vision_config"], found["tie_word_embeddings"])


SIZES = {
    "3b": _released("3B"),
    "7b": _released("7B"),
    "tiny": Size(
        {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 8192, "max_position_embeddings": 2048},
        {"depth": 2, "hidden_size": 64, "num_heads": 4, "intermediate_size": 128, "window_size": 112,
         "fullatt_block_indexes": [1]}, tied=True,
    ),
}  # fmt: skip
"""The numbers of the released configurations; `tiny` shows on a CPU that all of it runs."""


def random_model(size: Size, tokenizer: Any, device: Any) -> Any:
    """Frozen random weights in bfloat16, drawn on the device; the special tokens are those of `tokenizer`."""
    import torch
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

    identify = tokenizer.convert_tokens_to_ids
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = Qwen2_5_VLConfig(
        text_config={**size.text, **ends, "rope_parameters": rope, "rms_norm_eps": 1e-6},
        vision_config={**size.vision, "out_hidden_size": size.hidden, "patch_size": 14},
        image_token_id=identify("<|image_pad|>"),
        video_token_id=identify("<|video_pad|>"),
        vision_start_token_id=identify("<|vision_start|>"),
        vision_end_token_id=identify("<|vision_end|>"),
        tie_word_embeddings=size.tied,
    )
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    return model.requires_grad_(False).eval()


def operations(model: Any, point: Point, prefix_tokens: int, shared: bool) -> float:
    """Floating-point operations of one pair in a LoRA step, recomputation and attention scores not counted.

    A frozen weight takes two a token forward and two backward (for what comes before it), the vision tower only the
    first two; the LM head runs on response tokens.
    """
    count = {name: sum(part.numel() for part in module.parameters()) for name, module in _parts(model).items()}
    response = 2 * (point.response_tokens + 1)
    tokens = (1 if shared else 2) * prefix_tokens + response
    images = point.image_tokens * (1 if shared else 2)
    vision = 2.0 * images * (MERGED * (count["vision"] - count["merger"]) + count["merger"])
    head = model.get_output_embeddings().weight.numel()
    return 4.0 * count["layers"] * tokens + 4.0 * head * response + vision


def _parts(model: Any) -> dict[str, Any]:
    inner = model.model
    return {"layers": inner.language_model.layers, "vision": inner.visual, "merger": inner.visual.merger}
