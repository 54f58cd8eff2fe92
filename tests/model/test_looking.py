"""What probes read in one forward pass, against float64: a model in float64, a row per response, and scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.torch import load, save
from scipy.spatial.distance import jensenshannon
from scipy.special import entr, log_softmax, rel_entr

from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.model import tokens
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import FullTuning, Lora, Policy, Tuning
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy
from cwdpo.model.looking import Distributions, Lens, Looked, distances
from cwdpo.model.scoring import PLAIN, Scorer, Way

CPU, TOP, PROMPT = torch.device("cpu"), 5, "Describe the image."
TEXTS = ["a small red circle at the top left", "three large blue squares", PROMPT] * 10
LORA, FULL = Lora(rank=2, alpha=4), FullTuning(name="full")
SCALE = {"lora": 0.05, "full": 0.01}
"""By how much trained weights differ from one seed to another."""

WAYS = [PLAIN, Way(False, True), Way(True, True), Way(True, True, apart=True), Way(True, False, apart=True)]
IN_CHUNKS = [1, 1500, tokens.CHUNK_ELEMENTS]
"""Logits held at a time: those of one token, of a few, and of all."""
CASES = [(way, elements) for way in WAYS for elements in (IN_CHUNKS if way.chunked else IN_CHUNKS[-1:])]

# One is so long that others share a row; the same words stand in several groups and places.
LONG = "three large blue squares at the top left " * 8
GROUPS = [
    ("square.png", PROMPT, ("a red circle", "three large blue squares at the top left", "a")),
    ("small.png", "Describe", ("a",)),
    ("wide.png", "Describe the small image at the top left.", ("three blue squares", LONG)),
    ("wide.png", PROMPT, ("a", "red", "three large blue squares", "a circle at the top", "blue")),
    ("small.png", "Describe", ("blue squares, three large ones", "a red circle")),
]
FIRST = [0, 3, 4, 6, 11]
"""Numbers of the first response of each group among all responses."""


@dataclass(frozen=True)
class Truth:
    """Of every response by itself, in float64.

    Attributes:
        logp: log-probabilities of all words at each of its tokens. Shapes (L, V).
        tokens: shapes (L,).
    """

    logp: list[np.ndarray]
    tokens: list[np.ndarray]

    def of_first(self) -> np.ndarray:
        """Shape (C, V)."""
        return np.concatenate([self.logp[number] for number in FIRST])

    def logps(self) -> np.ndarray:
        return np.array([self._at(number).sum() for number in range(len(self.logp))])

    def first_logps(self) -> np.ndarray:
        return np.concatenate([self._at(number) for number in FIRST])

    def residuals(self) -> np.ndarray:
        """Sums over tokens of ||onehot - p||^2."""
        found = zip(self.logp, self.tokens, strict=True)
        return np.array([((np.eye(rows.shape[1])[at] - np.exp(rows)) ** 2).sum() for rows, at in found])

    def _at(self, number: int) -> np.ndarray:
        return np.take_along_axis(self.logp[number], self.tokens[number][:, None], 1)[:, 0]


class Family:
    """A tiny checkpoint of a family with the groups of `GROUPS`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / "model"
        families.BUILDERS[name](self.folder, TEXTS, 1)
        generator = np.random.default_rng(0)
        for image, size in {"square.png": (64, 64), "wide.png": (32, 64), "small.png": (32, 32)}.items():
            Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(folder / image)
        processor = load_policy_processor(Policy(dtype="float32"), self.folder)
        if name == "qwen":  # images of different numbers of tokens
            processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": 64 * 64}
        self.collator = Collator(processor, folder, 256)
        self.groups = [
            self.collator.group(Sample(image, image, image, prompt, ""), texts) for image, prompt, texts in GROUPS
        ]
        self.policy = cache(self._policy)

    def _policy(self, tuning: Tuning, seed: int, dtype: str = "float32") -> Any:
        """Whose trained weights are as `seed` says, an adapter's B not zero."""
        model = trainable_policy(load_model(Policy(dtype=dtype), self.folder), tuning, None, seed=0)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape, generator=generator) * SCALE[tuning.name]
        return model.eval()

    def lens(self, model: Any, way: Way, top: int = TOP, keeps_states: bool = True) -> Lens:
        assert splits_prefixes(model)
        return Lens(Scorer(model, self.collator.pad, CPU, way), top, keeps_states)

    def truth(self, tuning: Tuning, seed: int) -> Truth:
        """By a model in float64 that is given one response at a time, without any code of ours."""
        model = self._policy(tuning, seed).double()
        responses = [(group, response) for group in self.groups for response in group.responses]
        return Truth(
            [plain_logps(model, group, response) for group, response in responses],
            [np.array(response) for _, response in responses],
        )


