"""A Qwen2.5-VL small enough to train on one CPU thread: the genuine architecture, processor and chat template.

Everything the project does to a 7B checkpoint works on this folder too, which is why tests and the demo use it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from cwdpo.base.config import Config
from cwdpo.base.files import folder_written_whole, write_text
from cwdpo.model.processor import images_only

PAD = "<|endoftext|>"
END = "<|im_end|>"
SPECIAL_TOKENS = (
    PAD,
    "<|im_start|>",
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

SYSTEM_PROMPT = "You are a helpful assistant."

CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + SYSTEM_PROMPT + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of the Qwen2.5-VL instruct checkpoints, character by character."""


class TinyQwen(Config):
    """Sizes of a tiny Qwen2.5-VL; the defaults make about 0.7M parameters and 16 image tokens."""

    hidden_size: int = Field(128, gt=0)
    """Width of the language model."""

    layers: int = Field(2, gt=0)
    """Layers of the language model."""

    heads: int = Field(4, gt=0)
    """Attention heads of the language model; `hidden_size / heads` must be a multiple of 16."""

    key_value_heads: int = Field(2, gt=0)
    """Key-value heads of the language model (grouped-query attention)."""

    intermediate_size: int = Field(384, gt=0)
    """Width of the language model's feed-forward layers."""

    vision_hidden_size: int = Field(64, gt=0)
    """Width of the vision tower."""

    vision_depth: int = Field(2, gt=0)
    """Blocks of the vision tower."""

    vision_heads: int = Field(4, gt=0)
    """Attention heads of the vision tower."""

    vision_intermediate_size: int = Field(128, gt=0)
    """Width of the vision tower's feed-forward layers."""

    patch_size: int = Field(8, gt=0)
    """Side of a patch in pixels; 2 x 2 patches make one image token."""

    image_size: int = Field(64, gt=0)
    """Side of the square that every square image is resized to, in pixels; a multiple of `2 * patch_size`."""

    initializer_range: float = Field(0.06, gt=0)
    """Standard deviation of the random weights; the 0.02 of wide models leaves one this narrow stuck for long."""

    context: int = Field(256, gt=0)
    """Longest sequence, in tokens."""

    vocabulary: int = Field(512, ge=300)
    """Most tokens the tokenizer may have: 256 bytes, the special tokens and the merges learned from the texts."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> TinyQwen:
        for size, unit, rule in (
            (self.hidden_size, 16 * self.heads, "hidden_size: a multiple of 16 * heads"),
            (self.vision_hidden_size, 4 * self.vision_heads, "vision_hidden_size: a multiple of 4 * vision_heads"),
            (self.heads, self.key_value_heads, "heads: a multiple of key_value_heads"),
            (self.image_size, 2 * self.patch_size, "image_size: a multiple of 2 * patch_size"),
        ):
            if size % unit:
                raise ValueError(f"sizes do not fit, expected {rule}")
        return self


def build_tiny_qwen(config: TinyQwen, texts: Sequence[str], folder: Path, seed: int) -> None:
    """Write a complete Hugging Face folder: random weights drawn from `seed` and a tokenizer trained on `texts`.

    The process's random state is left as it was. An existing `folder` is replaced.

    Raises:
        StoreError: the folder cannot be written.
    """
    processor = _make_processor(config, texts)
    model = _make_model(config, processor.tokenizer, seed)
    with folder_written_whole(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        # Older releases and other programs look for the template and the image processor under these names.
        write_text(temporary / "preprocessor_config.json", processor.image_processor.to_json_string())


def _make_processor(config: TinyQwen, texts: Sequence[str]) -> Any:
    from transformers import Qwen2VLImageProcessorPil

    pixels = config.image_size**2
    images = Qwen2VLImageProcessorPil(patch_size=config.patch_size, min_pixels=pixels, max_pixels=pixels)
    tokenizer = _train_tokenizer(config, texts)
    return images_only()(images, tokenizer, chat_template=CHAT_TEMPLATE)


def _train_tokenizer(config: TinyQwen, texts: Sequence[str]) -> Any:
    """Learn Qwen2's byte-level BPE: its own normalizer and pre-tokenizer, merges from `texts`."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    blank = Qwen2Tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The words around every prompt count as often as the captions do, or they would cost a token per letter.
    template = ["system", "user", "assistant", SYSTEM_PROMPT] * max(1, len(texts) // 4)
    blank.train_from_iterator([*texts, *template], trainer)
    return _wrap_tokenizer(blank, config.context)


def _wrap_tokenizer(trained: Any, context: int) -> Any:
    from transformers import Qwen2Tokenizer

    model = json.loads(trained.to_str())["model"]
    merges: list[Any] = [tuple(merge) for merge in model["merges"]]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[token for token in SPECIAL_TOKENS if token not in (PAD, END)],
        model_max_length=context,
    )


def _make_model(config: TinyQwen, tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_architecture(config, tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False, max_new_tokens=32
    )
    return model


def _architecture(config: TinyQwen, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    identify = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config=_text_sizes(config, tokenizer),
        vision_config=_vision_sizes(config),
        image_token_id=identify("<|image_pad|>"),
        video_token_id=identify("<|video_pad|>"),
        vision_start_token_id=identify("<|vision_start|>"),
        vision_end_token_id=identify("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _text_sizes(config: TinyQwen, tokenizer: Any) -> dict[str, Any]:
    # Frequencies of a head are shared out to time, height and width 1 : 1.5 : 1.5, as in the released models.
    quarter = config.hidden_size // config.heads // 2 // 8
    sections = [2 * quarter, 3 * quarter, 3 * quarter]
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "max_position_embeddings": config.context,
        "initializer_range": config.initializer_range,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _vision_sizes(config: TinyQwen) -> dict[str, Any]:
    return {
        "depth": config.vision_depth,
        "hidden_size": config.vision_hidden_size,
        "out_hidden_size": config.hidden_size,
        "intermediate_size": config.vision_intermediate_size,
        "num_heads": config.vision_heads,
        "patch_size": config.patch_size,
        "initializer_range": config.initializer_range,
        # The last block sees the whole image, the others half of it: window attention runs here as it does at 7B.
        "window_size": config.image_size // 2,
        "fullatt_block_indexes": [config.vision_depth - 1],
    }
