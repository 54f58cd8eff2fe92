"""Reads what a grid names: other grids, methods, models, sizes; each file once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cwdpo.base.config import read_yaml, validate
from cwdpo.experiment.folders import find_config
from cwdpo.experiment.written import MethodFile, SizeFile


class Reader:
    """Files as they are now, for as long as one grid is being read."""

    def __init__(self) -> None:
        self.yaml = cache(read_yaml)
        self.size = cache(self._size)
        self.stages = cache(self._stages)

    def with_model(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """`model: NAME` replaced by the content of `configs/models/NAME.yaml`."""
        if not isinstance(content.get("model"), str):
            return dict(content)
        return {**content, "model": self.yaml(find_config("models", content["model"]))}

    def _stages(self, method: str) -> dict[str, Any]:
        """What `configs/methods/NAME.yaml` says of both stages; a stage it has not is none."""
        path = find_config("methods", method)
        file = validate(MethodFile, self.yaml(path), str(path))
        return {"stage1": file.stage1, "stage2": file.stage2}

    def _size(self, path: Path) -> SizeFile:
        return validate(SizeFile, self.yaml(path), str(path))
