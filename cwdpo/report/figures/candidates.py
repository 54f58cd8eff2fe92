"""How good the likeliest answers of a policy are: what Figure 3 shows beside entropy."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.report.figures.runs import Scores

TOP = 5
"""Candidates of an item that count, best first."""


def candidate_scores(
    generations: Path, references: Mapping[str, Sequence[str]], metrics: Sequence[str] = ("cider", "spice")
) -> Scores | str:
    """Means over the first `TOP` candidates of the score of the corpus that each rank makes; or why there are none.

    Args:
        generations: generations.jsonl, whose rows have `candidates`, best first.
        references: captions of every item by its id; items that were not generated for may be among them.

    Raises:
        DataError: an item has no references.
    """
    from cwdpo.metrics.captions import score_captions

    rows = list(files.read_jsonl(generations))
    count = min((len(row.get("candidates", ())) for row in rows), default=0)
    if not count:
        return "one answer was generated per item"
    wanted = {row["id"]: references[row["id"]] for row in rows if row["id"] in references}
    ranks = [{row["id"]: row["candidates"][rank] for row in rows} for rank in range(min(count, TOP))]
    # Each rank is a corpus of its own: in one of all of them, CIDEr would count every document five times.
    found = [score_captions(answers, wanted, metrics) for answers in ranks]
    return Scores(_means([one.corpus for one in found]), Scores.reasons(found[0].unavailable), len(ranks))


def _means(corpora: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        metric: statistics.fmean(corpus[metric] for corpus in corpora)
        for metric in corpora[0]
        if all(corpus[metric] is not None for corpus in corpora)
    }
