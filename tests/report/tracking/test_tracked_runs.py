"""What `cwdpo track` brings into MLflow, read back from its database and compared with the files of the store."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
from pathlib import Path

import pandas as pd
import pytest
from commands import MICRO, copy_home, folder, forget, node_of, plan_of
from dynamics.synthetic import synthetic
from mlflow_rows import change, compute_again, finish, rows, runs, some, state, watch
from typer.testing import CliRunner

from cwdpo.base import files
from cwdpo.base.errors import NotAvailable, StoreError
from cwdpo.base.store import Artefact, Store
from cwdpo.cli.main import app
from cwdpo.jobs.events import curve
from cwdpo.report.tracking import book
from cwdpo.report.tracking.server import Down
from cwdpo.report.tracking.synchronise import follow, track

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of what it calls in SQLAlchemy

CASES = ("base", "sft", "dpo", "cw_dpo")
CELLS = [f"{case}/{seed}" for case in CASES for seed in (0, 1)]


def scores(home: Path, cell: str) -> dict[str, float | None]:
    found: dict[str, float | None] = files.read_json(artefact(home, "score", cell).files / "scores.json")["metrics"]
    return found


def artefact(home: Path, stage: str, cell: str) -> Artefact:
    return node_of(home, stage, cell).artefact(Store(home))


def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Filled with the names of all calls of the client."""
    made: list[str] = []
    watch(monkeypatch, made.append)
    return made


# What is there


def test_a_run_for_each_case_and_below_it_one_for_each_seed(made: Path) -> None:
    found = runs(made / "home" / "mlflow.db")
    assert {name: run.parent for name, run in found.items()} == {
        **dict.fromkeys(CASES, ""),
        **{cell: cell.partition("/")[0] for cell in CELLS},
    }
    assert {run.status for run in found.values()} == {"FINISHED"}
    shown = (made / "shown").read_text()
    assert f"tracking to sqlite:///{made / 'home' / 'mlflow.db'}" in shown
    assert f"8 new: {', '.join(CELLS)}" in shown
    assert list((made / "here").iterdir()) == []
    assert not (made / "home" / "mlflow.writer").exists()
    (experiment,) = rows(made / "home" / "mlflow.db", "SELECT name FROM experiments WHERE name != 'Default'")
    assert experiment == ("micro",)


def test_curves_and_scores_of_every_seed(made: Path) -> None:
    home = made / "home"
    found = runs(home / "mlflow.db")
    for cell in CELLS:
        for name, value in scores(home, cell).items():
            wanted = [] if value is None else [(0, pytest.approx(value))]  # SPICE is None where its jars are not
            assert found[cell].curve(f"captions/{name}") == wanted
    for stage, cell, steps in (("stage1", "sft/1", 4), ("stage2", "cw_dpo/0", 3), ("pretrain", "base/0", 20)):
        points = curve(artefact(home, stage, cell))
        expected = [(point["step"], pytest.approx(point["loss"])) for point in points]
        assert len(expected) == steps
        assert found[cell].curve(f"{stage}/loss") == expected
        assert found[cell].metrics[f"{stage}/loss"][0][2] == int(points[0]["time"] * 1000)


def test_means_of_a_case_are_over_its_distinct_results(made: Path) -> None:
    """Both seeds of the base model have the very same answers: one result."""
    home = made / "home"
    found = runs(home / "mlflow.db")
    for case in CASES:
        values = [scores(home, f"{case}/{seed}")["cider"] for seed in ((0,) if case == "base" else (0, 1))]
        assert found[case].value("captions/cider/n") == len(values)
        assert found[case].value("captions/cider/mean") == pytest.approx(statistics.fmean(values))
        spread = [] if case == "base" else [(0, pytest.approx(statistics.stdev(values)))]
        assert found[case].curve("captions/cider/std") == spread
        assert found[case].tags["cwdpo.seeds"] == "0, 1"


