"""What scoring captions costs: each metric as the score stage computes it, on 500 to 25,000 captions.

The captions are made up of common words, with five references each; their scores mean nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import publish

from cwdpo.jobs.memory import peak_bytes, reset_peak
from cwdpo.metrics import captions, meteor
from cwdpo.metrics.cider_d import CiderD

SIZES = (500, 5_000, 25_000)
REFERENCES = 5

WORDS = {
    "article": "a the one some",
    "adjective": "small large red white blue old young wooden black green happy tall busy empty open bright",
    "noun": "man woman dog cat train bus horse child boat plane table kitchen street field beach bench umbrella bird"
    " giraffe zebra pizza sandwich laptop skateboard surfboard bicycle motorcycle truck clock sign bed couch vase"
    " flower tree building bridge river mountain road ball racket glove player group people boy girl",
    "verb": "sits stands rides holds walks eats plays looks runs jumps parks flies drives rests",
    "place": "on near beside under behind with in above",
}
ORDER = ["article", "adjective", "noun", "verb", "place", "article", "adjective", "noun"]
"""Of the words of a caption; half of them go on with another place and noun."""


def main() -> None:
    """Measure every metric at every size, each in a process of its own, and write results/scoring.md."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: [measured(Path(folder), name, size) for size in SIZES] for name in WORKS}
        worst = max(difference(Path(folder), size) for size in SIZES)
    rows = [row(name, costs) for name, costs in found.items()]
    publish(__file__, "Scoring captions", COLUMNS, rows, f"{NOTES} CIDEr of any item differs by at most {worst:.1e}.")


COLUMNS = (
    "what", *(f"CPU seconds, {size:,}" for size in SIZES), "µs a caption, to 5,000", "µs a caption, beyond",
    "MB more at most, 25,000", "Java's MB, 25,000",
)  # fmt: skip

NOTES = (
    f"Captions have {REFERENCES} references each and about ten tokens. CPU seconds are those of Python and of Java"
    " together, with the start of Java where there is one; the scorers begin with tokens. µs a caption is the slope"
    " from one size to the next: where both are equal, the cost is linear. MB are above what Python had with imports"
    " and captions. The last row is the metric for rewards, with the document frequencies of the same references; the"
    " row before it is what the score stage calls, pycocoevalcap's."
)


@dataclass(frozen=True)
class Found:
    """One metric at one size.

    Attributes:
        seconds: CPU time of this process and of Java.
        memory_mb: peak of this process above what it had before.
        java_mb: peak of Java, 0 where it was not started.
    """

    seconds: float
    memory_mb: float
    java_mb: float


def measured(folder: Path, name: str, size: int) -> Found:
    """A metric in a process of its own."""
    return Found(**json.loads(subprocess.check_output([sys.executable, __file__, folder, name, str(size)])))


def row(name: str, costs: list[Found]) -> tuple[str, ...]:
    """One metric at all sizes."""
    seconds = [found.seconds for found in costs]
    slopes = [1e6 * (seconds[k + 1] - seconds[k]) / (SIZES[k + 1] - SIZES[k]) for k in range(2)]
    memory = (f"{costs[-1].memory_mb:.0f}", f"{costs[-1].java_mb:.0f}" if costs[-1].java_mb else "-")
    return name, *(f"{value:.2f}" for value in seconds), *(f"{slope:.0f}" for slope in slopes), *memory


def difference(folder: Path, size: int) -> float:
    """Between the two CIDErs, of the item where it is largest."""
    ours, theirs = (json.loads(scores_file(folder, name, size).read_text()) for name in (CIDER_D, "CIDEr"))
    return max(abs(mine - other) for mine, other in zip(ours, theirs, strict=True))


def scores_file(folder: Path, name: str, size: int) -> Path:
    """Where a process leaves its scores per item."""
    return folder / f"{name}-{size}.json"


# In the process of one metric


def measure(folder: Path, name: str, size: int) -> None:
    """Print the costs and leave the scores per item."""
    given = made_up(size) if name == TOKENS else captions._Tokens(**json.loads(tokens_file(folder, size).read_text()))
    reset_peak()
    before, began = peak_bytes()["memory"], cpu_seconds()
    scores = WORKS[name](given)
    meteor._kept.close()  # what Java cost is known when it has ended
    seconds, memory = cpu_seconds() - began, peak_bytes()["memory"] - before
    if name == TOKENS:
        tokens_file(folder, size).write_text(json.dumps(vars(scores)))
    else:
        scores_file(folder, name, size).write_text(json.dumps(scores))
    java = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if name in JAVA else 0
    print(json.dumps(vars(Found(seconds, memory / 1e6, java / 1e3))))


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


def tokens_file(folder: Path, size: int) -> Path:
    """What the tokeniser left for the others."""
    return folder / f"tokens-{size}.json"


def made_up(size: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references by item."""
    generator = random.Random(size)
    words = {kind: text.split() for kind, text in WORDS.items()}

    def caption() -> str:
        kinds = ORDER + ["place", "noun"] * generator.randint(0, 1)
        return " ".join(generator.choice(words[kind]) for kind in kinds).capitalize() + "."

    ids = [str(index) for index in range(size)]
    return {name: caption() for name in ids}, {name: [caption() for _ in range(REFERENCES)] for name in ids}


def with_pycocoevalcap(metric: str, column: str) -> Callable[[Any], list[Any]]:
    """A metric of the score stage, and the scores per item."""
    return lambda tokens: [item[column] for item in captions._SCORERS[metric](tokens)[1]]


def with_ours(tokens: Any) -> list[float]:
    """Frequencies, then one caption at a time."""
    references = [[text.split() for text in texts] for texts in tokens.references]
    metric = CiderD.from_references(references)
    return [metric.score(text.split(), texts) for text, texts in zip(tokens.candidates, references, strict=True)]


TOKENS = "PTB tokens"
CIDER_D = "CIDEr-D, for rewards"
WORKS: dict[str, Callable[[Any], Any]] = {
    TOKENS: lambda given: captions._tokens(*given),
    "BLEU-1..4": with_pycocoevalcap("bleu", "bleu_4"),
    "ROUGE-L": with_pycocoevalcap("rouge_l", "rouge_l"),
    "METEOR": with_pycocoevalcap("meteor", "meteor"),
    "CIDEr": with_pycocoevalcap("cider", "cider"),
    CIDER_D: with_ours,
}
JAVA = (TOKENS, "METEOR")

if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    else:
        main()
