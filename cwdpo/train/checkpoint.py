"""Checkpoints of a running stage: written whole, verified before use, the newest complete one wins.

    partial/checkpoints/step-000120/
        state.json              step, samples consumed, objective state, sizes and SHA-256 of the other files
        weights.safetensors     trained parameters by name, float32        (LoRA)
        moments.safetensors     Adam moments by name                       (LoRA)
        deepspeed/              DeepSpeed's own format                      (full training; world size pinned)

Data order, learning rate and dropout are functions of seed and step, so there is no generator state to store. What a
round hands to the next one (`rounds.py`) has the same files, in the artefact.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwdpo.base import distributed, files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import StoreError, TrainingError
from cwdpo.base.identity import digest
from cwdpo.model.snapshots import name_of
from cwdpo.train.engine import Engine, Trainables
from cwdpo.train.saving import saving

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a training stands, apart from weights.

    Attributes:
        step: optimizer steps done.
        samples: samples consumed, over all ranks.
        objective: what the objective carries (penalty switch, multiplier).
    """

    step: int
    samples: int
    objective: Mapping[str, float]


HANDED_OVER = "trainer"
"""Folder in the artefact of a round: what the next round goes on from."""


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        full: all parameters are trained, so DeepSpeed's own format is used.
    """

    def __init__(self, context: StageContext, full: bool) -> None:
        self.context = context
        self.full = full
        self.folder = context.partial / "checkpoints"

    def newest(self) -> Path | None:
        """The newest checkpoint whose every byte is as written, as rank 0 sees it. Collective.

        Damaged ones are reported and passed over; where there is none, what the round before this one handed over.
        """
        found = self._newest() if self.context.rank.is_first else None
        name: str | None = distributed.from_first_rank(found and found.name, self.context.rank)
        previous = self.context.inputs.get("previous")
        return self.folder / name if name else previous and previous / HANDED_OVER

    def _newest(self) -> Path | None:
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            fault = _fault(path)
            if fault is None:
                return path
            log.warning("checkpoint %s is damaged (%s); falling back to the one before", path, fault)
            self.context.event("checkpoint_damaged", checkpoint=path.name, fault=fault)
        return None

    def weights(self, path: Path) -> dict[str, Any]:
        """Trained parameters by name, to be put into the model before the engine takes it over."""
        from safetensors.torch import load_file

        return load_file(path / "weights.safetensors")

    def restore(self, path: Path, engine: Engine) -> Progress:
        """Bring the engine to where `path` was written.

        Raises:
            TrainingError: full training resumed at another world size or ZeRO stage.
        """
        state = files.read_json(path / "state.json")
        if self.full:
            self._restore_deepspeed(path, state, engine)
        else:
            from safetensors.torch import load_file

            Trainables(engine).restore(self.weights(path), load_file(path / "moments.safetensors"))
        return Progress(state["step"], state["samples"], state["objective"])

    def save(self, engine: Engine, progress: Progress) -> None:
        """Write a checkpoint, then drop the oldest. Collective: every rank must call."""
        path = self.folder / name_of(progress.step)
        self._write(path, engine, progress)
        if self.context.rank.is_first:
            self.context.event("checkpoint", step=progress.step)
            self._drop_old(path)

    def hand_over(self, engine: Engine, progress: Progress, course: Mapping[str, Any]) -> None:
        """Write into the artefact what the next round goes on from; `course` is kept beside the state. Collective."""
        self._write(self.context.out / HANDED_OVER, engine, progress, course=course)

    def _write(self, path: Path, engine: Engine, progress: Progress, **more: Any) -> None:
        self.context.check()
        state = {"step": progress.step, "samples": progress.samples, "objective": dict(progress.objective), **more}
        if self.full:
            self._save_deepspeed(path, state, engine)
        else:
            self._save_by_name(path, state, Trainables(engine))
        self.context.barrier()

    def _save_by_name(self, path: Path, state: dict[str, Any], trainables: Trainables) -> None:
        from safetensors.torch import save_file

        weights, moments = trainables.weights(), trainables.moments()
        if self.context.rank.is_first:
            with saving(path), files.folder_written_whole(path) as temporary:
                save_file(weights, temporary / "weights.safetensors")
                save_file(moments, temporary / "moments.safetensors")
                _write_state(temporary, state)

    def _save_deepspeed(self, path: Path, state: dict[str, Any], engine: Engine) -> None:
        """All ranks write into one hidden folder, which rank 0 renames once all are done."""
        hidden = path.with_name(f".{path.name}.{self.context.rank.world_size}.tmp")
        if self.context.rank.is_first:
            files.remove_tree(hidden)
        self.context.barrier()
        with saving(path):
            engine.deepspeed.save_checkpoint(str(hidden), tag="deepspeed", exclude_frozen_parameters=True)
            self.context.barrier()
            if self.context.rank.is_first:
                (hidden / "latest").unlink(missing_ok=True)
                _write_state(hidden, {**state, "world_size": self.context.rank.world_size, "zero": engine.zero_stage})
                files.sync_tree(hidden)
                files.replace_folder(hidden, path)

    def _restore_deepspeed(self, path: Path, state: dict[str, Any], engine: Engine) -> None:
        world, zero = self.context.rank.world_size, engine.zero_stage
        over = f", or delete {self.folder} to start over" if path.parent == self.folder else ""
        if state["world_size"] != world:
            raise TrainingError(
                f"{path}: full training was started with {state['world_size']} ranks and cannot resume with {world};"
                f" give the job {state['world_size']} ranks{over}"
            )
        if state["zero"] != zero and not {state["zero"], zero} <= {1, 2}:
            raise TrainingError(
                f"{path}: full training was started with ZeRO stage {state['zero']} and cannot resume with {zero};"
                f" set execution.zero_stage back{over}"
            )
        # DeepSpeed's loader unpickles; the folder was written by this program and its bytes were just verified.
        engine.deepspeed.load_checkpoint(str(path), tag="deepspeed", load_module_strict=False)

    def _drop_old(self, newest: Path) -> None:
        """Keep `newest` and those before it; what is beyond it was found damaged when this run resumed."""
        before = sorted((path for path in self.folder.glob("step-*") if path.name <= newest.name), reverse=True)
        kept = before[: max(self.context.execution.keep_checkpoints, 1)]
        for path in self.folder.glob("step-*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    entries = {name: {"bytes": size, "sha256": value} for name, size, value in _entries(folder)}
    whole = {**state, "files": entries}
    files.write_json(folder / "state.json", {**whole, "digest": digest(whole)})


def _entries(folder: Path) -> Iterator[tuple[str, int, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "state.json":
            yield path.relative_to(folder).as_posix(), path.stat().st_size, files.sha256_file(path)


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        state = files.read_json(folder / "state.json")
        if state.pop("digest") != digest(state):
            return "state.json is changed"
        expected = state["files"]
        found = {name: {"bytes": size, "sha256": value} for name, size, value in _entries(folder)}
    except (OSError, KeyError, TypeError, AttributeError, StoreError) as error:
        return str(error) or type(error).__name__
    wrong = [name for name in expected if found.get(name) != expected[name]]
    return f"{wrong[0]} is missing or changed" if wrong else None
