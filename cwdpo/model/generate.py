"""Batched generation whose result depends on the items of a block alone, never on shards or ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.identity import seed_from
from cwdpo.data.encoding import Collator
from cwdpo.data.padding import left_padded
from cwdpo.model.branches import Prefix, can_branch, decode_branches
from cwdpo.model.decoding import Decoding
from cwdpo.model.inference import Replica
from cwdpo.model.trial import TOLERANCE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prompted:
    """One item to answer: an image (path in the image folder) and a prompt."""

    id: str
    image: str
    prompt: str


@dataclass(frozen=True)
class Answer:
    """Candidates for one item, best first; `truncated` says that the best one hit max_new_tokens."""

    texts: tuple[str, ...]
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Written:
    """One answer as it was generated.

    Attributes:
        tokens: with the token that ended it, if there was one.
        text: what they say, single blanks between words.
        truncated: whether it hit max_new_tokens.
    """

    tokens: tuple[int, ...]
    text: str
    truncated: bool


def generate(
    replica: Replica,
    collator: Collator,
    items: Sequence[Prompted],
    decoding: Decoding,
    seed: int,
    once: bool = True,
    prefixes: Sequence[Prefix] | None = None,
) -> list[Answer]:
    """Answers to one block of items, in order.

    Args:
        once: an image and its prompt go through the model once, not once a candidate; see `goes_once`.
        prefixes: the items as the collator encodes them, where that was done before.
    """
    written = write(replica, collator, items, decoding, seed, once, prefixes)
    return [
        Answer(tuple(one.text for one in candidates), len(candidates[0].tokens), candidates[0].truncated)
        for candidates in written
    ]


def write(
    replica: Replica,
    collator: Collator,
    items: Sequence[Prompted],
    decoding: Decoding,
    seed: int,
    once: bool = True,
    prefixes: Sequence[Prefix] | None = None,
    never: Sequence[int] = (),
) -> list[list[Written]]:
    """`generate` token by token: all candidates of each item, best first.

    Args:
        never: tokens that are not sampled.
    """
    import torch

    draws = decoding.candidates if decoding.strategy == "sample" else 1  # rows of one item, each drawing for itself
    prefixes = prefixes or [collator.prefix(item.image, item.prompt) for item in items]
    names = [name for item in items for name in (item.id, *(f"{item.id}#{draw}" for draw in range(1, draws)))]
    options = _options(replica, decoding, names, seed, collator.ends)
    if never:
        options["suppress_tokens"] = list(never)
    # With one candidate there is nothing to share, and under ZeRO-3 another call gathers all weights again.
    wasted = replica.lockstep and draws * options["num_beams"] == 1
    with torch.no_grad():
        run = decode_branches if once and not wasted else _decode_plainly
        output = run(replica, prefixes, draws, options)
    start = max(prefix["input_ids"].shape[1] for prefix in prefixes)
    answers = output[:, start:].reshape(len(items), decoding.candidates, -1).tolist()
    return [[_written(replica.processor.tokenizer, row, collator.ends) for row in rows] for rows in answers]


def goes_once(context: StageContext, replica: Replica, collator: Collator, item: Prompted, dtype: str) -> bool:
    """Whether the model gives the same candidates when image and prompt go through it once.

    Measured, not looked up: a few tokens are decoded both ways. The result is an event. Collective: every rank must
    call with the same item.
    """
    difference = _difference(replica, collator, item) if can_branch(replica.model) else None
    alike = difference is not None and difference <= TOLERANCE[dtype]
    once = bool(distributed.from_first_rank(alike, context.rank))
    context.event("generation", prefix=f"once per {'item' if once else 'candidate'}", difference_per_token=difference)
    return once


def _difference(replica: Replica, collator: Collator, item: Prompted) -> float:
    """Largest difference between scores of beams both ways, nats per token."""
    import torch

    prompts = (item.prompt, f"{item.prompt} {item.prompt}")  # of two lengths, so that one is padded
    prefixes = [collator.prefix(item.image, prompt) for prompt in prompts]
    beams = Decoding(strategy="beam", beams=2, candidates=2, max_new_tokens=4)
    options = _options(replica, beams, [], 0, collator.ends)
    options |= {"return_dict_in_generate": True, "output_scores": True}
    with torch.no_grad():
        found, expected = (
            run(replica, prefixes, 1, options).sequences_scores for run in (decode_branches, _decode_plainly)
        )
    difference = float((found - expected).abs().max())
    return difference if difference == difference else float("inf")  # NaN agrees with nothing


def _decode_plainly(replica: Replica, prefixes: Sequence[Prefix], draws: int, options: dict[str, Any]) -> Any:
    """As `decode_branches`, image and prompt going through the model with every row."""
    inputs = left_padded([prefix for prefix in prefixes for _ in range(draws)], options["pad_token_id"])
    return replica.model.generate(**{key: value.to(replica.device) for key, value in inputs.items()}, **options)


def _options(replica: Replica, decoding: Decoding, names: list[str], seed: int, ends: Sequence[int]) -> dict[str, Any]:
    tokenizer = replica.processor.tokenizer
    options: dict[str, Any] = {
        "max_new_tokens": decoding.max_new_tokens,
        "do_sample": False,
        "num_beams": decoding.beams if decoding.strategy == "beam" else 1,
        "num_return_sequences": decoding.candidates if decoding.strategy == "beam" else 1,
        "eos_token_id": list(ends),
        "pad_token_id": tokenizer.pad_token_id,
        "synced_gpus": replica.lockstep,
        # The checkpoint's own sampling settings must not leak into a run that did not ask for them.
        "temperature": None, "top_p": None, "top_k": None, "repetition_penalty": 1.0,
    }  # fmt: skip
    if decoding.strategy == "sample":
        options["logits_processor"] = [GumbelNoise(decoding, names, seed, replica.device)]
    return options


def how_decoded(replica: Replica, dtype: str, decoding: Decoding) -> dict[str, Any]:
    """Everything beside the weights and the prompt that shapes an answer."""
    import torch
    import transformers

    images = replica.processor.image_processor
    return {
        "decoding": decoding.model_dump(mode="json"),
        "dtype": dtype,
        "image_processor": type(images).__name__,
        "image_size": {key: value for key, value in dict(images.size).items() if value is not None},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


class GumbelNoise:
    """Sampling as arg-max: logits / temperature, cut to top-p, plus Gumbel noise from one generator per row.

    Draws the same tokens as multinomial sampling in distribution, and for one name always the same ones, whatever else
    is in the batch. The noise is drawn on the device of the logits: a CPU draws other numbers than a GPU.
    """

    def __init__(self, decoding: Decoding, names: Sequence[str], seed: int, device: Any) -> None:
        import torch

        self._decoding = decoding
        self._generators = [torch.Generator(device).manual_seed(seed_from("sample", seed, name)) for name in names]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Noisy scores. Shapes: (N, T), (N, V) -> (N, V)."""
        import torch

        logits = _top_p(scores.float() / self._decoding.temperature, self._decoding.top_p)
        uniform = torch.stack([_uniform(logits.shape[1], generator) for generator in self._generators])
        exponential = -uniform.clamp_min(1e-20).log()  # above 0, because uniform is below 1
        return logits - exponential.log()


def _uniform(count: int, generator: Any) -> Tensor:
    import torch

    return torch.rand(count, generator=generator, device=generator.device)


def _top_p(logits: Tensor, top_p: float) -> Tensor:
    """Set logits outside the smallest set of probability `top_p` to minus infinity. Shape (N, V)."""
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits.masked_fill((before >= top_p).scatter(1, order, before >= top_p), float("-inf"))


def _written(tokenizer: Any, row: Sequence[int], ends: Sequence[int]) -> Written:
    """One candidate; what follows its end is padding."""
    stop = next((place for place, token in enumerate(row) if token in ends), None)
    tokens = tuple(row if stop is None else row[: stop + 1])
    return Written(tokens, " ".join(tokenizer.decode(tokens, skip_special_tokens=True).split()), stop is None)
