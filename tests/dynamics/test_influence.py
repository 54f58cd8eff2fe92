"""Influence of one update: Proposition 1 and Figure 5 against float64, finite differences and plain autograd.

The tiny model computes in float64 here, norms included (transformers would round those to float32).
"""

from __future__ import annotations

import math
import shutil
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import logsigmoid, one_hot

from cwdpo.base.context import StageContext
from cwdpo.base.errors import Interrupted
from cwdpo.base.files import read_json, write_json, write_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.dynamics.influence import figure5, stage
from cwdpo.dynamics.influence.logits import (
    MEAN_LOGP,
    Derivative,
    Number,
    Seen,
    differentiate,
    logit_gradient,
    see,
)
from cwdpo.dynamics.influence.losses import PairLoss, SupervisedLoss, unsupported
from cwdpo.dynamics.influence.measure import Observed, influence, sgd_step
from cwdpo.dynamics.influence.proposition import (
    look,
    mean_logp,
    measured_change,
    observation,
    predicted_change,
    update,
)
from cwdpo.dynamics.influence.stage import InfluenceSpec
from cwdpo.dynamics.influence.vectors import copied, difference, inner, moved, trained
from cwdpo.dynamics.samples import ProbeSample
from cwdpo.model import tokens
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import FullTuning, Lora, Policy
from cwdpo.model.load import load_lora, load_model, load_policy_processor, trainable_policy
from cwdpo.model.scoring import PLAIN, Scorer, Way
from cwdpo.objectives import (
    CwDpo,
    Dpo,
    FocalDpo,
    Grpo,
    Nsft,
    Sft,
    SftC,
    SftCHard,
    SftEntropy,
    SftGentle,
    SftLabelSmoothing,
    VDpo,
)

PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", "three large blue squares", PROMPT] * 10
UPDATE = ("a red circle", "three large blue squares at the top left", "a")
OBSERVED = "a small blue circle"
WIDE = torch.float64
QUICK, LORA = Way(True, True), Lora(rank=2, alpha=4)
LOSSES: dict[str, Number] = {
    "dpo": PairLoss(Dpo(), (-20.0, -60.0, -9.0)),
    "cw_dpo": PairLoss(CwDpo(l_floor=-6.0), (-20.0, -60.0, -9.0)),
    "focal_dpo": PairLoss(FocalDpo(), (-20.0, -60.0, -9.0), importance=(2.0, 0.5)),
    "sft": SupervisedLoss(Sft()),
    "sft_c": SupervisedLoss(SftC(floor=9.0)),
    "sft_entropy": SupervisedLoss(SftEntropy(weight=0.5)),
    "sft_gentle": SupervisedLoss(SftGentle(weight=0.5)),
    "sft_label_smoothing": SupervisedLoss(SftLabelSmoothing()),
}


@dataclass(frozen=True)
class World:
    """A tiny model and two images."""

    folder: Path
    images: Path

    @cached_property
    def collator(self) -> Collator:
        return Collator(load_policy_processor(Policy(dtype="float32"), self.folder), self.images, 256)

    def group(self, *texts: str, image: str = "one.png") -> Group:
        return self.collator.group(Sample(image, image, image, PROMPT, ""), texts)

    def scorer(self, dtype: torch.dtype = WIDE, way: Way = QUICK, tuning: Lora | FullTuning = LORA) -> Scorer:
        """With an adapter that has begun to learn: at the very start B is zero, which would hide gradients of A."""
        model = trainable_policy(load_model(Policy(dtype="float32"), self.folder), tuning, None, seed=0)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in trained(model).items():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        model = unrounded(model.to(dtype)) if dtype == WIDE else model.to(dtype)
        if way.apart:
            splits_prefixes(model)
        return Scorer(model.eval(), self.collator.pad, torch.device("cpu"), way)


def unrounded(model: Any) -> Any:
    """The model with norms that compute in its own precision."""

    def forward(self: Any, hidden: Tensor) -> Tensor:
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * hidden * scale

    norms = [module for module in model.modules() if type(module).__name__.endswith("RMSNorm")]
    assert norms
    for module in norms:
        module.forward = types.MethodType(forward, module)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    images = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name in ("one.png", "other.png"):
        Image.fromarray((torch.rand(64, 64, 3, generator=generator) * 255).byte().numpy()).save(images / name)
    folder = tmp_path_factory.mktemp("influence") / "model"
    families.build_qwen(folder, TEXTS, 1)
    return World(folder, images)


