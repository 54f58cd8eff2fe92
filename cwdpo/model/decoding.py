"""How text is decoded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cwdpo.base.config import Config, Neutral


class Decoding(Config):
    """Settings of one generation pass; part of the identity of what it writes."""

    strategy: Literal["greedy", "beam", "sample"] = "greedy"
    """Most likely token, beam search, or sampling."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Longest answer, end-of-turn included."""
    beams: Annotated[int, Neutral(1)] = Field(default=1, ge=1)
    """Width of the beam search."""
    candidates: Annotated[int, Neutral(1)] = Field(default=1, ge=1)
    """Answers kept per item, best first; more than one needs beams or sampling."""
    temperature: Annotated[float, Neutral(1.0)] = Field(default=1.0, gt=0)
    """Sampling only."""
    top_p: Annotated[float, Neutral(1.0)] = Field(default=1.0, gt=0, le=1)
    """Sampling only: smallest set of tokens with this much probability."""
    block: int = Field(default=32, gt=0)
    """Items decoded together: the unit of sharding and resume."""

    @model_validator(mode="after")
    def _consistent(self) -> Decoding:
        if self.strategy == "beam" and self.candidates > self.beams:
            raise ValueError(f"candidates ({self.candidates}) exceeds beams ({self.beams})")
        if self.strategy == "greedy" and self.candidates > 1:
            raise ValueError(f"greedy decoding has one answer, not {self.candidates}; use strategy beam or sample")
        return self
