"""Shared prefixes and the chunked head are exact: log-probabilities and gradients of rows of their own, and no others.

The measure is a row for each response with all its logits, as `test_families.py` compares that with the plainest way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from PIL import Image

from cwdpo.data import layout
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.layout import ResponseBatch, pack, separate_rows, shared_rows
from cwdpo.data.samples import Sample
from cwdpo.model import tokens
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import FullTuning, Lora, Policy
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy
from cwdpo.model.logps import response_logps
from cwdpo.model.positions import prefix_positions
from cwdpo.model.scoring import PLAIN, Scorer, Way

PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", "three large blue squares", "User: Assistant:", PROMPT] * 10
POLICY = Policy(dtype="float32")
CPU = torch.device("cpu")

GROUPS = [
    ("square.png", PROMPT, ("a red circle", "three large blue squares at the top left", "a")),
    ("wide.png", "Describe the small image at the top left.", ("three blue squares", "a small red circle")),
    ("wide.png", PROMPT, ("a", "red", "three large blue squares", "a circle at the top", "blue")),
    ("small.png", "Describe", ("a",)),
]


@dataclass(frozen=True)
class Family:
    folder: Path
    images: Path

    def collator(self) -> Collator:
        processor = load_policy_processor(POLICY, self.folder)
        if "Qwen" in type(processor).__name__:  # images of different numbers of tokens
            processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": 64 * 64}
        return Collator(processor, self.images, 256)

    def groups(self) -> list[Group]:
        collator = self.collator()
        return [collator.group(Sample(image, image, image, prompt, ""), texts) for image, prompt, texts in GROUPS]

    def policy(self, tuning: Lora | FullTuning, dtype: str = "float32") -> Any:
        model = trainable_policy(load_model(Policy(dtype=dtype), self.folder), tuning, None, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # an adapter's B starts at zero, which would hide gradients of A
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        assert splits_prefixes(model)
        return model


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    images = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, (height, width) in {"square.png": (64, 64), "wide.png": (32, 64), "small.png": (32, 32)}.items():
        pixels = (torch.rand(height, width, 3, generator=generator) * 255).byte()
        Image.fromarray(pixels.numpy()).save(images / name)
    folder = tmp_path_factory.mktemp(request.param) / "model"
    families.BUILDERS[request.param](folder, TEXTS, 1)
    return Family(folder, images)


def scores(model: Any, batch: ResponseBatch, plain: bool = False) -> list[float]:
    with torch.no_grad():
        return [float(value) for value in response_logps(model, batch, plain_head=plain)[0]]


WAYS = [Way(True, True), Way(True, True, apart=True), Way(True, False, apart=True), Way(False, True)]


@pytest.mark.parametrize("way", WAYS, ids=["shared", "shared, apart", "shared, apart, all logits", "rows, in chunks"])
@pytest.mark.parametrize("width", [0, 1000], ids=["packed-where-there-is-room", "all-in-one-row"])
def test_log_probabilities_are_those_of_separate_rows(family: Family, way: Way, width: int) -> None:
    model, groups = family.policy(Lora(rank=2, alpha=4)).eval(), family.groups()
    pad = family.collator().pad
    with torch.no_grad():
        expected, lengths = Scorer(model, pad, CPU, PLAIN).logps(groups)
        found, same = Scorer(model, pad, CPU, way).logps(groups, width)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert same.tolist() == lengths.tolist() == [len(text) for group in groups for text in group.responses]


@pytest.mark.parametrize(
    "tuning", [Lora(rank=2, alpha=4), FullTuning(name="full", train_vision=True)], ids=["lora", "full"]
)
@pytest.mark.parametrize("way", WAYS, ids=["shared", "shared, apart", "shared, apart, all logits", "rows, in chunks"])
def test_gradients_are_those_of_separate_rows(
    family: Family, way: Way, tuning: Lora | FullTuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CHUNK_ELEMENTS", 5 * 300)  # several chunks, the last one not full
    groups = family.groups()
    expected, found = (gradients(family, tuning, how, groups) for how in (PLAIN, way))
    assert expected.keys() == found.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-5 * largest, rtol=1e-4), name


def gradients(family: Family, tuning: Lora | FullTuning, way: Way, groups: list[Group]) -> dict[str, torch.Tensor]:
    """Of a loss that weighs every response differently, and pulls some down."""
    model = family.policy(tuning)
    scorer = Scorer(model, family.collator().pad, CPU, way)
    logps, lengths = scorer.logps(groups)
    weights = torch.linspace(-1.0, 2.0, len(logps))
    (torch.nn.functional.logsigmoid(logps / lengths) * weights).sum().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_with_gradient_checkpointing_the_gradients_are_the_same(family: Family) -> None:
    groups, way, tuning = family.groups(), Way(True, True), Lora(rank=2, alpha=4)
    model = family.policy(tuning).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    scorer = Scorer(model, family.collator().pad, CPU, way)
    logps, lengths = scorer.logps(groups)
    (torch.nn.functional.logsigmoid(logps / lengths) * torch.linspace(-1.0, 2.0, len(logps))).sum().backward()
    expected = gradients(family, tuning, way, groups)
    for name, value in model.named_parameters():
        if value.grad is not None:
            assert torch.allclose(value.grad, expected[name], atol=1e-6), name


def test_a_response_does_not_feel_what_lies_beside_it(family: Family) -> None:
    """Its neighbours in the row are exchanged, its log-probability stays."""
    model, groups = family.policy(Lora(rank=2, alpha=4)).eval(), family.groups()
    scorer = Scorer(model, family.collator().pad, CPU, Way(True, True))
    first = groups[0]
    other = replace(first, responses=(first.responses[0], groups[2].responses[3], first.responses[2]))
    values = [scores(model, scorer.batch([group])) for group in (first, other)]
    assert values[0][0] == pytest.approx(values[1][0], abs=1e-5)
    assert values[0][2] == pytest.approx(values[1][2], abs=1e-5)
    assert abs(values[0][1] - values[1][1]) > 0.1


def test_without_mask_or_restart_the_values_would_be_wrong(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: the comparison above can fail."""
    model, groups = family.policy(Lora(rank=2, alpha=4)).eval(), family.groups()[:1]
    pad = family.collator().pad
    expected = scores(model, separate_rows(groups, pad))
    batch = shared_rows(groups, pad, prefix_positions(model))
    causal = torch.ones_like(batch.attention()).tril()
    ids = batch.inputs["position_ids"]
    start = groups[0].prefix_length
    running = ids.clone()
    running[..., start:] = ids[..., start - 1 : start] + 1 + torch.arange(ids.shape[-1] - start)
    with monkeypatch.context() as patch:
        patch.setattr(layout.ResponseBatch, "attention", lambda self: causal)
        unmasked = scores(model, batch)
    shifted = scores(model, replace(batch, inputs={**batch.inputs, "position_ids": running}))
    for wrong in (unmasked, shifted):
        assert wrong[0] == pytest.approx(expected[0], abs=2e-5), "the first response lies as in a row of its own"
        assert max(abs(a - b) for a, b in zip(wrong[1:], expected[1:], strict=True)) > 1e-3


