"""SPICE 1.0 (Anderson et al., 2016) from pycocoevalcap's jar, in one process that always ends and writes only in /tmp.

pycocoevalcap's own wrapper writes beside the package, which an image forbids, and needs Java 8 to 14. Two things in the
jar are to blame for the latter, and both are gone round here. Its cache of parses reaches into the Java runtime, which
later ones refuse: there is no cache. And it formats its result with a JavaScript engine that Java has lost: the class
`SpiceItems` (source beside this file) calls the same scorer and writes its result plainly.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.java import jar, java_command, java_complaint

JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""The parser, which pycocoevalcap leaves to be downloaded."""
FETCHED = Path("assets", "spice")
"""Where `cwdpo fetch spice` puts it, in a home."""
NO_PARSER = "SPICE needs"
"""How the reason begins where it is missing."""
SUBSETS = ("Object", "Attribute", "Relation", "Cardinality", "Color", "Size")
HEAP_MB = 8192
"""As much as the authors ask for; it is a limit, not what is taken."""
START_SECONDS = 600.0
CAPTION_SECONDS = 0.2
"""Some times what a core takes to parse a caption; 30,000 of them stay below two hours."""

Item = dict[str, Any]

_alone = threading.Lock()
"""One process of this size at a time: another thread waits."""


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], timeout: float | None = None, heap_mb: int = HEAP_MB
) -> list[Item]:
    """Scores of tokenised captions, one item per candidate, each against all its references.

    An item has `spice` (F), `spice_precision` and `spice_recall` in [0, 1], and true positives, false positives and
    false negatives as `spice_tuples`, and of each kind of tuple as `spice_object`, `spice_attribute`,
    `spice_relation`, `spice_cardinality`, `spice_color` and `spice_size`. The corpus' SPICE is the mean of `spice`.

    Args:
        timeout: seconds until it is given up; None scales with the number of captions.

    Raises:
        NotAvailable: Java or the parser's jars are missing, or the process dies or is late; says which and the remedy.
    """
    captions = len(candidates) + sum(map(len, references))
    limit = START_SECONDS + CAPTION_SECONDS * captions if timeout is None else timeout
    with _alone, tempfile.TemporaryDirectory(prefix="cwdpo-spice-") as name:
        work = Path(name)
        (work / "in.json").write_text(json.dumps(_input(candidates, references)))
        _run(_command(work, heap_mb), work, limit)
        return _items(work / "out.json", len(candidates))


def spice_jars() -> list[Path]:
    """The parser's jars: in `$CWDPO_SPICE_JARS`, else `$CWDPO_HOME/assets/spice`, else beside pycocoevalcap's own.

    Raises:
        NotAvailable: no folder has both; names the folders and what to do.
    """
    named = os.environ.get("CWDPO_SPICE_JARS")
    home = Path(os.environ.get("CWDPO_HOME") or "runs")
    for folder in [*([Path(named)] if named else []), home / FETCHED, jar("spice/lib")]:
        if has_spice_jars(folder):
            return [folder / name for name in JARS]
    raise NotAvailable(  # stored with the scores, so it says nothing about this machine that it need not
        f"{NO_PARSER} {' and '.join(JARS)}, which are neither in {named or 'a folder that CWDPO_SPICE_JARS names'}"
        " nor in $CWDPO_HOME/assets/spice nor in pycocoevalcap's spice/lib; where there is internet, run:"
        " cwdpo fetch spice"
    )


def has_spice_jars(folder: Path) -> bool:
    """True for a folder that holds the parser."""
    return all((folder / name).is_file() for name in JARS)


def _input(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """The scorer's format. An empty text holds no tuple and nor does a full stop, which the parser surely takes."""
    pairs = zip(candidates, references, strict=True)
    return [
        {"image_id": position, "test": candidate or ".", "refs": [text or "." for text in found]}
        for position, (candidate, found) in enumerate(pairs)
    ]


def _command(work: Path, heap_mb: int) -> list[str]:
    """The parser's jars come first, so that a test can put a parser of its own into one of them."""
    classes = work / "edu" / "anu" / "spice"
    classes.mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("SpiceItems.class"), classes / "SpiceItems.class")
    path = [work, *spice_jars(), jar("spice/spice-1.0.jar")]
    options = ["-out", str(work / "out.json"), "-subset", "-silent"]
    start = [*java_command(heap_mb), f"-Djava.io.tmpdir={work}", "-cp", os.pathsep.join(map(str, path))]
    return [*start, "edu.anu.spice.SpiceItems", str(work / "in.json"), *options]


def _run(command: list[str], work: Path, limit: float) -> None:
    """Run to the end or the limit; what it says goes to a file, so that it never waits for a reader."""
    log = work / "log"
    try:
        with open(log, "wb") as out:
            code = subprocess.run(command, cwd=work, stdout=out, stderr=out, timeout=limit, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise NotAvailable(f"SPICE was not ready within {limit:g} s and was stopped") from error
    except OSError as error:
        raise NotAvailable(f"Java does not run: {error}") from error
    if code:
        raise NotAvailable(f"SPICE died ({_death(code)}): {java_complaint(log.read_text(errors='replace'))}")


def _death(code: int) -> str:
    if code == -9:
        return f"killed, most likely because it needed more memory than this job has; it may take {HEAP_MB // 1024} GB"
    return f"exit code {code}"


def _items(output: Path, count: int) -> list[Item]:
    """Its result, in the order of the candidates."""
    try:
        rows = sorted(json.loads(output.read_text(encoding="utf-8")), key=lambda row: row["image_id"])
        items = [_item(row["scores"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotAvailable(f"SPICE wrote no result that can be read: {error!r}") from error
    if len(items) != count:
        raise NotAvailable(f"SPICE scored {len(items)} of {count} captions")
    return items


def _item(scores: dict[str, dict[str, float]]) -> Item:
    every = scores["All"]
    counts: Item = {f"spice_{kind.lower()}": _counts(scores[kind]) for kind in SUBSETS}
    head: Item = {"spice": every["f"], "spice_precision": every["pr"], "spice_recall": every["re"]}
    return {**head, "spice_tuples": _counts(every), **counts}


def _counts(found: dict[str, float]) -> list[float]:
    return [found["tp"], found["fp"], found["fn"]]