def logits_of(scorer: Scorer, group: Group) -> Tensor:
    """Logits of the response tokens of a group, by the model as it comes, in a row of each response. Shape (K, V)."""
    batch = plain(scorer).batch([group])
    logits = scorer.model(**batch.inputs, attention_mask=batch.attention(), use_cache=False).logits
    return logits.flatten(0, 1)[batch.wanted.sources]


def plain(scorer: Scorer) -> Scorer:
    """The same model, a row for each response and all its logits."""
    return plainly_scored(scorer.model)


def residuals(logits: Tensor, group: Group) -> Tensor:
    """onehot - pi of each token. Shape (K, V)."""
    targets = torch.tensor([token for response in group.responses for token in response])
    return one_hot(targets, logits.shape[1]) - logits.softmax(1)


# ---- Proposition 1


@pytest.mark.parametrize("name", LOSSES)
def test_the_error_of_the_prediction_falls_with_the_square_of_the_learning_rate(world: World, name: str) -> None:
    scorer = world.scorer()
    observed, group = world.group(OBSERVED, image="other.png"), world.group(*UPDATE)
    step = update(scorer, group, LOSSES[name])
    seen = observation(scorer, observed)
    # Steps of equal length, so that one tolerance fits all losses.
    rates = [0.02 / step.norm / 2**halving for halving in range(5)]
    predicted = [predicted_change(seen, step.gradient, -rate) for rate in rates]
    measured = [measured_change(scorer, [observed], step.gradient, -rate)[0] for rate in rates]
    errors = [abs(ours - real) for ours, real in zip(predicted, measured, strict=True)]
    assert all(error > 1e-10 for error in errors), "far above the rounding of float64"
    ratios = [before / after for before, after in pairwise(errors)]
    # What is left of 4 is of third order, so it falls from halving to halving, too.
    assert ratios == pytest.approx([4.0] * 4, rel=0.1), errors
    assert ratios[-1] == pytest.approx(4.0, rel=0.01), errors
    assert predicted[-1] == pytest.approx(measured[-1], rel=0.1)


def test_of_a_real_optimizer_it_is_what_it_made_of_the_parameters_that_counts(world: World) -> None:
    """AdamW's first step has nothing of the length and little of the direction of the gradient."""
    scorer, observed, group = world.scorer(), world.group(OBSERVED, image="other.png"), world.group(*UPDATE)
    step, seen = update(scorer, group, LOSSES["dpo"]), observation(scorer, observed)
    start, errors = copied(scorer.model), []
    for rate in (2e-4, 1e-4, 5e-5):
        change = difference(adamw(scorer, step, rate), start)
        predicted = predicted_change(seen, change)
        (measured,) = measured_change(scorer, [observed], change)
        errors.append(abs(predicted - measured))
        assert predicted == pytest.approx(measured, rel=0.05)
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([4.0, 4.0], rel=0.15), errors


