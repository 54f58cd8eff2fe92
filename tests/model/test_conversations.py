"""Several images or none, anywhere in a conversation: every family encodes them as its own processor does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch
from PIL import Image

from cwdpo.base.errors import ModelError
from cwdpo.data.content import Content, Picture
from cwdpo.data.encoding import Collator
from cwdpo.model import branches
from cwdpo.model.config import Lora, Policy
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted, generate, write
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy

SIZES = {"square.png": (64, 64), "wide.png": (32, 64), "small.png": (32, 32), "large.png": (160, 96)}
TEXTS = ["a small red circle at the top left", "three large blue squares", "User: Assistant:", "Which is it?"] * 10
SQUARE, WIDE, SMALL, LARGE = (Picture(name) for name in SIZES)
POLICY = Policy(dtype="float32")
TALKS: dict[str, tuple[Sequence[Content], Sequence[str]]] = {
    "one image": ([(SQUARE, "Which is it?")], ()),
    "no image": ([("Which is it?",)], ()),
    "image behind text": ([("Which is", SQUARE)], ()),
    "two images": ([(SQUARE, "or", WIDE, "?")], ()),
    "the same twice": ([(WIDE, "or", WIDE, "?")], ()),
    "three turns": ([(SQUARE, "Which?"), ("Large?",), ("or", WIDE, "?")], ("a red circle", "a small\n\nblue one")),
    "an empty answer": ([(SQUARE, "Which?"), ("Large?",)], ("",)),
    "an image later": ([("Look:",), (WIDE, "?")], ("three",)),
}
ITEMS = [
    Prompted("two", ("Is ", SQUARE, " like ", WIDE, "?")),
    Prompted("swapped", ("Is ", WIDE, " like ", SQUARE, "?")),
    Prompted("one", (SMALL, "Which is it?")),
    Prompted("three", (SMALL, WIDE, SQUARE, "Which?")),
]
NO_IMAGE = Prompted("none", ("Which is it?",))
DECODINGS = {
    "greedy": Decoding(max_new_tokens=8),
    "beam": Decoding(strategy="beam", beams=3, candidates=2, max_new_tokens=8),
    "sample": Decoding(strategy="sample", candidates=2, temperature=1.3, max_new_tokens=8),
}


@dataclass(frozen=True)
class Setting:
    replica: Any
    collator: Collator
    folder: Path

    def generate(self, items: Sequence[Prompted], kind: str = "greedy", once: bool = True) -> Any:
        return generate(self.replica, self.collator, items, DECODINGS[kind], seed=3, once=once)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, (height, width) in SIZES.items():
        pixels = (torch.rand(height, width, 3, generator=generator) * 255).byte()
        Image.fromarray(pixels.numpy()).save(folder / name)
    return folder


def build(name: str, folder: Path, images: Path) -> Setting:
    """A model with an adapter that matters."""
    families.BUILDERS[name](folder, TEXTS, 1)
    model = trainable_policy(load_model(POLICY, folder), Lora(rank=2, alpha=4), None, seed=0).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2)
    processor = load_policy_processor(POLICY, folder)
    if name == "qwen":  # images of different numbers of tokens
        processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": 64 * 64}
    replica = SimpleNamespace(model=model, processor=processor, device="cpu", lockstep=False)
    return Setting(replica, Collator(processor, images, 256), folder)


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, images: Path) -> Setting:
    return build(request.param, tmp_path_factory.mktemp(request.param) / "model", images)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Setting:
    return build("qwen", tmp_path_factory.mktemp("qwen") / "model", images)


def as_processor_does(collator: Collator, turns: Sequence[Content], answers: Sequence[str]) -> dict[str, Any]:
    """The processor's own way from a conversation to tokens, images among the messages."""
    messages = []
    for number, turn in enumerate(turns):
        content = [
            {"type": "image", "image": Image.open(collator.folder / part.path)}
            if isinstance(part, Picture)
            else {"type": "text", "text": part}
            for part in turn
        ]
        messages.append({"role": "user", "content": content})
        messages += [
            {"role": "assistant", "content": [{"type": "text", "text": text}]} for text in answers[number : number + 1]
        ]
    return dict(
        collator.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    )


