"""Our side of the training benchmarks: the real stage, with a context made by hand.

    python training_ours.py '{"stage": ..., "spec": {...}, "inputs": {...}, "execution": {...}, "home": ..., ...}'

`training_turns.py` starts it and takes what it reports.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from measure import REPO  # noqa: F401  puts the repository on the path
from pydantic import PrivateAttr
from training_flops import Counter
from training_turns import THREADS, Reporter

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.runtime import Execution, Rank
from cwdpo.objectives.preference import Preference
from cwdpo.pipeline import STAGES


def main(settings: dict[str, Any]) -> None:
    """Run one stage to its end, reporting every step."""
    import torch

    report = Reporter()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # DeepSpeed asks for them
    torch.set_num_threads(THREADS)
    distributed.start(Rank())
    stage = STAGES[settings["stage"]]
    spec = stage.spec.model_validate(settings["spec"])
    if "in_turn" in settings:
        spec = spec.model_copy(update={"objective": InTurn(spec, settings["in_turn"])})
    context = _context(spec, settings, report)
    importlib.import_module(stage.module).run(context)


class InTurn(Preference):
    """Preference objectives that take turns: one a step, where a step is one forward pass."""

    name: str = "in_turn"
    _turns: Any = PrivateAttr()

    def __init__(self, spec: Any, names: Sequence[str]) -> None:
        super().__init__()
        plain = spec.model_dump()
        objectives = [type(spec).model_validate({**plain, "objective": {"name": name}}).objective for name in names]
        self._turns = cycle(objectives)

    def pair_losses(self, pairs: Any) -> Any:
        """Those of the objective whose turn it is."""
        return next(self._turns).pair_losses(pairs)


def _context(spec: Any, settings: dict[str, Any], report: Reporter) -> StageContext:
    home = Path(settings["home"])
    out, partial = home / "out", home / "partial"
    for folder in (out, partial):
        folder.mkdir(parents=True)
    return StageContext(
        spec=spec,
        inputs={role: Path(path) for role, path in settings["inputs"].items()},
        out=out,
        partial=partial,
        cache=home / "cache",
        rank=Rank(),
        execution=Execution.model_validate(settings["execution"]),
        event=_events(report),
        check=lambda: None,
    )


def _events(report: Reporter) -> Callable[..., None]:
    """What a stage tells becomes reports: that it knows how to score, a step, a block of the reference pass."""
    losses: list[float] = []
    counter = Counter()
    way = ""

    def event(kind: str, **values: Any) -> None:
        nonlocal way
        if kind == "scoring":
            way = values["way"]
            report.report("ready")
            counter.start()
        if kind in ("step", "progress"):
            losses.append(values.get("loss", 0.0))
            report.report("step", flops=counter.stop())
            if values.get("step", values.get("done")) == values["total"]:
                report.report("end", losses=losses, way=way)

    return event


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
