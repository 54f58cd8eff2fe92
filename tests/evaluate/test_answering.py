"""Items with several images and turns, prompts of all lengths, too little memory: every item gets its one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import pytest
import torch
from PIL import Image

from cwdpo.base.context import Share, StageContext
from cwdpo.base.errors import DataError, Interrupted, ModelError
from cwdpo.base.files import read_json, read_jsonl
from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.content import Picture
from cwdpo.data.encoding import Collator
from cwdpo.evaluate import answering
from cwdpo.evaluate import generate as stage
from cwdpo.evaluate.answering import Answering, first_batch
from cwdpo.evaluate.benchmarks.benchmark import Questions
from cwdpo.evaluate.question import Question
from cwdpo.model.config import Lora, Policy
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Answer, Prompted
from cwdpo.model.load import load_model, load_policy_processor, trainable_policy

SIZES = {"square.png": (64, 64), "wide.png": (32, 64), "small.png": (32, 32)}
TEXTS = ["a small red circle at the top left", "three large blue squares", "Which is it?", "or this one?"] * 10
SQUARE, WIDE, SMALL = (Picture(name) for name in SIZES)
POLICY = Policy(dtype="float32", min_pixels=1024, max_pixels=64 * 64)
LONG = "three large blue squares " * 60
ITEMS = [
    Prompted("two", ("Which is it? ", SQUARE, " or ", WIDE, "?")),
    Prompted("talk", (WIDE, "Which is it?"), (("or this one?", SMALL), ("Which?",))),
    Prompted("none", ("Which is it?",)),
    Prompted("small", (SMALL, "Which?")),
    Prompted("short talk", (SMALL, "Which is it? or this one?"), (("Which is it?",),)),
    Prompted("square", (SQUARE, "a small red circle")),
    Prompted("none either", ("three large blue squares or a small red circle?",)),
]
TOO_LONG = Prompted("long", (SMALL, LONG), (("Which?",),))
GREEDY = Decoding(max_new_tokens=6)
DECODINGS = {
    "greedy": GREEDY,
    "beam": Decoding(strategy="beam", beams=3, candidates=2, max_new_tokens=6),
    "sample": Decoding(strategy="sample", candidates=2, temperature=1.3, max_new_tokens=6),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, (height, width) in SIZES.items():
        pixels = (torch.rand(height, width, 3, generator=generator) * 255).byte()
        Image.fromarray(pixels.numpy()).save(folder / name)
    return folder


@dataclass(frozen=True)
class Trained:
    """A model folder and an adapter that makes answers differ."""

    model: Path
    adapter: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    families.build_qwen(folder / "model", TEXTS, 1)
    model = trainable_policy(load_model(POLICY, folder / "model"), Lora(rank=2, alpha=4), None, seed=0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2)
    model.save_pretrained(folder / "adapter")
    return Trained(folder / "model", folder / "adapter")


@dataclass
class Setting:
    """A loaded model; `batches` are the items of each batch, `events` what was told."""

    replica: Any
    collator: Collator
    batches: list[list[str]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def answering(
        self, decoding: Decoding = GREEDY, items: Sequence[Prompted] = ITEMS, seed: int = 3, **execution: Any
    ) -> Answering:
        spec = SimpleNamespace(seed=seed, policy=POLICY)
        tell = lambda kind, **more: self.events.append({"kind": kind, **more})  # noqa: E731
        context: Any = SimpleNamespace(spec=spec, rank=Rank(), execution=Execution(**execution), event=tell)
        return Answering(context, self.replica, self.collator, items, decoding)

    def answers(self, decoding: Decoding = GREEDY, items: Sequence[Prompted] = ITEMS, **execution: Any) -> list[Answer]:
        """All items as one block."""
        made = self.answering(decoding, items, **execution)
        self.batches.clear()
        return made.answers(items, [made.encode(item) for item in items])

    @property
    def shrunk(self) -> list[int]:
        """Batch sizes that were told."""
        return [event["batch"] for event in self.events if event.get("reason") == "out of memory"]


@pytest.fixture(scope="module")
def loaded(trained: Trained, images: Path) -> tuple[Any, Collator]:
    from cwdpo.model.load import load_lora

    model = load_lora(load_model(POLICY, trained.model), trained.adapter, trainable=False)
    return model, Collator(load_policy_processor(POLICY, trained.model), images, 256)


@pytest.fixture
def setting(loaded: tuple[Any, Collator], monkeypatch: pytest.MonkeyPatch) -> Setting:
    model, collator = loaded
    replica = SimpleNamespace(model=model, processor=collator.processor, device="cpu", lockstep=False)
    made = Setting(replica, collator)

    def recorded(*given: Any) -> Any:
        made.batches.append([item.id for item in given[2]])
        return real(*given)

    real = answering.write
    monkeypatch.setattr(answering, "write", recorded)
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Batches


def of(**lengths: int) -> Mapping[int, Any]:
    """Prefixes of some lengths; those of text alone have names that begin with t."""
    made = {}
    for place, (name, tokens) in enumerate(lengths.items()):
        made[place] = {"input_ids": torch.zeros(1, tokens)} | ({} if name[0] == "t" else {"pixel_values": 0})
    return made


@pytest.mark.parametrize(
    ("lengths", "most", "budget", "expected"),
    [
        ({"a": 5, "b": 9, "c": 7}, 8, None, [0, 1, 2]),
        ({"a": 5, "b": 9, "c": 7}, 2, None, [1, 2]),
        ({"a": 5, "b": 9, "c": 7}, 8, 18, [1, 2]),
        ({"a": 5, "b": 9, "c": 7}, 8, 17, [1]),
        ({"a": 5, "b": 9, "c": 7}, 8, 3, [1]),
        ({"a": 5, "b": 9, "c": 7}, 8, 27, [0, 1, 2]),
        ({"a": 5, "t": 9, "c": 7, "tt": 1}, 8, None, [1, 3]),
        ({"a": 5, "t": 4, "c": 7}, 8, None, [0, 2]),
        ({"a": 5, "b": 5, "c": 5}, 2, None, [0, 1]),
    ],
)
def test_the_longest_go_first_and_padding_counts(
    lengths: dict[str, int], most: int, budget: int | None, expected: list[int]
) -> None:
    """Two prompts of 9 and 7 tokens are 18 with padding."""
    assert first_batch(of(**lengths), most, budget) == expected


def test_a_block_is_one_batch_where_nothing_limits_it(setting: Setting) -> None:
    """Those without an image have one of their own."""
    pictured = [item for item in ITEMS if item.images and not item.later]
    setting.answers(items=pictured)
    assert setting.batches == [[item.id for item in pictured]]
    texts = [item for item in ITEMS if not item.images]
    setting.answers(items=[*pictured, *texts])
    assert setting.batches == [[item.id for item in pictured], [item.id for item in texts]]


@pytest.mark.parametrize("kind", sorted(DECODINGS))
def test_batches_change_no_answer(setting: Setting, kind: str) -> None:
    """Samples, too: an item draws for itself."""
    expected = setting.answers(DECODINGS[kind])
    calls = len(setting.batches)
    assert setting.answers(DECODINGS[kind], micro_tokens=120) == expected
    assert len(setting.batches) > calls
    assert setting.answers(DECODINGS[kind], micro_tokens=1) == expected
    assert {len(batch) for batch in setting.batches} == {1}
    assert len({answer.texts for answer in expected}) > len(ITEMS) // 2, "the fixtures can tell items apart"


def test_answers_are_in_the_order_of_the_items(setting: Setting) -> None:
    """Sorted by length they go through the model, and back they come."""
    there, back = (setting.answers(items=items, micro_tokens=60) for items in (ITEMS, ITEMS[::-1]))
    assert there == back[::-1]


# ---------------------------------------------------------------------------------------------------------------------
# Turns


def test_each_turn_is_asked_with_the_models_own_answers(setting: Setting) -> None:
    """By hand: the prompt of a turn holds what was said, as it was said."""
    talk = ITEMS[1]
    (answer,) = setting.answers(items=[talk])
    turns, said = [talk.content, *talk.later], []
    for number in range(3):
        prefix = setting.collator.conversation(turns[: number + 1], said)
        ids = setting.replica.model.generate(**prefix, max_new_tokens=6, do_sample=False)
        text = setting.collator.processor.tokenizer.decode(ids[0, prefix["input_ids"].shape[1] :], True)
        said.append(text.strip())
    assert [answer.raw, *answer.later] == said
    assert len(set(said)) == 3
    assert setting.batches == [["talk"], ["talk, turn 2"], ["talk, turn 3"]]


def test_a_later_answer_depends_on_the_ones_before(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above: other answers before make another one."""
    (expected,) = setting.answers(items=ITEMS[1:2])
    real = setting.collator.conversation
    monkeypatch.setattr(
        setting.collator, "conversation", lambda turns, said=(): real(turns, ["three large blue squares"] * len(said))
    )
    (found,) = setting.answers(items=ITEMS[1:2])
    assert found.raw == expected.raw
    assert found.later != expected.later


