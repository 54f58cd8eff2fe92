"""Reads what a grid names: other grids, methods, models, sizes; each file once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cwdpo.base.config import read_yaml, validate
from cwdpo.base.errors import ConfigError
from cwdpo.experiment.folders import find_config
from cwdpo.experiment.origins import Layer
from cwdpo.experiment.written import MethodFile, SizeFile


class Reader:
    """Files as they are now, for as long as one grid is being read."""

    def __init__(self) -> None:
        self.yaml = cache(read_yaml)
        self.size = cache(self._size)
        self.stages = cache(self._stages)

    def with_model(self, content: Mapping[str, Any], before: str) -> dict[str, Any]:
        """`model: NAME` replaced by the content of `configs/models/NAME.yaml`.

        Args:
            before: of the key, in a message: where it is written.
        """
        if not isinstance(content.get("model"), str):
            return dict(content)
        return {**content, "model": self.yaml(_named("models", content["model"], f"{before}model"))}

    def layers(self, before: str, content: Mapping[str, Any]) -> list[Layer]:
        """What is written in one place, and in the model file that it names."""
        name = content.get("model")
        if not isinstance(name, str):
            return [Layer(before, content)]
        path = _named("models", name, f"{before}model")
        return [Layer(before, content), Layer(f"{path}: ", {"model": self.yaml(path)}, "model")]

    def _stages(self, method: str, key: str) -> dict[str, Any]:
        """What `configs/methods/NAME.yaml` says of both stages; a stage it has not is none.

        Args:
            key: that names the method, for the error.
        """
        path = _named("methods", method, key)
        file = validate(MethodFile, self.yaml(path), str(path))
        return {"stage1": file.stage1, "stage2": file.stage2}

    def _size(self, path: Path) -> SizeFile:
        return validate(SizeFile, self.yaml(path), str(path))


def _named(kind: str, name: str, key: str) -> Path:
    """The file of a named configuration; the error of one that is not there begins with the key that names it."""
    try:
        path = find_config(kind, name)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    if not path.is_file():
        raise ConfigError(f"{key}: {path}: no such file")
    return path
