"""How groups lie in the rows of one forward pass: a prefix shared by its responses, or a row for each response.

A shared row reads `[image + prompt | chosen | rejected 1 | ...]`. A response sees its own prefix and itself
(`ResponseBatch.attention`), and its positions go on where the prefix ends, so every log-probability is what a row of
its own would give. Short groups share a row, one after the other, where that saves one; else the responses of all rows
begin at the same place P, behind prefixes filled up to it, so that attention can treat the two parts apart.

Shapes: N rows, T tokens of the longest row, A axes of a position (3 for M-RoPE, else 1), R responses, K response tokens
of all of them, M positions that predict them, L tokens of the longest response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

from cwdpo.data.encoding import Group
from cwdpo.data.padding import concatenate, per_token

if TYPE_CHECKING:
    from torch import Tensor

Positions = Callable[[dict[str, "Tensor"]], "Tensor"]
"""Rotary positions of an encoded prefix. Shape (A, P)."""

NOTHING = -1
"""Group number of padding."""

WORTH_A_MASK = 0.8
"""Groups share rows where that takes less than this share of the tokens of a row each."""


@dataclass(frozen=True)
class Wanted:
    """Which token log-probabilities a forward pass is asked for.

    Attributes:
        positions: flat positions (row * T + t) whose hidden states predict a response token, ascending. Shape (M,).
        sources: which of them predicts each response token; the first tokens of all responses of a group are predicted
            by the last token of their prefix. Shape (K,).
        tokens: the response tokens. Shape (K,).
        slots: where each of them stands in an (R, L) table. Shape (K,).
        lengths: tokens of each response. Shape (R,).
        longest: L.
    """

    positions: Tensor
    sources: Tensor
    tokens: Tensor
    slots: Tensor
    lengths: Tensor
    longest: int

    def each(self, change: Callable[[Tensor], Tensor]) -> Wanted:
        """The same with every tensor changed."""
        positions, sources, tokens = change(self.positions), change(self.sources), change(self.tokens)
        return Wanted(positions, sources, tokens, change(self.slots), change(self.lengths), self.longest)

    def table(self, values: Tensor) -> Tensor:
        """Values of shape (K,) as a table (R, L), 0 beyond a response's end."""
        table = values.new_zeros(len(self.lengths) * self.longest)
        return table.index_copy(0, self.slots, values).view(len(self.lengths), self.longest)


