"""`cwdpo report`: the tables of a grid, as text, or in a format for papers and programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cwdpo.base.errors import ConfigError
from cwdpo.base.trail import aside, following, note, note_fleeting
from cwdpo.cli.app import GridOption, HomeOption, JsonOption, LimitOption, SetOption, Source, app, source_of

if TYPE_CHECKING:
    from cwdpo.jobs.plan import Plan
    from cwdpo.jobs.slurm.view import OnSlurm
    from cwdpo.report.content import Table
    from cwdpo.report.differences import IntervalKind
    from cwdpo.report.dynamics import Diagnosed
    from cwdpo.report.memo import Said
    from cwdpo.report.table import Wanted


class Format(StrEnum):
    """How tables are written."""

    text = "text"
    md = "md"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


class IntervalChoice(StrEnum):
    """What intervals and tests are over."""

    seeds = "seeds"
    both = "seeds+items"
    items = "items"


TableOption = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        "-t",
        help="A name in configs/tables/, or a path, or `benchmarks` for every metric of each; may be repeated."
        "  [default: those of the grid]",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How tables are written.")]
IntervalOption = Annotated[
    IntervalChoice,
    typer.Option("--interval", help="Over new trainings, over new trainings and items, or of these checkpoints only."),
]
PaperOption = Annotated[bool, typer.Option("--paper", help="The published number beside each value.")]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File, of html a folder.  [default: the terminal; of text <home>/grids/<grid>/report.md too; of html"
        " <home>/grids/<grid>/html; of another grid than was submitted, by --set, only where this says]",
    ),
]
OpenOption = Annotated[bool, typer.Option("--open", help="Write HTML and show it in the browser.")]
ServeOption = Annotated[bool, typer.Option("--serve", help="Write HTML and serve it to this machine until Ctrl-C.")]
WhyOption = Annotated[
    str | None,
    typer.Option(
        "--why",
        metavar="ROW/COLUMN",
        help="Where one value comes from, such as cw_dpo/coco_cider; cw_dpo/0/coco_cider is that of seed 0.",
    ),
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --serve; 0 takes any that is free.")]


@app.command(epilog="Example: cwdpo report --grid main-demo --table main --format latex --output main.tex")
def report(
    grid: GridOption,
    table: TableOption = None,
    format: FormatOption = Format.text,
    interval: IntervalOption = IntervalChoice.seeds,
    paper: PaperOption = False,
    output: OutputOption = None,
    override: SetOption = None,
    home: HomeOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
    opened: OpenOption = False,
    served: ServeOption = False,
    port: PortOption = 0,
    why: WhyOption = None,
) -> None:
    """Print the tables of a grid, mean ± standard deviation over seeds, and write them as Markdown."""
    if as_json and format not in (Format.text, Format.json):
        raise ConfigError(f"--json and --format {format.value} contradict each other")
    if (opened or served) and (why or as_json or format not in (Format.text, Format.html)):
        raise ConfigError(f"--{'open' if opened else 'serve'} shows HTML: leave out --why, --json and other formats")
    if output is not None and not output.name:
        raise ConfigError(f"--output '{output}': a folder is no file to write to; name one, such as tables.md")
    source, tables = source_of(grid, override, home, limit), tuple(table or ())
    if why is not None:
        show(explained(source, Asked(tables, interval.value, paper, Format.json if as_json else format, output), why))
    elif opened or served or format is Format.html:
        from cwdpo.report.table import Wanted

        made = made_report(source.plan(), Wanted(tables, interval.value, paper=True))
        if output is None and not is_own(source, made.plan):
            raise ConfigError(
                f"{made.file.parent} is of the grid as it was submitted, without this --set; name another"
                " folder with --output"
            )
        show_html(write_html(made, output), opened, port if served else None)
    else:
        show(told(source, Asked(tables, interval.value, paper, Format.json if as_json else format, output)))


@dataclass(frozen=True)
class Asked:
    """What is to be said of a grid, and how."""

    tables: tuple[str, ...]
    interval: IntervalKind
    paper: bool
    format: Format
    output: Path | None


@dataclass(frozen=True)
class Report:
    """What is reported of a grid."""

    plan: Plan
    wanted: Wanted
    tables: list[Table]
    overlay: OnSlurm | None = None

    @cached_property
    def dynamics(self) -> list[Diagnosed]:
        """How trainings went, of those that are probed."""
        from cwdpo.report.dynamics import diagnosed

        return diagnosed(self.plan)

    @property
    def file(self) -> Path:
        """Where the whole report of the grid lies."""
        return self.plan.folder / "report.md"


def made_report(plan: Plan, wanted: Wanted) -> Report:
    """The tables as the store and Slurm, where the grid is there, are now."""
    from cwdpo.cli.slurm import known
    from cwdpo.jobs.slurm.desired import path_of
    from cwdpo.jobs.slurm.view import overlay_of
    from cwdpo.report.table import tables

    path = path_of(plan)
    note(path)
    with aside():  # what Slurm knows counts only where something is not finished, and then holds only now
        overlay = overlay_of(known(plan))
    if overlay is None and path.exists():
        note_fleeting()  # what cannot be read is said each time
    return Report(plan, wanted, tables(plan, overlay, wanted), overlay)


def as_markdown(made: Report) -> str:
    """The report file."""
    from cwdpo.report.dynamics import section
    from cwdpo.report.render.markdown import markdown

    return markdown(made.tables, section(made.dynamics), paper=made.wanted.paper)


def _as_latex(made: Report) -> str:
    from cwdpo.report.render.latex import latex

    return latex(made.tables, paper=made.wanted.paper)


def _as_csv(made: Report) -> str:
    from cwdpo.report.render.csv import csv_text

    return csv_text(made.tables)


def _as_json(made: Report) -> str:
    from cwdpo.report.render.json import as_json

    return _json(as_json(made.tables))


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"


TEXTS: dict[Format, Callable[[Report], str]] = {
    Format.md: as_markdown,
    Format.latex: _as_latex,
    Format.csv: _as_csv,
    Format.json: _as_json,
}
"""Formats that are one text."""


def told(source: Source, asked: Asked) -> Said:
    """What is said of a grid; where nothing has changed since it was said last, without looking again."""
    from cwdpo.report.memo import Memo

    memo = Memo(source.place, {"source": asdict(source), **asdict(asked)})
    said = memo.find()
    if said is None:
        from cwdpo.report.table import Wanted

        with following() as trail:
            made = made_report(source.plan(), Wanted(asked.tables, asked.interval, asked.paper))
            said = _told(made, asked, is_own(source, made.plan))
        memo.keep(said, trail)
    return said


def explained(source: Source, asked: Asked, why: str) -> Said:
    """Where one value comes from, as it is now.

    Raises:
        ConfigError: there is no such value, or the format has no place for this.
    """
    from cwdpo.cli import traced
    from cwdpo.report.address import find
    from cwdpo.report.table import Wanted
    from cwdpo.report.why import Tracer

    if asked.format not in (Format.text, Format.json):
        raise ConfigError(f"--why is told as text or json, not as {asked.format.value}")
    made = made_report(source.plan(), Wanted(asked.tables, asked.interval, asked.paper))
    found = Tracer(made.plan, find(made.tables, why), made.overlay).traced()
    text = traced.told(found) if asked.format is Format.text else _json(found.as_json())
    return _one_text(text, asked.output)


def show(said: Said) -> None:
    """Write the files, and print."""
    said.write()
    typer.echo(said.printed, nl=False, color=True)  # styles are there only where stdout has them


def _one_text(text: str, output: Path | None) -> Said:
    """On stdout or in a file."""
    from cwdpo.report.memo import Said

    return Said(text, {}) if output is None else Said(f"written to {output}\n", {str(output): text})


def write_html(made: Report, output: Path | None) -> Path:
    """As a folder of pages, of which the first one is returned."""
    from cwdpo.report.site.writing import default_folder, write_site

    index = write_site(made.plan, made.tables, output or default_folder(made.plan), made.overlay)
    typer.echo(f"written to {index}")
    return index


def show_html(index: Path, opened: bool, port: int | None) -> None:
    """In the browser, or served, as was asked."""
    from cwdpo.cli.serve import open_page, serve

    if port is not None:
        serve(index.parent, port, opened)
    elif opened:
        open_page(index.resolve().as_uri())


def _told(made: Report, asked: Asked, own: bool) -> Said:
    if asked.format is Format.text:
        return as_text(made, asked.output, own)
    return _one_text(TEXTS[asked.format](made), asked.output)


def is_own(source: Source, plan: Plan) -> bool:
    """Whether this is the report of the grid: what `--set` makes of it may be another one than was submitted."""
    return not source.overrides or plan.is_submitted()


def as_text(made: Report, output: Path | None, own: bool = True) -> Said:
    """For the terminal, and the same as Markdown; a choice of tables only where a file is named for it.

    Args:
        own: whether it may take the place of the grid's own report.
    """
    from cwdpo.report.memo import Said
    from cwdpo.report.render.terminal import terminal

    target = output or (made.file if own and not made.wanted.tables else None)
    lines = [line for one in made.dynamics for line in one.lines()]
    if made.wanted.paper and not any(table.paper for table in made.tables):
        lines.append("--paper: no published numbers belong to what is shown here")
    lines += [f"written to {target}"] if target else []
    if not own and not target:
        lines.append(
            f"not written to {made.file}, which is of the grid as it was submitted; --output names another file"
        )
    printed = terminal(made.tables, made.wanted.paper) + "".join(f"{line}\n" for line in lines)
    return Said(printed, {str(target): as_markdown(made)} if target else {})
