"""Adapters that trainings keep, and stage `probe`, which reads them: shared out, killed, damaged, or none there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from runs import DAMAGES, READINGS, Runs
from safetensors.torch import load_file
from trainings import BLOCKS, SET, Reader, assert_same, by_key

from cwdpo.base.files import read_json
from cwdpo.dynamics.rows import RESPONSES, TOKENS
from cwdpo.dynamics.samples import load_probe_set
from cwdpo.jobs.events import last_progress
from cwdpo.jobs.progress import saved_progress
from cwdpo.model.config import Policy
from cwdpo.model.load import load_model

STEPS = [0, 2, 4, 6, 7]


def kept(runs: Runs, label: str) -> list[str]:
    return sorted(path.name for path in (runs.files(label) / "snapshots").iterdir())


def content(runs: Runs, label: str) -> list[bytes]:
    return [(runs.files(label) / name).read_bytes() for name in (RESPONSES, TOKENS)]


# ---------------------------------------------------------------------------------------------------------------------
# Adapters that are kept


def test_every_second_adapter_is_kept_beside_the_last_one(runs: Runs) -> None:
    assert kept(runs, "dpo") == ["course.json", "step-000002", "step-000004", "step-000006"]
    course = read_json(runs.files("dpo") / "snapshots" / "course.json")
    assert course == {"begin": 0, "end": 7, "total": 7, "every": 2}
    contents = {path.read_bytes() for path in runs.files("dpo").rglob("adapter_model.safetensors")}
    assert len(contents) == 4, "no two of them are the same"


def test_none_is_kept_where_none_is_wanted(runs: Runs) -> None:
    assert sorted(path.name for path in runs.files("none kept").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not (runs.files("full") / "snapshots").exists(), "all parameters were trained"


@pytest.mark.parametrize("step", [2, 4, 6])
def test_peft_itself_loads_a_kept_adapter(runs: Runs, step: int) -> None:
    from peft import PeftModel

    folder = runs.files("dpo") / "snapshots" / f"step-{step:06d}"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    model = PeftModel.from_pretrained(load_model(Policy(dtype="float32"), runs.micro.model), folder)
    loaded = {name.replace(".default", ""): value for name, value in model.named_parameters() if "lora_" in name}
    saved = load_file(folder / "adapter_model.safetensors")
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    assert sum(bool(value.abs().max() > 0) for name, value in saved.items() if "lora_B" in name) > 10


def test_a_kept_adapter_is_that_of_a_training_that_stopped_there(runs: Runs) -> None:
    found = load_file(runs.adapter("dpo", "snapshots", "step-000004"))
    expected = load_file(runs.left("stopped").partial / "checkpoints" / "step-000004" / "weights.safetensors")
    assert found.keys() == {name.replace(".default", "") for name in expected}
    assert all(torch.equal(found[name.replace(".default", "")], value) for name, value in expected.items())


def test_kept_adapters_survive_an_end_in_the_middle(runs: Runs) -> None:
    """Those of before and of after it; the resumed training is the undisturbed one."""
    left = runs.left("stopped").partial / "snapshots"
    assert {path.name for path in left.iterdir()} == {"step-000002", "step-000004"}
    assert kept(runs, "stopped") == kept(runs, "dpo")
    for parts in ((), *(("snapshots", f"step-{step:06d}") for step in (2, 4, 6))):
        assert runs.adapter("stopped", *parts).read_bytes() == runs.adapter("dpo", *parts).read_bytes()


def test_a_training_that_goes_on_with_another_interval_has_those_of_its_later_steps(runs: Runs) -> None:
    """It kept none up to step 3, where its checkpoint was; that is no reason to lose the training at its end."""
    assert kept(runs, "changed") == ["course.json", "step-000004", "step-000006"]
    assert runs.adapter("changed").read_bytes() == runs.adapter("dpo").read_bytes()


def test_two_ranks_keep_what_one_keeps(runs: Runs) -> None:
    """Of sft_c: gradients are added up in another order."""
    assert kept(runs, "first, two ranks") == kept(runs, "first") == ["course.json", "step-000002", "step-000004"]
    for parts in ((), ("snapshots", "step-000002"), ("snapshots", "step-000004")):
        found, expected = (load_file(runs.adapter(label, *parts)) for label in ("first, two ranks", "first"))
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=2e-3, rtol=2e-3, msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# What is read


@pytest.mark.parametrize(("label", "steps"), [("read", STEPS), ("first, read", [0, 2, 4, 5])])
def test_every_response_has_a_row_at_the_start_every_so_many_steps_and_the_end(
    runs: Runs, label: str, steps: list[int]
) -> None:
    probes, samples = runs.probes(label), load_probe_set(runs.files("probe_set"))
    assert len(samples) == SET["samples"]
    responses = {(step, one.id, kind) for step in steps for one in samples for kind in one.responses}
    assert set(by_key(probes)["responses"].index) == responses
    lengths = probes.responses[probes.responses.kind == "chosen"].set_index(["step", "id"]).tokens
    tokens = {(*key, place) for key, length in lengths.items() for place in range(length)}
    assert set(by_key(probes)["tokens"].index) == tokens
    assert probes.about["steps"] == steps
    assert (probes.about["stage"], probes.about["total"]) == (runs.nodes[label].spec.stage, steps[-1])


def test_at_the_start_nothing_has_changed_and_then_everything_has(runs: Runs) -> None:
    for label in ("read", "first, read"):
        probes = runs.probes(label)
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
def test_rows_are_what_the_kept_adapters_say_by_themselves(runs: Runs, step: int, adapter: tuple[str, ...]) -> None:
    """By a plain forward pass of the model under PEFT, in float64, of a row for each response."""
    label, *parts = adapter
    reader, start = (
        Reader(runs.micro, runs.micro.model, runs.adapter(name, *rest).parent)
        for name, rest in ((label, parts), ("first", []))
    )
    probes = by_key(runs.probes("read"))
    for sample in load_probe_set(runs.files("probe_set"))[1:3]:
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


@pytest.mark.parametrize(("watched", "read"), [("dpo, watched", "read"), ("sft, watched", "sft, read")])
def test_what_a_training_saw_on_its_way_is_read_of_its_adapters(runs: Runs, watched: str, read: str) -> None:
    """Without the dropout that one of them is trained with."""
    assert_same(runs.probes(watched), runs.probes(read), 2e-5)
    assert [runs.probes(label).about["where"] for label in (watched, read)] == ["run", "snapshots"]


@pytest.mark.parametrize("label", ["shared", "two ranks"])
def test_shares_and_ranks_write_the_same_bytes(runs: Runs, label: str) -> None:
    assert content(runs, label) == content(runs, "read")


@pytest.mark.parametrize(("label", "tolerance"), [("lock-step", 1e-5), ("tensor-parallel", 1e-3)])
def test_a_model_over_several_ranks_has_the_same_rows(runs: Runs, label: str, tolerance: float) -> None:
    """Over a tensor-parallel one whole distributions are kept of the start, in half precision."""
    assert_same(runs.probes(label), runs.probes("read"), tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# Ended in the middle, damaged, refused


@pytest.mark.parametrize("label", list(READINGS))
def test_begun_again_it_writes_the_same_bytes(runs: Runs, label: str) -> None:
    by_key(runs.probes(label))
    assert content(runs, label) == content(runs, "read")


@pytest.mark.parametrize("label", ["killed", "asked"])
def test_what_was_read_is_not_read_again(runs: Runs, label: str) -> None:
    """A restart counts it, so that one that is cut off again and again gets on."""
    assert saved_progress(runs.left(label)) == 8
    read = [row["done"] for attempt in (1, 2) for row in runs.events(label, attempt, "progress")]
    assert sorted({*read, 8}) == list(range(1, len(STEPS) * BLOCKS + 1)), "8 may have been killed before it was told"
    assert runs.events(label, 2, "progress")[0]["done"] == 9
    assert last_progress(runs.entry(label)) == (15, 15)


def test_what_is_damaged_of_the_start_is_read_again(runs: Runs) -> None:
    """Step 0 of two blocks, and what was not read; that the numbers are right is above."""
    assert len(runs.events("damaged", 2, "progress")) == len(DAMAGES) + 7


def test_an_interval_whose_adapters_were_not_kept_is_refused(runs: Runs) -> None:
    why = runs.why("every third")
    assert why.startswith("DataError: ")
    assert "no snapshot of step 3, which probe.every 3 asks for: this training kept one every 2 steps" in why
    assert why.endswith("set probe.every to a multiple of 2")


@pytest.mark.parametrize("label", ["none kept, read", "full, read"])
def test_a_training_that_kept_nothing_is_refused(runs: Runs, label: str) -> None:
    why = runs.why(label)
    assert why.startswith("DataError: ")
    assert "this training has kept no snapshots" in why
    assert "set execution.snapshot_every and remove its folder from the store" in why
