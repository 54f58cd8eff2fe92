"""Losses and gradients against numbers derived by hand, METHOD.md's identities, TRL and torch.

Closed forms used throughout: sigmoid(ln 3) = 3/4, so -log sigmoid(ln 3) = ln(4/3); ln 3 apart in mean log-probability
is a cooling weight of 3/4; at the floor the weight is 1/2.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.layout import separate_rows
from cwdpo.data.samples import Sample
from cwdpo.model.logps import response_logps
from cwdpo.objectives import CwDpo, Dpo, Sft, SftC
from cwdpo.objectives.responses import Pairs, Responses
from cwdpo.train.loop import Scored
from cwdpo.train.micro import Member, cut, filled_up, rank_share
from cwdpo.train.reference import ReferenceLogps
from cwdpo.train.stage1 import SupervisedTask
from cwdpo.train.stage2 import PreferenceTask

LN3 = math.log(3)
ON, OFF = {"penalty_on": 1.0}, {"penalty_on": 0.0}


def leaf(*values: float) -> Any:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def responses(logps: Any, lengths: list[int], weights: list[float] | None = None, total: int = 0) -> Responses:
    number = len(lengths)
    return Responses(
        logps, torch.tensor(lengths).double(), torch.tensor(weights or [1.0] * number).double(), total or number
    )


def pairs(delta_chosen: list[float], delta_rejected: list[float], rejected: list[float], lengths: list[int]) -> Pairs:
    """Pairs with these differences to the reference and this policy log-probability of the rejected response."""
    policy_chosen, policy_rejected = leaf(*[-7.0] * len(rejected)), leaf(*rejected)
    return Pairs(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=policy_chosen.detach() - torch.tensor(delta_chosen, dtype=torch.float64),
        reference_rejected=policy_rejected.detach() - torch.tensor(delta_rejected, dtype=torch.float64),
        rejected_lengths=torch.tensor(lengths).double(),
    )


def gradients(objective: Any, given: Pairs) -> tuple[list[float], list[float]]:
    objective.pair_losses(given).losses.sum().backward()
    return given.policy_chosen.grad.tolist(), given.policy_rejected.grad.tolist()


# ---- sft: logps -6 over 3 tokens and -2 over 4 tokens, so 2 and 0.5 nats per token.


@pytest.mark.parametrize(
    ("reduction", "loss", "gradient"),
    [("token_mean", 1.25, [-1 / 6, -1 / 8]), ("sequence_sum", 4.0, [-1 / 2, -1 / 2])],
)
def test_sft_is_the_mean_over_responses(reduction: str, loss: float, gradient: list[float]) -> None:
    logps = leaf(-6, -2)
    value = Sft(reduction=reduction).share(responses(logps, [3, 4]), responses(leaf(-99), [1]), {})
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert logps.grad.tolist() == pytest.approx(gradient)


def test_sft_has_no_penalty_and_carries_nothing() -> None:
    assert Sft().initial_state() == Sft().next_state({}, 0.1) == {}
    assert Sft().penalty(0.0) == 0.0
    assert not Sft().uses_rejected
    assert not Sft().needs_batch_mean


# ---- sft_c: rejected logps -3, -8, -10 over 3, 4, 5 tokens: 1, 2, 2 nats per token, on average 5/3.


def test_sft_c_loss_is_equation_4() -> None:
    chosen, rejected = leaf(-6, -2), leaf(-3, -8, -10)
    objective = SftC(weight=0.1, floor=4.0)
    share = objective.share(responses(chosen, [3, 4]), responses(rejected, [3, 4, 5]), ON)
    share.backward()
    assert objective.penalty(5 / 3) == pytest.approx(0.7 / 3)
    # E[nll(y+)] + lambda * (C - E[nll(y-)]) = 1.25 + 0.1 * 7/3
    assert share.item() == pytest.approx(1.25 + 0.7 / 3)
    assert chosen.grad.tolist() == pytest.approx([-1 / 6, -1 / 8])
    # -lambda * d E[nll(y-)] / d logp = +lambda / (3 L): descending makes negatives less likely.
    assert rejected.grad.tolist() == pytest.approx([0.1 / 9, 0.1 / 12, 0.1 / 15])


def test_sft_c_with_the_penalty_off_is_sft() -> None:
    chosen, rejected = leaf(-6, -2), leaf(-3, -8, -10)
    share = SftC().share(responses(chosen, [3, 4]), responses(rejected, [3, 4, 5]), OFF)
    share.backward()
    assert share.item() == pytest.approx(1.25)
    assert rejected.grad.tolist() == [0.0, 0.0, 0.0]


def test_sft_c_sums_over_tokens_when_asked() -> None:
    share = SftC(reduction="sequence_sum", weight=0.5).share(
        responses(leaf(-6, -2), [3, 4]), responses(leaf(-3, -8, -10), [3, 4, 5]), ON
    )
    assert share.item() == pytest.approx(4.0 + 0.5 * (4.0 - 7.0))


def test_the_switch_follows_the_previous_steps_mean() -> None:
    objective = SftC(floor=4.0)
    assert objective.initial_state() == ON
    assert not objective.needs_batch_mean
    assert objective.next_state(OFF, 3.999) == ON
    assert objective.next_state(ON, 4.0) == OFF  # relu(0) = 0: nothing to push
    assert objective.next_state(ON, 4.001) == OFF
    assert (objective.penalty(4.0), objective.penalty(9.0)) == (0.0, 0.0)


def scored(logps: Any, lengths: list[int], samples: list[Sample]) -> Scored:
    return Scored(samples, [1.0] * len(samples), logps, torch.tensor(lengths).double(), samples)


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


# ---- dpo and cw_dpo: beta 0.1, margin ln 3.


def test_dpo_loss_and_gradient() -> None:
    given = pairs([10 * LN3 - 4, 0.0], [-4.0, 0.0], [-20.0, -9.0], [5, 3])
    result = Dpo(beta=0.1).pair_losses(given)
    assert result.losses.tolist() == pytest.approx([math.log(4 / 3), math.log(2)])
    assert result.measures == {}
    chosen, rejected = gradients(Dpo(beta=0.1), given)
    assert chosen == pytest.approx([-0.025, -0.05])  # -beta * (1 - sigmoid(m)): sigmoid 3/4, then 1/2
    assert rejected == pytest.approx([0.025, 0.05])


def test_cw_dpo_loss_and_gradient() -> None:
    # mean_logp of the rejected response: -3 + ln 3 and -3, so w_c is 3/4 and 1/2.
    given = pairs([10 * LN3 - 3, 2.0], [-4.0, 4.0], [4 * (LN3 - 3), -9.0], [4, 3])
    result = CwDpo().pair_losses(given)
    assert result.measures["w_c"].tolist() == pytest.approx([0.75, 0.5])
    assert result.measures["filtered"].tolist() == [0.0, 0.0]
    assert result.losses.tolist() == pytest.approx([math.log(4 / 3), math.log(2)])  # margins ln 3 and 0
    chosen, rejected = gradients(CwDpo(), given)
    assert chosen == pytest.approx([-0.025, -0.05])
    # +beta * (1 - sigmoid(m)) * w_c: w_c is detached, so no other term appears.
    assert rejected == pytest.approx([0.025 * 0.75, 0.05 * 0.5])


@pytest.mark.parametrize("objective", [Dpo(beta=0.3), CwDpo(beta=0.3, filter="keep", l_floor=-2.0, tau=0.5)])
def test_gradient_identities_hold_at_random_points(objective: Any) -> None:
    """The identities of METHOD.md, from a margin computed here."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (50,), generator=generator).tolist()
    means, delta_w, delta_l = (5 * torch.randn(3, 50, generator=generator, dtype=torch.float64)).tolist()
    logps = [-abs(mean) * length for mean, length in zip(means, lengths, strict=True)]
    chosen, rejected = gradients(objective, pairs(delta_w, delta_l, logps, lengths))
    for index, length in enumerate(lengths):
        cooled = isinstance(objective, CwDpo)
        w_c = 1 / (1 + math.exp(-(logps[index] / length + 2.0) / 0.5)) if cooled else 1.0
        m = 0.3 * (delta_w[index] - w_c * delta_l[index])
        left = 1 - 1 / (1 + math.exp(-m))
        assert chosen[index] == pytest.approx(-0.3 * left, abs=1e-12)
        assert rejected[index] == pytest.approx(0.3 * left * w_c, abs=1e-12)


