"""Benchmarks of a generated world: genuine files, read by the real readers, with answers that are true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import pytest

from cwdpo.base import files
from cwdpo.base.config import validate
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.store import Store
from cwdpo.data.demo_benchmarks import FORMATS, format_of
from cwdpo.data.demo_benchmarks.scenes import read_scenes
from cwdpo.data.records import read_records
from cwdpo.evaluate.benchmarks import PREPARABLE
from cwdpo.evaluate.benchmarks.benchmark import Questions, read_questions
from cwdpo.evaluate.judging.judged import NO_JUDGE, Judged
from cwdpo.evaluate.question import Answered, Question, Scores
from cwdpo.experiment import Experiment, evaluated_unnamed
from cwdpo.graph import Node, Wired, in_order
from cwdpo.pipeline import Wiring

WORLD = {"train": 0, "val": 0, "test": 30, "seed": 7}
DATA = {"source": "demo_world", "world": WORLD}
FEW = {**WORLD, "test": 4}
BIASED = {**WORLD, "biases": [{"word": "red", "written_as": "blue"}]}
KINDS = [name for name, kind in PREPARABLE.items() if issubclass(kind, Questions)]
JUDGED = [name for name in KINDS if issubclass(PREPARABLE[name], Judged)]
BY_RULES = [name for name in KINDS if name not in JUDGED]


@dataclass(frozen=True)
class Made:
    """A home with the questions of every benchmark, and the experiment that they are wired for."""

    home: Path
    wired: Wired
    asked: Experiment


def experiment(benchmarks: list[dict[str, Any]]) -> Experiment:
    return validate(Experiment, {"model": {"source": "tiny"}, "benchmarks": benchmarks}, "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A home in which nothing was prepared, with the questions of every benchmark about one world."""
    home = tmp_path_factory.mktemp("demo")
    asked = experiment([{"name": name, "data": DATA} for name in (*KINDS, "nocaps")])
    assert evaluated_unnamed(asked) == []
    wired = Wiring(home / "digests").wire(asked)
    asking: list[Any] = [score.inputs["generate"] for score in wired.scores.values()]
    harness.compute(
        home, in_order(node.inputs["questions" if "questions" in node.inputs else "pairs"] for node in asking)
    )
    return Made(home, wired, asked)


def inputs_of(made: Made, name: str) -> dict[str, Path]:
    """Folders that `generate` reads of what the benchmark asks about."""
    generate = made.wired.scores[name].inputs["generate"]
    store = Store(made.home)
    return {role: generate.inputs[role].artefact(store).files for role in ("questions", "pairs", "images")
            if role in generate.inputs}  # fmt: skip


def benchmark_of(made: Made, name: str) -> Questions:
    return next(one for one in made.asked.benchmarks if one.name == name)


def asked_in(made: Made, name: str) -> list[Question]:
    return read_questions(inputs_of(made, name)["questions"])


@pytest.fixture(scope="module")
def told(made: Made) -> dict[bytes, str]:
    """Canonical sentence by the bytes of an image."""
    world = next(node for node in made.wired.nodes() if node.stage.name == "world" and node.spec.seed == 7)
    folder = world.artefact(Store(made.home)).files
    images = files.read_json(folder / "dataset_coco.json")["images"]
    return {
        (folder / "images" / one["filepath"] / one["filename"]).read_bytes(): one["sentences"][0]["raw"]
        for one in images
    }


# ---- what is made


def test_every_benchmark_can_be_made() -> None:
    assert set(FORMATS) == {*KINDS, "nocaps"}


@pytest.mark.parametrize("name", KINDS)
def test_its_files_are_read_as_a_download_is(made: Made, name: str) -> None:
    found = asked_in(made, name)
    assert 12 <= len(found) <= 40
    images = inputs_of(made, name)["images"]
    assert all((images / image).is_file() for question in found for image in question.images)
    assert all(question.images for question in found)
    kinds = {question.images for question in found}
    assert len(kinds) >= 6, "not all about the same picture"
    notes = files.read_json(inputs_of(made, name)["questions"] / "summary.json")["unlike_published"]
    assert notes[0] == "it asks about generated scenes"
    assert len(notes) > 1 or not (PREPARABLE[name].published or PREPARABLE[name].checksums), "nor are there as many"


# ---- what answers are worth


