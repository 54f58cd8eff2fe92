"""Shares of a batch's loss: micro-batches and ranks add up to it; and sft against torch on a real model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.layout import separate_rows
from cwdpo.data.records import SentenceScore
from cwdpo.data.samples import Sample
from cwdpo.model.logps import Scores, response_logps
from cwdpo.model.micro import Member, cut, filled_up, rank_share
from cwdpo.objectives import CwDpo, Dpo, OpaDpo, Sft, SftC
from cwdpo.objectives.supervised import Responses
from cwdpo.train.reference import ReferenceLogps
from cwdpo.train.stage1 import SupervisedTask
from cwdpo.train.stage2 import PreferenceTask
from cwdpo.train.task import Scored, rooted
from cwdpo.train.terms import rows_of

ON, OFF = {"penalty_on": 1.0}, {"penalty_on": 0.0}


def leaf(*values: float) -> Any:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def scored(logps: Any, lengths: list[int], samples: list[Sample]) -> Scored:
    return Scored(samples, [1.0] * len(samples), scores(logps, lengths), samples)


def scores(logps: Any, lengths: list[int]) -> Scores:
    """Scores with all of a response's log-probability on one token, and a residual of 1/4 there."""
    column = logps[:, None]
    tables = {"logp": column, "residual": torch.full_like(column, 0.25), "uniform": 2 * column, "entropy": -column}
    return Scores(tables, torch.tensor(lengths).double())


def reference_of(chosen: float, *rejected: float) -> ReferenceLogps:
    return ReferenceLogps({"chosen": (chosen,), "rejected": rejected})


@pytest.mark.parametrize("state", [ON, OFF])
@pytest.mark.parametrize(("floor", "loss"), [(1.5, 2.0), (1.7, 2.0 + 0.1 * (1.7 - 5 / 3))])
def test_current_batch_switches_by_this_batch_whatever_came_before(state: dict, floor: float, loss: float) -> None:
    sample = Sample("a", "a", "a.jpg", "?", "chosen", ("one", "two", "three"))
    task = SupervisedTask(SftC(floor=floor, constraint_estimate="current_batch"), Rank())
    assert not task.accumulates
    share, logged = task.share(scored(leaf(-6, -3, -8, -10), [3, 3, 4, 5], [sample]), state)
    assert share.item() == pytest.approx(loss)
    assert logged["nll_rejected"].item() == pytest.approx(5 / 3)


def test_the_true_penalty_is_logged_and_the_state_advances() -> None:
    task = SupervisedTask(SftC(), Rank())
    means = {"loss": 0.0, "nll_rejected": 5 / 3}
    assert task.finish(means, OFF) == ON
    assert means["penalty"] == pytest.approx(0.7 / 3)
    assert means["penalty_active"] == 1.0
    assert task.finish({"loss": 0.0, "nll_rejected": 4.5}, ON) == OFF


# ---- shares: micro-batches and ranks add up to the global batch.

BATCH = [
    Sample(name, name, f"{name}.jpg", "?", "good", tuple(f"bad {number}" for number in range(count)))
    for name, count in [("a", 1), ("b", 3), ("c", 0), ("d", 2), ("e", 1)]
]
LOGPS = {"a": [-1.0, -6.0], "b": [-2.5, -7.0, -3.0, -1.5], "c": [-4.0], "d": [-0.5, -9.0, -2.0], "e": [-3.0, -5.0]}
LENGTHS = {"a": [1, 2], "b": [2, 5, 1, 3], "c": [4], "d": [1, 4, 2], "e": [3, 5]}


def group_of(sample: Sample) -> Group:
    """A group of the sample's lengths: what micro-batches are sorted by."""
    return Group({"input_ids": torch.zeros(1, 3)}, tuple((0,) * length for length in LENGTHS[sample.id]))


def total_share(task: Any, batch: list[Sample], size: int, world: int, state: Any) -> tuple[float, dict, dict]:
    """Sum over all micro-batches of all ranks, the gradient by sample, and the logged means."""
    count = math.ceil(math.ceil(len(batch) / world) / size)
    leaves = {name: leaf(*values) for name, values in LOGPS.items()}
    loss, logged = torch.zeros((), dtype=torch.float64), {}
    for rank in range(world):
        mine, weight = rank_share(batch, Rank(rank, rank, world))
        members = [Member(sample, [group_of(sample)], weight=weight) for sample in mine]
        for micro in filled_up(cut(members, Execution(micro_batch=size), lambda groups: 0), count):
            samples = [member.sample for member in micro]
            counts = [1 + len(s.rejected) * task.objective.uses_rejected for s in samples]
            rows = [leaves[s.id][:count] for s, count in zip(samples, counts, strict=True)]
            lengths = [value for s, count in zip(samples, counts, strict=True) for value in LENGTHS[s.id][:count]]
            part = Scored(samples, [member.weight for member in micro], scores(torch.cat(rows), lengths), batch)
            share, measured = task.share(part, state)
            loss = loss + share
            logged = {key: logged.get(key, 0.0) + value.item() for key, value in measured.items()}
    loss.backward()
    return loss.item(), {name: value.grad for name, value in leaves.items()}, logged


