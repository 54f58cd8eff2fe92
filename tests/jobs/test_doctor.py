"""`cwdpo doctor` without Slurm: faults that are planted, and the line a user reads about each. Slurm's own are in
tests/slurm/test_doctor_on_slurm.py."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from commands import MICRO, REPO, cwdpo
from image_file import write_image
from PIL import Image
from safetensors.numpy import save_file

from cwdpo.base.errors import Interrupted
from cwdpo.cli.doctor import line
from cwdpo.data.sources import Preferences
from cwdpo.jobs.clusters import SlurmCluster
from cwdpo.jobs.containers.apptainer import Apptainer
from cwdpo.jobs.doctor import image, storage
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok
from cwdpo.jobs.doctor.data import check_data, check_model, sample
from cwdpo.jobs.doctor.exchange import transports
from cwdpo.jobs.doctor.image import check_environment, check_image
from cwdpo.jobs.doctor.node import check_container, check_taken
from cwdpo.jobs.doctor.packages import check_packages, lock_digest, lock_folder, pinned
from cwdpo.jobs.doctor.probe import clocks, merged
from cwdpo.jobs.doctor.profile import check_ports
from cwdpo.jobs.doctor.request import Answer
from cwdpo.jobs.doctor.slurm_site import Job, gpus_in, minutes
from cwdpo.jobs.doctor.storage import check_home, file_clock, file_system, hard_link
from cwdpo.jobs.doctor.tools import check_tools
from cwdpo.jobs.doctor.tracking import check_tracking
from cwdpo.jobs.doctor.watch import Watch
from cwdpo.model.config import Checkpoint

BARE = REPO / "tests" / "cli" / "bare"
HEAVY = "torch,transformers,deepspeed,peft,submitit,datasets,accelerate"
OF_THIS_MACHINE = {"home: space", "home: files", "home: file system", "Java", "ports"}
"""What a healthy test machine may warn of."""


def lines(findings: Iterable[Finding]) -> list[str]:
    """What is printed, without the blanks of the columns."""
    return [" ".join(line(finding).split()) for finding in findings]


def only(findings: Iterable[Finding]) -> str:
    """The one line that is not ok."""
    (found,) = [text for text in lines(findings) if not text.startswith("ok ")]
    return found


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """A folder with files that have the names of SPICE's parser; nobody opens them here."""
    folder = tmp_path / "jars"
    folder.mkdir()
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (folder / name).touch()
    return folder


# ---- the command


def test_a_healthy_machine(tmp_path: Path, jars: Path) -> None:
    """No torch is imported, and nothing is left behind."""
    bare = {"CWDPO_TEST_FORBIDDEN": HEAVY, "PYTHONPATH": f"{BARE}{os.pathsep}{REPO}", "CWDPO_SPICE_JARS": str(jars)}
    home = tmp_path / "new" / "home"
    done = cwdpo("doctor", "-c", "local", "-g", MICRO, "--home", home, "--json", **bare)
    found = json.loads(done.stdout)
    assert (done.returncode, found["counts"]["failure"], found["ok"]) == (0, 0, True), done.stdout + done.stderr
    assert {entry["name"] for entry in found["login"] if entry["level"] == "warning"} <= OF_THIS_MACHINE
    assert found["nodes"] is None
    assert not home.parent.exists()


def test_a_misspelt_key_and_a_grid_without_its_data(tmp_path: Path) -> None:
    """Two faults in files: both are named with their keys, and what does not depend on them is looked at."""
    (tmp_path / "mine.yaml").write_text("kind: slurm\nnode: {gpus: 4, cpus: 8}\npartitoin: gpu\n")
    (tmp_path / "grid.yaml").write_text(
        "base: {data: {source: preferences, root: nowhere}, model: {source: tiny}}\ncases: {base: {}}\n"
    )
    options = ("-c", tmp_path / "mine.yaml", "-g", tmp_path / "grid.yaml", "--home", tmp_path / "home")
    done = cwdpo("doctor", *options, "--submit")
    shown = [" ".join(text.split()) for text in done.stdout.splitlines()]
    assert done.returncode == 1, done.stdout + done.stderr
    key = f"failure profile {tmp_path}/mine.yaml: partitoin: unknown key 'partitoin'; did you mean 'partition'?"
    assert any(text.startswith(key) for text in shown), done.stdout
    assert "failure data nowhere/preferences.jsonl data.root: no such folder 'nowhere'" in shown
    assert "ok home: rename atomic, for files and folders" in shown
    assert "warning probe job not checked: its profile cannot be read -> --cluster: a profile of kind slurm" in shown
    assert "Traceback" not in done.stdout + done.stderr


