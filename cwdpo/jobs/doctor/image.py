"""What jobs run in: the image of a profile, or the environment of a `bare` one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cwdpo
from cwdpo.base.errors import ConfigError
from cwdpo.jobs.clusters import SlurmCluster
from cwdpo.jobs.containers.bare import Bare
from cwdpo.jobs.containers.host import Host
from cwdpo.jobs.containers.image import REVISION, Image, identify
from cwdpo.jobs.containers.sif_runtime import SifRuntime
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok, unchecked, warning
from cwdpo.jobs.doctor.packages import check_packages, lock_digest, lock_folder, pinned
from cwdpo.jobs.doctor.tools import check_tools
from cwdpo.version import code_version

PACKAGE = Path(cwdpo.__file__).resolve().parent
SECONDS = 60.0
NEEDED = ("torch", "transformers", "peft", "deepspeed", "safetensors", "pycocoevalcap", "PIL")
LOOK = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])"


def check_environment(cluster: SlurmCluster, home: Path) -> Iterator[Finding]:
    """What jobs of a Slurm profile run in."""
    container = cluster.container
    if isinstance(container, Bare):
        yield from guarded("environment", check_python, container.python or sys.executable)
    else:
        yield from guarded("image", check_image, container, home)
        yield from guarded("container program", _program, container, home)


def check_here() -> Iterator[Finding]:
    """The environment that this command runs in, where jobs run in it too."""
    folder = lock_folder()
    yield from guarded("packages", check_packages, pinned(folder) if folder else {})
    yield from check_tools()


def check_python(python: str) -> Iterator[Finding]:
    """An interpreter with all that training needs, and nothing of it imported."""
    name, remedy = "environment", "cluster profile: container: {name: bare, python: ...}, or `make setup` there"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [python, "-c", LOOK, *NEEDED], capture_output=True, text=True, timeout=SECONDS, check=False, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield failure(name, f"{python} does not start: {getattr(error, 'strerror', None) or error}", remedy)
        return
    if done.returncode or done.stdout.strip():
        lacking = ", ".join(done.stdout.split()) or " ".join(done.stderr.split()[-20:])
        yield failure(name, f"{python} lacks {lacking}", remedy)
        return
    yield ok(name, f"no container; {python} has {len(NEEDED)} of {len(NEEDED)} packages that are needed")
    if python == sys.executable:
        yield from check_here()
    else:
        yield unchecked("tools", "Java, jars and versions of another interpreter's environment", "--submit looks there")


def check_image(container: SifRuntime, home: Path) -> Iterator[Finding]:
    """A whole SIF file, made from this checkout's locks."""
    path = Path(container.image).expanduser().absolute()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            kept = home / "digests" if os.access(home, os.W_OK) else Path(temporary)
            image = identify(path, kept)
    except ConfigError as error:
        yield failure("image", str(error), "cluster profile: container.image")
        return
    yield ok("image", f"{path}, {image.size / 1e9:.1f} GB, {image.short}")
    yield _lock(image)
    yield _revision(image)


def _lock(image: Image) -> Finding:
    folder, label = lock_folder(), image.labels.get("cwdpo.lock")
    if folder is None:
        return unchecked("image lock", "this cwdpo runs from no checkout, so there are no locks to compare with")
    if label is None:
        return warning("image lock", "the image does not say what it was made from", "make container")
    if label != lock_digest(folder):
        found = f"made from other locks ({label[:12]}) than this checkout's ({lock_digest(folder)[:12]})"
        return warning("image lock", found, "make container, and copy the new image")
    return ok("image lock", f"made from this checkout's locks ({label[:12]})")


def _revision(image: Image) -> Finding:
    here, label = code_version()["commit"], image.labels.get(REVISION)
    if label is None or here is None:
        return unchecked("image revision", "the image names no commit" if here else "this code names no commit")
    if label != here:
        found = f"made at commit {label[:12]}, this code is {str(here)[:12]}; jobs run this code in that image"
        return warning("image revision", found, "nothing, if only cwdpo itself has changed; else make container")
    return ok("image revision", f"made at this commit, {label[:12]}")


def _program(container: SifRuntime, home: Path) -> Iterator[Finding]:
    """The container program, which many sites have on compute nodes only."""
    name, program = "container program", container.program or container.command
    found = shutil.which(program)
    if found is None:
        yield unchecked(name, f"{program} is not on this machine; jobs look for it on their nodes", "--submit tries it")
        return
    done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        yield failure(name, f"{found}: {' '.join(done.stderr.split())}", "cluster profile: container.program")
    else:
        yield ok(name, done.stdout.strip())
        yield from guarded("inside the image", _inside, container, home)


def _inside(container: SifRuntime, home: Path) -> Iterator[Finding]:
    """Enter it as a job does, with the profile's binds and options; login nodes may forbid what others allow."""
    name, path = "inside the image", Path(container.image).expanduser().absolute()
    if not path.is_file():
        return  # told already
    host = Host(code=PACKAGE.parent, image=path, folders=(home.resolve(),) if home.is_dir() else ())
    command = container.enter(["-c", LOOK, *NEEDED], host)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()[-30:]) or f"exit status {done.returncode}"
        yield warning(name, f"it does not start here: {said}", "container.bind and options of the profile; --submit")
    elif done.stdout.strip():
        yield failure(name, f"it lacks {', '.join(done.stdout.split())}", "make container, and copy the new image")
    else:
        yield ok(name, f"it starts here and has {len(NEEDED)} of {len(NEEDED)} packages that are needed")
