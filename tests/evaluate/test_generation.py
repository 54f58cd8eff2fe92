"""Generation and reference passes write the same file however they are spread, and whenever they are killed."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
from harness import Micro
from PIL import Image

from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, Interrupted
from cwdpo.base.files import read_json, read_jsonl, write_json, write_jsonl
from cwdpo.base.store import Store
from cwdpo.data.records import read_records
from cwdpo.evaluate.question import Question
from cwdpo.graph import Node
from cwdpo.jobs.events import events
from cwdpo.model.config import Lora, Policy
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import GumbelNoise
from cwdpo.model.load import add_lora, load_model
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

ITEMS = 13  # of the test split: blocks of 4 leave a ragged one, and two ranks share four blocks
SIZES = ((64, 64), (64, 128), (96, 96))
# Images of 16, 32 and 36 tokens, so that blocks hold rows of different lengths.
POLICY = {"dtype": "float32", "min_pixels": 1024, "max_pixels": 16384}
GREEDY = {"max_new_tokens": 10, "block": 4}
BEAM = {"strategy": "beam", "beams": 4, "candidates": 3, **GREEDY}
SAMPLE = {"strategy": "sample", "temperature": 1.5, "top_p": 0.9, **GREEDY}
IMAGES = (1, 2, 0, 3, 0, 0, 0, 0, 2, 1, 0, 1, 1)  # of each question; the second block has none
LONG = 10  # the question that is too long
SPREAD = {
    "replicate": {"inference": "replicate"},
    "zero3": {"inference": "zero3"},
    "tensor_parallel": {"inference": "tensor_parallel", "replica_size": 2},
}


@dataclass(frozen=True)
class World:
    """The micro world with images of several sizes, and an adapter that makes every answer another.

    The model has parameters of more than 100,000 numbers; smaller ones ZeRO-3 does not partition at all.
    """

    micro: Micro
    images: Path
    adapter: Path

    def inputs(self, **more: Path) -> dict[str, Path]:
        return self.micro.inputs(adapter=self.adapter, **more) | {"images": self.images}

    def generate(self, decoding: dict[str, Any], label: str, seed: int = 0, **execution: Any) -> Node:
        spec = {"policy": POLICY, "seed": seed, "benchmark": {"name": "captions", "decoding": decoding}}
        return harness.node("generate", spec, self.inputs(), label, **execution)

    def ask(self, questions: Path, label: str, block: int = 4, **execution: Any) -> Node:
        benchmark = {"name": "pope", "prompt": "{question}", "decoding": {**GREEDY, "block": block}}
        spec = {"policy": POLICY, "benchmark": benchmark}
        return harness.node("generate", spec, self.inputs(questions=questions), label, **execution)

    def reference(self, label: str, **execution: Any) -> Node:
        """15 samples in blocks of 4, one a forward pass: under ZeRO-3 the ragged block has fewer passes than others."""
        inputs = self.inputs(negatives=self.micro.negatives2)
        return harness.node(
            "reference", {"policy": POLICY, "block": 4}, inputs, label, **{"micro_batch": 1, **execution}
        )


@pytest.fixture(scope="module")
def world(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    records = read_records(micro.pairs / "records.jsonl")
    names = sorted({record.image for record in records})
    for number, name in enumerate(names):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(micro.images / name) as image:
            image.resize(SIZES[number % 3]).save(folder / "images" / name)
    texts = [text for record in records for text in (record.chosen, record.prompt)]
    build_tiny_qwen(TinyQwen(intermediate_size=1024), texts, folder / "model", seed=0)
    micro = replace(micro, model=folder / "model")
    model = add_lora(load_model(Policy(dtype="float32"), micro.model), Lora(rank=4, alpha=8), 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    model.save_pretrained(folder / "adapter")
    return World(micro, folder / "images", folder / "adapter")


@pytest.fixture(scope="module")
def questions(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About one image, several and none, so that whole blocks are without; one leaves no room for an answer."""
    folder = tmp_path_factory.mktemp("questions")
    found = read_records(world.micro.pairs / "records.jsonl")
    names = sorted({record.image for record in found})
    texts = list(dict.fromkeys(record.chosen for record in found))
    write_jsonl(
        folder / "questions.jsonl",
        (
            Question(
                f"random/{number}", tuple(names[number : number + IMAGES[number]]),
                {"question": " ".join(texts[number :][:60 if number == LONG else 1])}, {"label": "yes"}, "random",
            ).row()
            for number in range(len(IMAGES))
        ),
    )  # fmt: skip
    return folder