def test_a_profile_without_its_slurm(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = cwdpo("doctor", "-c", "one-machine", "--home", tmp_path / "home", PATH=str(tmp_path / "bin"))
    assert done.returncode == 1
    assert "not on the PATH: sbatch, squeue, scontrol, sinfo, scancel" in done.stdout
    assert "Java not found: install a Java runtime" in done.stdout, "the same bare PATH"


def test_set_needs_a_grid() -> None:
    done = cwdpo("doctor", "--set", "seeds=[0]")
    assert (done.returncode, done.stderr.strip()) == (2, "error: --set changes a grid: say which one with --grid")


def test_a_check_that_breaks_is_a_failure_that_names_it() -> None:
    def breaks() -> Iterator[Finding]:
        yield ok("first", "fine")
        raise ZeroDivisionError("by zero")

    assert lines(guarded("second", breaks)) == [
        "ok first fine",
        "failure second this check broke: ZeroDivisionError: by zero -> please report it; the rest was checked",
    ]


def test_a_signal_is_no_finding() -> None:
    def stopped() -> Iterator[Finding]:
        raise Interrupted("stopped by SIGTERM")
        yield

    with pytest.raises(Interrupted):
        list(guarded("any", stopped))


# ---- the home


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(f"mounting a tmpfs needs root: {done.stderr.strip() if done else 'not root'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_home_that_is_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "home", "ro,size=64k") as home:
        assert "the file system is read-only -> free space or rights there" in only(check_home(home, shared=True))


def test_a_home_that_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "home", "size=64k") as home:
        with open(home / "filler", "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert "no space left on the device -> free space or rights there, or another home" in only(
            check_home(home, shared=True)
        )
        assert os.listdir(home) == ["filler"]


def test_a_home_in_memory_with_few_files(tmp_path: Path) -> None:
    with mounted(tmp_path / "home", "size=8m,nr_inodes=1000") as home:
        found = lines(check_home(home, shared=True))
    assert any("home: file system tmpfs: in memory, gone after a reboot" in text for text in found), found
    assert any(text.startswith("warning home: space 0.0 GB free, less than 50 GB -> `cwdpo prune`") for text in found)
    assert any(text.startswith("warning home: files ") for text in found)


def test_a_home_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated: no file system here is without; `link` refuses as it does on FAT and on some FUSE mounts."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "probe").touch()
    monkeypatch.setattr(os, "link", refuse)
    found = "failure home: hard link refused (Operation not permitted): results could not be published"
    assert only(hard_link(tmp_path)).startswith(found)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (0.0, None),
        (-90.0, "failure home: clock file times are 90 s ahead of this machine's clock"),
        (90.0, "failure home: clock file times are 90 s behind this machine's clock"),
        (5.0, "warning home: clock file times are 5 s behind this machine's clock"),
    ],
)
def test_a_clock_that_is_wrong(tmp_path: Path, ahead: float, expected: str | None) -> None:
    """Emulated: the clock that file times are compared with is moved, not that of the file system."""
    (found,) = lines(file_clock(tmp_path, lambda: time.time() + ahead))
    assert found.startswith(expected or "ok home: clock"), found