CUTS = [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (1, 4), (3, 2), (2, 3), (7, 2)]


@pytest.mark.parametrize(("size", "world"), CUTS)
@pytest.mark.parametrize("objective", [Sft(), SftC(), SftC(reduction="sequence_sum")])
def test_supervised_shares_add_up(objective: Any, size: int, world: int) -> None:
    task = SupervisedTask(objective, Rank())
    per_token = objective.reduction == "token_mean"
    nll = {n: [-p / (k if per_token else 1) for p, k in zip(LOGPS[n], LENGTHS[n], strict=True)] for n in LOGPS}
    chosen = sum(nll[sample.id][0] for sample in BATCH) / 5
    rejected = sum(value for sample in BATCH for value in nll[sample.id][1:]) / 7
    expected = chosen + (0.1 * (4.0 - rejected) if objective.uses_rejected else 0.0)
    loss, grads, logged = total_share(task, BATCH, size, world, ON)
    assert loss == pytest.approx(expected)
    if objective.uses_rejected:
        assert logged["nll_rejected"] == pytest.approx(rejected)
        assert grads["b"].tolist() == pytest.approx(
            [-1 / 5 / (2 if per_token else 1), *(0.1 / 7 / (k if per_token else 1) for k in (5, 1, 3))]
        )


@pytest.mark.parametrize(("size", "world"), CUTS)
@pytest.mark.parametrize("objective", [Dpo(), CwDpo(), CwDpo(filter="drop")])
def test_preference_shares_add_up_to_the_mean_over_samples_of_the_mean_over_pairs(
    objective: Any, size: int, world: int
) -> None:
    batch = [sample for sample in BATCH if sample.rejected]
    reference = {name: reference_of(-2.0, *[-4.0] * (len(values) - 1)) for name, values in LOGPS.items()}
    loss, grads, logged = total_share(PreferenceTask(objective, reference), batch, size, world, {})
    expected, margin, cooled = 0.0, 0.0, isinstance(objective, CwDpo)
    for sample in batch:
        for logp, length in zip(LOGPS[sample.id][1:], LENGTHS[sample.id][1:], strict=True):
            weight = 1 / (len(sample.rejected) * len(batch))
            mean = logp / length
            w_c = (0.0 if mean < -4 else 1 / (1 + math.exp(-(mean + 3)))) if cooled else 1.0
            m = 0.1 * (LOGPS[sample.id][0] + 2.0 - w_c * (logp + 4.0))
            dropped = cooled and objective.filter == "drop" and mean < -4
            expected += 0.0 if dropped else weight * math.log(1 + math.exp(-m))
            margin += weight * (LOGPS[sample.id][0] + 2.0 - (logp + 4.0))
    assert loss == pytest.approx(expected, rel=1e-6)  # weights are float32
    assert logged["margin"] == pytest.approx(margin, rel=1e-6)
    # The first sample is what a ragged micro-batch is padded with: margin 0.1 * (1 + 2 w_c), w_c = 1/2 at the floor.
    slope = 0.1 / (1 + math.exp(0.2 if cooled else 0.3)) / len(batch)
    assert grads["a"].tolist() == pytest.approx([-slope, slope / 2 if cooled else slope], rel=1e-6)


def test_a_dropped_pair_stays_in_the_denominator() -> None:
    batch = [Sample(name, name, "x.jpg", "?", "good", ("bad",)) for name in "ab"]
    reference = {name: reference_of(-1.0, -8.0) for name in "ab"}
    # a: margin 0 (policy = reference), kept; b: mean_logp -8 is under -4, dropped.
    rows = scored(leaf(-1, -8, -1, -8), [1, 4, 1, 1], batch)
    share, logged = PreferenceTask(CwDpo(filter="drop"), reference).share(rows, {})
    assert share.item() == pytest.approx(math.log(2) / 2)
    assert logged["filtered"].item() == pytest.approx(0.5)


def test_the_pull_of_each_term_is_the_norm_of_its_gradient_in_the_logits() -> None:
    """One pair at margin 0: dL/dlogp = -+beta/2, and every token's residual is 1/4, so both norms are beta/2 * 1/2."""
    batch = [Sample("a", "a", "x.jpg", "?", "good", ("bad",))]
    task = PreferenceTask(Dpo(beta=0.4), {"a": reference_of(-1.0, -8.0)})
    _, logged = task.share(scored(leaf(-1, -8), [1, 4], batch), {})
    means = {name: value.item() for name, value in logged.items()}
    rooted(means)
    assert means["gradient_chosen"] == means["gradient_rejected"] == pytest.approx(0.1)


