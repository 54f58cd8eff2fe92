"""What the training benchmarks train on: made-up photographs and captions, and a random Qwen2.5-VL of about 20M.

images/000.jpg             480 x 480 pixels, every model resizes them to its own square
model-<image tokens>-<vocabulary>/
<stage>-<response tokens>-<rejected responses>/{records,negatives}.jsonl
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import measure  # noqa: F401  puts the repository on the path

from cwdpo.base import files
from cwdpo.data.records import Portion, Record, write_records
from cwdpo.model.config import Lora
from cwdpo.model.processor import load_processor
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

SMALL, QWEN = 8_192, 151_936
"""Sizes of the vocabulary: one where the LM head is a small part of the model, as in a 7B, and Qwen's own."""

LORA = Lora(rank=16, alpha=32)
PROMPT = "Describe the image in one sentence."
HIDDEN = 384
PATCH, CONTEXT, IMAGES, PHOTO = 14, 2048, 168, 480


@dataclass(frozen=True)
class Point:
    """One size of the data: tokens of an image, tokens of a response without the end of the turn, words of the head."""

    image_tokens: int
    response_tokens: int
    vocabulary: int = SMALL

    def __str__(self) -> str:
        return f"{self.image_tokens}/{self.response_tokens}/{self.vocabulary}"


class World:
    """Makes what is asked for, once.

    Args:
        folder: where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.model = cache(self._model)
        self.data = cache(self._data)
        _write_photos(self.images)

    def prefix_tokens(self, point: Point) -> int:
        """Tokens of image, prompt and template."""
        processor = load_processor(self.model(point))
        return point.image_tokens + len(processor.tokenizer(prompt_text(processor, PROMPT))["input_ids"]) - 1

    def _model(self, point: Point) -> Path:
        """Folder of the model; beside it what a fresh adapter begins with."""
        folder = self.folder / f"model-{point.image_tokens}-{point.vocabulary}"
        build_tiny_qwen(_sizes(point), [" ".join(WORDS)] * 20 + [PROMPT] * 20, folder, seed=0)
        _widen(folder, point.vocabulary)
        return folder

    def _data(self, point: Point, stage: Portion, pairs: int, rejected: int) -> Path:
        """Folder of records and negatives; every response has the point's number of tokens."""
        folder = self.folder / f"{stage}-{pairs}-{point.response_tokens}-{rejected}"
        draw = random.Random(0)
        count = _counter(self.model(point))
        texts = [[_text(draw, point.response_tokens, count) for _ in range(1 + rejected)] for _ in range(pairs)]
        write_records(folder / "records.jsonl", (_record(number, row[0], stage) for number, row in enumerate(texts)))
        files.write_jsonl(folder / "negatives.jsonl", (_negatives(number, row[1:]) for number, row in enumerate(texts)))
        return folder


WORDS = [f"{first}{one}{second}{two}" for first in "bdfgklm" for one in "aeiou" for second in "nprst" for two in "ao"]


def _sizes(point: Point) -> TinyQwen:
    side = round(point.image_tokens**0.5)
    return TinyQwen(
        hidden_size=HIDDEN, layers=8, heads=6, key_value_heads=2, intermediate_size=1280,
        vision_hidden_size=128, vision_depth=4, vision_intermediate_size=384,
        patch_size=PATCH, image_size=2 * PATCH * side, initializer_range=0.02, context=CONTEXT, vocabulary=1500,
    )  # fmt: skip


def _widen(folder: Path, vocabulary: int) -> None:
    """Give the tied embedding and head their size, which the small tokenizer does not, and keep a fresh adapter."""
    from safetensors.torch import save_file
    from transformers import AutoModelForImageTextToText

    from cwdpo.model.load import add_lora

    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    model.save_pretrained(folder)
    adapted = add_lora(model, LORA, seed=0)
    save_file({key: value for key, value in adapted.state_dict().items() if "lora_" in key}, adapter_start(folder))


def adapter_start(model: Path) -> Path:
    """File of the weights a fresh adapter begins with, so that every side begins with the same."""
    return model.parent / f"{model.name}-adapter.safetensors"


def _write_photos(folder: Path) -> None:
    import numpy
    from PIL import Image

    folder.mkdir(parents=True)
    draw = numpy.random.default_rng(0)
    for number in range(IMAGES):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 24, 3), dtype=numpy.uint8))
        coarse.resize((PHOTO, PHOTO), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.jpg", quality=90)


def prompt_text(processor: Any, prompt: str) -> str:
    """The template around one image and a prompt, up to where the response begins."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def _counter(model: Path) -> Any:
    tokenizer = load_processor(model).tokenizer
    return lambda text: len(tokenizer(text)["input_ids"])


def _text(draw: random.Random, tokens: int, count: Any) -> str:
    """A sentence of exactly so many tokens: a word is one token, the first one of a sentence up to four."""
    while True:
        text = " ".join(draw.choices(WORDS, k=draw.randint(tokens - 3, tokens)))
        if count(text) == tokens:
            return text


def _record(number: int, chosen: str, stage: Portion) -> Record:
    name = f"{number:03d}"
    return Record(f"{name}#0", name, f"{name}.jpg", PROMPT, chosen, (chosen,), (), "train", stage)


def _negatives(number: int, rejected: list[str]) -> dict[str, Any]:
    return {"id": f"{number:03d}#0", "rejected": [{"text": text, "source": "made up"} for text in rejected]}
