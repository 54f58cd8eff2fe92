"""What `prune` finds and removes in a home with real results, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from commands import MICRO, copy_home, cwdpo, folder, manifests, node_of, plan_of, succeed
from ruamel.yaml import YAML

from cwdpo.base import files
from cwdpo.base.errors import Busy, DataError, StoreError
from cwdpo.base.store import Artefact, Attempt, Store
from cwdpo.cli.prune import human
from cwdpo.jobs import discard, prune
from cwdpo.jobs.clusters import SlurmCluster, load_cluster
from cwdpo.jobs.needs import Needs
from cwdpo.jobs.prune import DiskUsage, Item, find, remove
from cwdpo.jobs.scratch import MARK
from cwdpo.jobs.slurm import leftovers
from cwdpo.jobs.slurm.desired import Desired

OLD = time.time() - 2 * prune.DAY_SECONDS


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A finished micro grid."""
    return copy_home(finished, tmp_path / "home")


def look(home: Path, unused: bool = False) -> list[Item]:
    return find(Store(home), Needs(Store(home)), unused)


def found(home: Path, unused: bool = False) -> dict[str, int]:
    """Class -> number of items."""
    return dict(Counter(item.kind for item in look(home, unused)))


def do(home: Path, items: list[Item]) -> list[Item]:
    return remove(items, Needs(Store(home)), lambda: None)


def artefact(home: Path, stage: str, cell: str = "dpo/0") -> Artefact:
    return node_of(home, stage, cell).artefact(Store(home))


def begin(one: Artefact) -> Attempt:
    """A new attempt that wrote something; as long as nothing else is said, this process is at work on it."""
    attempt = one.claim({})
    (attempt.out / "model.safetensors").write_bytes(bytes(100_000))
    (attempt.folder / "stderr").write_text("what happened")
    return attempt


def fail(one: Artefact) -> Attempt:
    attempt = begin(one)
    attempt.fail(DataError("a bad image"))
    return attempt


def compute_again(one: Artefact) -> None:
    """Take a result back and publish the same files anew."""
    done, before = one.done(), one.files
    assert done is not None
    one.retire()
    attempt = one.claim({})
    shutil.copytree(before, attempt.out, dirs_exist_ok=True)
    attempt.publish(done["provenance"])


def leave(path: Path, age: float = OLD) -> Path:
    files.write_text(path, "x" * 5000)
    os.utime(path, (age, age))
    return path


def checkpoint(one: Artefact) -> Path:
    return leave(one.partial / "checkpoints" / "step-000002" / "moments.safetensors")


def test_a_tidy_home_has_nothing_to_remove(home: Path) -> None:
    assert look(home) == []
    assert look(home, unused=True) == []


def test_leftovers_go_and_nothing_else(home: Path) -> None:
    before = manifests(home)
    failed, stage1 = fail(artefact(home, "stage2")), artefact(home, "stage1")
    compute_again(artefact(home, "generate"))
    checkpoint(stage1)
    leave(stage1.folder / ".DONE.0123abcd.tmp")
    young = leave(home / "grids" / "micro" / ".plan.json.0123abcd.tmp", time.time())
    leave(home / "grids" / "micro" / "dry-run" / "a.sh")
    for name in ("used", "old"):
        leave(home / "slurm" / "code" / name / "cwdpo" / "x.py")
    cluster = load_cluster("default")
    assert isinstance(cluster, SlurmCluster)
    Desired(cluster, home / "slurm" / "code" / "used", frozenset()).write(plan_of(home))
    expected = {"attempts": 1, "retired": 1, "partial": 1, "temporary": 1, "code": 1, "dry-runs": 1}
    assert found(home) == expected

    shown = json.loads(succeed(cwdpo("prune", "--home", home, "--json")))
    assert {name: entry["items"] for name, entry in shown["classes"].items()} == expected
    assert shown["classes"]["attempts"]["bytes"] >= 100_000
    assert stage1.partial.exists(), "looking changes nothing"
    text = succeed(cwdpo("prune", "--home", home, "--yes", COLUMNS="80"))
    assert f"removed, {human(shown['bytes'])} freed" in text
    assert max(map(len, text.splitlines()[:-3])) <= 80
    assert found(home) == {}
    assert manifests(home) == before
    assert young.exists()
    assert [path.name for path in (home / "slurm" / "code").iterdir()] == ["used"]
    assert sorted(path.name for path in failed.folder.iterdir()) == ["claim.json", "heartbeat", "result.json", "stderr"]


