"""One finished score as the store has it: read once, and checked before any of it counts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base.errors import StoreError
from cwdpo.base.store import Artefact
from cwdpo.jobs.containers.image import named

SUMMARY = "scores.json"


@dataclass(frozen=True, slots=True)
class Score:
    """A finished score.

    Attributes:
        summary: content of scores.json.
        folder: its name in the store.
        files: folder of the values per item, which are read only where items are compared.
        items: SHA-256 of those values; "" where the score was written without them.
        code, stale, doubt: as of a `Result`.
        asked: id of the stage that has what it is about: the questions, or the records of captions.
    """

    summary: Mapping[str, Any]
    folder: str
    files: Path
    items: str
    code: str
    stale: bool
    doubt: str
    asked: str

    def value(self, metric: str) -> float | None:
        """As it is stored; None where it is not available."""
        found: float | None = self.summary["metrics"].get(metric)
        return found

    def unavailable(self, metric: str) -> str:
        """Why there is no value."""
        return str(self.summary["unavailable"].get(metric, "no value")).removeprefix("not available: ")


def code_of(provenance: Mapping[str, Any]) -> str:
    """What computed it: the commit of the code, and the image it ran in."""
    image = f", image {named(provenance)}" if provenance.get("image") else ""
    if not provenance.get("commit"):
        return f"cwdpo {provenance.get('version', 'of an unknown version')}{image}"
    return f"commit {str(provenance['commit'])[:12]}{' with changes' if provenance.get('dirty') else ''}{image}"


def read_summary(artefact: Artefact, path: str, digest: str) -> dict[str, Any]:
    """Content of a scores.json; `StoreError` where it is not what was written, or not what it should be."""
    name = f"{artefact.folder.name}: {SUMMARY}"
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise StoreError(f"{name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise StoreError(f"{name} is missing or changed since it was written")
    try:
        found = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{name} is not JSON ({error})") from error
    if fault := _fault(found):
        raise StoreError(f"{name} {fault}")
    return dict(found)


_KEYS = {
    "metrics": dict,
    "unavailable": dict,
    "items": int,
    "partial": bool,
    "counts": dict,
    "notes": list,
    "harness": dict,
}


def _fault(summary: Any) -> str:
    """What is wrong with the content of a scores.json."""
    if not isinstance(summary, dict):
        return f"holds a {type(summary).__name__}, not a mapping"
    for key, kind in _KEYS.items():
        if not isinstance(summary.get(key), kind):
            return f"has no {key}" if key not in summary else f"has a {key} that is no {kind.__name__}"
    for name, value in summary["metrics"].items():
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            return f"has {value!r} for {name}, which is no number"
    return ""


def card_fault(artefact: Artefact) -> str:
    """What is wrong with `stage.json`, which spells out what a result is of; "" where nothing is."""
    name = f"{artefact.folder.name}: stage.json"
    try:
        with open(f"{artefact.folder}/stage.json", "rb") as file:
            found = json.loads(file.read())
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"{name} is not JSON ({error})"
    whole = isinstance(found, dict) and found.get("id") == artefact.identity
    return "" if whole else f"{name} does not spell the identity that its folder is named after"