def plain_logps(model: Any, group: Group, response: Sequence[int]) -> np.ndarray:
    """Log-probabilities of all words at each token of a response. Shape (L, V)."""
    inputs = {key: value.double() if value.is_floating_point() else value for key, value in group.prefix.items()}
    start = inputs["input_ids"].shape[1]
    behind = torch.tensor([response])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], behind], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(behind)], 1)
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
    assert logits.dtype == torch.float64
    return log_softmax(logits[0, start - 1 : -1].numpy(), axis=1)


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def truths(family: Family) -> tuple[Truth, Truth]:
    """With an adapter at the start of a stage, and later."""
    return family.truth(LORA, 1), family.truth(LORA, 2)


def check_of_one_policy(looked: Looked, truth: Truth) -> None:
    """All but distances."""
    first, logp = looked.first, truth.of_first()
    assert looked.lengths.tolist() == [len(response) for response in truth.tokens]
    assert looked.first_lengths == [len(truth.tokens[number]) for number in FIRST]
    close(looked.logps, truth.logps(), 1e-4)
    close(looked.residuals, truth.residuals(), 1e-4)
    close(first.values["logp"], truth.first_logps(), 2e-5)
    close(first.values["entropy"], entr(np.exp(logp)).sum(1), 2e-5)
    order = np.argsort(-logp, axis=1)[:, :TOP]
    assert first.top_tokens.tolist() == order.tolist()
    close(first.top_probs, np.exp(np.take_along_axis(logp, order, 1)), 1e-5)


def check_distances(found: Distributions, start: np.ndarray, now: np.ndarray, tolerance: float) -> None:
    """Of log-probabilities (C, V)."""
    p, q = np.exp(now), np.exp(start)
    close(found.values["tv"], 0.5 * np.abs(p - q).sum(1), tolerance)
    close(found.values["js"], jensenshannon(p, q, axis=1) ** 2, tolerance)