def test_the_cooling_weight_has_an_upper_bound() -> None:
    certain = pairs([0.0], [0.0], [0.0], [7])  # mean_logp 0, the largest there is
    assert CwDpo().pair_losses(certain).measures["w_c"].item() == pytest.approx(0.953, abs=5e-4)
    assert CwDpo(tau=5.0).pair_losses(certain).measures["w_c"].item() == pytest.approx(0.646, abs=5e-4)
    likely = pairs([0.0] * 4, [0.0] * 4, [-0.01, -0.5, -2.0, -40.0], [1] * 4)
    weights = CwDpo().pair_losses(likely).measures["w_c"].tolist()
    assert 0.953 > weights[0] > weights[1] > weights[2] > weights[3] == 0.0


@pytest.mark.parametrize(
    ("mode", "loss", "weight", "chosen", "rejected"),
    [
        # delta_w = 10 ln 3, so without the rejected term the margin is ln 3.
        ("zero", math.log(4 / 3), 0.0, -0.025, 0.0),
        ("drop", 0.0, 1 / 4, 0.0, 0.0),
        # w_c = sigmoid(-ln 3) = 1/4 and delta_l = 40 ln 3: the margin is 0.
        ("keep", math.log(2), 1 / 4, -0.05, 0.05 / 4),
    ],
)
def test_filter_modes(mode: str, loss: float, weight: float, chosen: float, rejected: float) -> None:
    given = pairs([10 * LN3], [40 * LN3], [2 * (-3 - LN3)], [2])
    objective = CwDpo(filter=mode)
    result = objective.pair_losses(given)
    assert result.losses.item() == pytest.approx(loss)
    assert result.measures["w_c"].item() == pytest.approx(weight)
    assert result.measures["filtered"].item() == 1.0
    assert not result.measures["w_c"].requires_grad
    found = gradients(objective, given)
    assert found[0] == pytest.approx([chosen])
    assert found[1] == pytest.approx([rejected])


