"""Samples become tensors: one row per response, `[image + prompt | response + end-of-turn]`, padded on the right.

Shapes: N rows, T tokens of the longest row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import DataError, ModelError
from cwdpo.data.images import open_image
from cwdpo.data.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

KEPT_BYTES = 256 * 2**20  # of preprocessed images kept in memory by a rank; one of 1,000 tokens is about 19 MB


@dataclass(frozen=True)
class ResponseBatch:
    """Rows of one forward pass.

    Attributes:
        inputs: what the model takes: input_ids, attention_mask (N, T), pixels.
        mask: True on response tokens, end-of-turn included. Shape (N, T).
    """

    inputs: dict[str, Tensor]
    mask: Tensor

    def to(self, device: Any) -> ResponseBatch:
        """The same batch on another device."""
        return ResponseBatch({key: value.to(device) for key, value in self.inputs.items()}, self.mask.to(device))


class Collator:
    """Turns (sample, response) rows into a `ResponseBatch` with a model's own processor.

    Args:
        processor: from `load_processor`.
        folder: image folder.
        context: most tokens a row may have.
    """

    def __init__(self, processor: Any, folder: Path, context: int) -> None:
        self.processor = processor
        self.folder = folder
        self.context = context
        self.ends = end_tokens(processor)
        self._kept: OrderedDict[tuple[str, str], dict[str, Tensor]] = OrderedDict()
        self._kept_bytes = 0

    def prefix(self, image: str, prompt: str) -> dict[str, Tensor]:
        """Image and prompt up to where the response starts; per-token entries have shape (1, T)."""
        found = self._kept.get((image, prompt))
        if found is None:
            found = self._encode_prefix(image, prompt)
            self._keep((image, prompt), found)
        return found

    def _keep(self, key: tuple[str, str], prefix: dict[str, Tensor]) -> None:
        """Remember a preprocessed prefix while there is room; the oldest goes first."""
        self._kept[key] = prefix
        self._kept_bytes += _bytes(prefix)
        while self._kept_bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= _bytes(oldest)

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response and the end-of-turn token."""
        tokenizer = self.processor.tokenizer
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], self.ends[0]]

    def rows(self, rows: Sequence[tuple[Sample, str]]) -> ResponseBatch:
        """One row per (sample, response).

        Raises:
            DataError: a row is longer than the context; names the record, its length and the limit.
        """
        import torch

        prefixes = [self.prefix(sample.image, sample.prompt) for sample, _ in rows]
        responses = [torch.tensor([self.response_ids(text)]) for _, text in rows]
        for (sample, _), prefix, response in zip(rows, prefixes, responses, strict=True):
            self._check_length(sample.id, prefix["input_ids"].shape[1], response.shape[1])
        shared = _per_token(prefixes[0])
        inputs = {key: concatenate([prefix[key] for prefix in prefixes]) for key in prefixes[0].keys() - shared}
        for key in shared:
            joined = [
                torch.cat([prefix[key], _continue(key, response)], 1)
                for prefix, response in zip(prefixes, responses, strict=True)
            ]
            inputs[key] = _pad(joined, self.processor.tokenizer.pad_token_id if key == "input_ids" else 0)
        return ResponseBatch(inputs, _response_mask(prefixes, responses))

    def check_texts(self, samples: Iterable[Sample]) -> None:
        """Check every prompt and response against the context, counting an image as one token.

        A text that cannot fit must not end a run after hours.

        Raises:
            DataError: as for `rows`.
        """
        prompts: dict[str, int] = {}
        for sample in samples:
            if sample.prompt not in prompts:
                prompts[sample.prompt] = len(self.processor.tokenizer(self._text(sample.prompt))["input_ids"])
            longest = max(len(self.response_ids(text)) for text in (sample.chosen, *sample.rejected))
            self._check_length(sample.id, prompts[sample.prompt], longest)

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


def _per_token(prefix: dict[str, Tensor]) -> set[str]:
    shape = prefix["input_ids"].shape
    return {key for key, value in prefix.items() if value.shape == shape}


def _continue(key: str, response: Tensor) -> Tensor:
    """Entry `key` on the response's tokens: ids themselves, attention 1, any token type 0 (text)."""
    if key == "input_ids":
        return response
    return response.new_full(response.shape, 1 if key == "attention_mask" else 0)


def _pad(rows: list[Tensor], value: int) -> Tensor:
    """Pad rows of shape (1, t) on the right to (N, T)."""
    import torch

    longest = max(row.shape[1] for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[1]), value=value) for row in rows])


def _response_mask(prefixes: list[dict[str, Tensor]], responses: list[Tensor]) -> Tensor:
    import torch

    masks = [
        torch.cat([torch.zeros_like(prefix["input_ids"]), torch.ones_like(response)], 1)
        for prefix, response in zip(prefixes, responses, strict=True)
    ]
    return _pad(masks, 0).bool()


def concatenate(tensors: list[Tensor]) -> Tensor:
    """Stack pixels along the first dimension; images of fewer tiles are filled with zeros, which models skip."""
    import torch

    sizes = torch.tensor([tensor.shape[1:] for tensor in tensors]).amax(0).tolist()
    padded = []
    for tensor in tensors:
        margins = [size - have for size, have in zip(sizes, tensor.shape[1:], strict=True)]
        spec = [part for margin in reversed(margins) for part in (0, margin)]
        padded.append(torch.nn.functional.pad(tensor, spec) if any(margins) else tensor)
    return torch.cat(padded)


def left_padded(prefixes: list[dict[str, Tensor]], pad_token_id: int) -> dict[str, Tensor]:
    """Prefixes for batched generation: per-token entries padded on the left to (N, T)."""
    import torch

    longest = max(prefix["input_ids"].shape[1] for prefix in prefixes)
    inputs = {}
    for key in prefixes[0]:
        entries = [prefix[key] for prefix in prefixes]
        if key in _per_token(prefixes[0]):
            value = pad_token_id if key == "input_ids" else 0
            pad = torch.nn.functional.pad
            inputs[key] = torch.cat([pad(row, (longest - row.shape[1], 0), value=value) for row in entries])
        else:
            inputs[key] = concatenate(entries)
    return inputs
