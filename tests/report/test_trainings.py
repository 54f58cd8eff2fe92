"""Columns that are no benchmark's: probes, the cost of a step, steps to a margin, nSFT's gain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import plan_of
from dynamics.synthetic import synthetic
from made_up_grids import entry, made_up, restored, score
from pretend import pretend_done, rescore, rewrite

from cwdpo.jobs.plan import Plan
from cwdpo.jobs.status import alarms
from cwdpo.report.content import Gap, Table
from cwdpo.report.dynamics import diagnosed
from cwdpo.report.table import Wanted, tables

GRID = """
base:
  data: {source: demo_world}
  model: tiny
  stage1: {objective: {name: sft_c}, negatives: &swap {source: perturb}}
  probe: PROBE
  execution: {snapshot_every: 10}
cases:
  sft_c: {}
  dpo: {stage2: {objective: {name: dpo}, negatives: *swap}}
  cw_dpo: {stage2: {objective: {name: cw_dpo}, negatives: *swap}}
seeds: [0, 1]
"""

TABLE = """
title: Trainings
grids: [trainings]
baseline: dpo
columns:
  tv: {probe: tv}
  js: {probe: js}
  ece: {probe: ece}
  top1_prob: {probe: top1_prob}
  steps: {derived: steps_to_margin}
  cost: {derived: step_cost}
rows:
  sft_c: {stands_on: sft_c, cost_of: sft_c}
  dpo: {stands_on: sft_c, cost_of: dpo}
  cw_dpo: {stands_on: sft_c, cost_of: dpo}
