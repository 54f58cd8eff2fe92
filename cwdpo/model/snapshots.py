"""The adapter of a training at some of its steps, beside its result: PEFT folders, which any tool loads.

snapshots/step-000100/     adapter_model.safetensors, adapter_config.json
snapshots/course.json      {"begin", "end", "total", "every"}: first and last step, steps of the schedule and
                               between two snapshots; "result" is the step whose adapter the run's own is, where
                               that need not be the last one's
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base import files
from cwdpo.base.errors import DataError, StoreError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, COURSE, WEIGHTS = "snapshots", "course.json", "adapter_model.safetensors"


def name_of(step: int) -> str:
    """Folder of what is kept of a step; names sort as steps do."""
    return f"step-{step:06d}"


class Snapshots:
    """The adapters of a finished training, from its first step to its last.

    Args:
        run: folder of the trained adapter.
        start: folder of the adapter it went on from; None for a fresh one, which changes nothing yet.

    Raises:
        DataError: the training has kept none.
    """

    def __init__(self, run: Path, start: Path | None) -> None:
        self.run, self.start = run, start
        if not (run / FOLDER / COURSE).is_file():
            raise DataError(
                f"{run}: this training has kept no snapshots, so that there is nothing to probe but its end:"
                " execution.snapshot_every was 0, all parameters were trained, or an older version trained it; to train"
                " it anew with them, set execution.snapshot_every and remove its folder from the store"
            )

    @cached_property
    def course(self) -> Mapping[str, Any]:
        """Content of course.json."""
        found: Mapping[str, Any] = files.read_json(self.run / FOLDER / COURSE)
        return found

    @cached_property
    def begin(self) -> int:
        """The step it started from: 0, or where the round before it ended."""
        return int(self.course["begin"])

    @cached_property
    def steps(self) -> list[int]:
        """All steps there is an adapter of, the start and the end included."""
        kept = (int(path.name.removeprefix("step-")) for path in (self.run / FOLDER).glob("step-*"))
        return sorted({0, self._result, *kept})

    def every(self, interval: int) -> list[int]:
        """The steps that a probe every `interval` steps reads: those, the start, and the end.

        Raises:
            DataError: one of them was not kept.
        """
        end = int(self.course["end"])
        wanted = sorted({0, *range(interval * (self.begin // interval + 1), end, interval), end})
        lost = [step for step in wanted if step not in self.steps]
        if lost:
            raise DataError(
                f"{self.run}: no snapshot of step {lost[0]}, which probe.every {interval} asks for: this training kept"
                f" one every {self.course['every']} steps (execution.snapshot_every), {len(self.steps)} in all; set"
                f" probe.every to a multiple of {self.course['every']}"
            )
        return wanted

    def put(self, model: Any, step: int) -> None:
        """Give a PEFT model, in place, the adapter of a step; its weights may be spread over ranks.

        Raises:
            StoreError: the adapter is not one of this model.
        """
        trained = {name: one for name, one in model.named_parameters() if ".lora_" in name}
        folder = self._folder(step)
        values = _named(folder, model) if folder else {name: None for name in trained if ".lora_B" in name}
        if folder and values.keys() != trained.keys():
            odd = sorted(values.keys() ^ trained.keys())
            raise StoreError(f"{folder}: not the adapter of this model; {odd[0]} is in one of them only")
        for name, value in values.items():
            _set(trained[name], value)

    def _folder(self, step: int) -> Path | None:
        """Where the adapter of a step lies; None for a fresh one."""
        if step == 0:
            return self.start
        return self.run if step == self._result else self.run / FOLDER / name_of(step)

    @property
    def _result(self) -> int:
        """The step whose adapter is the run's own."""
        return int(self.course.get("result", self.course["end"]))


def _named(folder: Path, model: Any) -> Mapping[str, Tensor | None]:
    """Weights of an adapter by the names that parameters have in a model with one adapter."""
    from safetensors.torch import load_file

    adapter = model.active_adapter
    found = load_file(folder / WEIGHTS).items()
    return {f"{name.removesuffix('.weight')}.{adapter}.weight": value for name, value in found}


def _set(parameter: Any, value: Tensor | None) -> None:
    """Replace what a parameter holds; None is zeros. Collective where it is spread over ranks."""
    import torch

    if hasattr(parameter, "ds_id"):
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter], modifier_rank=0):
            _fill(parameter.data, value)
        return
    with torch.no_grad():
        _fill(parameter.data, value)


def _fill(data: Tensor, value: Tensor | None) -> None:
    data.zero_() if value is None else data.copy_(_spread(value.to(data.device, data.dtype), data))


def _spread(value: Tensor, like: Any) -> Tensor:
    """A whole tensor over the ranks as another one is: those of a tensor-parallel replica have parts each."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
