"""From a value of a table to the files, settings, stages and jobs behind it; facts are written here by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pretend import pretend_done, pretend_ended
from typer.testing import CliRunner

from cwdpo.base.errors import ConfigError
from cwdpo.base.store import Artefact, Store
from cwdpo.cli.main import app
from cwdpo.experiment import load_grid
from cwdpo.graph import Node
from cwdpo.jobs.plan import Plan, make_plan

ITEMS = 7
STAGE1 = {"objective": {"name": "sft_c"}, "negatives": {"source": "perturb"}}
CW_DPO = {"objective": {"name": "cw_dpo", "tau": 2.0}, "negatives": {"source": "perturb"}}
DPO = {"objective": {"name": "dpo", "beta": 0.3}, "negatives": {"source": "perturb"}}
GRID = {
    "base": {
        "data": {"source": "demo_world"},
        "model": "tiny",
        "benchmarks": [{"name": "captions"}, {"name": "nocaps", "data": {"source": "demo_world"}}],
    },
    "cases": {
        "base": {},
        "dpo": {"stage1": {"objective": {"name": "sft"}}, "stage2": DPO},
        "cw_dpo": {"stage1": STAGE1, "stage2": CW_DPO},
    },
    "seeds": [0, 1],
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    grid = tmp_path / "own.yaml"
    grid.write_text(json.dumps(GRID))
    made = make_plan(load_grid(str(grid)), Store(tmp_path / "home"))
    pretend_done(made, made.nodes, items=ITEMS)
    return made


def ask(plan: Plan, *words: str) -> str:
    home = plan.store.home
    line = ["report", "-g", str(home.parent / "own.yaml"), "--home", str(home), *words]
    done = CliRunner().invoke(app, line)
    if isinstance(done.exception, ConfigError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return str(done.output)


def traced(plan: Plan, address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(plan, "--why", address, "--json"))
    return found


def node_of(plan: Plan, stage: str, cell: str = "cw_dpo/0") -> Node:
    """The last one of a stage that the score of captions is made by."""
    nodes = [node for node in plan.wired[cell].nodes() if node.stage.name == stage]
    return plan.wired[cell].scores["captions"] if stage == "score" else nodes[0 if stage == "generate" else -1]


def name_of(plan: Plan, stage: str, cell: str = "cw_dpo/0") -> str:
    return f"{stage}-{node_of(plan, stage, cell).id[:16]}"


def stage(found: Mapping[str, Any], folder: str) -> dict[str, Any]:
    step: dict[str, Any] = next(step for step in found["stages"] if step["folder"] == folder)
    return step


def provenance(artefact: Artefact, attempt: int, **changes: Any) -> None:
    path = artefact.folder / "DONE"
    done = json.loads(path.read_text())
    path.write_text(json.dumps({**done, "attempt": attempt, "provenance": {**done["provenance"], **changes}}))


# ---- what it says


def test_value_files_and_settings_of_every_seed(plan: Plan) -> None:
    found = traced(plan, "cw_dpo/captions.cider")
    table = next(one for one in json.loads(ask(plan, "--json")) if one["name"] == "captions")
    entry = next(row for row in table["rows"] if row["key"] == "cw_dpo")["entries"]["cider"]
    assert found["entry"] == entry
    assert [one["cell"] for one in found["seeds"]] == ["cw_dpo/0", "cw_dpo/1"]
    for seed, one in enumerate(found["seeds"]):
        (score,) = one["scores"]
        home = plan.store.home
        rows = pq.read_table(home / score["items"]).to_pylist()
        assert len(rows) == score["rows"] == ITEMS
        assert one["result"]["value"] == pytest.approx(100 * sum(row["cider"] for row in rows) / ITEMS)
        assert (home / score["summary"]).is_file()
        assert (home / score["generations"]).is_file()
        assert score["folder"] == name_of(plan, "score", f"cw_dpo/{seed}")
        assert one["policy"] == name_of(plan, "stage2", f"cw_dpo/{seed}")
        stage1 = name_of(plan, "stage1", f"cw_dpo/{seed}")
        assert one["reference"] == {name_of(plan, "reference", f"cw_dpo/{seed}"): f"log-probabilities under {stage1}"}
        assert list(one["negatives"].values()) == ["source perturb, for stage1", "source perturb, for stage2"]
    objectives = {"stage1.objective.name": "sft_c", "stage2.objective.name": "cw_dpo", "stage2.objective.beta": 0.1}
    assert found["differs"] == objectives
    assert found["settings"]["stage1"]["objective"]["name"] == "sft_c"
    assert found["settings"]["stage2"]["objective"]["tau"] == 2.0
    assert found["settings"]["tuning"]["rank"] == 64


def test_the_text_says_the_value_as_the_table_prints_it(plan: Plan) -> None:
    text, table = ask(plan, "--why", "cw_dpo/captions.cider"), ask(plan, "-t", "benchmarks")
    printed = re.match(r"cw_dpo, CIDEr: (\d+\.\d ± \d+\.\d)\n", text)
    assert printed
    assert printed[1] in table
    assert "  mean ± standard deviation of 2 results (seeds 0, 1), stored values x100\n" in text
    assert "Welch's t over seeds" not in text  # the base model, which has no seeds, is what it is compared with
    assert "to base; one-sample t over seeds: speaks of new trainings" in text
    assert f"({ITEMS} rows)" in text
    assert "cwdpo logs cw_dpo/0 --grid" in text
    assert "cwdpo submit --grid" in text


def test_the_base_model_has_no_training_behind_it(plan: Plan) -> None:
    text = ask(plan, "--why", "base/captions.cider")
    assert "one result, which all seeds share (0, 1)" in text
    assert "policy: the base model\n  reference: none is used\n" in text
    assert "set otherwise than in some other row\n  stage1: not set\n  stage2: not set\nsettings\n" in text
    assert not re.search(r"^(stage1|stage2|negatives)", text, re.MULTILINE)


def test_only_what_is_on_the_way_to_the_value(plan: Plan) -> None:
    """The other benchmark is none of its business."""
    folders = {step["folder"] for step in traced(plan, "cw_dpo/0/captions.cider")["stages"]}
    other = plan.wired["cw_dpo/0"].scores["nocaps"]
    assert name_of(plan, "score") in folders
    assert f"score-{other.id[:16]}" not in folders
    assert name_of(plan, "score", "cw_dpo/1") not in folders


def test_jobs_nodes_attempts_and_gpu_hours(plan: Plan) -> None:
    artefact = node_of(plan, "stage2").artefact(plan.store)
    claim = {"host": "node7", "pid": 1, "process_started": "0", "time": 1000.0, "slurm_array": "41", "index": 5}
    (artefact.attempts / "1" / "claim.json").write_text(json.dumps({**claim, "nodes": ["node7", "node8"]}))
    result = artefact.attempts / "1" / "result.json"
    result.write_text(json.dumps({"state": "failed", "kind": "X", "message": "out of memory"}))
    os.utime(result, (2800, 2800))
    second = artefact.attempts / "2"
    second.mkdir()
    (second / "claim.json").write_text(json.dumps({**claim, "time": 5000.0, "slurm_array": "47", "nodes": ["node9"]}))
    (artefact.attempts / "1" / "out").rename(second / "out")
    peak = {"memory": 1, "gpu_memory": 2}
    image = {"path": "cluster.sif", "digest": "sha256:" + "ab" * 32}
    made = {"ranks": 8, "seconds": 3600.0, "peak_bytes": peak, "commit": "12" * 20, "dirty": True, "host": "node9"}
    provenance(artefact, attempt=2, image=image, **made)

    found = stage(traced(plan, "cw_dpo/0/captions.cider"), name_of(plan, "stage2"))
    assert found["slurm"] == ["41_5", "47_5"]
    assert found["gpu_hours"] == pytest.approx((1800 + 3600) * 8 / 3600)
    assert found["commit"] == "121212121212 with changes"
    assert [one["outcome"] for one in found["tries"]] == ["failed", "done"]
    text = ask(plan, "--why", "cw_dpo/0/captions.cider")
    assert "commit 121212121212 with changes, sha256:abababababab, host node9, 8 rank(s)\n" in text
    assert "versions: python 3.11.7, torch 2.13.0, transformers 5.23.0\n" in text
    assert "attempt 1: failed after 30m00s (node7, Slurm job 41_5, nodes node7 node8, begun" in text
    assert "): out of memory\n" in text
    assert "1h30m of wall time; 12.00 GPU-hours\n" in text
    others = len(traced(plan, "cw_dpo/0/captions.cider")["stages"]) - 1
    assert f"in all: {others + 1} of {others + 1} stages done, {others + 2} attempts, 1h30m of wall time" in text


def test_a_missing_value_has_its_chain_of_causes(plan: Plan) -> None:
    score, generate = node_of(plan, "score"), node_of(plan, "generate")
    for node in (score, generate):
        folder = node.artefact(plan.store).folder
        folder.rename(folder.with_name(f"aside-{folder.name}"))
    pretend_ended(plan.store, generate, failed=True)
    text = ask(plan, "--why", "cw_dpo/captions.cider")
    assert "(n=1, 1 failed)\n" in text.splitlines(keepends=True)[0]
    assert "seed 0 (cw_dpo/0): failed: generate captions: made up\n" in text
    assert f"    score captions {score.id[:16]}: waits for generate captions {generate.id[:8]}\n" in text
    assert f"      generate captions {generate.id[:16]}: failed: made up\n" in text
    assert "cwdpo why cw_dpo/0 --grid" in text
    assert traced(plan, "cw_dpo/captions.cider")["seeds"][0]["gap"]["kind"] == "failed"


def test_damaged_files_are_named(plan: Plan) -> None:
    items = node_of(plan, "score").artefact(plan.store).files / "items.parquet"
    items.write_bytes(b"x" * items.stat().st_size)
    os.truncate(node_of(plan, "score", "cw_dpo/1").artefact(plan.store).files / "scores.json", 5)
    text = ask(plan, "--why", "cw_dpo/captions.cider")
    assert re.search(r"per item: .*items\.parquet \(.* cannot be read", text)
    damaged = name_of(plan, "score", "cw_dpo/1")
    assert f"seed 1 (cw_dpo/1): damaged: {damaged}: scores.json is missing or changed since it was written\n" in text


NAMES = ("$(id)", "a;b", "it's", "-dash", "a b", "`tick`")


@pytest.fixture
def awkward(tmp_path: Path) -> Plan:
    """A grid whose cases have names that mean something to a shell, or to a command line."""
    grid = tmp_path / "own.yaml"
    rates = {name: {"stage1": {"optimization": {"learning_rate": 1e-5 * place}}} for place, name in enumerate(NAMES, 1)}
    base = {**GRID["base"], "stage1": {"objective": {"name": "sft"}}}  # type: ignore[dict-item]
    grid.write_text(json.dumps({"base": base, "cases": rates}))
    made = make_plan(load_grid(str(grid)), Store(tmp_path / "home"))
    pretend_done(made, made.nodes, items=ITEMS)
    return made


def test_commands_can_be_pasted_whatever_the_name(awkward: Plan) -> None:
    for name in NAMES:
        for node in awkward.wired[f"{name}/0"].nodes():
            (node.artefact(awkward.store).attempts / "1" / "stderr").write_text(f"said of {name}\n")
        commands = traced(awkward, f"{name}/captions.cider")["commands"]
        for key, answer in (("log", f"said of {name}\n"), ("state", f"{name}/0: all done\n")):
            assert commands[key].startswith("cwdpo ")
            words = as_a_shell_reads(commands[key].removeprefix("cwdpo "))
            done = CliRunner().invoke(app, [words[0], "--home", str(awkward.store.home), *words[1:]])
            assert answer in done.output, (name, done.exception)


def as_a_shell_reads(words: str) -> list[str]:
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# ---- which value


def test_what_is_unknown_or_ambiguous_names_what_is_valid(plan: Plan) -> None:
    for address, message in {
        "cw_dpo/captions.cidr": "row 'cw_dpo' has no column 'captions.cidr'; ",
        "cw_dp/captions.cider": "unknown row 'cw_dp'; did you mean 'cw_dpo'? valid: base, cw_dpo, dpo",
        "cw_dpo/7/captions.cider": "row 'cw_dpo' has no seed '7'; valid: 0, 1",
        "cw_dpo/\N{SUPERSCRIPT TWO}/captions.cider": "unknown row 'cw_dpo/\N{SUPERSCRIPT TWO}'; did you mean 'cw_dpo'?",
        "cw_dpo": "expected ROW/COLUMN or ROW/SEED/COLUMN; its columns: bleu_4, ",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            ask(plan, "--why", address)
    with pytest.raises(ConfigError, match="told as text or json, not as csv"):
        ask(plan, "--why", "cw_dpo/captions.cider", "--format", "csv")


def test_columns_of_the_same_name_need_their_benchmark(tmp_path: Path) -> None:
    from cwdpo.evaluate.question import Metric
    from cwdpo.report.address import find
    from cwdpo.report.content import Column, Entry, Row, Table

    def table(name: str, *columns: Column) -> Table:
        row = Row("sft", "SFT", "sft", {column.key: Entry() for column in columns})
        return Table(name, name.capitalize(), "grid", "--grid grid", "", columns, (row,), "sft")

    cider, cost = Metric("cider", "CIDEr"), Metric("step_cost", "step cost")
    coco, nocaps = (Column("cider", "CIDEr", "", name, cider) for name in ("coco", "nocaps"))
    tables = [table("coco", coco), table("nocaps", nocaps), table("again", coco)]
    with pytest.raises(
        ConfigError, match=re.escape("2 columns 'cider'; did you mean 'coco.cider'? valid: coco.cider, nocaps.cider")
    ):
        find(tables, "sft/cider")
    assert find(tables, "sft/nocaps.cider").table.name == "nocaps"
    assert find(tables, "sft/3/coco.cider").seed == 3
    costs = [table("one", Column("step_cost", "", "", "", cost)), table("two", Column("step_cost", "", "", "", cost))]
    with pytest.raises(ConfigError, match=re.escape("step_cost (--table one), step_cost (--table two)")):
        find(costs, "sft/step_cost")


def test_tables_are_named_as_they_are_asked_for(tmp_path: Path) -> None:
    """By their path, by their file where they are of an included grid, and as `benchmarks`."""
    from cwdpo.evaluate.question import Metric
    from cwdpo.report.address import find
    from cwdpo.report.content import Column, Entry, Row, Table

    def table(name: str, title: str, command: str) -> Table:
        column = Column("gain", "", "", "", Metric("gain", "gain"))
        row = Row("sft", "SFT", "sft", {"gain": Entry()}, (title,))
        return Table(name, title, "grid", "--grid it's", command, (column,), (row,), "sft")

    def options(command: str, *named: tuple[str, str]) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            find([table(name, title, command) for name, title in named], "sft/gain")
        return re.findall(r"gain \((.*?)\)", str(raised.value).partition("valid: ")[2])

    both = "cwdpo report --grid it's --table a/one.yaml --table 'b b/one.yaml' --table a/one.yaml --paper"
    assert options(both, ("one", "One"), ("one", "Another")) == ["--table 'b b/one.yaml'", "--table a/one.yaml"]
    asked = "cwdpo report --grid it's --table two --table benchmarks"
    assert options(asked, ("two", "Two"), ("hallucinations", "hallucinations")) == [
        "--table benchmarks", "--table two",
    ]  # fmt: skip
    of_grid = "cwdpo report --grid it's"
    assert options(of_grid, ("two-g-demo", "Two (g-demo)"), ("one-g-demo", "One (g-demo)")) == [
        "--table one", "--table two",
    ]  # fmt: skip
