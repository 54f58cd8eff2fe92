"""The command line's application, the options its commands share, and how they get at a plan."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cwdpo.base.store import Store
    from cwdpo.experiment import Grid
    from cwdpo.jobs.plan import Plan

app = typer.Typer(
    name="cwdpo",
    help="Preference tuning of vision-language models, from a YAML grid to the paper's tables.",
    epilog="Exit status: 0 done, 1 a stage failed, 2 configuration, 3 data or model, 4 store, 5 training,"
    " 6 not available (Slurm too), 75 stopped by a signal, 76 busy, 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

GridOption = Annotated[
    str,
    typer.Option(
        "--grid", "-g", help="A name in configs/grids/, also with a size of configs/sizes/ (main-demo), or a path."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key of the experiment; may be repeated."),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Ask every benchmark only so many items; results are partial."),
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Folder of the store.  [default: $CWDPO_HOME, else ./runs]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
AllOption = Annotated[bool, typer.Option("--all", help="Show every row of a big grid instead of counts.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", "-c", help="A name in configs/clusters/, or a path.  [default: $CWDPO_CLUSTER, else default]"
    ),
]
CellsArgument = Annotated[
    list[str] | None, typer.Argument(help="CASE/SEED or CASE, as `cwdpo status` shows them.  [default: all]")
]
CellArgument = Annotated[str, typer.Argument(help="CASE/SEED, as `cwdpo status` shows them.")]


@dataclass(frozen=True)
class Source:
    """Which grid, as it was typed.

    Attributes:
        grid: name or path.
        overrides: `KEY=VALUE` each.
        home: folder of the store; None is the default.
    """

    grid: str
    overrides: tuple[str, ...]
    home: Path | None

    @property
    def place(self) -> Path:
        """The home: as it was typed, else the default."""
        return self.home or Path(os.environ.get("CWDPO_HOME") or "runs")

    @property
    def store(self) -> Store:
        """The store of its home."""
        from cwdpo.base.store import Store

        return Store(self.place)

    def load(self) -> Grid:
        """The grid, checked."""
        from cwdpo.base.config import parse_overrides
        from cwdpo.experiment import load_grid

        return load_grid(self.grid, parse_overrides(list(self.overrides)))

    def plan(self, writable: bool = False) -> Plan:
        """The plan of the grid in its home."""
        from cwdpo.jobs.plan import make_plan

        with _lasting():
            loaded = self.load()
            if writable:
                self.store.check_writable()
            return make_plan(loaded, self.store)

    def provisional_plan(self) -> Plan:
        """The same where data, models and benchmarks need not be there."""
        from cwdpo.jobs.plan import make_provisional_plan

        with _lasting():
            return make_provisional_plan(self.load(), self.store)


@contextmanager
def _lasting() -> Iterator[None]:
    """What is made here is in use until the command ends: to look for garbage in it takes time and finds none."""
    gc.unfreeze()  # what was made before, by commands that look again and again
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def source_of(grid: str, override: list[str] | None, home: Path | None, limit: int | None = None) -> Source:
    """A grid as it was typed; a limit is one more override."""
    return Source(grid, (*(override or []), *([f"limit={limit}"] if limit else [])), home)


def open_plan(grid: str, override: list[str] | None, home: Path | None, limit: int | None = None) -> Plan:
    """The plan of a grid in a home folder."""
    return source_of(grid, override, home, limit).plan()


def print_json(value: Any) -> None:
    """JSON on stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
