"""Sending arrays to Slurm: intent first, then sbatch, then the job id."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cwdpo.graph import Node, Outside
from cwdpo.jobs.clusters import KINDS, Kind, Resources, SlurmCluster
from cwdpo.jobs.containers.image import Image
from cwdpo.jobs.job import job_content
from cwdpo.jobs.plan import Plan
from cwdpo.jobs.slurm import commands
from cwdpo.jobs.slurm.arrays import Array, limited, pack
from cwdpo.jobs.slurm.batch import script
from cwdpo.jobs.slurm.commands import SlurmDown, SlurmError
from cwdpo.jobs.slurm.elements import Before, Place, elements, nothing_before
from cwdpo.jobs.slurm.ledger import Ledger, unique_name
from cwdpo.jobs.slurm.lock import Lost
from cwdpo.jobs.slurm.standing import job_ids


@dataclass
class Submission:
    """Sends what is missing of a plan.

    Attributes:
        code: snapshot that jobs run.
        image: what they run in; None for a bare environment.
        check: raises when this process lost the lock.
        say: told about every array.
        job_ids: array name -> Slurm's job id, of arrays that elements may wait for.
        before: all places in the queue that must succeed before one of these starts.
    """

    plan: Plan
    cluster: SlurmCluster
    code: Path
    image: Image | None = None
    check: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda text: None
    job_ids: dict[str, str] = field(default_factory=dict)
    before: Before = nothing_before

    @property
    def ledger(self) -> Ledger:
        """Where it is written down."""
        return Ledger(self.plan.store)

    def arrays(self, todo: Sequence[Node], queued: Mapping[str, Place]) -> list[Array]:
        """The arrays that compute `todo`; `queued` are nodes that the queue computes already, and where."""
        found = elements(todo, self.cluster.bundle, queued, labels(self.plan), self.before)
        return pack(found, lambda kind: unique_name(self.plan.grid.name, kind), self.cluster.max_array)

    def send(self, todo: Sequence[Node], queued: Mapping[str, Place], room: int | None) -> list[Array]:
        """Submit what there is room for; returns the arrays that Slurm has now.

        Raises:
            SlurmError: Slurm refused an array; what was submitted before stays.
        """
        arrays = limited(self.arrays(todo, queued), room)
        for array in arrays:
            self._send(array)
        return arrays

    def preflight(self, todo: Sequence[Node], queued: Mapping[str, Place]) -> list[tuple[Kind, str]]:
        """Ask Slurm about the largest array of every kind; submits nothing.

        Returns:
            Kind, and when Slurm expects such a job to start, in its own words.

        Raises:
            SlurmError: a kind of job could never run; names the key of the profile.
        """
        by_size = sorted(self.arrays(todo, queued), key=lambda array: max(array.elements))
        largest = {array.kind: array for array in by_size}
        return [(kind, self._expected(array)) for kind, array in sorted(largest.items())]

    def _expected(self, array: Array) -> str:
        """For its last element: all together may be more than Slurm takes at once."""
        last = max(array.elements)
        array = replace(array, elements={last: array.elements[last]})
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
            file.write(self.script(array))
            file.flush()
            try:
                return commands.estimated_start(file.name)
            except SlurmDown:
                raise
            except SlurmError as error:
                if self.cluster.max_submit and _FULL.search(str(error)):
                    return "waits for room in the queue"
                raise SlurmError(self._explained(str(error), array)) from error

    def script(self, array: Array) -> str:
        """The script of an array, without its dependency."""
        record = self.ledger.record(array.name).folder
        return script(record, array, self.cluster, self.code, self.image, self._folders(array))

    def _folders(self, array: Array) -> list[Path]:
        """What the jobs of an array read and write."""
        nodes = [node for element in array.elements.values() for node in element.nodes]
        outside = {
            Path(os.path.abspath(entry.path))
            for node in nodes
            for entry in node.inputs.values()
            if isinstance(entry, Outside)
        }
        return [self.plan.store.home.resolve(), *sorted(outside)]

    def _send(self, array: Array) -> None:
        dependency = array.dependency(self.job_ids)
        self.check()
        record = self.ledger.intend(array.name, self._intent(array), self.jobs(array), self.script(array))
        options = [f"--dependency={dependency}", "--kill-on-invalid-dep=no"] if dependency else []
        try:
            self.check()
            job_id = sbatch(array.name, record.folder / "script.sh", options, self.say)
        except SlurmDown:
            raise  # it may have been accepted: the next command looks for it by its name
        except Lost:
            record.abandon("another process took over before it was sent")
            raise
        except SlurmError as error:
            record.abandon(str(error))
            raise SlurmError(self._explained(str(error), array)) from error
        record.acknowledge(job_id)
        self.job_ids[array.name] = job_id
        waits = f", after {dependency}" if dependency else ""
        self.say(f"job {job_id}: {array.kind} x {len(array.elements)}{waits}")

    def _intent(self, array: Array) -> dict[str, Any]:
        members = [
            {
                "index": index,
                "label": element.label,
                "nodes": [{"stage": node.stage.name, "id": node.id} for node in element.nodes],
                "parents": array.parents(index),
            }
            for index, element in array.elements.items()
        ]
        return {
            "name": array.name,
            "grid": self.plan.grid.name,
            "kind": array.kind,
            "created": time.time(),
            "code": str(self.code),
            "image": self.image.as_json() if self.image else None,
            "cluster": self.cluster.model_dump(mode="json"),
            "resources": asdict(self.cluster.resources(array.kind)),
            "elements": members,
        }

    def jobs(self, array: Array) -> Iterator[dict[str, Any]]:
        """What each element computes, as its worker reads it."""
        threads = self.cluster.resources(array.kind).cpus_per_task
        for index, element in array.elements.items():
            yield {"index": index, **job_content(self.plan.store, element.nodes, threads)}

    def _explained(self, complaint: str, array: Array) -> str:
        """Slurm's words, which key they are about, and what would be valid."""
        shape = self.cluster.resources(array.kind)
        for pattern, explain in _HINTS:
            if re.search(pattern, complaint, re.IGNORECASE):
                return f"{complaint}\n{explain(shape, self.cluster)}"
        return f"{complaint}\nThe job was: {array.kind}, {_in_words(shape)}"


