"""The policy's answers and its critique are the same files however they are spread, and whenever they are killed."""

from __future__ import annotations

import math
import re
import signal
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import harness
import pytest
import torch
from harness import Micro
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from cwdpo.base import files
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError, Interrupted
from cwdpo.base.runtime import Execution, Rank
from cwdpo.base.store import Store
from cwdpo.data.encoding import Collator
from cwdpo.data.records import Record, read_records, write_records
from cwdpo.data.samples import Sample
from cwdpo.data.views import View, noised
from cwdpo.graph import Node, Outside
from cwdpo.jobs.events import events
from cwdpo.model.config import Lora, Policy
from cwdpo.model.load import add_lora, load_lora, load_model, load_policy_processor
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.negatives import answers, critique
from cwdpo.negatives.answers import AnswersOf, question_id

SIZES = ((64, 64), (64, 128), (96, 96))  # 16, 32 and 36 tokens, so that blocks hold rows of different lengths
POLICY = {"dtype": "float32", "min_pixels": 1024, "max_pixels": 16384}
FLOAT32 = Policy.model_validate(POLICY)
ROOM = {"max_new_tokens": 8, "block": 4}
PARTS: dict[str, dict[str, Any]] = {
    "greedy": {"decoding": ROOM},
    "beam": {"decoding": {"strategy": "beam", "beams": 3, "candidates": 3, **ROOM}},
    "sample": {"decoding": {"strategy": "sample", "temperature": 1.5, "candidates": 3, **ROOM}, "seed": 5},
    "noised": {"decoding": ROOM, "noise": 999},
}
SPREAD = {
    "zero3": {"inference": "zero3"},
    "tensor_parallel": {"inference": "tensor_parallel", "replica_size": 2},
}
SPREAD_KINDS = ("greedy", "sample", "critique")
WHICH = "{truth}: {first} or {second}?"
TWICE = 2  # captions that become a second record of their image, with the same prompt


class World:
    """Images of several sizes, records of which some share a question, and a policy that says many things.

    The model has parameters of more than 100,000 numbers; smaller ones ZeRO-3 does not partition at all.
    """

    def __init__(self, micro: Micro, folder: Path) -> None:
        self.folder, self.micro = folder, micro
        self.records = _records(micro, folder)
        _images(micro.images, folder / "images", sorted({record.image for record in self.records}))
        texts = [text for record in self.records for text in (record.chosen, record.prompt, *"12")]
        build_tiny_qwen(TinyQwen(intermediate_size=1024), texts, folder / "model", seed=0)
        _adapter(folder)
        self.asked = sorted({(r.image, r.prompt) for r in self.records if r.portion == "stage2"})

    def inputs(self) -> dict[str, Any]:
        names = {"model": "model", "adapter": "adapter", "pairs": ".", "images": "images"}
        return {role: self.folder / name for role, name in names.items()}

    def answers(self, kind: str, label: str = "", block: int = 4, **execution: Any) -> Node:
        part = PARTS[kind]
        part = {**part, "decoding": {**part["decoding"], "block": block}}
        spec = {"policy": POLICY, "portion": "stage2", "part": part}
        return harness.node("answers", spec, self.inputs(), label, **execution)

    def critique(self, greedy: Node, sampled: Node, label: str = "", seed: int = 0, **execution: Any) -> Node:
        part = {"greedy": PARTS["greedy"], "sampled": PARTS["sample"], "prompt": WHICH, "seed": seed, "block": 4}
        spec = {"policy": POLICY, "portion": "stage2", "part": part}
        return harness.node(
            "critique", spec, {**self.inputs(), "greedy": greedy, "sampled": sampled}, label, **execution
        )

    def nodes(self, label: str = "", **execution: Any) -> dict[str, Node]:
        """All kinds of answers, and the critique of two of them."""
        found = {kind: self.answers(kind, label, **execution) for kind in PARTS}
        return {**found, "critique": self.critique(found["greedy"], found["sample"], label, **execution)}


def _records(micro: Micro, folder: Path) -> list[Record]:
    found = read_records(micro.pairs / "records.jsonl")
    first = [record for record in found if record.portion == "stage2"][:TWICE]
    more = [replace(record, id=f"{record.image_id}#again", chosen=f"{record.chosen} Again.") for record in first]
    write_records(folder / "records.jsonl", [*found, *more])
    return [*found, *more]


