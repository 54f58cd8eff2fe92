"""Trainings that are probed as they run and act on it: killed anywhere or moved, they end as if undisturbed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import MICRO
from runs import PARTED, RULE, Runs
from safetensors.torch import load_file
from trainings import EVERY, Reader, Trainings, assert_same, by_key

from cwdpo.base.files import read_json, read_jsonl
from cwdpo.base.identity import seed_from
from cwdpo.base.store import Store
from cwdpo.data.samples import DataOrder, load_samples
from cwdpo.dynamics.curriculum import Ordered, Sampled
from cwdpo.dynamics.curriculum.pace import Pace
from cwdpo.dynamics.early_stop import Margin
from cwdpo.dynamics.points import points_of
from cwdpo.dynamics.replay import replay
from cwdpo.dynamics.rows import GRADES
from cwdpo.dynamics.samples import load_probe_set
from cwdpo.experiment import Experiment, load_grid
from cwdpo.jobs.events import curve
from cwdpo.jobs.plan import Plan
from cwdpo.model.config import Policy
from cwdpo.model.load import load_policy_processor
from cwdpo.pipeline import Wiring

STEPS = [0, 2, 4, 6, 7]
GONE_BACK_TO = {
    "before a checkpoint": None,
    "after a probe": 3,
    "in a probe": 3,
    "after a checkpoint": 6,
    "asked in a probe": 4,
}


def weights(found: Trainings, label: str) -> bytes:
    name = "model.safetensors" if "full" in label else "adapter_model.safetensors"
    return (found.files(label) / name).read_bytes()


def losses(found: Trainings, *labels: str) -> list[tuple[int, float]]:
    return [(point["step"], point["loss"]) for label in labels for point in curve(found.entry(label))]


# ---------------------------------------------------------------------------------------------------------------------
# Watching


@pytest.mark.parametrize(
    ("watched", "plain"), [("dpo, watched", "dpo"), ("sft, watched", "sft"), ("full", "full, unwatched")]
)
def test_watching_changes_no_bit_of_a_training(runs: Runs, watched: str, plain: str) -> None:
    """Where it trains on one response and where on several: attention may work in another way meanwhile."""
    assert weights(runs, watched) == weights(runs, plain)
    assert losses(runs, watched) == losses(runs, plain)


def test_a_watched_training_has_probes_and_an_unwatched_one_none(runs: Runs) -> None:
    assert not (runs.files("sft") / "probe").exists()
    probes = runs.probes("sft, watched")
    assert probes.about["steps"] == list(range(0, 13, 2))
    assert (probes.about["where"], probes.about["stage"], probes.about["total"]) == ("run", "stage1", 12)
    told = runs.events("sft, watched", 1, "probe")
    assert [row["step"] for row in told] == probes.about["steps"]
    for row, point in zip(told, points_of(probes), strict=True):
        assert {name: row[name] for name in point} == pytest.approx(point, rel=1e-4, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(("label", "attempt"), [("never", 1), ("hit, never", 2)])
def test_alarms_know_the_whole_training_curve(runs: Runs, label: str, attempt: int) -> None:
    """Also what was logged before it was killed, at step 9, and resumed from step 6."""
    (row,) = runs.events(label, attempt, "alarm")
    assert (row["name"], row["step"]) == ("constraint_never_active", 10)
    assert "the penalty was active at none of 10 logged steps, 1 to 10" in row["sentence"]


def test_whether_it_is_watched_is_no_part_of_what_a_training_is(runs: Runs) -> None:
    """Watched from now on, what is finished is neither another training nor one that is out of date."""
    plain, store = runs.nodes["dpo"], Store(runs.home)
    watched = replace(plain, inputs={**plain.inputs, "watched": runs.probe_set})
    assert watched.id == plain.id
    assert Plan(load_grid(str(MICRO)), store, {}).changed(watched) == []
    acted_on = replace(plain, inputs={**plain.inputs, "probe_set": runs.probe_set})
    assert acted_on.id != plain.id


def test_a_grid_that_watches_has_the_trainings_of_one_that_does_not(tmp_path: Path) -> None:
    """Only what acts on probes makes other ones, and what comes after them."""
    content = load_grid(str(MICRO)).cells[-1].experiment.model_dump(mode="json")
    stopped = {**content["stage2"], "early_stop": RULE}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "probed": {"probe": {}},
        "watched": {"probe": {"alarms": ["squeezing"], "every": 3}},
        "acting": {"probe": {}, "stage2": stopped},
    }
    wired = {
        kind: Wiring(tmp_path).wire(Experiment.model_validate({**content, **change})) for kind, change in kinds.items()
    }
    ids = {kind: {node.stage.name: node.id for node in found.nodes()} for kind, found in wired.items()}
    assert ids["plain"].keys() >= {"stage1", "stage2", "score"}
    assert ids["watched"].keys() - ids["plain"].keys() == {"probe_set"}
    assert ids["probed"].keys() - ids["watched"].keys() == {"probe"}
    for kind in ("probed", "watched"):
        assert {name: ids[kind][name] for name in ids["plain"]} == ids["plain"]
    changed = {name for name in ids["plain"] if ids["acting"][name] != ids["plain"][name]}
    assert changed == {"stage2", "generate", "score"}


def test_distances_of_full_tuning_are_those_of_both_models(runs: Runs) -> None:
    """What is kept of the start is in half precision: 11 bits of a log-probability."""
    probes = by_key(runs.probes("full"))["tokens"]
    assert (probes.loc[0][["tv", "js"]] == 0).all(axis=None)
    start, end = Reader(runs.micro, runs.micro.model), Reader(runs.micro, runs.files("full"))
    for sample in load_probe_set(runs.files("probe_set"))[:3]:
        before, now = (reader.logps(sample, sample.responses["chosen"]) for reader in (start, end))
        rows, middle = probes.loc[(5, sample.id)], ((before.exp() + now.exp()) / 2).log()
        tv = (before.exp() - now.exp()).abs().sum(1) / 2
        js = sum((logp.exp() * (logp - middle)).sum(1) for logp in (before, now)) / 2
        assert (tv > 0.02).all()
        assert rows.tv.to_numpy() == pytest.approx(tv.numpy(), abs=1e-3)
        assert rows.js.to_numpy() == pytest.approx(js.numpy(), abs=1e-3)
        assert rows.logp.to_numpy() == pytest.approx(now[range(len(rows)), rows.token.to_list()].numpy(), rel=1e-4)


@pytest.mark.parametrize("label", list(PARTED))
def test_ranks_in_lock_step_see_what_one_alone_sees(runs: Runs, label: str) -> None:
    """Of a model that ZeRO-3 parts."""
    assert_same(runs.parted.probes(f"{label}, ZeRO 3"), runs.parted.probes(label), 2e-3)
    moved = runs.parted.probes(label).responses
    assert moved.delta_logp[moved.step == 3].abs().median() > 0.04


def test_in_lock_step_adapters_are_kept_too(runs: Runs) -> None:
    assert_same(runs.parted.probes("lora, read"), runs.parted.probes("lora, ZeRO 3"), 1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Killed


@pytest.mark.parametrize("label", list(GONE_BACK_TO))
def test_a_resumed_training_has_the_very_rows_of_an_undisturbed_one(runs: Runs, label: str) -> None:
    """Every step, sample and kind once, and no bit of a number different."""
    assert weights(runs, label) == weights(runs, "dpo")
    assert_same(runs.probes(label), runs.probes("dpo, watched"))
    assert runs.probes(label).about["steps"] == STEPS
    assert [row["step"] for row in runs.events(label, 2, "resumed")] == [GONE_BACK_TO[label]] * (
        GONE_BACK_TO[label] is not None
    )


@pytest.mark.parametrize(
    ("label", "first", "second"),
    [
        ("before a checkpoint", [0, 2], [2, 4, 6, 7]),
        ("after a probe", [0, 2, 4], [4, 6, 7]),
        ("in a probe", [0, 2], [4, 6, 7]),
        ("after a checkpoint", [0, 2, 4], [6, 7]),
        ("asked in a probe", [0, 2], [4, 6, 7]),
    ],
)
def test_what_was_probed_before_the_checkpoint_stays_and_what_came_after_is_read_again(
    runs: Runs, label: str, first: list[int], second: list[int]
) -> None:
    """Whether a probe was of the course that a resumed training takes nobody knows."""
    probed = [[row["step"] for row in runs.events(label, attempt, "probe")] for attempt in (1, 2)]
    assert probed == [first, second]


def test_with_other_ranks_it_goes_on_to_the_same_rows_but_for_rounding(runs: Runs) -> None:
    assert_same(runs.probes("to two ranks"), runs.probes("dpo, watched"), 2e-3)
    (row,) = runs.events("to two ranks", 2, "started")
    assert row["ranks"] == 2
    start = runs.probes("to two ranks").responses
    assert (start[start.step == 0].reset_index(drop=True)).equals(
        runs.probes("dpo, watched").responses[start.step == 0].reset_index(drop=True)
    ), "step 0 was not read again"


def test_nobody_begins_to_watch_a_training_in_the_middle(runs: Runs) -> None:
    """There is nothing to compare with; that is no reason to lose the training, nor its checkpoint."""
    assert [row["step"] for row in runs.events("changed", 2, "resumed")] == [3]
    (row,) = runs.events("changed", 2, "not_watched")
    assert "it went on at step 3, and nobody saw its start" in row["why"]
    assert weights(runs, "changed") == weights(runs, "dpo")
    assert not (runs.files("changed") / "probe").exists()


def test_what_acts_on_probes_does_not_go_on_without_the_first_of_them(runs: Runs) -> None:
    why = runs.why("without its start")
    assert why.startswith("StoreError: ")
    assert "the probe of step 0, which this training goes by, is gone; delete" in why


# ---------------------------------------------------------------------------------------------------------------------
# Ended early


def whole_curve(found: Trainings) -> Any:
    return replay(Margin(**RULE), points_of(found.probes("sft, watched")), 12)


@pytest.mark.parametrize("label", ["best", "last", "hit, best", "hit, best, stopped"])
def test_it_ends_where_the_rule_says_so_of_the_whole_curve(runs: Runs, label: str) -> None:
    expected = whole_curve(runs)
    assert expected.stop is not None
    assert 0 < expected.stop.best < expected.stop.step < 12, "else there is little to see here"
    newest = runs.entry(label).newest()
    (row,) = runs.events(label, newest, "stopped_early")
    assert (row["step"], row["best"]) == (expected.stop.step, expected.stop.best)
    assert row["why"] == expected.stop.why
    assert [step for step, _ in losses(runs, label)] == list(range(1, expected.stop.step + 1))
    assert losses(runs, label) == losses(runs, "sft")[: expected.stop.step]
    probes, whole = runs.probes(label), runs.probes("sft, watched")
    assert probes.about["steps"] == list(range(0, expected.stop.step + 1, EVERY))
    assert probes.about["total"] == 12
    for name in ("responses", "tokens"):
        table = getattr(whole, name)
        pd.testing.assert_frame_equal(getattr(probes, name), table[table.step <= expected.stop.step])


def snapshot(found: Trainings, label: str, step: int) -> bytes:
    return found.adapter(label, "snapshots", f"step-{step:06d}").read_bytes()


@pytest.mark.parametrize("label", ["best", "hit, best", "hit, best, stopped"])
def test_the_result_is_the_adapter_of_the_best_probe(runs: Runs, label: str) -> None:
    stop = whole_curve(runs).stop
    assert weights(runs, label) == snapshot(runs, "sft", stop.best)
    assert snapshot(runs, label, stop.step) == snapshot(runs, "sft", stop.step), "the last one is not lost"
    course = read_json(runs.files(label) / "snapshots" / "course.json")
    assert course == {"begin": 0, "end": stop.step, "total": 12, "every": EVERY, "result": stop.best}
    kept = sorted(path.name for path in (runs.files(label) / "snapshots").glob("step-*"))
    assert kept == [f"step-{step:06d}" for step in range(EVERY, stop.step + 1, EVERY)]


def test_or_that_of_the_last_one(runs: Runs) -> None:
    stop = whole_curve(runs).stop
    assert weights(runs, "last") == snapshot(runs, "sft", stop.step) != snapshot(runs, "sft", stop.best)
    course = read_json(runs.files("last") / "snapshots" / "course.json")
    assert course == {"begin": 0, "end": stop.step, "total": 12, "every": EVERY}


# ---------------------------------------------------------------------------------------------------------------------
# In another order


@pytest.mark.parametrize("label", ["sampled", "ordered", "full", "grpo"])
def test_killed_and_resumed_it_takes_the_batches_of_an_undisturbed_one(runs: Runs, label: str) -> None:
    """Losses are those of the same samples under the same policy."""
    assert losses(runs, f"hit, {label}") == losses(runs, label)
    assert weights(runs, f"hit, {label}") == weights(runs, label)
    assert_same(runs.probes(f"hit, {label}"), runs.probes(label))
    assert len(runs.events(f"hit, {label}", 2, "probe")) > 0


def test_a_curriculum_takes_other_batches_than_the_shuffled_order(runs: Runs) -> None:
    first = {label: losses(runs, label) for label in ("dpo", "sampled", "ordered")}
    assert first["sampled"] != first["ordered"]
    for label in ("sampled", "ordered"):
        assert [step for step, _ in first[label]] == [step for step, _ in first["dpo"]]
        assert first[label] != first["dpo"]


@pytest.mark.parametrize("label", ["sampled", "ordered"])
def test_the_first_batch_is_what_the_curriculum_says_of_starting_log_probabilities(runs: Runs, label: str) -> None:
    """Lengths and log-probabilities of the reference file, in the order in which the samples are shuffled."""

    samples = load_samples(runs.micro.pairs, runs.micro.negatives2, "stage2", paired=True)
    tokenizer = load_policy_processor(Policy(dtype="float32"), runs.micro.model).tokenizer
    reference = {row["id"]: row["rejected"] for row in read_jsonl(runs.files("reference") / "reference.jsonl")}
    means = np.array(
        [
            np.mean(
                [
                    logp / (len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1)
                    for logp, text in zip(reference[sample.id], sample.rejected, strict=True)
                ]
            )
            for sample in samples
        ]
    )
    rows = runs.probes(label).responses
    start = rows[(rows.step == 0) & rows.kind.isin(GRADES)]
    probed = (start.logp / start.tokens).to_numpy()
    epoch = np.array(DataOrder(samples, 4, 3, False)._epoch(0))
    pace = Pace(means, probed, probed, -3.0, 1.0)
    rule = Sampled() if label == "sampled" else Ordered()
    batch = rule.batch(epoch, 0, 4, pace, seed_from("curriculum", 3, 0))
    assert curve(runs.entry(label))[0]["mean_logp_rejected"] == pytest.approx(means[batch].mean(), abs=1e-4)
    shuffled = curve(runs.entry("dpo"))[0]["mean_logp_rejected"]
    assert shuffled == pytest.approx(means[epoch[:4]].mean(), abs=1e-4)
    assert means[batch].mean() != pytest.approx(shuffled, abs=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Samples of its own, and rounds


def test_phases_are_not_broken_by_probes(runs: Runs) -> None:
    """Of six steps each; what they learn from was sampled once. It is ended in the middle of the second."""
    assert [row["phase"] for row in runs.events("grpo", 1, "rollouts")] == [0, 1]
    assert [row["step"] for row in runs.events("grpo", 1, "step")] == list(range(1, 9))
    (row,) = runs.events("grpo", 1, "stopped_early")
    assert row["step"] == 8
    moved = runs.probes("grpo").responses
    assert (moved[moved.step > 0].delta_logp.abs() > 1e-6).all()


def test_a_value_head_is_no_part_of_a_kept_adapter(runs: Runs) -> None:
    names = {name for path in runs.files("ppo").rglob("*.safetensors") for name in load_file(path)}
    assert names
    assert all("lora_" in name for name in names)
    probes = runs.probes("ppo, read")
    assert probes.about["steps"] == [0, 2, 4, 6, 8, 10]
    moved = probes.responses
    assert (moved[moved.step > 0].delta_logp.abs() > 1e-6).all()
    reader = Reader(runs.micro, runs.micro.model, runs.adapter("ppo", "snapshots", "step-000004").parent)
    sample = load_probe_set(runs.files("probe_set"))[0]
    rows = by_key(probes)["tokens"].loc[(4, sample.id)]
    logps = reader.logps(sample, sample.responses["chosen"])
    assert rows.logp.to_numpy() == pytest.approx(logps[range(len(rows)), rows.token.to_list()].numpy(), rel=1e-4)


@pytest.mark.parametrize("labels", [("watched 0", "watched 1"), ("read 0", "read 1"), ("watched 0", "hit, round")])
def test_rounds_are_probed_as_one_training(runs: Runs, labels: tuple[str, str]) -> None:
    """Over the same negatives they are one: changes count from the start of the first. No step comes twice."""
    own = [runs.probes(label).about["steps"] for label in labels]
    assert own[0] == [0, 2, 3]
    assert own[1] in ([0, 4, 6, 7], [0, 3, 4, 6, 7])
    both, whole = runs.probes(*labels), runs.probes("dpo, watched")
    assert both.about["steps"] == [0, 2, 3, 4, 6, 7]
    found = by_key(both)["responses"].drop(index=3, level="step")
    pd.testing.assert_frame_equal(found, by_key(whole)["responses"], rtol=2e-5, atol=2e-5)


def test_a_round_hands_over_the_start_and_the_last_one_nothing(runs: Runs) -> None:
    first, last = ({path.name for path in (runs.files(f"watched {number}") / "probe").iterdir()} for number in (0, 1))
    assert first - last == {"start", "step-000000"}
    assert last == {"probe.json", "responses.parquet", "tokens.parquet"}


def test_weights_of_rounds_are_those_of_one_training(runs: Runs) -> None:
    for labels in (("watched 0", "watched 1"), ("kept 0", "kept 1")):
        assert losses(runs, *labels) == losses(runs, "dpo")
        assert weights(runs, labels[1]) == weights(runs, "dpo")
