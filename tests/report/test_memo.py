"""A report of an unchanged store is the one before; whatever changes, it is what a report without a memo says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import REPO, python, succeed
from pretend import pretend_done, pretend_ended, write_grid
from typer.testing import CliRunner

from cwdpo.base import trail
from cwdpo.base.store import Store
from cwdpo.cli.app import Source
from cwdpo.cli.main import app
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.clusters import SlurmCluster, load_cluster
from cwdpo.jobs.plan import Plan, make_plan
from cwdpo.jobs.slurm.desired import Desired

HEAVY = {"cwdpo.experiment", "cwdpo.pipeline", "cwdpo.report.table", "rich", "ruamel.yaml"}
CELL = "soft stage1.optimization.learning_rate=1e-06 stage2.objective.beta=0.01/1"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed a moment ago may be remembered: nothing here changes twice in a tick of the clock."""
    monkeypatch.setattr(trail, "SETTLED_SECONDS", 0.0)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Four finished cells."""
    made = open_plan(tmp_path)
    pretend_done(made, made.nodes)
    return made


def open_plan(folder: Path) -> Plan:
    grid = write_grid(folder / "big.yaml", first=1, second=1, seeds=2)
    return make_plan(load_grid(str(grid)), Store(folder / "home"))


def report(plan: Plan, *options: str) -> str:
    home = plan.store.home
    done = CliRunner().invoke(app, ["report", "-g", str(home.parent / "big.yaml"), "--home", str(home), *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return str(done.output)


def afresh(plan: Plan, *options: str) -> str:
    """The report as it is without a memo."""
    shutil.rmtree(plan.store.home / "cache", ignore_errors=True)
    return report(plan, *options)


def memos(plan: Plan) -> list[Path]:
    return sorted((plan.store.home / "cache" / "reports").glob("*"))


def node_of(plan: Plan, stage: str) -> Node:
    """One that only this cell has, where it has its own."""
    return [node for node in plan.wired[CELL].nodes() if node.stage.name == stage][-1]


def out(plan: Plan, stage: str) -> Path:
    return node_of(plan, stage).artefact(plan.store).files


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_an_unchanged_store_is_not_read_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    first, as_json = report(plan), report(plan, "--json")
    (plan.folder / "report.md").write_text("something else")
    monkeypatch.setattr(Source, "plan", None)  # calling it would be an error
    assert report(plan) == first
    assert (plan.folder / "report.md").read_text().startswith("# big\n")
    assert report(plan, "--json") == as_json != first
    assert json.loads(as_json)


def test_what_finds_a_memo_imports_neither_schemas_nor_tables(plan: Plan) -> None:
    words = ["report", "-g", str(plan.store.home.parent / "big.yaml"), "--home", str(plan.store.home)]
    code = (
        "import sys\nfrom cwdpo.base import trail\nfrom cwdpo.cli.main import app\ntrail.SETTLED_SECONDS = 0\n"
        f"app({words!r}, standalone_mode=False)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    first, second = (succeed(python("-c", code)) for _ in range(2))
    assert first.endswith(f"\n{sorted(HEAVY)!r}\n")
    assert second.endswith("\n[]\n")
    assert second.splitlines()[:-1] == first.splitlines()[:-1]


# ---- every kind of change


def same_size(path: Path) -> None:
    """Other bytes in the same file, as many as before, and the times of change set back."""
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"0.", b"1.") if b"0." in content else content[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file of the same size and times, renamed over it."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    same_size(other)
    os.replace(other, path)


CHANGES: dict[str, Callable[[Plan], object]] = {
    "a score truncated": lambda plan: os.truncate(out(plan, "score") / "scores.json", 10),
    "a score gone": lambda plan: (out(plan, "score") / "scores.json").unlink(),
    "a score changed in place": lambda plan: same_size(out(plan, "score") / "scores.json"),
    "a score replaced": lambda plan: replaced(out(plan, "score") / "scores.json"),
    "a score unreadable": lambda plan: _into_folder(out(plan, "score") / "scores.json"),
    "values per item gone": lambda plan: (out(plan, "score") / "items.parquet").unlink(),
    "an adapter truncated": lambda plan: os.truncate(out(plan, "stage2") / "adapter_model.safetensors", 3),
    "an adapter gone": lambda plan: (out(plan, "stage1") / "adapter_model.safetensors").unlink(),
    "a card gone": lambda plan: (node_of(plan, "score").artefact(plan.store).folder / "stage.json").unlink(),
    "a card changed": lambda plan: (node_of(plan, "score").artefact(plan.store).folder / "stage.json").write_text("{"),
    "DONE gone": lambda plan: (node_of(plan, "stage2").artefact(plan.store).folder / "DONE").unlink(),
    "DONE damaged": lambda plan: same_size(node_of(plan, "score").artefact(plan.store).folder / "DONE"),
    "out gone": lambda plan: shutil.rmtree(out(plan, "generate")),
    "attempts gone": lambda plan: shutil.rmtree(node_of(plan, "generate").artefact(plan.store).attempts),
    "an artefact gone": lambda plan: shutil.rmtree(node_of(plan, "score").artefact(plan.store).folder),
    "the store gone": lambda plan: plan.store.folder.rename(plan.store.home / "elsewhere"),
    "accepted by somebody": lambda plan: (
        node_of(plan, "stage2").artefact(plan.store).folder / "accepted.json"
    ).write_text("{}"),
    "computed by other code": lambda plan: rewrite(
        node_of(plan, "score").artefact(plan.store).folder / "DONE",
        lambda done: {**done, "provenance": {**done["provenance"], "sources": {}}},
    ),
    "the grid changed": lambda plan: _edit(plan.store.home.parent / "big.yaml", "0.01", "0.02"),
}


def _into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_is_seen(plan: Plan, change: Callable[[Plan], object]) -> None:
    first = report(plan)
    assert memos(plan)
    change(plan)
    second = report(plan)
    assert second != first
    assert second == afresh(plan)


def test_what_is_computed_is_seen(plan: Plan) -> None:
    """Of a stage that was not begun, then failed, failed otherwise, and was done."""
    score = node_of(plan, "score")
    folder, aside = score.artefact(plan.store).folder, plan.store.home / "aside"
    folder.rename(aside)
    reports = [report(plan)]
    pretend_ended(plan.store, score, failed=True)
    reports.append(report(plan))
    _edit(folder / "attempts" / "1" / "result.json", "made up", "made out")
    reports.append(report(plan))
    shutil.rmtree(folder)
    aside.rename(folder)
    reports.append(report(plan))
    for word, text in zip(("missing", "made up", "made out", ""), reports, strict=True):
        assert word in text
    assert len(set(reports)) == 4
    assert reports[-1] == afresh(plan)


def test_tables_and_options_are_part_of_it(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = plan.store.home.parent / "configs"
    shutil.copytree(REPO / "configs", configs)
    monkeypatch.setenv("CWDPO_CONFIGS", str(configs))
    first = report(plan)
    table = {"title": "By hand", "grids": ["big"], "columns": {"c": {"benchmark": "captions", "metric": "cider"}}}
    row = json.dumps({**table, "rows": {CELL.partition("/")[0]: {"stands_on": "sft_c"}}})
    (configs / "tables" / "own.yaml").write_text(row)
    second = report(plan)
    assert "By hand" in second != first
    _edit(configs / "tables" / "own.yaml", "By hand", "By heart")
    assert "By heart" in report(plan)
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, report(plan, "-t", "benchmarks").splitlines())) < max(map(len, first.splitlines()))


def test_a_damaged_memo_is_no_memo(plan: Plan) -> None:
    first = report(plan)
    (memo,) = memos(plan)
    content = memo.read_bytes()
    for damaged in (content[:-1], content[:100], b"", content[:200] + b"x" + content[201:]):
        memo.write_bytes(damaged)
        assert report(plan) == first
        assert memo.read_bytes() == content or len(memo.read_bytes()) > 100


# ---- what holds only for a moment


def test_what_changed_a_moment_ago_is_not_remembered(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could change once more within the same tick of a file system's clock."""
    monkeypatch.setattr(trail, "SETTLED_SECONDS", 600.0)
    report(plan)
    assert memos(plan) == []