def spread_nodes(world: World, questions: Path) -> dict[Any, Node]:
    nodes: dict[Any, Node] = {}
    for how, execution in SPREAD.items():
        nodes["questions", how] = world.ask(questions, how, **execution)
        nodes["greedy", how] = world.generate(GREEDY, how, **execution)
        nodes["beam", how] = world.generate(BEAM, how, **execution)
        nodes["sample", how] = world.generate(SAMPLE, how, **execution)
        nodes["reference", how] = world.reference(how, **execution)
    return nodes


@pytest.fixture(scope="module")
def one(world: World, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Everything one rank computes, in one job."""
    nodes = {
        "greedy": world.generate(GREEDY, ""),
        "greedy one by one": world.generate({**GREEDY, "block": 1}, ""),
        "beam": world.generate(BEAM, ""),
        "beam one by one": world.generate({**BEAM, "block": 1}, ""),
        "sample": world.generate(SAMPLE, ""),
        "sample one by one": world.generate({**SAMPLE, "block": 1}, ""),
        "sample, other seed": world.generate(SAMPLE, "", seed=1),
        "sample, three": world.generate({**SAMPLE, "candidates": 3}, ""),
        "sample, nothing left to draw": world.generate({**SAMPLE, "top_p": 1e-6}, ""),
        "sample, cold": world.generate({**SAMPLE, "top_p": 1.0, "temperature": 1e-4}, ""),
        "reference": world.reference(""),
        "reference, larger": world.reference("larger", micro_batch=4),
        "zero3": world.generate(GREEDY, "zero3", inference="zero3"),
        "captions in small batches": world.generate(GREEDY, "small batches", micro_tokens=120),
        "questions": world.ask(questions, ""),
        "questions one by one": world.ask(questions, "", block=1),
        "questions in small batches": world.ask(questions, "small batches", micro_tokens=150),
    }
    home = tmp_path_factory.mktemp("one")
    return dict(zip(nodes, harness.compute(home, list(nodes.values())), strict=True))


@pytest.fixture(scope="module")
def two(world: World, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Every kind of pass under every way to spread it over two ranks, in one job."""
    nodes = spread_nodes(world, questions)
    home = tmp_path_factory.mktemp("two")
    return dict(zip(nodes, harness.compute(home, list(nodes.values()), ranks=2), strict=True))


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "generations.jsonl"))


def texts(folder: Path) -> list[list[str]]:
    return [row.get("candidates", [row["text"]]) for row in rows(folder)]


def content(folder: Path) -> bytes:
    return (folder / "generations.jsonl").read_bytes()


# ---------------------------------------------------------------------------------------------------------------------
# Spread over ranks


@pytest.mark.parametrize("how", sorted(SPREAD))
@pytest.mark.parametrize("kind", ["greedy", "beam", "sample", "questions"])
def test_two_ranks_write_the_file_of_one(one: dict[Any, Path], two: dict[Any, Path], kind: str, how: str) -> None:
    assert content(two[kind, how]) == content(one[kind])


def test_one_rank_under_zero3_writes_the_same_file(one: dict[Any, Path]) -> None:
    assert content(one["zero3"]) == content(one["greedy"])


def test_two_tensor_parallel_replicas_write_the_same_file(world: World, one: dict[Any, Path], tmp_path: Path) -> None:
    """Four ranks: replicas {0, 1} and {2, 3} take turns with the blocks."""
    nodes = [world.generate(decoding, "four", **SPREAD["tensor_parallel"]) for decoding in (GREEDY, SAMPLE)]
    greedy, sample = harness.compute(tmp_path, nodes, ranks=4)
    assert content(greedy) == content(one["greedy"])
    assert content(sample) == content(one["sample"])


