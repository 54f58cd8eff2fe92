"""What a job runs in: how an image is told, kept and entered. The images here are tables without a file system: no
program runs them (tests/container does that)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import commands
import pretend
import pytest
from image_file import LABELS, write_image

from cwdpo.base.errors import ConfigError
from cwdpo.jobs.clusters import SlurmCluster, load_cluster
from cwdpo.jobs.containers.host import Host, visible
from cwdpo.jobs.containers.image import Image, identify, image_here, keep
from cwdpo.jobs.containers.sif_runtime import ENTER
from cwdpo.jobs.slurm.arrays import Array
from cwdpo.jobs.slurm.batch import script

NODE = "kind: slurm\nnode: {gpus: 2, cpus: 8}\n"
MICRO = commands.GRIDS / "micro.yaml"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "cwdpo.sif")


def test_an_image_is_told_by_its_bytes_and_its_labels(image: Path, tmp_path: Path) -> None:
    found = identify(image, tmp_path / "digests")
    assert found.digest == f"sha256:{subprocess.run(['sha256sum', image], capture_output=True, text=True).stdout[:64]}"
    assert found.labels == LABELS
    image.rename(tmp_path / "elsewhere.sif")
    assert identify(tmp_path / "elsewhere.sif", tmp_path / "digests").digest == found.digest


def test_the_digest_of_a_large_file_is_computed_once(image: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests"
    identify(image, cache)
    (kept,) = cache.iterdir()
    kept.write_text(json.dumps({"digest": "sha256:kept", "path": ""}))
    assert identify(image, cache).digest == "sha256:kept"
    write_image(image, b"another one")
    assert identify(image, cache).digest != "sha256:kept"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "no image '{path}': `make container` builds one"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder; an image is one file"),
        (lambda path: path.write_text("FROM scratch"), "is no image (SIF file): it begins with 'FROM scratch'"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "is cut off"),
        (lambda path: os.truncate(path, 200), "is cut off: 200 bytes, less than its table"),
    ],
)
def test_what_is_no_whole_image_is_refused(image: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    spoil(image)
    with pytest.raises(ConfigError) as caught:
        identify(image, tmp_path)
    assert said.format(path=image) in str(caught.value)


def test_what_was_submitted_stays_when_a_new_image_takes_the_name(image: Path, tmp_path: Path) -> None:
    before = identify(image, tmp_path / "digests")
    kept = keep(before, tmp_path / "images", tmp_path / "digests")
    assert Path(kept.path).samefile(image), "no copy: it takes no space"
    write_image(tmp_path / "new.sif", b"another one").replace(image)
    assert identify(Path(kept.path), tmp_path / "digests").digest == before.digest
    assert keep(identify(image, tmp_path / "digests"), tmp_path / "images", tmp_path / "digests").path != kept.path
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_where_no_second_name_is_possible_the_file_itself_is_used(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links, or somebody else's image on a hardened system: emulated."""

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    found = identify(image, tmp_path / "digests")
    assert keep(found, tmp_path / "images", tmp_path / "digests") == found


def test_a_name_whose_file_was_written_over_is_not_trusted(image: Path, tmp_path: Path) -> None:
    """`cp new.sif cwdpo.sif` changes the bytes behind every name of the file, and here not even its size."""
    cache, names = tmp_path / "digests", tmp_path / "images"
    before = image.read_bytes()
    kept = keep(identify(image, cache), names, cache)
    image.write_bytes(before.replace(b"made up", b"made  u"))
    again = tmp_path / "again.sif"
    again.write_bytes(before)
    found = keep(identify(again, cache), names, cache)
    assert found.path == kept.path
    assert Path(found.path).read_bytes() == before


def test_links_of_a_hub_cache_lead_somewhere_inside_too(tmp_path: Path) -> None:
    blobs, snapshot, apart = tmp_path / "blobs", tmp_path / "snapshots/abc", tmp_path / "apart"
    for folder in (blobs, snapshot, apart / "images"):
        folder.mkdir(parents=True)
    (blobs / "1").touch()
    (snapshot / "model.safetensors").symlink_to("../../blobs/1")
    (snapshot / "images").symlink_to(apart / "images")
    assert visible([snapshot]) == (apart / "images", blobs / "1", snapshot)
    assert visible([tmp_path, snapshot]) == (tmp_path,)
    assert visible([tmp_path / "not there"]) == (tmp_path / "not there",), "the program says so, not we"


