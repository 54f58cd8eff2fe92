"""`cwdpo plan` before anything is there: it lists what is missing, and forecasts all the same; `submit` refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import MICRO, cwdpo
from typer.testing import CliRunner, Result

from cwdpo.base.errors import ConfigError, CwdpoError
from cwdpo.cli.main import app

GRID = """
base:
  data: {source: karpathy, root: nowhere/coco}
  model: qwen2.5-vl-7b
  benchmarks: [{name: coco}, {name: pope}, {name: flickr30k}]
cases:
  base: {}
  sft: {stage1: {}}
  dpo: {stage1: {}, stage2: {objective: {name: dpo}, negatives: {source: perturb}}}
seeds: [0, 1, 2]
"""

PROFILE = """
kind: slurm
node: {gpus: 4, cpus: 64, gpu_memory_gb: 80, gpu_type: a100}
train: {nodes: 2}
"""


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for a grid of which nothing is here."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "cluster.yaml").write_text(PROFILE)
    return [
        "--grid", str(tmp_path / "grid.yaml"), "--home", str(tmp_path / "home"),
        "--cluster", str(tmp_path / "cluster.yaml"),
    ]  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def planned(*arguments: str) -> Any:
    done = run("plan", *arguments, "--json")
    assert (done.exit_code, done.exception) == (0, None), done.output
    return json.loads(done.stdout)


def test_what_is_missing_is_listed_once_with_its_remedy(arguments: list[str], tmp_path: Path) -> None:
    found = planned(*arguments)
    lacking = {(one["kind"], one["name"]): one["remedy"] for one in found["before_submit"]}
    assert lacking == {
        ("data", "nowhere/coco/dataset_coco.json"): "put the data there, or say where it is: --set data.root=FOLDER",
        ("model", "Qwen/Qwen2.5-VL-7B-Instruct"): f"cwdpo fetch --grid {tmp_path / 'grid.yaml'}",
        ("benchmark", "pope"): "cwdpo data prepare pope --from FOLDER",
        ("benchmark", "flickr30k"): "cwdpo data prepare flickr30k --from FOLDER",
    }
    assert len(found["before_submit"]) == len(lacking)
    assert not (tmp_path / "home").exists()


def test_the_forecast_is_there_all_the_same(arguments: list[str]) -> None:
    found = planned(*arguments)
    counts = {one["stage"]: (one["distinct"], one["naive"]) for one in found["forecast"]["stages"]}
    # sft and dpo share three Stage 1; base is asked once, not once a seed.
    assert (counts["stage1"], counts["stage2"], counts["generate"]) == ((3, 6), (3, 3), (21, 27))
    assert found["forecast"]["unit"] == "gpu-hours"
    hours = found["forecast"]["hours"]
    assert 0 < hours["low"] < hours["middle"] < hours["high"]
    assert {one["fits"] for one in found["forecast"]["memory"]} == {True}


def test_ids_are_provisional_where_what_they_stand_for_is_missing(arguments: list[str], tmp_path: Path) -> None:
    found = planned(*arguments)
    assert set(found["provisional"]) == {node["id"] for node in found["nodes"]}
    micro = planned("--grid", str(MICRO), "--cluster", "local", "--home", str(tmp_path / "home"))
    assert (micro["provisional"], micro["before_submit"]) == ([], [])


def test_on_a_terminal(arguments: list[str]) -> None:
    said = run("plan", *arguments).stdout
    assert "before submit" in said
    assert "model Qwen/Qwen2.5-VL-7B-Instruct: " in said
    assert "~  " in said, "provisional ids are marked"
    for beginning in ("trainings: 6 distinct, 9 if", "makespan: ", "memory of stage2 (dpo, Qwen2.5-VL-7B", "storage: "):
        assert beginning in said
    assert "assumed: dataset_coco.json: 113,287 images to train on" in said


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--set", "model=tiny"), 2, "benchmark 'pope' is not ready"),
        (("--set", "benchmarks=[{name: coco}]"), 3, "hf download Qwen/Qwen2.5-VL-7B-Instruct"),
        (("--set", "benchmarks=[{name: coco}]", "--set", "model=tiny"), 2, "no such folder 'nowhere/coco'"),
    ],
    ids=["benchmarks", "model", "data"],
)
def test_submit_refuses_as_ever(
    arguments: list[str], tmp_path: Path, more: tuple[str, ...], status: int, message: str
) -> None:
    submitted = cwdpo("submit", *arguments, *more, HF_HOME=str(tmp_path / "hub"))
    assert (submitted.returncode, message in submitted.stderr) == (status, True), submitted.stderr
    assert not (tmp_path / "home" / "grids").exists()
    strict = run("plan", "--strict", *arguments, *more).exception
    assert isinstance(strict, CwdpoError)
    assert (strict.exit_code, message in str(strict)) == (status, True)


def test_submit_names_all_that_is_not_there_at_once(arguments: list[str], tmp_path: Path) -> None:
    lines = cwdpo("submit", *arguments, HF_HOME=str(tmp_path / "hub")).stderr.splitlines()
    assert [line.removeprefix("error: ").partition(" is ")[0].partition(": ")[0] for line in lines] == [
        "model.path", "data.root", "benchmark 'pope'", "benchmark 'flickr30k'",
    ]  # fmt: skip


def test_two_data_sets_are_not_moved_by_one_option(arguments: list[str], tmp_path: Path) -> None:
    text = GRID.replace("base: {}", "base: {}\n  other: {data: {root: elsewhere}, stage1: {}}")
    (tmp_path / "grid.yaml").write_text(text)
    remedies = [one["remedy"] for one in planned(*arguments)["before_submit"] if one["kind"] == "data"]
    assert remedies == [
        f"put the data there, or change its `root: {root}` in the grid" for root in ("nowhere/coco", "elsewhere")
    ]


def test_data_of_a_benchmark_alone_are_not_moved_by_it_either(arguments: list[str], tmp_path: Path) -> None:
    asked = "[{name: coco, data: {source: karpathy, root: nowhere/coco}}]"
    (tmp_path / "grid.yaml").write_text(f"base: {{model: tiny, benchmarks: {asked}}}\n")
    (one,) = planned(*arguments)["before_submit"]
    assert one["remedy"] == "put the data there, or change its `root: nowhere/coco` in the grid"


def test_what_the_hub_has_is_said(arguments: list[str]) -> None:
    found = planned(*arguments, "--set", "benchmarks=[{name: mmmu}]")["before_submit"]
    assert [one["remedy"] for one in found if one["kind"] == "benchmark"] == [
        "cwdpo data prepare mmmu --from FOLDER, or: cwdpo data prepare mmmu --from hub"
    ]


ASKED = """
base:
  data: {source: karpathy, root: nowhere/coco}
  model: qwen2.5-vl-7b
  stage1: {}
  stage2: {objective: {name: dpo}, negatives: {source: llm, endpoint: {model: gpt-4o, key: TEAM_KEY}}}
  benchmarks: [{name: mm_vet}]
  judge: {model: judge-7b, base_url: "http://node7:8000/v1", budget: {tokens: 9000}}