def adamw(scorer: Scorer, step: Derivative, rate: float) -> Mapping[str, Tensor]:
    """Parameters after a step of AdamW, of copies."""
    parameters = {name: value.clone().requires_grad_() for name, value in copied(scorer.model).items()}
    for name, parameter in parameters.items():
        parameter.grad = step.gradient[name]
    torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=0.1).step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def test_a_is_the_finite_difference_of_mean_logp_in_the_logits(world: World) -> None:
    scorer, group = world.scorer(), world.group(OBSERVED)
    with torch.no_grad():
        logits = logits_of(scorer, group)
    wanted, small = look(scorer, group).wanted, 1e-5

    def at(row: int, word: int, change: float) -> float:
        shifted = logits.clone()
        shifted[row, word] += change
        return mean_logp(Seen(shifted, None, wanted))

    found = logit_gradient(look(scorer, group), MEAN_LOGP)
    assert found.dtype == WIDE
    assert found.shape == logits.shape == (len(group.responses[0]), logits.shape[1])
    words = range(0, logits.shape[1], 3)
    slopes = [
        [(at(row, word, small) - at(row, word, -small)) / (2 * small) for word in words] for row in range(len(found))
    ]
    assert torch.allclose(found[:, ::3], torch.tensor(slopes, dtype=WIDE), atol=1e-9)
    assert torch.allclose(found, residuals(logits, group) / len(found), atol=1e-12)
    assert observation(scorer, group).logit_norm == pytest.approx(float(found.norm()), rel=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_the_inner_product_is_the_forward_derivative_along_the_other_gradient(world: World) -> None:
    scorer, observed, group = world.scorer(), world.group(OBSERVED, image="other.png"), world.group(*UPDATE)
    ours = inner(observation(scorer, observed).gradient, update(scorer, group, LOSSES["cw_dpo"]).gradient)
    model = scorer.model
    start = {name: parameter.detach() for name, parameter in trained(model).items()}
    seen = plain(scorer)

    def of(loss: Number, group: Group) -> Any:
        batch = seen.batch([group])

        def value(parameters: Mapping[str, Tensor]) -> Tensor:
            inputs = {**batch.inputs, "attention_mask": batch.attention(), "use_cache": False}
            logits = torch.func.functional_call(model, dict(parameters), (), inputs).logits
            rows = logits.flatten(0, 1)[batch.wanted.sources]
            logps = rows.log_softmax(1).gather(1, batch.wanted.tokens[:, None])[:, 0]
            return loss({"logp": batch.wanted.table(logps).sum(1)}, batch.wanted.lengths.to(WIDE))

        return value

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward derivative
        along = torch.func.grad(of(LOSSES["cw_dpo"], group))(start)
        _, theirs = torch.func.jvp(of(MEAN_LOGP, observed), (start,), (along,))
    assert ours == pytest.approx(float(theirs), rel=1e-8)
    assert abs(ours) > 1e-3


@pytest.mark.parametrize("rejected", [1, 2])
@pytest.mark.parametrize("name", ["dpo", "cw_dpo", "cw_dpo, filtered"])
def test_g_of_preference_losses_is_what_the_gradient_identities_say(world: World, name: str, rejected: int) -> None:
    """dL/dlogp(y_w) = -beta (1 - sigmoid(m)) and dL/dlogp(y_l) = beta (1 - sigmoid(m)) w_c, times onehot - pi."""
    beta, tau, floor = 0.3, 2.0, -6.5 if name == "cw_dpo" else 0.0
    objective = Dpo(beta=beta) if name == "dpo" else CwDpo(beta=beta, tau=tau, l_floor=floor)
    scorer, group = world.scorer(), world.group(*UPDATE[: 1 + rejected])
    with torch.no_grad():
        logits = logits_of(scorer, group)
    residual, lengths = residuals(logits, group), list(map(len, group.responses))
    targets = torch.tensor([token for response in group.responses for token in response])
    logps = [part.sum() for part in logits.log_softmax(1).gather(1, targets[:, None])[:, 0].split(lengths)]
    reference = [float(logp) + shift for logp, shift in zip(logps, (1.0, -2.0, 0.5), strict=False)]
    chosen, *others = residual.split(lengths)
    expected = [torch.zeros_like(chosen)]
    for number, part in enumerate(others, 1):
        mean = logps[number] / lengths[number]
        weight = {"dpo": 1.0, "cw_dpo": float(((mean - floor) / tau).sigmoid()), "cw_dpo, filtered": 0.0}[name]
        margin = beta * ((logps[0] - reference[0]) - weight * (logps[number] - reference[number]))
        pull = beta * (1 - margin.sigmoid()) / rejected
        expected[0] = expected[0] - pull * chosen
        expected.append(pull * weight * part)
    loss = PairLoss(objective, reference)
    found = logit_gradient(look(scorer, group), loss)
    assert torch.allclose(found, torch.cat(expected), atol=1e-12)
    assert update(scorer, group, loss).squares == pytest.approx([float((part**2).sum()) for part in expected])
    assert float(expected[0].norm()) > 0.01


WAYS = [Way(False, True), Way(True, True, apart=True)]


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, QUICK) for name in LOSSES), *((name, way) for name in ("cw_dpo", "sft_entropy") for way in WAYS)],
    ids=str,
)
def test_gradients_are_those_of_autograd_through_all_logits(
    world: World, name: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "CHUNK_ELEMENTS", 3 * 450)  # several chunks, the last one not full
    scorer, group, loss = world.scorer(way=way), world.group(*UPDATE), LOSSES[name]
    ours = differentiate(scorer.model, see(scorer, [group]), loss)
    logits = logits_of(world.scorer(), group).detach().requires_grad_()
    reference = world.scorer(way=Way(False, True))
    plainly(logits, group, loss).backward()
    plain = torch.autograd.grad(plainly(logits_of(reference, group), group, loss), [*trained(reference.model).values()])
    assert ours.value == pytest.approx(float(plainly(logits.detach(), group, loss)), rel=1e-9)
    parts = logits.grad.split(list(map(len, group.responses)))
    assert ours.squares == pytest.approx([float((part**2).sum()) for part in parts], rel=1e-8)
    for (key, value), theirs in zip(ours.gradient.items(), plain, strict=True):
        assert torch.allclose(value, theirs, rtol=1e-7, atol=1e-11), key


