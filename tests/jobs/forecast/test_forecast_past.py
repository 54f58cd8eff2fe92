"""Forecasts from a store of made-up stages equal what one works out by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forecasts import MICRO, blocks, finish, forecast, local, node_of, planned, slurm, steps

from cwdpo.jobs.plan import Plan

# Of the micro grid: Stage 1 makes 4 steps of 4 samples, Stage 2 makes 3 of 2; a generation asks 8 items, 2 in a block.


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path)


def test_a_training_goes_at_the_pace_of_its_like(plan: Plan) -> None:
    # The first step allocates: 2 seconds is the pace. Three such steps are 6 of the 20 seconds, 14 come on top.
    finish(plan, node_of(plan, "stage2", "dpo/0"), 20.0, steps([9.0, 2.0, 2.0]))
    found = forecast(plan, local()).estimates.of(node_of(plan, "stage2", "dpo/1"))
    assert (found.basis, found.used, found.ranks) == ("measured", 1, 1)
    assert found.seconds.numbers == pytest.approx((20 / 1.25, 20, 20 * 1.25))
    # Two ranks share each step.
    found = forecast(plan, local(ranks=2)).estimates.of(node_of(plan, "stage2", "dpo/1"))
    assert found.seconds.middle == pytest.approx(14 + 6 / 2)


def test_another_method_tells_less(plan: Plan) -> None:
    finish(plan, node_of(plan, "stage2", "dpo/0"), 20.0, steps([9.0, 2.0, 2.0]))
    found = forecast(plan, local()).estimates.of(node_of(plan, "stage2", "cw_dpo/1"))
    assert found.basis == "alike"
    assert found.seconds.numbers == pytest.approx((10, 20, 40))


def test_work_is_scaled(plan: Plan, tmp_path: Path) -> None:
    finish(plan, node_of(plan, "stage1", "sft/0"), 30.0, steps([5.0] * 4))
    longer = planned(tmp_path, MICRO, "stage1.optimization.max_steps=6")
    assert forecast(longer, local()).estimates.of(node_of(longer, "stage1", "sft/0")).seconds.middle == 10 + 6 * 5
    smaller = planned(tmp_path, MICRO, "stage1.optimization.batch_size=2")
    assert forecast(smaller, local()).estimates.of(node_of(smaller, "stage1", "sft/0")).seconds.middle == 10 + 4 * 2.5


def test_more_ranks_than_samples_help_no_more(plan: Plan) -> None:
    """A step of 4 samples took 4 ranks 3 seconds; so does it take 64."""
    finish(plan, node_of(plan, "stage2", "dpo/0"), 20.0, steps([3.0] * 3), ranks=4)
    took = [forecast(plan, local(ranks=ranks)).estimates.of(node_of(plan, "stage2", "dpo/1")) for ranks in (4, 64)]
    assert [one.seconds.middle for one in took] == [20.0, 20.0]


def test_of_several_the_median_and_beyond_the_extremes(tmp_path: Path) -> None:
    plan = planned(tmp_path, MICRO, "seeds=[0,1,2,3]")
    for seed, seconds in enumerate((10.0, 16.0, 12.0)):
        finish(plan, node_of(plan, "stage2", f"dpo/{seed}"), seconds, steps([1.0, 1.0, 1.0]))
    found = forecast(plan, local()).estimates.of(node_of(plan, "stage2", "dpo/3"))
    assert (found.used, found.seconds.numbers) == (3, pytest.approx((10 / 1.25, 12, 16 * 1.25)))


def test_blocks_and_what_comes_on_top(plan: Plan, tmp_path: Path) -> None:
    # 4 blocks of 2 items, 3 seconds each, on two ranks: 3 seconds an item and rank; 8 of 20 seconds come on top.
    finish(plan, node_of(plan, "generate", "base/0"), 20.0, blocks([11.0, 14.0, 17.0, 20.0]), ranks=2)
    found = forecast(plan, local()).estimates.of(node_of(plan, "generate", "sft/0"))
    assert found.seconds.middle == pytest.approx(8 + 8 * 3)
    fewer = planned(tmp_path, MICRO, "limit=4")
    assert forecast(fewer, local()).estimates.of(node_of(fewer, "generate", "sft/0")).seconds.middle == 8 + 4 * 3


def test_scores_of_the_same_items(plan: Plan) -> None:
    finish(plan, node_of(plan, "score", "base/0"), 7.0)
    found = forecast(plan, local()).estimates.of(node_of(plan, "score", "sft/1"))
    assert (found.basis, found.seconds.middle) == ("measured", 7)


def test_what_ran_elsewhere_is_no_measure(plan: Plan) -> None:
    """Steps on this machine's cores say nothing of a cluster's GPUs; its own jobs do."""
    node, other = node_of(plan, "stage2", "dpo/0"), node_of(plan, "stage2", "dpo/1")
    finish(plan, node, 20.0, steps([2.0] * 3), job={"job": "here"}, peak_bytes={"memory": 1})
    assert forecast(plan, slurm()).estimates.of(other).basis == "modelled"
    on_slurm = {"job": {"element": "array/0", "run": 0}, "peak_bytes": {"memory": 1, "gpu_memory": 3 * 10**9}}
    finish(plan, node_of(plan, "stage2", "cw_dpo/0"), 20.0, steps([2.0] * 3), ranks=4, **on_slurm)
    found = forecast(plan, slurm())
    assert found.estimates.of(other).basis == "alike"
    (fit,) = (fit for fit in found.fits if fit.stage == "stage2")
    assert fit.measured == 3 * 10**9


def test_another_model_is_no_measure(plan: Plan, tmp_path: Path) -> None:
    finish(plan, node_of(plan, "stage2", "dpo/0"), 20.0, steps([2.0] * 3))
    other = planned(tmp_path, MICRO, "model.pretraining.steps=21")
    assert forecast(other, local()).estimates.of(node_of(other, "stage2", "dpo/0")).basis == "modelled"


def test_a_damaged_past_is_passed_over(plan: Plan) -> None:
    node = node_of(plan, "stage2", "dpo/0")
    finish(plan, node, 20.0, steps([2.0] * 3))
    for name, text in {"DONE": "{", "stage.json": "[]", "attempts/1/events.jsonl": "no json\n"}.items():
        path = node.artefact(plan.store).folder / name
        whole = path.read_text()
        path.write_text(text)
        assert forecast(plan, local()).estimates.of(node_of(plan, "stage2", "dpo/1")).basis == "modelled", name
        path.write_text(whole)
    assert forecast(plan, local()).estimates.of(node_of(plan, "stage2", "dpo/1")).basis == "measured"


def test_of_many_only_the_newest_are_read(tmp_path: Path) -> None:
    plan = planned(tmp_path, MICRO, f"seeds={list(range(31))}")
    for seed in range(30):
        node = node_of(plan, "stage2", f"dpo/{seed}")
        finish(plan, node, 10.0 if seed < 6 else 20.0, steps([1.0] * 3))
        os.utime(node.artefact(plan.store).folder / "DONE", (seed, seed))
    found = forecast(plan, local()).estimates.of(node_of(plan, "stage2", "dpo/30"))
    assert (found.used, found.seconds.low) == (24, 20 / 1.25)
