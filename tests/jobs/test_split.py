"""Several jobs that share the work of one stage: the same files as one job writes, and nothing left of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import MICRO, copy_home, cwdpo, plan_of, states, submit, succeed
from ruamel.yaml import YAML

from cwdpo.base.store import Store
from cwdpo.jobs.slurm.elements import elements

SPLIT = "execution.split=3"


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """The micro grid's cw_dpo with what the policy samples as negatives, one seed."""
    content = YAML(typ="safe").load(MICRO)
    case = content["cases"]["cw_dpo"]
    case["stage2"]["negatives"] = {"source": "sample", "draws": 2, "max_new_tokens": 6, "block": 2}
    content |= {"cases": {"sampled": case}, "seeds": [0]}
    YAML().dump(content, tmp_path / "sampled.yaml")
    return tmp_path / "sampled.yaml"


def files_of(home: Path, grid: Path, *settings: str) -> dict[str, bytes]:
    """What stages that can be split have written, as the unsplit plan names it."""
    found = {}
    for node in plan_of(home, *settings, grid=grid).nodes:
        if node.stage.splits:
            (path,) = (path for path in node.artefact(Store(home)).files.glob("*.jsonl"))
            found[f"{node.stage.name}-{node.id}"] = path.read_bytes()
    return found


def test_shares_put_together_are_what_one_job_writes(finished: Path, grid: Path, tmp_path: Path) -> None:
    whole, split = copy_home(finished, tmp_path / "whole"), copy_home(finished, tmp_path / "split")
    succeed(submit(whole, grid=grid))
    shares = [node for node in plan_of(split, SPLIT, grid=grid).nodes if node.share]
    assert {node.title for node in shares if node.stage.name == "answers"} == {
        f"answers share {number}/3" for number in (1, 2, 3)
    }
    succeed(submit(split, "--set", SPLIT, grid=grid))
    expected = files_of(whole, grid)
    assert {name.partition("-")[0] for name in expected} == {"answers", "reference", "generate"}
    assert files_of(split, grid) == expected

    done = states(split, grid=grid)
    assert set(done.values()) == {"done"}
    assert not [node for node in plan_of(split, SPLIT, grid=grid).nodes if node.share], "nobody needs them any more"
    again = succeed(submit(split, "--set", "execution.split=2", grid=grid))
    assert "0 computed now" in again, again
    kept = {path.name for path in (split / "store").iterdir()}
    succeed(cwdpo("prune", "--unused", "--home", split, "--yes"))
    gone = kept - {path.name for path in (split / "store").iterdir()}
    assert {f"{node.stage.name}-{node.id[:16]}" for node in shares if node.stage.name == "answers"} <= gone


def test_a_share_that_is_lost_is_computed_again(finished: Path, grid: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    succeed(submit(home, "--set", SPLIT, grid=grid))
    expected = files_of(home, grid)
    nodes = [node for node in plan_of(home, grid=grid).nodes if node.stage.name in ("answers", "negatives")]
    (share, *_) = [
        folder
        for folder in (home / "store").glob("answers-*")
        if folder.name not in {f"answers-{node.id[:16]}" for node in nodes}
    ]
    for folder in [share, *(node.artefact(Store(home)).folder for node in nodes)]:
        shutil.rmtree(folder)
    shown = succeed(submit(home, "--set", SPLIT, grid=grid))
    assert files_of(home, grid) == expected, shown


def test_each_share_is_an_element_of_its_own(finished: Path, grid: Path) -> None:
    plan = plan_of(finished, SPLIT, grid=grid)
    todo = [node for node in plan.nodes if node.stage.name == "generate"]
    found = elements(todo, ("generate",), {}, {})
    assert [len(element.nodes) for element in found] == [1, 1, 1, 1]
    *shares, whole = found
    assert list(whole.parents) == shares, "it waits for all of them"