def test_code_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated for root, whom no mode stops: the file cannot be made."""
    (tmp_path / "slurm").mkdir()
    monkeypatch.setattr(Path, "touch", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    found = only(storage.code_folder(tmp_path))
    assert f"failure home: code {tmp_path}/slurm: permission denied: no copy of the code for jobs" in found


def test_the_file_system_of_the_last_and_longest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "a / ext4 rw 0 0\nb /gpfs\\040data gpfs rw 0 0\nc /gpfs\\040data/x nfs4 rw 0 0\nd / overlay rw 0 0\n"
    )
    assert file_system(Path("/gpfs data/x/y"), mounts) == "nfs4"
    assert file_system(Path("/gpfs data/z"), mounts) == "gpfs"
    assert file_system(Path("/etc"), mounts) == "overlay"
    assert file_system(Path("/etc"), tmp_path / "none") is None
    assert storage.is_network("fuse.glusterfs")
    assert not storage.is_network("ext4")


@pytest.mark.parametrize(
    ("name", "shared", "level"), [("ext4", True, "warning"), ("ext4", False, "ok"), ("nfs4", True, "ok")]
)
def test_a_disk_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shared: bool, level: str
) -> None:
    """Emulated: the name of the file system is said, not looked up."""
    monkeypatch.setattr(storage, "file_system", lambda path: name)
    (found,) = [text for text in lines(check_home(tmp_path, shared)) if "home: file system" in text]
    assert found.startswith(f"{level} home: file system {name}"), found
    assert ("which other nodes may not see -> `cwdpo doctor --submit` tries it" in found) == (level == "warning")


# ---- image and environment


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            Path.unlink,
            "no image '{path}': `make container` builds one, "
            "`apptainer pull` makes one of an address such as docker://... -> cluster profile: container.image",
        ),
        (lambda path: path.write_bytes(b"#!/bin/sh\n" * 50), "{path} is no "),
        (cut, "image {path} is cut off: "),
    ],
    ids=["missing", "no SIF", "cut off"],
)
def test_an_image_that_cannot_run(tmp_path: Path, damage: Callable[[Path], None], expected: str) -> None:
    path = write_image(tmp_path / "cwdpo.sif")
    damage(path)
    found = only(check_image(Apptainer(image=str(path)), tmp_path))
    assert found.startswith(f"failure image {expected.format(path=path)}"), found


def test_an_image_of_other_locks_and_another_commit(tmp_path: Path) -> None:
    path = write_image(tmp_path / "cwdpo.sif")
    found = lines(check_image(Apptainer(image=str(path)), tmp_path))
    assert found[0].startswith(f"ok image {path}, 0.0 GB, sha256:")
    assert found[1].startswith("warning image lock made from other locks (abc) than this checkout's (")
    assert found[1].endswith(") -> make container, and copy the new image")
    assert "image revision" in found[2]
    assert not found[2].startswith("ok")


def test_an_image_of_these_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image, "lock_digest", lambda folder: "abc")
    monkeypatch.setattr(image, "code_version", lambda: {"commit": "def"})
    found = lines(check_image(Apptainer(image=str(write_image(tmp_path / "cwdpo.sif"))), tmp_path / "no home"))
    assert [text.split()[0] for text in found] == ["ok", "ok", "ok"], found


def test_the_digest_of_the_locks_is_that_of_their_bytes_in_order() -> None:
    folder = lock_folder()
    assert folder == REPO / "containers"
    text = "cat torch.lock requirements.lock | sha256sum"
    said = subprocess.run(text, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == lock_digest(folder)


def test_a_container_program_that_is_elsewhere(tmp_path: Path) -> None:
    container = {"name": "apptainer", "image": str(write_image(tmp_path / "i.sif")), "program": "/nowhere/apptainer"}
    cluster = SlurmCluster.model_validate({"kind": "slurm", "node": {"gpus": 0, "cpus": 1}, "container": container})
    found = lines(check_environment(cluster, tmp_path))[-1]
    assert found.startswith("warning container program not checked: /nowhere/apptainer is not on this machine"), found


def test_an_interpreter_without_packages(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    found = only(image.check_python(str(python)))
    assert found.startswith(f"failure environment {python} lacks torch, transformers, peft, deepspeed, "), found
    assert "/nowhere/python does not start" in only(image.check_python("/nowhere/python"))


def test_versions_that_differ_from_the_lock() -> None:
    folder = lock_folder()
    assert folder is not None
    assert len(pinned(folder)) > 100
    found = only(check_packages({"numpy": "0.1", "pydantic": pinned(folder)["pydantic"], "no-such": "1.0"}))
    assert found.startswith("warning packages 2 of 3 differ from the lock: numpy "), found
    assert "(pinned: 0.1), no-such missing (pinned: 1.0) -> make setup, or make container" in found


def test_scores_that_will_not_be_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jars: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("CWDPO_SPICE_JARS", str(jars))
    assert only(check_tools()).startswith("warning Java Java not found: install a Java runtime")
    (jars / "stanford-corenlp-3.6.0-models.jar").unlink()
    monkeypatch.setenv("CWDPO_HOME", str(tmp_path))
    found = [text for text in lines(check_tools()) if text.startswith("warning SPICE")]
    assert "run: cwdpo fetch spice" in found[0]


# ---- tracking


@contextmanager
def server(status: int, text: str) -> Iterator[str]:
    """A real server that says one thing; the address of its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/version" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def track(uri: str, home: Path = Path("/nowhere")) -> str:
    (found,) = lines(check_tracking(home, {"MLFLOW_TRACKING_URI": uri}))
    return found