# ---------------------------------------------------------------------------------------------------------------------
# Encoding


@pytest.mark.parametrize("kind", sorted(TALKS))
def test_a_conversation_is_encoded_as_the_processor_itself_does(setting: Setting, kind: str) -> None:
    """One beginning-of-text token, pixels in the order of the images, and nothing else."""
    found = setting.collator.conversation(*TALKS[kind])
    expected = as_processor_does(setting.collator, *TALKS[kind])
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_a_prefix_is_the_conversation_of_one_image_and_a_prompt(setting: Setting) -> None:
    prefix = setting.collator.prefix("wide.png", "Which is it?")
    talk = setting.collator.conversation([(WIDE, "Which is it?")])
    assert set(prefix) == set(talk)
    assert all(torch.equal(prefix[key], talk[key]) for key in talk)


def test_earlier_turns_and_answers_stand_in_order(setting: Setting) -> None:
    turns = [(SQUARE, "first question"), ("second question",)]
    ids = setting.collator.conversation(turns, ["first answer"])["input_ids"][0]
    text = setting.collator.processor.tokenizer.decode(ids)
    places = [text.index(part) for part in ("first question", "first answer", "second question")]
    assert places == sorted(places)


def test_every_turn_but_the_last_needs_its_answer(setting: Setting) -> None:
    with pytest.raises(ValueError, match="shorter"):
        setting.collator.conversation([(SQUARE, "Which?"), ("Large?",)])


