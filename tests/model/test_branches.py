"""An image and its prompt go through the model once, and every candidate is the one of a pass of its own.

The measure is transformers' own generation, which repeats image and prompt for every candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch
from PIL import Image
from transformers.cache_utils import DynamicLayer

from cwdpo.base.runtime import Rank
from cwdpo.data.encoding import Collator
from cwdpo.model import branches
from cwdpo.model.branches import can_branch
from cwdpo.model.config import Lora, Policy
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted, generate, goes_once
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", "three large blue squares", "User: Assistant:", PROMPT] * 10
POLICY = Policy(dtype="float32")
ITEMS = [  # neither images nor prompts of one length, and not sorted by it
    Prompted.about("a", "wide.png", "Describe the small image at the top left."),
    Prompted.about("b", "square.png", PROMPT),
    Prompted.about("c", "small.png", PROMPT),
    Prompted.about("d", "square.png", "Describe the image in three words."),
    Prompted.about("e", "wide.png", "Describe"),
]
SIZES = {"square.png": (64, 64), "wide.png": (32, 64), "small.png": (32, 32)}
DECODINGS = {
    "greedy": Decoding(max_new_tokens=8),
    "beam": Decoding(strategy="beam", beams=4, candidates=3, max_new_tokens=8),
    "sample": Decoding(strategy="sample", candidates=3, temperature=1.3, top_p=0.95, max_new_tokens=8),
}


def build_qwen(folder: Path, texts: list[str], seed: int) -> None:
    build_tiny_qwen(TinyQwen(hidden_size=64, heads=2, key_value_heads=1), texts, folder, seed)


BUILDERS = {**families.BUILDERS, "qwen": build_qwen}


@dataclass(frozen=True)
class Setting:
    replica: Any
    collator: Collator

    def generate(self, decoding: Decoding, once: bool) -> Any:
        return generate(self.replica, self.collator, ITEMS, decoding, seed=3, once=once)

    def goes_once(self, dtype: str = "float32") -> tuple[bool, dict[str, Any]]:
        """The verdict and the event that tells it."""
        told: dict[str, Any] = {}
        context = SimpleNamespace(rank=Rank(), event=lambda kind, **more: told.update(more, kind=kind))
        return goes_once(context, self.replica, self.collator, ITEMS[0], dtype), told  # type: ignore[arg-type]


def make_setting(folder: Path, images: Path) -> Setting:
    """A model with an adapter that matters."""
    model = trainable_policy(load_model(POLICY, folder), Lora(rank=2, alpha=4), None, seed=0).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    processor = load_policy_processor(POLICY, folder)
    if "Qwen" in type(processor).__name__:  # images of different numbers of tokens
        processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": 64 * 64}
    return Setting(
        SimpleNamespace(model=model, processor=processor, device="cpu", lockstep=False),
        Collator(processor, images, 256),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, (height, width) in SIZES.items():
        pixels = (torch.rand(height, width, 3, generator=generator) * 255).byte()
        Image.fromarray(pixels.numpy()).save(folder / name)
    return folder


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, images: Path) -> Setting:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    BUILDERS[request.param](folder, TEXTS, 1)
    return make_setting(folder, images)


@pytest.fixture
def qwen(tmp_path: Path, images: Path) -> Setting:
    build_qwen(tmp_path / "model", TEXTS, 1)
    return make_setting(tmp_path / "model", images)


@contextmanager
def counting(setting: Setting) -> Iterator[dict[str, int]]:
    """Context that counts tokens through the decoder, and pixel values through the vision tower."""
    seen = {"tokens": 0, "pixels": 0, "passes": 0}
    base = setting.replica.model.get_base_model()
    tower = next(
        module for name, module in base.named_modules() if name.endswith(("visual", "vision_tower", "vision_model"))
    )

    def decoder(module: Any, args: Any, kwargs: Any) -> None:
        tokens = kwargs["inputs_embeds"].shape[:2].numel()
        seen["tokens"] += tokens
        seen["passes"] += 1

    def vision(module: Any, args: Any, kwargs: Any) -> None:
        seen["pixels"] += next(value for value in (*args, *kwargs.values()) if torch.is_tensor(value)).numel()

    hooks = [
        base.get_decoder().register_forward_pre_hook(decoder, with_kwargs=True),
        tower.register_forward_pre_hook(vision, with_kwargs=True),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


# ---------------------------------------------------------------------------------------------------------------------
# The same candidates


@pytest.mark.parametrize("kind", sorted(DECODINGS))
@pytest.mark.parametrize("pass_tokens", [1, 2048])
def test_candidates_are_those_of_a_pass_each(
    setting: Setting, kind: str, pass_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded on the left, all items in one pass or each in its own, with an adapter."""
    monkeypatch.setattr(branches, "PASS_TOKENS", pass_tokens)
    found, expected = (setting.generate(DECODINGS[kind], once) for once in (True, False))
    assert found == expected
    texts = [text for answer in found for text in answer.texts]
    assert len(set(texts)) > len(texts) // 2, "the fixtures can tell candidates apart"
    assert setting.generate(DECODINGS[kind], once=True) == found, "nothing is left behind in the model"