@pytest.mark.parametrize("kind", sorted(DECODINGS))
def test_turns_do_not_depend_on_the_rest_of_the_block(setting: Setting, kind: str) -> None:
    together = setting.answers(DECODINGS[kind])
    assert together == [setting.answers(DECODINGS[kind], [item])[0] for item in ITEMS]
    assert [len(answer.later) for answer in together] == [0, 2, 0, 0, 1, 0, 0]


def test_only_the_best_answer_is_gone_on_from(setting: Setting) -> None:
    """Candidates are of the first turn."""
    (answer,) = setting.answers(DECODINGS["sample"], ITEMS[1:2])
    assert len(answer.texts) == 2
    assert len(answer.later) == 2


def test_tokens_and_cuts_are_counted_over_all_turns(setting: Setting) -> None:
    (whole,) = setting.answers(items=ITEMS[1:2])
    (first,) = setting.answers(items=[replace(ITEMS[1], later=())])
    assert whole.texts == first.texts
    assert whole.tokens > first.tokens
    assert whole.truncated


# ---------------------------------------------------------------------------------------------------------------------
# Too little memory. A CPU has no such error, so that it is injected: nothing here shows that a GPU frees what it held.


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.37 GiB. GPU 0 has a total capacity of 79.10 GiB")


def limited(model: Any, rows: int, error: Exception) -> Callable[..., Any]:
    """The model's `generate` with memory for so many rows."""
    real = model.generate

    def generate(**given: Any) -> Any:
        if len(given["input_ids"]) > rows:
            raise error
        return real(**given)

    return generate


