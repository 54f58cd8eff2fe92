"""Samples encoded once, image and text, by a model's own processor; `layout.py` lays them out in rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import DataError, ModelError
from cwdpo.data.images import open_image
from cwdpo.data.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

KEPT_BYTES = 256 * 2**20  # of preprocessed images kept in memory by a rank; one of 1,000 tokens is about 19 MB


@dataclass(frozen=True)
class Group:
    """One image and prompt, encoded, with the responses that are scored under it.

    Attributes:
        prefix: what the processor made of image and prompt; per-token entries have shape (1, P).
        responses: tokens of each response, end-of-turn included.
    """

    prefix: dict[str, Tensor]
    responses: tuple[tuple[int, ...], ...]

    @cached_property
    def prefix_length(self) -> int:
        """Tokens of image and prompt."""
        return int(self.prefix["input_ids"].shape[1])

    @cached_property
    def length(self) -> int:
        """Tokens of the group when its responses share one prefix."""
        return self.prefix_length + sum(map(len, self.responses))

    def alone(self) -> list[Group]:
        """A group for each response."""
        return [Group(self.prefix, (response,)) for response in self.responses]


class Collator:
    """Encodes samples with a model's own processor. Several threads may call it while the processor does not pad.

    Args:
        processor: from `load_processor`.
        folder: image folder.
        context: most tokens image, prompt and one response may have.
    """

    def __init__(self, processor: Any, folder: Path, context: int) -> None:
        self.processor = processor
        self.folder = folder
        self.context = context
        self.ends = end_tokens(processor)
        self._kept: OrderedDict[tuple[str, str], dict[str, Tensor]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = Lock()

    @property
    def pad(self) -> int:
        """Token that fills up rows."""
        return int(self.processor.tokenizer.pad_token_id)

    def group(self, sample: Sample, responses: Sequence[str]) -> Group:
        """A sample's image and prompt with some responses.

        Raises:
            DataError: a response does not fit into the context; names the record, its length and the limit.
        """
        prefix = self.prefix(sample.image, sample.prompt)
        group = Group(prefix, tuple(tuple(self.response_ids(text)) for text in responses))
        self._check_length(sample.id, group.prefix_length, max(map(len, group.responses)))
        return group

    def prefix(self, image: str, prompt: str) -> dict[str, Tensor]:
        """Image and prompt up to where the response starts; per-token entries have shape (1, P)."""
        with self._lock:
            found = self._kept.get((image, prompt))
        if found is None:
            found = self._encode_prefix(image, prompt)
            self._keep((image, prompt), found)
        return found

    def _keep(self, key: tuple[str, str], prefix: dict[str, Tensor]) -> None:
        """Remember a preprocessed prefix while there is room; the oldest goes first."""
        with self._lock:
            if key not in self._kept:  # another thread may have been quicker
                self._kept[key] = prefix
                self._kept_bytes += _bytes(prefix)
            while self._kept_bytes > KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= _bytes(oldest)

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response and the end-of-turn token."""
        tokenizer = self.processor.tokenizer
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], self.ends[0]]

    def check_texts(self, samples: Iterable[Sample]) -> None:
        """Check every prompt and response against the context, counting an image as one token.

        A text that cannot fit must not end a run after hours.

        Raises:
            DataError: as for `group`.
        """
        tokens = lru_cache(1024)(lambda prompt: len(self.processor.tokenizer(self._text(prompt))["input_ids"]))
        for sample in samples:
            longest = max(len(self.response_ids(text)) for text in (sample.chosen, *sample.rejected))
            self._check_length(sample.id, tokens(sample.prompt), longest)

    def _text(self, prompt: str) -> str:
        """The chat template around one image and `prompt`, up to where the response starts."""
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _check_length(self, name: str, prefix: int, response: int) -> None:
        if prefix + response > self.context:
            raise DataError(
                f"record '{name}': {prefix + response} tokens ({prefix} of image and prompt, {response} of response),"
                f" but the limit is {self.context} (the model's context, or the stage's optimization.max_length where"
                " that is lower): shorten the text, or lower model.max_pixels if the image takes most"
            )

    def _encode_prefix(self, image: str, prompt: str) -> dict[str, Tensor]:
        text = self._text(prompt)
        picture = open_image(self.folder, image)
        begin = self.processor.tokenizer.bos_token
        written = bool(begin) and text.startswith(begin)  # by the template: the tokenizer must not add another
        encoded = self.processor(text=[text], images=[[picture]], return_tensors="pt", add_special_tokens=not written)
        if "image_grid_thw" in encoded and "mm_token_type_ids" not in encoded:
            raise ModelError("the processor gives no mm_token_type_ids: rotary positions of images would be wrong")
        return dict(encoded)


def end_tokens(processor: Any) -> tuple[int, ...]:
    """Tokens that end an answer: first the one the chat template ends a turn with, then the tokenizer's own."""
    tokenizer = processor.tokenizer
    answer = "answer"
    turns = [("user", "question"), ("assistant", answer)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    text = str(processor.apply_chat_template(messages, tokenize=False))
    after = tokenizer(text[text.rindex(answer) + len(answer) :].strip(), add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    # A template may end a turn with nothing but a line break.
    ends = [after[0]] if after and after[0] in special else []
    return tuple(dict.fromkeys([*ends, tokenizer.eos_token_id]))


def _bytes(prefix: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in prefix.values())