"""

STEPS = (0, 10, 20, 30)
SAMPLES = ("a", "b", "c")
FILES = ("responses.parquet", "tokens.parquet", "probe.json")
IN_RUN = "{samples: 4, every: 10, alarms: [squeezing]}"
AFTERWARDS = "{samples: 4, every: 10}"


def made(folder: Path, probe: str, unwatched: Sequence[str] = (), stage2: str = "negatives: *swap") -> Plan:
    """A finished grid whose Stage 2 was probed, but for some cells, while it ran or by the adapters that it kept."""
    grid = folder / "trainings.yaml"
    grid.write_text(GRID.replace("PROBE", probe).replace("negatives: *swap}}", f"{stage2}}}}}"))
    (folder / "table.yaml").write_text(TABLE)
    plan = plan_of(folder / "home", grid=grid)
    pretend_done(plan, plan.nodes)
    for cell, wired in plan.wired.items():
        for one in wired.probed if cell not in unwatched else ():
            where = synthetic(folder / "made" / cell, STEPS, SAMPLES, seed=len(cell) + int(cell[-1]))
            artefact = one.rows.artefact(plan.store)
            place = one.folder(plan.store).relative_to(artefact.files)
            rewrite(artefact, {str(place / name): (where / name).read_bytes() for name in FILES})
    return plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return made(tmp_path_factory.mktemp("grid"), AFTERWARDS)


@pytest.fixture
def plan(whole: Plan) -> Iterator[Plan]:
    with restored(whole):
        yield whole


def table_of(plan: Plan) -> Table:
    (found,) = tables(plan, wanted=Wanted((str(plan.store.home.parent / "table.yaml"),)))
    return found


def folder_of(plan: Plan, cell: str) -> Path:
    (probed,) = [one for one in plan.wired[cell].probed if one.stage == "stage2"]
    return probed.folder(plan.store)


# ---- probes


def last_tokens(plan: Plan, cell: str) -> pd.DataFrame:
    rows = pd.read_parquet(folder_of(plan, cell) / "tokens.parquet")
    return rows[rows.step == STEPS[-1]]


def by_sample(rows: pd.DataFrame, column: str) -> float:
    return float(rows.groupby("id")[column].mean().mean())


def calibration_error(rows: pd.DataFrame) -> float:
    """15 bins of equal width over the probability of the likeliest token."""
    confidence = rows.top_probs.map(lambda found: found[0]).astype(float)
    correct = rows.top_tokens.map(lambda found: found[0]) == rows.token
    bins = pd.cut(confidence, np.linspace(0, 1, 16))
    return sum(
        len(own) / len(rows) * abs(float(correct[own.index].mean()) - float(own.mean()))
        for _, own in confidence.groupby(bins, observed=True)
    )


@pytest.mark.parametrize("case", ["dpo", "cw_dpo"])
@pytest.mark.parametrize("probe", [AFTERWARDS, IN_RUN])
def test_the_last_probe_of_stage_2_is_what_is_shown(case: str, probe: str, whole: Plan, tmp_path: Path) -> None:
    plan = whole if probe == AFTERWARDS else made(tmp_path, probe)
    table = table_of(plan)
    for seed in (0, 1):
        rows = last_tokens(plan, f"{case}/{seed}")
        expected = {
            "tv": by_sample(rows, "tv"),
            "js": by_sample(rows, "js"),
            "top1_prob": by_sample(rows.assign(top1=rows.top_probs.map(lambda one: one[0])), "top1"),
            "ece": calibration_error(rows),
        }
        found = {column: entry(table, case, column).results[seed].value for column in expected}
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_row_without_stage_2_says_so_and_how_far_a_policy_went_ranks_nothing(whole: Plan) -> None:
    table = table_of(whole)
    assert entry(table, "sft_c", "tv").gaps == (Gap("not available", "it has no Stage 2", (0, 1)),)
    ranked = {column.key: column.ranked for column in table.columns}
    assert ranked == {"tv": False, "js": False, "ece": True, "top1_prob": False, "steps": True, "cost": True}
    assert {row.entries["tv"].standing for row in table.rows} == {""}


def test_columns_without_items_say_that_they_are_over_seeds(whole: Plan) -> None:
    (table,) = tables(whole, wanted=Wanted((str(whole.store.home.parent / "table.yaml"),), "seeds+items"))
    (said,) = [line for line in table.caption if "which have no items" in line]
    assert said.startswith("Those of TV, JS, ECE, top-1 probability")
    assert not any("which have no items" in line for line in table_of(whole).caption)


@pytest.mark.parametrize("name", FILES)
def test_rows_that_changed_are_a_damaged_cell(plan: Plan, name: str) -> None:
    before = table_of(plan)
    path = folder_of(plan, "dpo/1") / name
    path.write_bytes(b"#" * path.stat().st_size)
    table = table_of(plan)
    (gap,) = entry(table, "dpo", "tv").gaps
    assert (gap.kind, gap.seeds) == ("damaged", (1,))
    assert f"{name} is missing or changed since it was written" in gap.reason
    assert entry(table, "cw_dpo", "tv").results == entry(before, "cw_dpo", "tv").results


# ---- steps to the baseline's best margin


def margins(plan: Plan, cell: str) -> pd.Series:
    rows = pd.read_parquet(folder_of(plan, cell) / "responses.parquet")
    wide = rows.pivot(index=["step", "id"], columns="kind", values="delta_logp")
    graded = pd.concat([wide.chosen - wide[kind] for kind in ("hard", "medium", "easy")], axis=1)
    return graded.mean(axis=1).groupby("step").mean().drop(index=0)


def test_steps_are_counted_until_the_margin_is_the_best_one_of_the_baseline(plan: Plan, tmp_path: Path) -> None:
    """The other one separates twice as fast in one seed, and half as fast in the other."""
    drift = {"chosen": 1.0, "hard": -1.5, "medium": -2.5, "easy": -4.0}
    for seed, speed in ((0, 2.0), (1, 0.5)):
        own = {kind: speed * nats for kind, nats in drift.items()}
        where = synthetic(tmp_path / str(seed), STEPS, SAMPLES, seed=seed, drift=own, noise=0.0, peaking=0.0)
        (probed,) = [one for one in plan.wired[f"cw_dpo/{seed}"].probed if one.stage == "stage2"]
        artefact = probed.rows.artefact(plan.store)
        rewrite(artefact, {name: (where / name).read_bytes() for name in FILES})
    best = {seed: margins(plan, f"dpo/{seed}") for seed in (0, 1)}
    first = margins(plan, "cw_dpo/0")
    expected = min(step for step, margin in first.items() if margin >= best[0].max())
    assert expected < STEPS[-1], "else this could not fail"
    assert margins(plan, "cw_dpo/1").max() < best[1].max()
    found = entry(table_of(plan), "cw_dpo", "steps")
    assert found.results == (), "a mean over the seeds that got there would favour who fails often"
    late = Gap("not available", "not reached in 30 steps", (1,))
    reached = Gap("not available", f"reached after {expected} steps, but not with every seed", (0,))
    assert found.gaps == (late, reached)
    assert [result.value for result in entry(table_of(plan), "dpo", "steps").results] == [
        float(best[seed].idxmax()) for seed in (0, 1)
    ]


@pytest.mark.parametrize("name", FILES)
def test_damaged_probes_of_the_baseline_are_its_own_damage(plan: Plan, name: str) -> None:
    path = folder_of(plan, "dpo/1") / name
    path.write_bytes(b"#" * path.stat().st_size)
    table = table_of(plan)
    (own,) = entry(table, "dpo", "steps").gaps
    assert own.kind == "damaged"
    assert f"{name} is missing or changed since it was written" in own.reason
    (gap,) = (gap for gap in entry(table, "cw_dpo", "steps").gaps if 1 in gap.seeds)
    assert gap.kind == "not available"
    assert gap.reason == "the probes of the baseline are damaged"


def test_trainings_that_nobody_probed_when_they_ran_are_not_damaged(tmp_path: Path) -> None:
    """A store may have them from a grid without a probe: what only watches is no part of what they are."""
    plan = made(tmp_path, IN_RUN, unwatched=("dpo/1", "cw_dpo/0"))
    said = "stage2 was computed for a grid without a probe, and cannot be probed afterwards"
    table = table_of(plan)
    assert entry(table, "dpo", "tv").gaps == (Gap("not available", said, (1,)),)
    assert entry(table, "cw_dpo", "tv").gaps == (Gap("not available", said, (0,)),)
    assert [result.seeds for result in entry(table, "dpo", "steps").results] == [(0,)]
    assert entry(table, "cw_dpo", "steps").gaps == (
        Gap("not available", said, (0,)),
        Gap("not available", f"of the baseline, {said}", (1,)),
    )
    (found,) = [one for one in diagnosed(plan) if (one.case, one.stage) == ("dpo", "stage2")]
    assert tuple(found.missing) == (said,)
    told = {title for title, _ in alarms(plan, plan.states())}
    assert not {"stage2 dpo/1", "stage2 cw_dpo/0"} & told


@pytest.mark.parametrize("what", ["missing", "stale"])
def test_a_probe_of_an_earlier_round_counts_as_much_as_the_last_one(tmp_path: Path, what: str) -> None:
    plan = made(tmp_path, AFTERWARDS, stage2="refresh: {rounds: 2}, negatives: {source: sample}")
    first, last = (one.rows for one in plan.wired["dpo/1"].probed if one.stage == "stage2")
    path = first.artefact(plan.store).folder / "DONE"
    if what == "missing":
        shutil.rmtree(path.parent)
        (gap,) = entry(table_of(plan), "dpo", "tv").gaps
        assert (gap.kind, gap.reason, gap.seeds) == ("missing", "", (1,))
    else:
        done = json.loads(path.read_text())
        done["provenance"]["sources"][first.stage.module] = "0123456789abcdef"
        path.write_text(json.dumps(done))
        results = entry(table_of(plan), "dpo", "tv").results
        assert [(result.seeds, result.stale) for result in results] == [((0,), False), ((1,), True)]
        assert results[1].origin == last.artefact(plan.store).folder.name


def test_steps_to_a_margin_are_as_old_as_those_of_the_baseline(plan: Plan) -> None:
    make_stale(plan, "dpo/1")
    stale = {row.key: [one.stale for one in row.entries["steps"].results] for row in table_of(plan).rows}
    assert stale["dpo"] == [False, True]
    assert not any(stale["sft_c"])
    for result in entry(table_of(plan), "cw_dpo", "steps").results:
        assert result.stale == (1 in result.seeds)


def make_stale(plan: Plan, cell: str) -> None:
    policy = plan.wired[cell].policy
    assert policy
    path = policy.artefact(plan.store).folder / "DONE"
    done = json.loads(path.read_text())
    done["provenance"]["sources"][policy.stage.module] = "0123456789abcdef"
    path.write_text(json.dumps(done))


# ---- what a step costs


def write_steps(plan: Plan, cell: str, seconds: Sequence[float]) -> None:
    policy = plan.wired[cell].policy
    assert policy
    rows = [
        {"event": "step", "step": step, "total": len(seconds), "seconds": one} for step, one in enumerate(seconds, 1)
    ]
    path = policy.artefact(plan.store).attempts / "1" / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_step_costs_its_median_over_that_of_another_row(plan: Plan) -> None:
    write_steps(plan, "dpo/0", [9.0, 1.0, 1.0])
    write_steps(plan, "dpo/1", [9.0, 3.0, 3.0])
    write_steps(plan, "cw_dpo/0", [70.0, 4.0, 4.0])
    write_steps(plan, "cw_dpo/1", [70.0, 5.0, 5.0])
    for seed in (0, 1):
        write_steps(plan, f"sft_c/{seed}", [0.5, 0.5])
    table = table_of(plan)
    costs = {row.key: [result.value for result in row.entries["cost"].results] for row in table.rows}
    assert costs == {"sft_c": [1.0, 1.0], "dpo": [0.5, 1.5], "cw_dpo": [2.0, 2.5]}
    assert entry(table, "cw_dpo", "cost").difference is None
    assert not any("machines" in note for note in table.notes)


def test_a_cost_is_as_old_and_as_doubtful_as_what_it_is_over(plan: Plan) -> None:
    for cell in ("dpo/0", "dpo/1", "cw_dpo/0", "cw_dpo/1"):
        write_steps(plan, cell, [1.0])
    make_stale(plan, "dpo/1")
    table = table_of(plan)
    for row in ("dpo", "cw_dpo"):
        stale = [result.stale for result in entry(table, row, "cost").results]
        assert stale == [True, True], "both seeds are over the mean of both of dpo"
    assert not entry(table, "cw_dpo", "tv").stale
    policy = plan.wired["dpo/0"].policy
    assert policy
    (pairs,) = [node for node in policy.parents if node.stage.name == "pairs"]
    (pairs.artefact(plan.store).folder / "DONE").unlink()
    for row in ("dpo", "cw_dpo"):
        for result in entry(table_of(plan), row, "cost").results:
            assert "pairs-" in result.doubt


def test_a_training_without_seconds_has_no_cost(plan: Plan) -> None:
    for cell in ("dpo/0", "dpo/1", "cw_dpo/0"):
        write_steps(plan, cell, [1.0])
    policy = plan.wired["cw_dpo/1"].policy
    assert policy
    (policy.artefact(plan.store).attempts / "1" / "events.jsonl").write_text('["no step"]\n{"event": "step"}\n#')
    (gap,) = entry(table_of(plan), "cw_dpo", "cost").gaps
    assert (gap.kind, gap.seeds) == ("damaged", (1,))


def test_steps_of_the_other_row_that_cannot_be_read_are_its_own_damage(plan: Plan) -> None:
    for cell in ("dpo/0", "cw_dpo/0", "cw_dpo/1"):
        write_steps(plan, cell, [1.0])
    policy = plan.wired["dpo/1"].policy
    assert policy
    (policy.artefact(plan.store).attempts / "1" / "events.jsonl").write_text("#")
    table = table_of(plan)
    (gap,) = entry(table, "cw_dpo", "cost").gaps
    assert gap == Gap(
        "not available", "the steps of dpo cannot be read: its events have no steps with their seconds", (0, 1)
    )
    assert ("damaged", (1,)) in [(gap.kind, gap.seeds) for gap in entry(table, "dpo", "cost").gaps]


@pytest.mark.parametrize("about", ["{}", "[]", '{"steps": 3}'])
def test_a_report_of_trainings_whose_files_are_garbage_is_still_one(plan: Plan, about: str) -> None:
    """Also what is said of how they went."""
    policy = plan.wired["dpo/1"].policy
    assert policy
    (policy.artefact(plan.store).attempts / "1" / "events.jsonl").write_text('[]\n{"event": "step", "step": 1}\n')
    (probed,) = [one for one in plan.wired["dpo/1"].probed if one.stage == "stage2"]
    rewrite(probed.rows.artefact(plan.store), {"probe.json": about.encode()})
    (found,) = [one for one in diagnosed(plan) if (one.case, one.stage) == ("dpo", "stage2")]
    assert found.seeds == 1
    (missing,) = found.missing
    assert "rows that cannot be read" in missing
    (gap,) = entry(table_of(plan), "dpo", "tv").gaps
    assert (gap.kind, gap.seeds) == ("damaged", (1,))


def test_steps_that_were_timed_on_unlike_machines_are_said(plan: Plan) -> None:
    policy = plan.wired["dpo/0"].policy
    assert policy
    path = policy.artefact(plan.store).folder / "DONE"
    done = json.loads(path.read_text())
    done["provenance"]["host"] = "elsewhere"
    path.write_text(json.dumps(done))
    (said,) = [note for note in table_of(plan).notes if "machines" in note]
    assert "elsewhere with 1 rank(s)" in said
    assert "nowhere with 1 rank(s)" in said


# ---- nSFT's gain

WORLD = "{source: demo_world, world: {train: 0, val: 0, test: 12, seed: 23}}"
HALLUCINATIONS = f"[{', '.join(f'{{name: {name}, data: {WORLD}}}' for name in ('pope', 'chair', 'mmhal'))}]"
METRICS = {"pope": ("f1", 0.01), "chair": ("chair_s", 0.01), "mmhal": ("score", 1.0)}

PUBLISHED = {"base": (85.9, 32.0, 2.80), "sft": (87.4, 25.4, 3.02), "dpo": (85.9, 30.7, 2.80)}
"""Rows of nSFT on LLaVA-150k under names of the grid: its baseline, its method, and GT-DPO."""


def test_total_hallucination_gain_is_that_of_nsft(tmp_path: Path) -> None:
    """The published rows give its +11.8; GT-DPO's its +1.3."""
    plan = made_up(tmp_path, seeds=2, benchmarks=HALLUCINATIONS)
    for case in ("base", "sft", "dpo", "cw_dpo"):
        for seed in (0, 1):
            for value, (name, (metric, scale)) in zip(PUBLISHED.get(case, (0, 0, 0)), METRICS.items(), strict=True):
                shown = scale * (value + seed) if case == "dpo" and name == "pope" else scale * value
                rescore(plan, score(plan, f"{case}/{seed}", name), metrics={metric: shown})
    missing = {"unavailable": {"score": "not available: no judge configured"}, "metrics": {"score": None}}
    rescore(plan, score(plan, "cw_dpo/0", "mmhal"), **missing)
    *_, table = tables(plan)
    assert [column.key for column in table.columns] == ["pope_f1", "chair_chair_s", "mmhal_score", "hallucination_gain"]

    def gain(row: str) -> Any:
        return entry(table, row, "hallucination_gain")

    assert round(gain("sft").mean, 1) == 11.8
    assert [round(result.value, 1) for result in gain("dpo").results] == [1.3, 2.3]
    assert gain("base").gaps == (Gap("not available", "it is what the others gain over", (0, 1)),)
    assert gain("cw_dpo").gaps == (Gap("not available", "no mmhal", (0,)),)
    read = [(case, name) for case in ("sft/0", "base/0") for name in METRICS]
    folders = [score(plan, case, name).artefact(plan.store).folder.name for case, name in read]
    assert gain("sft").results[0].origin == " + ".join(folders)
    assert not gain("sft").doubtful
    card = score(plan, "base/0", "pope").artefact(plan.store).folder / "stage.json"
    whole = card.read_text()
    card.write_text("{}")
    *_, table = tables(plan)
    assert "stage.json does not spell" in gain("sft").results[0].doubt, "what it is over is in doubt"
    card.write_text(whole)

    card = score(plan, "base/0", "pope")
    rescore(plan, card, partial=True)
    *_, table = tables(plan)
    assert gain("sft").partial, "what it is over is partial"
    rescore(plan, card, partial=False)
    rescore(plan, score(plan, "base/0", "mmhal"), **missing)
    *_, table = tables(plan)
    assert gain("sft").gaps == (Gap("not available", "the baseline has no mmhal with this seed", (0, 1)),)