def test_what_runs_is_left_alone(home: Path) -> None:
    one = artefact(home, "stage2")
    attempt = begin(one)
    checkpoint(one)
    assert found(home) == {}
    attempt.fail(DataError("a bad image"))
    items = look(home)
    assert {item.kind for item in items} == {"attempts", "partial"}
    (attempt.folder / "result.json").unlink()  # it is at work again between the look and the removal
    assert do(home, items) == []
    assert (attempt.out / "model.safetensors").exists()


def test_what_unfinished_work_goes_on_from_stays(home: Path) -> None:
    """Neither its own files nor those of what it reads, but whatever has nothing to do with it."""
    (folder(home, node_of(home, "stage2", "dpo/0")) / "DONE").unlink()
    for stage in ("stage2", "stage1"):
        fail(artefact(home, stage))
        checkpoint(artefact(home, stage))
        leave(artefact(home, stage).folder / ".x.0123abcd.tmp")
    assert look(home) == []
    fail(artefact(home, "score", "cw_dpo/0"))
    assert found(home) == {"attempts": 1}


@pytest.fixture
def smaller(tmp_path: Path) -> Path:
    """The micro grid without one of its cases."""
    content = YAML(typ="safe").load(MICRO)
    del content["cases"]["dpo"]
    (tmp_path / "other").mkdir()
    YAML().dump(content, tmp_path / "other" / "micro.yaml")
    return tmp_path / "other" / "micro.yaml"


def test_what_no_grid_needs_goes_on_request(home: Path, smaller: Path) -> None:
    every, kept = plan_of(home), plan_of(home, grid=smaller)
    gone = {folder(home, node).name for node in every.nodes} - {folder(home, node).name for node in kept.nodes}
    assert len(gone) == 8  # reference, stage2, generate, score; two seeds. Stage 1 is that of the case `sft`
    fail(artefact(home, "stage2"))
    assert found(home) == {"attempts": 1}, "its grid was last submitted with it"
    items = find(Store(home), Needs(Store(home), [kept]), unused=True)
    assert {item.path.name for item in items} == gone
    assert [item.path.name.partition("-")[0] for item in items][::2] == ["score", "generate", "stage2", "reference"]
    shown = succeed(cwdpo("prune", "--home", home, "--unused", "--keep-grid", smaller, "--yes", COLUMNS="80"))
    assert "needed: micro, " in shown
    assert {path.name for path in (home / "store").iterdir()} == {folder(home, node).name for node in kept.nodes}
    for node in kept.nodes:
        node.artefact(Store(home)).verified_files()


def test_unused_work_at_work_and_what_waits_in_a_queue_stay(home: Path, smaller: Path) -> None:
    plan_of(home, grid=smaller).write()
    begin(artefact(home, "stage2"))
    generate = node_of(home, "generate", "dpo/1")
    entry = {"index": 0, "label": "x", "nodes": [{"stage": "generate", "id": generate.id}], "parents": []}
    files.write_json(home / "slurm" / "arrays" / "a" / "intent.json", {"code": "/x/y", "elements": [entry]})
    gone = {item.path.name for item in look(home, unused=True)}
    kept = {folder(home, node).name for node in (node_of(home, "stage2", "dpo/0"), generate, *generate.parents)}
    assert len(gone) == 4
    assert not gone & kept
    files.write_json(home / "slurm" / "arrays" / "a" / "abandoned.json", {})
    assert len(look(home, unused=True)) == 7


