"""Negatives written by a language model: the true answer with one thing made wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from cwdpo.base.config import Neutral
from cwdpo.base.lines import RowsById
from cwdpo.data.records import Record, Rejected
from cwdpo.endpoint.settings import Endpoint
from cwdpo.negatives.llm.rewrite import Rewrite, RewritePrompt
from cwdpo.negatives.llm.vision_errors import VISION_ERRORS, VisionError, described
from cwdpo.negatives.source import Made, Offer, Part, Source


class Written(Source):
    """Minimal changes by any model behind an OpenAI-compatible endpoint; a record may get fewer than `count`."""

    source: Literal["llm"]
    endpoint: Endpoint
    """Who writes."""
    count: int = Field(default=1, gt=0)
    """Rejected responses per record."""
    kinds: tuple[VisionError, ...] = Field(default=VISION_ERRORS, min_length=1)
    """What may be made wrong."""
    longest: float = Field(default=1.5, gt=0)
    """Longest one, in lengths of the chosen response (20 characters more are always allowed)."""
    prompt: RewritePrompt = "rewrite"
    """A shipped prompt, or a .txt file; $question, $chosen, $references, $count and $kinds are filled in."""
    images: Annotated[bool, Neutral(False)] = False
    """Send the image, too, to an endpoint that sees."""

    def parts(self) -> Mapping[str, Part]:
        """The replies of the endpoint."""
        shared = {name: getattr(self, name) for name in ("endpoint", "count", "kinds", "longest", "prompt", "images")}
        return {"llm": Rewrite(meanings=described(self.kinds), **shared)}

    def offers(self, records: Sequence[Record], made: Made) -> Iterator[Offer]:
        """What was written; nothing where no reply could be used."""
        rows = RowsById(made["llm"] / "replies.jsonl", _rewrites)
        for record in records:
            yield Offer(tuple(self._rejected(one) for one in rows.get(record.id, ())))

    def _rejected(self, rewrite: Mapping[str, str]) -> Rejected:
        how = {"kind": rewrite["kind"], "model": self.endpoint.model}
        return Rejected(rewrite["text"], f"llm:{rewrite['kind']}", how=how)


def _rewrites(row: Mapping[str, Any]) -> list[Mapping[str, str]]:
    return [one for reply in row["replies"] if reply for one in reply["rewrites"]]
