"""Tables written by hand, with every kind of entry."""

from __future__ import annotations

from typing import get_args

from cwdpo.evaluate.question import Metric
from cwdpo.report.content import Column, Difference, Entry, Gap, GapKind, Result, Row, Table

BLEU = Metric("bleu_4", "BLEU-4")
CIDER = Metric("cider", "CIDEr")
CHAIR = Metric("chair_s", "CHAIR_s", higher=False)
SCORE = Metric("score", "score", scale=1.0, digits=2, judged=True)

KINDS: tuple[GapKind, ...] = get_args(GapKind)
WELCH = "Welch's t over seeds"


def results(*values: float, stale: bool = False) -> tuple[Result, ...]:
    """One for each seed from 0 on."""
    return tuple(Result((seed,), value, f"score-{seed:016x}", stale) for seed, value in enumerate(values))


SFT = Entry(results(136.0, 137.0), mean=136.5, std=0.7071067811865476, low=130.15, high=142.85)
BEST = Entry(
    results(142.0, 143.0),
    mean=142.5,
    std=0.7071067811865476,
    low=136.15,
    high=148.85,
    standing="best",
    difference=Difference(6.0, 2.96, 9.04, 0.0138, 0.0276, WELCH, "new trainings"),
    paper=142.6,
)


def small() -> Table:
    """Two benchmarks, three rows; a deterministic result, a tie, the best, a failed seed, and nothing at all."""
    columns = (
        Column("coco_cider", "CIDEr", "COCO", "coco", CIDER),
        Column("coco_bleu", "BLEU-4", "COCO", "coco", BLEU),
        Column("chair", "CHAIR_s", "", "chair", CHAIR),
    )
    base = {
        "coco_cider": Entry((Result((0, 1), 128.84, "score-b"),), mean=128.84, paper=128.8),
        "coco_bleu": Entry((Result((0, 1), 31.2, "score-b"),), mean=31.2, standing="tied"),
        "chair": Entry((Result((0, 1), 32.0, "score-c"),), mean=32.0),
    }
    sft = {
        "coco_cider": SFT,
        "coco_bleu": Entry(
            (Result((0,), 31.4, "score-d"),),
            (Gap("failed", "out of memory", (1,)),),
            mean=31.4,
            standing="tied",
        ),
        "chair": Entry(gaps=(Gap("running", "", (0, 1)),)),
    }
    ours = {
        "coco_cider": BEST,
        "coco_bleu": Entry(results(31.0, 31.3, stale=True), mean=31.15, std=0.2121, low=29.24, high=33.06),
        "chair": Entry(gaps=(Gap("failed", "out of memory", (0,)), Gap("queued", "", (1,)))),
    }
    rows = (
        Row("base", "base", "none", base),
        Row("sft", "sft", "none", sft),
        Row("cw_dpo", "CW-DPO", "sft_c", ours, ("the trained weights are identical to those of dpo",)),
    )
    return Table(
        name="main",
        title="Captions",
        grid="demo",
        options="--grid demo",
        command="cwdpo report --grid demo",
        columns=columns,
        rows=rows,
        baseline="sft",
        paper="Table 1 of arXiv 2510.11978",
        caption=("Scores x100.",),
        notes=("SPICE is not available: no Java",),
        groups=("sft",),
    )


def one(entry: Entry, metric: Metric = CIDER, **changes: object) -> Table:
    """A row and a column; beside it, so that two results are usual, one of two."""
    column = Column("x", "x", "", "coco", metric)
    whole = Entry(results(10.0, 12.0), mean=11.0, std=1.4142)
    rows = (Row("other", "other", "none", {"x": whole}), Row("usual", "usual", "none", {"x": whole}))
    rows += (Row("row", "row", "none", {"x": entry}),)
    settings = {"title": "One", "baseline": "other", **changes}
    return Table(
        name="one",
        grid="g",
        options="--grid g",
        command="cwdpo report --grid g",
        columns=(column,),
        rows=rows,
        **settings,
    )  # type: ignore[arg-type]


WIDE = {
    "COCO": ("BLEU-4", "METEOR", "CIDEr", "SPICE"),
    "Flickr30k": ("CIDEr", "SPICE"),
    "NoCaps": ("in", "near", "out", "entire"),
    "": ("MMMU", "MMBench"),
}
"""Columns of the paper's Table 1."""


def wide() -> Table:
    """The paper's Table 1 in its shape: 12 columns, 8 rows, with differences."""
    columns = tuple(
        Column(f"{group}_{title}".lower(), title, group, group or title, Metric(title.lower(), title))
        for group, titles in WIDE.items()
        for title in titles
    )
    names = ("base", "sft", "dpo", "ppo", "v_dpo", "grpo", "opa_dpo", "cw_dpo")
    rows = tuple(
        Row(name, name, "none" if place < 2 else "sft", {column.key: _made_up(place, name) for column in columns})
        for place, name in enumerate(names)
    )
    return Table("main", "Table 1", "main", "--grid main", "", columns, rows, "sft", paper="Table 1", groups=("dpo",))


def _made_up(place: int, name: str) -> Entry:
    mean = 120.0 + place
    if name == "base":
        return Entry((Result((0, 1, 2, 3, 4), mean, "score-base"),), mean=mean, paper=mean)
    found = results(*(mean + shift for shift in (-0.6, -0.3, 0.0, 0.3, 0.6)))
    difference = Difference(place - 1.0, place - 1.7, place - 0.3, 0.0004, 0.0028, WELCH, "new trainings")
    return Entry(
        found,
        mean=mean,
        std=0.474,
        low=mean - 0.59,
        high=mean + 0.59,
        standing="best" if name == "cw_dpo" else "",
        difference=None if name == "sft" else difference,
        paper=mean + 1.0,
    )
