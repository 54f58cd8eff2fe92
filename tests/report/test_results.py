"""What the store has: seeds that share a result, reasons for what is missing, and damage of every kind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_up_grids import entry, made_up, restored, score
from pretend import pretend_ended, rescore, rewrite

from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, Shown
from cwdpo.report.content import Gap, Table
from cwdpo.report.table import Wanted, tables


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Nothing is missing; who changes it takes a copy."""
    return made_up(tmp_path_factory.mktemp("grid"), seeds=2)


@pytest.fixture
def plan(whole: Plan) -> Iterator[Plan]:
    """The same, to be changed: its store is put back afterwards, for wiring it again takes longer."""
    with restored(whole):
        yield whole


def table_of(plan: Plan, **wanted: Any) -> Table:
    (found,) = tables(plan, wanted=Wanted(**wanted))
    return found


def test_seeds_that_share_a_deterministic_result_are_one(whole: Plan) -> None:
    table = table_of(whole)
    base = entry(table, "base")
    assert [result.seeds for result in base.results] == [(0, 1)]
    assert base.std is None
    assert [result.seeds for result in entry(table, "dpo").results] == [(0,), (1,)]
    folder = score(whole, "dpo/1").artefact(whole.store).folder.name
    assert entry(table, "dpo").results[1].origin == folder
    assert entry(table, "dpo").results[1].code == f"commit {'0' * 12}"


# ---- missing


def forget(plan: Plan, *nodes: Node) -> None:
    for node in nodes:
        shutil.rmtree(node.artefact(plan.store).folder)


def generation(plan: Plan, cell: str) -> Node:
    (found,) = [node for node in plan.wired[cell].nodes() if node.stage.name == "generate"]
    return found


def test_what_was_never_begun_is_missing(plan: Plan) -> None:
    forget(plan, score(plan, "dpo/1"), generation(plan, "dpo/1"))
    found = entry(table_of(plan), "dpo")
    assert (len(found.results), found.gaps) == (1, (Gap("missing", "", (1,)),))


def test_what_failed_first_on_the_way_is_the_reason(plan: Plan) -> None:
    forget(plan, score(plan, "dpo/1"), generation(plan, "dpo/1"))
    pretend_ended(plan.store, generation(plan, "dpo/1"), failed=True)
    assert entry(table_of(plan), "dpo").gaps == (Gap("failed", "generate captions: made up", (1,)),)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"no"'])
