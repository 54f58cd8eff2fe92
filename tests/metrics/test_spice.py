"""SPICE's launcher and real scorer on a stand-in for its parser (see spice_stand_in/), and its published example where
the parser's jars are."""

import json
import re
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cwdpo.base.errors import NotAvailable
from cwdpo.metrics.captions import score_captions
from cwdpo.metrics.java import jar, java_command, java_version
from cwdpo.metrics.spice import JARS, spice, spice_jars

HERE = Path(__file__).parent
STAND_IN = HERE / "spice_stand_in"
LAUNCHER = Path(__file__).parents[2] / "cwdpo" / "metrics" / "SpiceItems.java"
RESULTS = HERE / "golden" / "captions_val2014_fakecap_results.json"


def make_stand_in(folder):
    folder.mkdir(exist_ok=True)
    shutil.copy(STAND_IN / "stand_in.jar", folder / JARS[0])
    zipfile.ZipFile(folder / JARS[1], "w").close()
    return folder


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder with a stand-in for the parser, found as the real jars would be."""
    folder = make_stand_in(tmp_path / "jars")
    monkeypatch.setenv("CWDPO_SPICE_JARS", str(folder))
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """One run for many captions, and whether it left the package and the folder for temporary files as they were."""
    scratch = tmp_path_factory.mktemp("scratch")
    odd = 'a "Café" 日本語 🙂 \\ \ud83d'
    pairs = {
        "by hand": ("a red bus on the road", ["a red bus on the wet road", "a big bus"]),
        "synonyms": ("a car", ["a automobile"]),
        "empty": ("", ["a dog", ""]),
        "wrong": ("a dog", ["a cat"]),
        "odd": (odd, [odd]),
        **{f"number {i}": ("a cat", ["a cat"]) for i in range(10)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CWDPO_SPICE_JARS", str(make_stand_in(tmp_path_factory.mktemp("jars"))))
        patch.setattr("tempfile.tempdir", str(scratch))
        before = {path: path.stat().st_mtime_ns for path in jar("spice").rglob("*")}
        items = spice(*zip(*pairs.values(), strict=True))
        after = {path: path.stat().st_mtime_ns for path in jar("spice").rglob("*")}
    assert after == before
    assert list(scratch.iterdir()) == []
    return dict(zip(pairs, items, strict=True))


def test_score_by_hand(scored):
    item = scored["by hand"]
    # candidate: bus, bus red, road, bus on road; references: the same, and road wet, bus big.
    assert item["spice_tuples"] == [4, 0, 2]
    assert item["spice_precision"] == 1.0
    assert item["spice_recall"] == pytest.approx(4 / 6)
    assert item["spice"] == pytest.approx(0.8)
    kinds = {"object": [2, 0, 0], "attribute": [1, 0, 2], "relation": [1, 0, 0], "color": [1, 0, 0], "size": [0, 0, 1]}
    assert {kind: item[f"spice_{kind}"] for kind in kinds} == kinds
    assert item["spice_cardinality"] == [0, 0, 0]


def test_every_item_has_its_own_score(scored):
    right = {"synonyms": 1.0, "empty": 0.0, "wrong": 0.0, "odd": 1.0, **{f"number {i}": 1.0 for i in range(10)}}
    assert {name: scored[name]["spice"] for name in right} == right
    assert scored["empty"]["spice_tuples"] == [0, 0, 1]
    assert scored["wrong"]["spice_tuples"] == [0, 1, 1]


def test_a_crash_is_a_reason(stand_in):
    with pytest.raises(NotAvailable, match=r"SPICE died \(exit code 1\): .*the stand-in was told to crash"):
        spice(["crash"], [["a bus"]])


def test_threads_run_one_process_at_a_time(stand_in, fake_java, tmp_path):
    # The folder is the lock: a second java beside the first cannot make it and dies.
    fake_java(f'mkdir "{tmp_path}/running" || exit 3; sleep 0.1; rmdir "{tmp_path}/running"; echo "[]" > out.json')
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: spice([], []), range(8))) == [[]] * 8


def test_a_hanging_process_is_stopped(stand_in):
    with pytest.raises(NotAvailable, match=r"SPICE was not ready within 2 s and was stopped"):
        spice(["hang"], [["a bus"]], timeout=2)


def test_a_killed_process_speaks_of_memory(stand_in, fake_java):
    fake_java("kill -9 $$")
    with pytest.raises(NotAvailable, match=r"killed, most likely because it needed more memory .* 8 GB"):
        spice(["a bus"], [["a bus"]])


def test_too_little_heap_is_a_reason(stand_in):
    with pytest.raises(NotAvailable, match=r"SPICE died .*(OutOfMemoryError|Too small|heap)"):
        spice(["a bus"], [["a bus"]], heap_mb=4)


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 0", "no result that can be read"), ("echo '[]' > out.json", "SPICE scored 0 of 1 captions")],
)
def test_a_java_that_writes_something_else_is_a_reason(stand_in, fake_java, script, reason):
    fake_java(script)
    with pytest.raises(NotAvailable, match=reason):
        spice(["a bus"], [["a bus"]])


def test_missing_jars_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CWDPO_SPICE_JARS", str(tmp_path))
    monkeypatch.setenv("CWDPO_HOME", str(tmp_path))
    monkeypatch.setattr("cwdpo.metrics.spice.jar", lambda name: tmp_path / name)
    with pytest.raises(NotAvailable, match=rf"neither in {re.escape(str(tmp_path))} nor .*run: cwdpo fetch spice"):
        spice_jars()


def test_jars_are_found_where_fetch_puts_them(tmp_path, monkeypatch):
    monkeypatch.delenv("CWDPO_SPICE_JARS", raising=False)
    monkeypatch.setenv("CWDPO_HOME", str(tmp_path))
    folder = tmp_path / "assets" / "spice"
    folder.mkdir(parents=True)
    for name in JARS:
        (folder / name).touch()
    assert spice_jars() == [folder / name for name in JARS]


def test_the_corpus_is_the_mean_of_the_items(stand_in):
    candidates = {"x": "A red bus.", "y": "a dog", "z": "A cat!"}
    references = {"x": ["a red bus"], "y": ["a cat"], "z": ["a big cat", "a cat"]}
    scores = score_captions(candidates, references, ("spice",))
    assert {item: scores.per_item[item]["spice"] for item in "xyz"} == pytest.approx({"x": 1, "y": 0, "z": 2 / 3})
    assert scores.corpus["spice"] == pytest.approx(5 / 9)
    assert json.loads(json.dumps(scores.per_item, allow_nan=False)) == scores.per_item


def test_without_its_jars_the_other_metrics_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("cwdpo.metrics.spice.JARS", ("no-such.jar",))
    scores = score_captions({"x": "a bus", "y": "a dog"}, {"x": ["a bus"], "y": ["a cat"]}, ("cider", "spice"))
    assert scores.corpus["spice"] is None
    assert scores.unavailable["spice"].startswith("not available: SPICE needs no-such.jar")
    assert scores.corpus["cider"] > 0


def test_its_own_main_needs_the_engine_that_java_lost(stand_in, tmp_path):
    """Why there is a launcher; remove it when this fails on a Java that SPICE is to run on."""
    release = re.search(r'"(\d+)', java_version())
    if release is None or int(release[1]) < 15:
        pytest.skip("this Java still has a JavaScript engine")
    source = tmp_path / "in.json"
    source.write_text(json.dumps([{"image_id": 0, "test": "a bus", "refs": ["a bus"]}]))
    path = ":".join(map(str, [*spice_jars(), jar("spice/spice-1.0.jar")]))
    command = [*java_command(512), "-cp", path, "edu.anu.spice.SpiceScorer", str(source), "-out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert '"scriptEngine" is null' in done.stderr


def test_what_is_committed_is_what_its_source_makes(tmp_path):
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("no Java compiler here")
    sources = [LAUNCHER, *sorted(STAND_IN.rglob("*.java"))]
    path = f"{jar('spice/spice-1.0.jar')}:{jar('spice/lib/Meteor-1.5.jar')}"
    flags = ["--release", "8", "-g:none", "-Xlint:-options", "-cp", path, "-d", str(tmp_path)]
    subprocess.run([compiler, *flags, *map(str, sources)], check=True)
    compiled = {file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in tmp_path.rglob("*.class")}
    assert compiled.pop("edu/anu/spice/SpiceItems.class") == LAUNCHER.with_suffix(".class").read_bytes()
    with zipfile.ZipFile(STAND_IN / "stand_in.jar") as archive:
        assert compiled == {name: archive.read(name) for name in archive.namelist() if name.endswith(".class")}


def real_jars() -> str | None:
    """Why the real parser is not there."""
    try:
        spice_jars()
    except NotAvailable as error:
        return str(error)
    return None


def test_the_published_score_is_reproduced():
    """README of salaniz/pycocoevalcap: SPICE 0.133."""
    if reason := real_jars():
        pytest.skip(reason)
    candidates = {str(row["image_id"]): row["caption"] for row in json.loads(RESULTS.read_text())}
    with zipfile.ZipFile(jar("spice/spice-1.0.jar")) as archive:
        annotations = json.loads(archive.read("coco/annotations/captions_val2014.json"))["annotations"]
    references = {item: [] for item in candidates}
    for row in annotations:
        if str(row["image_id"]) in references:
            references[str(row["image_id"])].append(row["caption"])
    scores = score_captions(candidates, references, ("spice",))
    assert scores.unavailable == {}
    assert round(scores.corpus["spice"], 3) == 0.133
