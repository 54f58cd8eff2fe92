"""Samples become tensors: one row per response, `[image + prompt | response + end-of-turn]`, padded on the right.

Shapes: N rows, T tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import DataError
from cwdpo.data.images import open_image
from cwdpo.data.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES_KEPT = 512  # preprocessed prefixes kept in memory; a 1,000-token image is about 5 MB


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
        self._prefix = lru_cache(maxsize=PREFIXES_KEPT)(self._encode_prefix)

    def prefix(self, image: str, prompt: str) -> dict[str, Tensor]:
        """Image and prompt up to where the response starts; per-token entries have shape (1, T)."""
        return self._prefix(image, prompt)

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response and the end-of-turn token."""
        tokenizer = self.processor.tokenizer
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

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
                f" but the context is {self.context}; lower model.max_pixels, shorten the text or raise max_length"
            )

    def _encode_prefix(self, image: str, prompt: str) -> dict[str, Tensor]:
        text = self._text(prompt)
        picture = open_image(self.folder, image)
        begin = self.processor.tokenizer.bos_token
        written = bool(begin) and text.startswith(begin)  # by the template: the tokenizer must not add another
        encoded = self.processor(text=[text], images=[[picture]], return_tensors="pt", add_special_tokens=not written)
        return dict(encoded)


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