def test_a_failure_whose_reason_cannot_be_read_is_still_one(plan: Plan, text: str) -> None:
    forget(plan, score(plan, "dpo/1"))
    pretend_ended(plan.store, score(plan, "dpo/1"), failed=True)
    (score(plan, "dpo/1").artefact(plan.store).attempts / "1" / "result.json").write_text(text)
    assert entry(table_of(plan), "dpo").gaps == (Gap("failed", "score captions: no reason recorded", (1,)),)


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler knows: node id -> state."""

    known: Mapping[str, Shown]
    why: Mapping[str, str]

    def states(self, stored: Mapping[str, Shown]) -> dict[str, Shown]:
        return {**stored, **self.known}

    def reasons(self) -> dict[str, str]:
        return dict(self.why)


@pytest.mark.parametrize("state", ["queued", "starting", "running", "cancelled"])
def test_what_a_scheduler_has_at_work_is_said(plan: Plan, state: Shown) -> None:
    forget(plan, score(plan, "dpo/0"), generation(plan, "dpo/0"))
    (table,) = tables(plan, Scheduler({generation(plan, "dpo/0").id: state}, {}))
    assert entry(table, "dpo").gaps == (Gap(state, "", (0,)),)


def test_a_scheduler_knows_why_something_failed(plan: Plan) -> None:
    forget(plan, score(plan, "dpo/0"))
    node = score(plan, "dpo/0")
    (table,) = tables(plan, Scheduler({node.id: "failed"}, {node.id: "memory: killed by the kernel"}))
    assert entry(table, "dpo").gaps == (Gap("failed", "score captions: memory: killed by the kernel", (0,)),)


def test_a_metric_without_a_value_says_why(plan: Plan) -> None:
    for seed in (0, 1):
        reason = {"cider": "not available: Java not found"}
        rescore(plan, score(plan, f"dpo/{seed}"), metrics={"cider": None}, unavailable=reason)
    table = table_of(plan)
    assert entry(table, "dpo").gaps == (Gap("not available", "Java not found", (0, 1)),)
    assert entry(table, "dpo", "rouge_l").gaps == ()


def test_a_metric_that_no_score_has_is_no_column_but_a_note(whole: Plan) -> None:
    table = table_of(whole)
    assert [column.key for column in table.columns] == ["bleu_4", "meteor", "rouge_l", "cider"]
    assert "SPICE is not available: made up" in table.notes


# ---- old code


def test_results_of_other_code_are_shown_and_marked(plan: Plan) -> None:
    """Also where it was not the score itself, but a stage before it."""
    for node in (score(plan, "sft/0"), generation(plan, "dpo/1")):
        path = node.artefact(plan.store).folder / "DONE"
        done = json.loads(path.read_text())
        done["provenance"]["sources"][node.stage.module] = "0123456789abcdef"
        path.write_text(json.dumps(done))
    table = table_of(plan)
    marked = {row.key: [result.stale for result in row.entries["cider"].results] for row in table.rows}
    assert marked == {"base": [False], "sft": [True, False], "dpo": [False, True], "cw_dpo": [False, False]}
    assert entry(table, "sft").mean is not None


# ---- damage


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def filled(path: Path) -> None:
    """Of the same size: only the time of its last change tells."""
    path.write_bytes(b"#" * path.stat().st_size)


def corrupted(path: Path) -> None:
    """As by a disk, of the same size and with the same times, so that only reading every byte tells."""
    times = path.stat()
    filled(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


WAYS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": truncated,
    "filled with garbage": filled,
    "emptied": lambda path: path.write_bytes(b""),
    "turned into a list": lambda path: path.write_text("[]"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["DONE", "scores.json", "items.parquet"])
def test_a_damaged_score_is_a_marked_cell_and_nothing_else_changes(plan: Plan, name: str, way: str) -> None:
    before = table_of(plan)
    artefact = score(plan, "dpo/1").artefact(plan.store)
    WAYS[way](artefact.folder / "DONE" if name == "DONE" else artefact.files / name)
    after = table_of(plan)
    found = entry(after, "dpo")
    (gap,) = found.gaps
    assert (gap.kind, gap.seeds) == (("interrupted" if (name, way) == ("DONE", "deleted") else "damaged"), (1,))
    assert [result.seeds for result in found.results] == [(0,)]
    if gap.kind == "damaged":
        assert artefact.folder.name in gap.reason
        assert name in gap.reason
    for row in before.rows:
        if row.key != "dpo":
            assert [result for result in row.entries["cider"].results] == list(entry(after, row.key).results)


def test_a_number_that_was_changed_is_never_shown(plan: Plan) -> None:
    """The size is the same and it is JSON."""
    path = score(plan, "dpo/1").artefact(plan.store).files / "scores.json"
    text = path.read_text()
    value = str(json.loads(text)["metrics"]["cider"])
    path.write_text(text.replace(value, value[:-1] + ("1" if value[-1] != "1" else "2")))
    assert path.stat().st_size == len(text.encode())
    (gap,) = entry(table_of(plan), "dpo").gaps
    assert (gap.kind, gap.seeds) == ("damaged", (1,))


def test_items_that_changed_at_their_size_are_not_compared(plan: Plan) -> None:
    corrupted(score(plan, "dpo/1").artefact(plan.store).files / "items.parquet")
    assert not entry(table_of(plan), "dpo").gaps, "it is not read for means"
    table = table_of(plan, interval="items")
    found = entry(table, "dpo")
    assert (len(found.results), found.gaps, found.difference) == (2, (), None)
    (mark,) = next(row.marks for row in table.rows if row.key == "dpo")
    assert "items.parquet is missing or changed since it was written" in mark
    assert entry(table, "cw_dpo").difference is not None


CONTENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no mapping": lambda scores: [scores],
    "no metrics": lambda scores: {key: value for key, value in scores.items() if key != "metrics"},
    "metrics that are a list": lambda scores: {**scores, "metrics": []},
    "a value that is a text": lambda scores: {**scores, "metrics": {**scores["metrics"], "cider": "1.0"}},
    "NaN": lambda scores: {**scores, "metrics": {**scores["metrics"], "cider": float("nan")}},
    "infinity": lambda scores: {**scores, "metrics": {**scores["metrics"], "cider": float("inf")}},
    "no harness": lambda scores: {key: value for key, value in scores.items() if key != "harness"},
}


@pytest.mark.parametrize("content", CONTENTS)
def test_scores_that_are_written_as_they_should_not_be_are_damaged(plan: Plan, content: str) -> None:
    """With the digest that they should have."""
    artefact = score(plan, "dpo/1").artefact(plan.store)
    scores = CONTENTS[content](json.loads((artefact.files / "scores.json").read_text()))
    rewrite(artefact, {"scores.json": json.dumps(scores).encode()})
    (gap,) = entry(table_of(plan), "dpo").gaps
    assert (gap.kind, gap.seeds) == ("damaged", (1,))
    assert gap.reason.startswith(f"{artefact.folder.name}: scores.json ")


DONES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no provenance": lambda done: {key: value for key, value in done.items() if key != "provenance"},
    "provenance that says nothing": lambda done: {**done, "provenance": {}},
    "files that are a list": lambda done: {**done, "files": ["scores.json"]},
    "files without sizes": lambda done: {**done, "files": {"scores.json": {}}},
    "an attempt that there was not": lambda done: {**done, "attempt": 7},
    "no scores": lambda done: {**done, "files": {}},
}


@pytest.mark.parametrize("done", DONES)
@pytest.mark.parametrize("stage", ["score", "generate", "pretrain"])
def test_whatever_a_done_says_there_is_a_table(plan: Plan, stage: str, done: str) -> None:
    (node,) = [node for node in plan.wired["dpo/1"].nodes() if node.stage.name == stage]
    path = node.artefact(plan.store).folder / "DONE"
    path.write_text(json.dumps(DONES[done](json.loads(path.read_text()))))
    table = table_of(plan)
    found = entry(table, "dpo")
    if stage == "score":
        assert [gap.kind for gap in found.gaps] == ["damaged"]
    elif done != "no scores":  # a manifest without files is one that nothing can be missing from
        assert found.doubtful
    assert not entry(table, "base").doubtful or stage == "pretrain"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", ["generate", "stage2", "stage1"])
def test_a_damaged_stage_behind_a_whole_score_is_said_beside_the_number(plan: Plan, stage: str, way: str) -> None:
    """The number is still what was scored; where it comes from can no longer be shown."""
    before = table_of(plan)
    (node,) = [node for node in plan.wired["dpo/1"].nodes() if node.stage.name == stage]
    WAYS[way](node.artefact(plan.store).folder / "DONE")
    table = table_of(plan)
    found = entry(table, "dpo")
    assert [result.value for result in found.results] == [result.value for result in entry(before, "dpo").results]
    first, second = found.results
    assert first.doubt == ""
    assert node.artefact(plan.store).folder.name in second.doubt
    others = {row.key for row in table.rows for value in row.entries["cider"].results if value.doubt}
    assert others == ({"dpo", "sft"} if stage == "stage1" else {"dpo"}), "sft/1 is the same Stage 1"


@pytest.mark.parametrize("stage", ["generate", "stage2", "stage1", "negatives"])
def test_a_file_that_was_written_to_behind_a_whole_score_is_said(plan: Plan, stage: str) -> None:
    node = next(node for node in plan.wired["dpo/1"].nodes() if node.stage.name == stage)
    artefact = node.artefact(plan.store)
    name = next(iter((artefact.done() or {})["files"]))
    filled(artefact.files / name)
    assert f"{name} is missing or changed" in entry(table_of(plan), "dpo").results[1].doubt


@pytest.mark.parametrize("way", WAYS)
def test_a_score_that_no_longer_says_what_it_is_of_is_said(plan: Plan, way: str) -> None:
    WAYS[way](score(plan, "dpo/1").artefact(plan.store).folder / "stage.json")
    found = entry(table_of(plan), "dpo")
    assert len(found.results) == 2
    assert "stage.json" in found.results[1].doubt


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_an_acceptance_that_cannot_be_read_is_damage(plan: Plan, text: str) -> None:
    (score(plan, "dpo/1").artefact(plan.store).folder / "accepted.json").write_text(text)
    (gap,) = entry(table_of(plan), "dpo").gaps
    assert gap.kind == "damaged"


def test_claims_that_cannot_be_read_leave_a_table(plan: Plan) -> None:
    artefact = score(plan, "dpo/1").artefact(plan.store)
    (artefact.folder / "DONE").unlink()
    (artefact.attempts / "1" / "claim.json").write_text("{}")
    assert [gap.kind for gap in entry(table_of(plan), "dpo").gaps] == ["interrupted"]


def test_what_a_score_stands_on_is_the_reason_while_that_is_damaged(plan: Plan) -> None:
    forget(plan, score(plan, "dpo/1"))
    generated = generation(plan, "dpo/1").artefact(plan.store)
    truncated(generated.files / "generations.jsonl")
    (gap,) = entry(table_of(plan), "dpo").gaps
    expected = f"{generated.folder.name}: generations.jsonl is missing or changed since it was written"
    assert gap == Gap("damaged", expected, (1,))
