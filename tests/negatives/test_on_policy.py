"""What each on-policy source makes of the policy's answers: never the truth, never nothing, and who won."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import files
from cwdpo.base.config import validate
from cwdpo.base.context import StageContext
from cwdpo.base.errors import ConfigError, DataError
from cwdpo.base.runtime import Execution, Rank
from cwdpo.base.store import Store
from cwdpo.data.records import Record, Rejected, write_records
from cwdpo.data.samples import load_samples
from cwdpo.experiment import load_grid
from cwdpo.jobs.plan import make_plan
from cwdpo.model.decoding import Decoding
from cwdpo.negatives import stage
from cwdpo.negatives.answers import Answer, Answers, AnswersOf, alike, open_questions, question_id, questions, wrong
from cwdpo.negatives.augmented_image import AugmentedImage
from cwdpo.negatives.beam import Beam
from cwdpo.negatives.critique import Critique, shipped_prompt
from cwdpo.negatives.own_answer import OwnAnswer
from cwdpo.negatives.sample import Sampled
from cwdpo.negatives.self_critic import SelfCritic
from cwdpo.negatives.source import Offer, Source
from cwdpo.negatives.stage import NegativesSpec

BALL = "A red ball."
PROMPT = "Describe the image."


def record(name: str, chosen: str = BALL, references: Sequence[str] = (), prompt: str = PROMPT) -> Record:
    """`name` is image and caption number, as in `3#0`."""
    image = name.partition("#")[0]
    return Record(name, image, f"{image}.jpg", prompt, chosen, (chosen, *references), (), "train", "stage2")


def answered(folder: Path, texts: Mapping[str, Sequence[str]]) -> Path:
    """What a stage `answers` would have written: image -> answers, mean_logp -1, -2 ... in order, the last cut off."""
    folder.mkdir(parents=True)
    rows = [
        {
            "id": question_id(f"{image}.jpg", PROMPT),
            "answers": [
                {"text": text, "tokens": 3, "truncated": text == own[-1], "mean_logp": -1.0 - place}
                for place, text in enumerate(own)
            ],
        }
        for image, own in texts.items()
    ]
    files.write_jsonl(folder / "answers.jsonl", rows)
    return folder


def numbered(*texts: str) -> dict[str, list[str]]:
    """One answer to each image, from 1."""
    return {str(number): [text] for number, text in enumerate(texts, 1)}


def judged(folder: Path, better: Mapping[str, str | None]) -> Path:
    """What a stage `critique` would have written: record -> better role, or None where nothing was asked."""
    folder.mkdir(parents=True)
    rows = [
        {"id": name, "better": role, "first": "greedy", "margin": 0.25 if role else None}
        for name, role in better.items()
    ]
    files.write_jsonl(folder / "verdicts.jsonl", rows)
    return folder


def offers_of(source: Source, records: Sequence[Record], **made: Path) -> list[Offer]:
    assert source.parts().keys() == made.keys()
    return list(source.offers(records, made))


def texts(offers: Sequence[Offer]) -> list[list[str]]:
    return [[item.text for item in offer.rejected] for offer in offers]


# ---- what counts as saying the same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A red ball.", "a red ball"),
        ("A  red, ball!", "A red ball"),
        ("STRASSE", "straße"),
        ("一只狗。", "一只狗"),
        ("「一只狗」", "一只狗"),
        ("كلب أحمر؟", "كلب أحمر"),
        ("caf\u00e9", "cafe\u0301"),  # an accent of its own, as some tokenizers spell it
        ("Ａ red ball", "A red ball"),  # full width
        ("well-known", "well known"),
    ],
)
def test_case_punctuation_and_spelling_of_accents_are_no_difference(one: str, other: str) -> None:
    assert alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A red ball", "A blue ball"),
        ("12", "1 2"),
        ("3.5", "35"),
        ("5 + 3", "5 = 3"),
        ("$5", "€5"),
        ("की", "का"),  # vowel signs are no letters of their own
        ("كَلب", "كُلب"),
        ("一只狗", "一只猫"),
        ("?", "!"),
        ("😀", "😢"),
        ("?", ""),
        ("", "a"),
    ],
)
def test_another_word_number_sign_or_vowel_is_one(one: str, other: str) -> None:
    assert not alike(one, other)


def test_wrong_answers_are_distinct_say_something_and_are_not_the_truth() -> None:
    given = ["a red ball", "", "A cat.", "THE BALL", "a cat", "A dog."]
    answers = [Answer(text, rank, text == "A dog.", -float(rank)) for rank, text in enumerate(given)]
    expected = (
        Rejected("A cat.", "sample", mean_logp=-2.0, how={"rank": 2}),
        Rejected("A dog.", "sample", mean_logp=-5.0, how={"rank": 5, "truncated": True}),
    )
    dropped = ("equal_to_truth", "empty", "equal_to_truth", "repeated")
    assert wrong(record("1#0", references=["The ball!"]), answers, "sample") == Offer(expected, dropped=dropped)


# ---- questions


def test_records_that_share_image_and_prompt_share_the_question() -> None:
    records = [record("1#0"), record("1#1", "A ball."), record("1#2", prompt="Which colour?"), record("2#0")]
    found = questions(records)
    assert [(item.image, item.prompt) for item in found] == [
        ("1.jpg", PROMPT),
        ("1.jpg", "Which colour?"),
        ("2.jpg", PROMPT),
    ]
    assert len({item.id for item in found}) == 3


def test_image_and_prompt_do_not_run_into_one_another() -> None:
    assert question_id("a", "bc") != question_id("ab", "c")


def test_questions_are_those_of_the_portion_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "records.jsonl", [record("1#0"), replace(record("2#0"), portion="stage1")])
    assert [item.image for item in open_questions(tmp_path, "stage2")] == ["1.jpg"]
    write_records(tmp_path / "records.jsonl", [record("1#0")])
    with pytest.raises(DataError, match="no record is of the portion 'stage1', so there is nothing to ask the policy"):
        open_questions(tmp_path, "stage1")


def test_answers_are_read_back_by_record(tmp_path: Path) -> None:
    found = AnswersOf(answered(tmp_path / "a", {"1": ["One.", "Two."], "2": [""]}))
    assert found.of(record("1#7")) == [Answer("One.", 0, False, -1.0), Answer("Two.", 1, True, -2.0)]
    assert found.of(record("2#0")) == [Answer("", 0, True, -1.0)]
    assert len(found) == len(list(found)) == 2
    with pytest.raises(KeyError):
        found.of(record("3#0"))


# ---- beam


def test_a_candidate_of_the_beam_is_drawn_among_wrong_ones(tmp_path: Path) -> None:
    """Four of the five candidates are wrong, each about equally often."""
    records = [record(f"{number}#0") for number in range(400)]
    candidates = ["A cat.", BALL, "A dog.", "A cup.", "A car."]
    folder = answered(tmp_path / "a", {str(number): candidates for number in range(400)})
    found = offers_of(Beam(source="beam"), records, answers=folder)
    counts = Counter(text for own in texts(found) for text in own)
    assert sum(counts.values()) == 400
    assert set(counts) == {"A cat.", "A dog.", "A cup.", "A car."}
    assert all(60 < count < 140 for count in counts.values())  # 100 expected, with a standard deviation of 9
    item = next(item for offer in found for item in offer.rejected if item.text == "A dog.")
    assert (item.source, item.mean_logp, item.how) == ("beam", -3.0, {"rank": 2})


def test_the_draw_of_the_beam_follows_seed_and_record_alone(tmp_path: Path) -> None:
    records = [record(f"{number}#0") for number in range(30)]
    folder = answered(tmp_path / "a", {str(number): ["A cat.", "A dog.", "A cup."] for number in range(30)})
    one, again, other = (
        texts(offers_of(Beam(source="beam", seed=seed), records, answers=folder)) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert texts(offers_of(Beam(source="beam", seed=1), records[7:9], answers=folder)) == one[7:9]


def test_a_beam_gives_as_many_as_it_is_asked_for_or_has(tmp_path: Path) -> None:
    folder = answered(tmp_path / "a", {"1": ["A cat.", "A dog.", "a dog", "A cup."], "2": ["a red ball", ""]})
    found = texts(offers_of(Beam(source="beam", count=2), [record("1#0"), record("2#0")], answers=folder))
    assert len(set(found[0])) == 2
    assert found[1] == []
    found = texts(offers_of(Beam(source="beam", count=9), [record("1#0")], answers=folder))
    assert sorted(found[0]) == ["A cat.", "A cup.", "A dog."]


def test_all_beams_are_candidates() -> None:
    """Seed and count choose among them, so that sources which differ in these share the search."""
    one, other = Beam(source="beam", beams=3, seed=1), Beam(source="beam", beams=3, count=2, seed=2)
    assert (
        one.parts() == other.parts() == {"answers": Answers(decoding=Decoding(strategy="beam", beams=3, candidates=3))}
    )


# ---- sample and own_answer


def test_the_first_distinct_wrong_draws_are_taken(tmp_path: Path) -> None:
    folder = answered(tmp_path / "a", {"1": ["a red ball", "A cat.", "A cat", "A dog.", "A cup."], "2": ["", BALL]})
    records = [record("1#0"), record("2#0")]
    assert texts(offers_of(Sampled(source="sample"), records, answers=folder)) == [["A cat."], []]
    assert texts(offers_of(Sampled(source="sample", count=2), records, answers=folder)) == [["A cat.", "A dog."], []]


def test_sampling_asks_for_what_it_says() -> None:
    source = Sampled(source="sample", temperature=0.7, top_p=0.9, draws=3, max_new_tokens=9, block=5, seed=4)
    decoding = Decoding(strategy="sample", temperature=0.7, top_p=0.9, candidates=3, max_new_tokens=9, block=5)
    assert source.parts() == {"answers": Answers(decoding=decoding, seed=4)}


def test_the_truth_beats_the_policys_own_answer(tmp_path: Path) -> None:
    folder = answered(tmp_path / "a", {"1": ["A cat."], "2": ["A RED BALL"], "3": [""]})
    found = offers_of(OwnAnswer(source="own_answer"), [record(f"{n}#0") for n in (1, 2, 3)], answers=folder)
    assert found == [
        Offer((Rejected("A cat.", "own_answer", mean_logp=-1.0, how={"rank": 0, "truncated": True}),)),
        Offer(dropped=("equal_to_truth",)),
        Offer(dropped=("empty",)),
    ]


def test_greedy_answers_are_shared_by_all_who_need_them() -> None:
    greedy = Answers(decoding=Decoding())
    assert OwnAnswer(source="own_answer").parts()["answers"] == greedy
    assert AugmentedImage(source="augmented_image").parts()["clean"] == greedy
    assert SelfCritic(source="self_critic").parts()["greedy"] == greedy
    assert AugmentedImage(source="augmented_image").parts()["noised"] == Answers(decoding=Decoding(), noise=500)


# ---- augmented_image


def test_the_answer_to_the_noised_image_loses_against_that_to_the_clean_one(tmp_path: Path) -> None:
    """1: two answers. 2: alike. 3, 4: one is empty. 5: the loser is true. 6: the winner is."""
    clean = {"1": ["A cat."], "2": ["A cat."], "3": [""], "4": ["A cat."], "5": ["A cat."], "6": ["a red ball"]}
    noised = {"1": ["A fog."], "2": ["a cat"], "3": ["A fog."], "4": [""], "5": ["a red ball"], "6": ["A fog."]}
    folders = {"clean": answered(tmp_path / "c", clean), "noised": answered(tmp_path / "n", noised)}
    found = offers_of(AugmentedImage(source="augmented_image"), [record(f"{n}#0") for n in range(1, 7)], **folders)
    loser = Rejected("A fog.", "augmented_image", mean_logp=-1.0, how={"rank": 0, "truncated": True})
    reasons = ("both_answers_alike", "empty", "empty", "equal_to_truth")
    nothing = [Offer(dropped=(reason,)) for reason in reasons]
    assert found == [Offer((loser,), "A cat."), *nothing, Offer((loser,), "a red ball")]


@pytest.mark.parametrize("noise", [-1, 1000])
def test_noise_is_a_step_of_the_diffusion(noise: int) -> None:
    with pytest.raises(ConfigError, match="noise: Input should be"):
        validate(AugmentedImage, {"source": "augmented_image", "noise": noise}, "x")


# ---- self_critic


def test_the_answer_that_the_policy_finds_better_wins(tmp_path: Path) -> None:
    """1: greedy wins. 2: the sampled one wins. 3: they are alike. 4: the loser is true. 5, 6: one is empty.

    Of 3, 5 and 6 there is no verdict; what was to be asked about 7 was too long.
    """
    greedy = numbered("A cat.", "A cat.", "A cat.", "a red ball", "", "A cat.", "A cat.")
    made = {
        "greedy": answered(tmp_path / "g", greedy),
        "sampled": answered(tmp_path / "s", numbered("A dog.", "A dog.", "a cat", "A dog.", "A dog.", "", "A dog.")),
        "critique": judged(tmp_path / "c", {"1#0": "greedy", "2#0": "sampled", "4#0": "sampled", "7#0": None}),
    }
    found = offers_of(SelfCritic(source="self_critic"), [record(f"{n}#0") for n in range(1, 8)], **made)
    how = {"rank": 0, "truncated": True, "margin": 0.25}
    dog = Rejected("A dog.", "self_critic", mean_logp=-1.0, how={**how, "answer": "sampled"})
    cat = Rejected("A cat.", "self_critic", mean_logp=-1.0, how={**how, "answer": "greedy"})
    reasons = ("both_answers_alike", "equal_to_truth", "empty", "empty", "too_long_to_judge")
    nothing = [Offer(dropped=(reason,)) for reason in reasons]
    assert found == [Offer((dog,), "A cat."), Offer((cat,), "A dog."), *nothing]


def test_one_critique_stands_behind_the_same_answers() -> None:
    parts: Any = SelfCritic(source="self_critic", seed=3, max_new_tokens=9).parts()
    drawn = Decoding(strategy="sample", temperature=0.8, top_p=0.9, max_new_tokens=9)
    assert parts["sampled"] == Answers(decoding=drawn, seed=3)
    assert parts["critique"].parts() == {role: parts[role] for role in ("greedy", "sampled")}
    assert parts["critique"].seed == 3


# ---- the prompt of the critique


def critique(prompt: str | None = None, seed: int = 0) -> Critique:
    content: dict[str, Any] = {"greedy": {}, "sampled": {}, "seed": seed, **({"prompt": prompt} if prompt else {})}
    return validate(Critique, content, "x")


def test_the_prompt_shows_question_truth_and_both_answers_in_the_drawn_order() -> None:
    part = critique("Q {question} T {truth} 1 {first} 2 {second}; {first} or { other }?")
    shown = {"greedy": "G", "sampled": "S"}
    first, second = (shown[role] for role in part.order(record("1#0")))
    expected = f"Q {PROMPT} T {BALL} 1 {first} 2 {second}; {first} or {{ other }}?"
    assert part.asked(record("1#0"), shown) == expected


def test_braces_in_answers_stay_as_they_are() -> None:
    part = critique("{first}|{second}|{truth}")
    asked = part.asked(record("1#0", chosen="{first} {} {0} %s"), {"greedy": "{truth}", "sampled": "{second} \\1 {"})
    assert sorted(asked.split("|")) == sorted(["{truth}", "{second} \\1 {", "{first} {} {0} %s"])


def test_which_answer_comes_first_is_drawn_for_each_record_by_seed() -> None:
    records = [record(f"{number}#0") for number in range(400)]
    one, again, other = ([critique(seed=seed).order(item)[0] for item in records] for seed in (1, 1, 2))
    assert one == again != other
    assert 150 < one.count("greedy") < 250  # 200 expected, with a standard deviation of 10
    assert all(sorted(critique().order(item)) == ["greedy", "sampled"] for item in records[:9])


@pytest.mark.parametrize(
    ("prompt", "missing"), [("{first}", "{second}"), ("{truth}", "{first} and {second}"), ("{second}", "{first}")]
)
def test_a_prompt_that_does_not_show_both_is_refused(prompt: str, missing: str) -> None:
    valid = r"valid: a text with \{question\}, \{truth\}, \{first\}, \{second\}, of which it needs the last two"
    with pytest.raises(ConfigError, match=f"prompt: .*the prompt does not say where {missing} stand; {valid}"):
        critique(prompt)


def test_a_name_that_nothing_fills_in_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prompt: the prompt names 'frist'; did you mean 'first'\? valid: first, "):
        critique("{first} {second} {frist}")


def test_the_prompt_may_be_a_file_and_its_text_is_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "critique.txt"
    path.write_text("{first} or {second}?\n", encoding="utf-8")
    source = validate(SelfCritic, {"source": "self_critic", "prompt": str(path)}, "x")
    assert source == SelfCritic(source="self_critic", prompt="{first} or {second}?")
    text = "{first} or {second}, as in a.txt"
    assert critique(text).prompt == text, "what shows an answer is no name of a file"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("nowhere.txt", r"x: prompt: cannot be read: No such file or directory; found 'nowhere\.txt'"),
        ("{first}, {second} {anser}", r"x: prompt: the prompt names 'anser'; valid: first, question, second, truth"),
        ("Which?", r"x: prompt: the prompt does not say where \{first\} and \{second\} stand"),
    ],
)
def test_the_source_refuses_what_the_critique_would_refuse(prompt: str, message: str) -> None:
    """`plan` reads the source, and makes its parts long after."""
    with pytest.raises(ConfigError, match=message):
        validate(SelfCritic, {"source": "self_critic", "prompt": prompt}, "x")


def test_the_shipped_prompt_shows_everything_three_criteria_and_two_examples() -> None:
    prompt = shipped_prompt()
    for name in ("question", "truth", "first", "second"):
        assert prompt.count(f"{{{name}}}") == 1
    assert prompt.count("Example.") == 2
    assert all(word in prompt for word in ("objects", "attributes", "relation"))


# ---- in a grid


def test_sources_of_a_grid_share_what_they_ask_of_one_policy(tmp_path: Path) -> None:
    """SFT's result: beams, greedy (SeVa, SIMA), noised, sampled. SFT-C's: beams, greedy, samples (alone and mixed)."""
    plan = make_plan(load_grid("negatives-study", {"seeds": [0]}), Store(tmp_path))
    stages = Counter(node.stage.name for node in plan.nodes)
    assert (stages["answers"], stages["critique"]) == (4 + 3, 1)
    trained = {cell: wired.policy for cell, wired in plan.wired.items()}
    negatives: Any = {
        cell: node.inputs["negatives"] for cell, node in trained.items() if node and "negatives" in node.inputs
    }
    parts = {cell: {role: part.id for role, part in node.inputs.items()} for cell, node in negatives.items()}
    assert parts["self_critic/0"]["greedy"] == parts["augmented_image/0"]["clean"] != parts["own_answer/0"]["answers"]
    assert "policy.answers" not in parts["mixed_0/0"]
    for share in ("0.2", "0.5", "0.8", "1"):
        assert parts[f"mixed_{share}/0"]["policy.answers"] == parts["sample/0"]["answers"]
    asked = [part for node in negatives.values() for part in node.parents if part.stage.name in ("answers", "critique")]
    assert {part.inputs["adapter"].stage.name for part in asked} == {"stage1"}


# ---- the stage, up to what training sees


def run(folder: Path, records: Sequence[Record], negatives: Any, **made: Path) -> tuple[list[Any], Any]:
    """Rows and summary, as the stage writes them to `folder/out`."""
    out = folder / "out"
    out.mkdir(parents=True)
    write_records(folder / "records.jsonl", records)
    spec = validate(NegativesSpec, {"negatives": negatives, "portion": "stage2"}, "x")
    nothing = lambda *_, **__: None  # noqa: E731
    stage.run(StageContext(spec, {"pairs": folder, **made}, out, out, out, Rank(), Execution(), nothing, nothing))
    return list(files.read_jsonl(out / "negatives.jsonl")), files.read_json(out / "summary.json")


def test_training_sees_the_winner_that_the_source_names(tmp_path: Path) -> None:
    clean = answered(tmp_path / "c", {"1": ["A cat."], "2": ["A dog."]})
    noised = answered(tmp_path / "n", {"1": ["A fog."], "2": ["a dog"]})
    files.write_json(noised / "settings.json", {"noise": 500})
    records = [record("1#0"), record("2#0")]
    rows, summary = run(tmp_path, records, {"source": "augmented_image"}, clean=clean, noised=noised)
    assert [row["chosen"] for row in rows] == ["A cat.", BALL]
    assert rows[0]["rejected"] == [
        {
            "text": "A fog.",
            "source": "augmented_image",
            "grade": None,
            "mean_logp": -1.0,
            "how": {"rank": 0, "truncated": True},
        }
    ]
    assert (summary["without"], summary["sources"]) == (1, {"augmented_image": 1})
    assert summary["made_with"] == {"noised": {"noise": 500}}
    (sample,) = load_samples(tmp_path, tmp_path / "out", "stage2", paired=True)
    assert (sample.id, sample.chosen, sample.rejected) == ("1#0", "A cat.", ("A fog.",))
    alone, other = load_samples(tmp_path, tmp_path / "out", "stage2")
    assert (alone.chosen, other.chosen, other.rejected) == ("A cat.", BALL, ())


def test_a_policy_that_says_nothing_is_refused(tmp_path: Path) -> None:
    folder = answered(tmp_path / "a", {"1": [""], "2": [""]})
    with pytest.raises(DataError, match=r"^negatives 'own_answer' .* any of 2 records: 2 times a response was empty$"):
        run(tmp_path, [record("1#0"), record("2#0")], {"source": "own_answer"}, answers=folder)


def test_a_policy_that_is_always_right_is_refused(tmp_path: Path) -> None:
    folder = answered(tmp_path / "a", {"1": ["a red ball", "A RED BALL!"]})
    with pytest.raises(DataError, match=r"^negatives 'sample' .* any of 1 records: 2 times a response was the truth$"):
        run(tmp_path, [record("1#0")], {"source": "sample"}, answers=folder)


def test_why_a_policy_gives_nothing_is_counted_and_said(tmp_path: Path) -> None:
    """Three clean and noised answers are alike, two are empty."""
    clean = answered(tmp_path / "c", numbered("A cat.", "A cat.", "A cat.", "", "A cat.", "A cat."))
    noised = answered(tmp_path / "n", numbered("a cat", "A cat", "A cat.", "A fog.", "", "A fog."))
    records, source = [record(f"{number}#0") for number in range(1, 7)], {"source": "augmented_image"}
    _, summary = run(tmp_path / "some", records, source, clean=clean, noised=noised)
    assert (summary["both_answers_alike"], summary["empty"], summary["equal_to_truth"]) == (3, 2, 0)
    assert (summary["negatives"], summary["without"]) == (1, 5)
    expected = "for any of 5 records: 2 times a response was empty, 3 times both answers were alike"
    with pytest.raises(DataError, match=f"{expected}$"):
        run(tmp_path / "none", records[:5], source, clean=clean, noised=noised)


CHINESE, ARABIC = "一只红色的球在桌子上。", "كرة حمراء على الطاولة."


@pytest.mark.parametrize(
    "negatives",
    [
        {"source": "own_answer"},
        {"source": "beam"},
        {"source": "dataset"},
        {"source": "mixed", "of": {"a": {"negatives": {"source": "own_answer"}}}},
    ],
)
def test_text_of_other_scripts_passes_through_unchanged(tmp_path: Path, negatives: Any) -> None:
    records = [record("1#0", CHINESE), record("2#0", ARABIC), record("3#0", "Ein roter Ball 😀")]
    own = {"1": ["一只猫。"], "2": ["قطة \u202e."], "3": ["Une balle «rouge» & <b>😀</b>"]}
    roles = validate(NegativesSpec, {"negatives": negatives, "portion": "stage2"}, "x").negatives.parts()
    folder = answered(tmp_path / "a", own)
    _, summary = run(tmp_path, records, negatives, **dict.fromkeys(roles, folder))
    assert summary["without"] == 0
    samples = load_samples(tmp_path, tmp_path / "out", "stage2", paired=True)
    assert [sample.chosen for sample in samples] == [item.chosen for item in records]
    if roles:
        assert [list(sample.rejected) for sample in samples] == list(own.values())
    else:
        assert all({sample.rejected[0]} < {item.chosen for item in records} for sample in samples)
    page = (tmp_path / "out" / "examples.html").read_text(encoding="utf-8")
    assert "一只" in page
    assert "<b>😀" not in page, "markup of an answer is text"


def test_an_answer_of_ten_thousand_characters_passes_through(tmp_path: Path) -> None:
    """Whether it fits is the model's to say: see test_answers."""
    long = " ".join(["cat"] * 2500)
    folder = answered(tmp_path / "a", {"1": [long], "2": ["A cat."]})
    rows, summary = run(tmp_path, [record("1#0"), record("2#0")], {"source": "own_answer"}, answers=folder)
    assert [len(row["rejected"][0]["text"]) for row in rows] == [9999, 6]
    assert summary["negatives"] == 2
