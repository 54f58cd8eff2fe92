"""Images of which less is seen: which pixels go, what the model is given, what the reference is asked about them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import families
import harness
import numpy as np
import pytest
import torch
from harness import POLICY, Micro
from PIL import Image
from safetensors.torch import load_file, save_file

from cwdpo.base.files import read_jsonl
from cwdpo.data.encoding import Collator
from cwdpo.data.samples import Sample, load_samples
from cwdpo.data.views import BLANK, WHOLE, View, blanked, masked
from cwdpo.model.config import Policy
from cwdpo.model.load import load_model, load_policy_processor
from cwdpo.model.scoring import PLAIN, Scorer
from cwdpo.objectives import OpaDpo
from cwdpo.objectives.preference import Term
from cwdpo.train.terms import groups_of

PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", PROMPT] * 10
FLOAT32 = Policy(dtype="float32")
MASKED = 0.3
VIEWS = (WHOLE, View(MASKED), View(0.6), BLANK)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture none of whose pixels is near its mean colour."""
    values = np.random.default_rng(seed).integers(0, 100, (height, width, 3))
    values[: height // 2] += 150
    return Image.fromarray(values.astype(np.uint8))


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """Where two pictures differ. Shape (height, width)."""
    return (np.asarray(before) != np.asarray(after)).any(2)


# ---------------------------------------------------------------------------------------------------------------------
# Masks


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.3, 360), (0.5, 600), (0.9996, 1200)])
def test_a_share_of_a_small_picture_shows_the_mean_colour(share: float, count: int) -> None:
    picture = noise(30, 40)
    found = masked(picture, share, "a.png")
    where = changed(picture, found)
    assert (found.size, found.mode) == (picture.size, "RGB")
    assert where.sum() == count
    mean = np.asarray(picture).astype(float).mean((0, 1)).round()
    assert (np.asarray(found)[where] == mean).all()


@pytest.mark.parametrize(("height", "width"), [(224, 336), (112, 560)])
def test_a_large_picture_is_hidden_cell_by_cell(height: int, width: int) -> None:
    """112 x 112 cells, of 2 x 3 and of 1 x 5 pixels; 3,763 of them are 0.3 of all."""
    picture = noise(height, width)
    where = changed(picture, masked(picture, 0.3, "a.png"))
    cells = where.reshape(112, height // 112, 112, width // 112)
    assert (cells.all((1, 3)) == cells.any((1, 3))).all(), "a cell is hidden whole or not at all"
    assert cells.all((1, 3)).sum() == 3763


def test_of_a_picture_that_cells_do_not_divide_the_share_is_hidden_too() -> None:
    picture = noise(250, 301)
    assert changed(picture, masked(picture, 0.3, "a.png")).mean() == pytest.approx(0.3, abs=0.01)


def test_what_is_hidden_is_hidden_after_scaling_too() -> None:
    """Masks of single pixels would be gone: scaled to a third, no pixel would have the mean colour any more."""
    picture = noise(672, 672)
    mean = np.asarray(picture).astype(float).mean((0, 1)).round()
    scaled = np.asarray(masked(picture, 0.3, "a.png").resize((224, 224), Image.Resampling.BOX))
    assert (scaled == mean).all(2).mean() == pytest.approx(0.3, abs=0.01)


def test_hidden_pixels_lie_all_over_the_picture() -> None:
    """Half of each quarter, within six standard deviations of a fair draw (300 pixels: 8.7)."""
    picture = noise(30, 40)
    where = changed(picture, masked(picture, 0.5, "a.png"))
    quarters = [half for rows in np.split(where, 2) for half in np.split(rows, 2, axis=1)]
    assert all(abs(int(quarter.sum()) - 150) < 53 for quarter in quarters)


def test_a_name_has_one_mask_and_another_name_another() -> None:
    picture, other = noise(30, 40), noise(30, 40, seed=1)
    first = changed(picture, masked(picture, MASKED, "a.png"))
    assert (changed(other, masked(other, MASKED, "a.png")) == first).all(), "what is seen does not matter"
    second = changed(picture, masked(picture, MASKED, "b.png"))
    # Two fair draws of 360 of 1,200 pixels have 108 in common, give or take 7.6.
    assert 60 < (first & second).sum() < 156


def test_a_larger_share_hides_the_same_pixels_and_more() -> None:
    picture = noise(250, 301)
    few, many = (changed(picture, masked(picture, share, "a.png")) for share in (0.2, 0.4))
    assert (few <= many).all()


def test_another_process_draws_the_same_mask(tmp_path: Path) -> None:
    """Reference and training see the same image on different days."""
    noise(30, 40).save(tmp_path / "a.png")
    code = (
        "import sys; from PIL import Image; from cwdpo.data.views import masked;"
        "masked(Image.open(sys.argv[1]), 0.3, 'a.png').save(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png", tmp_path / "b.png"], check=True)
    with Image.open(tmp_path / "b.png") as found:
        assert not changed(masked(noise(30, 40), 0.3, "a.png"), found).any()