def test_a_cache_that_was_moved_and_linked_is_seen_where_its_links_look(tmp_path: Path) -> None:
    """`~/.cache/huggingface -> /scratch/me/hf`: a snapshot's links say `../../blobs/x`, below the first name."""
    moved, home = tmp_path / "scratch/hf", tmp_path / "home"
    for folder in (moved / "blobs", moved / "snapshots/c1", home):
        folder.mkdir(parents=True)
    for name in "abcde":
        (moved / "blobs" / name).touch()
        (moved / "snapshots/c1" / name).symlink_to(f"../../blobs/{name}")
    (home / "cache").symlink_to(moved)
    assert visible([home / "cache/snapshots/c1"]) == (home / "cache/blobs", home / "cache/snapshots/c1")


def test_every_name_on_the_way_to_a_linked_folder_is_there(tmp_path: Path) -> None:
    """A link to a name that leads elsewhere itself, one level down in the data folder; and one into the system."""
    data = tmp_path / "data/images"
    data.mkdir(parents=True)
    (tmp_path / "lustre/train").mkdir(parents=True)
    (tmp_path / "project").symlink_to(tmp_path / "lustre")
    (data / "train2014").symlink_to(tmp_path / "project/train")
    (data / "hosts").symlink_to("/etc/hosts")
    (data / "programs").symlink_to("/usr")
    assert set(visible([tmp_path / "data"])) == {tmp_path / "data", tmp_path / "project/train", Path("/etc/hosts")}


def enter(profile: dict[str, Any], code: Path, **host: Any) -> list[str]:
    cluster = SlurmCluster.model_validate({"kind": "slurm", "node": {"gpus": 2, "cpus": 8}, "container": profile})
    return cluster.container.enter(["-m", "module"], Host(code=code, image=Path("/i.sif"), **host))


@pytest.mark.parametrize("name", ["apptainer", "singularity"])
def test_an_image_is_entered_without_the_home_and_the_environment(name: str, tmp_path: Path) -> None:
    profile = {"name": name, "image": "/i.sif", "bind": ["/data:/data:ro"], "options": ["--rocm"], "variables": ["B"]}
    words = enter(profile, tmp_path, folders=(Path("/home/me"),), variables=("A",), gpus=True)
    assert words[:5] == ["bash", str(tmp_path / ENTER), "A", "B", "--"]
    run = " ".join(words[5:])
    assert run == (
        f"{name} exec --cleanenv --no-home --pwd / --nv --bind /home/me --bind /data:/data:ro --rocm /i.sif"
        " python -m module"
    )
    assert "--nv" not in enter(profile, tmp_path)


def test_a_folder_that_cannot_be_bound_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'/data/a,b' cannot be seen in a container"):
        enter({"name": "apptainer", "image": "/i.sif"}, tmp_path, folders=(Path("/data/a,b"),))


def test_variables_get_in_by_name_and_nothing_else_does(tmp_path: Path) -> None:
    """The program is a made-up one that shows its environment."""
    words = ["bash", str(commands.REPO / ENTER), "WANTED", "SPACED", "UNSET", "--", "bash", "-c", "pwd; env"]
    given = {"PATH": os.environ["PATH"], "WANTED": "1", "SPACED": "a b,c=d", "SECRET": "s", "APPTAINERENV_LEAK": "1"}
    given |= {"SINGULARITYENV_LEAK": "1", "NCCL_IB_HCA": "mlx5", "https_proxy": "http://me:secret@proxy:1"}
    given |= {"TMPDIR": str(tmp_path / "job"), "APPTAINER_BIND": "/site"}
    run = subprocess.run(words, env=given, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = run.stdout.splitlines()
    passed = {line for line in shown if line.startswith(("APPTAINERENV_", "SINGULARITYENV_"))}
    values = ("WANTED=1", "SPACED=a b,c=d", "NCCL_IB_HCA=mlx5", f"TMPDIR={tmp_path / 'job'}")
    assert passed == {f"{kind}ENV_{value}" for kind in ("APPTAINER", "SINGULARITY") for value in values}
    assert "secret" not in run.stdout
    assert shown[0] == "/", "the folder it was called in is somebody's"
    assert f"APPTAINER_BIND=/site,{tmp_path / 'job'}" in shown
    assert (tmp_path / "job").is_dir(), "it is made where it is missing"


def test_a_node_without_the_program_says_what_to_do(tmp_path: Path) -> None:
    words = ["bash", str(commands.REPO / ENTER), "--", "apptainer", "exec"]
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "date", "hostname", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(words, env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no program 'apptainer' on" in done.stderr
    assert "container.program" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("container: {name: aptainer, image: i.sif}", "did you mean 'apptainer'?"),
        ("container: {image: i.sif}", "container"),
        ("container: {name: apptainer}", "image"),
        ("container: {name: apptainer, image: i.sif, binds: [/x]}", "binds"),
        ("container: {name: apptainer, image: i.sif, bind: [data]}", "'data': expected /folder"),
        ("container: {name: apptainer, image: i.sif, bind: ['/a:/b:rx']}", "'/a:/b:rx': expected /folder"),
        ("container: {name: apptainer, image: i.sif, variables: ['A=1']}", "expected the name of a variable alone"),
        ("environment: {CWDPO_IMAGE: x}", "CWDPO_IMAGE: set by cwdpo itself"),
    ],
)
def test_a_wrong_container_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(NODE + text)
    with pytest.raises(ConfigError) as caught:
        load_cluster(str(path))
    assert said in str(caught.value)
    assert "container" in str(caught.value) or "environment" in str(caught.value)


