"""The CPU image: it says what it is, runs closed off from the host and read-only, and carries nothing of the host."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from builder import CLOSED, CONTAINERS, ROOT, Apptainer
from conftest import PLANTED

SCORES = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import asdict
from check_image import CANDIDATES, REFERENCES
from cwdpo.metrics.captions import score_captions
metrics = sys.argv[2:] or ("bleu", "meteor", "rouge_l", "cider")
print(json.dumps(asdict(score_captions(CANDIDATES, REFERENCES, metrics))))
"""
CACHES = ("PYTHONNOUSERSITE", "HF_HOME", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")


def head() -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


def labels(apptainer: Apptainer, image: Path) -> dict[str, str]:
    return json.loads(apptainer.succeed("inspect", "--json", "--labels", image))["data"]["attributes"]["labels"]


def inside(apptainer: Apptainer, image: Path, *command: str | Path, options: tuple[str, ...] = ()) -> str:
    return apptainer.succeed("exec", *CLOSED, *options, image, *command)


def test_it_says_which_commit_lock_and_base_it_is_made_of(apptainer: Apptainer, image: Path) -> None:
    found = labels(apptainer, image)
    locks = b"".join((CONTAINERS / name).read_bytes() for name in ("torch.lock", "requirements.lock"))
    assert found["org.opencontainers.image.revision"] == head()
    assert found["cwdpo.lock"] == hashlib.sha256(locks).hexdigest()
    assert found["cwdpo.base"] == "debootstrap:bookworm"
    assert found["cwdpo.dirty"] in ("true", "false")
    assert found["cwdpo.cuda"] == "none"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found["cwdpo.version"] == found["org.opencontainers.image.version"] == version


def test_its_own_test_passes_read_only(apptainer: Apptainer, image: Path) -> None:
    said = apptainer.succeed("test", *CLOSED, image)
    assert "torch: torch 2." in said
    assert "scores: " in said


def test_the_command_line_needs_no_home_and_no_writable_root(apptainer: Apptainer, image: Path) -> None:
    assert head()[:12] in apptainer.succeed("run", *CLOSED, image, "--version")
    planned = apptainer.succeed("run", *CLOSED, "--env", "CWDPO_HOME=/tmp/home", image, "plan", "--grid", "demo")
    assert "stages" in planned
    refused = apptainer.run("exec", *CLOSED, image, "touch", "/opt/cwdpo/new")
    assert "Read-only file system" in refused.stderr


def test_only_torch_is_seen_of_its_base(apptainer: Apptainer, image: Path, tmp_path: Path) -> None:
    listed = inside(apptainer, image, "ls", "/opt/cwdpo/of_the_base").split()
    assert {name.partition("-")[0] for name in listed} == {"torch", "torchgen", "functorch"}
    assert "pip" in inside(apptainer, image, "sh", "-c", "ls /opt/torch/lib/python3*/site-packages").split()
    place = "import torch; print(torch.__file__)"
    assert inside(apptainer, image, "python", "-c", place).strip() == "/opt/cwdpo/of_the_base/torch/__init__.py"
    stranger = tmp_path / "torchvision-0.28.0.dist-info"
    stranger.mkdir()
    (stranger / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    options = ("--bind", f"{tmp_path}:/mnt", "--env", "PYTHONPATH=/mnt")
    refused = apptainer.run("test", *CLOSED, *options, image)
    assert refused.returncode == 1
    assert "packages: FAILED: importable, and neither locked nor torch's: torchvision 0.28.0 in /mnt" in refused.stderr


def test_the_jars_of_spice_are_told_by_their_digests(apptainer: Apptainer, image: Path) -> None:
    listing = "cd /opt/cwdpo/spice 2>/dev/null && sha256sum *.jar || true"
    lines = inside(apptainer, image, "sh", "-c", listing).splitlines()
    told = ",".join(f"{name}={digest}" for digest, name in map(str.split, lines))
    assert labels(apptainer, image)["cwdpo.spice"] == (told or "none")


def pins(text: str) -> set[str]:
    """`name==version` of every line that has one, names in one spelling."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\n]+)", text, re.M)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in found}


def test_packages_are_the_locked_ones(apptainer: Apptainer, image: Path) -> None:
    frozen = pins(inside(apptainer, image, "cat", "/opt/cwdpo/freeze.txt"))
    locked = pins((CONTAINERS / "requirements.lock").read_text())
    assert len(locked) > 100
    assert locked <= frozen
    torch = (CONTAINERS / "torch.lock").read_text().strip()
    assert any(line.partition("+")[0] == torch for line in frozen)


def test_scores_inside_equal_those_outside(apptainer: Apptainer, image: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("no Java outside of the image to compare with")
    within = inside(apptainer, image, "python", "-c", SCORES, "/opt/cwdpo")
    outside = subprocess.run(
        [sys.executable, "-c", SCORES, str(CONTAINERS)], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert json.loads(within)["unavailable"] == {}
    assert json.loads(within)["corpus"]["meteor"] > 0.2
    assert json.loads(within) == json.loads(outside)


def test_spice_without_its_jars_is_a_reason_and_not_a_number(apptainer: Apptainer, image: Path) -> None:
    no_jars = ("--env", "CWDPO_SPICE_JARS=/nowhere")
    found = json.loads(inside(apptainer, image, "python", "-c", SCORES, "/opt/cwdpo", "spice", options=no_jars))
    assert found["corpus"]["spice"] is None
    assert found["unavailable"]["spice"].startswith("not available: ")


def test_caches_lie_outside_and_move_on_request(apptainer: Apptainer, image: Path) -> None:
    moved = ("--env", "HF_HOME=/tmp/models,TRITON_CACHE_DIR=/tmp/kernels")
    script = 'for name in "$@"; do eval "echo $name=\\$$name"; done'
    shown = inside(apptainer, image, "sh", "-c", script, "sh", *CACHES, options=moved)
    found = dict(line.split("=", 1) for line in shown.splitlines())
    assert found.pop("PYTHONNOUSERSITE") == "1"
    assert found.pop("HF_HOME") == "/tmp/models"
    assert found.pop("TRITON_CACHE_DIR") == "/tmp/kernels"
    assert all(value.startswith("/tmp/cwdpo-cache-") for value in found.values()), found


def test_nothing_of_the_host_is_left_in_it(apptainer: Apptainer, image: Path, planted: dict[str, str]) -> None:
    told = apptainer.succeed("inspect", "--all", image) + inside(apptainer, image, "env").replace(str(image), "")
    mirror = re.search(r"http\S+", Path(planted["APT_CONFIG"]).with_name("its.list").read_text())[0].rstrip("/")
    assert mirror != "http://deb.debian.org/debian"
    hidden = [PLANTED, mirror, "/mnt/local", "/etc/pip.conf", str(ROOT)]
    assert [text for text in hidden if text in told] == []
    folders = ("/etc", "/root", "/srv", "/mnt", "/var", "/opt/cwdpo/code", "/.singularity.d", "/usr/local")
    patterns = [word for text in (PLANTED, mirror, str(ROOT)) for word in ("-e", text)]
    searched = apptainer.run("exec", *CLOSED, image, "grep", "-rIlF", *patterns, *folders)
    assert searched.stdout == ""
    gone = "ls -A /mnt /root /var/lib/apt/lists /var/cache/apt/archives; ls /etc/pip.conf /etc/apt/apt.conf 2>&1"
    kept = set(apptainer.run("exec", *CLOSED, image, "sh", "-c", gone).stdout.split()) - {"lock", "partial"}
    assert not {"pip.conf", "ca.pem", ".cache", ".netrc", "local"} & kept, kept
