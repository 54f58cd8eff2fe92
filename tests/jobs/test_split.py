"""Several jobs that share the work of one stage: the same files as one job writes, and nothing left of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import MICRO, copy_home, cwdpo, plan_of, python, states, submit, succeed
from ruamel.yaml import YAML

from cwdpo.base import files
from cwdpo.base.sources import source_digests
from cwdpo.base.store import Store
from cwdpo.graph import Node
from cwdpo.jobs.job import write_job
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
        f"answers (sample) share {number}/3" for number in (1, 2, 3)
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


def test_each_share_is_an_element_of_its_own(finished: Path, grid: Path) -> None:
    plan = plan_of(finished, SPLIT, grid=grid)
    todo = [node for node in plan.nodes if node.stage.name == "generate"]
    found = elements(todo, ("generate",), {}, {})
    assert [len(element.nodes) for element in found] == [1, 1, 1, 1]
    *shares, whole = found
    assert list(whole.parents) == shares, "it waits for all of them"


def test_what_the_policy_says_of_its_answers_waits_for_all_shares_of_them(finished: Path, grid: Path) -> None:
    content = YAML(typ="safe").load(grid)
    content["cases"]["sampled"]["stage2"]["negatives"] = {"source": "self_critic", "max_new_tokens": 6}
    YAML().dump(content, grid)
    plan = plan_of(finished, "execution.split=2", grid=grid)
    todo = [node for node in plan.nodes if node.stage.name in ("answers", "critique")]
    found = elements(todo, ("generate",), {}, {})
    labels = [sorted({node.stage.name for node in element.nodes}) for element in found]
    assert labels == [["answers"]] * 3 + [["critique"]] * 3


# What a share or a block was computed from


def log_of(home: Path, stage: str, grid: Path) -> str:
    """What the newest attempt at a stage said."""
    (node,) = (node for node in plan_of(home, grid=grid).nodes if node.stage.name == stage)
    artefact = node.artefact(Store(home))
    return (artefact.attempts / str(artefact.newest()) / "stderr").read_text()


def test_shares_of_what_an_input_was_before_are_not_put_together(finished: Path, grid: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    succeed(submit(home, "--set", SPLIT, grid=grid))
    expected = files_of(home, grid)
    nodes = [node for node in plan_of(home, grid=grid).nodes if node.stage.name in ("answers", "negatives")]
    for node in nodes:
        shutil.rmtree(node.artefact(Store(home)).folder)
    share = next(node for node in plan_of(home, SPLIT, grid=grid).nodes if node.share)
    path = share.artefact(Store(home)).folder / "DONE"
    done = files.read_json(path)
    done["provenance"]["parents"]["adapter"] = "another training"
    path.write_text(json.dumps(done))
    succeed(submit(home, "--set", SPLIT, "--accept-stale", grid=grid))
    assert "its blocks are computed again" not in log_of(home, "answers", grid), "it was accepted as it is"
    (path.parent / "accepted.json").unlink()
    shutil.rmtree(next(node for node in nodes if node.stage.name == "answers").artefact(Store(home)).folder)
    write_job(tmp_path / "job.json", Store(home), [_joined(home, grid)], 1)
    succeed(python("-m", "cwdpo.jobs.worker", tmp_path / "job.json"))
    assert f"{path.parent.name} was computed from something else" in log_of(home, "answers", grid)
    assert {name: expected[name] for name in expected if name.startswith("answers")} == {
        name: content for name, content in files_of(home, grid).items() if name.startswith("answers")
    }


def _joined(home: Path, grid: Path) -> Node:
    return next(
        node for node in plan_of(home, SPLIT, grid=grid).nodes if node.stage.name == "answers" and not node.share
    )


def test_blocks_of_what_an_input_was_before_are_dropped(finished: Path, grid: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    succeed(submit(home, grid=grid))
    expected = files_of(home, grid)
    (node,) = (node for node in plan_of(home, grid=grid).nodes if node.stage.name == "answers")
    artefact = node.artefact(Store(home))
    shutil.rmtree(artefact.folder)
    for name, content in (
        ("blocks/000000.jsonl", '{"id": "of the old policy"}\n{"id": "and this one"}\n'),
        ("sources.json", json.dumps({"sources": source_digests(node.stage.module, node.spec), "parents": {}})),
    ):
        files.write_text(artefact.partial / name, content)
    succeed(submit(home, grid=grid))
    assert "unfinished work is dropped" in log_of(home, "answers", grid)
    assert files_of(home, grid) == expected
