"""The probe set's own record, and its file: the same ids and texts for every run that is probed with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cwdpo.base import files
from cwdpo.base.errors import StoreError
from cwdpo.data.samples import Sample
from cwdpo.dynamics.rows import KINDS, Kind
from cwdpo.dynamics.settings import ProbeSet

NAME, SETTINGS = "samples.jsonl", "settings.json"


@dataclass(frozen=True)
class ProbeSample:
    """One image and prompt, with the responses that are probed under it.

    Attributes:
        responses: kind -> text, `chosen` first; a kind that there is none of is absent.
    """

    id: str
    image_id: str
    image: str
    prompt: str
    responses: Mapping[Kind, str]

    @cached_property
    def sample(self) -> Sample:
        """As training knows it: the chosen response, and all others as rejected ones."""
        chosen, *others = self.responses.values()
        return Sample(self.id, self.image_id, self.image, self.prompt, chosen, tuple(others))

    def as_json(self) -> dict[str, Any]:
        """Its line."""
        return {
            "id": self.id, "image_id": self.image_id, "image": self.image, "prompt": self.prompt,
            "responses": dict(self.responses),
        }  # fmt: skip


def load_settings(folder: Path) -> ProbeSet:
    """How a probe set was made."""
    return ProbeSet.model_validate(files.read_json(folder / SETTINGS))


def load_probe_set(folder: Path) -> list[ProbeSample]:
    """What a stage `probe_set` wrote.

    Raises:
        StoreError: the file is damaged.
    """
    return [_sample_of(row, folder / NAME) for row in files.read_jsonl(folder / NAME)]


def _sample_of(row: dict[str, Any], path: Path) -> ProbeSample:
    try:
        given = row.pop("responses")
        return ProbeSample(responses={kind: given[kind] for kind in KINDS if kind in given}, **row)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: a line is no probe sample ({error})") from error
