"""The policy as it was when a stage began, beside the one that is trained: what it says, how far it has gone since."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cwdpo.base.runtime import Rank
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.samples import Sample
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import Lora, Policy
from cwdpo.model.load import add_lora, load_lora, load_model, load_policy_processor, trainable_policy
from cwdpo.model.scoring import PLAIN, Scorer, Way
from cwdpo.model.starting import START, StartingAdapter
from cwdpo.objectives import Sft
from cwdpo.objectives.reading import Reading
from cwdpo.train.config import Stage1Spec
from cwdpo.train.export import save_policy

POLICY = Policy(dtype="float32")
LORA = Lora(rank=2, alpha=4)
PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", "three large blue squares", PROMPT] * 10
CPU = torch.device("cpu")
WAYS = [PLAIN, Way(False, True), Way(True, True), Way(True, True, apart=True), Way(True, False, apart=True)]
KL = Reading(("logp", "kl"))


class Family:
    """A tiny checkpoint of a family, and an adapter that was trained before."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        families.BUILDERS[name](folder / "model", TEXTS, 1)
        Image.new("RGB", (64, 64), "red").save(folder / "a.png")
        self.adapter = folder / "adapter"
        changed(add_lora(self.model(), LORA, 0), 1).save_pretrained(self.adapter)
        self.collator = Collator(load_policy_processor(POLICY, folder / "model"), folder, 256)

    def model(self) -> Any:
        return load_model(POLICY, self.folder / "model")

    def policy(self, adapter: Path | None) -> Any:
        """What training trains."""
        policy = trainable_policy(self.model(), LORA, adapter, seed=3)
        assert splits_prefixes(policy)
        return policy.eval()

    def begun(self, adapter: Path | None) -> tuple[Any, StartingAdapter]:
        """A policy beside its start, after training has changed it."""
        policy = self.policy(adapter)
        start = StartingAdapter(policy, adapter)
        return changed(policy, 2), start

    def scorer(self, model: Any, way: Way = PLAIN) -> Scorer:
        assert splits_prefixes(model) or not way.apart
        return Scorer(model, self.collator.pad, CPU, way)

    def groups(self) -> list[Group]:
        sample = Sample("1", "1", "a.png", PROMPT, "")
        texts = (["a red circle", "three large blue squares at the top left", "a"], ["a small circle", "red"])
        return [self.collator.group(sample, group) for group in texts]

    def logps(self, scorer: Scorer) -> torch.Tensor:
        with torch.no_grad():
            return scorer.logps(self.groups())[0]


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