seeds: [0, 1]
"""


def test_who_is_asked_how_often_and_by_which_key(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid.yaml").write_text(ASKED)
    monkeypatch.delenv("TEAM_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    writer, judge = planned(*arguments)["forecast"]["endpoints"]
    half = 113_287 // 2  # of the images of COCO's training split, which Stage 2 is asked about, a caption each
    assert (writer["model"], writer["address"], writer["key"], writer["key_is_set"]) == (
        "gpt-4o", "OpenAI", "TEAM_KEY", False,
    )  # fmt: skip
    assert half <= writer["calls"]["llm"] <= 5 * (half + 1)
    assert (judge["address"], judge["calls"], judge["budget"]["tokens"]) == (
        "http://node7:8000/v1", {"judge": 2 * 218}, 9000,
    )  # fmt: skip
    said = " ".join(run("plan", *arguments).stdout.split())
    assert "asks gpt-4o at OpenAI (TEAM_KEY, which holds its key, is not set here): llm " in said
    assert "asks judge-7b at http://node7:8000/v1 (without a key): judge 436 calls; tokens and cost are not" in said
    assert "and each stage ends at tokens 9,000" in said
    monkeypatch.setenv("TEAM_KEY", "secret-of-the-team")
    said = run("plan", *arguments).stdout
    assert "(key in TEAM_KEY)" in said
    assert "secret-of-the-team" not in said


@pytest.mark.parametrize("override", ["stage2.objective.betta=1", "data.rooot=/data", "model.dtype=float8"])
def test_a_wrong_key_dies_all_the_same(arguments: list[str], override: str) -> None:
    done = run("plan", *arguments, "--set", override)
    assert isinstance(done.exception, ConfigError), done.output


def test_a_damaged_annotation_file_is_to_be_mended_first(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "dataset_coco.json").write_text("{")
    found = planned(*arguments, "--set", f"data.root={tmp_path}")
    (one,) = [one for one in found["before_submit"] if one["kind"] == "data"]
    assert f"{tmp_path}/dataset_coco.json" in one["why"]


def test_budget_decides_the_exit_status(arguments: list[str]) -> None:
    hours = planned(*arguments)["forecast"]["hours"]
    more, less = str(hours["high"] + 1), str(hours["middle"] / 3)
    assert run("plan", *arguments, "--budget", more).exit_code == 0
    between = run("plan", *arguments, "--budget", str((hours["middle"] + hours["high"]) / 2))
    assert (between.exit_code, "not by the high estimate" in between.stdout) == (0, True)
    done = run("plan", *arguments, "--budget", less)
    assert (done.exit_code, "are NOT enough" in done.stdout) == (1, True)
    found = run("plan", *arguments, "--budget", less, "--json")
    assert found.exit_code == 1
    budget = json.loads(found.stdout)["forecast"]["budget"]
    assert (budget["enough"], budget["cells"], 0 <= len(budget["cells_done_first"]) < 9) == (False, 9, True)


def test_a_job_limit_lengthens_the_makespan(arguments: list[str]) -> None:
    free = planned(*arguments)["forecast"]["makespan"]
    limited = planned(*arguments, "--job-limit", "2")["forecast"]["makespan"]
    assert limited["limits"]["queue"] == 2
    assert limited["seconds"]["middle"] > 1.5 * free["seconds"]["middle"]
    assert limited["without_limits"] == free["seconds"]
    shorter = [one["seconds"] for one in free["what_if"]]
    assert shorter == sorted(shorter, reverse=True)


def test_a_model_that_does_not_fit_names_what_to_turn(arguments: list[str]) -> None:
    said = run("plan", *arguments, "--set", "model=qwen2.5-vl-72b").stdout
    assert "DOES NOT FIT; it would with zero_stage 3" in said
    assert "DOES NOT FIT; it would with inference tensor_parallel, replica_size" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--job-limit", "2", "--nodes", "1"), "--job-limit, --nodes: of Slurm only; this profile has kind local"),
        (("--budget", "inf"), "--budget inf: expected a number of hours"),
    ],
)
def test_what_would_say_nothing_is_refused(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    done = cwdpo("plan", "--grid", "demo", "--cluster", "local", "--home", tmp_path, *given)
    assert done.returncode == 2
    assert said in done.stderr
