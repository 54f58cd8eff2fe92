"""What sources of rejected responses have in common: what they need first, and what they offer for a record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cwdpo.base import files
from cwdpo.base.config import Config
from cwdpo.data.records import Record, Rejected
from cwdpo.objectives.supply import Supply

Made = Mapping[str, Path]
"""Role -> the folder of a part."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source makes for one record.

    Attributes:
        chosen: the response that won, where it is not the record's own.
    """

    rejected: tuple[Rejected, ...] = ()
    chosen: str | None = None


class Part(Config):
    """Work that a source needs done first: a stage of its own, shared by all that ask for the same.

    Its fields are part of the stage's identity; `pipeline.py` adds the portion and, where `asks_policy`, the policy.
    """

    stage: ClassVar[str]
    """Its name in `pipeline.py`."""
    asks_policy: ClassVar[bool] = False
    """True when the policy that is trained next is asked: its weights and the images are inputs, too."""

    @property
    def needs_images(self) -> bool:
        """Whether it reads the image folder, where it does not ask the policy."""
        return False

    def parts(self) -> Mapping[str, Part]:
        """Role -> what it reads itself."""
        return {}


class Source(Config):
    """A source of rejected responses."""

    makes: ClassVar[Mapping[Supply, str]] = {}
    """What its rejected responses may come with, and how to have that."""

    def parts(self) -> Mapping[str, Part]:
        """Role -> what has to be computed before `offers`."""
        return {}

    def provides(self, by_data: frozenset[Supply]) -> frozenset[Supply]:
        """What its rejected responses come with, given what those of the data come with."""
        return frozenset()

    @abstractmethod
    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """One for each record, in order; a function of the source, the record and the parts alone.

        Args:
            made: the folders of `parts`.
        """

    def about(self, made: Made) -> dict[str, Any]:
        """What its parts were made with, for the summary: models, endpoints, settings."""
        found = {
            role: files.read_json(path)
            for role, folder in made.items()
            for path in (folder / "settings.json",)
            if path.exists()
        }
        return {"made_with": found} if found else {}


def within(made: Made, name: str) -> Made:
    """The parts of a source that stands inside another one under `name`; see `named`."""
    return {role.removeprefix(f"{name}."): folder for role, folder in made.items() if role.startswith(f"{name}.")}


def named(name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Parts of a source inside another one, under roles that no other source uses."""
    return {f"{name}.{role}": part for role, part in parts.items()}