def perfect(name: str, question: Question) -> str:
    """A true answer in the form that the rules want, made of what they score by."""
    truth = question.truth
    if name == "chair":
        return " and ".join(f"an {one}" for one in truth["objects"]) or "nothing"
    for key in ("label", "answer", "letter"):
        if key in truth:
            return str(truth[key])
    return str(truth["answers"][0])


def wrong(name: str, question: Question) -> str:
    """An answer that is not true."""
    right = perfect(name, question)
    other = {"yes": "no", "no": "yes", "A": "B", "B": "A", "C": "A", "D": "A"}
    return "an orange" if name == "chair" else other.get(right, "a house")


def scored(made: Made, name: str, answer: Any) -> Scores:
    benchmark = benchmark_of(made, name)
    return benchmark.score([
        Answered(question, answer(name, question), later=(answer(name, question),) * (len(item.later)))
        for question, item in ((one, benchmark.prompted(one)) for one in asked_in(made, name))
    ])  # fmt: skip


BEST = {
    "chair": {"chair_i": 0, "chair_s": 0, "recall": 1},
    "mme": {"perception": 2000, "cognition": 800},  # 200 points for each of ten and four tasks
    "pope": {"yes": 0.5},  # one object that is there and one that is not
}
"""Where not everything is 1."""


@pytest.mark.parametrize("name", BY_RULES)
def test_true_answers_get_everything_and_others_less(made: Made, name: str) -> None:
    metrics = benchmark_of(made, name).metrics
    best, worse = scored(made, name, perfect), scored(made, name, wrong)
    assert {one.key: best.corpus[one.key] for one in metrics} == pytest.approx(
        {one.key: BEST.get(name, {}).get(one.key, 1) for one in metrics}
    )
    first = metrics[0]
    assert (worse.corpus[first.key] < best.corpus[first.key]) == first.higher
    assert worse.corpus[first.key] != best.corpus[first.key]


@pytest.mark.parametrize("name", JUDGED)
def test_what_a_judge_rates_says_that_there_is_none(made: Made, name: str) -> None:
    found = scored(made, name, lambda *_: "A red circle.")
    assert {found.unavailable[one.key] for one in benchmark_of(made, name).metrics if one.judged} == {NO_JUDGE}


# ---- whether they are true: a scene's canonical sentence says all of it


def sentence_of(made: Made, told: dict[bytes, str], name: str, question: Question) -> str:
    return told[(inputs_of(made, name)["images"] / question.images[0]).read_bytes()]


def test_objects_are_there_where_the_label_says_so(made: Made, told: dict[bytes, str]) -> None:
    for question in asked_in(made, "pope"):
        thing = question.asked["question"].removeprefix("Is there a").removesuffix(" in the image?").split(" ", 1)[1]
        there = thing in sentence_of(made, told, "pope", question)
        assert question.truth["label"] == ("yes" if there else "no"), question


@pytest.mark.parametrize("name", ["gqa", "textvqa", "own", "mm_vet", "mmhal"])
def test_open_answers_are_in_the_sentence(made: Made, told: dict[bytes, str], name: str) -> None:
    seen = set()
    for question in asked_in(made, name):
        text = question.asked.get("question") or question.asked["turns"][-1]
        sentence = sentence_of(made, told, name, question)
        answer = perfect(name, question).rstrip(".")
        if text.lower() == "how many things are there?":
            first = sentence.split()[0]
            two = " above " in sentence or " of a" in sentence
            assert answer == ("two" if two else first if first in ("two", "three", "four") else "one")
        elif text.startswith(("What", "what", "Where", "where")):
            assert answer in sentence, (text, sentence)
        seen.add(text.split()[1])
    assert {"colour", "shape", "size", "many"} <= seen or name == "gqa"


def test_claims_hold_where_the_answer_is_yes(made: Made, told: dict[bytes, str]) -> None:
    """But for numbers and sides, which the sentence says in other words."""
    checked = 0
    for question in asked_in(made, "mme"):
        claim = question.asked["question"].removesuffix("? Please answer yes or no.")
        if claim.startswith("Is the number") or "the thing" in claim:
            continue
        value = claim.rpartition(" the ")[2] if claim.startswith("Is the place") else claim.split()[-1]
        assert (value in sentence_of(made, told, "mme", question)) == (question.truth["answer"] == "yes"), claim
        checked += 1
    assert checked >= 12


