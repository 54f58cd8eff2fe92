import json
import shutil
from pathlib import Path

import pytest
from formats import mme as files

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.mme import COGNITION, PERCEPTION, Mme, said
from cwdpo.evaluate.question import Answered, Question
from cwdpo.evaluate.reading.download import Download

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mme.json").read_text(encoding="utf-8"))
BENCHMARK = Mme(name="mme")
RELEASE = "MME_Benchmark_release_version"


@pytest.fixture
def root(tmp_path):
    files.write(tmp_path / "down")
    return tmp_path / "down"


@pytest.fixture
def release(tmp_path):
    files.write_release(tmp_path / "release")
    return tmp_path / "release"


def load(root):
    return list(BENCHMARK.load(Download(root)))


def results(root, task):
    return root / "eval_tool" / "Your_Results" / f"{task}.txt"


def asked(text, name="existence/a.jpg/1", answer="yes"):
    return Question(name, ("a.jpg",), {"question": text}, {"answer": answer}, name.split("/")[0])


def golden():
    seen = {}
    for item in GOLDEN["items"]:
        group = f"{item['task']}/{item['image']}"
        seen[group] = seen.get(group, 0) + 1
        yield Answered(asked("Is it?", f"{group}/{seen[group]}", item["truth"].lower()), item["answer"]), item


def test_two_questions_an_image_in_the_order_of_the_tasks(root):
    download = Download(root)
    questions = list(BENCHMARK.load(download))
    assert len(questions) == 34
    assert list(dict.fromkeys(question.category for question in questions)) == [*PERCEPTION, *COGNITION]
    assert questions[3].row() == {
        "id": "existence/000000006471.jpg/2",
        "images": (f"{RELEASE}/existence/000000006471.jpg",),
        "asked": {"question": "Is this something else? Please answer yes or no."},
        "truth": {"answer": "yes"},
        "category": "existence",
    }
    assert download.missing == []
    assert len(download.images) == 17
    assert download.files[0] == "eval_tool/Your_Results/existence.txt"
    assert len(download.files) == 14


def test_images_of_the_same_name_are_those_of_their_task(root):
    images = {question.images[0] for question in load(root) if question.images[0].endswith("/0001.png")}
    assert images == {f"{RELEASE}/{task}/0001.png" for task in COGNITION}


def test_folders_of_images_are_found(root):
    found = next(question for question in load(root) if question.category == "artwork")
    assert found.images == (f"{RELEASE}/artwork/images/10002.jpg",)


def test_the_release_alone_has_the_same_questions(root, release):
    download = Download(release)
    assert list(BENCHMARK.load(download)) == load(root)
    assert len(download.files) == 17
    assert f"{RELEASE}/artwork/questions_answers_YN/10002.txt" in download.files
    assert f"{RELEASE}/code_reasoning/0002.txt" in download.files


def test_a_folder_with_brackets_and_hidden_files_beside_the_texts_mean_nothing(tmp_path, root, release):
    shutil.copytree(release, tmp_path / "MME [v1]" / "deeper")
    for text in (tmp_path / "MME [v1]").rglob("*.txt"):
        (text.parent / f"._{text.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    found = list(BENCHMARK.load(Download(tmp_path / "MME [v1]")))
    assert [question.id for question in found] == [question.id for question in load(root)]


def test_lists_in_which_answers_were_filled_in_are_read_too(root):
    expected = load(root)
    shutil.rmtree(root / "eval_tool" / "Your_Results")
    (root / "eval_tool" / "LaVIN").rename(root / "eval_tool" / "Your_Results")
    assert load(root) == expected


def test_lists_of_several_models_are_not_chosen_between(root):
    (root / "eval_tool" / "Your_Results").rename(root / "eval_tool" / "mine")
    with pytest.raises(DataError, match=r"several files 'existence\.txt'"):
        load(root)


def test_windows_line_ends_and_blank_lines_mean_nothing(root):
    expected = load(root)
    path = results(root, "color")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert load(root) == expected


def test_the_wish_for_yes_or_no_is_asked_once():
    published = "Is this a cat? Please answer yes or no."
    assert BENCHMARK.ask(asked(published)) == published
    assert BENCHMARK.ask(asked("Is this a cat?")) == published
    assert (
        BENCHMARK.ask(asked("Is this a cat?  Please answer yes or no. ")) == "Is this a cat?  Please answer yes or no."
    )


def test_another_prompt_can_have_the_question_without_it():
    short = Mme(name="mme", prompt="{bare}\nAnswer the question using a single word or phrase.")
    expected = "Is this a {bare} dict?\nAnswer the question using a single word or phrase."
    assert short.ask(asked("Is this a {bare} dict?  Please answer yes or no.")) == expected
    assert short.ask(asked("Is this a {bare} dict?")) == expected


@pytest.mark.parametrize("number", range(len(GOLDEN["items"])))
def test_an_answer_is_read_as_official(number):
    answered, item = list(golden())[number]
    found = BENCHMARK.score([answered]).per_item[answered.question.id]
    assert (found["prediction"], found["correct"]) == (item["prediction"], item["correct"])


def test_all_answers_together_are_worth_the_official_points():
    found = BENCHMARK.score([answered for answered, _ in golden()])
    assert found.corpus == pytest.approx(GOLDEN["corpus"], abs=1e-9)
    assert found.unavailable == {}
    others = sum(item["prediction"] is None for item in GOLDEN["items"])
    assert found.counts == {"answers that do not begin with yes or no": others}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("No\nYes", "no"), ("Oh\nno", None), ("noyes", "no"), ("no\nyes", "no"), ("nyes", "yes"), ("I say yes", None)],
)
def test_only_the_first_four_characters_count(text, expected):
    assert said(text) == expected


