"""What a restart can build on: finished stages, checkpoints, blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.base.store import Artefact, Store
from cwdpo.endpoint.replies import ASKED


def saved_progress(artefact: Artefact) -> int:
    """A number that grows with what is saved: step of the newest whole checkpoint, finished blocks, replies; else 0.

    Of probes it is the blocks at all steps: each is written once more when it has been read at every step.
    """
    checkpoints = artefact.partial / "checkpoints"
    steps = [int(path.name[5:]) for path in checkpoints.glob("step-*") if path.name[5:].isdigit() and _whole(path)]
    blocks = sum(1 for _ in (artefact.partial / "blocks").glob("[0-9]*.jsonl"))
    blocks += sum(1 for _ in (artefact.partial / "steps").glob("step-*/[0-9]*.json"))
    return max([*steps, blocks, _replies(artefact.partial / ASKED)]) + _sampled(artefact.partial / "rollouts")


def _replies(path: Path) -> int:
    """How many replies an endpoint has given, as far as that can be read; they are kept elsewhere."""
    try:
        return int(files.read_json(path)["replies"]) if path.exists() else 0
    except (StoreError, KeyError, TypeError, ValueError):
        return 0


def _sampled(folder: Path) -> int:
    """Phases of responses that a training sampled, and finished blocks of the newest, which has fewer than 1,000."""
    phases = sorted(folder.glob("phase-*"))
    if not phases:
        return 0
    return 1000 * int(phases[-1].name[6:]) + sum(1 for _ in (phases[-1] / "blocks").glob("[0-9]*.jsonl"))


def _whole(checkpoint: Path) -> bool:
    """True when every file of a checkpoint has its size; the trainer compares the bytes when it resumes."""
    try:
        entries = files.read_json(checkpoint / "state.json")["files"]
        return all((checkpoint / name).stat().st_size == entry["bytes"] for name, entry in entries.items())
    except (OSError, KeyError, TypeError, AttributeError, StoreError):
        return False


def element_progress(store: Store, stages: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """(stages done, saved progress of the first one that is not) of a job.

    Args:
        stages: (stage name, id), in the order in which the job computes them.
    """
    artefacts = [store.artefact(stage, identity) for stage, identity in stages]
    unfinished = [artefact for artefact in artefacts if not is_done(artefact)]
    return len(artefacts) - len(unfinished), saved_progress(unfinished[0]) if unfinished else 0


def is_done(artefact: Artefact) -> bool:
    """True when the artefact is there; what is damaged is not."""
    try:
        return artefact.done() is not None
    except StoreError:
        return False
