"""Figures of learning dynamics against a second, independent computation from the files that probes wrote."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dynamics.synthetic import synthetic
from PIL import Image

from cwdpo.base.errors import StoreError
from cwdpo.dynamics.rows import read_probes
from cwdpo.metrics import captions
from cwdpo.report.figures.candidates import candidate_scores
from cwdpo.report.figures.delta_logp import delta_logp
from cwdpo.report.figures.draw import FIGURES, draw_figures
from cwdpo.report.figures.drawing import Drawing
from cwdpo.report.figures.figure3 import figure3
from cwdpo.report.figures.figure4 import figure4
from cwdpo.report.figures.figure5 import QUANTITIES, figure5
from cwdpo.report.figures.figure6 import figure6
from cwdpo.report.figures.runs import Run, Runs, Scores
from cwdpo.report.figures.saving import caption, csv, render, save
from cwdpo.report.figures.seeds import over_seeds
from cwdpo.report.figures.style import looks

STEPS = (0, 10, 20, 40)
IDS = ("b", "a", "d", "c", "e")
SEEDS: Mapping[str, Sequence[int]] = {"sft": (0, 1, 2), "sft_c": (5,)}
NO_SPICE = "SPICE needs a parser that is not here"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, Path]]:
    """Probes of three seeds of one case and of one of another; the last seed of the first stopped early."""
    root = tmp_path_factory.mktemp("probes")

    def made(case: str, seed: int) -> Path:
        steps = STEPS[:3] if seed == 2 else STEPS
        peaking = 2.0 if case == "sft" else 0.5
        return synthetic(root / case / str(seed), steps, IDS, seed, total=40, peaking=peaking)

    return {case: {seed: made(case, seed) for seed in seeds} for case, seeds in SEEDS.items()}


@pytest.fixture(scope="module")
def runs(folders: dict[str, dict[int, Path]]) -> Runs:
    cases = {case: {seed: run_of(folder, seed) for seed, folder in found.items()} for case, found in folders.items()}
    return Runs("stage1", cases)


def run_of(folder: Path, seed: int) -> Run:
    scores = Scores({"cider": 1.0 + seed / 10}, {"spice": NO_SPICE})
    top = {40: Scores({"cider": 0.5 + seed / 10}, {"spice": NO_SPICE}, candidates=5)}
    return Run({step: 3.0 / step + seed for step in range(1, 41)}, read_probes([folder]), influence(seed), scores, top)


def influence(seed: int) -> pd.DataFrame:
    """Rows of influence.parquet: four updates, and the run's own move."""
    rows = [
        {"step": step, "update": update, "observation": sample, "kind": kind,
         **{name: float(len(kind) + step + place + seed) for place, name in enumerate(QUANTITIES)}}
        for step in STEPS for update in ("u0", "u1", "u2", "u3", None) for sample in ("a", "b")
        for kind in ("chosen", "hard")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def table_of(drawing: Drawing) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv(drawing)), dtype={"update": str, "sample": str})


def panel_of(drawing: Drawing, name: str) -> pd.DataFrame:
    table = table_of(drawing)
    return table[table.panel == name]


def texts(drawing: Drawing) -> str:
    """All that is written inside the axes of a figure."""
    return "\n".join(text.get_text() for axes in render(drawing).axes for text in axes.texts)


# ---------------------------------------------------------------------------------------------- an independent look


def tokens(folder: Path) -> pd.DataFrame:
    found = pd.read_parquet(folder / "tokens.parquet")
    probabilities = np.array(found.top_probs.tolist())
    return found.assign(top1=probabilities[:, 0], top5=probabilities.sum(1), first=[row[0] for row in found.top_tokens])


def token_mean(folder: Path, name: str) -> pd.Series:
    """Over the tokens of each sample, then over samples, by step."""
    return tokens(folder).groupby(["step", "id"])[name].mean().unstack().mean(axis=1)


def reliability(rows: pd.DataFrame) -> pd.DataFrame:
    """Confidence, accuracy and share of tokens of each of 15 bins that is not empty."""
    bins = pd.cut(rows.top1.astype(float), np.linspace(0, 1, 16), labels=False)
    found = rows.assign(correct=rows["first"] == rows.token).groupby(bins)
    return pd.DataFrame(
        {"confidence": found.top1.mean(), "accuracy": found.correct.mean(), "share": found.size() / len(rows)}
    )


