"""What the user asked for: the desired state of a grid on a cluster, which every reconcile works towards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cwdpo.base import files
from cwdpo.jobs.clusters import SlurmCluster
from cwdpo.jobs.containers.image import Image
from cwdpo.jobs.plan import Plan


@dataclass(frozen=True)
class Desired:
    """`grids/<name>/slurm.json`.

    Attributes:
        cluster: profile of the last submission.
        code: snapshot of the last submission.
        nodes: ids of all stages that were asked for.
        image: what jobs run in, as it was at the last submission.
    """

    cluster: SlurmCluster
    code: Path
    nodes: frozenset[str]
    image: Image | None = None

    @classmethod
    def read(cls, plan: Plan) -> Desired | None:
        """What was asked for last; None if the grid was never submitted to Slurm."""
        path = path_of(plan)
        if not path.exists():
            return None
        found = files.read_json(path)
        cluster = SlurmCluster.model_validate(found["cluster"])
        image = Image(**found["image"]) if found.get("image") else None
        return cls(cluster, Path(found["code"]), frozenset(found["nodes"]), image)

    def write(self, plan: Plan) -> None:
        """Replace what was asked for."""
        content = {
            "cluster": self.cluster.model_dump(mode="json"), "code": str(self.code), "nodes": sorted(self.nodes),
            "image": self.image.as_json() if self.image else None,
        }  # fmt: skip
        files.write_json(path_of(plan), content)


def path_of(plan: Plan) -> Path:
    """Where it lies."""
    return plan.store.home / "grids" / plan.grid.name / "slurm.json"


def wanted_by_others(plan: Plan) -> set[str]:
    """Ids of the stages that other grids of the same home asked for."""
    paths = plan.store.home.glob("grids/*/slurm.json")
    return {node for path in paths if path != path_of(plan) for node in files.read_json(path)["nodes"]}
