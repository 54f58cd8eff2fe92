"""What a grid does when something in it fails, is damaged, is missing or is out of date, on the local cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import (
    MICRO,
    copy_home,
    cwdpo,
    folder,
    forget,
    manifests,
    node_of,
    plan_of,
    report,
    states,
    submit,
    succeed,
)
from ruamel.yaml import YAML

from cwdpo.base.store import Store
from cwdpo.cli.submit import Lines
from cwdpo.graph import Node
from cwdpo.jobs import local
from cwdpo.jobs.clusters import LocalCluster
from cwdpo.jobs.prepare import _available_now
from cwdpo.metrics.spice import JARS


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A finished micro grid to break."""
    return copy_home(finished, tmp_path / "home")


def value(tables: Any, case: str, metric: str) -> Any:
    """One cell of the first table of a JSON report."""
    return next(row["entries"][metric] for row in tables[0]["rows"] if row["key"] == case)


def gaps(tables: Any, case: str, metric: str) -> list[tuple[str, str]]:
    """Kind and reason of what a cell lacks."""
    return [(gap["kind"], gap["reason"]) for gap in value(tables, case, metric)["gaps"]]


def row_of(home: Path, case: str, grid: Path = MICRO) -> dict[str, str]:
    """Stage -> state of the first seed of a case, as `status` prints them."""
    shown = json.loads(succeed(cwdpo("status", "-g", grid, "--home", home, "--json")))
    return next(cell["stages"] for cell in shown["cells"] if cell["case"] == case)


def out(home: Path, node: Node) -> Path:
    """Folder of a node's finished files."""
    return node.artefact(Store(home)).files


# Failure


@pytest.fixture
def photographs(home: Path, tmp_path: Path) -> Path:
    """A Karpathy data set outside the store: the micro world's files."""
    return Path(shutil.copytree(out(home, node_of(home, "world", "base/0")), tmp_path / "photographs"))


@pytest.fixture
def mixed(photographs: Path, tmp_path: Path) -> Path:
    """A grid with a case on that data set beside one of the micro grid's."""
    content = YAML(typ="safe").load(MICRO)
    data = {"source": "karpathy", "root": str(photographs), "images": "images"}
    content["cases"] = {"photographs": {"data": data}, "sft": content["cases"]["sft"]}
    content["seeds"] = [0]
    YAML().dump(content, tmp_path / "mixed.yaml")
    return tmp_path / "mixed.yaml"


def test_a_failed_stage_stops_only_what_needs_it(home: Path, photographs: Path, mixed: Path) -> None:
    image = sorted(photographs.glob("images/test/*.jpg"))[0]
    good = image.read_bytes()
    image.write_bytes(good[:300].ljust(len(good), b"\0"))  # cut off, at its old size: the same data digest
    sibling = node_of(home, "generate", "sft/0")
    forget(home, sibling, node_of(home, "score", "sft/0"))

    done = submit(home, grid=mixed)
    assert done.returncode == 1
    assert "FAILED pairs" in done.stdout
    assert image.name in done.stdout
    assert "2 stage(s) wait for them" in done.stderr
    assert set(row_of(home, "sft", mixed).values()) == {"done"}

    found = row_of(home, "photographs", mixed)
    assert found == {"pairs": "failed", "pretrain": "done", "generate": "blocked", "score": "blocked"}
    status = succeed(cwdpo("status", "-g", mixed, "--home", home))
    assert image.name in status
    assert "blocked" in status
    (failure,) = json.loads(succeed(cwdpo("status", "-g", mixed, "--home", home, "--json")))["failures"].items()
    assert failure[0].startswith("pairs-")
    assert image.name in failure[1]
    assert Path(failure[1].partition("log: ")[2]).is_file()
    tables = report(home, grid=mixed)
    assert value(tables, "photographs", "cider")["mean"] is None
    ((kind, reason),) = gaps(tables, "photographs", "cider")
    assert kind == "failed"
    assert image.name in reason
    assert value(tables, "sft", "cider")["mean"] > 0

    image.write_bytes(good)
    shown = succeed(submit(home, grid=mixed))
    assert "(3 computed now)" in shown
    assert set(states(home, mixed).values()) == {"done"}
    attempts = sorted(path.name for path in (home / "store" / failure[0] / "attempts").iterdir())
    assert attempts == ["1", "2"]
    assert value(report(home, grid=mixed), "photographs", "cider")["mean"] is not None


# Damage


