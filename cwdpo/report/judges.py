"""Who rated the answers behind a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cwdpo.report.score import Score


def judge_of(summary: Mapping[str, Any]) -> str:
    """Who judged what scores.json holds, and whether by the rules only; "" where nobody did."""
    judge = summary["harness"].get("judge")
    return "" if judge is None else judge["judge"] + (", rules only" if "rules only" in judge["prompt"] else "")


def judges_of(scores: Iterable[Score]) -> str:
    """Everybody who judged."""
    return ", ".join(sorted({judge_of(score.summary) for score in scores} - {""}))