def changed(policy: Any, seed: int) -> Any:
    """A PEFT model whose trained parameters have moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    return policy


def gradients_asked(policy: Any) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in policy.named_parameters()}


# ---------------------------------------------------------------------------------------------------------------------
# The adapter of the start


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_inside_the_policy_is_exactly_what_it_was_when_it_began(family: Family, way: Way) -> None:
    frozen = load_lora(family.model(), family.adapter, trainable=False)
    expected = family.logps(family.scorer(frozen, way))
    policy = family.policy(family.adapter)
    start, scorer = StartingAdapter(policy, family.adapter), family.scorer(policy, way)
    for _ in range(2):  # the second time after it was trained
        with start.active():
            assert torch.equal(family.logps(start.scorer(scorer)), expected)
        now = family.logps(scorer)
        changed(policy, 2)
    assert float((now - expected).abs().max()) > 0.01, "outside the trained adapter counts"


def test_a_fresh_adapter_started_from_the_base_model(family: Family) -> None:
    policy, start = family.begun(None)
    expected = family.logps(family.scorer(family.model()))
    with start.active():
        assert torch.equal(family.logps(family.scorer(policy)), expected)
    assert float((family.logps(family.scorer(policy)) - expected).abs().max()) > 0.01


@pytest.mark.parametrize("fresh", [False, True], ids=["loaded", "fresh"])
def test_what_requires_gradients_stays_as_it_was(family: Family, fresh: bool) -> None:
    """DeepSpeed notes it once, so it must not change, not even for a moment."""
    adapter = None if fresh else family.adapter
    policy = family.policy(adapter)
    before = gradients_asked(policy)
    start = StartingAdapter(policy, adapter)
    states = [gradients_asked(policy)]
    with start.active():
        states.append(gradients_asked(policy))
    states.append(gradients_asked(policy))
    added = {name for name in states[0] if f".{START}." in name}
    assert len(added) == (0 if fresh else sum(before.values()))
    for state in states:
        assert {name: asked for name, asked in state.items() if name not in added} == before
        assert not any(state[name] for name in added)


def test_inside_there_is_no_dropout_and_outside_it_is_back(family: Family, tmp_path: Path) -> None:
    changed(add_lora(family.model(), Lora(rank=2, alpha=4, dropout=0.5), 0), 1).save_pretrained(tmp_path)
    expected = family.logps(family.scorer(load_lora(family.model(), tmp_path, trainable=False)))
    policy = family.policy(tmp_path)
    start, scorer = StartingAdapter(policy, tmp_path), family.scorer(policy)
    policy.train()
    with start.active():
        assert torch.equal(family.logps(scorer), expected)
    assert policy.training
    assert not torch.equal(family.logps(scorer), family.logps(scorer)), "dropout draws anew each time"


def test_after_a_failure_the_trained_adapter_is_active_again(family: Family) -> None:
    policy, start = family.begun(family.adapter)
    expected = family.logps(family.scorer(policy))
    with pytest.raises(ValueError, match="in between"), start.active():
        raise ValueError("in between")
    assert torch.equal(family.logps(family.scorer(policy)), expected)


def test_gradients_reach_the_trained_adapter_alone(family: Family) -> None:
    policy, start = family.begun(family.adapter)
    scores = family.scorer(policy).read(family.groups(), KL, start.active)
    (scores.logps.sum() + scores.sums["kl"].sum()).backward()
    given = {name for name, parameter in policy.named_parameters() if parameter.grad is not None}
    assert given == {name for name, asked in gradients_asked(policy).items() if asked}


def test_the_exported_policy_is_the_trained_adapter_alone(family: Family, tmp_path: Path) -> None:
    policy, _ = family.begun(family.adapter)
    names = [name for name, asked in gradients_asked(policy).items() if asked]
    engine: Any = SimpleNamespace(model=policy, names=names, zero_stage=0)
    context: Any = SimpleNamespace(rank=Rank(), out=tmp_path / "out", barrier=lambda: None)
    context.out.mkdir()
    save_policy(context, engine, None, Stage1Spec(policy=POLICY, tuning=LORA, objective=Sft()))
    assert sorted(path.name for path in context.out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    saved, began = (load_file(at / "adapter_model.safetensors") for at in (context.out, family.adapter))
    assert saved.keys() == began.keys()
    trained = {name.replace(".default", ""): value for name, value in policy.state_dict().items() if "default" in name}
    assert all(torch.equal(saved[name], trained[name]) for name in saved)
    assert not any(torch.equal(saved[name], began[name]) for name in saved)


# ---------------------------------------------------------------------------------------------------------------------
# The divergence from it


def plain_kl(trained: Any, began: Any, groups: list[Group]) -> torch.Tensor:
    """KL(now || start) over the whole vocabulary, summed over the tokens of each response; all logits of a row."""
    found = []
    for group in groups:
        for response in group.responses:
            tokens = torch.tensor([response])
            inputs = {**group.prefix, "input_ids": torch.cat([group.prefix["input_ids"], tokens], 1)}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if "mm_token_type_ids" in group.prefix:
                kinds = group.prefix["mm_token_type_ids"]
                inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(tokens)], 1)
            now, then = (model(**inputs).logits[0, group.prefix_length - 1 : -1] for model in (trained, began))
            now, then = torch.distributions.Categorical(logits=now), torch.distributions.Categorical(logits=then)
            found.append(torch.distributions.kl_divergence(now, then).sum())
    return torch.stack(found)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("fresh", [False, True], ids=["loaded", "fresh"])
def test_it_is_zero_at_the_start(family: Family, way: Way, fresh: bool) -> None:
    adapter = None if fresh else family.adapter
    policy = family.policy(adapter)
    start = StartingAdapter(policy, adapter)
    with torch.no_grad():
        scores = family.scorer(policy, way).read(family.groups(), KL, start.active)
    assert scores.sums["kl"].tolist() == pytest.approx([0] * 5, abs=1e-6)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_that_of_plain_logits_and_so_is_its_gradient(family: Family, way: Way) -> None:
    policy, start = family.begun(family.adapter)
    scores = family.scorer(policy, way).read(family.groups(), KL, start.active)
    frozen = load_lora(family.model(), family.adapter, trainable=False)
    other, _ = family.begun(family.adapter)
    expected = plain_kl(other, frozen, family.groups())
    assert min(expected.tolist()) > 0.005
    assert scores.sums["kl"].tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=2e-6)

    weights = torch.linspace(0.5, 2.0, 5)
    (scores.sums["kl"] * weights).sum().backward()
    (expected * weights).sum().backward()
    mine, theirs = (
        {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        for model in (policy, other)
    )
    assert mine.keys() == theirs.keys()
    largest = max(float(value.abs().max()) for value in theirs.values())
    assert largest > 1e-3
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4 * largest, rtol=1e-3) for name in theirs)