@pytest.mark.parametrize("kind", sorted(DECODINGS))
@pytest.mark.parametrize(
    "error",
    [CUDA, RuntimeError("CUDA error: out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_smaller_batches_give_the_same_answers(
    setting: Setting, kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = setting.answers(DECODINGS[kind])
    monkeypatch.setattr(setting.replica.model, "generate", limited(setting.replica.model, 4, error))
    assert setting.answers(DECODINGS[kind]) == expected
    assert setting.shrunk[0] == 3, "five items with images do not fit, three and two do"


def test_a_batch_is_halved_until_it_fits_and_stays_so(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Prompted(str(number), (SMALL, "Which?" + " or" * number)) for number in range(8)]
    expected = setting.answers(items=items)
    monkeypatch.setattr(setting.replica.model, "generate", limited(setting.replica.model, 2, CUDA))
    made = setting.answering(items=items)
    setting.batches.clear()
    prefixes = [made.encode(item) for item in items]
    assert made.answers(items, prefixes) == expected
    assert [len(batch) for batch in setting.batches] == [8, 4, 2, 2, 2, 2]
    assert setting.batches[2] == ["6", "7"], "the longest first, each batch in the order of the items"
    assert setting.shrunk == [4, 2]
    setting.batches.clear()
    assert made.answers(items, prefixes) == expected
    assert [len(batch) for batch in setting.batches] == [2, 2, 2, 2], "the next block does not try again"
    assert setting.shrunk == [4, 2], "an event for each change"


def test_what_is_computed_is_not_computed_again(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out in the second of two batches only, after what its candidates share has gone through."""
    items = [Prompted(str(number), (SMALL, "Which?" + " or" * number)) for number in range(4)]
    expected = setting.answers(items=items)
    prefixes = [setting.collator.conversation([item.content]) for item in items]
    made = setting.answering(items=items, micro_tokens=2 * max(map(answering.length, prefixes)))
    setting.batches.clear()
    calls: list[int] = []
    real = setting.replica.model.generate

    def fourth_fails(**given: Any) -> Any:
        calls.append(len(given["input_ids"]))
        if len(calls) == 4:
            raise CUDA
        return real(**given)

    monkeypatch.setattr(setting.replica.model, "generate", fourth_fails)
    assert made.answers(items, prefixes) == expected
    assert setting.batches == [["2", "3"], ["0", "1"], ["1"], ["0"]]
    assert setting.shrunk == [1]


def test_measuring_how_to_decode_needs_no_more_memory_than_decoding(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`goes_once` takes two rows; where they do not fit, items go through the model plainly, one by one."""
    expected = setting.answers()
    monkeypatch.setattr(setting.replica.model, "generate", limited(setting.replica.model, 1, CUDA))
    assert setting.answers() == expected
    assert {"kind": "generation", "prefix": "once per candidate", "difference_per_token": None} in setting.events
    assert setting.shrunk[-1] == 1


def test_an_item_that_does_not_fit_alone_is_named(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting.replica.model, "generate", limited(setting.replica.model, 0, CUDA))
    with pytest.raises(ModelError, match=r"item 'two': out of memory.* lower model\.max_pixels or decoding\.max_new"):
        setting.answers(items=ITEMS[:1])


def test_other_errors_are_no_lack_of_memory(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    made = setting.answering()
    error = RuntimeError("CUDA error: device-side assert triggered")
    monkeypatch.setattr(setting.replica.model, "generate", limited(setting.replica.model, 0, error))
    with pytest.raises(RuntimeError, match="device-side assert"):
        made.answers(ITEMS, [made.encode(item) for item in ITEMS])
    assert setting.shrunk == []


@pytest.mark.parametrize("inference", ["zero3", "tensor_parallel"])
def test_ranks_that_share_a_model_do_not_go_on_alone(
    setting: Setting, inference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would wait for the calls of the failed batch."""
    made = setting.answering(inference=inference, micro_tokens=1)
    items = [item for item in ITEMS if item.images]
    prefixes = [made.encode(item) for item in items]
    made.answers(items, prefixes)
    assert setting.batches[0] == [item.id for item in items], "and no budget splits a batch"
    monkeypatch.setattr(setting.replica.model, "generate", limited(setting.replica.model, 3, CUDA))
    with pytest.raises(torch.OutOfMemoryError):
        made.answers(items, prefixes)


# ---------------------------------------------------------------------------------------------------------------------
# No room for an answer


def test_a_prompt_that_leaves_no_room_is_told_and_the_others_are_answered(setting: Setting) -> None:
    expected = setting.answers()
    found = setting.answers(items=[TOO_LONG, *ITEMS])
    assert found[1:] == expected
    tokens = answering.length(setting.collator.conversation([TOO_LONG.content]))
    fault = f"the prompt takes {tokens} tokens, the context 256: no room for an answer"
    assert found[0] == Answer(("",), 0, False, "", ("",), fault)
    assert "long" not in [name for batch in setting.batches for name in batch]


def test_every_candidate_of_a_missing_answer_is_empty(setting: Setting) -> None:
    found = setting.answers(DECODINGS["beam"], [TOO_LONG, ITEMS[0]])
    assert [len(answer.texts) for answer in found] == [2, 2]


def test_room_is_what_the_longest_answer_takes(setting: Setting) -> None:
    """To the token: the prompt and max_new_tokens fill the context, or are one too many."""
    tokens = answering.length(setting.collator.conversation([ITEMS[0].content]))
    for room, fits in ((256 - tokens, True), (257 - tokens, False)):
        found = setting.answers(Decoding(max_new_tokens=room), [ITEMS[0], ITEMS[3]])
        assert (found[0].fault == "") is fits
        assert not found[1].fault


def test_a_later_turn_without_room_keeps_what_was_answered(setting: Setting) -> None:
    item = Prompted("grows", (SMALL, "Which?"), (("or this one?",), (LONG,), ("Which?",)))
    (found,) = setting.answers(items=[item])
    (plain,) = setting.answers(items=[replace(item, later=item.later[:1])])
    assert found.texts == plain.texts
    assert found.later == (*plain.later, "", "")
    assert found.fault.startswith("turn 3: the prompt takes ")
    assert found.tokens == plain.tokens


def test_the_way_of_decoding_is_measured_on_an_item_that_can_be_answered(setting: Setting) -> None:
    """With an image, because positions of images are what can go wrong."""
    made = setting.answering(items=[TOO_LONG, ITEMS[2], ITEMS[3]])
    assert made._example[0].id == "small"
    assert setting.answering(items=[ITEMS[2]])._example[0].id == "none"


def test_nothing_but_prompts_without_room_is_an_error(setting: Setting) -> None:
    with pytest.raises(DataError, match=r"none of 2 items leaves room for an answer of 6 tokens.*max_new_tokens"):
        setting.answers(items=[TOO_LONG, replace(TOO_LONG, id="longer")])


def test_an_item_that_cannot_be_encoded_is_named(setting: Setting) -> None:
    mark = setting.collator.processor.image_token
    with pytest.raises(ModelError, match="item 'odd': the chat template makes 2"):
        setting.answers(items=[ITEMS[0], Prompted("odd", (SMALL, f"{mark}?"))])


# ---------------------------------------------------------------------------------------------------------------------
# Ranks in lock-step


BLOCKS = [[0, 1], [2, 6], [3], [4, 5], [7]]  # with turns, without an image, ragged, and one that cannot be asked


@pytest.mark.parametrize("kind", sorted(DECODINGS))
def test_every_block_makes_as_many_calls_and_sees_an_image(
    setting: Setting, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are gathered at each call, those of the vision tower too; a rank that made fewer would stop the rest."""
    items = [*ITEMS, TOO_LONG]
    expected = setting.answers(DECODINGS[kind], items)
    setting.replica.lockstep = True
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
    made = setting.answering(DECODINGS[kind], items, inference="zero3")
    calls: list[tuple[int, bool]] = []
    real = setting.replica.model.generate

    def counted(**given: Any) -> Any:
        pixels = given.get("pixel_values")
        calls[-1] = (calls[-1][0] + 1, calls[-1][1] or (pixels is not None and len(pixels) > 0))
        return real(**given)

    def begun(*given: Any) -> Any:
        calls.append((0, False))
        return written(*given)

    written = answering.write
    monkeypatch.setattr(answering, "write", begun)
    monkeypatch.setattr(setting.replica.model, "generate", counted)
    found: dict[int, Answer] = {}
    patterns = []
    for block in BLOCKS:
        calls.clear()
        members = [items[place] for place in block]
        found |= zip(block, made.answers(members, [made.encode(item) for item in members]), strict=True)
        assert len(calls) == 3, "as many turns as the longest talk of all items"
        assert all(seen for _, seen in calls)
        patterns.append([count for count, _ in calls])
    assert all(pattern == patterns[0] for pattern in patterns)
    assert [found[place] for place in range(len(items))] == expected


# ---------------------------------------------------------------------------------------------------------------------
# The stage


class Turns(Questions):
    """Questions with turns, as no benchmark of this package has them yet."""

    name: str = "turns"
    asked: Any = ()

    def canonical(self) -> dict[str, Any]:
        return {"name": self.name}

    def load(self, download: Any) -> list[Question]:
        return []

    def ask(self, question: Question) -> str:
        return ""

    def score(self, answered: Any) -> Any:
        return None

    def items(self, inputs: Mapping[str, Path]) -> list[Prompted]:
        return list(self.asked)


@dataclass
class Runner:
    inputs: dict[str, Path]
    home: Path

    def __call__(
        self, name: str, items: Sequence[Prompted] = ITEMS, block: int = 2, share: Share | None = None, **more: Any
    ) -> tuple[Path, list[dict[str, Any]]]:
        """Runs the stage; returns the artefact's folder and the events."""
        told: list[dict[str, Any]] = []
        out, partial = self.home / name / "out", self.home / name / "partial"
        out.mkdir(parents=True, exist_ok=True)
        benchmark = Turns(asked=tuple(items), decoding=Decoding(max_new_tokens=6, block=block))
        inputs = {**self.inputs, **more.pop("inputs", {})}
        stage.run(
            StageContext(
                spec=SimpleNamespace(policy=POLICY, seed=0, benchmark=benchmark), inputs=inputs, out=out,
                partial=partial, cache=out, rank=Rank(), execution=Execution(**more.pop("execution", {})),
                event=lambda kind, **rest: told.append({"event": kind, **rest}), check=lambda: None, share=share,
                **more,
            )
        )  # fmt: skip
        return out, told


@pytest.fixture
def runner(trained: Trained, images: Path, tmp_path: Path) -> Runner:
    return Runner({"model": trained.model, "adapter": trained.adapter, "images": images}, tmp_path)


def written(out: Path) -> bytes:
    return (out / "generations.jsonl").read_bytes()


def test_rows_hold_what_there_is_to_tell(runner: Runner) -> None:
    out, told = runner("whole", [*ITEMS, TOO_LONG])
    rows = {row["id"]: row for row in read_jsonl(out / "generations.jsonl")}
    assert list(rows) == [*(item.id for item in ITEMS), "long"]
    assert [rows[name]["image"] for name in ("two", "none", "small")] == ["square.png", "", "small.png"]
    always = ["id", "image", "text", "tokens", "truncated"]
    for name, row in rows.items():
        assert list(row)[:5] == always
        assert ("later" in row) is (name in ("talk", "short talk", "long"))
        assert ("fault" in row) is (name == "long")
        assert ("raw" in row) is (row.get("raw", row["text"]) != row["text"])
    assert (rows["long"]["text"], rows["long"]["tokens"], rows["long"]["later"]) == ("", 0, [""])
    assert len(rows["talk"]["later"]) == 2
    assert {"event": "generation", "faults": 1} in told
    assert "decoding" in read_json(out / "settings.json")


def test_line_breaks_are_kept_where_there_are_some(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from cwdpo.model import generate as model_generate

    real = model_generate._written
    monkeypatch.setattr(
        model_generate, "_written", lambda *given: replace(real(*given), text="Yes. No.", raw="Yes.\nNo.")
    )
    out, _ = runner("lines", ITEMS[:1])
    (row,) = read_jsonl(out / "generations.jsonl")
    assert (row["text"], row["raw"]) == ("Yes. No.", "Yes.\nNo.")


@pytest.mark.parametrize("execution", [{"micro_tokens": 100}, {"feed_workers": 0}, {"micro_tokens": 1}])
def test_how_it_runs_changes_no_byte(runner: Runner, execution: dict[str, Any]) -> None:
    assert written(runner("plain")[0]) == written(runner("other", execution=execution)[0])


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_any_size_write_the_same_file(runner: Runner, block: int) -> None:
    """Items with and without images and turns stand in one block or in several."""
    assert written(runner("two")[0]) == written(runner("other", block=block)[0])


@pytest.mark.parametrize("shares", [2, 3, 5])
def test_any_number_of_shares_write_the_same_file(runner: Runner, shares: int) -> None:
    """Five shares of four blocks: one has nothing to do."""
    items = [*ITEMS, TOO_LONG]
    folders = {
        f"share-{number}": runner(f"share {number}", items, share=Share(number, shares))[0] for number in range(shares)
    }
    for folder in folders.values():
        assert not (folder / "generations.jsonl").exists()
    out, told = runner("joined", items, inputs=folders)
    assert written(out) == written(runner("whole", items)[0])
    assert {"event": "generation", "faults": 1} in told
    assert not any(event["event"] == "progress" for event in told), "nothing is computed twice"


def test_stopped_after_each_block_it_goes_on_where_it_was(runner: Runner) -> None:
    """Four blocks, one in each attempt; a talk is asked in one go."""
    expected, _ = runner("whole")
    done = []
    for _ in range(4):
        with pytest.raises(Interrupted):
            runner("stopped", stopping=lambda: True)
        done.append(sorted(path.name for path in (runner.home / "stopped/partial/blocks").iterdir()))
    assert [len(names) for names in done] == [1, 2, 3, 4]
    out, told = runner("stopped")
    assert written(out) == written(expected)
    assert not any(event["event"] == "progress" for event in told)
