"""Adapters that trainings keep, and stage `probe`, which reads them: shared out, killed, damaged, or none there."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import harness
import mortal_worker
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trainings import SET, STAGE1, Reader, Trainings, assert_same, by_key

from cwdpo.base.context import Share
from cwdpo.base.errors import DataError, Interrupted
from cwdpo.base.files import read_json
from cwdpo.dynamics.rows import RESPONSES, TOKENS
from cwdpo.dynamics.samples import load_probe_set
from cwdpo.jobs.events import last_progress
from cwdpo.jobs.progress import saved_progress
from cwdpo.model.config import Policy
from cwdpo.model.load import load_model

STEPS = [0, 2, 4, 6, 7]
BLOCKS = 3
SECOND = "/step-000004/000001.json"
"""Of the third of five steps the second block: 8 of 15 are read when it is there."""
STOPPED = {"signal": "SIGTERM", "event": {"event": "step", "step": 3}}
"""Heard in the step after it: the checkpoint is that of step 4."""

ENDS: dict[str, dict[str, Any]] = {
    "killed": {"signal": "SIGKILL", "file": SECOND},
    "asked": {"signal": "SIGTERM", "file": SECOND},
    "start flipped": {"signal": "SIGKILL", "file": SECOND},
    "start cut short": {"signal": "SIGKILL", "file": SECOND},
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "start flipped": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "start cut short": lambda content: content[:100],
}
ONE_STEP = {"optimization": {**STAGE1, "max_steps": 1}}


@dataclass
class Cut:
    """Readings that ended in the middle and were begun again.

    Attributes:
        left: what each had written, by path in its unfinished work.
        saved: how far each had come, by what a restart counts.
    """

    trainings: Trainings
    left: dict[str, dict[str, bytes]]
    saved: dict[str, int]


@pytest.fixture(scope="module")
def whole(begun: Trainings) -> Trainings:
    """Undisturbed: both stages, and four jobs that share one, put together by a fifth. Three that cannot be read."""
    run = begun.nodes["dpo"]
    begun.probe("read", run)
    begun.probe("first, read", begun.first)
    begun.probe("every third", run, every=3)
    begun.probe("none kept, read", begun.stage1("none kept", spec=ONE_STEP, snapshot_every=0))
    begun.probe("full, read", begun.stage1("full", tuning={"name": "full"}, spec=ONE_STEP))
    alone = begun.probe("shared", run)
    # There are three blocks, so that one of the four has nothing to do.
    shares = {f"share-{number}": replace(alone, share=Share(number, 4)) for number in range(4)}
    begun.nodes |= {**shares, "shared": replace(alone, inputs={**alone.inputs, **shares})}
    labels = [*("read", "first, read"), *shares, *("shared", "none kept", "full")]
    labels += ["every third", "none kept, read", "full, read"]
    nodes = [begun.nodes[label] for label in labels]
    assert harness.finish(harness.start(begun.home, nodes)) == DataError.exit_code, harness.output(begun.home, nodes)
    return begun


@pytest.fixture(scope="module")
def ranks(begun: Trainings) -> Trainings:
    """Two ranks: each with its own blocks, in lock-step over one partitioned model, and as one replica. A training."""
    run = begun.nodes["dpo"]
    begun.probe("two ranks", run)
    begun.probe("lock-step", run, inference="zero3")
    begun.probe("tensor-parallel", run, inference="tensor_parallel", replica_size=2)
    begun.stage1("first, two ranks")
    begun.compute("two ranks", "lock-step", "tensor-parallel", "first, two ranks", ranks=2)
    return begun


@pytest.fixture(scope="module")
def cut(begun: Trainings) -> Cut:
    """Readings that ended by a signal, two of them damaged then; trainings that ended with a checkpoint of step 4."""
    nodes = [begun.probe(label, begun.nodes["dpo"]) for label in ENDS]
    ends = [*ENDS.values(), STOPPED, {"signal": "SIGKILL", "event": {"event": "step", "step": 5}}]
    nodes += [begun.stage2("stopped"), begun.stage2("kept late", snapshot_every=0)]
    statuses = mortal_worker.run(begun.home, list(zip(nodes, ends, strict=True)))
    asked = Interrupted.exit_code
    dead = -signal.SIGKILL
    assert statuses == [dead, asked, dead, dead, asked, dead], harness.output(begun.home, nodes)
    begun.stage2("kept late")  # goes on with other settings of where it runs
    found = Cut(begun, {label: _left(begun, label) for label in (*ENDS, "stopped")}, {})
    found.saved = {label: saved_progress(begun.entry(label)) for label in ENDS}
    for label, damage in DAMAGES.items():
        path = begun.entry(label).partial / "start" / "000001.start"
        path.write_bytes(damage(path.read_bytes()))
    begun.compute(*ENDS, "stopped", "kept late")
    return found


def _left(trainings: Trainings, label: str) -> dict[str, bytes]:
    partial = trainings.entry(label).partial
    return {path.relative_to(partial).as_posix(): path.read_bytes() for path in partial.rglob("*") if path.is_file()}


def content(trainings: Trainings, label: str) -> list[bytes]:
    return [(trainings.files(label) / name).read_bytes() for name in (RESPONSES, TOKENS)]


# ---------------------------------------------------------------------------------------------------------------------
# Adapters that are kept


def kept(trainings: Trainings, label: str) -> list[str]:
    return sorted(path.name for path in (trainings.files(label) / "snapshots").iterdir())


def test_every_second_adapter_is_kept_beside_the_last_one(begun: Trainings) -> None:
    assert kept(begun, "dpo") == ["course.json", "step-000002", "step-000004", "step-000006"]
    course = read_json(begun.files("dpo") / "snapshots" / "course.json")
    assert course == {"begin": 0, "end": 7, "total": 7, "every": 2}
    contents = {path.read_bytes() for path in begun.files("dpo").rglob("adapter_model.safetensors")}
    assert len(contents) == 4, "no two of them are the same"


def test_none_is_kept_where_none_is_wanted(whole: Trainings) -> None:
    assert sorted(path.name for path in whole.files("none kept").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not (whole.files("full") / "snapshots").exists(), "all parameters were trained"


@pytest.mark.parametrize("step", [2, 4, 6])
def test_peft_itself_loads_a_kept_adapter(begun: Trainings, step: int) -> None:
    from peft import PeftModel

    folder = begun.files("dpo") / "snapshots" / f"step-{step:06d}"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    model = PeftModel.from_pretrained(load_model(Policy(dtype="float32"), begun.micro.model), folder)
    loaded = {name.replace(".default", ""): value for name, value in model.named_parameters() if "lora_" in name}
    saved = load_file(folder / "adapter_model.safetensors")
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    assert sum(bool(value.abs().max() > 0) for name, value in saved.items() if "lora_B" in name) > 10


def test_a_kept_adapter_is_that_of_a_training_that_stopped_there(cut: Cut) -> None:
    trainings = cut.trainings
    weights = trainings.home / "stopped.safetensors"
    weights.write_bytes(cut.left["stopped"]["checkpoints/step-000004/weights.safetensors"])
    found, expected = load_file(trainings.adapter("dpo", "snapshots", "step-000004")), load_file(weights)
    assert found.keys() == {name.replace(".default", "") for name in expected}
    assert all(torch.equal(found[name.replace(".default", "")], value) for name, value in expected.items())


def test_kept_adapters_survive_an_end_in_the_middle(cut: Cut) -> None:
    """Those of before and of after it; the resumed training is the undisturbed one."""
    assert {path.split("/")[1] for path in cut.left["stopped"] if path.startswith("snap")} == {
        "step-000002",
        "step-000004",
    }
    assert kept(cut.trainings, "stopped") == kept(cut.trainings, "dpo")
    for parts in ((), *(("snapshots", f"step-{step:06d}") for step in (2, 4, 6))):
        assert (
            cut.trainings.adapter("stopped", *parts).read_bytes() == cut.trainings.adapter("dpo", *parts).read_bytes()
        )


def test_a_training_that_goes_on_with_another_interval_has_those_of_its_later_steps(cut: Cut) -> None:
    """It kept none up to step 3, where its checkpoint was; that is no reason to lose the training at its end."""
    assert kept(cut.trainings, "kept late") == ["course.json", "step-000004", "step-000006"]
    assert cut.trainings.adapter("kept late").read_bytes() == cut.trainings.adapter("dpo").read_bytes()


def test_two_ranks_keep_what_one_keeps(begun: Trainings, ranks: Trainings) -> None:
    """Of sft_c: gradients are added up in another order."""
    assert kept(ranks, "first, two ranks") == kept(ranks, "first") == ["course.json", "step-000002", "step-000004"]
    for parts in ((), ("snapshots", "step-000002"), ("snapshots", "step-000004")):
        found, expected = (load_file(ranks.adapter(label, *parts)) for label in ("first, two ranks", "first"))
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=2e-3, rtol=2e-3, msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# What is read


@pytest.mark.parametrize(("label", "steps"), [("read", STEPS), ("first, read", [0, 2, 4, 5])])
def test_every_response_has_a_row_at_the_start_every_so_many_steps_and_the_end(
    whole: Trainings, label: str, steps: list[int]
) -> None:
    probes, samples = whole.probes(label), load_probe_set(whole.files("probe_set"))
    assert len(samples) == SET["samples"]
    responses = {(step, one.id, kind) for step in steps for one in samples for kind in one.responses}
    assert set(by_key(probes)["responses"].index) == responses
    lengths = probes.responses[probes.responses.kind == "chosen"].set_index(["step", "id"]).tokens
    tokens = {(*key, place) for key, length in lengths.items() for place in range(length)}
    assert set(by_key(probes)["tokens"].index) == tokens
    assert probes.about["steps"] == steps
    assert (probes.about["stage"], probes.about["total"]) == (whole.nodes[label].spec.stage, steps[-1])


def test_at_the_start_nothing_has_changed_and_then_everything_has(whole: Trainings) -> None:
    for label in ("read", "first, read"):
        probes = whole.probes(label)
        start = probes.responses.step == 0
        assert (probes.responses[start].delta_logp == 0).all()
        assert (probes.responses[~start].delta_logp.abs() > 1e-4).all()
        tokens = probes.tokens
        assert (tokens[tokens.step == 0][["tv", "js"]] == 0).all(axis=None)
        assert (tokens[tokens.step > 0][["tv", "js"]] > 1e-7).all(axis=None)
        assert (tokens.tv <= 1).all()
        assert (tokens.js <= math.log(2)).all()


@pytest.mark.parametrize(
    ("step", "adapter"),
    [(0, ("first",)), (4, ("dpo", "snapshots", "step-000004")), (7, ("dpo",))],
)
def test_rows_are_what_the_kept_adapters_say_by_themselves(
    whole: Trainings, step: int, adapter: tuple[str, ...]
) -> None:
    """By a plain forward pass of the model under PEFT, in float64, of a row for each response."""
    label, *parts = adapter
    reader, start = (
        Reader(whole.micro, whole.micro.model, whole.adapter(name, *rest).parent)
        for name, rest in ((label, parts), ("first", []))
    )
    probes = by_key(whole.probes("read"))
    for sample in load_probe_set(whole.files("probe_set"))[1:3]:
        for kind, text in sample.responses.items():
            logps, tokens = reader.logps(sample, text), reader.tokens(sample, text)
            row = probes["responses"].loc[(step, sample.id, kind)]
            of_tokens = logps[range(len(tokens)), tokens]
            assert row.tokens == len(tokens)
            assert row.logp == pytest.approx(of_tokens.sum().item(), rel=1e-5)
            onehot = torch.nn.functional.one_hot(torch.tensor(tokens), logps.shape[1])
            assert row.residual == pytest.approx(((onehot - logps.exp()) ** 2).sum().item(), rel=1e-4)
        text = sample.responses["chosen"]
        logps, before = reader.logps(sample, text), start.logps(sample, text)
        rows = probes["tokens"].loc[(step, sample.id)]
        assert list(rows.token) == reader.tokens(sample, text)
        assert rows.tv.to_numpy() == pytest.approx((logps.exp() - before.exp()).abs().sum(1).numpy() / 2, abs=1e-5)
        assert rows.js.to_numpy() == pytest.approx(divergence(logps, before).numpy(), abs=1e-5)
        assert rows.entropy.to_numpy() == pytest.approx(-(logps.exp() * logps).sum(1).numpy(), rel=1e-4)
        assert np.stack(rows.top_tokens.to_numpy())[:, 0].tolist() == logps.argmax(1).tolist()
        expected = logps.exp().topk(5, 1).values.numpy()
        assert np.stack(rows.top_probs.to_numpy()) == pytest.approx(expected, rel=1e-4)


def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon, as it is defined. Shapes (tokens, V) -> (tokens,)."""
    middle = ((one.exp() + other.exp()) / 2).log()
    return sum((logp.exp() * (logp - middle)).sum(1) for logp in (one, other)) / 2


