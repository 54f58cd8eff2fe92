"""Operations and activations: by hand on a toy, and beside what torch counts and keeps on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from perf.training_flops import Counter
from PIL import Image

from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.graph import Outside
from cwdpo.jobs.forecast.dimensions import Dimensions, Vision, of_checkpoint, of_tiny
from cwdpo.jobs.forecast.flops import Rows, Trained, forward, step
from cwdpo.jobs.forecast.memory import activations
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import FullTuning, Lora, Policy
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy
from cwdpo.model.scoring import Scorer, Way
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

# A decoder layer of the toy: q and o are 4 x 4, k and v 4 x 2, three of 4 x 8: 16 + 16 + 8 + 8 + 96 = 144 numbers.
BLIND = Vision(0, 0, 0, 14, 1, False, 0, 0)
TOY = Dimensions("toy", 4, 8, 2, 2, 1, 2, 10, True, BLIND, "here")
# The prefix has 3 tokens, each of two responses 2: 7 tokens, of which 4 are predicted.
ROWS = Rows(image=0, text=3, responses=2, length=2)


def test_sizes_of_a_toy() -> None:
    assert (TOY.layer, TOY.head, TOY.total) == (144, 40, 2 * 144 + 40)
    # Rank 1: q and o 2 x (4 + 4), k and v 2 x (4 + 2), three of 4 + 8; two layers.
    assert TOY.lora(1) == 2 * (16 + 12 + 36)


def test_forward_pass_of_a_toy() -> None:
    # Two layers see 7 tokens, but the last feed-forward layer (96 numbers) only the 4 that are predicted.
    products = 2 * (2 * 144 * 7 - 96 * 3)
    # Pairs: 3 x 3 within the prefix, 4 response tokens that look at all 7; queries are 4 wide, twice, in two layers.
    scores = 4 * 2 * 4 * (9 + 4 * 7)
    assert forward(TOY, ROWS) == products + scores + 2 * 40 * 4
    # The same in rows of their own: 2 x (3 + 2) tokens, 2 x 5 x 5 pairs.
    alone = Rows(0, 3, 2, 2, shared=False)
    assert forward(TOY, alone) == 2 * (2 * 144 * 10 - 96 * 6) + 4 * 2 * 4 * 50 + 2 * 40 * 4


def test_step_of_a_toy() -> None:
    products, scores, head = 2 * (2 * 144 * 7 - 96 * 3), 4 * 2 * 4 * 37, 2 * 40 * 4
    # A frozen weight once more backward, attention five products for two; the adapter (rank 1) forward and twice back.
    adapter = TOY.lora(1) * 7 - (8 + 4) * 3 * 3
    assert step(TOY, ROWS, Trained(rank=1)) == 2 * products + 3.5 * scores + 2 * head + (2 + 4) * adapter
    assert step(TOY, ROWS, Trained()) == 3 * products + 3.5 * scores + 3 * head


def test_activations_of_a_toy() -> None:
    # bfloat16, rank 1. A norm keeps 4 float32 and gives 4 of 2 bytes; q, the result and its copy are 4 wide each; under
    # a mask k and v are kept as they are (2) and as repeated (4); four adapters. The other norm; four of 8; three.
    attention = (4 + 2) * 4 + 2 * (3 * 4 + 2 * 4 + 2 * 2 + 4)
    feeding = (4 + 2) * 4 + 2 * (4 * 8 + 3)
    states = 4 * 4 * 2 * 4
    expected = 2 * 7 * attention + (7 + 4) * feeding + states
    assert activations(TOY, ROWS, Trained(rank=1), 1, 2) == expected
    assert activations(TOY, ROWS, Trained(rank=1), 3, 2) == 3 * expected
    recomputed = activations(TOY, ROWS, Trained(rank=1, recomputed=True), 1, 2)
    assert recomputed == 7 * (2 * 4 * 2 + attention + feeding) + states


# Beside torch

SIZES = TinyQwen(
    hidden_size=256, layers=4, heads=4, key_value_heads=2, intermediate_size=768, image_size=160, context=1024,
    vocabulary=1024,
)  # fmt: skip
IMAGE = 100
"""Tokens of an image of 160 x 160 pixels: 16 x 16 of them make one."""


@dataclass(frozen=True)
class Tiny:
    folder: Path
    images: Path

    @property
    def dimensions(self) -> Dimensions:
        found = of_checkpoint(Outside(self.folder, "tiny"))
        assert found is not None
        return found

    def groups(self, responses: int, samples: int) -> tuple[list[Group], int]:
        collator = Collator(load_policy_processor(Policy(dtype="float32"), self.folder), self.images, 1024)
        text = "a small red circle at the top left three large blue squares"
        one = Sample("i", "i", "i.png", "Describe the image.", "")
        return [collator.group(one, [text] * responses) for _ in range(samples)], collator.pad


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("forecast")
    build_tiny_qwen(SIZES, ["a small red circle at the top left", "three large blue squares"] * 10, folder / "model", 0)
    Image.new("RGB", (160, 160), "red").save(folder / "i.png")
    return Tiny(folder / "model", folder)


def kept_by(compute: Callable[[], Any], parameters: set[int]) -> tuple[Any, int]:
    """What a function returns, and the bytes that autograd keeps for it beside the parameters."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        return compute(), sum(kept.values())


def test_a_folder_and_the_settings_it_was_made_of_have_the_same_sizes(tiny: Tiny) -> None:
    made, read = of_tiny(SIZES), tiny.dimensions
    assert (made.layer, made.lora(8), made.vision.block) == (read.layer, read.lora(8), read.vision.block)
    # Norms and biases are in the folder's count; the tokenizer has fewer words than it might.
    assert read.total == pytest.approx(made.total - made.head + read.head, rel=0.02)


@pytest.mark.parametrize(
    ("dtype", "responses", "shared", "tuning", "samples"),
    [
        ("float32", 2, True, Lora(rank=8), 2),
        ("float32", 2, False, Lora(rank=8), 1),
        ("bfloat16", 1, True, Lora(rank=64), 2),
        ("float32", 2, True, FullTuning(name="full"), 1),
    ],
    ids=["a pair", "rows of their own", "one response, bfloat16", "all weights"],
)
def test_torch_counts_and_keeps_as_much(
    tiny: Tiny, dtype: Any, responses: int, shared: bool, tuning: Lora | FullTuning, samples: int
) -> None:
    model = trainable_policy(load_model(Policy(dtype=dtype), tiny.folder), tuning, None, 0).train()
    groups, pad = tiny.groups(responses, samples)
    way = Way(shared, chunked=True, apart=splits_prefixes(model))
    scorer = Scorer(model, pad, torch.device("cpu"), way)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    counter = Counter()
    counter.start()
    (logps, _), kept = kept_by(lambda: scorer.logps(groups), parameters)
    logps.mean().backward()
    counted = counter.stop()
    first = groups[0]
    rows = Rows(IMAGE, first.prefix_length - IMAGE, responses, len(first.responses[0]), shared)
    trained = Trained(tuning.rank if isinstance(tuning, Lora) else 0)
    assert samples * step(tiny.dimensions, rows, trained) == pytest.approx(counted, rel=0.05)
    width = 4 if dtype == "float32" else 2
    assert activations(tiny.dimensions, rows, trained, samples, width) == pytest.approx(kept, rel=0.1)