def test_small_batches_write_the_same_file(one: dict[Any, Path]) -> None:
    """What memory allows is no part of what is asked."""
    assert content(one["captions in small batches"]) == content(one["greedy"])
    assert content(one["questions in small batches"]) == content(one["questions"])
    assert content(one["questions one by one"]) == content(one["questions"])


def logps(folder: Path) -> tuple[list[str], list[float]]:
    found = list(read_jsonl(folder / "reference.jsonl"))
    return [row["id"] for row in found], [value for row in found for value in (row["chosen"], *row["rejected"])]


@pytest.mark.parametrize("how", sorted(SPREAD))
def test_two_ranks_score_the_reference_as_one_does(one: dict[Any, Path], two: dict[Any, Path], how: str) -> None:
    (ids, values), (expected_ids, expected) = logps(two["reference", how]), logps(one["reference"])
    assert ids == expected_ids
    assert values == pytest.approx(expected, abs=1e-3, rel=1e-5)
    assert len({round(value, 3) for value in values}) > len(ids)


def test_the_micro_batch_does_not_change_the_reference(one: dict[Any, Path]) -> None:
    assert logps(one["reference, larger"])[1] == pytest.approx(logps(one["reference"])[1], abs=1e-3, rel=1e-5)
    assert len(logps(one["reference"])[0]) % 4, "the last block is ragged"


# ---------------------------------------------------------------------------------------------------------------------
# What one rank writes


def test_every_item_is_answered_once_and_differently(world: World, one: dict[Any, Path]) -> None:
    expected = [r.image_id for r in read_records(world.micro.pairs / "records.jsonl") if r.split == "test"]
    found = rows(one["greedy"])
    assert [row["id"] for row in found] == list(dict.fromkeys(expected))
    assert len(found) == ITEMS
    assert len({row["text"] for row in found}) > ITEMS // 2, "the fixtures can tell items apart"
    assert all(1 <= row["tokens"] <= 10 for row in found)
    assert all(row["tokens"] == 10 for row in found if row["truncated"])


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_an_answer_does_not_depend_on_the_rest_of_its_block(one: dict[Any, Path], kind: str) -> None:
    """Blocks of 4 are padded on the left, blocks of 1 are not; each item draws from a generator of its own."""
    assert texts(one[kind]) == texts(one[f"{kind} one by one"])


def test_questions_have_any_number_of_images_and_none_is_lost(one: dict[Any, Path]) -> None:
    found = rows(one["questions"])
    assert [row["id"] for row in found] == [f"random/{number}" for number in range(len(IMAGES))]
    assert [row["image"] != "" for row in found] == [count > 0 for count in IMAGES]
    assert [number for number, row in enumerate(found) if "fault" in row] == [LONG]
    assert re.fullmatch(r"the prompt takes \d+ tokens, the context 256: no room for an answer", found[LONG]["fault"])
    assert (found[LONG]["text"], found[LONG]["tokens"]) == ("", 0)
    assert all(row["tokens"] > 0 for number, row in enumerate(found) if number != LONG)
    assert len({row["text"] for row in found}) > ITEMS // 2, "the fixtures can tell items apart"


def test_captions_have_the_rows_they_always_had(one: dict[Any, Path]) -> None:
    """Who scores captions reads no line breaks, so that files stay what they were."""
    plain = ["id", "image", "text", "tokens", "truncated"]
    assert {tuple(row) for row in rows(one["greedy"])} == {tuple(plain)}
    assert {tuple(row) for row in rows(one["beam"])} == {(*plain[:4], "candidates", plain[4])}


def test_beam_search_keeps_its_candidates_best_first(one: dict[Any, Path]) -> None:
    found = rows(one["beam"])
    assert all(len(row["candidates"]) == 3 and row["text"] == row["candidates"][0] for row in found)
    assert sum(len(set(row["candidates"])) == 3 for row in found) > ITEMS // 2
    assert texts(one["beam"]) != texts(one["greedy"])