def plainly(logits: Tensor, group: Group, loss: Number) -> Tensor:
    """A loss as autograd sees it."""
    logp, lengths = logits.log_softmax(1), [len(response) for response in group.responses]
    targets = torch.tensor([token for response in group.responses for token in response])
    values = {
        "logp": logp.gather(1, targets[:, None])[:, 0],
        "entropy": -(logp.exp() * logp).sum(1),
        "uniform": logp.mean(1),
    }
    sums = {name: torch.stack([part.sum() for part in values[name].split(lengths)]) for name in loss.reading.trained}
    return loss(sums, torch.tensor(lengths, dtype=WIDE))


@pytest.mark.parametrize(
    ("way", "tuning"),
    [(PLAIN, LORA), (QUICK, FullTuning(name="full"))],
    ids=["a head that does more than a product", "a head that is trained"],
)
def test_where_the_head_cannot_be_taken_apart_all_logits_are_used(
    world: World, way: Way, tuning: Lora | FullTuning
) -> None:
    scorer, group = world.scorer(torch.float32, way, tuning), world.group(*UPDATE)
    found = update(scorer, group, LOSSES["dpo"])
    assert look(scorer, group).head is None
    logits = logits_of(scorer, group)
    value = plainly(logits, group, LOSSES["dpo"])
    expected = torch.autograd.grad(value, [*trained(scorer.model).values()], materialize_grads=True)
    assert found.value == pytest.approx(float(value.detach()), rel=1e-5)
    for (key, gradient), theirs in zip(found.gradient.items(), expected, strict=True):
        assert torch.allclose(gradient, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max())), key
    assert any("embed" in key for key in found.gradient) == isinstance(tuning, FullTuning)


# ---- the policy afterwards


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measuring_leaves_every_bit_of_the_weights_as_it_was(world: World, dtype: torch.dtype) -> None:
    scorer, group = world.scorer(dtype), world.group(*UPDATE)
    before = {name: value.clone() for name, value in scorer.model.state_dict().items()}
    step = update(scorer, group, LOSSES["dpo"])
    (change,) = measured_change(scorer, [world.group(OBSERVED)], step.gradient, -1.0)
    assert change
    away: dict[str, Tensor] = {}
    with pytest.raises(ZeroDivisionError):
        interrupted(scorer.model, step.gradient, away)
    assert any(not torch.equal(away[name], before[name]) for name in away), "it did move"
    after = scorer.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    undone = {name: away[name] + step.gradient[name] for name in away}
    assert any(not torch.equal(undone[name], before[name]) for name in undone), "a step back would not do"
    assert all(parameter.grad is None for parameter in scorer.model.parameters())


def interrupted(model: Any, gradient: Mapping[str, Tensor], away: dict[str, Tensor]) -> None:
    """A measurement that fails half-way; `away` gets the parameters as they were then."""
    with moved(model, gradient, -1.0):
        away |= copied(model)
        raise ZeroDivisionError


# ---- Figure 5


def test_a_of_figure_5_has_the_norm_of_the_explicit_matrix(world: World) -> None:
    scorer, group = world.scorer(), world.group(OBSERVED)
    with torch.no_grad():
        pi = logits_of(scorer, group).softmax(1)
    words = pi.shape[1]
    explicit = sum(float(((torch.eye(words) - torch.ones(words, 1) * row) ** 2).sum()) for row in pi)
    found = figure5.geometry(look(scorer, group))
    assert found.a_square == pytest.approx(explicit, rel=1e-12)
    flat, peaked = (figure5.geometry(Seen(row, None, look(scorer, group).wanted)) for row in flat_and_peaked(pi))
    assert flat.a_square == pytest.approx(len(pi) * (words - 1), rel=1e-12)
    assert peaked.a_square == pytest.approx(len(pi) * (2 * words - 2), rel=1e-3)
    assert peaked.a_square != pytest.approx(observation(scorer, group).logit_norm ** 2, rel=0.5), "another A"


