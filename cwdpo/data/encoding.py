"""Samples encoded once, image and text, by a model's own processor; `layout.py` lays them out in rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from cwdpo.base.errors import DataError, ModelError
from cwdpo.data.content import Content, Picture, pictures
from cwdpo.data.images import open_image
from cwdpo.data.records import Turn
from cwdpo.data.samples import Sample
from cwdpo.data.views import WHOLE, View, blanked, masked, noised

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

KEPT_BYTES = 256 * 2**20  # of preprocessed images kept in memory by a rank; one of 1,000 tokens is about 19 MB


@dataclass(frozen=True)
class Group:
    """One image and prompt, encoded, with the responses that are scored under it.

    Attributes:
        prefix: what the processor made of image and prompt; per-token entries have shape (1, P).
        responses: tokens of each response, end-of-turn included.
        scored: which of these tokens are scored; None is all of them. In a dialogue the later questions are not.
    """

    prefix: dict[str, Tensor]
    responses: tuple[tuple[int, ...], ...]
    scored: tuple[tuple[bool, ...], ...] | None = None

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
        scored = [None if self.scored is None else (flags,) for flags in self.flags()]
        return [Group(self.prefix, (response,), flags) for response, flags in zip(self.responses, scored, strict=True)]

    def flags(self) -> tuple[tuple[bool, ...], ...]:
        """Whether each token of each response is scored."""
        return self.scored or tuple((True,) * len(response) for response in self.responses)


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
        self._kept: OrderedDict[tuple[str, str, View], dict[str, Tensor]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = Lock()

    @property
    def pad(self) -> int:
        """Token that fills up rows."""
        return int(self.processor.tokenizer.pad_token_id)

    def group(self, sample: Sample, responses: Sequence[str], view: View = WHOLE) -> Group:
        """A sample's image and prompt with some responses.

        Raises:
            DataError: a response does not fit into the context; names the record, its length and the limit.
        """
        return self.group_of_ids(sample, [self.response_ids(text) for text in responses], view)

    def group_of_ids(self, sample: Sample, responses: Sequence[Sequence[int]], view: View = WHOLE) -> Group:
        """The same with responses as tokens, of which they may lack the last, as they were generated."""
        group = Group(self.prefix(sample.image, sample.prompt, view), tuple(map(tuple, responses)))
        self._check_length(sample.id, group.prefix_length, max(map(len, group.responses)))
        return group

    def dialogue(self, sample: Sample, turns: Sequence[Turn]) -> Group:
        """A conversation of its own about a sample's image, in which only the answers are scored.

        Raises:
            DataError: as for `group`.
        """
        tokens, scored = self._replies(turns)
        group = Group(self.prefix(sample.image, turns[0][0]), (tokens,), (scored,))
        self._check_length(sample.id, group.prefix_length, len(tokens))
        return group

    def _replies(self, turns: Sequence[Turn]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Tokens of a conversation behind its first question, and which of them are of answers."""
        tokens: list[int] = []
        scored: list[bool] = []
        for number, (question, answer) in enumerate(turns):
            asked = self._next_question(question) if number else []
            answered = self.response_ids(answer)
            tokens += [*asked, *answered]
            scored += [*[False] * len(asked), *[True] * len(answered)]
        return tuple(tokens), tuple(scored)

    def prefix(self, image: str, prompt: str, view: View = WHOLE) -> dict[str, Tensor]:
        """Image and prompt up to where the response starts; per-token entries have shape (1, P)."""
        if view.blank:
            return blanked(self.prefix(image, prompt))
        key = (image, prompt, view)
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = self._encode_prefix(image, prompt, view)
            self._keep(key, found)
        return found

    def conversation(self, turns: Sequence[Content], answers: Sequence[str] = ()) -> dict[str, Tensor]:
        """Turns of the user with the answers between them, up to where the next one starts; else as `prefix`.

        Raises:
            ModelError: the model does not take so many images, or none.
        """
        images = [open_image(self.folder, path) for turn in turns for path in pictures(turn)]
        return self._encode(turns, answers, images)

    def _keep(self, key: tuple[str, str, View], prefix: dict[str, Tensor]) -> None:
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

    def check_texts(self, samples: Iterable[Sample], kinds: Collection[str]) -> None:
        """Check every prompt and response against the context, counting an image as one token.

        A text that cannot fit must not end a run after hours.

        Args:
            kinds: what is scored beside the chosen response: `rejected`, `revised`, `dialogue`.

        Raises:
            DataError: as for `group`.
        """
        tokens = lru_cache(1024)(self._tokens_of_prompt)
        for sample in samples:
            beside = {"rejected": sample.rejected, "revised": sample.revised}
            texts = [sample.chosen, *(text for kind in beside if kind in kinds for text in beside[kind])]
            longest = max(len(self.response_ids(text)) for text in texts)
            self._check_length(sample.id, tokens(sample.prompt), longest)
            for turns in sample.dialogues if "dialogue" in kinds else ():
                self._check_length(sample.id, tokens(turns[0][0]), len(self._replies(turns)[0]))

    def check_prompts(self, samples: Iterable[Sample], room: int) -> None:
        """Check that every prompt leaves room for so many tokens, counting an image as one.

        Raises:
            DataError: as for `group`.
        """
        tokens = lru_cache(1024)(self._tokens_of_prompt)
        for sample in samples:
            self._check_length(sample.id, tokens(sample.prompt), room)

    def fits(self, sample: Sample, responses: Sequence[str]) -> bool:
        """Whether a sample's image and prompt fit into the context with each of some responses."""
        prefix = self.prefix(sample.image, sample.prompt)["input_ids"].shape[1]
        return bool(prefix + max(len(self.response_ids(text)) for text in responses) <= self.context)

    def _tokens_of_prompt(self, prompt: str) -> int:
        """The image counted as one."""
        return len(self.processor.tokenizer(self._text(prompt))["input_ids"])

    def _text(self, prompt: str) -> str:
        """The chat template around one image and `prompt`, up to where the response starts."""
        return self._chat([(Picture(""), prompt)])

    def _chat(self, turns: Sequence[Content], answers: Sequence[str] = ()) -> str:
        """The chat template around a conversation, up to where the next answer starts."""
        messages = _messages(turns, answers)
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _next_question(self, question: str) -> list[int]:
        """Tokens from the end of an answer to where the answer to the next question starts."""
        said = "\u2063said\u2063"  # no text holds it, so it tells where the answer stands
        text = self._chat([("question",), (question,)], [said])
        if said not in text:
            raise ModelError("the chat template does not repeat earlier answers: dialogues cannot be trained on")
        after = text[text.index(said) + len(said) :]
        tokens: list[int] = self.processor.tokenizer(after, add_special_tokens=False)["input_ids"]
        return tokens[1:] if tokens[0] == self.ends[0] else tokens  # the end of the turn belongs to the answer

    def _check_length(self, name: str, prefix: int, response: int) -> None:
        if prefix + response > self.context:
            raise DataError(
                f"record '{name}': {prefix + response} tokens ({prefix} of image and prompt, {response} of response),"
                f" but the limit is {self.context} (the model's context, or the stage's optimization.max_length where"
                " that is lower): shorten the text, or lower model.max_pixels if the image takes most"
            )

    def _encode_prefix(self, image: str, prompt: str, view: View) -> dict[str, Tensor]:
        picture = open_image(self.folder, image)
        if view.masked:
            picture = masked(picture, view.masked, image)
        encoded = self._encode([(Picture(image), prompt)], (), [picture])
        if view.noise is not None:
            repeats = getattr(self.processor.image_processor, "temporal_patch_size", 1)
            return noised(encoded, view.noise, image, repeats)
        return encoded

    def _encode(
        self, turns: Sequence[Content], answers: Sequence[str], images: Sequence[Image.Image]
    ) -> dict[str, Tensor]:
        text = self._chat(turns, answers)
        self._check_marks(text, len(images))
        try:
            encoded = self._processed(text, images)
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if len(images) == 1:  # which every model takes
                raise
            reason = " ".join(str(error).split())
            raise ModelError(f"the model's processor does not take {_count(len(images))}: {reason}") from error
        if "image_grid_thw" in encoded and "mm_token_type_ids" not in encoded:
            raise ModelError("the processor gives no mm_token_type_ids: rotary positions of images would be wrong")
        return encoded

    def _processed(self, text: str, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        begin = self.processor.tokenizer.bos_token
        written = bool(begin) and text.startswith(begin)  # by the template: the tokenizer must not add another
        given = [list(images)] if images else None
        return dict(self.processor(text=[text], images=given, return_tensors="pt", add_special_tokens=not written))

    def _check_marks(self, text: str, images: int) -> None:
        """Compare marks of images; some templates write only the first, and a text may hold one by itself."""
        mark = getattr(self.processor, "image_token", None)
        found = text.count(mark) if mark else 0
        if found not in (0, images):  # 0: the template writes another mark, for which the processor looks itself
            raise ModelError(
                f"the chat template makes {found} '{mark}' of {_count(images)}: either it does not take so many, or the"
                " text holds that mark itself"
            )


def _messages(turns: Sequence[Content], answers: Sequence[str]) -> list[dict[str, Any]]:
    """A conversation as chat templates take it; every turn but the last has its answer."""
    asked = [{"role": "user", "content": list(map(_part, turn))} for turn in turns]
    said = [{"role": "assistant", "content": [_part(answer)]} for answer in answers]
    return [*chain.from_iterable(zip(asked[:-1], said, strict=True)), asked[-1]]


def _part(part: str | Picture) -> dict[str, str]:
    return {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": part}


def _count(images: int) -> str:
    return "a text without an image" if not images else f"{images} image{'s' if images > 1 else ''}"


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