@pytest.mark.parametrize("mode", ["zero", "drop", "keep"])
@pytest.mark.parametrize(
    ("margin", "tau", "border"), [(0.0, 1.0, -3.0), (1.0, 1.0, -4.0), (3.0, 1.0, -6.0), (1.0, 2.0, -5.0)]
)
def test_filtering_starts_strictly_under_the_margin(mode: str, margin: float, tau: float, border: float) -> None:
    given = pairs([0.0] * 3, [0.0] * 3, [border - 0.001, border, border + 0.001], [1, 1, 1])
    result = CwDpo(filter=mode, filter_margin=margin, tau=tau).pair_losses(given)
    assert result.measures["filtered"].tolist() == [1.0, 0.0, 0.0]
    at_border = 1 / (1 + math.exp(margin))
    under = 0.0 if mode == "zero" else pytest.approx(at_border, abs=1e-3)
    assert result.measures["w_c"].tolist()[0] == under
    assert result.measures["w_c"].tolist()[1] == pytest.approx(at_border)
    assert result.losses.tolist() == pytest.approx([0.0 if mode == "drop" else math.log(2), math.log(2), math.log(2)])


def test_cw_dpo_with_every_weight_one_is_dpo() -> None:
    given = pairs([1.0, -2.0], [3.0, 0.5], [-1.0, -2.0], [1, 1])
    cooled = CwDpo(l_floor=-1e6, filter="keep").pair_losses(given)
    assert cooled.losses.tolist() == pytest.approx(Dpo().pair_losses(given).losses.tolist())


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
        members = [Member(sample, group_of(sample), weight) for sample in mine]
        for micro in filled_up(cut(members, Execution(micro_batch=size), lambda groups: 0), count):
            samples = [member.sample for member in micro]
            rows = [leaves[s.id][: len(task.responses(s))] for s in samples]
            lengths = [value for s in samples for value in LENGTHS[s.id][: len(task.responses(s))]]
            weights = [member.weight for member in micro]
            part = Scored(samples, weights, torch.cat(rows), torch.tensor(lengths).double(), batch)
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
    reference = {name: ReferenceLogps(-2.0, tuple([-4.0] * (len(values) - 1))) for name, values in LOGPS.items()}
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


