"""What a grid says of the generated world that a benchmark asks about."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from cwdpo.base.config import Config
from cwdpo.data.demo_world import DemoWorld

FEWEST = 12
"""Test scenes of a world that are enough for a question of every kind."""


class Generated(Config):
    """A generated world. Only its test scenes are asked about, so it may be the one that is trained on."""

    source: Literal["demo_world"]
    world: DemoWorld = DemoWorld()
    """What to render."""

    @model_validator(mode="after")
    def _usable(self) -> Generated:
        check_world(self.world)
        return self


def check_world(world: DemoWorld, key: str = "world") -> None:
    """Raise `ValueError` where questions about the world under a key would have no true answer, or are too few."""
    if world.biases:
        raise ValueError(f"{key}.biases: true answers are made of sentences, so that these must be free of errors")
    if world.test < FEWEST:
        raise ValueError(f"{key}.test: these scenes are asked about; {world.test} are too few, valid: {FEWEST} or more")
