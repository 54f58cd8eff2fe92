"""Clusters for tests: the packages are used where they are, and installed only where the environment says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import workers

sys.path.insert(0, str(Path(__file__).parent / "slurm"))

from cluster import SCRIPTS, Cluster

VARIABLE = "CWDPO_TEST_CLUSTER"
NEEDED = ("slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd", "munged")


def _missing() -> list[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@pytest.fixture(scope="session")
def slurm_packages(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Slurm, munge and MariaDB are there; installed, or skipped for want of them, as the environment says."""
    if _missing() and os.environ.get(VARIABLE) != "install":
        pytest.skip(f"no Slurm here ({', '.join(_missing())}); {VARIABLE}=install installs it, as root on Debian")
    workers.made_once(tmp_path_factory, "slurm-packages", _install)


def _install(_: Path) -> None:
    if not _missing():
        return
    done = subprocess.run([str(SCRIPTS / "install.sh")], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"slurm/install.sh failed\n{done.stdout}{done.stderr}"
    assert not _missing(), f"slurm/install.sh left out {_missing()}"


@pytest.fixture(scope="session")
def slurm(slurm_packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of most tests: no accounting, no kind settings. Tests leave its queue empty and its nodes up."""
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster.start()
    cluster.stop()


@pytest.fixture(scope="module")
def make_cluster(slurm_packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    """`make_cluster(MINJOBAGE=10)` starts a cluster with other options, stopped after the module."""
    started: list[Cluster] = []

    def make(**options: object) -> Cluster:
        started.append(Cluster(tmp_path_factory.mktemp("slurm"), **options))
        return started[-1].start()

    yield make
    for cluster in started:
        cluster.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    """A failed test shows what the daemons of its clusters said."""
    report = yield
    if report.failed:
        funcargs = getattr(item, "funcargs", {})
        for cluster in [value for value in funcargs.values() if isinstance(value, Cluster)]:
            report.sections.extend((f"end of {name}", text) for name, text in cluster.log_tails())
    return report
