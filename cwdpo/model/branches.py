"""One pass over an item's image and prompt, however many candidates are decoded from it.

transformers repeats every row for each beam before the model sees it, so that image and prompt would be computed as
often. Here they go through the model once, in passes of similar lengths; what the layers keep of them (keys and values)
is copied for every candidate, and transformers' own decoding goes on from there, from the last token of the prompt.

Shapes: N items, R rows (candidates of all items), P tokens of a prefix but its last, T tokens in a layer, H heads,
D numbers a head, A axes of a position (3 for M-RoPE).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cwdpo.data.padding import left_padded
from cwdpo.model.inference import Replica
from cwdpo.model.positions import prefix_positions

if TYPE_CHECKING:
    from torch import Tensor

PASS_TOKENS = 2048  # of a pass, padding included: enough to keep a GPU busy, so few that its rows are of similar length

Prefix = dict[str, "Tensor"]
"""What the collator made of an image and a prompt; per-token entries have shape (1, P + 1)."""


class Branches:
    """What one layer keeps: the prefixes, and room for what every row adds. Mixed into transformers' `DynamicLayer`.

    Nothing is copied to make room for a token, and beams, which change places within an item only and therefore share
    a prefix, swap nothing but what they added.

    Args:
        like: a layer after a pass, for the sizes.
        rows: R.
        prefix: longest P; shorter prefixes end where it ends.
        room: tokens that every row may add.
    """

    def __init__(self, like: Any, rows: int, prefix: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True
        self._prefix = prefix
        # Zeros, not nothing: attention weighs padding with 0, and 0 times NaN is NaN.
        self._whole = [
            part.new_zeros(rows, part.shape[1], prefix + room, part.shape[3]) for part in (like.keys, like.values)
        ]
        self._show(prefix)

    def put(self, layer: Any, rows: Tensor) -> None:
        """Prefixes of some items, the last token of which is left out: one of (n, H, P + 1, D) for several `rows`."""
        for whole, part in zip(self._whole, (layer.keys, layer.values), strict=True):
            part = part[:, :, :-1].repeat_interleave(len(rows) // len(part), 0)
            whole[:, :, self._prefix - part.shape[2] : self._prefix].index_copy_(0, rows, part)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add tokens (R, H, t, D) to every row; returns all keys and values (R, H, T, D)."""
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        for whole, states in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row r goes on from what row `beam_idx[r]`, of the same item, added. Shape (R,)."""
        for part in (self.keys, self.values):
            added = part[:, :, self._prefix :]
            added.copy_(added.index_select(0, beam_idx.to(added.device)))

    def _show(self, length: int) -> None:
        self.keys, self.values = (whole[:, :, :length] for whole in self._whole)


def can_branch(model: Any) -> bool:
    """True when every layer keeps the keys and values of all tokens, and nothing else."""
    from transformers.cache_utils import DynamicLayer

    if model.config.is_encoder_decoder:
        return False
    return all(type(layer) is DynamicLayer for layer in _empty_cache(model).layers)


def decode_branches(replica: Replica, prefixes: Sequence[Prefix], draws: int, options: dict[str, Any]) -> Any:
    """What transformers' `generate(**options)` returns for every prefix `draws` times, prefixes padded on the left.

    Args:
        draws: rows of one item; beams of a row come on top.
        options: of `generate`; num_beams, max_new_tokens and pad_token_id must be among them.
    """
    cache = _prefilled(replica, prefixes, draws, options)
    ids = [{key: prefix[key] for key in ("input_ids", "attention_mask")} for prefix in prefixes]
    inputs = left_padded(ids, options["pad_token_id"]) | _last_positions(replica.model, prefixes)
    rows = {key: value.repeat_interleave(draws, value.dim() - 2).to(replica.device) for key, value in inputs.items()}
    return replica.model.generate(**rows, past_key_values=cache, **options)


def _prefilled(replica: Replica, prefixes: Sequence[Prefix], draws: int, options: dict[str, Any]) -> Any:
    """A cache of all prefixes but their last tokens, for every row."""
    import torch
    from transformers.cache_utils import Cache

    lengths, copies = _lengths(prefixes), draws * options["num_beams"]
    sizes = (len(prefixes) * copies, max(lengths) - 1, options["max_new_tokens"])
    layers: list[Any] = []
    # In lock-step one pass: ranks have blocks of different sizes, but must make equally many.
    for items in [range(len(lengths))] if replica.lockstep else _passes(lengths):
        found = _one_pass(replica, [prefixes[item] for item in items], options).layers
        layers = layers or [_layer_kind()(layer, *sizes) for layer in found]
        rows = torch.tensor([item * copies + copy for item in items for copy in range(copies)], device=replica.device)
        for layer, part in zip(layers, found, strict=True):
            layer.put(part, rows)
    return Cache(layers=layers)


def _passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Item numbers pass by pass, the shortest items first."""
    chunk: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda item: lengths[item]):
        if chunk and (len(chunk) + 1) * lengths[item] > PASS_TOKENS:
            yield chunk
            chunk = []
        chunk.append(item)
    yield chunk


def _one_pass(replica: Replica, prefixes: Sequence[Prefix], options: dict[str, Any]) -> Any:
    """The cache after some prefixes."""
    inputs = left_padded(list(prefixes), options["pad_token_id"])
    inputs = {key: value.to(replica.device) for key, value in inputs.items()}
    cache = _empty_cache(replica.model)
    # Asked for one token, transformers makes one pass, with positions and masks as always; the token is not needed.
    once = {"max_new_tokens": 1, "num_beams": 1, "num_return_sequences": 1, "logits_processor": None}
    replica.model.generate(**inputs, past_key_values=cache, **{**options, **once})
    return cache


def _lengths(prefixes: Sequence[Prefix]) -> list[int]:
    return [prefix["input_ids"].shape[1] for prefix in prefixes]


def _empty_cache(model: Any) -> Any:
    from transformers.cache_utils import DynamicCache

    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _layer_kind() -> Any:
    from transformers.cache_utils import DynamicLayer

    return type("BranchLayer", (Branches, DynamicLayer), {})


def _last_positions(model: Any, prefixes: Sequence[Prefix]) -> Prefix:
    """Positions (A, N, 1) of the last tokens where they have several axes, which no attention mask tells."""
    import torch

    positions = prefix_positions(model)
    last = torch.stack([positions(prefix)[:, -1:] for prefix in prefixes], 1)
    return {"position_ids": last} if len(last) > 1 else {}
