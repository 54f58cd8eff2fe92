"""One short job that looks at compute nodes: submit it, wait for it, say what its ranks found."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import CwdpoError
from cwdpo.jobs.clusters import Resources, SlurmCluster
from cwdpo.jobs.containers.image import Image, identify
from cwdpo.jobs.doctor import slurm_site
from cwdpo.jobs.doctor.check import Finding, failure, unchecked
from cwdpo.jobs.doctor.data import Assets
from cwdpo.jobs.doctor.packages import lock_folder, pinned
from cwdpo.jobs.doctor.request import Answer, Request
from cwdpo.jobs.doctor.storage import judged_skew
from cwdpo.jobs.doctor.watch import LATE_SECONDS, Watch
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.batch import probe_script
from cwdpo.jobs.slurm.snapshot import snapshot
from cwdpo.jobs.slurm.standing import ENDED
from cwdpo.jobs.slurm.submission import sbatch
from cwdpo.model.config import checkpoint_folder

MINUTES = 10
NODES = 2
POLL_SECONDS = 1.0
LOG_LINES = 4


@dataclass
class Probe:
    """The job of one `doctor --submit`.

    Attributes:
        folder: in the home; goes when nothing failed.
        say: told how the job stands.
    """

    cluster: SlurmCluster
    home: Path
    assets: Assets
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.name = f"cwdpo-doctor-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        self.folder = self.home.resolve() / "doctor" / self.name.removeprefix("cwdpo-doctor-")
        train = self.cluster.resources("train")
        self.resources: Resources = replace(train, nodes=min(NODES, train.nodes), minutes=min(MINUTES, train.minutes))

    def run(self, seconds: float) -> list[Finding]:
        """Submit, wait for at most `seconds` until it starts, and take the job away whatever happens meanwhile.

        Raises:
            CwdpoError: the job could not be submitted.
        """
        try:
            self._write()
            found = self._waited(seconds) or self._found()
        except BaseException:  # Ctrl-C too: neither files nor a job stay
            self.clear()
            raise
        if any(finding.level == "failure" for finding in found):
            self.say(f"what the job wrote is in {self.folder}")
        else:
            self.clear()
        return found

    def clear(self) -> None:
        """Remove what was written."""
        files.remove_tree(self.folder)
        with suppress(OSError):  # another one's is in it
            self.folder.parent.rmdir()

    def _write(self) -> None:
        """Request, code and script; only then is anything submitted."""
        wanted, image, assets = self.resources, self._image(), _as_seen_here(self.assets)
        locks = lock_folder()
        Request(
            nodes=wanted.nodes, tasks_per_node=wanted.tasks_per_node, gpus_per_node=wanted.gpus_per_node,
            cpus_per_task=wanted.cpus_per_task, image=image.digest if image else None, ports=self.cluster.ports,
            packages=pinned(locks) if locks else {}, assets=assets,
        ).write(self.folder)  # fmt: skip
        folders = [self.home.resolve(), *(source.root for source in assets.outside)]
        folders += [Path(model.path) for model in assets.models]
        code = snapshot(self.folder / "code")
        text = probe_script(self.folder, self.name, self.cluster, wanted, code, image, folders)
        files.write_text(self.folder / "script.sh", text)

    def _image(self) -> Image | None:
        image = self.cluster.container.image
        return identify(Path(image).expanduser().absolute(), self.home / "digests") if image else None

    def _waited(self, seconds: float) -> list[Finding]:
        """Submit and wait; whatever happens, the job is gone then."""
        try:
            job = sbatch(self.name, self.folder / "script.sh", [], self.say)
            asked = self.resources
            self.say(f"job {job}: {asked.nodes} node(s), {asked.ranks} rank(s), {asked.minutes} minutes at most")
            return self._wait(seconds)
        finally:
            self._end()

    def _wait(self, seconds: float) -> list[Finding]:
        """Until every rank has answered or the job has ended; that nobody knows, where it does not start in time."""
        watch = Watch(self._job, lambda state: self.say(f"{self.name}: {state}"))
        deadline = time.monotonic() + seconds
        while not (self._answered() or watch.ended):
            watch.look()
            if watch.waits and time.monotonic() > deadline:
                remedy = "a longer --wait; cluster profile: a partition, qos or account that is less busy"
                still = f"after {seconds / 60:g} minute(s) its job was still {watch.state}, and was cancelled"
                return [unchecked("probe job", still, remedy)]
            time.sleep(POLL_SECONDS)
        return []

    def _job(self) -> slurm_site.Job | None:
        return slurm_site.job(self.name)

    def _answered(self) -> bool:
        return sum(answer.complete for answer in Answer.read_all(self.folder)) == self.resources.ranks

    def _end(self) -> None:
        """Let a job that is through end by itself, and cancel any other."""
        with suppress(CwdpoError):  # Slurm is away; the time limit ends the job
            if not (self._answered() and self._is_gone_within(LATE_SECONDS)):
                commands.cancel(["--name", self.name])  # also one that squeue does not show yet
                self._is_gone_within(LATE_SECONDS)

    def _is_gone_within(self, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while (job := self._job()) and job.state not in ENDED:
            if time.monotonic() >= limit:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _found(self) -> list[Finding]:
        answers = Answer.read_all(self.folder)
        silent = sorted(set(range(self.resources.ranks)) - {answer.rank for answer in answers})
        missing = [self._silence(silent)] if silent else []
        return [*missing, *merged(answers), *clocks(answers)]

    def _silence(self, ranks: Sequence[int]) -> Finding:
        """Ranks that wrote nothing at all, and what their job said last."""
        log = self.folder / "out"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        own = [line.strip() for line in lines if not line.startswith(("srun: ", "slurmstepd: "))]
        said = f"; its log ends: {' / '.join(own[-LOG_LINES:])}" if own else "; its log is empty"
        remedy = f"see that all nodes see this home, and {log}; container: and setup: in the profile"
        return failure("probe job", f"rank(s) {', '.join(map(str, ranks))} wrote nothing{said}", remedy)


def _as_seen_here(assets: Assets) -> Assets:
    """With folders in place of relative paths and hub names, as jobs get them; what is missing was told before."""
    data = [
        source.model_copy(update={"root": Path(os.path.abspath(source.root.expanduser()))}) for source in assets.outside
    ]
    models = []
    for model in assets.models:
        with suppress(CwdpoError):
            models.append(model.model_copy(update={"path": os.path.abspath(checkpoint_folder(model))}))
    return Assets(data=tuple(data), models=tuple(models))


def merged(answers: Sequence[Answer]) -> list[Finding]:
    """What all nodes say alike, once; where they differ, each with its nodes."""
    everywhere = {answer.node for answer in answers}
    said: dict[Finding, list[str]] = {}
    for answer in answers:
        for finding in answer.findings:
            said.setdefault(finding, []).append(answer.node)
    names = list(dict.fromkeys(finding.name for finding in said))
    ordered = sorted(said, key=lambda finding: names.index(finding.name))
    alone = {name for name in names if sum(finding.name == name for finding in said) == 1}
    return [
        finding
        if finding.name in alone and (finding.level == "ok" or set(said[finding]) == everywhere)
        else replace(finding, nodes=tuple(dict.fromkeys(said[finding])))
        for finding in ordered
    ]


def clocks(answers: Sequence[Answer]) -> list[Finding]:
    """How far the nodes' clocks are apart."""
    times = {answer.clock: answer.node for answer in answers if answer.clock is not None}
    if len({answer.node for answer in answers}) < 2:
        return []
    if len(times) < 2:
        return [unchecked("clocks of nodes", "the ranks did not meet")]
    first, last = min(times), max(times)
    return [judged_skew("clocks of nodes", last - first, f"those of {times[last]}", f"those of {times[first]}")]