def test_a_gain_over_a_trained_baseline_is_seed_by_seed(tmp_path: Path) -> None:
    """The spread of the baseline is in it, and a seed that the baseline lacks has none."""
    plan = made_up(tmp_path, seeds=3, benchmarks=HALLUCINATIONS)
    (tmp_path / "gain.yaml").write_text(
        "title: Gain\ngrids: [small]\nbaseline: sft\ncolumns: {gain: {derived: hallucination_gain}}\n"
        "rows: {sft: {stands_on: sft}, base: {stands_on: none}, dpo: {stands_on: sft}}\n"
    )
    for case, values in {"sft": (0.7, 0.8, 0.9), "dpo": (0.85, 0.94, 1.0)}.items():
        for seed, value in enumerate(values):
            for name, metrics in {"pope": {"f1": value}, "chair": {"chair_s": 0.2}, "mmhal": {"score": 3.0}}.items():
                rescore(plan, score(plan, f"{case}/{seed}", name), metrics=metrics)

    def gain(row: str = "dpo") -> Any:
        (table,) = tables(plan, wanted=Wanted((str(tmp_path / "gain.yaml"),)))
        return entry(table, row, "gain")

    for name, metrics in {"pope": {"f1": 0.5}, "chair": {"chair_s": 0.2}, "mmhal": {"score": 3.0}}.items():
        rescore(plan, score(plan, "base/0", name), metrics=metrics)
    untrained = [(result.seeds, round(result.value, 6)) for result in gain("base").results]
    assert untrained == [((0,), -20.0), ((1,), -30.0), ((2,), -40.0)], "one row that all seeds share, over three"
    assert [round(result.value, 6) for result in gain().results] == [15.0, 14.0, 10.0]
    (score(plan, "sft/1", "pope").artefact(plan.store).folder / "DONE").unlink()
    assert [round(result.value, 6) for result in gain().results] == [15.0, 10.0]
    assert gain().gaps == (Gap("not available", "the baseline has no pope with this seed", (1,)),)
