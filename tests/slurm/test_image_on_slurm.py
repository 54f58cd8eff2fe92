"""What a user reads when a job cannot enter its image. No image is run here; tests/container does that."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from cluster import Cluster
from image_file import write_image
from slurm_grid import sweep

CONTAINER = "container: {{name: apptainer, image: {image}, program: {program}}}\nsbatch: {{begin: now+{seconds}}}"
ONE_SEED = "seeds=[0]"


def test_an_image_that_changed_or_a_program_that_is_missing_is_named(slurm: Cluster, tmp_path: Path) -> None:
    image = write_image(tmp_path / "cwdpo.sif")
    more = CONTAINER.format(image=image, program="/usr/bin/true", seconds=15)
    run = sweep(slurm, tmp_path, ONE_SEED, more=more)
    shown = run.ok("submit")
    assert "image sha256:" in shown
    (kept,) = (run.home / "slurm/images").iterdir()
    os.utime(kept, (0, 0))
    assert run.cwdpo("reconcile", "--watch").returncode == 1
    why = run.cwdpo("why", "sft/0")
    assert why.returncode == 1
    assert f"config: the image {kept} is not the one that was submitted" in why.stdout, why.stdout
    missing = replace(run, more=CONTAINER.format(image=image, program="/nowhere/apptainer", seconds=0))
    missing.ok("submit")
    missing.ok("retry")
    assert "/nowhere/apptainer" in missing.records("train")[-1].joinpath("script.sh").read_text()
    assert missing.cwdpo("reconcile", "--watch").returncode == 1
    why = missing.cwdpo("why", "sft/0")
    assert "no program '/nowhere/apptainer' on node" in why.stdout, why.stdout