def test_a_tracking_server() -> None:
    with server(200, "3.17.0") as address:
        assert track(address) == f"ok tracking MLflow 3.17.0 at {address}"
        down = address
    assert track(down).startswith(f"failure tracking {down} does not answer: Connection refused -> start the server")
    with server(200, "<html>") as address:
        assert "answers, but is no MLflow server" in track(address)
    with server(401, "") as address:
        secret = address.replace("http://", "http://me:secret@")
        assert track(address).endswith("-> set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,"
                                       " or MLFLOW_TRACKING_TOKEN")  # fmt: skip
        assert "secret" not in track(secret)
    with server(503, "") as address:
        assert "answers with status 503: no MLflow server" in track(address)


def test_other_places_to_track_to(tmp_path: Path) -> None:
    assert track("./mlruns").startswith("failure tracking MLFLOW_TRACKING_URI=./mlruns: a folder; MLflow 3 refuses")
    assert track("postgresql://db").startswith("warning tracking not checked: MLFLOW_TRACKING_URI is a 'postgresql'")
    assert track("", tmp_path) == f"ok tracking SQLite in {tmp_path}/mlflow.db"


# ---- data and models


def preferences(folder: Path, *names: str) -> Preferences:
    """A data set with one record an image."""
    rows = [{"image": name, "prompt": "Say.", "chosen": "A ball.", "rejected": "A cube."} for name in names]
    (folder / "preferences.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name in names:
        Image.effect_noise((64, 64), 50).save(folder / name)
    return Preferences(source="preferences", root=folder)


def test_images_that_are_missing_or_damaged(tmp_path: Path) -> None:
    source = preferences(tmp_path, "a.png", "b.png", "c.png")
    assert lines(check_data(source)) == [
        f"ok data {tmp_path}/preferences.jsonl 3 records of 3 images (train 3, val 0, test 0)",
        f"ok images {tmp_path} 3 of 3 looked for and there, 3 of them decoded",
    ]
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:600])
    assert f"failure images {tmp_path} image {tmp_path}/b.png: damaged or truncated" in only(check_data(source))
    (tmp_path / "c.png").unlink()
    assert f"image {tmp_path}/c.png: no such file -> copy these images again" in only(check_data(source))
    (tmp_path / "preferences.jsonl").write_text('{"image": "a.png", "chosen": ""}\n')
    assert "preferences.jsonl, line 1" in only(check_data(source))


def test_a_sample_has_both_ends() -> None:
    names = [str(number) for number in range(1000)]
    assert sample(names, 4) == ["0", "333", "666", "999"]
    assert sample(names[:3], 4) == ["0", "1", "2"]