def test_a_case_has_the_settings_that_its_seeds_share(made: Path) -> None:
    found = runs(made / "home" / "mlflow.db")
    assert (found["cw_dpo/0"].params["seed"], found["cw_dpo/1"].params["seed"]) == ("0", "1")
    assert found["cw_dpo"].params["stage2.objective.name"] == "cw_dpo"
    assert found["cw_dpo"].params == {
        key: value for key, value in found["cw_dpo/0"].params.items() if found["cw_dpo/1"].params[key] == value
    }
    assert not [key for key in found["cw_dpo/0"].params if key.startswith("execution")]


def test_tags_lead_back_to_the_files(made: Path) -> None:
    """Of every stage: its id, its folder, and the digest of the `DONE` that has the digests of the files."""
    home = made / "home"
    tags = runs(home / "mlflow.db")["cw_dpo/1"].tags
    nodes = plan_of(home).wired["cw_dpo/1"].nodes()
    told = {name.removeprefix("cwdpo.id."): value for name, value in tags.items() if name.startswith("cwdpo.id.")}
    assert sorted(told.values()) == sorted(node.id for node in nodes)
    for label, identity in told.items():
        about = json.loads(tags[f"cwdpo.ref.{label}"])
        place = Path(tags["cwdpo.store"]) / about["folder"]
        assert place.is_dir()
        assert identity.startswith(place.parents[1].parent.name.rpartition("-")[2])
        done = (place.parents[2] / "DONE").read_bytes()
        assert about["done_sha256"] == hashlib.sha256(done).hexdigest()
        assert about["folder"] in tags["mlflow.note.content"]
    assert (tags["cwdpo.case"], tags["cwdpo.seed"], tags["cwdpo.images"]) == ("cw_dpo", "1", "no image")
    assert len(tags["cwdpo.commits"]) == 40


# What changes nothing