def test_damaged_artefacts_are_computed_again(home: Path, finished: Path) -> None:
    reference, score = node_of(home, "reference", "dpo/0"), node_of(home, "score", "dpo/0")
    rows = out(home, reference) / "reference.jsonl"
    rows.write_bytes(rows.read_bytes()[:-10])
    (out(home, score) / "items.parquet").unlink()

    found = states(home)
    damaged = {name for name, state in found.items() if state == "damaged"}
    assert damaged == {folder(home, reference).name, folder(home, score).name}
    assert {found[name] for name in found.keys() - damaged} == {"done"}
    assert row_of(home, "dpo")["score"] == "damaged"
    tables = report(home)
    reason = f"{folder(home, score).name}: items.parquet is missing or changed since it was written"
    assert (value(tables, "dpo", "cider")["n"], gaps(tables, "dpo", "cider")) == (1, [("damaged", reason)])
    differences = (row["entries"]["cider"]["difference"] for row in report(home, "--interval", "items")[0]["rows"])
    assert [one is None for one in differences] == [True, False, True, False]

    shown = succeed(submit(home))
    assert f"reference {reference.id[:16]} is damaged: computing it again" in shown
    assert f"score {score.id[:16]} is damaged: computing it again" in shown
    assert "(2 computed now)" in shown
    assert manifests(home) == manifests(finished)
    assert report(home) == report(finished)


def test_a_changed_byte_is_never_reported_or_trained_on(home: Path, finished: Path) -> None:
    """The size is the same, so that only reading every byte tells."""
    score = out(home, node_of(home, "score", "dpo/0")) / "scores.json"
    text = score.read_text()
    score.write_text(text.replace('"items": 8', '"items": 9'))
    assert score.stat().st_size == len(text.encode())
    assert [kind for kind, _ in gaps(report(home), "dpo", "cider")] == ["damaged"]

    why = succeed(cwdpo("why", "dpo/0", "-g", MICRO, "--home", home))
    damaged = node_of(home, "score", "dpo/0")
    assert f"{damaged.title} {damaged.id[:16]}: files are missing or changed" in why

    negatives = node_of(home, "negatives", "dpo/0")
    for node in (negatives, node_of(home, "score", "dpo/0")):
        records = out(home, next(parent for parent in node.parents if parent.stage.name == "pairs")) / "records.jsonl"
        records.write_bytes(records.read_bytes().replace(b"circle", b"cercle"))
    forget(home, negatives)
    printed = succeed(submit(home))
    assert printed.count("is damaged: computing it again") == 3
    assert manifests(home) == manifests(finished)


def test_what_is_gone_behind_a_finished_result_is_said_and_computed_again(home: Path, finished: Path) -> None:
    stage1 = node_of(home, "stage1", "dpo/0")
    forget(home, stage1)
    why = succeed(cwdpo("why", "dpo/0", "-g", MICRO, "--home", home))
    assert f"dpo/0: all done\n  but {stage1.title} {stage1.id[:16]}, which it was computed from, is missing" in why
    succeed(submit(home))
    assert succeed(cwdpo("why", "dpo/0", "-g", MICRO, "--home", home)) == "dpo/0: all done\n"
    assert manifests(home) == manifests(finished)


def test_nothing_computed_is_missing_in_a_report(tmp_path: Path) -> None:
    tables = report(tmp_path / "home")
    assert {value(tables, case, "cider")["mean"] for case in ("base", "sft", "dpo", "cw_dpo")} == {None}
    assert gaps(tables, "base", "cider") == [("missing", "")]


# Java


def test_scores_are_computed_again_once_spices_parser_is_there(finished: Path, tmp_path: Path) -> None:
    """Empty files under its names: only whether they are there is asked, nothing is scored."""
    home = copy_home(finished, tmp_path / "home")
    assert _available_now(plan_of(home)) == [], "nothing that is missing is there now"
    (home / "assets/spice").mkdir(parents=True)
    for name in JARS:
        (home / "assets/spice" / name).touch()
    again = _available_now(plan_of(home))
    assert {node.stage.name for node in again} == {"score"}
    assert len(again) == len([node for node in plan_of(home).nodes if node.stage.name == "score"])


def test_without_java_only_cells_are_missing(home: Path, finished: Path, tmp_path: Path) -> None:
    score = node_of(home, "score", "dpo/1")
    forget(home, score)
    (tmp_path / "bin").mkdir()
    no_java = {"PATH": str(tmp_path / "bin"), "JAVA_HOME": ""}

    succeed(submit(home, **no_java))
    assert set(states(home).values()) == {"done"}
    summary = json.loads((out(home, score) / "scores.json").read_text())
    assert set(summary["metrics"].values()) == {None}
    assert all(reason.startswith("not available: Java not found") for reason in summary["unavailable"].values())
    tables = report(home)
    cell = value(tables, "dpo", "cider")
    assert cell["n"] == 1
    assert cell["std"] is None
    ((kind, reason),) = gaps(tables, "dpo", "cider")
    assert kind == "not available"
    assert reason.startswith("Java not found")
    succeed(cwdpo("report", "-g", MICRO, "--home", home))
    text = (home / "grids" / "micro" / "report.md").read_text()
    assert " (n=1, 1 not available) |" in text
    assert "not available: Java not found: install a Java runtime" in text
    assert "0 computed now" in succeed(submit(home, **no_java))

    shown = succeed(submit(home))
    assert f"score {score.id[:16]} is incomplete: computing it again" in shown
    assert "(1 computed now)" in shown
    assert report(home) == report(finished)


# Stale


def make_stale(home: Path, node: Node) -> None:
    """Pretend that `node` was computed by other code."""
    path = folder(home, node) / "DONE"
    done = json.loads(path.read_text())
    done["provenance"]["sources"][node.stage.module] = "0123456789abcdef"
    path.write_text(json.dumps(done))