def test_scores_agree_and_the_verdict_is_an_event(setting: Setting) -> None:
    once, told = setting.goes_once()
    assert once
    assert told["kind"] == "generation"
    assert told["prefix"] == "once per item"
    assert told["difference_per_token"] < 1e-5


# ---------------------------------------------------------------------------------------------------------------------
# Less work


@pytest.mark.parametrize(("kind", "copies"), [("greedy", 1), ("beam", 4), ("sample", 3)])
def test_prefixes_are_computed_once(setting: Setting, kind: str, copies: int) -> None:
    """Beyond the prefixes (padded), every row adds at most max_new_tokens; pixels are encoded once an item."""
    prefixes = [setting.collator.prefix(item.image, item.prompt) for item in ITEMS]
    longest = max(prefix["input_ids"].shape[1] for prefix in prefixes)
    decoding = DECODINGS[kind]
    with counting(setting) as once:
        setting.generate(decoding, once=True)
    with counting(setting) as plain:
        setting.generate(decoding, once=False)
    rows = len(ITEMS) * copies
    assert once["tokens"] <= len(ITEMS) * longest + rows * decoding.max_new_tokens
    assert plain["tokens"] >= rows * longest
    with counting(setting) as greedy:
        setting.generate(DECODINGS["greedy"], once=False)
    assert once["pixels"] == greedy["pixels"]


def test_passes_take_items_of_similar_length(qwen: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer tokens are computed when short prefixes are not padded to the longest."""
    monkeypatch.setattr(branches, "PASS_TOKENS", 1)
    with counting(qwen) as apart:
        qwen.generate(DECODINGS["beam"], once=True)
    monkeypatch.setattr(branches, "PASS_TOKENS", 2048)
    with counting(qwen) as together:
        qwen.generate(DECODINGS["beam"], once=True)
    assert apart["passes"] == together["passes"] + len(ITEMS) - 1
    assert apart["tokens"] < together["tokens"]


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [[1], [3], [0], [2]]), (20, [[1, 3], [0], [2]]), (40, [[1, 3, 0], [2]])]
)
def test_passes_are_filled_from_the_shortest_on(
    limit: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "PASS_TOKENS", limit)
    assert list(branches._passes([12, 8, 30, 10])) == expected


def test_ranks_in_lockstep_make_one_pass_and_none_for_nothing(qwen: Setting) -> None:
    """Blocks of ranks differ in size, the number of calls must not; one candidate shares nothing with others."""
    qwen.replica.lockstep, steps = True, DECODINGS["beam"].max_new_tokens
    with pytest.MonkeyPatch.context() as patch, counting(qwen) as seen:
        patch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
        patch.setattr(branches, "PASS_TOKENS", 1)
        qwen.generate(DECODINGS["beam"], once=True)
        assert seen["passes"] <= 1 + steps
        beams = seen["passes"]
        qwen.generate(DECODINGS["greedy"], once=True)
    assert seen["passes"] - beams <= steps


# ---------------------------------------------------------------------------------------------------------------------
# Models that cannot


def test_positions_that_are_off_are_noticed(qwen: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: M-RoPE puts the end of a prompt elsewhere than its number of tokens says."""
    right = branches._last_positions
    wrong = lambda *of: {key: value + 3 for key, value in right(*of).items()}  # noqa: E731
    monkeypatch.setattr(branches, "_last_positions", wrong)
    once, told = qwen.goes_once()
    assert not once
    assert told["prefix"] == "once per candidate"
    assert told["difference_per_token"] > 1e-2


def test_a_model_that_does_not_keep_all_tokens_is_not_tried(qwen: Setting) -> None:
    assert can_branch(qwen.replica.model)
    text = qwen.replica.model.config.get_text_config()
    text.layer_types, text.sliding_window = ["sliding_attention"] * text.num_hidden_layers, 8
    assert not can_branch(qwen.replica.model)
    once, told = qwen.goes_once()
    assert not once
    assert told["difference_per_token"] is None


def test_a_branch_layer_keeps_what_transformers_own_does() -> None:
    """Two items of 3 and 2 tokens but their last, two beams each, three tokens added, beams swapped in between."""
    draw = torch.Generator().manual_seed(0)
    prefixes = [torch.rand(1, 2, length + 1, 4, generator=draw) for length in (3, 2)]
    passes = [SimpleNamespace(keys=prefix, values=-prefix) for prefix in prefixes]
    layer, plain = branches._layer_kind()(passes[0], 4, 3, 3), DynamicLayer()
    for rows, part in zip(([0, 1], [2, 3]), passes, strict=True):
        layer.put(part, torch.tensor(rows))
    padded = torch.cat(
        [torch.nn.functional.pad(prefix[:, :, :-1], (0, 0, 4 - prefix.shape[2], 0)) for prefix in prefixes]
    )
    plain.update(padded.repeat_interleave(2, 0), -padded.repeat_interleave(2, 0))
    for beams in ([1, 1, 2, 3], [0, 0, 3, 2], [1, 0, 3, 3]):
        token = torch.rand(4, 2, 1, 4, generator=draw)
        for found, expected in zip(layer.update(token, -token), plain.update(token, -token), strict=True):
            assert torch.equal(found, expected)
        for each in (layer, plain):
            each.reorder_cache(torch.tensor(beams))
        assert torch.equal(layer.keys, plain.keys)
        assert layer.get_seq_length() == plain.get_seq_length()
