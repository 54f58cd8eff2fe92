"""`cwdpo data`: what will be trained on and evaluated on, before it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cwdpo.cli.app import GridOption, HomeOption, JsonOption, SetOption, Source, app, open_plan

data = typer.Typer(
    name="data",
    help="Look at the data of a grid before it is trained on, and make benchmarks ready.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data)


@data.command(epilog="Exit status: 0 fine, 2 configuration, 3 data. Example: cwdpo data check --grid demo")
def check(grid: GridOption, override: SetOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Read the data as training does and count it: splits, missing images, words, duplicates, images in two splits.

    Images are looked for, not decoded. Where negatives are made by rule, it says how many captions have an edit.
    """
    from cwdpo.cli.datasets import check_data

    check_data(Source(grid, tuple(override or []), home), as_json)


@data.command(epilog="Example: cwdpo data show --grid demo --case dpo --stage stage2 --out pairs.html")
def show(
    grid: GridOption,
    case: Annotated[
        str | None, typer.Option("--case", help="A case of the grid.  [default: the first with pairs]")
    ] = None,
    stage: Annotated[
        Literal["stage1", "stage2"] | None,
        typer.Option("--stage", help="Whose pairs.  [default: stage2, else stage1]"),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Records on the page.")] = 60,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="HTML file.  [default: <home>/grids/<grid>/pairs-<case>-<stage>.html]"),
    ] = None,
    override: SetOption = None,
    home: HomeOption = None,
) -> None:
    """Write a page with drawn pairs of a case: images, chosen and rejected responses, what differs, statistics.

    Pairs that are computed already are read; those that need no model are made at once; for others it says what to run.
    """
    from cwdpo.cli.datasets import write_pairs

    typer.echo(f"written to {write_pairs(open_plan(grid, override, home), case, stage, count, out)}")


@data.command(epilog="Example: cwdpo data words --grid nsft nsft wo_codebook")
def words(
    case: Annotated[str, typer.Argument(help="A case whose negatives come with dialogues.")],
    other: Annotated[str, typer.Argument(help="The case to compare with, such as one without the codebook.")],
    grid: GridOption,
    count: Annotated[int, typer.Option("--count", min=1, help="Words of each case.")] = 10,
    override: SetOption = None,
    home: HomeOption = None,
) -> None:
    """Which words the corrective dialogues of one case stress, against those of another one."""
    from cwdpo.cli.words import print_words

    print_words(open_plan(grid, override, home), case, other, count)


@data.command(epilog="Example: cwdpo data prepare pope --from /data/pope")
def prepare(
    name: Annotated[str, typer.Argument(help="A benchmark, such as pope; `cwdpo data list` shows all.")],
    source: Annotated[str, typer.Option("--from", help="Folder with what you downloaded, or `hub`.")],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="A field that decides which items it has: version=1.0."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a benchmark's own files as scoring will: count them, look for every image, compare with what is published.

    Nothing is copied: grids of this home then find it where it lies. Exit status 3 where it cannot be used.
    """
    from cwdpo.cli.ready import prepare_benchmark

    prepare_benchmark(name, source, override or [], home, as_json)


@data.command(name="list", epilog="Example: cwdpo data list")
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Which benchmarks are ready in this home, and what to download for the others."""
    from cwdpo.cli.ready import list_benchmarks

    list_benchmarks(home, as_json)