def test_what_is_called_orange_is_all_that_chair_knows(made: Made, told: dict[bytes, str]) -> None:
    found = asked_in(made, "chair")
    for question in found:
        orange = "orange" in sentence_of(made, told, "chair", question)
        assert question.truth["objects"] == (["orange"] if orange else [])
    assert {len(question.truth["objects"]) for question in found} == {0, 1}


def test_domains_of_captions_are_kinds_of_scenes(made: Made, told: dict[bytes, str]) -> None:
    folders = inputs_of(made, "nocaps")
    records = read_records(folders["pairs"] / "records.jsonl")
    assert len(records) == 30
    assert {record.split for record in records} == {"val"}
    for record in records:
        sentence = told[(folders["images"] / record.image).read_bytes()]
        assert record.references[0] == sentence
        assert len(record.references) == 5
        several = sentence.split()[0] in ("two", "three", "four")
        related = " above " in sentence or " to the left of " in sentence
        assert record.domain == ("near-domain" if several else "out-domain" if related else "in-domain")
    assert len({record.domain for record in records}) == 3


# ---- what it depends on


def content_of(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): files.sha256_file(path) for path in paths}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_world_gives_the_same_bytes(made: Made, name: str, tmp_path: Path) -> None:
    nodes = {node.stage.name: node for node in _demo_nodes(made, name)}
    store = Store(made.home)
    scenes = read_scenes(nodes["world"].artefact(store).files)
    format_of({"name": name}).write(scenes, tmp_path)
    assert content_of(tmp_path) == content_of(nodes["demo_benchmark"].artefact(store).files)


def _demo_nodes(made: Made, name: str) -> Iterator[Node]:
    asked = made.wired.scores[name].inputs["generate"].inputs
    files_of = asked.get("questions", asked["images"])
    while files_of.stage.name != "world":
        yield files_of
        files_of = files_of.inputs.get("data")
    yield files_of


def test_settings_decide_the_names_of_files(made: Made, tmp_path: Path) -> None:
    settings = [{"name": "mmbench", "version": "1.0"}, {"name": "own", "file": "mine.jsonl"}]
    wired = Wiring(tmp_path / "digests").wire(experiment([{**one, "data": DATA} for one in settings]))
    names = [node for node in wired.nodes() if node.stage.name == "demo_benchmark"]
    scenes = read_scenes([*_demo_nodes(made, "own")][-1].artefact(Store(made.home)).files)
    for node in names:
        node.spec.benchmark.write(scenes, tmp_path / "made")
    assert {"MMBench_DEV_EN.tsv", "mine.jsonl"} <= {path.name for path in (tmp_path / "made").iterdir()}


def test_benchmarks_share_a_world_and_a_limit_or_a_prompt_no_questions(tmp_path: Path) -> None:
    wiring = Wiring(tmp_path / "digests")
    asked = [{"name": name, "data": DATA} for name in ("pope", "mme")]
    whole = wiring.wire(experiment(asked)).nodes()
    few = wiring.wire(experiment([{**one, "limit": 3, "prompt": "{question}!"} for one in asked])).nodes()
    assert [node.stage.name for node in whole].count("world") == 2, "that of the model and that of both benchmarks"
    for stage in ("demo_benchmark", "questions"):
        ids = [{node.id for node in nodes if node.stage.name == stage} for nodes in (whole, few)]
        assert ids[0] == ids[1]
        assert len(ids[0]) == 2


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("pope", {**DATA, "limit": 5}, r"benchmarks\.0\.data\.limit: unknown key 'limit'; valid: source, world"),
        ("pope", {**DATA, "world": FEW}, r"benchmarks\.0\.data: world\.test: .* 4 are too few, valid: 12 or more$"),
        ("nocaps", {**DATA, "world": FEW}, r"benchmarks\.0: data\.world\.test: .* 4 are too few, valid: 12 or more$"),
        ("pope", {**DATA, "world": BIASED}, r"benchmarks\.0\.data: world\.biases: .* must be free of errors$"),
    ],
)
def test_a_world_that_cannot_be_asked_about_is_refused(name: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment([{"name": name, "data": data}])


def test_other_files_than_a_worlds_are_refused(tmp_path: Path) -> None:
    image = {"filename": "a.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "a dog on a sofa"}]}
    files.write_json(tmp_path / "dataset_coco.json", {"images": [image]})
    with pytest.raises(DataError, match="image 0: 'a dog on a sofa' is no canonical sentence of a generated scene"):
        read_scenes(tmp_path)
