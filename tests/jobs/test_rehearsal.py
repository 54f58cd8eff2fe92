"""A rehearsal: the same stages in small, in a home of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from commands import MICRO, REPO, cwdpo, node_of, plan_of, submit, succeed
from ruamel.yaml import YAML

from cwdpo.base import files
from cwdpo.base.errors import ConfigError
from cwdpo.base.store import Artefact, Store
from cwdpo.experiment import Experiment, Grid, evaluated_unnamed, load_grid
from cwdpo.jobs.events import curve, events
from cwdpo.jobs.plan import make_plan
from cwdpo.jobs.rehearsal import rehearsal, rehearsed
from cwdpo.jobs.scratch import Scratch

SHIPPED = sorted((REPO / "configs" / "grids").glob("*.yaml"))


@pytest.mark.parametrize("path", [*SHIPPED, MICRO], ids=lambda path: path.stem)
def test_every_shipped_grid_in_small(path: Path) -> None:
    grid = load_grid(str(path))
    small = rehearsal(grid)
    assert [cell.name for cell in small.cells] == [cell.name for cell in grid.cells if cell.seed == 0]
    for cell, before in zip(small.cells, [cell for cell in grid.cells if cell.seed == 0], strict=True):
        check_small(cell.experiment, before.experiment)


def check_small(small: Experiment, whole: Experiment) -> None:
    """Only how much is done differs."""
    phase = small.stage2 and small.stage2.sft_phase
    for stage in (stage for stage in (small.stage1, phase, small.stage2) if stage):
        assert stage.optimization.total_steps(1) == stage.optimization.total_steps(1000) == 2
        rates = [stage.optimization.learning_rate_at(step, 2) for step in range(2)]
        assert all(0 < rate <= stage.optimization.learning_rate for rate in rates)
        assert small.data.limit is not None
        assert small.data.limit >= max(8, 2 * stage.optimization.batch_size)
    for benchmark in small.benchmarks:
        assert benchmark.limit == 8
        assert benchmark in evaluated_unnamed(small) or benchmark.data.limit == 8, "else it is what was prepared"
    often = {"checkpoint_every": 1} | ({"snapshot_every": 1} if whole.probe else {})
    assert small.execution == whole.execution.model_copy(update=often)
    assert (small.probe and small.probe.every) == (1 if whole.probe else None)
    assert small.tuning == whole.tuning
    assert small.model.source == "tiny" or small.model == whole.model
    for name in ("stage1", "stage2"):
        one, other = getattr(small, name), getattr(whole, name)
        kept = {key: getattr(one, key) for key in ("optimization", "sft_phase", "rollouts") if hasattr(one, key)}
        assert one == (other and other.model_copy(update=kept))
    if phase:
        assert phase == whole.stage2.sft_phase.model_copy(update={"optimization": phase.optimization})


@pytest.mark.parametrize("name", ["demo", str(MICRO)])
def test_the_stages_are_those_of_one_seed(name: str, tmp_path: Path) -> None:
    whole = make_plan(load_grid(name, {"seeds": [0]}), Store(tmp_path))
    small = make_plan(rehearsal(load_grid(name)), Store(tmp_path))
    assert kinds(small) == kinds(whole)
    assert not {node.id for node in small.nodes if node.stage.ranks} & {node.id for node in whole.nodes}


def kinds(plan: object) -> Counter[tuple[str, tuple[str, ...]]]:
    return Counter(
        (node.stage.name, tuple(sorted(parent.stage.name for parent in node.parents))) for node in plan.nodes
    )


def test_its_grid_file_says_the_same(tmp_path: Path) -> None:
    content = YAML(typ="safe").load(MICRO)
    content["axes"] = {"stage2.optimization.learning_rate": [1e-5, 3e-2]}
    content["seeds"] = [7, 1]
    YAML().dump(content, tmp_path / "axes.yaml")
    small = rehearsal(load_grid(str(tmp_path / "axes.yaml"), {"tuning.rank": 8}))
    again = load_grid(str(Scratch(tmp_path).make(small)))
    assert again.name == small.name == "axes-rehearsal"
    assert [(cell.name, cell.experiment) for cell in again.cells] == [
        (cell.name, cell.experiment) for cell in small.cells
    ]
    assert {cell.seed for cell in again.cells} == {7}


def small_grid() -> Grid:
    return rehearsal(load_grid(str(MICRO)))


def test_each_rehearsal_begins_with_an_empty_home(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.make(small_grid())
    files.write_text(scratch.folder / "store" / "x", "before")
    scratch.make(replace(small_grid(), name="other-rehearsal"))
    assert sorted(path.name for path in scratch.folder.iterdir()) == ["other-rehearsal.yaml", "rehearsal.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["rehearsal"]


def test_what_no_rehearsal_made_is_not_removed(tmp_path: Path) -> None:
    files.write_text(tmp_path / "home" / "rehearsal" / "thesis.tex", "mine")
    with pytest.raises(ConfigError, match="move it away"):
        Scratch(tmp_path / "home").make(small_grid())
    assert (tmp_path / "home" / "rehearsal" / "thesis.tex").read_text() == "mine"
    other = Scratch(tmp_path / "other")
    other.make(small_grid())
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "rehearsal").symlink_to(other.folder)
    with pytest.raises(ConfigError, match="move it away"):
        Scratch(tmp_path / "linked").make(small_grid())
    assert other.removable


def test_a_rehearsal_at_work_is_not_disturbed(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.make(small_grid())
    attempt = Artefact(scratch.store.folder / "stage1-0123", "").claim({})
    done = submit(tmp_path, "--rehearse")
    assert done.returncode == 76
    assert "a rehearsal is at work in" in done.stderr
    assert attempt.folder.exists()


def test_a_grid_without_data_is_refused(tmp_path: Path) -> None:
    done = cwdpo("submit", "-g", "coco", "-s", "data.root=/no/such/folder", "-s", "model=tiny", "--home", tmp_path,
                 "-c", "local", "--rehearse")  # fmt: skip
    assert done.returncode == 2
    assert "data.root: no such folder '/no/such/folder'" in done.stderr


def test_the_whole_chain_on_this_machine(finished: Path, tmp_path: Path) -> None:
    """Of one case; the home it is rehearsed beside is that of a finished grid."""
    content = YAML(typ="safe").load(MICRO)
    content["cases"] = {"cw_dpo": content["cases"]["cw_dpo"]}
    YAML().dump(content, tmp_path / "one.yaml")
    before = snapshot(finished)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("store", "grids"):
        (home / name).symlink_to(finished / name)
    text = succeed(submit(home, "--rehearse", grid=tmp_path / "one.yaml"))
    assert "13 of 13 stages worked" in text
    assert snapshot(finished) == before
    small = Scratch(home)
    plan = plan_of(small.folder, grid=small.folder / "one-rehearsal.yaml")
    assert all(row.done == row.count and row.seconds and row.memory for row in rehearsed(plan))
    for node in plan.nodes:
        if node.stage.name in ("stage1", "stage2"):
            artefact = node.artefact(plan.store)
            assert [point["step"] for point in curve(artefact)] == [1, 2]
            found = [row for row in events(artefact.attempts / "1" / "events.jsonl") if row["event"] == "checkpoint"]
            assert [row["step"] for row in found] == [1]
        if node.stage.name == "score":
            scores = files.read_json(node.artefact(plan.store).files / "scores.json")
            assert (scores["items"], scores["partial"]) == (8, True)
    assert node_of(finished, "stage1", "dpo/0").artefact(Store(finished)).done()


def snapshot(home: Path) -> dict[str, int]:
    """Every file of a home and when it was written."""
    return {str(path.relative_to(home)): path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