def model(folder: Path) -> Checkpoint:
    """A folder that looks like a model in two shards; the weights are real files of that format."""
    folder.mkdir()
    for name in ("config.json", "processor_config.json"):
        (folder / name).write_text("{}")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    for tensor, name in shards.items():
        save_file({tensor: np.zeros(10, dtype=np.float32)}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return Checkpoint(source="checkpoint", path=str(folder))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def head_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def other_tensor(path: Path) -> None:
    save_file({"c": np.zeros(10, dtype=np.float32)}, path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (Path.unlink, "lacks 1 of its 2 weight files (model-2.safetensors)"),
        (shorten, "bytes, but its header says"),
        (head_only, "no safetensors file, or cut off (shorter than its header)"),
        (other_tensor, "lacks 1 tensor(s) that the index names, the first is b"),
    ],
)
def test_weights_that_are_not_whole(tmp_path: Path, damage: Callable[[Path], None], expected: str) -> None:
    checkpoint = model(tmp_path / "m")
    (whole,) = lines(check_model(checkpoint))
    assert whole.startswith(f"ok model {tmp_path}/m configuration, processor and 2 file(s) of weights"), whole
    damage(tmp_path / "m" / "model-2.safetensors")
    found = only(check_model(checkpoint))
    assert found.startswith(f"failure model {tmp_path}/m "), found
    assert "model-2.safetensors" in found
    assert expected in found, found


def test_a_model_without_its_processor(tmp_path: Path) -> None:
    checkpoint = model(tmp_path / "m")
    (tmp_path / "m" / "processor_config.json").unlink()
    assert "holds no processor" in only(check_model(checkpoint))


# ---- the job on nodes


class Clock:
    """Seconds that pass only when a test says so, and Slurm's answers of the moment; neither a controller that fails
    over nor half an hour of waiting can be had here."""

    def __init__(self, *answers: str | None) -> None:
        self.seconds, self.asked, self.answers = 0.0, 0, list(answers)
        self.said: list[str] = []
        self.watch = Watch(self._answer, self.said.append, lambda: self.seconds)

    def _answer(self) -> Job | None:
        self.asked += 1
        state = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Job(state, "None") if state else None

    def run(self, seconds: int) -> Watch:
        for _ in range(seconds):
            self.watch.look()
            self.seconds += 1
        return self.watch


def test_a_job_that_waits_long_is_asked_for_seldom() -> None:
    clock = Clock("PENDING")
    watch = clock.run(1800)
    assert watch.waits
    assert not watch.ended
    assert clock.asked < 1800 / 15 + 10
    assert clock.said == ["PENDING (None)"]


def test_an_answer_without_the_job_does_not_end_the_wait() -> None:
    """Just after sbatch, and while another controller takes over."""
    clock = Clock(None, None, "PENDING", None, "PENDING")
    watch = clock.run(300)
    assert not watch.ended
    assert watch.waits
    assert clock.said == ["PENDING (None)", "not in the queue", "PENDING (None)"]
    assert Clock(None).run(300).waits, "one that never was there"


@pytest.mark.parametrize("last", [None, "FAILED", "COMPLETING"])
def test_a_job_that_is_through(last: str | None) -> None:
    clock = Clock("PENDING", "RUNNING", last)
    assert not clock.run(15).ended, "ranks may have written what is not seen yet"
    watch = clock.run(25)
    assert watch.ended
    assert not watch.waits, "it did start"


# ---- ports and nodes


