"""All checks that are made on the machine where `doctor` is called; torch is not imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cwdpo.base.errors import CwdpoError
from cwdpo.experiment import Grid
from cwdpo.jobs.clusters import Cluster, LocalCluster, SlurmCluster, load_cluster
from cwdpo.jobs.doctor.check import Finding, failure, guarded, ok, unchecked
from cwdpo.jobs.doctor.data import assets_of, check_assets
from cwdpo.jobs.doctor.image import check_environment, check_here
from cwdpo.jobs.doctor.profile import check_code, check_local, check_slurm_ports
from cwdpo.jobs.doctor.slurm import check_slurm
from cwdpo.jobs.doctor.storage import check_home
from cwdpo.jobs.doctor.tracking import check_tracking
from cwdpo.jobs.slurm.batch import trial_script


@dataclass
class Patient:
    """What is looked at; a profile or a grid that cannot be read is a finding, and the rest is looked at.

    Attributes:
        profile: name or path; None is the default.
        load_grid: reads the grid that is asked for; None where none is.
    """

    home: Path
    profile: str | None
    load_grid: Callable[[], Grid] | None = None
    cluster: Cluster | None = field(default=None, init=False)
    grid: Grid | None = field(default=None, init=False)

    def login(self) -> Iterator[Finding]:
        """Everything that can be known here."""
        os.environ["CWDPO_HOME"] = str(self.home)  # as a worker has it: what was fetched lies there
        yield from guarded("code", check_code)
        yield from self._profile()
        yield from guarded("home", check_home, self.home, isinstance(self.cluster, SlurmCluster))
        yield from guarded("tracking", check_tracking, self.home)
        if isinstance(self.cluster, SlurmCluster):
            yield from _slurm(self.cluster, self.home)
        elif isinstance(self.cluster, LocalCluster):
            yield from guarded("machine", check_local, self.cluster)
            yield from check_here()
        yield from self._grid()

    def _profile(self) -> Iterator[Finding]:
        try:
            self.cluster = load_cluster(self.profile)
        except CwdpoError as error:
            yield failure("profile", str(error), "")
            yield unchecked("cluster", "its profile cannot be read")
        else:
            name = self.profile or os.environ.get("CWDPO_CLUSTER") or "default"
            yield ok("profile", f"{name}: {self.cluster.kind}")

    def _grid(self) -> Iterator[Finding]:
        if self.load_grid is None:
            return
        try:
            self.grid = self.load_grid()
        except CwdpoError as error:
            yield failure("grid", str(error), "")
            return
        yield ok("grid", f"{self.grid.name}: {len(self.grid.cells)} cell(s)")
        yield from check_assets(assets_of(self.grid))


def _slurm(cluster: SlurmCluster, home: Path) -> Iterator[Finding]:
    yield from check_environment(cluster, home)
    yield from guarded("ports", check_slurm_ports, cluster)
    yield from guarded("Slurm", check_slurm, cluster, lambda kind: trial_script(kind, cluster))