def test_each_image_of_several_keeps_within_the_pixel_limits(qwen: Setting, images: Path) -> None:
    """A token is 2 x 2 patches of 8 x 8 pixels. Each image alone has as many tokens as beside others."""
    for most in (32 * 32, 64 * 64, 96 * 96):
        policy = Policy(dtype="float32", min_pixels=256, max_pixels=most)
        processor = load_policy_processor(policy, qwen.folder)
        limited = Collator(processor, images, 1024)
        grid = limited.conversation([(LARGE, "or", SQUARE, "or", SMALL, "or", LARGE, "?")])["image_grid_thw"]
        tokens = (grid.prod(1) // 4).tolist()
        assert max(tokens) <= most // 256
        assert tokens[0] == tokens[3]
        alone = [int(limited.prefix(name, "?")["image_grid_thw"].prod() // 4) for name in ("large.png", "square.png")]
        assert tokens[:2] == alone
        assert max(tokens) > most // 256 // 2, "and the limit is what holds"


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be encoded


def refusing(collator: Collator, processor: Any) -> Collator:
    return Collator(processor, collator.folder, collator.context)


class Refusing:
    """A processor that takes one image, no more and no less, as that of Llama 3.2 Vision did without an image."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Any = None, **others: Any) -> Any:
        if images is None or len(images[0]) != 1:
            raise ValueError("expected one\nimage")
        return self._processor(images=images, **others)


@pytest.mark.parametrize(
    ("content", "named"), [((SQUARE, WIDE, "?"), "2 images"), (("Which?",), "a text without an image")]
)
def test_a_processor_that_takes_one_image_is_refused_by_what_it_was_given(
    setting: Setting, content: Content, named: str
) -> None:
    collator = refusing(setting.collator, Refusing(setting.collator.processor))
    assert "pixel_values" in collator.conversation([(SQUARE, "Which?")])
    with pytest.raises(ModelError, match=rf"processor does not take {named}: expected one image"):
        collator.conversation([content])


def test_a_fault_of_one_image_keeps_its_traceback(qwen: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model takes one image: what fails then is a bug, which is not dressed up."""
    collator = refusing(qwen.collator, Refusing(qwen.collator.processor))
    monkeypatch.setattr(Refusing, "__call__", lambda *_, **__: (_ for _ in ()).throw(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        collator.conversation([(SQUARE, "Which?")])


def test_a_template_that_writes_only_the_first_image_is_refused(qwen: Setting) -> None:
    """Or the model would silently see fewer images than it is asked about."""
    mark = "<|vision_start|><|image_pad|><|vision_end|>"

    class OneImage(Refusing):
        def apply_chat_template(self, messages: Any, **options: Any) -> str:
            first, *rest = self._processor.apply_chat_template(messages, **options).split(mark)
            return first + mark + "".join(rest)

    collator = refusing(qwen.collator, OneImage(qwen.collator.processor))
    with pytest.raises(ModelError, match=r"makes 1 '<\|image_pad\|>' of 2 images"):
        collator.conversation([(SQUARE, WIDE, "?")])


def test_a_text_that_holds_the_mark_of_an_image_is_refused(setting: Setting) -> None:
    mark = setting.collator.processor.image_token
    with pytest.raises(ModelError, match="the text holds that mark itself"):
        setting.collator.conversation([(SQUARE, f"What does {mark} mean?")])


# ---------------------------------------------------------------------------------------------------------------------
# Answering


@pytest.mark.parametrize("kind", sorted(DECODINGS))
def test_several_images_are_answered_the_same_in_any_batch_and_either_way(setting: Setting, kind: str) -> None:
    """Padded or alone; through the model once or once a candidate, where images must stay with their row."""
    together = setting.generate(ITEMS, kind)
    assert together == [setting.generate([item], kind)[0] for item in ITEMS]
    assert together == setting.generate(ITEMS, kind, once=False)
    assert len({answer.texts for answer in together}) > 1, "the fixtures can tell items apart"


def test_the_order_of_images_matters(setting: Setting) -> None:
    """LLaVA's template puts images before the text, so that order is all that tells the first two items apart."""
    model, collator = setting.replica.model, setting.collator
    with torch.no_grad():
        found, swapped = (model(**collator.conversation([item.content])).logits[0, -1] for item in ITEMS[:2])
    assert float((found - swapped).abs().max()) > 1e-3


def test_items_with_and_without_images_go_in_one_batch(setting: Setting) -> None:
    """What ranks in lock-step need; those without an image have no pixels in it."""
    items = [NO_IMAGE, ITEMS[0], ITEMS[2]]
    for once in (True, False):
        assert setting.generate(items, once=once) == [setting.generate([item])[0] for item in items]


def test_a_text_alone_needs_no_pixels(setting: Setting) -> None:
    (answer,) = setting.generate([NO_IMAGE])
    prefix = setting.collator.conversation([NO_IMAGE.content])
    assert not any("pixel" in key or "grid" in key for key in prefix)
    plain = setting.replica.model.generate(**prefix, max_new_tokens=8, do_sample=False)
    text = setting.collator.processor.tokenizer.decode(plain[0, prefix["input_ids"].shape[1] :], True)
    assert answer.texts[0] == " ".join(text.split())


@pytest.mark.parametrize("pass_tokens", [1, 2048])
def test_positions_of_several_images_are_the_models_own(
    qwen: Setting, pass_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam scores of a prefix computed once are those of transformers' own passes."""
    monkeypatch.setattr(branches, "PASS_TOKENS", pass_tokens)
    assert qwen.generate(ITEMS, "beam") == qwen.generate(ITEMS, "beam", once=False)


# ---------------------------------------------------------------------------------------------------------------------
# Text as it was generated


def test_line_breaks_are_kept_beside_the_text(qwen: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = qwen.replica.processor.tokenizer
    monkeypatch.setattr(type(tokenizer), "decode", lambda *_, **__: " \nYes,\n\n  it is. \n")
    ((written,),) = write(qwen.replica, qwen.collator, ITEMS[:1], DECODINGS["greedy"], 0)
    assert written.text == "Yes, it is."
    assert written.raw == "Yes,\n\n  it is."
    (answer,) = qwen.generate(ITEMS[:1])
    assert (answer.texts, answer.raw) == (("Yes, it is.",), "Yes,\n\n  it is.")