def test_killed_in_the_middle_the_rest_goes_next_time(
    home: Path, smaller: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_of(home, grid=smaller).write()
    items = look(home, unused=True)
    with monkeypatch.context() as patch:
        patch.setattr(discard.shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            do(home, items)
    assert not items[0].path.exists(), "nothing that looks whole is half gone"
    assert found(home, unused=True) == {"unused": 7, "temporary": 1}
    do(home, look(home, unused=True))
    assert found(home, unused=True) == {}
    assert not [path for path in (home / "store").iterdir() if path.name.startswith(".")]
    assert set(plan_of(home, grid=smaller).states().values()) == {"done"}


def test_a_submission_in_between_stops_it(home: Path, smaller: Path) -> None:
    plan_of(home, grid=smaller).write()
    needs = Needs(Store(home))
    items = find(Store(home), needs, unused=True)
    plan_of(home).write()
    with pytest.raises(Busy, match="submitted meanwhile"):
        remove(items, needs, lambda: None)
    assert all(item.path.exists() for item in items)


def test_without_knowing_what_is_needed_nothing_is_unused(home: Path) -> None:
    (home / "grids" / "micro" / "plan.json").write_text("{")
    with pytest.raises(StoreError, match=r"plan\.json is damaged"):
        Needs(Store(home))
    (home / "grids" / "micro" / "plan.json").unlink()
    done = cwdpo("prune", "--home", home, "--unused", "--yes")
    assert done.returncode == 2
    assert "no grid was submitted from" in done.stderr


def test_side_jobs_and_their_code_stay_while_they_are_in_the_queue(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("waits", "ended"):
        leave(home / "slurm" / "code" / f"0{name}" / "x.py")
        files.write_text(home / "slurm" / "side" / name / "script.sh", f"export PYTHONPATH=/x/0{name}\n")
    monkeypatch.setattr(leftovers, "_queued", lambda: {"waits"})
    assert [item.path.name for item in look(home)] == ["0ended", "ended"]
    monkeypatch.setattr(leftovers, "_queued", lambda: None)
    assert look(home) == [], "where Slurm does not answer, nobody knows"


def test_the_last_rehearsal_goes_unless_it_is_at_work(home: Path) -> None:
    leave(home / "rehearsal" / "something")
    assert found(home) == {}, "a folder that no rehearsal made"
    leave(home / "rehearsal" / MARK)
    assert found(home) == {"rehearsal": 1}
    begin(Artefact(home / "rehearsal" / "store" / "stage1-0123", ""))
    assert found(home) == {}


def test_a_file_with_two_names_takes_its_space_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(50_000))
    alone = DiskUsage().of(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    usage = DiskUsage()
    assert usage.of(tmp_path) == alone
    assert usage.of(tmp_path / "b") == 0


def test_a_link_goes_but_not_what_it_points_to(tmp_path: Path) -> None:
    leave(tmp_path / "elsewhere" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    discard.discard(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert (tmp_path / "elsewhere" / "a").exists()


def test_sizes_for_people() -> None:
    assert [human(size) for size in (0, 512, 1500, 99_960, 123_456, 2.5e9, 3e12)] == [
        "0 B", "512 B", "1.5 kB", "100 kB", "123 kB", "2.5 GB", "3.0 TB",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [None, "/nowhere"])
def test_a_dry_run_of_less_does_not_change_what_is_needed(home: Path, path: str | None) -> None:
    """Whether it ends well or not: where Slurm is installed but not running, it does not."""
    plan = home / "grids" / "micro" / "plan.json"
    before = plan.read_bytes()
    environment = {} if path is None else {"PATH": path}
    less = ("--set", "seeds=[0]", "-c", "one-machine", "--dry-run")
    shown = cwdpo("submit", "-g", MICRO, "--home", home, *less, **environment)
    assert "nothing submitted" in shown.stdout, shown.stderr
    assert plan.read_bytes() == before