@dataclass(frozen=True)
class ResponseBatch:
    """Rows of one forward pass.

    Attributes:
        inputs: what the model takes beside the attention mask: input_ids (N, T), pixels, and positions (N, T) or
            (A, N, T) where prefixes are shared.
        wanted: what is read from the result.
        groups: number of each token's group, `NOTHING` for padding. Shape (N, T).
        branches: 0 for a prefix, 1, 2, ... for the responses of a group; None where no prefix is shared. Shape (N, T).
        prefix: P where every row is a prefix of P tokens, some of them padding, and responses; 0 where it is not.
    """

    inputs: dict[str, Tensor]
    wanted: Wanted
    groups: Tensor
    branches: Tensor | None = None
    prefix: int = 0

    def to(self, device: Any) -> ResponseBatch:
        """The same batch on another device; from page-locked memory without waiting for the copy."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pinned(self) -> ResponseBatch:
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return self._each(lambda value: value.pin_memory())

    def attention(self) -> Tensor:
        """The attention mask: (N, T), or (N, 1, T - P, T) with True where a token behind P sees another."""
        if self.branches is None:
            return (self.groups != NOTHING).long()
        group, branch = self.groups, self.branches
        same = group[:, self.prefix :, None] == group[:, None, :]
        sees = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, self.prefix :, None])
        # Padding has a group of its own, so that no row of the mask is empty: its softmax would be NaN.
        return (same & sees).tril(self.prefix).unsqueeze(1)

    def _each(self, change: Callable[[Tensor], Tensor]) -> ResponseBatch:
        return ResponseBatch(
            {key: change(value) for key, value in self.inputs.items()},
            self.wanted.each(change),
            change(self.groups),
            None if self.branches is None else change(self.branches),
            self.prefix,
        )


def separate_rows(groups: Sequence[Group], pad: int, positions: Positions | None = None) -> ResponseBatch:
    """One row per response, `[image + prompt | response]`, padded on the right with token `pad`.

    Without `positions` the model counts them itself, which on a GPU may make the host wait.
    """
    batch = _lay_out([[single] for group in groups for single in group.alone()], pad, positions, 0)
    return replace(batch, branches=None)


def shared_rows(
    groups: Sequence[Group], pad: int, positions: Positions, apart: bool = False, width: int = 0
) -> ResponseBatch:
    """One prefix per group, and as many groups in a row as `width` tokens (at least the longest group) have room for.

    The responses of the batch are numbered group by group in the order of `groups`.

    Args:
        apart: the attention of the model can treat prefixes and responses apart.
    """
    packed = pack([group.length for group in groups], width)
    longest = max(width, *(group.length for group in groups))
    # A row of several groups needs a mask over all of it, which is worth it only where much padding goes.
    if apart and not width and len(packed) * longest > WORTH_A_MASK * apart_tokens(groups):
        packed = [[number] for number in range(len(groups))]
    apart = apart and len(packed) == len(groups)
    prefix = max(group.prefix_length for group in groups) if apart else 0
    batch = _lay_out([[groups[number] for number in row] for row in packed], pad, positions, prefix)
    return replace(batch, wanted=_renumbered(batch.wanted, groups, [number for row in packed for number in row]))


def apart_tokens(groups: Sequence[Group]) -> int:
    """Tokens, padding included, of one row per group with responses that all begin at the same place."""
    longest = max(group.length - group.prefix_length for group in groups)
    return len(groups) * (max(group.prefix_length for group in groups) + longest)


def separate_tokens(groups: Sequence[Group]) -> int:
    """Tokens, padding included, of one row per response."""
    rows = sum(len(group.responses) for group in groups)
    return rows * max(group.prefix_length + max(map(len, group.responses)) for group in groups)


def pack(lengths: Sequence[int], width: int = 0) -> list[list[int]]:
    """Rows of item numbers, none longer than `width` or the longest item: first fit, the longest item first."""
    width = max(width, *lengths)
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        row = next((row for row, left in enumerate(room) if left >= lengths[number]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(number)
        room[row] -= lengths[number]
    return rows


def _lay_out(rows: Sequence[Sequence[Group]], pad: int, positions: Positions | None, prefix: int) -> ResponseBatch:
    """Rows of groups as tensors.

    Prefixes are filled up to `prefix` tokens.
    """
    groups = [group for row in rows for group in row]
    inputs = _pixels(groups)
    for key in per_token(groups[0].prefix) - {"attention_mask"}:
        filling = pad if key == "input_ids" else 0
        inputs[key] = _joined(rows, partial(_entry, key), prefix, filling)[0]
    if positions is not None:
        ids = _joined(rows, lambda group: _group_positions(group, positions), prefix, 0)
        inputs["position_ids"] = ids[0] if len(ids) == 1 else ids
    numbers = iter(range(len(groups)))
    owners = _joined(rows, lambda group: _constant(group, next(numbers)), prefix, NOTHING)[0]
    branches = _joined(rows, _branches, prefix, 0)[0]
    return ResponseBatch(inputs, _wanted(rows, owners.shape[1], prefix), owners, branches, prefix)


Pieces = list["Tensor"]
"""Something of each token of a group: of its prefix and of each of its responses. Shapes (A, t)."""


def _joined(rows: Sequence[Sequence[Group]], pieces: Callable[[Group], Pieces], prefix: int, filling: int) -> Tensor:
    """Pieces of all rows, prefixes filled up to `prefix` tokens and rows to the longest. Shape (A, N, T)."""
    import torch

    joined = []
    for row in rows:
        parts = []
        for group in row:
            first, *rest = pieces(group)
            parts += [_filled(first, prefix, filling), *rest]
        joined.append(torch.cat(parts, 1))
    longest = max(row.shape[1] for row in joined)
    return torch.stack([_filled(row, longest, filling) for row in joined], 1)


def _filled(piece: Tensor, length: int, filling: int) -> Tensor:
    """Filled up on the right to (A, at least `length`)."""
    import torch

    return torch.nn.functional.pad(piece, (0, max(0, length - piece.shape[1])), value=filling)


def _entry(key: str, group: Group) -> Pieces:
    """Entry `key` of the model's inputs: responses are their own ids, or of type 0, which is text."""
    import torch

    ids = [torch.tensor([response], dtype=group.prefix[key].dtype) for response in group.responses]
    return [group.prefix[key], *(ids if key == "input_ids" else map(torch.zeros_like, ids))]


