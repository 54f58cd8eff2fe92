"""Tiny checkpoints of other families, for tests: LLaVA (CLIP and Llama) and Idefics3 (SigLIP and Llama, tiled images).

Both tokenizers put their beginning-of-text token in front by themselves, as Llama's do; the template of Idefics3 writes
it a second time, as the released one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from cwdpo.base.files import write_text
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IDEFICS3_TEMPLATE = (
    "<s>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
TEXT_LAYERS, TEXT_LINEARS = 2, 7  # q, k, v, o, gate, up, down
TEXT = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": TEXT_LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.1,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def build_llava(folder: Path, texts: Sequence[str], seed: int) -> None:
    """32-pixel images of 16 tokens each."""
    tokenizer = _tokenizer(texts, end="</s>", more=["<image>"])
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )  # fmt: skip
    config = LlavaConfig(
        text_config={"model_type": "llama", **_text(tokenizer)},
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **VISION},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=16,
    )  # fmt: skip
    _save(folder, LlavaForConditionalGeneration, config, processor, seed)


def build_idefics3(folder: Path, texts: Sequence[str], seed: int) -> None:
    """Images up to 64 pixels, cut into tiles of 32; 4 tokens a tile, and a global tile."""
    special = ["<fake_token_around_image>", "<image>", "<global-img>", *TILES]
    tokenizer = _tokenizer(texts, end="<end_of_utterance>", more=special)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, return_row_col_info=True
    )
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=IDEFICS3_TEMPLATE)
    config = Idefics3Config(
        text_config={"model_type": "llama", **_text(tokenizer)}, vision_config=VISION, scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    _save(folder, Idefics3ForConditionalGeneration, config, processor, seed)


def build_qwen(folder: Path, texts: Sequence[str], seed: int) -> None:
    """The tiny Qwen2.5-VL that ships with the package, narrower."""
    build_tiny_qwen(TinyQwen(hidden_size=64), texts, folder, seed)


BUILDERS: dict[str, Callable[[Path, Sequence[str], int], None]] = {
    "llava": build_llava,
    "idefics3": build_idefics3,
    "qwen": build_qwen,
}


def _tokenizer(texts: Sequence[str], end: str, more: list[str]) -> Any:
    special = ["<pad>", "<s>", end, *more]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", eos_token=end, pad_token="<pad>", additional_special_tokens=more
    )


def _text(tokenizer: Any) -> dict[str, Any]:
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return {**TEXT, "vocab_size": len(tokenizer), **ids}


def _save(folder: Path, kind: Any, config: Any, processor: Any, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_text(folder / "preprocessor_config.json", processor.image_processor.to_json_string())
