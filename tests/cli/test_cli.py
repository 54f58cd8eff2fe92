"""The command line as a user meets it: help at once, no torch on a login node, errors that say what is valid."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import MICRO, REPO, copy_home, cwdpo, folder, node_of, python, submit, succeed

COMMANDS = ("plan", "submit", "status", "report", "track", "export", "score", "compare")
BARE = Path(__file__).resolve().parent / "bare"
HEAVY = "torch,transformers,deepspeed,peft,mlflow,submitit,datasets,accelerate"
HELP_SECONDS = 0.3


def without(packages: str) -> dict[str, str]:
    """Environment in which `packages` cannot be imported."""
    return {"CWDPO_TEST_FORBIDDEN": packages, "PYTHONPATH": f"{BARE}{os.pathsep}{REPO}"}


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The message of a command that must fail with `status`, in a few lines and without a traceback."""
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


# Help


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_needs_no_library(name: str) -> None:
    shown = succeed(cwdpo(*filter(None, [name]), "--help", **without(f"{HEAVY},numpy,PIL,rich")))
    assert "Usage:" in shown
    if name:
        assert f"cwdpo {name}" in shown[shown.index("Example: ") :]
    else:
        assert all(f"\n  {other} " in shown for other in COMMANDS)
        assert "Exit status: 0 done" in shown


def test_short_help_and_no_arguments_show_the_same() -> None:
    whole = succeed(cwdpo("--help"))
    assert succeed(cwdpo("-h")) == whole
    bare = cwdpo()
    assert (bare.returncode, bare.stdout + bare.stderr) == (2, whole)


def test_help_is_instant() -> None:
    """Of the processor: by the clock it is as slow as the machine is busy."""
    best = min(_seconds("--help") for _ in range(5))
    print(f"\n--help: {best:.3f} s of the processor, best of 5 (wanted: {HELP_SECONDS})")
    assert best < 1.0