def test_only_ranks_enter_the_image(image: Path, tmp_path: Path) -> None:
    """The decision about a failed run needs Slurm's commands, which no image has."""
    content = {"kind": "slurm", "node": {"gpus": 2, "cpus": 8}, "container": {"name": "apptainer", "image": str(image)},
               "environment": {"NCCL_SOCKET_IFNAME": "ib0"}, "scratch": str(tmp_path)}  # fmt: skip
    found, cluster = identify(image, tmp_path / "digests"), SlurmCluster.model_validate(content)
    texts = {}
    for kind in ("train", "score"):
        array = Array("name", kind, {0: None})  # type: ignore[dict-item,arg-type]
        texts[kind] = script(tmp_path / "record", array, cluster, tmp_path / "code", found, [tmp_path / "home"])
    (task,) = [line for line in texts["train"].splitlines() if line.startswith("task=")]
    (verdict,) = [line for line in texts["train"].splitlines() if line.startswith("verdict=")]
    for word in (
        " --nv ",
        " NCCL_SOCKET_IFNAME ",
        " SLURM_PROCID ",
        " TMPDIR ",
        f" --bind {tmp_path / 'home'} ",
        f" {image} ",
    ):
        assert word in task, word
    assert "apptainer" not in verdict
    assert "--nv" not in texts["score"], "no GPU is asked for"
    assert f"export CWDPO_IMAGE={found.digest}\n" in texts["train"]


def test_a_process_outside_of_any_image_says_so() -> None:
    assert image_here({}) is None


def test_a_stage_in_an_image_names_it() -> None:
    found = image_here({"APPTAINER_CONTAINER": "/shared/cwdpo.sif", "CWDPO_IMAGE": "sha256:1"})
    assert found is not None
    assert (found["digest"], found["file"]) == ("sha256:1", "cwdpo.sif")


def test_status_and_report_say_when_the_image_changed(tmp_path: Path) -> None:
    """Results are made up, in the store's own format."""
    plan = commands.plan_of(tmp_path, grid=MICRO)
    pretend.pretend_done(plan, plan.nodes)
    assert "different images" not in commands.succeed(commands.cwdpo("status", "-g", MICRO, "--home", tmp_path))
    trained = [node for node in plan.nodes if node.stage.name == "stage2"]
    for node in trained:
        path = node.artefact(plan.store).folder / "DONE"
        done = json.loads(path.read_text())
        done["provenance"]["image"] = {"digest": f"sha256:{'1' * 64}", "file": "a.sif"}
        path.write_text(json.dumps(done))
    wanted = f"no image ({len(plan.nodes) - len(trained)} stages), sha256:{'1' * 12} ({len(trained)} stages)"
    shown = commands.succeed(commands.cwdpo("status", "-g", MICRO, "--home", tmp_path))
    assert f"computed in different images: {wanted}" in shown
    counts = json.loads(commands.succeed(commands.cwdpo("status", "-g", MICRO, "--home", tmp_path, "--json")))["images"]
    assert counts == {"no image": len(plan.nodes) - len(trained), f"sha256:{'1' * 12}": len(trained)}
    commands.succeed(commands.cwdpo("report", "-g", MICRO, "--home", tmp_path))
    assert f"different images: {wanted}" in (tmp_path / "grids/micro/report.md").read_text()


def test_an_image_survives_a_file(image: Path, tmp_path: Path) -> None:
    found = identify(image, tmp_path)
    assert Image(**json.loads(json.dumps(found.as_json()))) == found