def test_the_pull_of_a_chosen_response_counts_all_its_pairs_together() -> None:
    batch = [Sample("a", "a", "x.jpg", "?", "good", ("bad", "worse"))]
    task = PreferenceTask(Dpo(beta=0.4), {"a": reference_of(-1.0, -8.0, -9.0)})
    _, logged = task.share(scored(leaf(-1, -8, -9), [1, 4, 4], batch), {})
    # Slopes -beta/2 for the chosen response, +beta/4 for each rejected one (the mean of two pairs).
    assert logged["gradient_chosen"].item() == pytest.approx(0.25 * 0.2**2)
    assert logged["gradient_rejected"].item() == pytest.approx(0.25 * 2 * 0.1**2)


def test_the_cooling_weights_are_told_in_ten_bins() -> None:
    batch = [Sample(name, name, "x.jpg", "?", "good", ("bad",)) for name in "ab"]
    task = PreferenceTask(CwDpo(), {name: reference_of(-1.0, -8.0) for name in "ab"})
    # mean_logp -3 is at the floor, w_c = 0.5; -8 is filtered, w_c = 0.
    _, logged = task.share(scored(leaf(-1, -3, -1, -8), [1, 1, 1, 1], batch), {})
    bins = {name: value.item() for name, value in logged.items() if "_from_" in name}
    assert len(bins) == 10
    assert {name: value for name, value in bins.items() if value} == {"w_c_from_0.0": 0.5, "w_c_from_0.5": 0.5}


def test_scored_sentences_weigh_their_pair() -> None:
    """Scores 2 and 4, the first about the image: (2 * 3 + 1) / 2."""
    sentences = (SentenceScore(2, True), SentenceScore(4, False))
    plain = Sample("a", "a", "x.jpg", "?", "good", ("bad",), ("better",))
    task = PreferenceTask(OpaDpo(), {"a": ReferenceLogps(dict.fromkeys(OpaDpo().terms, (-3.0,)))})
    losses = [
        task.share(scored(leaf(*[-3.0] * 5), [1] * 5, [sample]), {})[0].item()
        for sample in (plain, replace(plain, scores=(sentences,)))
    ]
    assert losses[0] == pytest.approx((2 + 2 * 0.2 + 2) * math.log(2))
    assert losses[1] == pytest.approx(3.5 * losses[0])


def test_terms_find_their_responses_among_all_views() -> None:
    samples = [
        Sample("a", "a", "x.jpg", "?", "good", ("bad", "worse"), ("better", "best")),
        Sample("b", "b", "x.jpg", "?", "good", ("bad",), ("better",)),
    ]
    # a: whole image: good, bad, worse, better, best; masked: good, better, best; then b likewise.
    assert rows_of(samples, OpaDpo().terms) == {
        "chosen": [0, 0, 8],
        "rejected": [1, 2, 9],
        "revised": [3, 4, 10],
        "chosen|masked": [5, 5, 11],
        "revised|masked": [6, 7, 12],
    }


# ---- the outside world: torch.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A tiny model, its processor, and a folder with two images."""
    from cwdpo.model.config import Policy
    from cwdpo.model.load import load_model
    from cwdpo.model.processor import load_processor
    from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

    folder = tmp_path_factory.mktemp("losses")
    build_tiny_qwen(TinyQwen(layers=1, vision_depth=1), ["a red ball", "two blue cubes"] * 8, folder / "model", seed=3)
    for name in ("red", "blue"):
        Image.new("RGB", (64, 64), name).save(folder / f"{name}.png")
    return load_model(Policy(dtype="float32"), folder / "model"), load_processor(folder / "model"), folder


def cross_entropy(tiny: tuple[Any, Any, Path], sample: Sample) -> Any:
    """torch's cross-entropy of one response, a row on its own: text, image and labels put together by hand."""
    model, processor, folder = tiny
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.prompt}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True) + sample.chosen + "<|im_end|>"
    inputs = processor(text=[text], images=[[Image.open(folder / sample.image)]], return_tensors="pt")
    length = len(processor.tokenizer(sample.chosen)["input_ids"]) + 1
    logits = model(**inputs).logits[0]
    return torch.nn.functional.cross_entropy(logits[-length - 1 : -1], inputs["input_ids"][0, -length:])


def test_sft_equals_torch_cross_entropy_under_our_reduction(tiny: tuple[Any, Any, Path]) -> None:
    model, processor, folder = tiny
    samples = [
        Sample("1", "1", "red.png", "Describe the image.", "a red ball"),
        Sample("2", "2", "blue.png", "What?", "two blue cubes and some more words that make the row longer"),
        Sample("3", "3", "red.png", "Hm", "x"),
    ]
    collator = Collator(processor, folder, 256)
    batch = separate_rows([collator.group(sample, [sample.chosen]) for sample in samples], collator.pad)
    with torch.no_grad():
        logps, lengths = response_logps(model, batch)
        expected = torch.stack([cross_entropy(tiny, sample) for sample in samples])
    assert lengths.tolist() == [len(processor.tokenizer(sample.chosen)["input_ids"]) + 1 for sample in samples]
    assert len(set(lengths.tolist())) == 3  # or a mean over all tokens would pass too
    given = Responses({"logp": logps}, lengths, torch.ones(3), total=3)
    assert Sft().share(given, given, {}).item() == pytest.approx(expected.mean().item(), rel=1e-5)