def test_work_under_way_is_looked_at_every_time(plan: Plan) -> None:
    artefact = node_of(plan, "score").artefact(plan.store)
    (artefact.folder / "DONE").unlink()
    attempt = artefact.claim({})
    assert "running" in report(plan)
    assert memos(plan) == []
    attempt.fail(ValueError("made out"))
    assert "made out" in report(plan)
    assert len(memos(plan)) == 1


def test_on_slurm_only_what_is_finished_is_remembered(plan: Plan) -> None:
    cluster = load_cluster("default")
    assert isinstance(cluster, SlurmCluster)
    Desired(cluster, Path("code"), frozenset(node.id for node in plan.nodes)).write(plan)
    finished = report(plan)
    assert len(memos(plan)) == 1
    assert report(plan) == finished
    (node_of(plan, "score").artefact(plan.store).folder / "DONE").unlink()
    shutil.rmtree(plan.store.home / "cache")
    assert report(plan) != finished
    assert memos(plan) == []


def test_old_memos_go(plan: Plan) -> None:
    for limit in range(10):
        report(plan, "--limit", str(1 + limit))
    assert len(memos(plan)) == 8


# ---- that nothing is forgotten


def test_everything_that_is_looked_at_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, listings and what is not there are told by nobody but the code that looks."""
    from cwdpo.cli.report import as_markdown, made_report
    from cwdpo.report.table import Wanted

    source = Source(str(outside(tmp_path)), (), tmp_path / "home")
    made = source.plan()
    last = made.wired["dpo/1"].scores["captions"]
    generated = last.inputs["generate"]
    assert isinstance(generated, Node)
    pretend_done(made, [node for node in made.nodes if node not in (last, generated)])
    pretend_ended(made.store, generated, failed=False)
    looked: set[str] = set()
    for module, name in ((os, "stat"), (os, "lstat"), (os, "listdir"), (os, "scandir")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, listening(real, looked))
    with trail.following() as followed:
        as_markdown(made_report(source.plan(), Wanted(interval="seeds+items")))
    monkeypatch.undo()
    noted = {os.path.abspath(path) for path in followed.stamps}
    own = {path for path in looked if path.startswith((str(tmp_path), str(REPO / "configs")))}
    noted |= {path for path in own - noted if os.path.dirname(path) in noted and not os.path.exists(path)}
    written_to, resolved = str(tmp_path / "home" / "digests"), str(tmp_path)
    assert len(own) > 50
    assert own - noted == {str(made.store.folder), written_to, resolved}  # artefacts are noted each for itself


def listening(real: Callable[..., Any], looked: set[str]) -> Callable[..., Any]:
    def call(path: Any = ".", *arguments: Any, **more: Any) -> Any:
        if isinstance(path, str | os.PathLike):
            looked.add(os.path.abspath(path))
        return real(path, *arguments, **more)

    return call


def outside(folder: Path) -> Path:
    """A grid that reads data and a model that lie outside of the store."""
    data, model = folder / "data", folder / "model"
    data.mkdir()
    model.mkdir()
    lines = [
        {"image": f"{split}.jpg", "prompt": "?", "chosen": "a ball", "rejected": ["a cube"], "split": split}
        for split in ("train", "test")
    ]
    (data / "preferences.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        (data / str(line["image"])).write_bytes(b"no image")
    for name in ("config.json", "preprocessor_config.json"):
        (model / name).write_text("{}")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    sources = {
        "data": {"source": "preferences", "root": str(data)},
        "model": {"source": "checkpoint", "path": str(model)},
    }
    stage2 = {"objective": {"name": "dpo"}, "negatives": {"source": "dataset"}}
    base = {**sources, "benchmarks": [{"name": "captions"}], "probe": {"every": 100}}
    grid = folder / "outside.yaml"
    grid.write_text(json.dumps({"base": base, "cases": {"base": {}, "dpo": {"stage2": stage2}}, "seeds": [0, 1]}))
    return grid