def test_sampling_follows_its_seed(one: dict[Any, Path]) -> None:
    assert texts(one["sample"]) != texts(one["greedy"])
    assert texts(one["sample"]) != texts(one["sample, other seed"])


def test_sampling_without_choice_is_greedy(one: dict[Any, Path]) -> None:
    """top_p so small that one token is left, and temperature so low that noise cannot reach over."""
    assert texts(one["sample, nothing left to draw"]) == texts(one["greedy"])
    assert texts(one["sample, cold"]) == texts(one["greedy"])


def test_several_samples_of_one_item_differ(one: dict[Any, Path]) -> None:
    found = texts(one["sample, three"])
    assert all(len(candidates) == 3 for candidates in found)
    assert sum(len(set(candidates)) > 1 for candidates in found) > ITEMS // 2
    assert [candidates[:1] for candidates in found] == texts(one["sample"]), "asking for more changes none"


def test_settings_say_what_made_the_answers(one: dict[Any, Path]) -> None:
    settings = read_json(one["sample"] / "settings.json")
    assert settings["decoding"]["temperature"] == 1.5
    assert settings["image_size"] == {"shortest_edge": 1024, "longest_edge": 16384}
    assert settings["dtype"] == "float32"


def test_gumbel_noise_samples_from_the_distribution() -> None:
    """Arg-max of logits plus noise: p = (0.5, 0.3, 0.2) is met within five standard errors of 4,000 draws.

    With top_p 0.7 the third token goes and the rest is renormalised: 0.625 and 0.375.
    """
    scores = torch.tensor([[0.5, 0.3, 0.2]]).log()
    for top_p, expected in ((1.0, [0.5, 0.3, 0.2]), (0.7, [0.625, 0.375, 0.0])):
        noise = GumbelNoise(Decoding(strategy="sample", top_p=top_p), ["x"], seed=0, device="cpu")
        drawn = torch.stack([noise(torch.zeros(1, 1), scores).argmax(-1) for _ in range(4000)]).flatten()
        shares = torch.bincount(drawn, minlength=3) / 4000
        assert shares.tolist() == pytest.approx(expected, abs=5 * 0.5 / 4000**0.5)
        assert top_p == 1.0 or shares[2] == 0


def test_temperature_sharpens_before_noise_is_added() -> None:
    """At temperature 0.5 odds of 2 to 1 become 4 to 1: 0.8 and 0.2."""
    noise = GumbelNoise(Decoding(strategy="sample", temperature=0.5), ["x"], seed=0, device="cpu")
    scores = torch.tensor([[2.0, 1.0]]).log()
    drawn = torch.stack([noise(torch.zeros(1, 1), scores).argmax(-1) for _ in range(4000)]).float()
    assert float(drawn.mean()) == pytest.approx(0.2, abs=5 * 0.4 / 4000**0.5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strategy": "beam", "beams": 2, "candidates": 3}, r"candidates \(3\) exceeds beams \(2\)"),
        ({"candidates": 2}, "greedy decoding has one answer"),
    ],
)
def test_contradicting_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        validate(Decoding, settings, "decoding")


def test_the_checkpoints_own_sampling_settings_do_not_leak(world: World, one: dict[Any, Path], tmp_path: Path) -> None:
    """Released checkpoints carry a repetition penalty and a temperature."""
    model = tmp_path / "model"
    shutil.copytree(world.micro.model, model)
    settings = read_json(model / "generation_config.json")
    leaks = {"do_sample": True, "temperature": 3.0, "top_k": 3, "top_p": 0.5, "repetition_penalty": 2.0, "num_beams": 3}
    write_json(model / "generation_config.json", {**settings, **leaks})
    changed = replace(world, micro=replace(world.micro, model=model))
    nodes = [changed.generate(decoding, "leak") for decoding in (GREEDY, BEAM, SAMPLE)]
    for kind, folder in zip(("greedy", "beam", "sample"), harness.compute(tmp_path, nodes), strict=True):
        assert content(folder) == content(one[kind]), kind