def test_a_second_pass_asks_twice_and_writes_nothing(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(tracked / "mlflow.db")
    made = calls(monkeypatch)
    done = track(plan_of(tracked))
    assert (done.cells, done.cases, done.unfinished) == ([], [], 0)
    assert made == ["get_experiment_by_name", "search_runs"]
    assert state(tracked / "mlflow.db") == before


def test_runs_are_asked_for_page_by_page(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "PAGE", 5)
    made = calls(monkeypatch)
    assert track(plan_of(tracked)).cells == []
    assert made == ["get_experiment_by_name", *["search_runs"] * 3]  # of 12 runs


def test_two_homes_leave_each_other_alone(tracked: Path) -> None:
    """On one server, with a grid of one name: the other home's runs stay."""
    database = tracked / "mlflow.db"
    change(database, "UPDATE tags SET value = 'another' WHERE key = 'cwdpo.home'")
    before = set(rows(database, "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"))
    assert len(track(plan_of(tracked)).cells) == 8
    after = set(rows(database, "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"))
    assert before < after
    assert len(after) == 24


# What changes something


def test_a_seed_more_renews_the_means_and_nothing_else(untracked: Path) -> None:
    plan, database = plan_of(untracked), untracked / "mlflow.db"
    track(some(plan, "sft/0", "dpo/0", "dpo/1"))
    before = runs(database)
    assert before["sft"].curve("captions/cider/std") == []
    done = track(some(plan, "sft/0", "sft/1", "dpo/0", "dpo/1"))
    assert (done.cells, done.cases) == (["sft/1"], ["sft"])
    after = runs(database)
    assert [name for name in after if name not in before or after[name].id != before[name].id] == ["sft", "sft/1"]
    assert after["sft/0"].parent == after["sft/1"].parent == "sft"
    values = [scores(untracked, f"sft/{seed}")["cider"] for seed in (0, 1)]
    assert after["sft"].value("captions/cider/std") == pytest.approx(statistics.stdev(values))


def test_a_cell_computed_again_replaces_its_run(tracked: Path, tmp_path: Path) -> None:
    before = runs(tracked / "mlflow.db")
    compute_again(artefact(tracked, "score", "dpo/1"), tmp_path / "again", partial=True, cider=0.75)
    done = track(plan_of(tracked))
    assert (done.cells, done.cases) == (["dpo/1"], ["dpo"])
    after = runs(tracked / "mlflow.db")
    assert sorted(after) == sorted(before)
    assert {name for name in after if after[name].id != before[name].id} == {"dpo", "dpo/1"}
    assert after["dpo/1"].value("captions/cider") == 0.75
    assert after["dpo"].value("captions/cider/mean") == pytest.approx((scores(tracked, "dpo/0")["cider"] + 0.75) / 2)
    told = json.loads(after["dpo/1"].tags["cwdpo.ref.score captions"])
    assert (told["attempt"], told["attempts"], told["job"]) == (2, 2, "4711_3")
    for name in ("dpo", "dpo/1"):
        assert (after[name].tags["cwdpo.jobs"], after[name].tags["cwdpo.partial"]) == ("4711_3", "captions")
    assert "cwdpo.partial" not in after["dpo/0"].tags
    assert track(plan_of(tracked)).cells == []


def test_other_settings_stand_beside_those_of_before(tracked: Path) -> None:
    """The same case with another rate is another experiment: both are there to be compared."""
    database = tracked / "mlflow.db"
    plan = plan_of(tracked, "tuning.dropout=0.5")
    for node, other in zip(plan.wired["sft/0"].nodes(), plan_of(tracked).wired["sft/0"].nodes(), strict=True):
        done = other.artefact(plan.store).done() or {}
        finish(node.artefact(plan.store), other.artefact(plan.store).files, done["provenance"])
    assert track(some(plan, "sft/0")).cells == ["sft/0"]
    found = rows(database, "SELECT name, run_uuid FROM runs WHERE lifecycle_stage = 'active' AND name LIKE 'sft%'")
    assert sorted(name for name, _ in found) == ["sft", "sft", "sft/0", "sft/0", "sft/1"]
    rates = {value for (value,) in rows(database, "SELECT value FROM params WHERE key = 'tuning.dropout'")}
    assert rates == {"0.0", "0.5"}
    assert track(plan_of(tracked)).cells == track(some(plan, "sft/0")).cells == []


def test_unfinished_cells_wait_and_what_is_there_stays(tracked: Path) -> None:
    database, score = tracked / "mlflow.db", artefact(tracked, "score", "dpo/0").folder
    change(database, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'dpo/0'")
    os.rename(score / "DONE", score / "DONE.aside")
    done = track(plan_of(tracked))
    assert (done.cells, done.cases, done.unfinished) == ([], ["dpo"], 1)
    found = runs(database)
    assert "dpo/0" not in found
    assert (found["dpo"].tags["cwdpo.seeds"], found["dpo"].tags["cwdpo.seeds_missing"]) == ("1", "0")
    os.rename(score / "DONE.aside", score / "DONE")
    assert track(plan_of(tracked)).cells == ["dpo/0"]
    assert runs(database)["dpo"].tags["cwdpo.seeds"] == "0, 1"


def test_an_experiment_deleted_in_mlflow_is_restored(tracked: Path) -> None:
    """MLflow keeps the name of what was deleted, and makes no other of that name."""
    database = tracked / "mlflow.db"
    before = state(database)
    change(database, "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'micro'",
           "UPDATE runs SET lifecycle_stage = 'deleted'")  # fmt: skip
    shown = CliRunner().invoke(app, ["track", "-g", str(MICRO), "--home", str(tracked)])
    assert shown.exit_code == 0, shown.output
    assert "experiment 'micro' had been deleted in MLflow, and was restored with its runs" in shown.output
    assert state(database) == before


def test_a_damaged_score_is_told_and_no_number(untracked: Path) -> None:
    path = artefact(untracked, "score", "dpo/1").files / "scores.json"
    times = path.stat()
    path.write_text(re.sub(r'("cider": \d\.\d*)\d', r"\g<1>x", path.read_text()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # only who reads it can tell
    shown = CliRunner().invoke(app, ["track", "-g", str(MICRO), "--home", str(untracked)])
    assert (shown.exit_code, type(shown.exception).__name__) == (1, "StoreError")
    assert shown.exception is not None
    assert str(shown.exception) == "1 cell(s) could not be tracked; the rest was"
    assert "dpo/1: " in shown.output
    assert "scores.json is missing or changed since it was written" in shown.output
    found = runs(untracked / "mlflow.db")
    assert sorted(found) == sorted({*CASES, *CELLS} - {"dpo/1"})
    assert found["dpo"].value("captions/cider/mean") == pytest.approx(scores(untracked, "dpo/0")["cider"])


def test_a_score_that_is_seen_to_be_damaged_is_told_too(untracked: Path) -> None:
    path = artefact(untracked, "score", "dpo/1").files / "scores.json"
    path.write_text(path.read_text() + " ")
    shown = CliRunner().invoke(app, ["track", "-g", str(MICRO), "--home", str(untracked)])
    assert (shown.exit_code, type(shown.exception).__name__) == (1, "StoreError")
    assert "dpo/1: score captions is damaged; `cwdpo submit` computes it again" in shown.output
    assert sorted(runs(untracked / "mlflow.db")) == sorted({*CASES, *CELLS} - {"dpo/1"})


def test_a_damaged_database_is_told_with_the_remedy(tracked: Path) -> None:
    (tracked / "mlflow.db").write_bytes(b"not a database " * 500)
    with pytest.raises(StoreError) as told:
        track(plan_of(tracked))
    assert f"{tracked}/mlflow.db cannot be used: " in str(told.value)
    assert str(told.value).endswith(
        "; move the file away and run the same command again: all of it is written anew from the store"
    )


# What is measured on the way


def test_probes_are_metrics_by_step(untracked: Path, tmp_path: Path) -> None:
    """Against means that pandas takes over the rows, for a probe stage with made-up rows."""
    plan = plan_of(untracked, 'probe={"every": 100}')
    (probed,) = plan.wired["sft/0"].probed
    made = synthetic(tmp_path / "rows", (0, 2, 4), ("a", "b", "c"), seed=1, total=4)
    provenance = (artefact(untracked, "score", "sft/0").done() or {})["provenance"]
    for node in plan.wired["sft/0"].nodes():
        finish(node.artefact(plan.store), made if node is probed.rows else MICRO.parent, provenance)
    track(some(plan, "sft/0"))
    found = runs(untracked / "mlflow.db")["sft/0"].curve("stage1/probe/mean_logp_chosen")
    table = pd.read_parquet(made / "responses.parquet")
    chosen = table[table.kind == "chosen"]
    means = (chosen.logp / chosen.tokens).groupby(chosen.step).mean()
    assert found == [(step, pytest.approx(value, rel=1e-5)) for step, value in means.items()]
    assert [step for step, _ in found] == [0, 2, 4]


def test_follow_shows_stage_1_of_a_cell_whose_stage_2_has_not_begun(untracked: Path) -> None:
    plan = some(plan_of(untracked), "cw_dpo/1")
    forget(untracked, *[node_of(untracked, stage, "cw_dpo/1") for stage in ("stage2", "generate", "score")])
    first = node_of(untracked, "stage1", "cw_dpo/1")
    forget(untracked, first)
    attempt = first.artefact(plan.store).claim({})
    attempt.event("step", step=1, total=3, loss=0.5)
    track(plan, growing=True)
    assert runs(untracked / "mlflow.db")["cw_dpo/1"].curve("stage1/loss") == [(1, 0.5)]


def test_what_was_followed_and_failed_since_is_told_by_any_pass(untracked: Path) -> None:
    plan, database = some(plan_of(untracked), "cw_dpo/1"), untracked / "mlflow.db"
    nodes = [node_of(untracked, stage, "cw_dpo/1") for stage in ("stage2", "generate", "score")]
    forget(untracked, *nodes)
    attempt = nodes[0].artefact(plan.store).claim({})
    attempt.event("step", step=1, total=3, loss=0.5)
    track(plan)
    assert "cw_dpo/1" not in runs(database), "without --follow nothing grows"
    track(plan, growing=True)
    assert runs(database)["cw_dpo/1"].status == "RUNNING"
    attempt.fail(RuntimeError("out of memory"))
    track(plan)
    assert runs(database)["cw_dpo/1"].status == "FAILED"


def test_a_copy_of_a_home_that_takes_the_runs_of_the_other_says_so(
    untracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have one id, and write into one database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    assert track(some(plan_of(untracked), "cw_dpo/0")).notes == []
    copy = copy_home(untracked, tmp_path / "copy")
    (copy / "mlflow.home").write_bytes((untracked / "mlflow.home").read_bytes())
    plan = some(plan_of(copy), "cw_dpo/0")
    assert track(plan).notes == [], "what is the same stays"
    compute_again(node_of(copy, "score", "cw_dpo/0").artefact(plan.store), tmp_path / "again", cider=0.5)
    (note,) = track(plan).notes
    assert f"runs of {untracked / 'store'} were replaced" in note
    assert "delete mlflow.home in one of them" in note
    assert track(plan).notes == []


def test_a_database_that_has_to_be_upgraded_is_not_waited_for(tracked: Path) -> None:
    change(tracked / "mlflow.db", "UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(NotAvailable, match=r"refuses: .*out-of-date database schema") as told:
        track(plan_of(tracked))
    assert not isinstance(told.value, Down)


def test_follow_shows_what_is_running_and_then_the_whole(untracked: Path, tmp_path: Path) -> None:
    """A training by this very process, step by step, until the finished cell takes the place of the growing run."""
    plan, database = some(plan_of(untracked), "cw_dpo/0", "cw_dpo/1"), untracked / "mlflow.db"
    nodes = [node_of(untracked, stage, "cw_dpo/1") for stage in ("stage2", "generate", "score")]
    whole = [
        (node.artefact(plan.store), shutil.copytree(folder(untracked, node), tmp_path / node.id)) for node in nodes
    ]
    forget(untracked, *nodes)
    attempt = whole[0][0].claim({})
    attempt.event("step", step=1, total=3, loss=0.5)
    passes = follow(plan, 0.0)

    assert next(passes).cells == ["cw_dpo/0"]
    growing = runs(database)["cw_dpo/1"]
    assert (growing.status, growing.parent) == ("RUNNING", "cw_dpo")
    assert (len(growing.curve("stage1/loss")), growing.curve("stage2/loss")) == (4, [(1, 0.5)])
    attempt.event("step", step=2, total=3, loss=0.25)
    assert [next(passes).unfinished, next(passes).unfinished] == [1, 1]
    assert runs(database)["cw_dpo/1"].id == growing.id
    assert runs(database)["cw_dpo/1"].curve("stage2/loss") == [(1, 0.5), (2, 0.25)]
    attempt.fail(RuntimeError("out of memory"))
    next(passes)
    assert runs(database)["cw_dpo/1"].status == "FAILED"

    for artefact, kept in whole:
        finish(artefact, kept / "attempts" / "1" / "out", files.read_json(kept / "DONE")["provenance"])
    assert [one.cells for one in passes] == [["cw_dpo/1"]]
    done = runs(database)
    assert (done["cw_dpo/1"].status, done["cw_dpo/1"].parent) == ("FINISHED", "cw_dpo")
    assert done["cw_dpo"].value("captions/cider/n") == 2
