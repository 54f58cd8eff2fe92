"""Batched generation whose result depends on the items of a block alone, never on shards or ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwdpo.base import distributed
from cwdpo.base.context import StageContext
from cwdpo.base.identity import seed_from
from cwdpo.data.content import Content, Picture, joined, pictures
from cwdpo.data.encoding import Collator
from cwdpo.data.padding import left_padded, per_token
from cwdpo.model.branches import Prefix, can_branch, decode_branches
from cwdpo.model.decoding import Decoding
from cwdpo.model.inference import Replica
from cwdpo.model.trial import TOLERANCE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompted:
    """One item to answer.

    Attributes:
        content: the user's turn.
        later: further turns of the user; each is asked once the one before it is answered.
    """

    id: str
    content: Content
    later: tuple[Content, ...] = ()

    @staticmethod
    def about(name: str, image: str, prompt: str) -> Prompted:
        """One image (path in the image folder) and a prompt."""
        return Prompted(name, (Picture(image), prompt))

    @property
    def image(self) -> str:
        """Path of the first image, "" where there is none."""
        return next(iter(self.images), "")

    @property
    def prompt(self) -> str:
        """Text of the first turn."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> list[str]:
        """Paths of all images, in order."""
        return [path for turn in (self.content, *self.later) for path in pictures(turn)]


@dataclass(frozen=True)
class Answer:
    """What an item is answered.

    Attributes:
        texts: candidates of the first turn, best first.
        tokens: of the best one, and of the answers to later turns.
        truncated: whether one of these hit max_new_tokens.
        raw: the best one as it was generated, line breaks and all, without white space around it.
        later: answers to later turns, as they were generated.
        fault: why there is no answer, or none to a later turn; "" where all are there.
    """

    texts: tuple[str, ...]
    tokens: int
    truncated: bool
    raw: str = ""
    later: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Written:
    """One answer as it was generated.

    Attributes:
        tokens: with the token that ended it, if there was one.
        text: what they say, single blanks between words.
        truncated: whether it hit max_new_tokens.
        raw: what they say with line breaks and all, without white space around it.
    """

    tokens: tuple[int, ...]
    text: str
    truncated: bool
    raw: str


def generate(
    replica: Replica,
    collator: Collator,
    items: Sequence[Prompted],
    decoding: Decoding,
    seed: int,
    once: bool = True,
    prefixes: Sequence[Prefix] | None = None,
) -> list[Answer]:
    """Answers to the first turns of one block of items, in order.

    Args:
        once: an image and its prompt go through the model once, not once a candidate; see `goes_once`.
        prefixes: the items as the collator encodes them, where that was done before.
    """
    return [answer_of([own]) for own in write(replica, collator, items, decoding, seed, once, prefixes)]


def answer_of(turns: Sequence[Sequence[Written]], fault: str = "") -> Answer:
    """The answer to an item from the candidates of each of its turns."""
    best = [candidates[0] for candidates in turns]
    return Answer(
        tuple(one.text for one in turns[0]), sum(len(one.tokens) for one in best), any(one.truncated for one in best),
        best[0].raw, tuple(one.raw for one in best[1:]), fault,
    )  # fmt: skip


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
    prefixes = _alike(prefixes or [collator.conversation([item.content]) for item in items])
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


def _alike(prefixes: Sequence[Prefix]) -> Sequence[Prefix]:
    """Prefixes with the same entries: those without an image have no pixels, instead of no entry for them."""
    owners = {key: prefix for prefix in prefixes for key in prefix}
    return [{key: prefix[key] if key in prefix else _nothing(key, owners[key], prefix) for key in owners}
            for prefix in prefixes]  # fmt: skip


def _nothing(key: str, owner: Prefix, prefix: Prefix) -> Tensor:
    """What stands for an entry that only another prefix has."""
    import torch

    return torch.zeros_like(prefix["input_ids"]) if key in per_token(owner) else owner[key][:0]


def goes_once(
    context: StageContext, replica: Replica, collator: Collator, item: Prompted, dtype: str, alone: bool = False
) -> bool:
    """Whether the model gives the same candidates when image and prompt go through it once.

    Measured, not looked up: a few tokens are decoded both ways. The result is an event. Collective: every rank must
    call with the same item.

    Args:
        alone: every rank holds the whole model, so that one may run out of memory without leaving others waiting; then
            nothing is measured.
    """
    measure = _measured if alone else _difference
    difference = measure(replica, collator, item) if can_branch(replica.model) else None
    alike = difference is not None and difference <= TOLERANCE[dtype]
    once = bool(distributed.from_first_rank(alike, context.rank))
    context.event("generation", prefix=f"once per {'item' if once else 'candidate'}", difference_per_token=difference)
    return once


def _measured(replica: Replica, collator: Collator, item: Prompted) -> float | None:
    """The difference, None where there is too little memory to measure it."""
    try:
        return _difference(replica, collator, item)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    empty_cache()
    return None


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU or this machine has no more memory to give."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text


def empty_cache() -> None:
    """Give back what a failed pass has left; its error must be gone, which holds on to it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _difference(replica: Replica, collator: Collator, item: Prompted) -> float:
    """Largest difference between scores of beams both ways, nats per token."""
    import torch

    # Of two lengths, so that one is padded.
    contents = (item.content, joined([*item.content, f" {item.prompt}"]))
    prefixes = [collator.conversation([content]) for content in contents]
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
    raw = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    return Written(tokens, " ".join(raw.split()), stop is None, raw)
