"""What can go wrong while an image is built: no image, no temporary file, a reason, and an older image as it was.

The definitions here are tiny, on a base of one shell copied from the host, so that each build takes a second or two.
The script, the container program and its failures are the real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
    assert compression_of(tiny.output) == "zstd"
    assert told["sha256"] in done.stdout
    assert "container: {name: apptainer, image: /FOLDER/tiny.sif}" in done.stdout


SQUASHFS = {1: "gzip", 6: "zstd"}


def compression_of(image: Path) -> str:
    """What the superblock of the image's file system names."""
    content = image.read_bytes()
    return SQUASHFS[struct.unpack_from("<H", content, content.index(b"hsqs") + 20)[0]]


def test_the_compression_is_one_that_the_argument_file_names(tiny: Tiny) -> None:
    with open(tiny.arguments, "a") as file:
        file.write("compression=gzip\n")
    done = tiny.build()
    assert done.returncode == 0, done.stdout
    assert compression_of(tiny.output) == "gzip"
    tiny.arguments.write_text(tiny.arguments.read_text().replace("=gzip", "=lz5"))
    tiny.refuses(2, f"compression=lz5 in {tiny.arguments}; valid: zstd, gzip, or no such line")


@pytest.fixture
def older(tiny: Tiny, tmp_path: Path) -> Path:
    """The program with an option less, as older ones are: a script before it, since no older one can be had here."""
    script = tmp_path / "older/apptainer"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\nreal={shutil.which(tiny.apptainer.program)}\n"
        'case " $* " in *" --$LACKS"*) echo "unknown flag: --$LACKS"; exit 1;; esac\n'
        '[ "$*" != "build --help" ] || { "$real" build --help | grep -v -e "--$LACKS"; exit; }\n'
        'exec "$real" "$@"\n'
    )
    script.chmod(0o755)
    return script.parent


def test_an_older_program_builds_with_its_own_compression(tiny: Tiny, older: Path) -> None:
    with open(tiny.arguments, "a") as file:
        file.write("compression=zstd\n")
    path = f"{older}:{tiny.apptainer.environment['PATH']}"
    done = tiny.build(PATH=path, LACKS="mksquashfs-args")
    assert done.returncode == 0, done.stdout
    assert "cannot choose the compression (Apptainer 1.4 can): its own, not zstd" in done.stdout
    assert compression_of(tiny.output) == "gzip"


def test_a_program_too_old_for_argument_files_is_refused(tiny: Tiny, older: Path) -> None:
    path = f"{older}:{tiny.apptainer.environment['PATH']}"
    reason = "is too old, it knows no --build-arg-file: it takes Apptainer 1.2 or SingularityCE 4"
    tiny.refuses(6, reason, PATH=path, LACKS="build-arg-file")


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
        tiny.apptainer.building(*tiny.command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # bash cannot trap what its parent ignored
    )  # fmt: skip
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
                if path.name not in ("apptainer", "singularity") and not os.path.lexists(folder / "bin" / path.name):
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


BASE = {  # package: what it asks for, and its files
    "torch": (["filelock", "nvidia-nccl-cu13; sys_platform == 'linux'", "cuda-toolkit[cudart]"], ["torch", "torchgen"]),
    "nvidia-nccl-cu13": ([], ["nvidia/nccl"]),
    "cuda_toolkit": (["nvidia-cuda-runtime; extra == 'cudart'"], []),
    "nvidia-cuda-runtime": ([], ["nvidia/cu13"]),
    "filelock": ([], ["filelock"]),
    "torchvision": (["torch"], ["torchvision"]),
    "flash_attn": (["torch"], ["flash_attn"]),
}


def install(name: str, needs: list[str], folders: list[str], site: Path) -> None:
    """An installed package, as pip leaves it."""
    own = site / f"{name}-1.0.dist-info"
    own.mkdir(parents=True)
    needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (own / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}")
    files = [f"{folder}/__init__.py" for folder in folders]
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).touch()
    (own / "RECORD").write_text(
        "".join(f"{file},,\n" for file in [*files, f"../../bin/{name}", f"{own.name}/METADATA"])
    )


def test_of_a_base_only_torch_and_its_libraries_can_be_imported(tmp_path: Path) -> None:
    for name, (needs, folders) in BASE.items():
        install(name, needs, folders, tmp_path / "site")
    command = [sys.executable, CONTAINERS / "expose_torch.py", tmp_path / "site", tmp_path / "seen"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept = ["cuda_toolkit", "nvidia-cuda-runtime", "nvidia-nccl-cu13", "torch"]
    wanted = [*(f"{name}-1.0.dist-info" for name in kept), "nvidia", "torch", "torchgen"]
    assert left_behind(tmp_path / "seen") == sorted(wanted)
    assert (tmp_path / "seen/nvidia/cu13/__init__.py").is_file()
    assert "torch 1.0" in done.stdout


@pytest.fixture
def check_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The image's own checks, with `tmp_path` as the folder they lie in."""
    monkeypatch.syspath_prepend(str(CONTAINERS))
    import check_image

    monkeypatch.setattr(check_image, "BESIDE", tmp_path)
    return check_image


def test_a_package_that_nothing_locks_fails_the_images_test(check_image: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install("torchvision", [], ["torchvision"], site)
    install("numpy", [], ["numpy"], site)
    install("torch", [], ["torch"], tmp_path / "of_the_base")
    (tmp_path / "requirements.lock").write_text("# by hash\nNumPy==1.0 \\\n    --hash=sha256:00\n")
    (tmp_path / "build.lock").write_text("setuptools==84.2.1\n")
    seen = [str(site), str(tmp_path / "of_the_base")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", seen)
        with pytest.raises(check_image.Wrong, match=re.escape(f"torchvision 1.0 in {site} (PYTHONPATH is '")):
            check_image.only_what_is_locked()
        shutil.rmtree(site / "torchvision-1.0.dist-info")
        assert check_image.only_what_is_locked() == "2 importable, all of them locked or torch's (torch)"


def test_operations_that_were_not_compiled_for_gpus_fail_the_images_test(
    check_image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspeed import git_version_info as built

    (tmp_path / "deepspeed_ops").write_text("none\n")
    assert check_image.compiled_operations() == "none asked for"
    (tmp_path / "deepspeed_ops").write_text("FUSED_ADAM,AIO\n")
    monkeypatch.setattr(built, "accelerator_name", "cpu")
    with pytest.raises(check_image.Wrong, match="DeepSpeed was built for 'cpu'"):
        check_image.compiled_operations()
    # what it says of itself after a build for GPUs, which this machine cannot do
    monkeypatch.setattr(built, "accelerator_name", "cuda")
    monkeypatch.setattr(built, "installed_ops", {"fused_adam": True, "async_io": False})
    with pytest.raises(check_image.Wrong, match="not compiled: AIO"):
        check_image.compiled_operations()
    monkeypatch.setattr(built, "installed_ops", {"fused_adam": True, "async_io": True})
    assert check_image.compiled_operations() == "FUSED_ADAM,AIO"