def test_points_computed_by_hand():
    rows = [("a", "yes", "Yes"), ("a", "no", "No"), ("b", "yes", "Yes"), ("b", "no", "Yes")]
    given = [
        Answered(asked("?", f"OCR/{image}.jpg/{place % 2 + 1}", truth), text)
        for place, (image, truth, text) in enumerate(rows)
    ]
    found = BENCHMARK.score(given)
    assert found.corpus["OCR"] == 75 + 50
    assert found.per_item["OCR/b.jpg/2"] == {
        "prediction": "yes",
        "truth": "no",
        "correct": 0.0,
        "task": "OCR",
        "pair": "OCR/b.jpg",
    }
    assert found.counts == {}


def test_a_sum_over_fewer_tasks_is_none():
    given = [Answered(asked("?", f"{task}/a.jpg/{n}"), "yes") for task in PERCEPTION for n in (1, 2)]
    given += [Answered(asked("?", f"code_reasoning/a.jpg/{n}"), "yes") for n in (1, 2)]
    found = BENCHMARK.score(given)
    assert found.corpus["perception"] == 2000
    assert found.corpus["code_reasoning"] == 200
    assert found.corpus["cognition"] is None
    reason = "no question of commonsense_reasoning, numerical_calculation, text_translation was asked"
    assert found.unavailable["cognition"] == f"not available: {reason}"
    assert found.unavailable.keys() == {key for key, value in found.corpus.items() if value is None}


def test_a_limit_keeps_the_pair_of_an_image(root):
    chosen = BENCHMARK.model_copy(update={"limit": 7}).chosen(load(root))
    assert len(chosen) == 6
    assert [question.id[-2:] for question in chosen] == ["/1", "/2"] * 3


def test_images_that_are_not_there_are_listed(root):
    (root / RELEASE / "color" / "000000048153.jpg").unlink()
    shutil.rmtree(root / RELEASE / "OCR")
    download = Download(root)
    list(BENCHMARK.load(download))
    assert set(download.missing) == {f"{RELEASE}/color/000000048153.jpg", "OCR/0001.jpg"}


def test_a_text_without_its_image_is_listed(release):
    (release / RELEASE / "code_reasoning" / "0002.png").unlink()
    download = Download(release)
    list(BENCHMARK.load(download))
    assert set(download.missing) == {f"{RELEASE}/code_reasoning/0002.jpg"}


def test_a_task_that_is_not_there(release):
    shutil.rmtree(release / RELEASE / "scene")
    with pytest.raises(DataError, match=r"no file 'Your_Results/scene\.txt' and no folder 'scene'"):
        load(release)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x.jpg\tIs it?\n", r"count\.txt, line 3: 2 columns; expected image, question, answer, with tabs between them"),
        ("x.jpg\tIs it?\tYes\tno\tno\n", r"count\.txt, line 3: 5 columns"),
        ("x.jpg\tIs it?\tMaybe\n", r"count\.txt, line 3: answer is 'maybe'; valid: yes, no"),
        ("x.jpg\tIs it?\tYes\n", r"count: 1 questions about image 'x\.jpg'; expected 2 about each"),
        ("000000017714.jpg\tIs it?\tYes\n", r"count: 3 questions about image '000000017714\.jpg'"),
        ("../x.jpg\tIs it?\tYes\n../x.jpg\tIs it?\tNo\n", r"line 3: image path '.*x\.jpg' leaves the data folder"),
    ],
)
def test_a_bad_line_is_named(root, line, message):
    path = results(root, "count")
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load(root)


def test_a_list_that_is_not_utf_8(root):
    results(root, "color").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"color\.txt: not UTF-8"):
        load(root)


def test_the_published_counts_are_those_of_the_release():
    assert sum(BENCHMARK.published.values()) == 2374