def test_in_bf16_the_ways_agree_to_its_precision(family: Family) -> None:
    model, groups = family.policy(Lora(rank=2, alpha=4), "bfloat16").eval(), family.groups()
    pad = family.collator().pad
    expected = scores(model, separate_rows(groups, pad), plain=True)
    found = scores(model, shared_rows(groups, pad, prefix_positions(model)))
    lengths = [len(text) for group in groups for text in group.responses]
    assert max(abs(a - b) / n for a, b, n in zip(found, expected, lengths, strict=True)) < 0.05


def test_the_image_is_encoded_once_for_all_responses(family: Family) -> None:
    groups = family.groups()[:3]
    pad, positions = family.collator().pad, prefix_positions(family.policy(Lora()))
    shared, rows = shared_rows(groups, pad, positions), separate_rows(groups, pad)
    tokens = {name: batch.inputs["pixel_values"].shape[0] for name, batch in {"shared": shared, "rows": rows}.items()}
    assert shared.inputs["input_ids"].numel() < 0.7 * rows.inputs["input_ids"].numel()
    assert tokens["shared"] < tokens["rows"]


def test_groups_share_a_row_only_where_there_is_room() -> None:
    assert pack([3, 10, 6, 4, 2]) == [[1], [2, 3], [0, 4]]
    assert pack([5, 5]) == [[0], [1]]
    assert pack([5, 5, 1], width=10) == [[0, 1], [2]]
    assert pack([7], width=3) == [[0]]
