"""What the user asked for: the desired state of a grid on a cluster, which every reconcile works towards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Store
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
        """What was asked for last; None if the grid was never submitted to Slurm.

        Raises:
            StoreError: what was written down cannot be read.
        """
        path = path_of(plan)
        return cls.at(path) if path.exists() else None

    @classmethod
    def at(cls, path: Path) -> Desired:
        """What a file says that `write` has written.

        Raises:
            StoreError: it does not say it, or not in full.
        """
        try:
            return TypeAdapter(cls).validate_python(files.read_json(path))
        except StoreError as error:
            raise StoreError(f"{error}; {_remedy(path)}") from error
        except ValidationError as error:
            first = error.errors()[0]
            fault = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
            raise StoreError(f"{path} does not say what was asked for ({fault}); {_remedy(path)}") from error

    def write(self, plan: Plan) -> None:
        """Replace what was asked for."""
        content = {
            "cluster": self.cluster.model_dump(mode="json"), "code": str(self.code), "nodes": sorted(self.nodes),
            "image": self.image.as_json() if self.image else None,
        }  # fmt: skip
        files.write_json(path_of(plan), content)


def _remedy(path: Path) -> str:
    return f"`cwdpo submit` of grid '{path.parent.name}' to its cluster writes it anew"


def path_of(plan: Plan) -> Path:
    """Where it lies."""
    return plan.store.home / "grids" / plan.grid.name / "slurm.json"


def paths_in(store: Store) -> list[Path]:
    """Where they lie, of all grids of a home that were submitted to Slurm."""
    return sorted(store.home.glob("grids/*/slurm.json"))


def wanted_by_others(plan: Plan) -> set[str]:
    """Ids of the stages that other grids of the same home asked for.

    Raises:
        StoreError: what one of them asked for cannot be read, so that nobody may take its stages away.
    """
    return {node for path in paths_in(plan.store) if path != path_of(plan) for node in Desired.at(path).nodes}
