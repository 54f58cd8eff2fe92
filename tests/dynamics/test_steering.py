"""Trainings that are probed as they run and act on it: killed anywhere or moved, they end as if undisturbed."""

from __future__ import annotations

import signal
from typing import Any

import harness
import mortal_worker
import numpy as np
import pandas as pd
import pytest
from harness import Micro
from safetensors.torch import load_file
from trainings import EVERY, STAGE1, Reader, Trainings, assert_same, by_key

from cwdpo.base.errors import Interrupted
from cwdpo.base.files import read_json, read_jsonl
from cwdpo.data.records import read_records
from cwdpo.dynamics.curriculum import Ordered, Sampled
from cwdpo.dynamics.curriculum.pace import Pace
from cwdpo.dynamics.early_stop import Margin
from cwdpo.dynamics.points import points_of
from cwdpo.dynamics.replay import replay
from cwdpo.dynamics.rows import GRADES
from cwdpo.dynamics.samples import load_probe_set
from cwdpo.jobs.events import curve
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.train.config import Round

SFT = {"objective": {"name": "sft"}, "spec": {"optimization": {**STAGE1, "max_steps": 12}}}
"""Its margin rises, falls and rises again."""
RULE = {"name": "margin", "patience": 2}
GRPO = {"name": "grpo", "samples": 2, "inner_epochs": 3}
PPO = {"name": "ppo", "samples": 2, "inner_epochs": 1}
FULL = {"tuning": {"name": "full"}, "spec": {"optimization": {**STAGE1, "learning_rate": 2e-3}}}
ROUNDS = [Round(number=number, of=2) for number in range(2)]
STEPS = [0, 2, 4, 6, 7]
BIG = {"name": "lora", "rank": 64, "alpha": 64}
SLOW = {**STAGE1, "max_steps": 3, "learning_rate": 1e-3}

ENDS: dict[str, dict[str, Any]] = {
    "before a checkpoint": {"signal": "SIGKILL", "event": {"event": "probe", "step": 2}},
    "after a probe": {"signal": "SIGKILL", "event": {"event": "probe", "step": 4}},
    "in a probe": {"signal": "SIGKILL", "file": "/probe/step-000004/blocks/000001.jsonl"},
    "after a checkpoint": {"signal": "SIGKILL", "event": {"event": "checkpoint", "step": 6}},
    "to two ranks": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "asked in a probe": {"signal": "SIGTERM", "file": "/probe/step-000004/blocks/000001.jsonl"},
}
"""Of a watched training with checkpoints at 3 and 6, where it ends at first."""
GONE_BACK_TO = {
    "before a checkpoint": None,
    "after a probe": 3,
    "in a probe": 3,
    "after a checkpoint": 6,
    "to two ranks": 3,
    "asked in a probe": 4,
}
STEERED: dict[str, dict[str, Any]] = {
    "best": {"signal": "SIGKILL", "event": {"event": "checkpoint", "step": 6}},
    "best, stopped": {"signal": "SIGKILL", "event": {"event": "stopped_early"}},
    "sampled": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "ordered": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "grpo": {"signal": "SIGKILL", "event": {"event": "step", "step": 3}},
    "full": {"signal": "SIGKILL", "event": {"event": "step", "step": 5}},
    "round": {"signal": "SIGKILL", "event": {"event": "probe", "step": 4}},
}
"""What acts on its probes, or is trained in another way, where it ends at first: each is called `hit, ...` then."""


def online(found: Trainings, label: str, objective: Any, **more: Any) -> None:
    """A training that samples its own responses, in phases of six steps (grpo) or two (ppo)."""
    settings = {
        "rollouts": {
            "prompts": 4,
            "reward": {"name": "exact_answer"},
            "decoding": {"strategy": "sample", "max_new_tokens": 6, "block": 2},
        },
        "optimization": {"batch_size": 2, "epochs": 9, "max_steps": 8, "learning_rate": 2e-3},
    }
    found.stage2(label, objective, spec=settings, **more)


def steered(found: Trainings, prefix: str = "") -> None:
    """Trainings that act on their probes."""
    found.stage1(f"{prefix}best", **SFT, steering={"early_stop": RULE})
    found.stage1(f"{prefix}last", **SFT, steering={"early_stop": {**RULE, "keep": "last"}})
    found.stage2(f"{prefix}sampled", steering={"curriculum": {"name": "sampled"}})
    found.stage2(f"{prefix}ordered", steering={"curriculum": {"name": "ordered"}})
    online(found, f"{prefix}grpo", GRPO, steering={"early_stop": RULE})
    found.stage1(f"{prefix}full", **FULL, watched=True)


