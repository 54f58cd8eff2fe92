"""What every judged benchmark offers: what a judge is asked about an answer, and how its replies are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from cwdpo.base.config import Neutral
from cwdpo.base.errors import name_valid
from cwdpo.endpoint.exchange import Unfit
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.question import Answered

PROMPTS = Path(__file__).parent.parent / "benchmarks" / "prompts"
NO_JUDGE = "not available: no judge configured"
ANSWER = "answer"
"""The place that a prompt must have."""


class Unusable(Unfit):
    """A judge's reply that cannot be read; the text says why, for counting and for the judge."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, reason)


def prompt_text(value: object) -> object:
    """The text of a prompt: a file's, where the setting ends in .txt and has no place itself."""
    if not isinstance(value, str) or "$" in value or not value.endswith(".txt"):
        return value
    try:
        # only the last line's end is an editor's: an official prompt may end in a blank that counts
        return Path(value).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


class Judged(Questions):
    """A benchmark whose answers are rated by a judge, a language model that does not see the image.

    With the shipped prompt, which states the official rubric in other words, the columns are by the rules only:
    `judge_prompt` takes the official text.
    """

    places: ClassVar[tuple[str, ...]] = ("question", "truth", ANSWER)
    """What a prompt may name, each after a dollar sign."""
    judged_by: ClassVar[tuple[str, ...]] = ()
    """Fields that `requests` and `rating` read, beside the prompt."""
    shipped: ClassVar[str]
    """File name of the shipped prompt."""

    judge_prompt: Annotated[str, BeforeValidator(prompt_text), Neutral("")] = ""
    """A .txt file to ask the judge by in place of the shipped prompt, or its text: what counts is the text. `$answer`
    and the other places are filled in, `$$` is a dollar sign."""

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        """Refuse a prompt that names what nothing fills in, or that does not show the answer."""
        template = Template(self.judge_prompt)
        if not template.is_valid():
            raise ValueError("judge_prompt: a lone $; write $$ for a dollar sign")
        for name in template.get_identifiers():
            if name not in self.places:
                raise ValueError(f"judge_prompt: unknown ${name_valid(name, self.places)}")
        if self.judge_prompt and ANSWER not in template.get_identifiers():
            raise ValueError("judge_prompt: it does not say where $answer stands; expected a text, or a .txt file")
        return self

    @property
    def judge_text(self) -> str:
        """The prompt, the shipped one where no other is set."""
        return self.judge_prompt or self.shipped_text()

    @classmethod
    def shipped_text(cls) -> str:
        """The prompt that comes with this program."""
        return (PROMPTS / cls.shipped).read_text(encoding="utf-8").removesuffix("\n")

    def for_judging(self) -> Self:
        """The same with all set back that does not concern the judge; the prompt, shipped or not, is its text."""
        fields = type(self).model_fields
        kept = {"name", *self.judged_by}
        back = {name: fields[name].default for name in fields if name not in kept}
        return self.model_copy(update={**back, "judge_prompt": self.judge_text})

    def for_generating(self) -> Self:
        """See `Benchmark`."""
        return self.model_copy(update={"judge_prompt": ""})

    @abstractmethod
    def texts(self, answered: Answered) -> Mapping[str, str]:
        """What fills the places of the prompt."""

    @abstractmethod
    def rating(self, answered: Answered, reply: str) -> Any:
        """What the judge says, as JSON.

        Raises:
            Unusable: the reply cannot be read; says why.
        """

    def requests(self, answered: Answered) -> Sequence[str]:
        """What the judge is asked about an answer: one judgement each."""
        return [Template(self.judge_text).substitute(self.texts(answered))]


def nobody_judged(answered: Sequence[Answered]) -> bool:
    """Whether there was no judge."""
    return not any(one.judgements for one in answered)
