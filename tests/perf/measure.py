"""What benchmarks share: commands timed side by side, and a table that says how it was made.

A benchmark is one file, `tests/perf/bench_*.py`; `make bench` runs them all. It prints, it asserts nothing: machines
are noisy, so the numbers to compare are the ratios, of commands that took turns in one run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
for place in (REPO, REPO / "tests"):
    sys.path.insert(0, str(place))


def command(*arguments: object) -> Callable[[], None]:
    """A command of cwdpo in a process of its own, from the start of the interpreter to its end."""
    line = [sys.executable, "-m", "cwdpo", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return lambda: subprocess.run(line, cwd=REPO, env=environment, stdout=subprocess.DEVNULL, check=True) and None


def best(
    works: Mapping[str, Callable[[], object]], rounds: int = 5, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Seconds of the fastest round of each; they take turns, so that a busy moment hits all of them.

    Args:
        before: called before each, not timed.
    """
    found = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            before()
            began = time.perf_counter()
            work()
            found[name] = min(found[name], time.perf_counter() - began)
    return found


def publish(file: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], notes: str) -> None:
    """Print a Markdown table and write it to results/, with the command, the commit and the machine."""
    lines = [" | ".join(map(str, row)) for row in (columns, ["---"] * len(columns), *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    name = Path(file).stem.removeprefix("bench_")
    made = f"`python tests/perf/{Path(file).name}` at commit {_commit()}, {_machine()}."
    text = f"# {title}\n\n{table}\n\n{notes}\n\n{made}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def _commit() -> str:
    from cwdpo.version import code_version

    found = code_version()
    return f"{str(found['commit'])[:12]}{' with changes' if found['dirty'] else ''}"


def _machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