def sbatch(name: str, script: Path, options: Sequence[str], say: Callable[[str], None]) -> str:
    """Submit a script whose job has a unique name; returns the job id.

    Raises:
        SlurmDown: it may have been accepted all the same.
        SlurmError: it was refused.
    """
    line = ["sbatch", "--parsable", *options, str(script)]
    output = commands.run(line, settled=lambda: job_ids(commands.queue()).get(name), say=say)
    return output.strip().partition(";")[0]


def _partition_hint(shape: Any, cluster: SlurmCluster) -> str:
    found = commands.run(["sinfo", "--noheader", "--format", "%R"]).split()
    return f"cluster profile, partition: '{shape.partition}'; partitions here: {', '.join(sorted(set(found)))}"


def _size_hint(shape: Any, cluster: SlurmCluster) -> str:
    found = commands.run(["sinfo", "--noheader", "--format", "%R: %D nodes, %c CPUs, %m MB, %G"]).splitlines()
    return f"cluster profile, {shape.kind} and node: asked for {_in_words(shape)}; here are: {'; '.join(found)}"


def _in_words(shape: Resources) -> str:
    memory = f", {shape.memory_gb} GB" if shape.memory_gb else ""
    wanted = f"{shape.tasks_per_node} x {shape.cpus_per_task} CPUs, {shape.gpus_per_node} GPUs{memory}"
    return f"{shape.nodes} node(s) of {wanted}"


def _controller_hint(shape: Resources, cluster: SlurmCluster) -> str:
    return "Slurm's controller does not answer, or SLURM_CONF does not name its configuration; try `sinfo`"


def _account_hint(shape: Any, cluster: SlurmCluster) -> str:
    return f"cluster profile, account: {cluster.account}, qos: {shape.qos}, partition: {shape.partition}"


def _array_hint(shape: Any, cluster: SlurmCluster) -> str:
    return (
        f"cluster profile, max_array: {cluster.max_array}; the site's is in `scontrol show config | grep MaxArraySize`"
    )


def _limit_hint(shape: Any, cluster: SlurmCluster) -> str:
    return f"cluster profile, max_submit: {cluster.max_submit or 'no limit'}; the site allows fewer jobs at a time"


_FULL = re.compile(r"MaxSubmit|submit limit", re.IGNORECASE)
"""What Slurm says when a user has as many jobs in the queue as the site allows."""

_HINTS: tuple[tuple[str, Callable[[Any, SlurmCluster], str]], ...] = (
    (r"failed to fetch config|unable to contact slurm controller", _controller_hint),
    (r"invalid partition", _partition_hint),
    (r"node configuration|node count|more processors|gres|memory specification|cpu count", _size_hint),
    (_FULL.pattern, _limit_hint),  # before the next: it says "accounting/QOS policy", too
    (r"account|qos", _account_hint),
    (r"array", _array_hint),
)
"""(what Slurm says, which key of the profile it is about)."""


def labels(plan: Plan) -> dict[str, str]:
    """Node id -> `stage cell`, after the first cell that needs it; benchmarks share jobs, so that none is named."""
    found: dict[str, str] = {}
    for cell, wired in plan.wired.items():
        for node in wired.nodes():
            kind = KINDS[node.stage.name]
            about = getattr(getattr(node.spec, "benchmark", None), "name", "")
            title = node.title.replace(f" {about}", "", 1) if kind in ("generate", "score") and about else node.title
            found.setdefault(node.id, node.stage.name if kind == "prepare" else f"{title} {cell}")
    return found
