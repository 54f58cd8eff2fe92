"""The command line's application, the options its commands share, and how they get at a plan."""

from __future__ import annotations

import json
import os
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

GridOption = Annotated[str, typer.Option("--grid", "-g", help="A name in configs/grids/, or a path to a YAML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key of the experiment; may be repeated."),
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
    def store(self) -> Store:
        """The store of its home."""
        from cwdpo.base.store import Store

        return Store(self.home or Path(os.environ.get("CWDPO_HOME") or "runs"))

    def load(self) -> Grid:
        """The grid, checked."""
        from cwdpo.base.config import parse_overrides
        from cwdpo.experiment import load_grid

        return load_grid(self.grid, parse_overrides(list(self.overrides)))

    def plan(self, writable: bool = False) -> Plan:
        """The plan of the grid in its home."""
        from cwdpo.jobs.plan import make_plan

        loaded = self.load()
        if writable:
            self.store.check_writable()
        return make_plan(loaded, self.store)


def open_plan(grid: str, override: list[str] | None, home: Path | None) -> Plan:
    """The plan of a grid in a home folder."""
    return Source(grid, tuple(override or []), home).plan()


def print_json(value: Any) -> None:
    """JSON on stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