# ---------------------------------------------------------------------------------------------------------------------
# What the model is given


class Family:
    """A family's processor, and images."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        families.BUILDERS[name](folder / "model", TEXTS, 1)
        for number, image in enumerate(("a.png", "b.png")):
            noise(32, 64, number).save(folder / image)
        Image.new("RGB", (64, 64), tuple(self.mean_colour())).save(folder / "mean.png")

    def collator(self) -> Collator:
        return Collator(load_policy_processor(FLOAT32, self.folder / "model"), self.folder, 512)

    def mean_colour(self) -> list[int]:
        """What the processor takes for the mean of all images."""
        mean = self.collator().processor.image_processor.image_mean
        return [round(255 * channel) for channel in mean]


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


def test_a_blank_image_is_nothing_where_pixels_were_and_nothing_else_changes(family: Family) -> None:
    collator = family.collator()
    whole = collator.prefix("a.png", PROMPT)
    before = {key: value.clone() for key, value in whole.items()}
    blank = blanked(whole)
    assert blank.keys() == whole.keys()
    assert float(blank["pixel_values"].abs().max()) < 1e-19
    assert blank["pixel_values"].shape == whole["pixel_values"].shape
    assert all(torch.equal(blank[key], whole[key]) for key in whole.keys() - {"pixel_values"})
    assert all(torch.equal(whole[key], before[key]) for key in whole), "what it was made of stays"
    assert whole["pixel_values"].any()


def test_under_a_blank_image_all_images_are_one(family: Family) -> None:
    """And one of its own: a model that took it for padding could not even be asked."""
    collator = family.collator()
    groups = [
        collator.group(Sample("1", "1", image, PROMPT, ""), ["a small red circle"], view)
        for image, view in product(("a.png", "b.png"), (WHOLE, BLANK))
    ]
    scorer = Scorer(load_model(FLOAT32, family.folder / "model"), collator.pad, torch.device("cpu"), PLAIN)
    with torch.no_grad():
        first, blank, second, other_blank = scorer.logps(groups)[0].tolist()
    assert blank == pytest.approx(other_blank, abs=1e-6)
    assert len({round(value, 3) for value in (first, second, blank)}) == 3


def test_zeros_are_what_a_picture_of_the_mean_colour_gives(family: Family) -> None:
    pixels = family.collator().prefix("mean.png", PROMPT)["pixel_values"]
    assert float(pixels.abs().max()) < 0.5 / 255 / 0.2  # rounding to bytes; no processor divides by less than 0.2


def test_a_masked_image_is_encoded_as_a_masked_file_would_be(family: Family) -> None:
    collator = family.collator()
    with Image.open(family.folder / "a.png") as image:
        masked(image, MASKED, "a.png").save(family.folder / "hidden.png")
    found = collator.prefix("a.png", PROMPT, View(MASKED))
    expected = collator.prefix("hidden.png", PROMPT)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not torch.equal(found["pixel_values"], collator.prefix("a.png", PROMPT)["pixel_values"])


@pytest.mark.parametrize("order", list(permutations(range(len(VIEWS))))[::5])
def test_views_of_one_image_are_kept_apart(family: Family, order: tuple[int, ...]) -> None:
    """Each asked for twice, so that the second time it comes from memory."""
    collator = family.collator()
    for _ in range(2):
        found = {number: collator.prefix("a.png", PROMPT, VIEWS[number]) for number in order}
        for number, prefix in found.items():
            fresh = family.collator().prefix("a.png", PROMPT, VIEWS[number])
            assert all(torch.equal(prefix[key], fresh[key]) for key in fresh)
    pixels = [found[number]["pixel_values"] for number in range(len(VIEWS))]
    assert not any(torch.equal(one, other) for one, other in permutations(pixels, 2))


def test_every_view_of_a_sample_has_its_own_responses(family: Family) -> None:
    sample = Sample("1", "1", "a.png", PROMPT, "good", ("bad", "worse"), ("better", "best"))
    collator = family.collator()
    whole, hidden = groups_of(collator, sample, OpaDpo().terms, MASKED)
    seen, blank = groups_of(collator, sample, ("chosen", "rejected", "chosen|blank", "rejected|blank"), None)
    texts = {
        view: [collator.processor.tokenizer.decode(tokens[:-1]) for tokens in group.responses]
        for view, group in {"whole": whole, "hidden": hidden, "seen": seen, "blank": blank}.items()
    }
    assert texts == {
        "whole": ["good", "bad", "worse", "better", "best"],
        "hidden": ["good", "better", "best"],
        "seen": ["good", "bad", "worse"],
        "blank": ["good", "bad", "worse"],
    }
    pixels = collator.prefix("a.png", PROMPT, View(MASKED))["pixel_values"]
    assert torch.equal(hidden.prefix["pixel_values"], pixels)
    assert torch.equal(seen.prefix["pixel_values"], whole.prefix["pixel_values"])
    assert float(blank.prefix["pixel_values"].abs().max()) < 1e-19


# ---------------------------------------------------------------------------------------------------------------------
# The reference


@pytest.fixture(scope="module")
def seeing(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Micro:
    """The micro model after so little training that it hardly looks, but with its image tokens 50 times as strong."""
    folder = tmp_path_factory.mktemp("seeing") / "model"
    shutil.copytree(micro.model, folder)
    weights = load_file(folder / "model.safetensors")
    (last,) = (name for name in weights if name.endswith("merger.mlp.2.weight"))
    save_file({**weights, last: weights[last] * 50}, folder / "model.safetensors", metadata={"format": "pt"})
    return replace(micro, model=folder)


@pytest.fixture(scope="module")
def cached(seeing: Micro, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Negatives with revised answers, and what the stage `reference` says of all terms of OPA-DPO."""
    home = tmp_path_factory.mktemp("reference")
    spec = {"negatives": {"source": "perturb", "count": 2, "of": "reference"}, "portion": "stage2"}
    negatives = harness.node("negatives", spec, {"pairs": seeing.pairs})
    settings = {"policy": POLICY, "terms": OpaDpo().terms, "masked_share": MASKED}
    reference = harness.node("reference", settings, {**seeing.inputs(), "negatives": negatives}, micro_batch=4)
    first, second = harness.compute(home, [negatives, reference])
    return first, second


