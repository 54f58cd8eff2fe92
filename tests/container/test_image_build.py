"""What can go wrong while an image is built: no image, no temporary file, a reason, and an older image as it was.

The definitions here are tiny, on a base of one shell copied from the host, so that each build takes a second or two.
The script, the container program and its failures are the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder import CONTAINERS, Apptainer, left_behind
from conftest import cannot

HEADER = "Bootstrap: {{ bootstrap }}\nFrom: {{ base }}\n"
LABELS = "%labels\n    revision {{ revision }}\n    colour {{ colour }}\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with sh and sleep of this machine, and the libraries they need."""
    folder = tmp_path_factory.mktemp("base") / "root"
    for name in ("bin", "dev", "etc", "mnt", "proc", "root", "sys", "tmp", "var/tmp"):
        (folder / name).mkdir(parents=True)
    for program in ("/bin/sh", "/bin/sleep"):
        _copy(Path(program), folder)
        for word in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split():
            if word.startswith("/"):
                _copy(Path(word), folder)
    return folder


def _copy(path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path.resolve(), target)


class Tiny:
    """A definition and an argument file in a folder of their own, and where the image and temporary files go."""

    def __init__(self, apptainer: Apptainer, base: Path, folder: Path) -> None:
        self.apptainer, self.folder = apptainer, folder
        self.arguments, self.definition = folder / "tiny.args", folder / "tiny.def"
        self.output, self.room = folder / "out" / "tiny.sif", folder / "room"
        self.output.parent.mkdir()
        self.room.mkdir()
        self.arguments.write_text(f"# a comment\nbootstrap=localimage\nbase={base}\ncolour=blue\n")
        self.define("")

    def define(self, sections: str) -> None:
        self.definition.write_text(HEADER + LABELS + sections)

    @property
    def command(self) -> list[str]:
        return [str(self.arguments), "--definition", str(self.definition), "--output", str(self.output)]

    @property
    def environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.room), "PIP_INDEX_URL": f"file://{self.folder}/simple", "APPTAINER_TMPDIR": ""}

    def build(self, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.apptainer.build(*self.command, *more, environment={**self.environment, **environment})

    def refuses(self, status: int, reason: str, *more: str, **environment: str) -> None:
        """The build fails with `reason`, and leaves every file as it was."""
        before = {path: path.read_bytes() for path in self.output.parent.iterdir()}
        done = self.build(*more, **environment)
        assert (done.returncode, reason in done.stdout) == (status, True), done.stdout
        assert {path: path.read_bytes() for path in self.output.parent.iterdir()} == before
        assert left_behind(self.room) == []


@pytest.fixture
def tiny(apptainer: Apptainer, base: Path, tmp_path: Path) -> Tiny:
    return Tiny(apptainer, base, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        cannot("only root can mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        cannot("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_built_image_is_told_by_its_digest(tiny: Tiny) -> None:
    tiny.define("%test\n    test -x /bin/sleep\n")
    done = tiny.build()
    assert done.returncode == 0, done.stdout
    assert left_behind(tiny.output.parent) == ["tiny.sif", "tiny.sif.json"]
    assert left_behind(tiny.room) == []
    told = json.loads((tiny.output.parent / "tiny.sif.json").read_text())
    content = tiny.output.read_bytes()
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert (told["bytes"], told["labels"]["colour"], told["image"]) == (len(content), "blue", "tiny.sif")
    assert told["sha256"] in done.stdout
    assert "container: {name: apptainer, image: /FOLDER/tiny.sif}" in done.stdout


def test_a_failing_test_keeps_the_older_image(tiny: Tiny) -> None:
    assert tiny.build().returncode == 0
    tiny.define("%test\n    echo it is broken\n    exit 3\n")
    tiny.refuses(1, "it is broken")


def test_a_failing_step_leaves_nothing(tiny: Tiny) -> None:
    tiny.define("%post\n    echo no such thing\n    exit 1\n")
    tiny.refuses(1, "no such thing")


def test_a_missing_argument_is_named(tiny: Tiny) -> None:
    tiny.define("%post\n    echo {{ flavour }}\n")
    tiny.refuses(1, "flavour")


def test_an_argument_that_nothing_uses_is_named(tiny: Tiny) -> None:
    with open(tiny.arguments, "a") as file:
        file.write("flavor=sweet\n")
    tiny.refuses(1, "flavor")


def test_a_disk_that_fills_while_packages_are_installed(tiny: Tiny, small_disk: Path) -> None:
    tiny.define("%setup\n    head -c 30000000 /dev/zero >$APPTAINER_ROOTFS/big\n")
    tiny.refuses(1, "No space left on device", TMPDIR=str(small_disk))
    assert left_behind(small_disk) == []


def test_a_disk_that_is_too_small_for_the_image(tiny: Tiny, small_disk: Path) -> None:
    tiny.define("%setup\n    head -c 30000000 /dev/urandom >$APPTAINER_ROOTFS/big\n")
    tiny.output = small_disk / "tiny.sif"
    tiny.refuses(1, "no space left on device")


def test_too_little_room_is_said_before_anything_starts(tiny: Tiny, small_disk: Path) -> None:
    with open(tiny.arguments, "a") as file:
        file.write("space_tmp=5\nspace_image=1\n")
    tiny.refuses(6, f"{small_disk} has 0 GB free, and building needs 5 GB there", TMPDIR=str(small_disk))
    tiny.output = small_disk / "tiny.sif"
    tiny.refuses(6, "and the image needs 1 GB there. Make room, or name another place with --output")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_that_is_stopped_leaves_nothing_behind(tiny: Tiny, sent: signal.Signals, status: int) -> None:
    nap = f"86{os.getpid()}.{status}"  # a number by which its process is found
    tiny.define(f"%post\n    echo '== 0 napping'\n    sleep {nap}\n")
    environment = {**tiny.apptainer.environment, **tiny.environment}
    process = subprocess.Popen(
        tiny.apptainer.building(*tiny.command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert process.stdout is not None
    while b"napping" not in (line := process.stdout.readline()):
        assert line, "the build ended before its nap"
    process.send_signal(sent)
    assert process.wait(60) == status
    assert left_behind(tiny.output.parent) == left_behind(tiny.room) == []
    process.stdout.close()
    for _ in range(100):
        if not _runs(nap):
            return
        time.sleep(0.1)
    pytest.fail("the build's process lives on")


def _runs(word: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", word.encode()]:
                return True
        except OSError:
            continue
    return False


def test_no_network_names_the_host(tiny: Tiny) -> None:
    tiny.refuses(6, "cannot reach nowhere.invalid, port 443", PIP_INDEX_URL="https://nowhere.invalid/simple")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A copy of `containers/` that everybody may read, without an Apptainer beside it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(CONTAINERS, folder / "containers", ignore=shutil.ignore_patterns("build"))
        (folder / "bin").mkdir()
        for source in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
            for path in Path(source).iterdir():
                if path.name not in ("apptainer", "singularity") and not (folder / "bin" / path.name).exists():
                    (folder / "bin" / path.name).symlink_to(path)
        yield folder


def test_no_container_program_says_how_to_get_one(elsewhere: Path, tiny: Tiny) -> None:
    command = [str(elsewhere / "containers/build.sh"), *tiny.command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(elsewhere / "bin")})
    assert done.returncode == 6
    assert "neither apptainer nor singularity is on PATH" in done.stderr
    assert "containers/apptainer.sh" in done.stderr
    assert left_behind(tiny.output.parent) == []


def test_a_user_without_further_ids_is_told(elsewhere: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root can become a user without a line in /etc/subuid")
    (elsewhere / "bin/apptainer").write_text("#!/bin/sh\n")  # never run: the check comes first
    (elsewhere / "bin/apptainer").chmod(0o755)
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*as_nobody, str(elsewhere / "containers/build.sh"), "cpu", "--output", f"{elsewhere}/x.sif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(elsewhere / "bin")})
    assert done.returncode == 6, done.stderr
    assert "has no line in /etc/subuid" in done.stderr
    assert "usermod --add-subuids" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "which image?"),
        (["gpu"], "valid: cluster, cpu, or a file named *.args"),
        (["cpu", "cluster"], "one image at a time"),
        (["cpu", "--sing"], "what is '--sing'? Valid: --output FILE"),
        (["cpu", "--output"], "--output needs a file"),
        (["cpu", "--definition", "/nowhere.def"], "there is no definition /nowhere.def"),
    ],
)
def test_a_wrong_command_line_names_what_is_valid(words: list[str], reason: str) -> None:
    done = subprocess.run([str(CONTAINERS / "build.sh"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_signature_is_made_and_verified(tiny: Tiny, tmp_path: Path) -> None:
    tiny.refuses(1, "apptainer key newpair", "--sign", HOME=str(tmp_path), APPTAINER_CONFIGDIR=str(tmp_path / "keys"))
    keys = {"HOME": str(tmp_path), "APPTAINER_CONFIGDIR": str(tmp_path / "keys")}
    quick = ("--bit-length", "2048", "--push=false", "--password", "")
    owner = ("--name", "test", "--email", "test@example.org", "--comment", "")
    command = [tiny.apptainer.program, "key", "newpair", *quick, *owner]
    subprocess.run(command, check=True, capture_output=True, env={**tiny.apptainer.environment, **keys})
    done = tiny.build("--sign", **keys)
    assert done.returncode == 0, done.stdout
    assert "verified" in done.stdout
    told = json.loads((tiny.output.parent / "tiny.sif.json").read_text())
    assert told["sha256"] == hashlib.sha256(tiny.output.read_bytes()).hexdigest()