def test_what_a_training_saw_on_its_way_is_read_of_its_adapters(whole: Trainings) -> None:
    assert_same(whole.probes("dpo, watched"), whole.probes("read"), 2e-5)
    assert {whole.probes(label).about["where"] for label in ("dpo, watched", "read")} == {"run", "snapshots"}


@pytest.mark.parametrize("label", ["shared", "two ranks"])
def test_shares_and_ranks_write_the_same_bytes(whole: Trainings, ranks: Trainings, label: str) -> None:
    assert content(ranks, label) == content(whole, "read")


@pytest.mark.parametrize(("label", "tolerance"), [("lock-step", 1e-5), ("tensor-parallel", 1e-3)])
def test_a_model_over_several_ranks_has_the_same_rows(
    whole: Trainings, ranks: Trainings, label: str, tolerance: float
) -> None:
    """Over a tensor-parallel one whole distributions are kept of the start, in half precision."""
    assert_same(ranks.probes(label), whole.probes("read"), tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# Ended in the middle, damaged, refused


@pytest.mark.parametrize("label", list(ENDS))
def test_begun_again_it_writes_the_same_bytes(whole: Trainings, cut: Cut, label: str) -> None:
    by_key(cut.trainings.probes(label))
    assert content(cut.trainings, label) == content(whole, "read")


@pytest.mark.parametrize("label", ["killed", "asked"])
def test_what_was_read_is_not_read_again(cut: Cut, label: str) -> None:
    """A restart counts it, so that one that is cut off again and again gets on."""
    assert cut.saved[label] == 8
    read = [row["done"] for attempt in (1, 2) for row in cut.trainings.events(label, attempt, "progress")]
    assert sorted({*read, 8}) == list(range(1, len(STEPS) * BLOCKS + 1)), "8 may have been killed before it was told"
    assert cut.trainings.events(label, 2, "progress")[0]["done"] == 9
    assert last_progress(cut.trainings.entry(label)) == (15, 15)


@pytest.mark.parametrize("label", list(DAMAGES))
def test_what_is_damaged_of_the_start_is_read_again(cut: Cut, label: str) -> None:
    """Step 0 of one block, and what was not read; that its numbers are right is above."""
    assert len(cut.trainings.events(label, 2, "progress")) == 1 + 7


def test_an_interval_whose_adapters_were_not_kept_is_refused(whole: Trainings) -> None:
    why = whole.why("every third")
    assert why.startswith("DataError: ")
    assert "no snapshot of step 3, which probe.every 3 asks for: this training kept one every 2 steps" in why
    assert why.endswith("set probe.every to a multiple of 2")


@pytest.mark.parametrize("label", ["none kept, read", "full, read"])
def test_a_training_that_kept_nothing_is_refused(whole: Trainings, label: str) -> None:
    why = whole.why(label)
    assert why.startswith("DataError: ")
    assert "this training has kept no snapshots" in why
    assert "set execution.snapshot_every and remove its folder from the store" in why