@pytest.fixture(scope="module")
def calm(begun: Trainings) -> Trainings:
    """Undisturbed, in one job."""
    before = set(begun.nodes)
    steered(begun)
    begun.stage1("sft", **SFT)
    begun.stage1("sft, watched", **SFT, watched=True, alarms=["divergence", "squeezing"])
    begun.stage1("full, unwatched", **FULL)
    online(begun, "ppo", PPO)
    begun.probe("ppo, read", begun.nodes["ppo"])
    for label, watched in (("watched", True), ("kept", False)):
        first = begun.stage2(f"{label} 0", spec={"round": ROUNDS[0]}, watched=watched)
        begun.stage2(f"{label} 1", inputs={"previous": first}, spec={"round": ROUNDS[1]}, watched=watched)
    for number in range(2):
        begun.probe(f"read {number}", begun.nodes[f"kept {number}"])
    begun.compute(*(label for label in begun.nodes if label not in before))
    return begun


@pytest.fixture(scope="module")
def hit(calm: Trainings) -> Trainings:
    """Ended in the middle by a signal, and begun again with one rank, one of them with two."""
    for label in ENDS:
        calm.stage2(label, watched=True, snapshot_every=0)
    steered(calm, "hit, ")
    calm.stage1("hit, best, stopped", **SFT, steering={"early_stop": RULE})
    calm.stage2("hit, round", inputs={"previous": calm.nodes["watched 0"]}, spec={"round": ROUNDS[1]}, watched=True)
    calm.stage2("watched late")
    calm.stage2("without its start", steering={"curriculum": {"name": "ordered"}})
    gone = {"signal": "SIGKILL", "event": {"event": "step", "step": 5}}
    ends = {**ENDS, **{f"hit, {label}": end for label, end in STEERED.items()}, "watched late": gone}
    ends["without its start"] = gone
    nodes = [calm.nodes[label] for label in ends]
    statuses = mortal_worker.run(calm.home, list(zip(nodes, ends.values(), strict=True)))
    asked = {"SIGTERM": Interrupted.exit_code, "SIGKILL": -signal.SIGKILL}
    assert statuses == [asked[end["signal"]] for end in ends.values()], harness.output(calm.home, nodes)
    calm.stage2("watched late", watched=True)
    (calm.entry("without its start").partial / "probe" / "step-000000" / "point.json").unlink()
    again = [calm.nodes[label] for label in ends if label not in ("to two ranks", "without its start")]
    harness.compute(calm.home, again)
    assert harness.finish(harness.start(calm.home, [calm.nodes["without its start"]])) not in (0, None)
    calm.compute("to two ranks", ranks=2)
    return calm