# ---------------------------------------------------------------------------------------------------------------------
# Killed and resumed


def progress(node: Node, home: Path, attempt: int) -> list[int]:
    path = node.artefact(Store(home)).attempts / str(attempt) / "events.jsonl"
    return [row["done"] for row in events(path) if row["event"] == "progress"]


def blocks(node: Node, home: Path) -> dict[str, tuple[int, bytes]]:
    folder = node.artefact(Store(home)).partial / "blocks"
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.glob("[0-9]*.jsonl"))}


def run_until(home: Path, nodes: Sequence[Node], reached: Callable[[], bool], ranks: int = 1) -> Any:
    job = harness.start(home, nodes, ranks)
    status = harness.finish(job, until=reached)
    assert status is None, f"ended too early with {status}\n{harness.output(home, nodes)}"
    return job


def test_killed_and_stopped_it_goes_on_where_it_was(world: World, one: dict[Any, Path], tmp_path: Path) -> None:
    """SIGKILL after a block, SIGTERM after another, and an undisturbed end, each from what was finished before."""
    node = world.generate({**GREEDY, "block": 1}, "")

    job = run_until(tmp_path, [node], lambda: len(blocks(node, tmp_path)) >= 1)
    job.end(grace=0)
    assert {process.returncode for process in job.processes} == {-signal.SIGKILL}
    first = blocks(node, tmp_path)
    assert 1 <= len(first) < ITEMS
    assert node.artefact(Store(tmp_path)).state() == "interrupted"

    job = run_until(tmp_path, [node], lambda: len(blocks(node, tmp_path)) > len(first))
    job.ask()
    assert harness.finish(job) == Interrupted.exit_code
    second = blocks(node, tmp_path)
    assert len(first) < len(second) < ITEMS
    assert {name: second[name] for name in first} == first, "finished blocks are left alone, times included"
    assert progress(node, tmp_path, 2) == list(range(len(first) + 1, len(second) + 1))

    (folder,) = harness.compute(tmp_path, [node])
    assert content(folder) == content(one["greedy one by one"])
    assert progress(node, tmp_path, 3) == list(range(len(second) + 1, ITEMS + 1))
    assert node.artefact(Store(tmp_path)).newest() == 3
    assert not node.artefact(Store(tmp_path)).partial.exists()


def test_questions_killed_after_some_blocks_are_all_there_in_the_end(
    world: World, questions: Path, one: dict[Any, Path], tmp_path: Path
) -> None:
    """Ranks that share the weights take over what one rank began, blocks without an image among it."""
    node = world.ask(questions, "", block=1)
    job = run_until(tmp_path, [node], lambda: len(blocks(node, tmp_path)) >= 3)
    job.end(grace=0)
    first = blocks(node, tmp_path)
    assert 3 <= len(first) < len(IMAGES)
    (folder,) = harness.compute(tmp_path, [world.ask(questions, "", block=1, inference="zero3")], ranks=2)
    assert content(folder) == content(one["questions"])
    done = progress(node, tmp_path, 2)
    assert done[0] > len(first)
    assert done[-1] >= len(IMAGES) - 1, "the first rank may be through before the other has written its last block"


def test_what_one_rank_began_two_finish(world: World, one: dict[Any, Path], tmp_path: Path) -> None:
    """Blocks that a killed rank left, one of them half written, and other ranks under ZeRO-3."""
    node = world.generate({**GREEDY, "block": 1}, "", inference="zero3")
    folder = node.artefact(Store(tmp_path)).partial / "blocks"
    folder.mkdir(parents=True)
    lines = content(one["greedy one by one"]).splitlines(keepends=True)
    for index in (0, 3, 4):
        (folder / f"{index:06d}.jsonl").write_bytes(lines[index])
    (folder / ".000001.jsonl.0badcafe.tmp").write_bytes(lines[1][:10])
    (done,) = harness.compute(tmp_path, [node], ranks=2)
    assert content(done) == content(one["greedy one by one"])
