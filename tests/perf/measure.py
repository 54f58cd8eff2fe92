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
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


def table(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(map(str, row)) for row in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def publish(file: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], notes: str) -> None:
    """Print a Markdown table and write it to results/, with the command, the commit and the machine."""
    name = Path(file).stem.removeprefix("bench_")
    text = f"# {title}\n\n{table(columns, rows)}\n\n{notes}\n\n{made_by(file)}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def made_by(file: str, packages: Sequence[str] = ()) -> str:
    """One sentence: command, commit, machine and versions."""
    found = about(file, packages)
    versions = "".join(f", {name} {number}" for name, number in found["versions"].items())
    return f"`{found['command']}` at commit {found['commit']}, {found['machine']}{versions}."


def about(file: str, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Command, commit, machine and versions, for JSON."""
    return {
        "command": " ".join(["python", str(Path(file).resolve().relative_to(REPO)), *sys.argv[1:]]),
        "commit": _commit(),
        "machine": _machine(),
        "versions": {name: version(name) for name in packages},
    }


def _commit() -> str:
    from cwdpo.version import code_version

    found = code_version()
    return f"{str(found['commit'])[:12]}{' with changes' if found['dirty'] else ''}"


def _machine() -> str:
    kind = f"{platform.system()} {platform.machine()}"
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {kind}{_processor()}"


def _processor() -> str:
    """The processor's name and its widest vectors, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wide = [name for name in ("avx2", "avx512f", "amx_bf16") if name in told.get("flags", "").split()]
    return f" ({', '.join([told.get('model name', 'unnamed'), *wide])})"