def test_stale_is_refused_until_the_user_decides(home: Path) -> None:
    node = node_of(home, "generate", "base/0")
    make_stale(home, node)
    name = folder(home, node).name
    assert {key for key, state in states(home).items() if state == "stale"} == {name}
    broken = folder(home, node_of(home, "generate", "sft/0")) / "attempts" / "1" / "out" / "generations.jsonl"
    whole = broken.read_bytes()
    broken.write_bytes(whole + b"\n")  # is computed again, but not by a submit that refuses
    before = {path: path.stat().st_mtime_ns for path in home.glob("store/**/*")}

    done = submit(home)
    assert done.returncode == 2
    refused = "1 finished and 0 unfinished artefact(s) were computed by other code: cwdpo.evaluate.generate changed"
    assert refused in done.stderr
    assert "--accept-stale" in done.stderr
    assert "--recompute" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in home.glob("store/**/*")}
    assert value(report(home), "base", "cider")["mean"] is not None
    broken.write_bytes(whole)

    shown = succeed(submit(home, "--accept-stale"))
    assert f"generate {node.id[:16]} accepted as it is" in shown
    assert "(0 computed now)" in shown
    assert states(home)[name] == "done"
    succeed(submit(home))


def test_recompute_takes_descendants_along(home: Path, finished: Path) -> None:
    node, score = node_of(home, "generate", "base/0"), node_of(home, "score", "base/0")
    make_stale(home, node)
    shown = succeed(submit(home, "--recompute"))
    assert {line for line in shown.splitlines() if line.endswith("computing it again")} == {
        f"{entry.stage.name} {entry.id[:16]} is stale: computing it again" for entry in (node, score)
    }
    assert "(2 computed now)" in shown
    assert (folder(home, node) / "attempts" / "1" / "DONE.retired").is_file()
    assert json.loads((folder(home, node) / "DONE").read_text())["attempt"] == 2
    assert set(states(home).values()) == {"done"}
    assert manifests(home) == manifests(finished)


def test_what_stands_on_a_recomputed_parent_is_stale(home: Path) -> None:
    """As when a grid recomputes a Stage 1 that another grid shares, or is killed after taking back the parent alone."""
    parent = node_of(home, "stage1", "dpo/0")
    path = folder(home, parent) / "DONE"
    done = json.loads(path.read_text())
    done["provenance"]["lineage"] = "computed by other code"
    path.write_text(json.dumps(done))
    children = [node for node in plan_of(home).nodes if parent.id in {entry.id for entry in node.parents}]
    assert {node.stage.name for node in children} == {"generate", "reference", "stage2"}
    stale = {name for name, state in states(home).items() if state == "stale"}
    assert stale == {folder(home, node).name for node in children}
    assert "adapter (computed anew)" in submit(home).stderr
    succeed(submit(home, "--accept-stale"))
    assert set(states(home).values()) == {"done"}


def test_unfinished_work_of_other_code_is_not_gone_on_with(home: Path, finished: Path) -> None:
    node = node_of(home, "stage2", "dpo/0")
    forget(home, node)
    partial = node.artefact(Store(home)).partial
    partial.mkdir(parents=True)
    (partial / "sources.json").write_text(json.dumps({"sources": {"cwdpo.train.stage2": "0123456789abcdef"}}))
    refused = submit(home)
    assert refused.returncode == 2
    assert "0 finished and 1 unfinished artefact(s) were computed by other code" in refused.stderr
    assert "unfinished work dropped, starting over" in succeed(submit(home, "--recompute"))
    assert manifests(home) == manifests(finished)


# Scores share jobs


class Never:
    """Processes that do not end."""

    def exit_status(self) -> None:
        return None


@pytest.mark.parametrize("taken", [0, 3])
def test_scores_are_shared_out_without_what_others_compute(
    home: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    scores = [node for node in plan_of(home).nodes if node.stage.name == "score"]
    forget(home, *scores)
    for node in scores[:taken]:
        node.artefact(Store(home)).claim({})  # by this process, which lives
    jobs: list[list[str]] = []

    def record(path: Path, *_: object) -> None:
        jobs.append([stage["id"] for stage in json.loads(path.read_text())["stages"]])

    monkeypatch.setattr(local, "Launched", Never)
    monkeypatch.setattr(local, "launch", record)
    plan = plan_of(home)
    executor = local.LocalExecutor(plan, LocalCluster(kind="local", jobs=2), Lines(plan))
    assert executor._turn()
    assert executor._turn()
    assert sorted(map(len, jobs)) == ([2, 2] if taken else [3, 4])
    assert sorted(name for job in jobs for name in job) == sorted(node.id for node in scores[taken:])


def test_every_stage_of_a_cell_is_wired(finished: Path) -> None:
    names = [node.stage.name for node in plan_of(finished).wired["cw_dpo/0"].nodes()]
    expected = "world pairs pairs world pairs pretrain negatives stage1 negatives reference stage2 generate score"
    assert sorted(names) == sorted(expected.split())