def ece(folder: Path) -> pd.Series:
    errors = {}
    for step, rows in tokens(folder).groupby("step"):
        found = reliability(rows)
        errors[step] = (found.share * (found.accuracy - found.confidence).abs()).sum()
    return pd.Series(errors)


def check(found: pd.DataFrame, line: str, seeds: Mapping[int, pd.Series]) -> None:
    """A line of a CSV is mean, range and standard deviation over seeds, at each step where any has a value."""
    rows = found[found.line == line].set_index("step")
    wide = pd.DataFrame(dict(seeds))
    assert list(rows.index) == list(wide.index)
    np.testing.assert_allclose(rows["mean"], wide.mean(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows["low"], wide.min(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows["high"], wide.max(axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows["sd"], wide.std(axis=1, ddof=1), rtol=1e-4, atol=1e-7)
    assert list(rows["n"]) == list(wide.count(axis=1))
    assert set(rows["seeds"]) == {len(seeds)}


@pytest.mark.parametrize("name", ["tv", "js", "entropy", "top1", "top5", "ece"])
def test_curves_of_figure_4_are_those_of_the_files(runs: Runs, folders: dict[str, dict[int, Path]], name: str) -> None:
    (drawing,) = figure4(runs)
    found = panel_of(drawing, name)
    for case, seeds in folders.items():
        check(found, case, {s: ece(at) if name == "ece" else token_mean(at, name) for s, at in seeds.items()})


def test_reliability_is_that_of_the_last_probed_step_of_each_run(
    runs: Runs, folders: dict[str, dict[int, Path]]
) -> None:
    (drawing,) = figure4(runs)
    found = panel_of(drawing, "reliability")
    for case, seeds in folders.items():
        rows = {seed: tokens(folder) for seed, folder in seeds.items()}
        last = {seed: reliability(every[every.step == every.step.max()]) for seed, every in rows.items()}
        shown = found[found.line == case].drop(columns="step").rename(columns={"bin": "step"})
        check(shown, case, {seed: one.accuracy for seed, one in last.items()})
        for name in ("confidence", "share"):
            expected = pd.DataFrame({seed: one[name] for seed, one in last.items()}).mean(axis=1)
            np.testing.assert_allclose(shown[name], expected, rtol=1e-5)


def test_quality_is_the_score_times_100(runs: Runs) -> None:
    (drawing,) = figure4(runs)
    rows = panel_of(drawing, "cider").set_index("line")
    assert rows["mean"].to_dict() == pytest.approx({"sft": 110.0, "sft_c": 150.0})
    assert (rows.low["sft"], rows.high["sft"], rows.n["sft"]) == (100.0, 120.0, 3)
    assert np.isnan(rows.sd["sft_c"]), "one seed has no spread"


def test_figure_3(runs: Runs, folders: dict[str, dict[int, Path]]) -> None:
    (drawing,) = figure3(runs)
    check(panel_of(drawing, "entropy"), "sft", {s: token_mean(at, "entropy") for s, at in folders["sft"].items()})
    loss = pd.Series({step: 3.0 / step for step in range(1, 41)})
    check(panel_of(drawing, "loss"), "sft", {seed: loss + seed for seed in SEEDS["sft"]})
    assert list(panel_of(drawing, "top_cider")["mean"]) == pytest.approx([60.0, 100.0])
    assert "CIDEr of the top-5 answers" in {panel.title for panel in drawing.panels}


def test_a_long_training_loss_is_shown_as_means_over_windows() -> None:
    losses = {step: float(step) for step in range(1, 151)}
    (drawing,) = figure3(Runs("stage1", {"sft": {0: Run(losses)}, "dpo": {0: Run({1: 8.0, 2: 4.0})}}))
    rows = panel_of(drawing, "loss").set_index(["line", "step"])["mean"]
    assert rows["sft"].to_dict() == {3.0 * k: 3.0 * k - 1 for k in range(1, 51)}
    assert rows["dpo"].to_dict() == {3: 6.0}
    assert "steps up to it (3)" in caption(drawing)


def test_quality_of_candidates_over_steps_is_a_line() -> None:
    top = {step: Scores({"cider": step / 100}, candidates=3) for step in (50, 0, 100)}
    (drawing,) = figure3(Runs("stage1", {"sft": {0: Run(top=top)}}))
    rows = panel_of(drawing, "top_cider")
    assert (list(rows.step), list(rows["mean"])) == ([0, 50, 100], [0.0, 50.0, 100.0])
    axes = render(drawing).axes[2]
    assert (axes.get_title(), axes.get_xlabel()) == ("CIDEr of the top-3 answers", "training step")


def test_figure_5_has_the_first_three_updates_and_not_the_run_itself(runs: Runs) -> None:
    drawing, _ = figure5(runs)
    assert drawing.name == "figure5-sft"
    assert len(drawing.panels) == 12
    table = table_of(drawing)
    assert set(table["update"]) == {"u0", "u1", "u2"}
    assert set(table["line"]) == {"a, chosen", "a, hard", "b, chosen", "b, hard"}
    rows = table[(table.panel == "fig5_g_square") & (table["update"] == "u1") & (table["line"] == "b, hard")]
    assert (list(rows["mean"]), list(rows.low)) == ([7, 17, 27, 47], [6, 16, 26, 46])
    assert "the first 3 of 4" in caption(drawing)


def test_figure_5_without_updates_says_so() -> None:
    rows = influence(0)
    (drawing,) = figure5(Runs("stage2", {"dpo": {0: Run(influence=rows[rows["update"].isna()])}}))
    assert drawing.missing == ["influence: no update was measured"]


def test_figure_6_and_its_mean_are_the_weights_of_the_files(runs: Runs, folders: dict[str, dict[int, Path]]) -> None:
    drawing, _ = figure6(runs)
    table = table_of(drawing)
    assert list(dict.fromkeys(table["sample"])) == ["b", "a", "d", "mean"], "the first ones of the probe set"
    responses = {seed: pd.read_parquet(at / "responses.parquet") for seed, at in folders["sft"].items()}
    for kind in ("hard", "medium", "easy"):
        of_kind = {seed: rows[rows.kind == kind] for seed, rows in responses.items()}
        single = {seed: rows[rows.id == "a"].set_index("step").w_c for seed, rows in of_kind.items()}
        check(table[table["sample"] == "a"], kind, single)
        means = {seed: rows.groupby("step").w_c.mean() for seed, rows in of_kind.items()}
        check(table[table["sample"] == "mean"], kind, means)
    assert "l_floor -3, tau 1" in caption(drawing)


def test_figure_6_shows_the_samples_that_are_named(runs: Runs) -> None:
    drawing, _ = figure6(Runs("stage2", runs.cases, samples={"e": "a cat on a sofa", "x": "nobody"}))
    assert [panel.title for panel in drawing.panels] == ["a cat on a sofa", "nobody", "mean over samples"]
    assert "sample x has no hard negative" in texts(drawing).replace("\n", " ")


def test_delta_logp_by_kind(runs: Runs, folders: dict[str, dict[int, Path]]) -> None:
    (drawing,) = delta_logp(runs)
    table = table_of(drawing)
    for case, seeds in folders.items():
        for kind in ("chosen", "hard", "medium", "easy", "greedy", "shuffled", "other"):
            found = {seed: pd.read_parquet(at / "responses.parquet") for seed, at in seeds.items()}
            means = {seed: rows[rows.kind == kind].groupby("step").delta_logp.mean() for seed, rows in found.items()}
            check(table[table.case == case], kind, means)
    assert [panel.title for panel in drawing.panels] == ["sft (n = 3)", "sft_c (n = 1)"]


# ------------------------------------------------------------------------------------------------------------ seeds


def test_seeds_by_hand() -> None:
    first, second = pd.Series({0: 1.0, 10: 2.0, 20: np.nan}), pd.Series({0: 3.0, 20: 8.0})
    lines = over_seeds({"sft": {0: first, 1: second, 2: "failed: out of memory"}, "dpo": {0: "not probed"}})
    rows = lines.data.set_index("step")
    assert list(rows.index) == [0, 10, 20]
    assert list(rows["mean"]) == [2.0, 2.0, 8.0]
    assert (list(rows.low), list(rows.high)) == ([1.0, 2.0, 8.0], [3.0, 2.0, 8.0])
    assert rows.sd[0] == pytest.approx(2**0.5)
    assert rows.sd[[10, 20]].isna().all()
    assert (list(rows.n), list(rows.seeds)) == ([2, 1, 1], [2, 2, 2])
    assert lines.missing == {"sft": "1 of 3 seeds: failed: out of memory", "dpo": "not probed"}


def test_several_seeds_have_a_band_one_has_none_and_missing_ones_make_a_line_dotted(runs: Runs) -> None:
    (drawing,) = figure3(runs)
    axes = next(axes for axes in render(drawing).axes if axes.get_title() == "Predictive entropy")
    colours = {line.get_color() for line in axes.lines}
    assert colours == {looks(SEEDS)["sft"].colour, looks(SEEDS)["sft_c"].colour}
    assert len(axes.collections) == 1, "the band of the case with three seeds"
    dotted, solid, other = axes.lines
    assert (dotted.get_linestyle(), solid.get_linestyle(), other.get_linestyle()) == (":", "-", "-")
    drawn = np.asarray(solid.get_ydata(), dtype=float)
    assert np.isnan(drawn).tolist() == [False, False, False, True], "the third seed stopped before the last step"
    assert {"sft (n = 3)", "sft_c (n = 1)"} == set(drawing.legend.values())


def test_a_case_has_one_colour_and_no_two_cases_look_alike() -> None:
    found = looks(map(str, range(21)))
    assert len({(look.colour, str(look.dash)) for look in found.values()}) == 21
    assert len({(look.colour, look.hatch) for look in found.values()}) == 21


# ------------------------------------------------------------------------------------------------ what is not there


def test_a_panel_says_why_it_is_empty(runs: Runs) -> None:
    (drawing,) = figure3(runs)
    assert f"not available: {NO_SPICE}" in texts(drawing).replace("\n", " ")
    assert f"- Not available: SPICE of the top-5 answers: {NO_SPICE}." in caption(drawing)
    assert not render(drawing).axes[3].axison
    assert "top_spice" not in set(table_of(drawing).panel)


def test_kinds_that_were_not_probed_are_named(tmp_path: Path) -> None:
    probes = read_probes([synthetic(tmp_path, STEPS, IDS, kinds=("chosen", "hard"))])
    runs = Runs("stage2", {"cw_dpo": {0: Run(probes=probes)}})
    (deltas,), (weights,) = delta_logp(runs), figure6(runs)
    assert set(table_of(deltas).line) == {"chosen", "hard"}
    assert "easy: delta_logp_easy was not recorded" in "".join(deltas.missing)
    assert set(table_of(weights).line) == {"hard"}
    assert any("w_c_easy was not recorded" in reason for reason in weights.missing)


def test_a_case_without_probes_is_left_out_and_keeps_its_colour(runs: Runs, tmp_path: Path) -> None:
    failed = {0: Run(probes="failed: out of memory")}
    (drawing,) = figure4(Runs("stage1", {"lost": failed, **runs.cases}))
    assert list(drawing.legend) == ["sft", "sft_c"]
    assert drawing.looks["sft"] == looks(["lost", "sft"])["sft"]
    assert "lost: failed: out of memory" in drawing.missing[0]
    assert "lost: not available" in texts(drawing), "in the place of its bar"


@pytest.mark.parametrize("cases", [{}, {"sft": {}}, {"sft": {0: Run()}}], ids=["no case", "no run", "nothing of it"])
def test_nothing_available_leaves_no_files(cases: dict[str, dict[int, Run]], tmp_path: Path) -> None:
    drawn = draw_figures(tmp_path / "figures", Runs("stage1", cases))
    assert not any(one.files for one in drawn)
    assert all(one.missing for one in drawn if cases)
    assert not (tmp_path / "figures").exists()
    if cases.get("sft"):
        assert ("influence: influence was not measured",) in [one.missing for one in drawn]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = synthetic(tmp_path, STEPS, IDS)
    whole = (folder / "tokens.parquet").read_bytes()
    (folder / "tokens.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"tokens\.parquet"):
        read_probes([folder])


# ------------------------------------------------------------------------------------------------------------ files


def test_every_figure_is_written_as_what_its_name_says(runs: Runs, tmp_path: Path) -> None:
    one = Runs("stage1", {"sft_c": runs.cases["sft_c"]})
    drawn = draw_figures(tmp_path, one)
    assert [found.name for found in drawn] == ["figure3", "figure4", "figure5-sft_c", "figure6-sft_c", "delta_logp"]
    for found in drawn:
        png, pdf, table, text = found.files
        with Image.open(png) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width == 1380, "6.9 inches at 200 dots"
        assert pdf.read_bytes().startswith(b"%PDF-")
        assert pdf.read_bytes().rstrip().endswith(b"%%EOF")
        assert len(pd.read_csv(table))
        assert text.read_text().startswith(f"# {found.name}\n")
    assert sorted(tmp_path.iterdir()) == sorted(path for found in drawn for path in found.files)


def test_the_same_data_gives_the_same_bytes_whatever_matplotlib_is_set_to(runs: Runs, tmp_path: Path) -> None:
    import matplotlib

    _, drawing = figure6(runs)
    first = save(drawing, tmp_path / "first")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        second = save(drawing, tmp_path / "second")
        assert matplotlib.rcParams["font.size"] == 20, "left as it was"
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"CreationDate" not in first[1].read_bytes()


def test_a_case_with_axis_values_has_a_file_name(runs: Runs) -> None:
    drawing, _ = figure6(Runs("stage2", {"cw_dpo tau=0.5/x": runs.cases["sft"], "b": {}}))
    assert drawing.name == "figure6-cw_dpo-tau=0.5-x"


def test_modules_are_light_and_pyplot_is_never_needed(tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
import cwdpo.report.figures.candidates, cwdpo.report.figures.draw as draw
from cwdpo.report.figures.runs import Run, Runs
light = sorted({"torch", "matplotlib", "pandas", "pyarrow", "numpy", "pycocoevalcap"} & set(sys.modules))
draw.draw_figures(Path(sys.argv[1]), Runs("stage1", {"sft": {0: Run({1: 1.0})}}), ["figure3"])
print(json.dumps([light, "matplotlib.pyplot" in sys.modules, "torch" in sys.modules]))
"""
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == [[], False, False]
    assert (tmp_path / "figure3.png").exists()


def test_figures_have_their_names() -> None:
    assert list(FIGURES) == ["figure3", "figure4", "figure5", "figure6", "delta_logp"]


# ----------------------------------------------------------------------------------------------------------- scores


def test_scores_of_a_score_stage() -> None:
    summary = {"metrics": {"cider": 1.2, "spice": None}, "unavailable": {"spice": f"not available: {NO_SPICE}."}}
    scores = Scores.of(summary)
    assert (scores.value("cider"), scores.value("spice")) == (120.0, NO_SPICE)
    assert scores.value("meteor") == "meteor was not scored"


def test_candidates_are_scored_rank_by_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def score(answers: dict[str, str], references: dict[str, list[str]], metrics: Sequence[str]) -> Any:
        asked.append((answers, references))
        return captions.CaptionScores(
            {"cider": float(len(answers["1"])), "spice": None}, {"spice": f"not available: {NO_SPICE}"}, {}
        )

    monkeypatch.setattr(captions, "score_captions", score)
    rows = [{"id": name, "candidates": [name * (k + 1) for k in range(6)]} for name in ("1", "2")]
    path = tmp_path / "generations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = candidate_scores(path, {"1": ["one"], "2": ["two"], "3": ["three"]})
    assert found == Scores({"cider": 3.0}, {"spice": NO_SPICE}, candidates=5)
    assert asked[1] == ({"1": "11", "2": "22"}, {"1": ["one"], "2": ["two"]})


def test_generations_without_candidates_have_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    path.write_text('{"id": "1", "text": "one"}\n')
    assert candidate_scores(path, {"1": ["one"]}) == "one answer was generated per item"