def test_the_reference_of_masked_terms_is_that_of_the_masked_image(seeing: Micro, cached: tuple[Path, Path]) -> None:
    """A fresh computation: pictures masked here, a row for each response, all its logits."""
    negatives, reference = cached
    rows = {row["id"]: row for row in read_jsonl(reference / "reference.jsonl")}
    samples = load_samples(seeing.pairs, negatives, "stage2", paired=True)
    plainly = Plainly(seeing)
    effects: dict[Term, float] = {}
    for sample in samples[:4]:
        whole, hidden = plainly.prefixes(sample)
        texts = {"chosen": (sample.chosen,), "rejected": sample.rejected, "revised": sample.revised}
        for term in OpaDpo().terms:
            role, _, view = term.partition("|")
            expected = [plainly.logp(hidden if view else whole, text) for text in texts[role]]
            found = rows[sample.id][term]
            assert (found if isinstance(found, list) else [found]) == pytest.approx(expected, abs=1e-4), term
            other = plainly.logp(whole if view else hidden, texts[role][0])
            effects[term] = max(effects.get(term, 0), abs(other - expected[0]))
    assert min(effects.values()) > 5e-3, "or the views could be mixed up"
    assert len(rows) == len(samples) > 4


class Plainly:
    """The micro model and its processor, used as their own documentation does."""

    def __init__(self, micro: Micro) -> None:
        self.images = micro.images
        self.processor = load_policy_processor(FLOAT32, micro.model)
        self.model = load_model(FLOAT32, micro.model)

    def prefixes(self, sample: Sample) -> list[Any]:
        """Image and prompt, with all of the image and with the masked one."""
        content = [{"type": "image"}, {"type": "text", "text": sample.prompt}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        with Image.open(self.images / sample.image) as image:
            pictures = [image.convert("RGB"), masked(image.convert("RGB"), MASKED, sample.image)]
        return [self.processor(text=[text], images=[[picture]], return_tensors="pt") for picture in pictures]

    def logp(self, prefix: Any, response: str) -> float:
        tokenizer = self.processor.tokenizer
        tokens = torch.tensor([[*tokenizer(response)["input_ids"], tokenizer.eos_token_id]])
        length = tokens.shape[1]
        inputs = {**prefix, "input_ids": torch.cat([prefix["input_ids"], tokens], 1)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["mm_token_type_ids"] = torch.cat([prefix["mm_token_type_ids"], torch.zeros_like(tokens)], 1)
        with torch.no_grad():
            logits = self.model(**inputs).logits[0, -length - 1 : -1].double()
        return float(logits.log_softmax(-1)[range(length), tokens[0]].sum())
