"""When a sweep is stopped early: its first jobs all failed alike, so the others would too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

THRESHOLD = 3

OF_THE_SWEEP = ("code", "config", "data", "training", "unavailable", "memory", "store", "disk")
"""Kinds of failure that lie in what was submitted or where it is stored, not in one job or node."""

_CHANGING = re.compile(r"\S*[\d/]\S*|'[^']*'|\"[^\"]*\"")


def signature(failed: Mapping[str, Any]) -> str:
    """What is alike in equal failures: the kind, and the message without numbers, paths, ids and names."""
    message = _CHANGING.sub("#", str(failed.get("message", "")))
    return f"{failed.get('class', '')}: {' '.join(message.split())}"


def same_failures(exits: Sequence[Mapping[str, Any]]) -> str | None:
    """The signature that all of `exits` have, None where they differ or there is none."""
    found = {signature(failed) for failed in exits}
    return found.pop() if len(found) == 1 else None


def tripped(exits: Sequence[Mapping[str, Any]], successes: int, threshold: int = THRESHOLD) -> str | None:
    """Why a sweep should be stopped, or None.

    Args:
        exits: verdicts of its elements (exits/<i>.json), in the order of `time` where they have it; those that are
            tried again do not count yet.
        successes: elements that are done.
    """
    ended = [failed for failed in exits if failed.get("action", "fail") == "fail"]
    final = sorted(ended, key=lambda failed: float(failed.get("time", 0)))
    first = final[:threshold]
    if successes or len(first) < threshold or any(failed["class"] not in OF_THE_SWEEP for failed in first):
        return None
    if same_failures(first) is None:
        return None
    return f"the first {threshold} jobs failed alike and none succeeded: {first[0]['message']}"