def _images(source: Path, target: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source / name) as image:
            image.resize(SIZES[number % 3]).save(target / name)


def _adapter(folder: Path) -> None:
    model = add_lora(load_model(FLOAT32, folder / "model"), Lora(rank=4, alpha=8), 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    model.save_pretrained(folder / "adapter")


@pytest.fixture(scope="module")
def world(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(micro, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def one(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """What one rank computes, in one job."""
    nodes: dict[Any, Node] = world.nodes()
    nodes["sample one by one"] = world.answers("sample", block=1)
    nodes["noised, no threads"] = world.answers("noised", "threads", feed_workers=0)
    nodes["critique, other seed"] = world.critique(nodes["greedy"], nodes["sample"], seed=1)
    nodes["critique of equals"] = world.critique(nodes["greedy"], nodes["greedy"])
    home = tmp_path_factory.mktemp("one")
    return dict(zip(nodes, harness.compute(home, list(nodes.values())), strict=True))


@pytest.fixture(scope="module")
def two(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """The same over two ranks in one job; with spread weights only what differs from generation's own tests."""
    nodes = {(kind, "replicate"): node for kind, node in world.nodes("replicate").items()}
    for how, more in SPREAD.items():
        every = world.nodes(how, **more)
        nodes |= {(kind, how): every[kind] for kind in SPREAD_KINDS}
    home = tmp_path_factory.mktemp("two")
    return dict(zip(nodes, harness.compute(home, list(nodes.values()), ranks=2), strict=True))


def name_of(kind: str) -> str:
    return "verdicts.jsonl" if kind.startswith("critique") else "answers.jsonl"


def content(folder: Path, kind: str = "") -> bytes:
    return (folder / name_of(kind)).read_bytes()


def rows(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    return list(files.read_jsonl(folder / name_of(kind)))


def texts(folder: Path) -> list[list[str]]:
    return [[answer["text"] for answer in row["answers"]] for row in rows(folder)]


def without_numbers(found: Any) -> Any:
    """Rows without log-probabilities, and these."""
    if isinstance(found, dict):
        return {key: without_numbers(value) for key, value in found.items() if key not in ("mean_logp", "margin")}
    return [without_numbers(item) for item in found] if isinstance(found, list) else found


def numbers(found: list[dict[str, Any]]) -> list[float]:
    return [
        value
        for row in found
        for value in ([row["margin"]] if "margin" in row else [answer["mean_logp"] for answer in row["answers"]])
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Spread over ranks


@pytest.mark.parametrize("kind", [*PARTS, "critique"])
def test_two_ranks_write_the_file_of_one(one: dict[Any, Path], two: dict[Any, Path], kind: str) -> None:
    assert content(two[kind, "replicate"], kind) == content(one[kind], kind)


@pytest.mark.parametrize("how", list(SPREAD))
@pytest.mark.parametrize("kind", SPREAD_KINDS)
def test_spread_weights_write_the_same_up_to_rounding(
    one: dict[Any, Path], two: dict[Any, Path], kind: str, how: str
) -> None:
    """Other batches are scored together and sums have another order: log-probabilities are rounded otherwise."""
    found, expected = rows(two[kind, how], kind), rows(one[kind], kind)
    assert without_numbers(found) == without_numbers(expected)
    assert numbers(found) == pytest.approx(numbers(expected), abs=1e-4)


def test_threads_that_open_images_change_nothing(one: dict[Any, Path]) -> None:
    assert content(one["noised, no threads"]) == content(one["noised"])


def test_an_answer_does_not_depend_on_the_rest_of_its_block(one: dict[Any, Path]) -> None:
    found, expected = rows(one["sample"]), rows(one["sample one by one"])
    assert without_numbers(found) == without_numbers(expected)
    assert numbers(found) == pytest.approx(numbers(expected), abs=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# What one rank writes


@pytest.mark.parametrize("kind", list(PARTS))
def test_every_question_of_the_portion_is_answered_once(world: World, one: dict[Any, Path], kind: str) -> None:
    found = rows(one[kind])
    assert sorted((row["image"], row["prompt"]) for row in found) == world.asked
    assert [row["id"] for row in found] == [question_id(row["image"], row["prompt"]) for row in found]
    portion = [record for record in world.records if record.portion == "stage2"]
    assert len(portion) - len(found) >= TWICE, "records that share a question"
    count = PARTS[kind]["decoding"].get("candidates", 1)
    assert all(len(row["answers"]) == count for row in found)


def test_kinds_of_answers_differ(one: dict[Any, Path]) -> None:
    greedy, beam, sample, seen = (texts(one[kind]) for kind in PARTS)
    assert len({text for (text,) in greedy}) > len(greedy) // 2, "the fixtures can tell questions apart"
    assert all(len(set(own)) == 3 for own in beam)
    assert sum(len(set(own)) > 1 for own in sample) > len(sample) // 2
    assert greedy != [own[:1] for own in sample]
    assert sum(one != other for one, other in zip(greedy, seen, strict=True)) > len(greedy) // 2, "noise changes them"


def test_settings_say_how_the_answers_were_made(one: dict[Any, Path]) -> None:
    settings = files.read_json(one["noised"] / "settings.json")
    assert (settings["noise"], settings["seed"], settings["decoding"]["max_new_tokens"]) == (999, 0, 8)
    assert files.read_json(one["sample"] / "settings.json")["seed"] == 5


@pytest.mark.parametrize("kind", list(PARTS))
def test_the_log_probability_is_that_of_a_plain_forward_pass(world: World, one: dict[Any, Path], kind: str) -> None:
    """As the model's documentation does it, in float64, of the answer to the unaltered image; all answers."""
    judge = Judge(world)
    found = rows(one[kind])
    assert numbers(found) == pytest.approx(
        [judge.mean_logp(row["image"], row["prompt"], item["text"]) for row in found for item in row["answers"]],
        abs=1e-4,
    )


class Judge:
    """The policy, used without any of the package's batching."""

    def __init__(self, world: World) -> None:
        self.images = world.folder / "images"
        self.processor = load_policy_processor(FLOAT32, world.folder / "model")
        model = load_model(FLOAT32, world.folder / "model")
        self.model: Any = load_lora(model, world.folder / "adapter", trainable=False).double()

    def logps(self, image: str, prompt: str, text: str) -> torch.Tensor:
        """Of each token of a response, its end included."""
        parts = [{"type": "image"}, {"type": "text", "text": prompt}]
        asked = self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        with Image.open(self.images / image) as picture:
            inputs = dict(self.processor(text=[asked], images=[[picture.convert("RGB")]], return_tensors="pt"))
        said = self.processor.tokenizer(f"{text}<|im_end|>", add_special_tokens=False, return_tensors="pt")["input_ids"]
        begin = inputs["input_ids"].shape[1]
        for key, value in (("input_ids", said), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            inputs[key] = torch.cat([inputs[key], torch.zeros_like(said) + value], 1)
        inputs["pixel_values"] = inputs["pixel_values"].double()
        with torch.no_grad():
            found: torch.Tensor = self.model(**inputs).logits[0, begin - 1 : -1].log_softmax(-1)
        return found.gather(1, said.T)[:, 0]

    def mean_logp(self, image: str, prompt: str, text: str) -> float:
        return float(self.logps(image, prompt, text).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Critique


def compared(world: World, one: dict[Any, Path]) -> dict[str, tuple[Record, dict[str, str]]]:
    """Records of the portion by id, with their greedy and their first sampled answer."""
    found = {role: {row["id"]: row["answers"][0]["text"] for row in rows(one[kind])} for role, kind in ROLES.items()}
    return {
        r.id: (r, {role: own[question_id(r.image, r.prompt)] for role, own in found.items()})
        for r in world.records
        if r.portion == "stage2"
    }


ROLES = {"greedy": "greedy", "sampled": "sample"}


def test_the_verdict_is_the_likelier_of_two_words(world: World, one: dict[Any, Path]) -> None:
    """One for every record whose answers differ, and its margin is what a plain forward pass says."""
    judge, records = Judge(world), compared(world, one)
    found = rows(one["critique"], "critique")
    assert {row["id"] for row in found} <= {name for name, (_, own) in records.items() if len(set(own.values())) == 2}
    assert len(found) > 6
    for row in found[:6]:
        record, own = records[row["id"]]
        first, second = row["first"], ({*ROLES} - {row["first"]}).pop()
        asked = f"{record.chosen}: {own[first]} or {own[second]}?"
        one_, two_ = (float(judge.logps(record.image, asked, verdict).sum()) for verdict in "12")
        assert row["better"] == (second if two_ > one_ else first)
        assert row["margin"] == pytest.approx(abs(two_ - one_), abs=1e-3)


def test_records_that_share_a_question_are_judged_each_by_its_own_truth(world: World, one: dict[Any, Path]) -> None:
    found = {row["id"]: row["margin"] for row in rows(one["critique"], "critique")}
    pairs = [(name, f"{name.partition('#')[0]}#again") for name in found if not name.endswith("#again")]
    both = [(found[name], found[again]) for name, again in pairs if again in found]
    assert both
    assert all(margin != other for margin, other in both)


def test_which_answer_comes_first_follows_the_seed(one: dict[Any, Path]) -> None:
    first, other = (rows(one[kind], "critique") for kind in ("critique", "critique, other seed"))
    assert [row["id"] for row in first] == [row["id"] for row in other]
    assert [row["first"] for row in first] != [row["first"] for row in other]
    assert min(Counter(row["first"] for row in first).values()) > 2


def test_of_equal_answers_none_is_better(one: dict[Any, Path]) -> None:
    assert rows(one["critique of equals"], "critique") == []


# ---------------------------------------------------------------------------------------------------------------------
# Killed and resumed


def blocks(node: Node, home: Path) -> dict[str, bytes]:
    folder = node.artefact(Store(home)).partial / "blocks"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[0-9]*.jsonl"))}


def run_until(home: Path, node: Node, reached: Callable[[], bool], ranks: int = 1) -> Any:
    job = harness.start(home, [node], ranks)
    status = harness.finish(job, until=reached)
    assert status is None, f"ended too early with {status}\n{harness.output(home, [node])}"
    return job


def test_killed_and_stopped_it_writes_the_same_file(world: World, one: dict[Any, Path], tmp_path: Path) -> None:
    """SIGKILL after a block, SIGTERM after another, and an end on two ranks, each from what was finished before."""
    node = world.answers("sample", block=1)
    job = run_until(tmp_path, node, lambda: bool(blocks(node, tmp_path)))
    job.end(grace=0)
    assert {process.returncode for process in job.processes} == {-signal.SIGKILL}
    first = blocks(node, tmp_path)
    job = run_until(tmp_path, node, lambda: len(blocks(node, tmp_path)) > len(first))
    job.ask()
    assert harness.finish(job) == Interrupted.exit_code
    second = blocks(node, tmp_path)
    assert 1 <= len(first) < len(second) < len(world.asked)
    assert first.items() <= second.items()
    (folder,) = harness.compute(tmp_path, [node], ranks=2)
    assert content(folder) == content(one["sample one by one"])
    path = node.artefact(Store(tmp_path)).attempts / "3" / "events.jsonl"
    done = [row["done"] for row in events(path) if row["event"] == "progress"]
    assert done, "the last attempt goes on"
    assert min(done) > len(second)


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


def run(module: Any, node: Node, folder: Path) -> None:
    """A stage in this process."""
    inputs = {role: entry.path for role, entry in node.inputs.items() if isinstance(entry, Outside)}
    (folder / "out").mkdir()
    nothing = lambda *_, **__: None  # noqa: E731
    places = (folder / "out", folder / "partial", folder / "cache")
    module.run(StageContext(node.spec, inputs, *places, Rank(), Execution(), nothing, nothing))


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_computed(world: World, tmp_path: Path) -> None:
    """The model's context is 256 tokens. The last record's prompt is the long one."""
    record = next(record for record in reversed(world.records) if record.portion == "stage2")
    long = replace(record, id="long#0", prompt="ball " * 240)
    write_records(tmp_path / "records.jsonl", [*world.records, long])
    node = world.answers("greedy", block=1)
    node = replace(node, inputs={**node.inputs, "pairs": Outside(tmp_path, "long")})
    name = f"{record.image} ({question_id(long.image, long.prompt)})"
    found = r"\d+ tokens \(\d+ of image and prompt, 8 of response\), but the limit is 256"
    with pytest.raises(DataError, match=f"record '{re.escape(name)}': {found}"):
        run(answers, node, tmp_path)
    assert not (tmp_path / "partial" / "blocks").exists()


def test_answers_too_long_for_the_critique_are_left_out_and_change_no_other(
    world: World, one: dict[Any, Path], tmp_path: Path
) -> None:
    """The model's context is 256 tokens. The truth is shown, and of every third record it is too long."""
    portion = [record for record in world.records if record.portion == "stage2"]
    long = {record.id: replace(record, chosen="ball " * 240) for record in portion[::3]}
    write_records(tmp_path / "records.jsonl", [long.get(record.id, record) for record in world.records])
    inputs = {**world.inputs(), "pairs": tmp_path, "greedy": one["greedy"], "sampled": one["sample"]}
    part = {"greedy": PARTS["greedy"], "sampled": PARTS["sample"], "prompt": WHICH, "block": 4}
    spec = {"policy": POLICY, "portion": "stage2", "part": part}
    run(critique, harness.node("critique", spec, inputs), tmp_path)
    found, expected = rows(tmp_path / "out", "critique"), rows(one["critique"], "critique")
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    left_out = [row for row in found if row["id"] in long]
    assert len(left_out) > 2
    assert all((row["better"], row["margin"]) == (None, None) for row in left_out)
    judged = [[row for row in own if row["id"] not in long] for own in (found, expected)]
    assert without_numbers(judged[0]) == without_numbers(judged[1])
    assert numbers(judged[0]) == pytest.approx(numbers(judged[1]), abs=1e-4)


def test_where_nothing_fits_there_is_no_verdict(world: World, one: dict[Any, Path], tmp_path: Path) -> None:
    part = {"greedy": PARTS["greedy"], "sampled": PARTS["sample"], "prompt": f"{'ball ' * 240} {WHICH}"}
    inputs = {**world.inputs(), "greedy": one["greedy"], "sampled": one["sample"]}
    run(critique, harness.node("critique", {"policy": POLICY, "portion": "stage2", "part": part}, inputs), tmp_path)
    assert {row["better"] for row in rows(tmp_path / "out", "critique")} == {None}


def test_pairs_that_are_judged_are_read_when_they_are_asked_for(world: World, one: dict[Any, Path]) -> None:
    portion = [record for record in world.records if record.portion == "stage2"]
    pairs = critique.Pairs(portion, {role: AnswersOf(one[kind]) for role, kind in ROLES.items()})
    expected = compared(world, one)
    judged = [row["id"] for row in rows(one["critique"], "critique")]
    assert len(pairs) == len(judged)
    assert [record.id for record, _ in pairs] == [record.id for record, _ in pairs[:]] == judged
    assert list(pairs) == [expected[name] for name in judged]
    assert pairs[2:4] == [pairs[2], pairs[3]]
    assert {type(value) for value in vars(pairs).values()} == {list, dict, array}, "places, and what it was given"


# ---------------------------------------------------------------------------------------------------------------------
# Noise


def kept(step: int) -> float:
    """a_t by plain sums: the product of 1 - beta over the steps up to t."""
    betas = [
        (0.005 - 1e-5) / (1 + math.exp(6 - 12 * number / 999)) + 1e-5  # sigmoid(-6 + 12 number / 999)
        for number in range(step + 1)
    ]
    return math.prod(1 - beta for beta in betas)


@pytest.mark.parametrize(("step", "rounded"), [(0, 1.0), (500, 0.745), (800, 0.219), (999, 0.081)])
def test_the_picture_that_is_left_and_the_noise_follow_the_schedule(step: int, rounded: float) -> None:
    """x = 2 everywhere leaves 2 sqrt(a) as mean and sqrt(1 - a) as deviation; 3 x 200 x 200 pixels.

    The integral of beta gives log a as -0.005 * 1000 / 12 * log(1 + exp(12 t / 1000 - 6)) - 1e-5 t, nearly.
    """
    found = noised({"pixel_values": torch.full((1, 3, 200, 200), 2.0)}, step, "a.png", 1)["pixel_values"]
    share = kept(step)
    assert share == pytest.approx(rounded, abs=0.002)
    deviation = math.sqrt(1 - share)
    assert float(found.mean()) == pytest.approx(2 * math.sqrt(share), abs=5 * deviation / 120_000**0.5)
    assert float(found.std()) == pytest.approx(deviation, rel=0.02)


def test_noise_is_drawn_by_name_and_scaled_by_step() -> None:
    """The same e at all steps: (noised - sqrt(a) x) / sqrt(1 - a)."""
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def drawn(name: str, step: int) -> torch.Tensor:
        found = noised({"pixel_values": pixels, "input_ids": torch.ones(1, 4)}, step, name, 1)
        assert torch.equal(found["input_ids"], torch.ones(1, 4))
        return (found["pixel_values"] - math.sqrt(kept(step)) * pixels) / math.sqrt(1 - kept(step))

    assert torch.allclose(drawn("a", 500), drawn("a", 800), atol=1e-5)
    assert (drawn("a", 500) - drawn("b", 500)).abs().mean() > 0.5
    assert not torch.allclose(*drawn("a", 500))  # tiles have noise of their own


def test_both_temporal_copies_of_a_still_image_have_one_noise(tmp_path: Path) -> None:
    """Qwen2.5-VL's own rows: channel, copy, 14 x 14 pixels. The picture's two copies are equal, and must stay so."""
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=56 * 56 * 4)
    assert (processor.temporal_patch_size, processor.patch_size) == (2, 14)
    picture = Image.effect_noise((112, 84), 80).convert("RGB")
    encoded = dict(processor(images=[picture], return_tensors="pt"))
    found = noised(encoded, 800, "a.png", 2)["pixel_values"]
    rows = (len(found), 3, 2, 14, 14)
    before, after = encoded["pixel_values"].view(rows), found.view(rows)
    assert torch.equal(before[:, :, 0], before[:, :, 1])
    assert torch.equal(after[:, :, 0], after[:, :, 1])
    difference = (after - math.sqrt(kept(800)) * before)[:, :, 0] / math.sqrt(1 - kept(800))
    assert float(difference.std()) == pytest.approx(1, rel=0.05)
    assert torch.equal(encoded["pixel_values"].view(rows), before), "what it was made of stays"


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def collators(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Collator]:
    """Makes collators of a family, each as a process of its own would."""
    folder = tmp_path_factory.mktemp(request.param)
    families.BUILDERS[request.param](folder / "model", ["a red ball", "Describe the image."] * 10, 1)
    for number, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (32, 64), (50 * number, 90, 130)).save(folder / name)
    return lambda: Collator(load_policy_processor(Policy(dtype="float32"), folder / "model"), folder, 512)


def test_an_image_has_the_same_noise_whenever_it_is_opened(collators: Callable[[], Collator]) -> None:
    view = View(noise=500)
    one, other = collators(), collators()
    expected = one.prefix("a.png", "Describe the image.", view)["pixel_values"]
    assert torch.equal(one.prefix("a.png", "What colour?", view)["pixel_values"], expected)
    other.prefix("b.png", "Describe the image.", view)
    assert torch.equal(other.prefix("a.png", "Describe the image.", view)["pixel_values"], expected)
    assert torch.equal(one.prefix("a.png", "Describe the image.", view)["pixel_values"], expected), "from memory"


def test_other_images_have_other_noise_and_other_steps_other_shares(collators: Callable[[], Collator]) -> None:
    collator = collators()

    def noise(image: str, step: int) -> torch.Tensor:
        clean, seen = (collator.prefix(image, "?", view)["pixel_values"] for view in (View(), View(noise=step)))
        return (seen - math.sqrt(kept(step)) * clean) / math.sqrt(1 - kept(step))

    assert torch.allclose(noise("a.png", 500), noise("a.png", 900), atol=1e-4)
    assert (noise("a.png", 500) - noise("b.png", 500)).abs().mean() > 0.5


# ---------------------------------------------------------------------------------------------------------------------
# What fits


def test_a_prompt_of_many_records_is_counted_once(
    collators: Callable[[], Collator], monkeypatch: pytest.MonkeyPatch
) -> None:
    collator, asked = collators(), []
    count = collator.processor.apply_chat_template
    monkeypatch.setattr(
        collator.processor, "apply_chat_template", lambda *given, **more: asked.append(given) or count(*given, **more)
    )
    prompts = ["What colour?", "Describe the image."] * 20
    collator.check_prompts([Sample(str(n), "a", "a.png", prompt, "") for n, prompt in enumerate(prompts)], 8)
    assert len(asked) == 2


def test_what_fits_is_image_prompt_and_the_longest_response(collators: Callable[[], Collator]) -> None:
    collator = collators()
    sample = Sample("a", "a", "a.png", "What colour?", "red")
    length = collator.group(sample, ["red red red"]).length
    collator.context = length
    assert collator.fits(sample, ("red", "red red red"))
    collator.context = length - 1
    assert not collator.fits(sample, ("red", "red red red"))
    assert collator.fits(sample, ("red", "red"))