def test_ports_that_the_system_hands_out(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("15000\t60999\n")
    found = only(check_ports((20000, 32767), tmp_path / "range"))
    assert found.startswith("warning ports ranks meet on 20000-32767, but this system hands out 15000-60999")
    assert "(1024-14999)" in found
    assert only(check_ports((20000, 32767), tmp_path / "none")).startswith("warning ports not checked: ")


def test_ports_that_are_taken(tmp_path: Path) -> None:
    with ExitStack() as stack:
        base = next(base for base in range(10000, 14000, 7) if all(listened_to(stack, base + one) for one in range(2)))
        kernel = Path("/proc/net/tcp").read_text().splitlines()
    own = [line for line in kernel[1:] if int(line.split()[1].rpartition(":")[2], 16) in (base, base + 1)]
    table = tmp_path / "tcp"  # other programs of this machine come and go
    table.write_text("\n".join([kernel[0], *own]) + "\n")

    def found(ports: int) -> str:
        (line,) = lines(check_taken((base, base + ports - 1), (table,)))
        return line

    assert found(2).startswith(
        f"failure ports taken other programs listen on all of {base}-{base + 1} -> cluster profile: ports"
    )
    assert "listen on 2 of the 5 ports" in found(5)
    assert found(100).startswith("ok ports taken")


def listened_to(stack: ExitStack, port: int) -> bool:
    """Listen on a port until the stack ends; False where another program has it."""
    one = stack.enter_context(closing(socket.socket()))
    try:
        one.bind(("127.0.0.1", port))
        one.listen()
    except OSError:
        return False
    return True


def test_ranks_in_the_wrong_image() -> None:
    inside = {"APPTAINER_CONTAINER": "/images/cwdpo.sif", "CWDPO_IMAGE": "sha256:one"}
    assert only(check_container("sha256:two", inside)).startswith("failure container the ranks are in sha256:one, not")
    assert "the ranks are in no container" in only(check_container("sha256:two", {}))
    assert lines(check_container("sha256:one", inside)) == ["ok container cwdpo.sif, sha256:one"]


def test_nodes_that_differ_are_named_and_those_that_do_not_are_one_line() -> None:
    same, slow = ok("GPUs", "4"), failure("packages", "2 differ", "make container")
    answers = [
        Answer(0, "node0", True, (same, ok("packages", "all"), ok("bandwidth", "fast")), 100.0),
        Answer(1, "node1", True, (same, slow), 142.0),
        Answer(2, "node1", True, (same,), 142.0),
    ]
    assert lines(merged(answers)) == [
        "ok GPUs 4",
        "ok packages node0: all",
        "failure packages node1: 2 differ -> make container",
        "ok bandwidth fast",
    ]
    assert "failure clocks of nodes those of node1 are 42 s ahead of those of node0" in only(clocks(answers))
    alone = [Answer(0, "node0", True, ()), Answer(1, "node1", True, ())]
    assert only(clocks(alone)) == "warning clocks of nodes not checked: the ranks did not meet"


def test_how_nccl_says_that_it_goes() -> None:
    """Lines in the form of NCCL 2.x's log; no GPU wrote them here."""
    log = """
node0:71:99 [0] NCCL INFO Channel 00/0 : 3[3] -> 0[0] [receive] via NET/IB/0/GDRDMA
node0:71:99 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[1] via P2P/CUMEM
node0:71:99 [0] NCCL INFO Channel 01/0 : 1[1] -> 2[2] via SHM/direct/direct
node1:71:99 [0] NCCL INFO Channel 01/0 : 1[0] -> 0[0] [send] via NET/AWS Libfabric/2
node1:71:99 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB
"""
    assert transports(log) == ["NET/AWS Libfabric", "NET/IB", "P2P", "SHM"]
    assert transports("0[0] -> 1[0] [send] via NET/Socket/0\n") == ["NET/Socket"]
    assert transports("") == []


def test_what_slurm_writes_of_gpus_and_times() -> None:
    assert gpus_in("gpu:a100:4(S:0-1),craynetwork:4") == {"a100": 4}
    assert gpus_in("gpu:2") == {"": 2}
    assert gpus_in("craynetwork:4,gpu:h100:8,gpu:mig:2") == {"h100": 8, "mig": 2}
    assert gpus_in("(null)") == {}
    assert minutes("1-00:30:00") == 24 * 60 + 30
    assert minutes("UNLIMITED") > 10**6
