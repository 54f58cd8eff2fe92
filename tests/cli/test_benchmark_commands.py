"""Benchmarks from downloads to the table, through the command line: prepared, asked by a tiny model, judged, scored."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import cwdpo, plan_of, submit, succeed
from harness import Micro
from negatives.endpoints import Standin, serving
from servers import hub_site
from servers import serving as serving_files

from cwdpo.base import files
from cwdpo.base.store import Store
from cwdpo.evaluate.benchmarks import PREPARABLE
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.prepared import FOLDER, prepare
from cwdpo.graph import Node
from cwdpo.jobs.slurm.elements import elements

JUDGED = ("mm_vet", "mmhal", "shr")
ASKED = sorted(name for name, kind in PREPARABLE.items() if issubclass(kind, Questions))
GRID = """
description: all benchmarks of questions, asked of a tiny model
base:
  model: {{source: checkpoint, path: {model}, dtype: float32, min_pixels: 784, max_pixels: 3136}}
  judge: {{model: stand-in, base_url: {url}, concurrency: 2}}
  benchmarks:
{benchmarks}
"""


def verdict(request: Mapping[str, Any]) -> str:
    """What a stand-in for a judge says to each of the three prompts."""
    text = request["messages"][0]["content"]
    if "Judgement:" in text:
        listed = text.split("Sentences to check:")[1].split("Reply in this form")[0]
        return "Judgement:\n" + "\n".join(
            f"{n}. correct: fine" for n in range(1, len(re.findall(r"(?m)^\d+\. ", listed)) + 1)
        )
    return "It is so.\nRating: 4" if "Rating: N" in text else "0.5"


FEW = ("mmhal", "mmmu", "pope")
"""Enough to see what happens to a judged one, to several images, and to several categories."""


def write_grid(path: Path, names: Sequence[str], model: Path, url: str) -> Path:
    lines = [f"    - {{name: {name}, decoding: {{max_new_tokens: 3, block: 4}}}}\n" for name in names]
    path.write_text(GRID.format(model=model, url=url, benchmarks="".join(lines)))
    return path


@pytest.fixture(scope="module")
def computed(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home in which all benchmarks were prepared and a grid of them was computed."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in ASKED:
        importlib.import_module(f"formats.{name}").write(folder / name)
        prepare(PREPARABLE[name](name=name), folder / name, folder / "home" / FOLDER)
    with serving(Standin(verdict)) as standin:
        write_grid(folder / "few.yaml", FEW, micro.model, standin.url)
        succeed(submit(folder / "home", grid=write_grid(folder / "all.yaml", ASKED, micro.model, standin.url)))
    return folder


@pytest.fixture
def home(computed: Path, tmp_path: Path) -> Path:
    """A copy of that home."""
    shutil.copytree(computed / "home", tmp_path / "home")
    return tmp_path / "home"


def nodes(home: Path, grid: Path, stage: str, *overrides: str) -> dict[str, Node]:
    """Benchmark -> its node of a stage."""
    (wired,) = plan_of(home, *overrides, grid=grid).wired.values()
    scores = dict(wired.scores)
    return (
        scores if stage == "score" else {name: one.inputs[stage] for name, one in scores.items() if stage in one.inputs}
    )


def out(home: Path, node: Node) -> Path:
    return node.artefact(Store(home)).files


def tables(computed: Path, *arguments: str) -> dict[str, Any]:
    shown = succeed(cwdpo("report", "-g", computed / "all.yaml", "--home", computed / "home", "--json", *arguments))
    return {table["name"]: table for table in json.loads(shown)}


def test_every_benchmark_has_a_table_of_whole_numbers_of_items(computed: Path) -> None:
    found = tables(computed)
    assert list(found) == [*ASKED, "hallucinations"]
    for name, table in ((name, found[name]) for name in ASKED):
        score = nodes(computed / "home", computed / "all.yaml", "score")[name]
        summary = files.read_json(out(computed / "home", score) / "scores.json")
        (row,) = table["rows"]
        for column in table["columns"]:
            metric = column["metric"]
            stored, shown = summary["metrics"][metric["key"]], row["entries"][column["key"]]
            assert shown["mean"] == (None if stored is None else pytest.approx(metric["scale"] * stored))
        items = pq.read_table(out(computed / "home", score) / "items.parquet")
        generated = list(files.read_jsonl(out(computed / "home", score.inputs["generate"]) / "generations.jsonl"))
        assert items["id"].to_pylist() == [row["id"] for row in generated]
        assert summary["items"] == len(generated)


def test_a_score_says_what_made_it(computed: Path) -> None:
    for name, score in nodes(computed / "home", computed / "all.yaml", "score").items():
        summary = files.read_json(out(computed / "home", score) / "scores.json")
        harness = summary["harness"]
        assert harness["decoding"]["max_new_tokens"] == 3
        assert harness["image_size"] == {"longest_edge": 3136, "shortest_edge": 784}
        assert harness["versions"].keys() >= {"torch", "transformers"}
        assert harness["benchmark"]["name"] == name
        assert "{question}" in json.dumps(harness["benchmark"]) or "Describe" in harness["benchmark"]["prompt"]
        assert ("judge" in harness) == (name in JUDGED)
        assert re.fullmatch(r"[0-9a-f]{16}", summary["fingerprint"])


def test_a_judge_is_named_with_every_column_that_it_judged(computed: Path) -> None:
    shown = succeed(cwdpo("report", "-g", computed / "all.yaml", "--home", computed / "home"))
    text = (computed / "home" / "grids" / "all" / "report.md").read_text()
    for name in ASKED:
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        judged = re.findall(r"^Judged by stand-in, rules only: (.*)", section, re.MULTILINE)
        assert bool(judged) == (name in JUDGED)
        assert not any("distinct" in columns for columns in judged)  # what no judge made
    assert "not as published: " in shown


def test_a_download_is_prepared_by_the_command(computed: Path, tmp_path: Path) -> None:
    shown = succeed(cwdpo("data", "prepare", "pope", "--from", computed / "pope", "--home", tmp_path))
    assert shown.startswith("pope is ready\n")
    assert "not as published: random: " in shown
    made, known = (files.read_json(home / "benchmarks" / "pope.json") for home in (tmp_path, computed / "home"))
    assert made == known


def test_without_a_judge_nothing_is_zero(computed: Path, home: Path, tmp_path: Path) -> None:
    grid = tmp_path / "unjudged.yaml"
    grid.write_text((computed / "few.yaml").read_text().replace("  judge:", "  # judge:"))
    shown = succeed(submit(home, grid=grid))
    assert "(1 computed now)" in shown  # the same answers, scored without judgements
    report = succeed(cwdpo("report", "-g", grid, "--home", home))
    assert report.count("not available: no judge configured") == 1


def test_scores_are_made_again_without_generating(computed: Path, home: Path) -> None:
    grid = computed / "few.yaml"
    scores = nodes(home, grid, "score")
    before = {name: (out(home, node) / "scores.json").read_bytes() for name, node in scores.items()}
    nothing = succeed(cwdpo("score", "-g", grid, "--home", home))
    assert "(0 computed now)" in nothing
    again = succeed(cwdpo("score", "-g", grid, "--home", home, "--force", "-j", 2))
    assert "3 of 3 stages done (3 computed now)" in again
    assert {name: (out(home, node) / "scores.json").read_bytes() for name, node in scores.items()} == before
    assert all("attempts/2" in str(out(home, node)) for node in scores.values())
    assert all("attempts/1" in str(out(home, node)) for node in nodes(home, grid, "generate").values())


def test_scores_wait_for_answers(computed: Path, tmp_path: Path) -> None:
    shutil.copytree(computed / "home" / "benchmarks", tmp_path / "home" / "benchmarks")
    shown = succeed(cwdpo("score", "-g", computed / "few.yaml", "--home", tmp_path / "home"))
    assert "3 of 3 scores wait for answers, which `cwdpo submit` makes" in shown
    wrong = cwdpo("score", "nobody/0", "-g", computed / "few.yaml", "--home", tmp_path / "home")
    assert (wrong.returncode, "unknown cell 'nobody/0'" in wrong.stderr) == (2, True)


def test_a_limit_is_marked_wherever_it_shows(computed: Path, home: Path) -> None:
    grid = computed / "few.yaml"
    overrides = ("-g", grid, "--home", home, "--limit", 2)
    with serving(Standin(verdict)) as standin:
        succeed(cwdpo("submit", *overrides, "-c", "local", "-s", f"judge.base_url={standin.url}"))
    shown = succeed(cwdpo("report", *overrides))
    text = (home / "grids" / "few-limit-2" / "report.md").read_text()
    for name in FEW:
        assert f"few-limit-2 / {name} (PARTIAL: only some items were scored)" in shown
        assert f"## {name} (PARTIAL: only some items were scored)" in text
    assert shown.count("2 items of benchmark ") == len(FEW)
    for node in nodes(home, grid, "score", "limit=2").values():
        assert files.read_json(out(home, node) / "scores.json")["partial"] is True
    assert "PARTIAL" not in succeed(cwdpo("report", "-g", grid, "--home", home))


def test_the_list_says_what_is_ready_and_what_to_download(computed: Path, home: Path) -> None:
    found = json.loads(succeed(cwdpo("data", "list", "--home", home, "--json")))
    assert sorted(one["benchmark"] for one in found["ready"]) == ASKED
    assert {one["fault"] for one in found["ready"]} == {""}
    checked = succeed(cwdpo("data", "check", "-g", computed / "few.yaml", "--home", home))
    assert checked.splitlines() == [f"benchmark {name}: ready" for name in FEW]
    assert found["not_ready"].keys() == PREPARABLE.keys() - set(ASKED)
    receipt = files.read_json(home / "benchmarks" / "pope.json")
    files.write_json(home / "benchmarks" / "pope.json", {**receipt, "root": "/nowhere"})
    shown = succeed(cwdpo("data", "list", "--home", home))
    assert "pope: NOT USABLE: benchmark 'pope': /nowhere/" in shown
    assert "gqa: ready, " in shown
    assert "coco: not ready; download dataset_coco.json" in shown
    wrong = cwdpo("data", "check", "-g", computed / "few.yaml", "--home", home)
    assert (wrong.returncode, "benchmark pope: benchmark 'pope': /nowhere/" in wrong.stdout) == (3, True)


def test_results_outlive_the_download(computed: Path, home: Path) -> None:
    """What was answered is scored, reported and compared wherever the files are now; only new answers need them."""
    receipt = files.read_json(home / "benchmarks" / "pope.json")
    files.write_json(home / "benchmarks" / "pope.json", {**receipt, "root": "/nowhere"})
    whole = ("-g", computed / "few.yaml", "--home", home)
    assert "few / pope" in succeed(cwdpo("report", *whole))
    succeed(submit(home, grid=computed / "few.yaml"))
    shutil.rmtree(nodes(home, computed / "few.yaml", "questions")["pope"].artefact(Store(home)).folder)
    stopped = submit(home, grid=computed / "few.yaml")
    assert stopped.returncode == 2
    assert "say where it lies now: cwdpo data prepare pope --from FOLDER" in stopped.stderr


def test_every_benchmark_that_is_not_ready_is_named(computed: Path, tmp_path: Path) -> None:
    stopped = cwdpo("plan", "--strict", "-g", computed / "few.yaml", "--home", tmp_path / "home")
    assert stopped.returncode == 2
    assert [line.split("'")[1] for line in stopped.stderr.splitlines()] == list(FEW)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("pop", "--from", "."), 2, "unknown benchmark 'pop'; did you mean 'pope'? valid: "),
        (("pope", "--from", "/no/such"), 2, "--from: no such folder '/no/such'"),
        (("pope", "--from", "."), 3, "no file 'coco_pope_random.json' in it"),
        (
            ("mmbench", "--from", ".", "--set", "prompt=x"),
            2,
            "--set prompt: does not decide which items mmbench has; valid: version",
        ),
        (("mmbench", "--from", ".", "--set", "version=2"), 2, "--set: version: "),
        (("gqa", "--from", "hub"), 2, "--from hub: the hub has no copy of gqa in its own format; download "),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = cwdpo("data", "prepare", *arguments, "--home", tmp_path, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("benchmarks/*.json"))


def test_one_that_fails_keeps_no_other_and_is_tried_once(computed: Path, home: Path, tmp_path: Path) -> None:
    """All are asked in one job, so that the model is loaded once; the tiny model has no room for so long an answer."""
    grid = tmp_path / "bad.yaml"
    few = {"own": 4000, "gqa": 2, "pope": 2}
    lines = [f"    - {{name: {name}, decoding: {{max_new_tokens: {n}, block: 5}}}}\n" for name, n in few.items()]
    model = (computed / "few.yaml").read_text().split("path: ")[1].split(",")[0]
    grid.write_text(GRID.format(model=model, url="http://nowhere", benchmarks="".join(lines)))
    done = submit(home, grid=grid)
    assert done.returncode == 1
    assert done.stdout.count("FAILED generate own") == 1
    assert "none of 6 items leaves room for an answer of 4000 tokens" in done.stdout
    assert {name for name in few if f"done   score {name} (" in done.stdout} == {"gqa", "pope"}
    assert "1 stage(s) wait for them" in done.stderr
    attempts = nodes(home, grid, "generate")["own"].artefact(Store(home)).attempts
    assert [path.name for path in attempts.iterdir()] == ["1"]


def test_on_slurm_only_judged_scores_wait_for_a_judge(computed: Path, tmp_path: Path) -> None:
    shutil.copytree(computed / "home" / "benchmarks", tmp_path / "home" / "benchmarks")
    todo = plan_of(tmp_path / "home", grid=computed / "few.yaml").nodes
    found = elements(todo, ("prepare", "generate", "score"), {}, {node.id: node.title for node in todo})
    shape = sorted(tuple(sorted(node.title for node in element.nodes)) for element in found)
    assert shape == [
        ("generate mmhal", "generate mmmu", "generate pope"),
        ("judge mmhal",),
        ("questions mmhal", "questions mmmu", "questions pope"),
        ("score mmhal",),
        ("score mmmu", "score pope"),
    ]


def test_a_benchmark_from_the_hub(computed: Path, tmp_path: Path) -> None:
    """From a stand-in for the hub: this machine has no way to the real one."""
    site = hub_site("MMMU/MMMU", computed / "mmmu", kind="datasets")
    with serving_files(site):
        online = {"HF_ENDPOINT": site.url, "HF_HOME": str(tmp_path / "hub")}
        shown = succeed(cwdpo("data", "prepare", "mmmu", "--from", "hub", "--home", tmp_path / "home", **online))
    assert "mmmu is ready" in shown
    made, known = (
        files.read_json(home / "benchmarks" / "mmmu.json") for home in (tmp_path / "home", computed / "home")
    )
    assert made["digest"] == known["digest"]