def flat_and_peaked(like: Tensor) -> tuple[Tensor, Tensor]:
    flat, peaked = torch.zeros_like(like), torch.zeros_like(like)
    peaked[:, 7] = 40.0
    return flat, peaked


def test_figure_5_is_what_dense_matrices_give(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, observed, group = world.scorer(), world.group(OBSERVED, image="other.png"), world.group(*UPDATE)
    step = update(scorer, group, LOSSES["cw_dpo"])
    with torch.no_grad():
        before = logits_of(scorer, observed)
        with moved(scorer.model, step.gradient, -0.5):
            after = logits_of(scorer, observed)
    a = sum(float(((torch.eye(len(row)) - row[None]) ** 2).sum()) for row in before.softmax(1))
    g = float((residuals(before, observed) ** 2).sum())
    changed = float(((after.log_softmax(1) - before.log_softmax(1)) ** 2).sum())
    monkeypatch.setattr(tokens, "CHUNK_ELEMENTS", 2 * 450)
    seen = look(scorer, observed).kept("cpu")
    found = figure5.geometry(seen)
    with moved(scorer.model, step.gradient, -0.5):
        change = figure5.change_square(seen, look(scorer, observed))
    assert (found.a_square, found.g_square, change) == pytest.approx((a, g, changed), rel=1e-10)
    assert found.proxy(change) == pytest.approx(changed / (a * g), rel=1e-10)
    assert changed > 1e-4
    assert figure5.change_square(seen, look(scorer, observed)) == 0.0
    assert figure5.Geometry(3.0, 0.0).proxy(0.0) is None


def test_a_diverged_policy_leaves_nulls(world: World) -> None:
    scorer, observed = world.scorer(torch.float32), Observed("o", "chosen", world.group(OBSERVED))
    next(iter(trained(scorer.model).values())).data.fill_(math.inf)
    step = sgd_step(scorer, "u", world.group(*UPDATE), LOSSES["dpo"], 1e-3)
    (row,) = influence(scorer, [step], [observed])
    assert row["predicted"] is row["measured"] is row["fig5_proxy"] is row["g_norm"] is None
    assert row["observation"] == "o"


# ---- losses


def test_a_penalty_is_on_where_this_sample_violates_the_constraint(world: World) -> None:
    scorer, group = world.scorer(), world.group(*UPDATE)
    nll = -look(scorer, group).sums(["logp"])["logp"] / torch.tensor(list(map(len, group.responses)))
    mean = float(nll[1:].mean())
    for floor, gap in ((mean + 0.5, 0.5), (mean - 0.5, 0.0)):
        loss = SupervisedLoss(SftC(weight=0.2, floor=floor), {"penalty_on": 1.0})
        found = update(scorer, group, loss)
        assert found.value == pytest.approx(float(nll[0]) + 0.2 * gap, rel=1e-9)
        assert (found.squares[1] > 0) == (gap > 0)
    hard = SupervisedLoss(SftCHard(floor=mean + 0.5), {"multiplier": 2.0})
    assert update(scorer, group, hard).value == pytest.approx(float(nll[0]) + 1.0, rel=1e-9)


def test_pair_losses_are_averaged_over_the_pairs_of_a_sample() -> None:
    logps, lengths = torch.tensor([-3.0, -5.0, -9.0]), torch.tensor([3.0, 2.0, 4.0])
    loss = PairLoss(Dpo(beta=1.0), (-4.0, -4.0, -9.5))
    margins = torch.tensor([1.0 - -1.0, 1.0 - 0.5])
    assert float(loss({"logp": logps}, lengths)) == pytest.approx(float(-logsigmoid(margins).mean()))


def test_losses_that_need_more_than_responses_are_told_from_those_that_do_not() -> None:
    assert [unsupported(objective) for objective in (Dpo(), CwDpo(), Sft(), SftC(), VDpo(gamma=1.0))] == [None] * 5
    refused = [unsupported(objective) for objective in (VDpo(), Nsft(), SftCHard(), Grpo())]
    expected = ["chosen|blank", "dialogue", "multiplier", "samples"]
    assert all(part in (why or "") for part, why in zip(expected, refused, strict=True)), refused


# ---- the stage


START_SEED = 3
RATE = 1e-3
DPO = Dpo()
SAMPLES = [
    ProbeSample("a", "one", "one.png", PROMPT, {"chosen": UPDATE[0], "hard": UPDATE[1], "easy": UPDATE[2]}),
    ProbeSample("b", "other", "other.png", PROMPT, {"chosen": OBSERVED, "greedy": "a"}),  # no update without a negative
    ProbeSample("c", "other", "other.png", "Describe", {"chosen": "blue", "medium": "three squares"}),
]


def at_start(world: World) -> Any:
    """The policy before the run: the base model with a fresh adapter."""
    return trainable_policy(load_model(Policy(dtype="float32"), world.folder), LORA, None, START_SEED)


@pytest.fixture(scope="module")
def folders(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Inputs of the stage: a training of 4 steps that kept its second one, as PEFT writes adapters."""
    home = tmp_path_factory.mktemp("run")
    write_jsonl(home / "probe_set" / "samples.jsonl", [sample.as_json() for sample in SAMPLES])
    write_json(home / "run" / "snapshots" / "course.json", {"begin": 0, "end": 4, "total": 4, "every": 2})
    model, generator = at_start(world), torch.Generator().manual_seed(5)
    # A moves far at first, which B = 0 hides; then both move little.
    for place, far, near in (("run/snapshots/step-000002", 0.1, 1e-3), ("run", 2e-4, 2e-4)):
        for name, parameter in trained(model).items():
            parameter.data += (far if "lora_A" in name else near) * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(home / place)
    return {"run": home / "run", "probe_set": home / "probe_set", "model": world.folder, "images": world.images}


def measured(inputs: Mapping[str, Path], out: Path, objective: Any = DPO, **more: Any) -> pd.DataFrame:
    spec = InfluenceSpec(
        policy=Policy(dtype="bfloat16"), tuning=LORA, objective=objective, every=2, updates=3, observations=4,
        learning_rate=RATE, seed=START_SEED,
    )  # fmt: skip
    nothing = lambda *_, **__: None  # noqa: E731
    context = StageContext(spec, inputs, out / "out", out / "partial", out, Rank(), Execution(), nothing, nothing)
    stage.run(replace(context, **more))
    return pd.read_parquet(out / "out" / "influence.parquet")


@pytest.fixture(scope="module")
def out(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an undisturbed stage."""
    folder = tmp_path_factory.mktemp("undisturbed")
    measured(folders, folder)
    return folder / "out"


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "influence.parquet")


def test_the_stage_writes_every_update_and_observation_at_every_kept_step(out: Path, rows: pd.DataFrame) -> None:
    about = read_json(out / "influence.json")
    assert about["steps"] == [0, 2, 4]
    assert about["updated"] == ["a", "c"]
    assert about["observed"] == [["a", "chosen"], ["a", "hard"], ["a", "easy"], ["b", "chosen"]]
    steps = rows[rows["update"].notna()]
    assert sorted(steps.groupby(["step", "update"]).size().to_dict()) == [(s, u) for s in (0, 2, 4) for u in "ac"]
    assert (steps.groupby(["step", "update"]).size() == 4).all()
    # The reference is the policy at the start: there every margin is 0.
    assert steps[steps.step == 0].loss.to_numpy() == pytest.approx([math.log(2)] * 8, abs=1e-6)
    assert (abs(steps[steps.step > 0].loss - math.log(2)) > 1e-6).all()
    assert steps.predicted.to_numpy() == pytest.approx(steps.measured.to_numpy(), rel=0.1, abs=5e-6)
    assert steps.predicted.abs().max() > 1e-4
    own = steps[(steps["update"] == "a") & (steps.observation == "a")]
    assert (own[own.kind == "chosen"].measured > own[own.kind == "hard"].measured.to_numpy()).all(), "the margin grows"
    divisor = steps.fig5_a_square * steps.fig5_g_square
    assert steps.fig5_proxy.to_numpy() == pytest.approx((steps.fig5_delta_square / divisor).to_numpy())
    assert steps.g_norm.to_numpy() == pytest.approx(np.hypot(steps.g_chosen_norm, steps.g_rejected_norm).to_numpy())


def test_the_course_of_the_run_itself_is_a_move_like_others(rows: pd.DataFrame) -> None:
    course = rows[rows["update"].isna()]
    assert course[["step", "until"]].drop_duplicates().to_numpy().tolist() == [[0, 2], [2, 4]]
    late = course[course.step == 2]
    assert late.predicted.to_numpy() == pytest.approx(late.measured.to_numpy(), rel=0.1, abs=2e-6)
    assert late.predicted.abs().max() > 5e-5
    before, after = (course[course.step == step].set_index(["observation", "kind"]).mean_logp for step in (0, 2))
    moves = course[course.step == 0].set_index(["observation", "kind"]).measured
    assert (after - before).to_numpy() == pytest.approx(moves.to_numpy(), abs=2e-6)


@pytest.mark.parametrize("at", [0, 4])
def test_the_rows_are_what_the_parts_give_for_the_weights_of_a_step(
    world: World, folders: Mapping[str, Path], rows: pd.DataFrame, at: int
) -> None:
    """Of a fresh adapter a snapshot knows no A, through which gradients of B go: it comes from the seed."""
    base = plainly_scored(at_start(world))
    group, observed = world.group(*UPDATE), world.group(OBSERVED, image="other.png")
    reference = look(base, group).sums(["logp"])["logp"].tolist()
    there = load_lora(load_model(Policy(dtype="float32"), world.folder), folders["run"], trainable=True)
    scorer = plainly_scored(there) if at else base
    step, seen = update(scorer, group, PairLoss(Dpo(), reference)), observation(scorer, observed)
    row = rows[(rows.step == at) & (rows["update"] == "a") & (rows.observation == "b")].iloc[0]
    expected = {
        "loss": step.value, "g_norm": step.logit_norm, "update_gradient_norm": step.norm, "mean_logp": seen.value,
        "a_norm": seen.logit_norm, "predicted": predicted_change(seen, step.gradient, -RATE),
        "fig5_a_square": figure5.geometry(look(scorer, observed)).a_square,
    }  # fmt: skip
    assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-3)


