"""How a grid stands: every state there is, read once, and shown on 80 columns however big the grid is."""

from __future__ import annotations

import json
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from commands import MICRO, cwdpo, succeed
from pretend import pretend_done, pretend_ended, write_grid

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, Shown, make_plan
from cwdpo.jobs.status import COLUMNS, grid_status


def small(folder: Path, **sizes: int) -> Plan:
    """8 cells of two cases, without a store, unless `sizes` say otherwise."""
    path = write_grid(folder / "grid.yaml", **{"first": 1, "second": 2, "seeds": 2, **sizes})
    return make_plan(load_grid(str(path)), Store(folder / "home"))


def of(plan: Plan, cell: int, stage: str) -> Node:
    """The node of a stage that only this cell has."""
    name = plan.grid.cells[cell].name
    return next(node for node in plan.wired[name].nodes() if node.stage.name == stage)


def edit_done(plan: Plan, node: Node, **changes: object) -> None:
    """Change what an artefact says it was made by."""
    path = node.artefact(plan.store).folder / "DONE"
    done = json.loads(path.read_text())
    done["provenance"] |= changes
    path.write_text(json.dumps(done))


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Plan, dict[str, str]]:
    """A store with every state, and node id -> the state it must have."""
    plan = small(tmp_path)
    stages2 = [of(plan, cell, "stage2") for cell in range(8)]
    ends = [of(plan, cell, stage) for cell in range(8) for stage in ("generate", "score")]
    unfinished = {*(node.id for node in stages2[:4]), *(node.id for node in ends)}
    pretend_done(plan, [node for node in plan.nodes if node.id not in unfinished])
    expected = {node.id: "done" for node in plan.nodes} | dict.fromkeys(unfinished, "missing")

    pretend_ended(plan.store, stages2[0], failed=True)
    pretend_ended(plan.store, stages2[1], failed=False)
    stages2[2].artefact(plan.store).claim({})  # by this process, which lives
    expected |= {stages2[0].id: "failed", stages2[1].id: "interrupted", stages2[2].id: "running"}
    expected |= {of(plan, 0, "generate").id: "blocked", of(plan, 0, "score").id: "blocked"}

    lost = stages2[4].artefact(plan.store)
    (lost.files / "adapter_model.safetensors").unlink()
    (stages2[5].artefact(plan.store).folder / "DONE").write_text("{")
    edit_done(plan, stages2[6], sources={"cwdpo.train.stage2": "0" * 16})
    edit_done(plan, stages2[7], sources={"cwdpo.train.stage2": "0" * 16})
    accepted = stages2[7].artefact(plan.store)
    now = files.read_json(of(plan, 3, "stage1").artefact(plan.store).folder / "DONE")["provenance"]
    assert now["lineage"]
    expected |= {stages2[4].id: "damaged", stages2[5].id: "damaged", stages2[6].id: "stale"}
    sources = dict(plan_sources(stages2[7]))
    files.write_json(accepted.folder / "accepted.json", {"sources": sources, "parents": plan.lineages(stages2[7])})
    return plan, expected


def plan_sources(node: Node) -> dict[str, str]:
    from cwdpo.base.sources import source_digests

    return source_digests(node.stage.module, node.spec)


def test_every_state_is_told_as_the_artefact_alone_would_tell_it(broken: tuple[Plan, dict[str, str]]) -> None:
    plan, expected = broken
    states = plan.states()
    assert states == expected
    assert set(states.values()) == set(get_args(Shown)) - {"starting", "queued", "cancelled"}, "those are Slurm's"
    alone = {node.id: node.artefact(plan.store).state() for node in plan.nodes}
    told = {name: {"stale": "done", "blocked": "missing"}.get(state, state) for name, state in states.items()}
    assert told == alone


def test_a_parent_computed_anew_makes_its_children_stale(tmp_path: Path) -> None:
    plan = small(tmp_path)
    pretend_done(plan, plan.nodes)
    parent = of(plan, 0, "stage1")
    edit_done(plan, parent, lineage="other")
    stale = {node.id for node in plan.nodes if parent.id in {entry.id for entry in node.parents}}
    assert {name for name, state in plan.states().items() if state == "stale"} == stale
    assert {node.stage.name for node in plan.nodes if node.id in stale} == {"reference", "stage2"}
    assert plan.changed(of(plan, 0, "reference")) == ["adapter (computed anew)"]


def test_the_states_are_never_those_of_an_earlier_look(tmp_path: Path) -> None:
    plan = small(tmp_path)
    node = of(plan, 0, "world")
    assert plan.states()[node.id] == "missing"
    pretend_done(plan, [node])
    assert plan.states()[node.id] == "done"
    node.artefact(plan.store).retire()
    assert plan.states()[node.id] == "interrupted"


def test_each_file_that_says_done_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small(tmp_path)
    pretend_done(plan, plan.nodes)
    read: Counter[str] = Counter()
    real = files.read_json
    monkeypatch.setattr(files, "read_json", lambda path, *how: read.update([str(path)]) or real(path, *how))
    status = grid_status(plan)
    assert set(status.states.values()) == {"done"}
    assert sorted(read) == sorted(str(node.artefact(plan.store).folder / "DONE") for node in plan.nodes)
    assert set(read.values()) == {1}


