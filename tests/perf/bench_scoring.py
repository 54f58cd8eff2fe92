"""What scoring captions costs: each metric as the score stage computes it, on 500 to 25,000 captions, and a whole run.

The captions are made up of common words, with five references each; their scores mean nothing. `whole` as the only
argument measures whole runs alone and prints them.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import publish, table

from cwdpo.data.nocaps import PUBLISHED
from cwdpo.jobs.memory import peak_bytes, reset_peak
from cwdpo.metrics import captions, meteor
from cwdpo.metrics.cider_d import CiderD
from cwdpo.metrics.domains import score_domains

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
    notes = f"{NOTES} CIDEr of any item differs by at most {worst:.1e}.\n\n{whole()}\n\n{WHOLE_NOTES}"
    publish(__file__, "Scoring captions", COLUMNS, rows, notes)


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


# Whole runs, with all processes that they start


@dataclass(frozen=True)
class Whole:
    """A run from raw captions to scores.

    Attributes:
        wall: seconds by the clock.
        cpu: seconds of all its processes.
        peak_mb: most resident memory of all its processes at one moment, pages that they share counted for each.
        processes: most of them at one moment.
    """

    wall: float
    cpu: float
    peak_mb: float
    processes: int


def whole() -> str:
    """A table of whole runs, one after the other."""
    found = {name: sampled(name) for name in WHOLE}
    theirs = found[THEIRS]
    return table(WHOLE_COLUMNS, [whole_row(name, one, theirs) for name, one in found.items()])


def whole_row(name: str, one: Whole, theirs: Whole) -> tuple[str, ...]:
    """A run, beside pycocoevalcap's own where the captions are the same."""
    same = name in (OURS, THEIRS)
    ratios = (one.cpu / theirs.cpu, one.peak_mb / theirs.peak_mb)
    costs = (f"{one.wall:.1f}", f"{one.cpu:.1f}", f"{one.peak_mb:.0f}", str(one.processes))
    return name, *costs, *(f"{ratio:.2f}" if same else "-" for ratio in ratios)


def sampled(name: str) -> Whole:
    """A run in processes of its own, looked at fifty times a second."""
    began, spent = time.perf_counter(), cpu_seconds()
    process = subprocess.Popen([sys.executable, __file__, "whole", name], stdout=subprocess.DEVNULL)
    peak, most = 0, 0
    while process.poll() is None:
        members = family(process.pid)
        peak, most = max(peak, sum(map(resident, members))), max(most, len(members))
        time.sleep(0.02)
    assert process.returncode == 0, f"{name}: exit code {process.returncode}"
    return Whole(time.perf_counter() - began, cpu_seconds() - spent, peak / 1e6, most)


def family(root: int) -> set[int]:
    """A process with all that it started and that those started."""
    parents = {int(entry.name): parent_of(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = {root}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def parent_of(process: Path) -> int:
    """0 where it has ended meanwhile."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def resident(process: int) -> int:
    """Bytes of its resident memory; 0 where it has ended meanwhile."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def score_with_ours() -> None:
    """As the score stage does."""
    captions.score_captions(*made_up(5_000))


def score_domains_with_ours() -> None:
    """As the score stage does with NoCaps."""
    candidates, references = made_up(4_500, 10)
    domains = [domain for domain, count in PUBLISHED.items() for _ in range(count)]
    score_domains(
        candidates, references, dict(zip(candidates, domains, strict=True)), ("bleu", "meteor", "rouge_l", "cider")
    )


def score_with_pycocoevalcap() -> None:
    """As its COCOEvalCap does, without SPICE."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    candidates, references = made_up(5_000)
    tokenizer = PTBTokenizer()
    known = tokenizer.tokenize({name: [{"caption": text} for text in texts] for name, texts in references.items()})
    found = tokenizer.tokenize({name: [{"caption": text}] for name, text in candidates.items()})
    for scorer in (Bleu(4), Meteor(), Rouge(), Cider()):
        scorer.compute_score(known, found)


THEIRS = "pycocoevalcap, 5,000 images, 5 references"
OURS = "score stage, the same"
WHOLE: dict[str, Callable[[], None]] = {
    THEIRS: score_with_pycocoevalcap,
    OURS: score_with_ours,
    "score stage, NoCaps' 4,500 images in 3 domains, 10 references": score_domains_with_ours,
}
WHOLE_COLUMNS = ("from raw captions", "seconds", "CPU seconds", "MB at most, all processes", "processes", "CPU, ratio",
                 "MB, ratio")  # fmt: skip
WHOLE_NOTES = (
    "Whole runs are BLEU, METEOR, ROUGE-L and CIDEr, with Python, imports, captions and every Java they start. MB are"
    " the sum of resident memory at the worst of fifty looks a second. Seconds by the clock count what others do on the"
    " machine, too. COCO's test split has 5,000 images: it is to take less than 2,500 MB and, on two free cores, less"
    " than 60 seconds."
)


# In the process of one metric


def measure(folder: Path, name: str, size: int) -> None:
    """Print the costs and leave the scores per item."""
    given = made_up(size) if name == TOKENS else captions.Tokens(**json.loads(tokens_file(folder, size).read_text()))
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


def made_up(size: int, count: int = REFERENCES) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references by item."""
    generator = random.Random(size)
    words = {kind: text.split() for kind, text in WORDS.items()}

    def caption() -> str:
        kinds = ORDER + ["place", "noun"] * generator.randint(0, 1)
        return " ".join(generator.choice(words[kind]) for kind in kinds).capitalize() + "."

    ids = [str(index) for index in range(size)]
    return {name: caption() for name in ids}, {name: [caption() for _ in range(count)] for name in ids}


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
    TOKENS: lambda given: captions.tokens_of(*given),
    "BLEU-1..4": with_pycocoevalcap("bleu", "bleu_4"),
    "ROUGE-L": with_pycocoevalcap("rouge_l", "rouge_l"),
    "METEOR": with_pycocoevalcap("meteor", "meteor"),
    "CIDEr": with_pycocoevalcap("cider", "cider"),
    CIDER_D: with_ours,
}
JAVA = (TOKENS, "METEOR")

if __name__ == "__main__":
    if sys.argv[1:] == ["whole"]:
        print(f"{whole()}\n\n{WHOLE_NOTES}")
    elif sys.argv[1:2] == ["whole"]:
        WHOLE[sys.argv[2]]()
    elif len(sys.argv) > 1:
        measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    else:
        main()