def plainly_scored(model: Any) -> Scorer:
    return Scorer(model.eval(), 0, torch.device("cpu"), PLAIN)


def test_a_killed_stage_goes_on_with_the_steps_it_has_not_measured(
    folders: Mapping[str, Path], rows: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        measured(folders, tmp_path / "again", stopping=lambda: True)
    assert len(list((tmp_path / "again" / "partial" / "blocks").glob("*"))) == 1
    pd.testing.assert_frame_equal(measured(folders, tmp_path / "again"), rows)
    nowhere = {**folders, "model": tmp_path / "nothing"}  # nobody loads a model to publish what is there
    pd.testing.assert_frame_equal(measured(nowhere, tmp_path / "again"), rows)


def test_of_supervised_objectives_an_update_is_of_what_they_learn_from(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    rows = measured(folders, tmp_path, Sft())
    steps = rows[rows["update"].notna()]
    assert steps.g_rejected_norm.isna().all()
    own = steps[(steps["update"] == "a") & (steps.observation == "a") & (steps.kind == "chosen")]
    assert (own.measured > 0).all(), "what is learned becomes likelier"
    assert own.loss.to_numpy() == pytest.approx(-own.mean_logp.to_numpy(), rel=1e-5)


def test_an_objective_whose_loss_is_not_of_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'grpo' samples its own responses"):
        InfluenceSpec(policy=Policy(dtype="float32"), objective=Grpo(), every=1)


def test_a_run_that_went_on_from_an_adapter_is_measured_against_that_one(
    folders: Mapping[str, Path], rows: pd.DataFrame, tmp_path: Path
) -> None:
    found = measured({**folders, "adapter": folders["run"] / "snapshots" / "step-000002"}, tmp_path)
    steps, course = found[found["update"].notna()], found[found["update"].isna()]
    # This run stood at its second step where it began.
    assert steps[steps.step < 4].loss.to_numpy() == pytest.approx([math.log(2)] * 16, abs=1e-6)
    assert course[course.step == 0].measured.to_numpy() == pytest.approx([0.0] * 4, abs=1e-6)
    assert abs(rows[rows.step == 0].mean_logp.iloc[0] - steps[steps.step == 0].mean_logp.iloc[0]) > 1e-5


def test_between_the_start_and_a_later_round_there_is_no_course_of_this_run(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    later = shutil.copytree(folders["run"], tmp_path / "run")
    write_json(later / "snapshots" / "course.json", {"begin": 2, "end": 4, "total": 4, "every": 2})
    found = measured({**folders, "run": later}, tmp_path)
    assert found.step.unique().tolist() == [0, 4]
    assert found["update"].notna().all()
