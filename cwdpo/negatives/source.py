"""What sources of rejected responses have in common: what they need first, and what they offer for a record."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
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

REASONS = {
    "equal_to_truth": "a response was the truth",
    "repeated": "a response repeated another one",
    "empty": "a response was empty",
    "both_answers_alike": "both answers were alike",
    "too_long_to_judge": "both answers together were too long to be judged",
}
"""Why there is no rejected response where there might have been one: keys of the summary, and in words."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source makes for one record.

    Attributes:
        chosen: the response that won, where it is not the record's own.
        dropped: a key of `REASONS` for each response that the source itself has left out.
    """

    rejected: tuple[Rejected, ...] = ()
    chosen: str | None = None
    dropped: tuple[str, ...] = ()


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
        """One for each record, in order; a function of the source, the record and the parts.

        Of `dataset` and `mixed`, and of `graded` around them, it is a function of the other records, too.

        Args:
            made: the folders of `parts`.
        """

    def offers_for(self, requires: frozenset[Supply], records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """The same for training that uses only rejected responses that come with all of `requires`.

        What lacks something is left out by whoever asks; a source that chooses among others chooses those that do not.
        """
        return self.offers(records, made)

    def about(self, made: Made) -> dict[str, Any]:
        """What its parts were made with, for the summary: models, endpoints, settings."""
        found = {
            role: files.read_json(path)
            for role, folder in made.items()
            for path in (folder / "settings.json",)
            if path.exists()
        }
        return {"made_with": found} if found else {}


def usable(record: Record, offer: Offer, requires: frozenset[Supply], dropped: Counter[str]) -> list[Rejected]:
    """What training can use of an offer: distinct, not empty, not the truth, with all that is required.

    Args:
        dropped: the others are counted here, by `REASONS` and as `lacking`.
    """
    truth = {offer.chosen, record.chosen, *record.references}
    kept: dict[str, Rejected] = {}
    for item in offer.rejected:
        fault = fault_of(item.text, item.text in truth, item.text in kept)
        if not item.supplies.issuperset(requires):
            fault = "lacking"
        if fault:
            dropped[fault] += 1
        else:
            kept[item.text] = item
    return list(kept.values())


def fault_of(text: str, true: bool, repeated: bool) -> str | None:
    """Why a response is no rejected one, a key of `REASONS`; None where it is."""
    if not text:
        return "empty"
    if true:
        return "equal_to_truth"
    return "repeated" if repeated else None


def within(made: Made, name: str) -> Made:
    """The parts of a source that stands inside another one under `name`; see `named`."""
    return {role.removeprefix(f"{name}."): folder for role, folder in made.items() if role.startswith(f"{name}.")}


def named(name: str, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Parts of a source inside another one, under roles that no other source uses."""
    return {f"{name}.{role}": part for role, part in parts.items()}


def all_named(sources: Mapping[str, Source]) -> dict[str, Part]:
    """Parts of several sources inside another one."""
    return {role: part for name, source in sources.items() for role, part in named(name, source.parts()).items()}