def _seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    succeed(cwdpo(*arguments))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_version_names_the_commit() -> None:
    git = ["git", "-C", str(REPO), "rev-parse", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"{REPO} is no git checkout")
    assert f"(commit {found.stdout[:12]}" in succeed(cwdpo("--version"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    code = "import sys; sys.argv = ['cwdpo']; from cwdpo.cli.main import main; main()"
    script = succeed(python("-c", code, _CWDPO_COMPLETE=f"source_{shell}"))
    assert "complet" in script
    assert "_CWDPO_COMPLETE=complete_" in script


# No torch on a login node


@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--json"], ["status"], ["report", "-o", os.devnull]])
def test_login_node_needs_no_torch(arguments: list[str], finished: Path, tmp_path: Path) -> None:
    home = finished
    if arguments[0] == "report":
        home, arguments = copy_home(finished, tmp_path / "home"), ["report"]
    shown = succeed(cwdpo(*arguments, "-g", MICRO, "--home", home, **without(HEAVY)))
    assert "cw_dpo" in shown or "stage2" in shown


def test_scoring_a_finished_grid_again_needs_no_torch(finished: Path) -> None:
    assert "(0 computed now)" in succeed(submit(finished, **without(HEAVY)))


# Plan


def test_plan_on_an_empty_home_computes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    shown = succeed(cwdpo("plan", "-g", MICRO, "--home", home))
    assert "8 cells, 34 distinct stages (82 if nothing were shared), 0 done" in shown
    assert not home.exists()
    succeed(cwdpo("status", "-g", MICRO, "--home", home))
    assert not home.exists()


def test_plan_json(finished: Path, tmp_path: Path) -> None:
    empty = json.loads(succeed(cwdpo("plan", "-g", MICRO, "--home", tmp_path / "home", "--json")))
    full = json.loads(succeed(cwdpo("plan", "-g", MICRO, "--home", finished, "--json")))
    assert {node["state"] for node in empty["nodes"]} == {"missing"}
    assert {node["state"] for node in full["nodes"]} == {"done"}
    assert [node["id"] for node in empty["nodes"]] == [node["id"] for node in full["nodes"]]
    assert [(cell["case"], cell["seed"]) for cell in full["cells"]][-2:] == [("cw_dpo", 0), ("cw_dpo", 1)]
    assert json.loads((finished / "grids" / "micro" / "plan.json").read_text())["naive_count"] == full["naive_count"]


def test_status_and_report_json(finished: Path, tmp_path: Path) -> None:
    home = copy_home(finished, tmp_path / "home")
    status = json.loads(succeed(cwdpo("status", "-g", MICRO, "--home", home, "--json")))
    assert [cell["case"] for cell in status["cells"]] == ["base"] * 2 + ["sft"] * 2 + ["dpo"] * 2 + ["cw_dpo"] * 2
    assert status["cells"][0]["stages"] == {"pretrain": "done", "generate": "done", "score": "done"}
    (table,) = json.loads(succeed(cwdpo("report", "-g", MICRO, "--home", home, "--json")))
    assert [row["key"] for row in table["rows"]] == ["base", "sft", "dpo", "cw_dpo"]
    assert table["caption"][0] == "8 items of benchmark captions; scores x100"


# Wrong configuration


@pytest.mark.parametrize("name", ["plan", "submit", "status", "report", "track"])
def test_unknown_grid_lists_the_known_ones(name: str, tmp_path: Path) -> None:
    complaint = refused(cwdpo(name, "-g", "demoo", "--home", tmp_path / "home"), 2)
    assert "unknown grid 'demoo'; did you mean 'demo'? valid: " in complaint
    assert not (tmp_path / "home").exists()


def test_missing_grid_file(tmp_path: Path) -> None:
    assert "nothing.yaml: no such file" in refused(cwdpo("plan", "-g", tmp_path / "nothing.yaml"), 2)


def test_unknown_cluster_lists_the_known_ones(tmp_path: Path) -> None:
    done = cwdpo("submit", "-g", MICRO, "--home", tmp_path / "home", "-c", "locall")
    assert "unknown cluster 'locall'; did you mean 'local'? valid: " in refused(done, 2)
    assert not list((tmp_path / "home").glob("store/*"))


def test_wrong_key_in_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kind: local\njobz: 1\n")
    done = cwdpo("submit", "-g", MICRO, "--home", tmp_path / "home", "-c", tmp_path / "mine.yaml")
    assert "jobz: unknown key 'jobz'; did you mean 'jobs'?" in refused(done, 2)


GRID_FAULTS = {
    "cases: {}": ("cases: {sft: {stage1: {optimisation: {}}}}", "optimisation'; did you mean 'optimization'?"),
    "type": ("cases: {sft: {stage1: {optimization: {batch_size: many}}}}", "stage1.optimization.batch_size: "),
    "tag": ("cases: {x: {stage2: {objective: {name: dpoo}, negatives: {source: perturb}}}}", "did you mean 'dpo'?"),
    "top": ("casez: {}", "casez: unknown key 'casez'; did you mean 'cases'?"),
}


@pytest.mark.parametrize("fault", GRID_FAULTS)
def test_wrong_grid_dies_before_anything_is_written(fault: str, tmp_path: Path) -> None:
    text, expected = GRID_FAULTS[fault]
    grid = tmp_path / "wrong.yaml"
    grid.write_text(f"base: {{data: {{source: demo_world}}, model: {{source: tiny}}}}\n{text}\n")
    complaint = refused(cwdpo("submit", "-g", grid, "--home", tmp_path / "home", "-c", "local"), 2)
    assert expected in complaint
    assert str(grid) in complaint
    assert not (tmp_path / "home").exists()


SET_FAULTS = {
    "stage2.objective.betta=1": "betta'",
    "stage2.objective.beta=high": "stage2.objective.beta",
    "modle.source=tiny": "modle: unknown key 'modle'; did you mean 'model'?",
    "seeds=many": "seeds",
    "beta": "expected KEY=VALUE",
    "=1": "expected KEY=VALUE",
    "seed=[1": "not valid YAML",
    "execution.zero_stage=4": "execution.zero_stage",
}


@pytest.mark.parametrize("override", SET_FAULTS)
def test_wrong_override(override: str, tmp_path: Path) -> None:
    complaint = refused(cwdpo("plan", "-g", MICRO, "--home", tmp_path / "home", "--set", override), 2)
    assert SET_FAULTS[override] in complaint


def test_override_that_no_case_would_notice(tmp_path: Path) -> None:
    grid = tmp_path / "supervised.yaml"
    text = "base: {data: {source: demo_world}, model: {source: tiny}, stage1: {}}\ncases: {a: {}, b: {stage1: null}}\n"
    grid.write_text(text)
    done = cwdpo("plan", "-g", grid, "--home", tmp_path / "home", "--set", "stage2.objective.beta=1")
    complaint = refused(done, 2)
    assert "--set stage2.objective.beta: no case of" in complaint
    assert "has a section stage2" in complaint
    done = cwdpo("plan", "-g", grid, "--home", tmp_path / "home", "--json", "--set", "stage1.optimization.epochs=2")
    assert "stage1" in {node["stage"] for node in json.loads(succeed(done))["nodes"]}


def test_override_reaches_only_the_cases_with_that_stage(tmp_path: Path) -> None:
    plain = json.loads(succeed(cwdpo("plan", "-g", MICRO, "--home", tmp_path, "--json")))
    changed = cwdpo("plan", "-g", MICRO, "--home", tmp_path, "--json", "--set", "stage2.objective.beta=0.5")
    found = json.loads(succeed(changed))
    before, after = ({node["id"]: node["stage"] for node in plan["nodes"]} for plan in (plain, found))
    gone = sorted(before[name] for name in before.keys() - after.keys())
    assert gone == ["generate"] * 4 + ["score"] * 4 + ["stage2"] * 4


def test_contradicting_options(tmp_path: Path) -> None:
    done = submit(tmp_path / "home", "--accept-stale", "--recompute")
    assert "contradict" in refused(done, 2)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--grid"], ["plan", "-g", "demo", "--colour"], ["plann"]])
def test_wrong_options(arguments: list[str]) -> None:
    refused(cwdpo(*arguments), 2)


# Export


def test_export_copies_an_adapter(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    arguments = ["-g", MICRO, "--home", finished, "--to", target]
    succeed(cwdpo("export", "cw_dpo/0", *arguments, **without(HEAVY)))
    trained = folder(finished, node_of(finished, "stage2", "cw_dpo/0")) / "attempts" / "1" / "out"
    kept = {path.name for path in trained.iterdir()}
    assert {path.name for path in target.iterdir()} == kept - {"snapshots"} != kept
    weights, config = "adapter_model.safetensors", "adapter_config.json"
    assert (target / weights).read_bytes() == (trained / weights).read_bytes()
    stored, exported = (json.loads((place / config).read_text()) for place in (trained, target))
    assert stored.pop("base_model_name_or_path") is None
    assert (Path(exported.pop("base_model_name_or_path")) / "config.json").is_file()
    assert stored == exported
    assert sorted(path.name for path in target.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert "exists" in refused(cwdpo("export", "cw_dpo/0", *arguments), 2)


def test_export_of_what_is_not_there(finished: Path, tmp_path: Path) -> None:
    target = ["--to", tmp_path / "out"]
    done = cwdpo("export", "cwdpo/0", "-g", MICRO, "--home", finished, *target)
    assert "unknown cell 'cwdpo/0'; did you mean 'cw_dpo/0'?" in refused(done, 2)
    assert "trains nothing" in refused(cwdpo("export", "base/0", "-g", MICRO, "--home", finished, *target), 2)
    done = cwdpo("export", "sft/0", "-g", MICRO, "--home", tmp_path / "empty", *target)
    assert "is missing, not done" in refused(done, 4)
    assert not (tmp_path / "out").exists()


# A home that cannot be written


@pytest.mark.parametrize("name", ["submit", "report", "track"])
def test_home_below_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    complaint = refused(cwdpo(name, "-g", MICRO, "--home", tmp_path / "file" / "home"), 4)
    assert f"cannot write {tmp_path / 'file' / 'home'}" in complaint
    assert "a part of the path is a file, not a folder" in complaint
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_before_anything_starts(small_disk: Path) -> None:
    with open(small_disk / "ballast", "wb") as file:
        file.write(b"\0" * (1 << 20))
    complaint = refused(submit(small_disk / "home"), 4)
    assert "no space left on the device" in complaint
    assert not [path for path in (small_disk / "home").rglob("*") if path.is_file()]


def test_disk_that_fills_up_on_the_way(small_disk: Path) -> None:
    """A thousand images need more than 1 MB: the stage fails with the reason, and the next submit says it too."""
    home = small_disk / "home"
    large = ["-s", "data.world.train=1000", "-s", "seeds=[0]", "-s", "model.world.train=1000"]
    done = submit(home, *large)
    assert "no space left on the device" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in (1, 4)
    assert not list(home.glob("store/*/DONE"))
    for path in home.rglob("*.json"):
        json.loads(path.read_text())
