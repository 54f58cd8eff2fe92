"""A whole forecast: counts, hours, makespan, budget, storage, and what of it was taken for granted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forecasts import MICRO, ROUNDS, finish, forecast, local, node_of, planned, slurm, steps

from cwdpo.cli.forecast import _storage
from cwdpo.jobs.forecast.budget import used_up
from cwdpo.jobs.forecast.counts import Sizes
from cwdpo.jobs.forecast.estimates import Estimate
from cwdpo.jobs.forecast.forecast import Forecast
from cwdpo.jobs.forecast.ranges import Range, exactly
from cwdpo.jobs.forecast.storage import files_of
from cwdpo.jobs.forecast.tasks import Training
from cwdpo.jobs.plan import Plan

KARPATHY = """
base:
  data: {{source: karpathy, root: {root}, captions_per_image: {captions}{more}}}
  model: qwen2.5-vl-7b
  benchmarks: [{{name: coco}}, {{name: pope, limit: 90}}, {{name: nocaps}}]
cases:
  sft: {{stage1: {{}}}}
  dpo: {{stage1: {{}}, stage2: {{objective: {{name: dpo}}, negatives: {{source: perturb, count: 2}}}}}}
seeds: [0, 1]
"""


def karpathy(folder: Path, captions: str = "draw", more: str = "") -> Plan:
    """COCO and a 7B model, neither of which is here."""
    path = folder / "coco.yaml"
    path.write_text(KARPATHY.format(root=folder / "coco", captions=captions, more=more))
    return planned(folder / "home", path)


def priced(found: Forecast, **seconds: float) -> Forecast:
    """The same where every stage takes as long as is said here, others no time."""
    found.estimates.of_task = lambda task: Estimate(  # type: ignore[method-assign]
        exactly(seconds.get(task.stage, 0.0)),
        found.estimates.ranks(task.stage),
        found.estimates.gpus(task.stage),
        "modelled",
    )
    return found


def test_distinct_against_naive(tmp_path: Path) -> None:
    """Of the micro grid: 8 cells, of which 6 have a Stage 1 and 4 a Stage 2; dpo stands on the Stage 1 of sft."""
    found = {one.stage: (one.distinct, one.naive, one.missing) for one in forecast(planned(tmp_path), local()).stages}
    assert found["stage1"] == (4, 6, 4)
    assert found["stage2"] == (4, 4, 4)
    assert found["pretrain"] == (1, 8, 1)
    assert found["generate"] == (7, 8, 7)
    assert forecast(planned(tmp_path), local()).as_json()["trainings"] == {"distinct": 9, "naive": 18}


def test_what_is_done_costs_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    finish(plan, node_of(plan, "stage2", "dpo/0"), 20.0, steps([2.0] * 3))
    states = {**plan.states(), **{node_of(plan, "stage2", f"dpo/{seed}").id: "done" for seed in (0, 1)}}
    found = {one.stage: one for one in Forecast(plan, states, local()).stages}["stage2"]
    assert (found.distinct, found.missing, dict(found.bases)) == (4, 2, {"alike": 2})
    assert found.hours.middle == pytest.approx(2 * 20 / 3600)
    everything = Forecast(plan, dict.fromkeys(states, "done"), local()).as_json()
    assert (everything["hours"]["high"], everything["makespan"]["jobs"]) == (0, 0)


def test_gpu_hours_are_those_of_all_gpus_of_the_nodes(tmp_path: Path) -> None:
    cluster = slurm(train={"nodes": 2}, generate={"nodes": 1})
    found = priced(forecast(planned(tmp_path), cluster), stage2=1800.0, generate=3600.0, score=3600.0)
    hours = {one.stage: one.hours.middle for one in found.stages}
    # 4 trainings of half an hour on 8 GPUs, 7 generations of an hour on 4; scores use none.
    assert (hours["stage2"], hours["generate"], hours["score"]) == (16, 28, 0)
    assert found.hours.middle == 44


def test_makespan_and_what_a_job_limit_does_to_it(tmp_path: Path) -> None:
    """stage1 and stage2 take an hour each, all else nothing: two hours, or as many as there are one after the other."""
    took = {"stage1": 3600.0, "stage2": 3600.0}
    plan = planned(tmp_path)
    assert priced(forecast(plan, slurm()), **took).makespan == exactly(2 * 3600)
    assert priced(forecast(plan, slurm(max_submit=1)), **took).makespan == exactly(8 * 3600)
    limited = priced(forecast(plan, slurm(max_submit=2)), **took)
    assert limited.makespan == exactly(4 * 3600)
    assert limited.unlimited == exactly(2 * 3600)
    assert limited.as_json()["makespan"]["limits"] == {"queue": 2, "nodes": None, "parallel": None}
    # The command line asks for another one; nodes of which a training takes two.
    assert priced(forecast(plan, slurm(max_submit=2), queue=1), **took).makespan == exactly(8 * 3600)
    assert priced(forecast(plan, slurm(train={"nodes": 2}), nodes=4), **took).makespan == exactly(4 * 3600)
    # On this machine so many jobs run at a time.
    assert priced(forecast(plan, local(jobs=2)), **took).makespan == exactly(4 * 3600)


def test_a_time_limit_that_is_passed_is_said(tmp_path: Path) -> None:
    found = priced(forecast(planned(tmp_path), slurm(train={"time": "00:30:00"})), stage2=3600.0)
    assert found.limits_passed() == ["train: the longest job takes 2.0 times its time limit, and goes on after each"]


def test_budget(tmp_path: Path) -> None:
    """One training after the other, each an hour on four GPUs: four of Stage 1, then four of Stage 2."""
    found = priced(forecast(planned(tmp_path), slurm(), nodes=1), stage1=3600.0, stage2=3600.0)
    enough = found.budget(32)
    assert (enough.enough, enough.surely, len(enough.first), enough.seeds) == (True, True, 8, (0, 1))
    half = found.budget(16)
    # Stage 1 is paid for, and base and sft need nothing else; or all of one seed.
    assert (half.enough, half.first, half.seeds) == (False, ("base/0", "base/1", "sft/0", "sft/1"), (0,))
    assert found.budget(1).first == ("base/0", "base/1")


def test_when_hours_are_used_up() -> None:
    # Two GPUs from 0 to 1 h, then one of them until 3 h: 2 GPU-hours at the end of the first hour, 4 at the end.
    ends, seconds = [3600.0, 3 * 3600.0], [3600.0, 3 * 3600.0]
    assert used_up(1, ends, seconds, [1, 1]) == 1800
    assert used_up(3, ends, seconds, [1, 1]) == 2 * 3600
    assert used_up(4, ends, seconds, [1, 1]) == float("inf")


# What is not here


def test_sizes_are_as_published(tmp_path: Path) -> None:
    plan = karpathy(tmp_path)
    sizes = Sizes(plan.store)
    (train,) = [node for node in plan.nodes if _trains(node)]
    counts = sizes.of_pairs(train)
    # A quarter of 113,287 images is for Stage 2; with five captions each, of which an epoch draws one.
    assert counts.samples("stage1", one_per_image=True) == round(113_287 * 0.75)
    assert counts.samples("stage2", one_per_image=False) == 5 * round(113_287 * 0.25)
    asked = {node.spec.benchmark.name: sizes.items(node) for node in plan.nodes if node.stage.name == "generate"}
    assert asked == {"coco": 5000, "pope": 90, "nocaps": 4500}
    assert any(text.startswith("dataset_coco.json: 113,287 images") for text in sizes.assumed)
    assert "pope: 9,000 questions, as published" in sizes.assumed
    (few,) = [node for node in karpathy(tmp_path, "first", ", limit: 100").nodes if _trains(node)]
    assert Sizes(plan.store).of_pairs(few).records == {"stage1": 100, "stage2": 100, "val": 100, "test": 100}


def _trains(node: object) -> bool:
    return getattr(getattr(node, "spec", None), "purpose", "") == "train"


def test_small_files_are_counted(tmp_path: Path) -> None:
    images = [
        {"filename": f"{number}.jpg", "split": split, "imgid": number, "sentences": [{"raw": "a"}, {"raw": "b"}]}
        for number, split in enumerate(["train"] * 40 + ["val"] * 3 + ["test"] * 5)
    ]
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "dataset_coco.json").write_text(json.dumps({"images": images}))
    plan = karpathy(tmp_path)
    assert "image" in next(one.why for one in plan.absent if one.kind == "data"), "the images are not there"
    (train,) = [node for node in plan.nodes if _trains(node)]
    counts = Sizes(plan.store).of_pairs(train)
    assert counts.images["stage1"] + counts.images["stage2"] == 40
    assert counts.records["stage1"] == 2 * counts.images["stage1"]
    assert (counts.images["val"], counts.images["test"], counts.assumed) == (3, 5, "")


def test_a_finished_stage_has_counted_itself(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    node = next(node for node in plan.nodes if _trains(node))
    finish(plan, node, 1.0)
    summary = {"splits": {"train": 30, "val": 2, "test": 8}, "portions": {"stage1": 20, "stage2": 10}, "images": 25}
    (node.artefact(plan.store).files / "summary.json").write_text(json.dumps(summary))
    counts = Sizes(plan.store).of_pairs(node)
    # 15 images have 30 training records; those held out have one each.
    assert counts.samples("stage1", one_per_image=False) == 20
    assert counts.samples("stage1", one_per_image=True) == 10
    assert counts.images["test"] == 8


def test_steps_follow_from_the_published_size(tmp_path: Path) -> None:
    plan = karpathy(tmp_path)
    found = forecast(plan, slurm())
    task = found.estimates.tasks.of(node_of(plan, "stage2", "dpo/0"))
    # 28,322 images, one caption of each, in batches of 128.
    assert (task.items, task.steps) == (28_322, 222)  # type: ignore[attr-defined]
    assert [row.responses for row in task.rows] == [3], "one chosen, two rejected"  # type: ignore[attr-defined]
    reference = found.estimates.tasks.of(node_of(plan, "reference", "dpo/0"))
    assert reference.items == 5 * 28_322, "every caption is scored once"


def test_memory_of_a_model_that_is_not_here(tmp_path: Path) -> None:
    fits = {fit.stage: fit.as_json() for fit in forecast(karpathy(tmp_path), slurm()).fits}
    assert fits.keys() == {"stage1", "stage2", "generate"}
    assert fits["stage2"]["model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert fits["stage2"]["sizes_from"] == "the table models.yaml"
    assert fits["stage2"]["fits"] is True
    assert fits["stage2"]["memory"] == 80 * 10**9
    assert fits["generate"]["bytes"]["weights"] == pytest.approx(2 * 8.45e9, rel=0.01)
    unsaid = slurm(node={"gpus": 4, "cpus": 64})
    assert {fit.fits for fit in forecast(karpathy(tmp_path), unsaid).fits} == {None}
    assert "node.gpu_type is not set: an A100 is assumed" in forecast(karpathy(tmp_path), unsaid).as_json()["assumed"]


def test_a_model_of_unknown_sizes_is_counted_but_not_priced(tmp_path: Path) -> None:
    path = tmp_path / "unheard-of.yaml"
    path.write_text(
        "base: {data: {source: demo_world}, model: {source: checkpoint, path: org/unheard-of}, stage1: {}}\n"
    )
    found = forecast(planned(tmp_path / "home", path), slurm())
    stages = {one.stage: one for one in found.stages}
    assert (stages["stage1"].missing, stages["stage1"].hours) == (1, Range())
    assert "1 stages are not counted: neither their model nor a table tells its sizes" in found.assumptions()
    budget = found.budget(1e6)
    assert (budget.enough, budget.surely, budget.as_json()["stages_not_counted"]) == (False, False, 1)


def test_adapters_snapshots_and_checkpoints(tmp_path: Path) -> None:
    plan = karpathy(tmp_path)
    storage = forecast(plan, slurm()).as_storage()
    adapter = 2 * 161_480_704  # rank 64 on every matrix of 7B, in two bytes
    # 2 trainings of 664 steps and 2 of 222 keep an adapter every 100.
    assert storage["by"]["adapters"] == 4 * adapter
    assert storage["by"]["snapshots"] == 2 * (6 + 2) * adapter
    assert storage["checkpoints_of_a_training"] == 3 * 12 * 161_480_704
    assert storage["free"] > 0


def test_a_round_keeps_its_optimizer_for_the_next(tmp_path: Path) -> None:
    plan = planned(tmp_path, ROUNDS)
    tasks = [forecast(plan, slurm()).estimates.tasks.of(node) for node in plan.nodes if node.stage.name == "stage2"]
    rounds = [(one.hands_over, files_of(one).kept) for one in tasks if isinstance(one, Training)]
    last, first = min(rounds), max(rounds)
    assert (last[0], first[0]) == (False, True)
    assert first[1] == pytest.approx(4 * last[1])  # 12 bytes a parameter beside the 4 of the result


def test_checkpoints_count_where_room_is_scarce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = forecast(karpathy(tmp_path), slurm())
    storage = found.as_storage()
    room = storage["kept"] + storage["checkpoints_of_a_training"] - 1
    monkeypatch.setattr("cwdpo.jobs.forecast.forecast.free_bytes", lambda home: room)
    assert "which is NOT ENOUGH" in _storage(found)
    monkeypatch.setattr("cwdpo.jobs.forecast.forecast.free_bytes", lambda home: room + 1)
    assert "which is NOT ENOUGH" not in _storage(found)


def test_a_model_is_loaded_once_a_job(tmp_path: Path) -> None:
    """The benchmarks of a policy are one job: hours are what its jobs hold, not what their stages would hold alone."""
    found = forecast(karpathy(tmp_path), slurm())
    generations = [own for own in found.schedule.members if own[0].stage.name == "generate"]
    assert {len(own) for own in generations} == {3}
    held = sum(seconds.middle * gpus for seconds, gpus in zip(found.schedule.seconds, found.schedule.gpus, strict=True))
    assert found.hours.middle == pytest.approx(held / 3600)
    alone = sum(found.hours_of(found.estimates.of(node)).middle for own in generations for node in own)
    (cost,) = (one.hours for one in found.stages if one.stage == "generate")
    loading = found.estimates.of(generations[0][0]).ready.middle * 4 / 3600
    assert alone - cost.middle == pytest.approx(2 * len(generations) * loading)
    assert 0 < cost.low <= cost.middle <= cost.high


def test_what_a_training_samples_does_not_go_by_how_stages_generate(tmp_path: Path) -> None:
    settings = ("stage2.objective.samples=4", "execution.zero_stage=3", "execution.replica_size=4")
    path = tmp_path / "grpo.yaml"
    path.write_text(KARPATHY.format(root=tmp_path / "coco", captions="draw", more="").replace("dpo}", "grpo}"))
    path.write_text(path.read_text().replace(", negatives: {source: perturb, count: 2}", ""))
    found = [
        forecast(planned(tmp_path / "home", path, *settings, f"execution.inference={mode}"), slurm())
        for mode in ("tensor_parallel", "zero3", "replicate")
    ]
    hours = {one.hours.numbers for each in found for one in each.stages if one.stage == "stage2"}
    memory = {fit.parts.total for each in found for fit in each.fits if fit.stage == "stage2"}
    assert (len(hours), len(memory)) == (1, 1)


def test_single_precision_is_slower(tmp_path: Path) -> None:
    plans = [karpathy(tmp_path), planned(tmp_path / "home", tmp_path / "coco.yaml", "model.dtype=float32")]
    half, single = ({one.stage: one.hours for one in forecast(plan, slurm()).stages} for plan in plans)
    assert single["stage2"].middle > 5 * half["stage2"].middle


def test_more_jobs_at_a_time_do_not_lift_the_limit_of_an_array(tmp_path: Path) -> None:
    found = priced(forecast(planned(tmp_path), slurm(parallel=1)), stage1=3600.0, stage2=3600.0)
    assert all(seconds >= found.makespan.middle for _, seconds in found.what_if())


def test_json_has_the_same_keys_whatever_is_known(tmp_path: Path) -> None:
    first, second = forecast(planned(tmp_path, MICRO), local()), forecast(karpathy(tmp_path), slurm())
    assert first.as_json().keys() == second.as_json(second.budget(1)).keys()
    assert json.loads(json.dumps(second.as_json())) == second.as_json()
