"""Dialogues: tokens of the chat template, scores of the answers alone, and the loss that nSFT makes of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from PIL import Image

from cwdpo.base.errors import DataError, ModelError
from cwdpo.base.runtime import Rank
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.layout import separate_rows, shared_rows
from cwdpo.data.records import Turn
from cwdpo.data.samples import Sample
from cwdpo.model.attention import splits_prefixes
from cwdpo.model.config import Lora, Policy
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy
from cwdpo.model.scoring import PLAIN, Scorer, Way
from cwdpo.objectives import Nsft
from cwdpo.train.stage1 import SupervisedTask
from cwdpo.train.task import Scored

PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", "Is there a blue square?", "No, it is red.", PROMPT] * 10
TURNS: tuple[Turn, ...] = (
    ("Is there a blue square?", "No, a small red circle."),
    ("What is at the top left?", "a circle"),
    ("Is it red?", "Yes."),
)
POLICY = Policy(dtype="float32")
CPU = torch.device("cpu")
WAYS = [PLAIN, Way(False, True), Way(True, True), Way(True, True, apart=True), Way(True, False, apart=True)]


class Family:
    """A tiny checkpoint of a family, and an image."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        families.BUILDERS[name](folder / "model", TEXTS, 1)
        generator = torch.Generator().manual_seed(0)
        pixels = (torch.rand(64, 64, 3, generator=generator) * 255).byte()
        Image.fromarray(pixels.numpy()).save(folder / "a.png")
        self.collator = Collator(load_policy_processor(POLICY, folder / "model"), folder, 256)
        self.tokenizer = self.collator.processor.tokenizer
        self.end = self.tokenizer.decode(self.collator.ends[0])

    def policy(self) -> Any:
        """Frozen but for an adapter that matters."""
        model = trainable_policy(load_model(POLICY, self.folder / "model"), Lora(rank=2, alpha=4), None, seed=0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        assert splits_prefixes(model)
        return model.eval()

    def conversation(self, turns: tuple[Turn, ...]) -> list[int]:
        """All of it by the processor in one go, image and all, up to the end of the last answer."""
        messages = []
        for number, (question, answer) in enumerate(turns):
            image = [] if number else [{"type": "image"}]
            messages += [
                {"role": "user", "content": [*image, {"type": "text", "text": question}]},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ]
        text = self.collator.processor.apply_chat_template(messages, tokenize=False)
        if self.name == "llava":  # its template ends no turn, and begins one with a space that its prompt has not
            for _, answer in turns:
                text = text.replace(f": {answer} ", f":{answer}{self.end} ")
        text = text[: text.rindex(self.end) + len(self.end)]
        begun = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        with Image.open(self.folder / "a.png") as image:
            encoded = self.collator.processor(text=[text], images=[[image]], add_special_tokens=not begun)
        return list(encoded["input_ids"][0])


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


def sample(name: str, chosen: str, *dialogues: tuple[Turn, ...]) -> Sample:
    return Sample(name, name, "a.png", PROMPT, chosen, ("bad",) * len(dialogues), dialogues=dialogues)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_dialogue_is_what_the_chat_template_makes_of_the_whole_conversation(family: Family, count: int) -> None:
    group = family.collator.dialogue(sample("1", ""), TURNS[:count])
    (tokens,) = group.responses
    assert [*group.prefix["input_ids"][0].tolist(), *tokens] == family.conversation(TURNS[:count])


def test_answers_and_the_ends_of_their_turns_are_scored_and_no_more(family: Family) -> None:
    group = family.collator.dialogue(sample("1", ""), TURNS)
    (tokens,), (flags,) = group.responses, group.flags()
    pieces = [
        (scored, family.tokenizer.decode([token for token, _ in piece]))
        for scored, piece in groupby(zip(tokens, flags, strict=True), key=lambda pair: pair[1])
    ]
    assert [text for scored, text in pieces if scored] == [f"{answer}{family.end}" for _, answer in TURNS]
    asked = [text for scored, text in pieces if not scored]
    assert len(asked) == 2
    for text, (question, _) in zip(asked, TURNS[1:], strict=True):
        assert question in text
        assert text.lower().rstrip().removesuffix(":").endswith("assistant")


def test_a_dialogue_of_one_turn_is_a_plain_response(family: Family) -> None:
    question, answer = TURNS[0]
    dialogue = family.collator.dialogue(sample("1", ""), TURNS[:1])
    plain = family.collator.group(replace(sample("1", ""), prompt=question), [answer])
    assert dialogue.responses == plain.responses
    assert dialogue.flags() == plain.flags()
    assert torch.equal(dialogue.prefix["input_ids"], plain.prefix["input_ids"])


def test_a_dialogue_that_does_not_fit_is_refused_where_dialogues_are_trained_on(family: Family) -> None:
    collator = Collator(family.collator.processor, family.folder, 60)
    found = sample("7", "a", TURNS)
    collator.check_texts([found], {"rejected"})
    with pytest.raises(DataError, match=r"record '7': \d+ tokens .* but the limit is 60"):
        collator.check_texts([found], {"dialogue"})


def test_a_template_that_forgets_earlier_answers_is_refused(family: Family) -> None:
    processor = load_policy_processor(POLICY, family.folder / "model")
    collator = Collator(processor, family.folder, 256)
    processor.chat_template = "{{ messages[-1]['content'][-1]['text'] }}"
    with pytest.raises(ModelError, match="does not repeat earlier answers"):
        collator._next_question("Is it red?")


# ---------------------------------------------------------------------------------------------------------------------
# Log-probabilities


def groups(family: Family) -> list[Group]:
    """Dialogues alone and two under one first question, a plain response, and one whose beginning is not scored."""
    long, short = (family.collator.dialogue(sample("1", ""), turns) for turns in (TURNS, TURNS[:2]))
    both = Group(long.prefix, (*long.responses, *short.responses), (*long.flags(), *short.flags()))
    plain = family.collator.group(sample("2", ""), ["a red circle", "a"])
    late = Group(plain.prefix, plain.responses[:1], ((False, *[True] * (len(plain.responses[0]) - 1)),))
    return [short, both, plain, late]


def plainly(model: Any, group: Group) -> list[torch.Tensor]:
    """Log-probabilities of the scored tokens of each response, from all logits of a row alone, with gradient."""
    found = []
    for response, flags in zip(group.responses, group.flags(), strict=True):
        tokens = torch.tensor([response])
        inputs = {**group.prefix, "input_ids": torch.cat([group.prefix["input_ids"], tokens], 1)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in group.prefix:
            inputs["mm_token_type_ids"] = torch.cat([group.prefix["mm_token_type_ids"], torch.zeros_like(tokens)], 1)
        logits = model(**inputs).logits[0, group.prefix_length - 1 : -1]
        found.append(logits.log_softmax(-1)[range(len(response)), tokens[0]][torch.tensor(flags)])
    return found


@pytest.mark.parametrize("width", [0, 1000], ids=["packed-where-there-is-room", "all-in-one-row"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_is_not_scored_is_seen_but_not_counted(family: Family, way: Way, width: int) -> None:
    model, several = family.policy(), groups(family)
    expected = [logps for group in several for logps in plainly(model, group)]
    with torch.no_grad():
        logps, lengths = Scorer(model, family.collator.pad, CPU, way).logps(several, width)
    assert logps.tolist() == pytest.approx([value.sum().item() for value in expected], abs=5e-5)
    assert lengths.tolist() == [len(value) for value in expected]
    assert [len(value) for value in expected] == [sum(flags) for group in several for flags in group.flags()]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_its_gradient_is_that_of_the_scored_tokens(family: Family, way: Way) -> None:
    several = groups(family)
    weights = torch.linspace(-1.0, 2.0, sum(len(group.responses) for group in several))
    gradients = []
    for how in ("ours", "plainly"):
        model = family.policy()
        if how == "ours":
            logps, _ = Scorer(model, family.collator.pad, CPU, way).logps(several)
        else:
            logps = torch.stack([value.sum() for group in several for value in plainly(model, group)])
        (logps * weights).sum().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    mine, theirs = gradients
    assert mine.keys() == theirs.keys()
    largest = max(float(value.abs().max()) for value in theirs.values())
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-5 * largest, rtol=1e-4) for name in theirs)


def test_the_layout_asks_for_scored_tokens_only(family: Family) -> None:
    several = groups(family)
    rows = separate_rows(several, family.collator.pad)
    shared = shared_rows(several, family.collator.pad, lambda prefix: torch.arange(prefix["input_ids"].shape[1])[None])
    scored = [
        token
        for group in several
        for response, flags in zip(group.responses, group.flags(), strict=True)
        for token, flag in zip(response, flags, strict=True)
        if flag
    ]
    for batch in (rows, shared):
        table = batch.wanted.table(batch.wanted.tokens)
        lengths = batch.wanted.lengths.tolist()
        assert [token for row, length in zip(table, lengths, strict=True) for token in row[:length].tolist()] == scored


# ---------------------------------------------------------------------------------------------------------------------
# The loss


@pytest.mark.parametrize("chosen", [True, False], ids=["with chosen", "w/o chosen"])
@pytest.mark.parametrize("way", WAYS[1:3], ids=str)
def test_nsft_is_the_mean_over_chosen_and_over_dialogues(family: Family, way: Way, chosen: bool) -> None:
    """Two samples, three dialogues: each kind has its own mean over responses of the mean over scored tokens."""
    batch = [sample("1", "a red circle", TURNS, TURNS[1:2]), sample("2", "a small circle at the left", TURNS[:2])]
    task, model = SupervisedTask(Nsft(chosen=chosen), Rank()), family.policy()
    encoded = [task.encode(family.collator, entry).groups for entry in batch]
    scores = Scorer(model, family.collator.pad, CPU, way).read(
        [group for own in encoded for group in own], task.reading
    )
    share, logged = task.share(Scored(batch, [1.0, 1.0], scores, batch), {})

    nll = [[-plainly(model, group)[0].mean().item() for group in own] for own in encoded]
    truth = (nll[0][0] + nll[1][0]) / 2
    dialogues = (nll[0][1] + nll[0][2] + nll[1][1]) / 3
    assert [len(own) for own in nll] == [3, 2]
    assert share.item() == pytest.approx((truth if chosen else 0.0) + dialogues, abs=1e-5)
    assert logged["nll_chosen"].item() == pytest.approx(truth, abs=1e-5)
    assert logged["nll_dialogue"].item() == pytest.approx(dialogues, abs=1e-5)
    assert (logged["gradient_chosen"].item() > 0) is chosen