def test_what_was_read_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 cells would be 340 MB on a login node."""

    class Content(dict[str, Any]):
        """Can be referred to weakly."""

    plan = small(tmp_path)
    pretend_done(plan, plan.nodes)
    read: list[weakref.ref[Content]] = []
    held: list[int] = []
    real = files.read_json

    def counted(path: Path, *how: Any) -> Content:
        content = Content(real(path, *how))
        read.append(weakref.ref(content))
        held.append(sum(one() is not None for one in read))
        return content

    monkeypatch.setattr(files, "read_json", counted)
    assert set(plan.states().values()) == {"done"}
    assert len(held) == len(plan.nodes)
    assert max(held) <= 2, "the one that is read, and the one before it"


def test_a_stage_never_begun_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a parallel file system a look costs a millisecond."""
    plan = small(tmp_path)
    monkeypatch.setattr(files, "read_json", lambda path: pytest.fail(f"read {path}"))
    assert set(plan.states().values()) == {"missing"}


# What is printed


def shown(command: str, plan: Plan, *arguments: str, columns: int = 80) -> list[str]:
    """Lines of a command on the plan's grid."""
    grid = plan.store.home.parent / "grid.yaml"
    done = cwdpo(command, "-g", grid, "--home", plan.store.home, *arguments, COLUMNS=str(columns))
    return succeed(done).splitlines()


def test_the_micro_grid_fits_80_columns(tmp_path: Path) -> None:
    plan = make_plan(load_grid(str(MICRO)), Store(tmp_path / "home"))
    for node in plan.nodes:
        if node.stage.name in COLUMNS:
            pretend_ended(plan.store, node, failed=False)
    status, planned = (
        succeed(cwdpo(name, "-g", MICRO, "--home", tmp_path / "home", COLUMNS="80")).splitlines()
        for name in ("status", "plan")
    )
    assert max(map(len, status + planned)) <= 80
    row = next(index for index, line in enumerate(status) if line.startswith("cw_dpo/1"))
    assert status[row].split() == ["cw_dpo/1", *["interrupted"] * 5]
    assert status[row + 1].split() == ["3/9"] * 5
    wide = succeed(cwdpo("status", "-g", MICRO, "--home", tmp_path / "home", COLUMNS="100")).splitlines()
    assert next(line for line in wide if line.startswith("cw_dpo/1")).count("interrupted 3/9") == 5


def test_names_too_long_for_the_line_stay_whole(tmp_path: Path) -> None:
    plan = small(tmp_path)
    lines = shown("status", plan)
    for cell in plan.grid.cells:
        assert lines.count(cell.name) == 1  # as `export` takes it
    assert sum(line.split() == ["missing"] * 5 for line in lines) == 8
    assert any(
        cell.name in line and "missing" in line
        for cell in plan.grid.cells
        for line in shown("status", plan, columns=200)
    )


def test_a_big_grid_is_folded_and_all_shows_it_whole(tmp_path: Path) -> None:
    plan = small(tmp_path, first=2, second=3, seeds=10)
    assert len(plan.grid.cells) == 120
    pretend_done(plan, [node for node in plan.nodes if node.stage.name not in ("generate", "score")])
    for cell in range(3):
        pretend_ended(plan.store, of(plan, cell, "generate"), failed=cell > 0)
    lines = shown("status", plan)
    assert len(lines) < 60
    assert "120 cells in 12 rows; --all shows every cell" in lines
    assert sum(line.split() == ["10", "done"] * 3 + ["10", "missing"] * 2 for line in lines) == 11
    first = lines.index(plan.grid.cells[0].case)
    assert [line.split() for line in lines[first + 1 : first + 4]] == [
        ["10", "done", "10", "done", "10", "done", "2", "failed", "2", "blocked"],
        ["1", "interrupted", "8", "missing"],
        ["7", "missing"],
    ]
    assert lines == shown("status", plan)
    whole = shown("status", plan, "--all")
    assert all(cell.name in whole for cell in plan.grid.cells)


def test_many_cases_are_folded_to_those_of_the_file(tmp_path: Path) -> None:
    plan = small(tmp_path, first=6, second=10, seeds=1)
    lines = shown("status", plan)
    assert [line.split() for line in lines if line.startswith(("hard", "soft"))] == [
        [name, *["60", "missing"] * 5] for name in ("hard", "soft")
    ]
    folded = shown("plan", plan)
    assert ["stage2", "120", "120", "missing"] in [line.split() for line in folded]
    assert f"120 cells, {len(plan.nodes)} distinct stages (1560 if nothing were shared), 0 done" in folded
    assert len(shown("plan", plan, "--all")) > len(plan.nodes)


def test_reasons_of_a_folded_grid_are_few(tmp_path: Path) -> None:
    plan = small(tmp_path, first=2, second=3, seeds=10)
    for cell in range(15):
        pretend_ended(plan.store, of(plan, cell, "stage2"), failed=True)
    lines = shown("status", plan)
    assert sum("made up" in line for line in lines) == 10
    assert lines[-1] == "5 more failures; --all shows them"
    assert sum("made up" in line for line in shown("status", plan, "--all")) == 15