def close(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# Against float64


@pytest.mark.parametrize(("way", "elements"), CASES, ids=str)
def test_everything_is_what_a_model_in_float64_says_of_each_response_alone(
    family: Family, truths: tuple[Truth, Truth], way: Way, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start of a stage, and after its weights have changed."""
    monkeypatch.setattr(tokens, "CHUNK_ELEMENTS", elements)
    before = family.lens(family.policy(LORA, 1), way).look(family.groups)
    check_of_one_policy(before, truths[0])
    assert not before.first.values["tv"].any()
    assert not before.first.values["js"].any()
    now = family.lens(family.policy(LORA, 2), way).look(family.groups, before.first.kept)
    check_of_one_policy(now, truths[1])
    # Without the head in chunks the start is kept in half precision.
    check_distances(now.first, truths[0].of_first(), truths[1].of_first(), 1e-5 if way.chunked else 1e-3)
    assert float(now.first.values["tv"].min()) > 0.01, "there is something to be measured"


def test_the_groups_of_this_file_change_places_in_shared_rows(family: Family) -> None:
    """Otherwise the order of tokens would not be tested above."""
    scorer = family.lens(family.policy(LORA, 1), Way(True, True)).scorer
    batch = scorer.batch(family.groups)
    assert batch.inputs["input_ids"].shape[0] < len(family.groups)
    assert batch.wanted.slots.tolist() != sorted(batch.wanted.slots.tolist())


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_was_kept_may_be_cut_and_joined_as_other_passes_need_it(family: Family, way: Way) -> None:
    """As micro-batches change: the start is read in two passes, what came of it in one, in another order."""
    lens, later = (family.lens(family.policy(LORA, seed), way) for seed in (1, 2))
    groups, kept = family.groups, []
    for part in (groups[:2], groups[2:]):
        looked = lens.look(part)
        kept += looked.first.kept.split(looked.first_lengths)
    expected = later.look(groups, torch.cat(kept))
    found = later.look(groups[::-1], torch.cat(kept[::-1]))
    for name, values in expected.first.values.items():
        parts = values.split(expected.first_lengths)
        close(found.first.values[name], torch.cat(parts[::-1]).numpy(), 2e-5)


# ---------------------------------------------------------------------------------------------------------------------
# What is kept of the start


def stored(kept: torch.Tensor) -> torch.Tensor:
    """Written to a file and read again."""
    return load(save({"sample": kept}))["sample"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", [way for way in WAYS if way.chunked], ids=str)
def test_where_the_head_is_frozen_states_are_kept_and_nothing_has_moved_from_them(
    family: Family, way: Way, dtype: str
) -> None:
    policy = family.policy(LORA, 1, dtype)
    lens = family.lens(policy, way)
    kept = lens.look(family.groups).first.kept
    assert kept.dtype == getattr(torch, dtype)
    assert kept.shape[1] == policy.get_output_embeddings().weight.shape[1]
    again = lens.look(family.groups, stored(kept)).first
    assert not again.values["tv"].any()
    assert float(again.values["js"].max()) < 1e-6


@pytest.mark.parametrize(("way", "keeps_states"), [(PLAIN, True), *((way, False) for way in WAYS)], ids=str)
def test_where_it_is_trained_log_probabilities_are_kept_in_half_precision(
    family: Family, way: Way, keeps_states: bool
) -> None:
    """Each probability q is known to a share |log q| / 2^11 of it, so that tv is off by 1/2 H / 2^11 at most."""
    lens = family.lens(family.policy(FULL, 1), way, keeps_states=keeps_states)
    first = lens.look(family.groups).first
    assert first.kept.dtype == torch.float16
    again = lens.look(family.groups, stored(first.kept)).first
    assert (again.values["tv"] <= first.values["entropy"] * 2**-12 + 1e-6).all()
    assert float(again.values["js"].max()) < 1e-5


@pytest.mark.parametrize("way", [PLAIN, Way(False, True), Way(True, True)], ids=str)
def test_a_trained_head_has_moved_as_far_as_float64_says(family: Family, way: Way) -> None:
    """It is the head of the start that made the distributions of the start."""
    start, later = (family.truth(FULL, seed) for seed in (1, 2))
    kept = family.lens(family.policy(FULL, 1), way, keeps_states=False).look(family.groups).first.kept
    now = family.lens(family.policy(FULL, 2), way, keeps_states=False).look(family.groups, kept)
    check_of_one_policy(now, later)
    check_distances(now.first, start.of_first(), later.of_first(), 1e-3)
    assert float(now.first.values["tv"].min()) > 0.01


# ---------------------------------------------------------------------------------------------------------------------
# How it is read


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_look_is_one_forward_pass(family: Family, way: Way) -> None:
    policy = family.policy(LORA, 1)
    lens, calls = family.lens(policy, way), list[str]()
    kept = lens.look(family.groups).first.kept
    watched = {"model": policy, "head": policy.get_output_embeddings(), "decoder": policy.get_decoder()}
    hooks = [one.register_forward_hook(lambda *_, name=name: calls.append(name)) for name, one in watched.items()]
    lens.look(family.groups, kept)
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == ["decoder", "head", "model"]


@pytest.mark.parametrize("way", [PLAIN, Way(True, True)], ids=str)
def test_nothing_that_is_read_has_a_gradient(family: Family, way: Way) -> None:
    for tuning in (LORA, FULL):
        looked = family.lens(family.policy(tuning, 1), way, keeps_states=tuning is LORA).look(family.groups)
        first = looked.first
        read = [looked.logps, looked.residuals, *first.values.values(), first.top_probs, first.kept]
        assert not any(value.requires_grad for value in read)


def test_of_a_small_vocabulary_all_words_are_told(family: Family) -> None:
    policy = family.policy(LORA, 1)
    first = family.lens(policy, Way(True, True), top=10_000).look(family.groups).first
    words = policy.get_output_embeddings().weight.shape[0]
    assert first.top_probs.shape[1] == words < 10_000
    close(first.top_probs.sum(1), np.ones(len(first.top_probs)), 1e-5)
    assert (first.top_tokens.sort(1).values == torch.arange(words)).all()


# ---------------------------------------------------------------------------------------------------------------------
# Distances of extreme distributions


def measured(start: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Total variation and Jensen-Shannon divergence of rows of log-probabilities."""
    tv, js = distances(torch.tensor(now, dtype=torch.float32), torch.tensor(start, dtype=torch.float32))
    return tv.double().numpy(), js.double().numpy()


MOST = float(np.float32(math.log(2)))
LOGITS = arrays(np.float64, (2, 3, 7), elements=st.one_of(st.floats(-4, 4), st.floats(-2000, 2000), st.just(0.0)))


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(logits=LOGITS)
@example(logits=np.zeros((2, 3, 7)))
@example(logits=np.stack([np.tile(1000 * np.eye(7)[0], (3, 1)), np.tile(1000 * np.eye(7)[1], (3, 1))]))
def test_any_two_distributions_are_as_far_apart_as_scipy_says(logits: np.ndarray) -> None:
    """Among them such as have a probability that no number is small enough for."""
    start, now = log_softmax(logits, axis=2)
    tv, js = measured(start, now)
    p, q = np.exp(now), np.exp(start)
    np.testing.assert_allclose(tv, 0.5 * np.abs(p - q).sum(1), atol=1e-5)
    # Of equal distributions scipy's jensenshannon is the root of a rounding, which may be negative.
    divergence = 0.5 * (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(1)
    np.testing.assert_allclose(js, divergence, atol=1e-5)
    assert (js >= 0).all()
    assert (js <= MOST).all()
    assert (tv <= 1).all()
    other_tv, other_js = measured(now, start)
    np.testing.assert_allclose([other_tv, other_js], [tv, js], atol=1e-6)


NEVER = -math.inf
SURE, OTHER, HALVES = [0.0, NEVER, NEVER], [NEVER, 0.0, NEVER], [-math.log(2), -math.log(2), NEVER]


@pytest.mark.parametrize(
    ("start", "now", "tv", "js"),
    [
        (SURE, SURE, 0.0, 0.0),
        (HALVES, HALVES, 0.0, 0.0),
        (SURE, OTHER, 1.0, math.log(2)),
        # m = (3/4, 1/4): 1/2 (1/2 log(2/3) + 1/2 log 2) + 1/2 log(4/3)
        (SURE, HALVES, 0.5, 0.25 * math.log(4 / 3) + 0.5 * math.log(4 / 3)),
        ([0.0, -70_000.0, NEVER], [0.0, NEVER, -70_000.0], 0.0, 0.0),
    ],
)
def test_words_of_no_probability_at_all_are_no_trouble(
    start: list[float], now: list[float], tv: float, js: float
) -> None:
    for one, two in ((start, now), (now, start)):
        found = measured(np.array([one]), np.array([two]))
        assert [float(value[0]) for value in found] == pytest.approx([tv, js], abs=1e-6)


@pytest.mark.parametrize("words", [38, 50_000, 150_000, 151_936])
def test_two_policies_that_share_no_word_are_no_further_apart_than_can_be(words: int) -> None:
    """Whatever is rounded in sums over a vocabulary; each of them is sure of nothing."""
    half = words // 2
    both = np.full((2, words), NEVER)
    both[0, :half] = both[1, half:] = -math.log(half)
    tv, js = measured(both[:1], both[1:])
    assert 1 - 1e-4 < tv[0] <= 1
    assert MOST - 1e-4 < js[0] <= MOST
