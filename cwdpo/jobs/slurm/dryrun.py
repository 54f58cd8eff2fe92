"""What would be submitted, as files: every script, every job file, and the graph of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cwdpo.base import files
from cwdpo.jobs.slurm.arrays import Array
from cwdpo.jobs.slurm.elements import Place
from cwdpo.jobs.slurm.submission import Submission


def write_dry_run(submission: Submission, arrays: Sequence[Array], folder: Path) -> None:
    """Write `NAME.sh` and `NAME.jsonl` of every array, `dag.mmd` (Mermaid), `dag.dot` (Graphviz); replaces `folder`."""
    ids = {name: name for name in names(submission, arrays)}
    with files.folder_written_whole(folder) as temporary:
        for array in arrays:
            text = submission.script(array) + f"# waits for: {array.dependency(ids) or 'nothing'}\n"
            files.write_text(temporary / f"{array.name}.sh", text)
            files.write_jsonl(temporary / f"{array.name}.jsonl", list(submission.jobs(array)))
        files.write_text(temporary / "dag.mmd", mermaid(arrays))
        files.write_text(temporary / "dag.dot", graphviz(arrays))


def names(submission: Submission, arrays: Sequence[Array]) -> list[str]:
    """Names of arrays that elements may wait for: these, and those in the ledger."""
    return [*(array.name for array in arrays), *(record.name for record in submission.ledger.records())]


def mermaid(arrays: Sequence[Array]) -> str:
    """The graph of jobs for a Markdown page: one box per element, one frame per array."""
    lines = ["flowchart LR"]
    for array in arrays:
        lines.append(f'  subgraph {_frame(array)}["{array.kind}: {array.name}"]')
        lines += [f'    {_box((array.name, i))}["{i}: {_plain(array.elements[i].label)}"]' for i in array.elements]
        lines.append("  end")
    lines += [f"  {_box(parent)} --> {_box(child)}" for parent, child in _edges(arrays)]
    return "\n".join(lines) + "\n"


def graphviz(arrays: Sequence[Array]) -> str:
    """The same for `dot`."""
    lines = ["digraph jobs {", "  rankdir=LR;", "  node [shape=box];"]
    for array in arrays:
        lines.append(f'  subgraph "cluster_{array.name}" {{ label="{array.kind}: {array.name}";')
        lines += [
            f'    "{_box((array.name, i))}" [label="{i}: {_plain(array.elements[i].label)}"];' for i in array.elements
        ]
        lines.append("  }")
    lines += [f'  "{_box(parent)}" -> "{_box(child)}";' for parent, child in _edges(arrays)]
    return "\n".join([*lines, "}"]) + "\n"


def _edges(arrays: Sequence[Array]) -> list[tuple[Place, Place]]:
    return [(parent, (array.name, i)) for array in arrays for i in array.elements for parent in array.parents(i)]


def _frame(array: Array) -> str:
    return array.name.replace("-", "_")


def _box(place: Place) -> str:
    name, index = place
    return f"{name.replace('-', '_')}_{index}"


def _plain(label: str) -> str:
    return label.replace('"', "'")