def _constant(group: Group, number: int) -> Pieces:
    import torch

    return [torch.full((1, length), number) for length in (group.prefix_length, *map(len, group.responses))]


def _branches(group: Group) -> Pieces:
    """0 on the prefix, 1, 2, ... on the responses."""
    import torch

    lengths = [group.prefix_length, *map(len, group.responses)]
    return [torch.full((1, length), branch) for branch, length in enumerate(lengths)]


def _group_positions(group: Group, positions: Positions) -> Pieces:
    """Positions of the prefix, then of each response, all of which go on where the prefix ends."""
    import torch

    prefix = positions(group.prefix)
    after = prefix.max() + 1
    return [prefix, *((after + torch.arange(len(response))).expand(len(prefix), -1) for response in group.responses)]


def _wanted(rows: Sequence[Sequence[Group]], width: int, prefix: int) -> Wanted:
    """Sources and targets of all responses, row by row."""
    import torch

    sources: list[int] = []
    tokens: list[int] = []
    for number, row in enumerate(rows):
        start = number * width
        for group in row:
            last = start + group.prefix_length - 1
            at = start + max(group.prefix_length, prefix)
            for response, flags in zip(group.responses, group.flags(), strict=True):
                sources += compress([last, *range(at, at + len(response) - 1)], flags)
                tokens += compress(response, flags)
                at += len(response)
            start = at
    slots, lengths, longest = _slots([sum(flags) for row in rows for group in row for flags in group.flags()])
    positions = torch.tensor(sorted(set(sources)))
    return Wanted(positions, torch.tensor(sources), torch.tensor(tokens), slots, lengths, longest)


def _slots(lengths: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """Slots of the tokens of responses one after the other, the lengths, and L."""
    import torch

    longest = max(lengths)
    slots = [number * longest + place for number, length in enumerate(lengths) for place in range(length)]
    return torch.tensor(slots), torch.tensor(lengths), longest


def _renumbered(wanted: Wanted, groups: Sequence[Group], order: Sequence[int]) -> Wanted:
    """Slots and lengths of responses numbered as `groups` are, the tokens lying in the order `order` of groups."""
    import torch

    lengths = [sum(flags) for group in groups for flags in group.flags()]
    slots, all_lengths, longest = _slots(lengths)
    sizes = [sum(map(sum, group.flags())) for group in groups]
    pieces = slots.split(sizes)
    return replace(wanted, slots=torch.cat([pieces[number] for number in order]), lengths=all_lengths, longest=longest)


def _pixels(groups: Sequence[Group]) -> dict[str, Tensor]:
    """Entries that are not per token, in the order in which image tokens come in the rows."""
    keys = groups[0].prefix.keys() - per_token(groups[0].prefix)
    return {key: concatenate([group.prefix[key] for group in groups]) for key in keys}
