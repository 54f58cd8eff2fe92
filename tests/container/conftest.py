"""The image for tests: built once a session by the project's own script, with an Apptainer that is not installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from builder import CONTAINERS, ROOT, Apptainer, find

VARIABLE = "CWDPO_TEST_CLUSTER"
"""`install`: what is missing is installed, and a test that cannot run fails instead of being skipped."""
GIVEN = "CWDPO_TEST_IMAGE"
"""Path of an image built before, to be tested as it is; `build` builds one (ten minutes)."""
PLANTED = "planted-on-the-host"


def cannot(reason: str) -> None:
    """Skip, or fail where the environment says that nothing may be skipped."""
    if os.environ.get(VARIABLE) == "install":
        pytest.fail(reason)
    pytest.skip(f"{reason}; {VARIABLE}=install makes this a failure")


@pytest.fixture(scope="session")
def apptainer() -> Apptainer:
    """Apptainer of this machine, else one put into `.apptainer/` from Debian's packages."""
    found = shutil.which("apptainer")
    if found:
        return find(found)
    done = subprocess.run([CONTAINERS / "apptainer.sh"], capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        cannot(f"no Apptainer here: {done.stderr.strip().splitlines()[-1]}")
    return find(str(ROOT / ".apptainer/usr/bin/apptainer"))


def _planted_settings(folder: Path) -> dict[str, str]:
    """Settings of a host that work, and that nobody should find in an image: a mirror's address, pip's, a proxy's."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    mirror = next(address for address in listed.stdout.split() if re.search(r"/debian/?$", address))
    port = re.sub(r"^(http://[^:/]+)/", r"\1:80/", mirror)
    (folder / "its.list").write_text(f"deb [trusted=yes] {port} bookworm main\n")
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/its.list";\nDir::Etc::sourceparts "{folder}/none";\n'
    )
    return {
        "APT_CONFIG": str(folder / "apt.conf"),
        "PIP_TRUSTED_HOST": f"{PLANTED}.invalid",
        "no_proxy": f"{PLANTED}.invalid",
        "CWDPO_PLANTED": PLANTED,
    }


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the host of the `image` fixture has set."""
    return _planted_settings(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="session")
def image(apptainer: Apptainer, planted: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CPU image, as `make container-cpu` builds it."""
    given = os.environ.get(GIVEN)
    if not given:
        pytest.skip("building the image takes ten minutes: make test-image")
    if given != "build":
        return Path(given)
    path = tmp_path_factory.mktemp("image") / "cwdpo-cpu.sif"
    done = apptainer.build("cpu", "--output", path, environment=planted)
    assert done.returncode == 0, done.stdout
    print(done.stdout)
    return path