def test_a_padding_row_has_no_gradient() -> None:
    logps = leaf(-6, -2)
    share = Sft().share(responses(logps, [3, 4], [1.0, 0.0], total=1), responses(leaf(), []), {})
    share.backward()
    assert share.item() == pytest.approx(2.0)
    assert logps.grad.tolist() == pytest.approx([-1 / 3, 0.0])


def test_a_dropped_pair_stays_in_the_denominator() -> None:
    batch = [Sample(name, name, "x.jpg", "?", "good", ("bad",)) for name in "ab"]
    reference = {name: ReferenceLogps(-1.0, (-8.0,)) for name in "ab"}
    # a: margin 0 (policy = reference), kept; b: mean_logp -8 is under -4, dropped.
    rows = scored(leaf(-1, -8, -1, -8), [1, 4, 1, 1], batch)
    share, logged = PreferenceTask(CwDpo(filter="drop"), reference).share(rows, {})
    assert share.item() == pytest.approx(math.log(2) / 2)
    assert logged["filtered"].item() == pytest.approx(0.5)


# ---- the outside world: TRL and torch.


class _Accelerator:
    device = torch.device("cpu")
    gather = gather_for_metrics = staticmethod(lambda value: value)


def trl_loss(log_probs: Any, mask: Any, reference: Pairs, beta: float) -> Any:
    """What TRL's own trainer computes from these token log-probabilities. Shapes: (2P, T - 1), (2P, T)."""
    from collections import defaultdict

    from trl.trainer import dpo_trainer as trainers

    zeros = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=_Accelerator(), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0],
        beta=beta, label_smoothing=0.0, use_weighting=False, _metrics={"train": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    inputs = {
        "input_ids": torch.zeros(mask.shape, dtype=torch.long),
        "attention_mask": torch.ones(mask.shape, dtype=torch.long),
        "completion_mask": mask.long(),
        "ref_chosen_logps": reference.reference_chosen,
        "ref_rejected_logps": reference.reference_rejected,
    }
    return trainers.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)


def test_dpo_equals_trl_on_the_same_tensors() -> None:
    torch.manual_seed(0)
    count, width = 6, 9
    mask = torch.arange(width)[None] >= torch.randint(1, width, (2 * count, 1))  # a response at the end of every row
    tokens = (-torch.rand(2 * count, width - 1, dtype=torch.float64) * 3 * mask[:, 1:]).requires_grad_()
    chosen, rejected = tokens.sum(1).chunk(2)
    given = Pairs(
        policy_chosen=chosen,
        policy_rejected=rejected,
        reference_chosen=chosen.detach() + torch.randn(count),
        reference_rejected=rejected.detach() + torch.randn(count),
        rejected_lengths=mask[count:].sum(1).double(),
    )
    ours = Dpo(beta=0.7).pair_losses(given).losses.mean()
    theirs = trl_loss(tokens, mask, given, 0.7)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert ours.item() != pytest.approx(trl_loss(tokens, mask, given, 0.6).item(), rel=1e-3)
    mine, other = (torch.autograd.grad(loss, tokens, retain_graph=True)[0] for loss in (ours, theirs))
    assert torch.allclose(mine, other, atol=1e-12)


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
    given = Responses(logps, lengths, torch.ones(3), total=3)
    assert Sft().share(given, given, {}).item() == pytest.approx(expected.mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        (Dpo, {"beta": 0}, r"beta: Input should be greater than 0; found 0"),
        (CwDpo, {"tau": -1}, r"tau: Input should be greater than 0; found -1"),
        (CwDpo, {"filter": "none"}, r"filter: .*'zero', 'drop' or 'keep'; found 'none'"),
        (CwDpo, {"filter_margin": -0.1}, r"filter_margin: .* greater than or equal to 0"),
        (SftC, {"constraint_estimate": "batch"}, r"constraint_estimate: .*'previous_step' or 'current_batch'"),
    ],
)
def test_values_without_meaning_are_refused(model: Any, content: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(model, content, "grid.yaml")