@pytest.fixture(scope="module")
def parted(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """A model large enough for ZeRO-3 to part it, and adapters too, watched on one rank and on two."""
    home = tmp_path_factory.mktemp("parted")
    texts = [record.chosen for record in read_records(micro.pairs / "records.jsonl")]
    build_tiny_qwen(TinyQwen(intermediate_size=1024), texts, home / "model", seed=0)
    found = Trainings(home, Micro(**{**vars(micro), "model": home / "model"}))
    more: dict[str, Any] = {"tuning": BIG, "spec": {"optimization": SLOW}, "watched": True}
    found.stage1("one", **more)
    found.stage1("two, ZeRO 3", **more, zero_stage=3)
    found.probe("two, ZeRO 3, read", found.nodes["two, ZeRO 3"])
    full: dict[str, Any] = {"tuning": {"name": "full"}, "spec": {"optimization": SLOW}}
    found.stage1("full, two, ZeRO 3", **full, watched=True, zero_stage=3)
    found.compute("probe_set", "one")
    found.compute("two, ZeRO 3", "full, two, ZeRO 3", ranks=2)
    found.stage1("full, one", **full, watched=True)
    found.compute("two, ZeRO 3, read", "full, one")
    return found


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
def test_watching_changes_no_bit_of_a_training(calm: Trainings, watched: str, plain: str) -> None:
    """Where it trains on one response and where on several: attention may work in another way meanwhile."""
    assert weights(calm, watched) == weights(calm, plain)
    assert losses(calm, watched) == losses(calm, plain)


def test_a_watched_training_has_probes_and_an_unwatched_one_none(calm: Trainings) -> None:
    assert not (calm.files("sft") / "probe").exists()
    probes = calm.probes("sft, watched")
    assert probes.about["steps"] == list(range(0, 13, 2))
    assert (probes.about["where"], probes.about["stage"], probes.about["total"]) == ("run", "stage1", 12)
    told = calm.events("sft, watched", 1, "probe")
    assert [row["step"] for row in told] == probes.about["steps"]
    for row, point in zip(told, points_of(probes), strict=True):
        assert {name: row[name] for name in point} == pytest.approx(point, rel=1e-4, abs=1e-4, nan_ok=True)


def test_distances_of_full_tuning_are_those_of_both_models(calm: Trainings) -> None:
    """What is kept of the start is in half precision: 11 bits of a log-probability."""
    probes = by_key(calm.probes("full"))["tokens"]
    assert (probes.loc[0][["tv", "js"]] == 0).all(axis=None)
    start, end = Reader(calm.micro, calm.micro.model), Reader(calm.micro, calm.files("full"))
    for sample in load_probe_set(calm.files("probe_set"))[:3]:
        before, now = (reader.logps(sample, sample.responses["chosen"]) for reader in (start, end))
        rows, middle = probes.loc[(5, sample.id)], ((before.exp() + now.exp()) / 2).log()
        tv = (before.exp() - now.exp()).abs().sum(1) / 2
        js = sum((logp.exp() * (logp - middle)).sum(1) for logp in (before, now)) / 2
        assert (tv > 0.02).all()
        assert rows.tv.to_numpy() == pytest.approx(tv.numpy(), abs=1e-3)
        assert rows.js.to_numpy() == pytest.approx(js.numpy(), abs=1e-3)
        assert rows.logp.to_numpy() == pytest.approx(now[range(len(rows)), rows.token.to_list()].numpy(), rel=1e-4)


@pytest.mark.parametrize(("label", "tolerance"), [("two, ZeRO 3", 2e-3), ("full, two, ZeRO 3", 2e-3)])
def test_ranks_in_lock_step_see_what_one_alone_sees(parted: Trainings, label: str, tolerance: float) -> None:
    alone = "full, one" if "full" in label else "one"
    assert_same(parted.probes(label), parted.probes(alone), tolerance)
    moved = parted.probes(alone).responses
    assert moved.delta_logp[moved.step == moved.step.max()].abs().median() > 20 * tolerance


def test_in_lock_step_adapters_are_kept_too(parted: Trainings) -> None:
    assert_same(parted.probes("two, ZeRO 3, read"), parted.probes("two, ZeRO 3"), 1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Killed


@pytest.mark.parametrize("label", [label for label in ENDS if label != "to two ranks"])
def test_a_resumed_training_has_the_very_rows_of_an_undisturbed_one(hit: Trainings, label: str) -> None:
    """Every step, sample and kind once, and no bit of a number different."""
    assert weights(hit, label) == weights(hit, "dpo")
    assert_same(hit.probes(label), hit.probes("dpo, watched"))
    assert hit.probes(label).about["steps"] == STEPS
    assert [row["step"] for row in hit.events(label, 2, "resumed")] == [GONE_BACK_TO[label]] * (
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
    hit: Trainings, label: str, first: list[int], second: list[int]
) -> None:
    """Whether a probe was of the course that a resumed training takes nobody knows."""
    probed = [[row["step"] for row in hit.events(label, attempt, "probe")] for attempt in (1, 2)]
    assert probed == [first, second]


def test_with_other_ranks_it_goes_on_to_the_same_rows_but_for_rounding(hit: Trainings) -> None:
    assert_same(hit.probes("to two ranks"), hit.probes("dpo, watched"), 2e-3)
    (row,) = hit.events("to two ranks", 2, "started")
    assert row["ranks"] == 2
    start = hit.probes("to two ranks").responses
    assert (start[start.step == 0].reset_index(drop=True)).equals(
        hit.probes("dpo, watched").responses[start.step == 0].reset_index(drop=True)
    ), "step 0 was not read again"


def test_nobody_begins_to_watch_a_training_in_the_middle(hit: Trainings) -> None:
    """There is nothing to compare with; that is no reason to lose the training, nor its checkpoint."""
    assert [row["step"] for row in hit.events("watched late", 2, "resumed")] == [3]
    (row,) = hit.events("watched late", 2, "not_watched")
    assert "it went on at step 3, and nobody saw its start" in row["why"]
    assert weights(hit, "watched late") == weights(hit, "dpo")
    assert not (hit.files("watched late") / "probe").exists()


def test_what_acts_on_probes_does_not_go_on_without_the_first_of_them(hit: Trainings) -> None:
    why = hit.why("without its start")
    assert why.startswith("StoreError: ")
    assert "the probe of step 0, which this training goes by, is gone; delete" in why


# ---------------------------------------------------------------------------------------------------------------------
# Ended early


def whole_curve(found: Trainings) -> Any:
    return replay(Margin(**RULE), points_of(found.probes("sft, watched")), 12)


@pytest.mark.parametrize("label", ["best", "last", "hit, best", "hit, best, stopped"])
def test_it_ends_where_the_rule_says_so_of_the_whole_curve(hit: Trainings, label: str) -> None:
    expected = whole_curve(hit)
    assert expected.stop is not None
    assert 0 < expected.stop.best < expected.stop.step < 12, "else there is little to see here"
    newest = hit.entry(label).newest()
    (row,) = hit.events(label, newest, "stopped_early")
    assert (row["step"], row["best"]) == (expected.stop.step, expected.stop.best)
    assert row["why"] == expected.stop.why
    assert [step for step, _ in losses(hit, label)] == list(range(1, expected.stop.step + 1))
    assert losses(hit, label) == losses(hit, "sft")[: expected.stop.step]
    probes, whole = hit.probes(label), hit.probes("sft, watched")
    assert probes.about["steps"] == list(range(0, expected.stop.step + 1, EVERY))
    assert probes.about["total"] == 12
    for name in ("responses", "tokens"):
        table = getattr(whole, name)
        pd.testing.assert_frame_equal(getattr(probes, name), table[table.step <= expected.stop.step])


def snapshot(found: Trainings, label: str, step: int) -> bytes:
    return found.adapter(label, "snapshots", f"step-{step:06d}").read_bytes()


@pytest.mark.parametrize("label", ["best", "hit, best", "hit, best, stopped"])
def test_the_result_is_the_adapter_of_the_best_probe(hit: Trainings, label: str) -> None:
    stop = whole_curve(hit).stop
    assert weights(hit, label) == snapshot(hit, "sft", stop.best)
    assert snapshot(hit, label, stop.step) == snapshot(hit, "sft", stop.step), "the last one is not lost"
    course = read_json(hit.files(label) / "snapshots" / "course.json")
    assert course == {"begin": 0, "end": stop.step, "total": 12, "every": EVERY, "result": stop.best}
    kept = sorted(path.name for path in (hit.files(label) / "snapshots").glob("step-*"))
    assert kept == [f"step-{step:06d}" for step in range(EVERY, stop.step + 1, EVERY)]


def test_or_that_of_the_last_one(hit: Trainings) -> None:
    stop = whole_curve(hit).stop
    assert weights(hit, "last") == snapshot(hit, "sft", stop.step) != snapshot(hit, "sft", stop.best)
    course = read_json(hit.files("last") / "snapshots" / "course.json")
    assert course == {"begin": 0, "end": stop.step, "total": 12, "every": EVERY}


# ---------------------------------------------------------------------------------------------------------------------
# In another order


@pytest.mark.parametrize("label", ["sampled", "ordered", "full", "grpo"])
def test_killed_and_resumed_it_takes_the_batches_of_an_undisturbed_one(hit: Trainings, label: str) -> None:
    """Losses are those of the same samples under the same policy."""
    assert losses(hit, f"hit, {label}") == losses(hit, label)
    assert weights(hit, f"hit, {label}") == weights(hit, label)
    assert_same(hit.probes(f"hit, {label}"), hit.probes(label))
    assert len(hit.events(f"hit, {label}", 2, "probe")) > 0


def test_a_curriculum_takes_other_batches_than_the_shuffled_order(calm: Trainings) -> None:
    first = {label: losses(calm, label) for label in ("dpo", "sampled", "ordered")}
    assert first["sampled"] != first["ordered"]
    for label in ("sampled", "ordered"):
        assert [step for step, _ in first[label]] == [step for step, _ in first["dpo"]]
        assert first[label] != first["dpo"]


@pytest.mark.parametrize("label", ["sampled", "ordered"])
def test_the_first_batch_is_what_the_curriculum_says_of_starting_log_probabilities(calm: Trainings, label: str) -> None:
    """Lengths and log-probabilities of the reference file, in the order in which the samples are shuffled."""
    from cwdpo.base.identity import seed_from
    from cwdpo.data.samples import DataOrder, load_samples
    from cwdpo.model.config import Policy
    from cwdpo.model.load import load_policy_processor

    samples = load_samples(calm.micro.pairs, calm.micro.negatives2, "stage2", paired=True)
    tokenizer = load_policy_processor(Policy(dtype="float32"), calm.micro.model).tokenizer
    reference = {row["id"]: row["rejected"] for row in read_jsonl(calm.files("reference") / "reference.jsonl")}
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
    rows = calm.probes(label).responses
    start = rows[(rows.step == 0) & rows.kind.isin(GRADES)]
    probed = (start.logp / start.tokens).to_numpy()
    epoch = np.array(DataOrder(samples, 4, 3, False)._epoch(0))
    pace = Pace(means, probed, probed, -3.0, 1.0)
    rule = Sampled() if label == "sampled" else Ordered()
    batch = rule.batch(epoch, 0, 4, pace, seed_from("curriculum", 3, 0))
    assert curve(calm.entry(label))[0]["mean_logp_rejected"] == pytest.approx(means[batch].mean(), abs=1e-4)
    shuffled = curve(calm.entry("dpo"))[0]["mean_logp_rejected"]
    assert shuffled == pytest.approx(means[epoch[:4]].mean(), abs=1e-4)
    assert means[batch].mean() != pytest.approx(shuffled, abs=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Samples of its own, and rounds


def test_phases_are_not_broken_by_probes(calm: Trainings) -> None:
    """Of six steps each; what they learn from was sampled once."""
    phases = [row["phase"] for row in calm.events("grpo", 1, "rollouts")]
    steps = [row["step"] for row in calm.events("grpo", 1, "step")]
    assert phases == sorted(set(phases)) == list(range(-(-len(steps) // 6)))
    probes = calm.probes("grpo")
    expected = replay(Margin(**RULE), points_of(probes), 8)
    assert len(steps) == (expected.stop.step if expected.stop else 8)
    assert expected.kept.step == read_json(calm.files("grpo") / "snapshots" / "course.json")["result"]


def test_a_value_head_is_no_part_of_a_kept_adapter(calm: Trainings) -> None:
    names = {name for path in calm.files("ppo").rglob("*.safetensors") for name in load_file(path)}
    assert names
    assert all("lora_" in name for name in names)
    probes = calm.probes("ppo, read")
    assert probes.about["steps"] == [0, 2, 4, 6, 8]
    moved = probes.responses
    assert (moved[moved.step > 0].delta_logp.abs() > 1e-6).all()
    reader = Reader(calm.micro, calm.micro.model, calm.adapter("ppo", "snapshots", "step-000004").parent)
    sample = load_probe_set(calm.files("probe_set"))[0]
    rows = by_key(probes)["tokens"].loc[(4, sample.id)]
    logps = reader.logps(sample, sample.responses["chosen"])
    assert rows.logp.to_numpy() == pytest.approx(logps[range(len(rows)), rows.token.to_list()].numpy(), rel=1e-4)


@pytest.mark.parametrize("labels", [("watched 0", "watched 1"), ("read 0", "read 1"), ("watched 0", "hit, round")])
def test_rounds_are_probed_as_one_training(hit: Trainings, labels: tuple[str, str]) -> None:
    """Over the same negatives they are one: changes count from the start of the first. No step comes twice."""
    own = [hit.probes(label).about["steps"] for label in labels]
    assert own[0] == [0, 2, 3]
    assert own[1] in ([0, 4, 6, 7], [0, 3, 4, 6, 7])
    both, whole = hit.probes(*labels), hit.probes("dpo, watched")
    assert both.about["steps"] == [0, 2, 3, 4, 6, 7]
    found = by_key(both)["responses"].drop(index=3, level="step")
    pd.testing.assert_frame_equal(found, by_key(whole)["responses"], rtol=2e-5, atol=2e-5)


def test_a_round_hands_over_the_start_and_the_last_one_nothing(calm: Trainings) -> None:
    first, last = ({path.name for path in (calm.files(f"watched {number}") / "probe").iterdir()} for number in (0, 1))
    assert first - last == {"start", "step-000000"}
    assert last == {"probe.json", "responses.parquet", "tokens.parquet"}


def test_weights_of_rounds_are_those_of_one_training(calm: Trainings) -> None:
    for labels in (("watched 0", "watched 1"), ("kept 0", "kept 1")):
        assert losses(calm, *labels) == losses(calm, "dpo")
        assert weights(calm, labels[1]) == weights(calm, "dpo")
