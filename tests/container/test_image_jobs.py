"""Jobs of a real Slurm in the image: the same weights as outside of it, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import commands
import pytest
from builder import Apptainer
from cluster import Cluster, wait_until
from slurm_grid import LANES, Run, locally

ONE_SEED = ("seeds=[0]",)
MADE_INSIDE = ("stage1", "generate", "score")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of one lane, computed outside of the image by as many ranks."""
    return locally(tmp_path_factory.mktemp("calm") / "home", LANES, 2, *ONE_SEED)


def container(apptainer: Apptainer, image: Path) -> str:
    return f"container: {{name: apptainer, image: {image}, program: {apptainer.program}}}"


def results(run: Run) -> tuple[dict[str, Any], dict[str, float]]:
    """Every file but that of the scores, which names the Java they were computed with; and the scores."""
    found = {folder: {name: entry for name, entry in names.items() if name != "scores.json"}
             for folder, names in run.files().items()}  # fmt: skip
    return found, json.loads((run.artefact("score", "sft/0").files / "scores.json").read_text())["metrics"]


@pytest.mark.timeout(900)
def test_a_preempted_training_in_the_image_ends_with_the_weights_of_outside(
    slurm: Cluster, apptainer: Apptainer, image: Path, calm: Path, tmp_path: Path
) -> None:
    """Two nodes with a rank each; evaluation, with Java, in the image as well."""
    home = commands.copy_home(calm, tmp_path / "home")
    run = Run(slurm, home, LANES, ONE_SEED, nodes=2, tasks=1, more=container(apptainer, image))
    commands.forget(home, *[run.node(stage, "sft/0") for stage in MADE_INSIDE])
    digest = f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"
    assert f"image {digest[:19]}: {image}" in run.ok("submit")
    wait_until(lambda: run.steps("stage1", "sft/0") >= 25, 240, "it trains")
    job = run.element("stage1", "sft/0")
    urgent = slurm.sbatch("sleep 1", "--partition=high", "--nodes=4", "--gpus-per-node=2")
    slurm.wait_for("PENDING", job)
    slurm.wait_for("COMPLETED", urgent)
    run.ok("reconcile", "--watch")
    run.wait()
    outside = Run(slurm, calm, LANES, ONE_SEED)
    assert results(run) == results(outside)
    attempts = list(run.artefact("stage1", "sft/0").attempts.iterdir())
    assert len(attempts) >= 2, "it was preempted and went on"
    assert run.steps("stage1", "sft/0") < 300 + 25, "from where it had saved"
    made = {stage: run.artefact(stage, "sft/0").done()["provenance"] for stage in MADE_INSIDE}  # type: ignore[index]
    assert {stage: found["image"]["digest"] for stage, found in made.items()} == dict.fromkeys(MADE_INSIDE, digest)
    assert made["stage1"]["ranks"] == 2
    assert len(made["stage1"]["job"]["nodes"]) == 2
    assert f"computed in different images: no image (6 stages), {digest[:19]} (3 stages)" in run.ok("status")


def test_the_doctor_looks_at_nodes_from_inside_the_image(
    slurm: Cluster, apptainer: Apptainer, image: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "inside.yaml"
    shape = "train: {nodes: 2, cpus_per_task: 1}\ngenerate: {cpus_per_task: 2}\n"
    profile.write_text(f"kind: slurm\nnode: {{gpus: 0, cpus: 16}}\n{shape}{container(apptainer, image)}\n")
    slurm_at = {key: slurm.env[key] for key in ("SLURM_CONF", "PATH")}
    done = commands.cwdpo("doctor", "-c", profile, "--home", tmp_path / "home", "--submit", "--json", **slurm_at)
    assert done.returncode == 0, done.stdout + done.stderr
    login = {entry["name"]: entry for entry in json.loads(done.stdout)["login"]}
    assert (login["image lock"]["level"], login["inside the image"]["level"]) == ("ok", "ok")
    nodes = {entry["name"]: entry for entry in json.loads(done.stdout)["nodes"]}
    assert nodes["all-reduce"]["found"] == "2 rank(s) on 2 node(s) met and added up right"
    assert nodes["container"]["level"] == "ok"
    assert (nodes["packages"]["level"], nodes["Java"]["level"]) == ("ok", "ok")
