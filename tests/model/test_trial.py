"""The choice of a way to score: the quickest that gives the values of the plain one, found out by trying."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.encoding import Collator, Group
from cwdpo.data.layout import ResponseBatch
from cwdpo.data.samples import Sample
from cwdpo.model.config import Policy
from cwdpo.model.load import load_model, load_policy_processor
from cwdpo.model.scoring import PLAIN, Scorer, Way
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.model.trial import TOLERANCE, _sees_everything, _trial_groups, choose_scorer

POLICY = Policy(dtype="float32")
TEXTS = ["a small red circle", "Describe the image."] * 10
SAMPLES = [
    Sample("1", "1", "a.png", "Describe the image.", "a red circle", ()),
    Sample("2", "2", "a.png", "Describe the image.", "a red circle", ("a small circle", "red")),
    Sample("3", "3", "a.png", "Describe", "circle", ("small",)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scoring")
    build_tiny_qwen(TinyQwen(hidden_size=64), TEXTS, folder / "model", 1)
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    return folder


def examples(collator: Collator, sample: Sample) -> list[Group]:
    return [collator.group(sample, [sample.chosen, *sample.rejected])]


class Trial:
    """A model to choose for, and what was said of the choice."""

    def __init__(self, folder: Path, partial: Path | None = None, **execution: Any) -> None:
        self.model = load_model(POLICY, folder / "model")
        self.collator = Collator(load_policy_processor(POLICY, folder / "model"), folder, 256)
        self.said: list[dict[str, Any]] = []
        self.context: Any = SimpleNamespace(
            execution=Execution(**execution), rank=Rank(), event=lambda kind, **more: self.said.append(more),
            partial=partial or Path(tempfile.mkdtemp(dir=folder)),
        )  # fmt: skip

    def choose(self, samples: list[Sample] = SAMPLES) -> Scorer:
        return choose_scorer(
            self.context, self.model, self.collator.pad, samples, partial(examples, self.collator), "float32"
        )


def test_a_model_that_can_shares_prefixes_and_reads_its_head_in_chunks(folder: Path) -> None:
    trial = Trial(folder)
    assert trial.choose().way == Way(shared=True, chunked=True, apart=True)
    (said,) = trial.said
    assert said["way"] == said["wished"] == "shared prefixes, the head in chunks"
    assert 0 < max(said["difference_per_token"].values()) < 1e-5


def test_what_execution_switches_off_stays_off(folder: Path) -> None:
    assert Trial(folder, shared_prefix=False).choose().way == Way(shared=False, chunked=True)
    assert Trial(folder, chunked_head=False).choose().way == Way(shared=True, chunked=False, apart=True)
    assert Trial(folder, shared_prefix=False, chunked_head=False).choose().way == PLAIN


def test_attention_that_takes_the_mask_wrongly_gets_rows_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eager attention adds a true/false mask to its scores without a word."""
    trial = Trial(folder)
    trial.model.set_attn_implementation("eager")
    assert trial.choose().way == Way(shared=False, chunked=True)
    (said,) = trial.said
    assert said["difference_per_token"]["shared prefixes, the head in chunks"] > TOLERANCE["float32"]
    assert "not scored with shared prefixes" in capsys.readouterr().err


def test_logits_that_are_not_the_heads_product_are_taken_from_the_model(folder: Path) -> None:
    """A model that caps its logits behind the head, as some do; far above most logits, where values hardly tell."""
    trial = Trial(folder)
    plain = type(trial.model).forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        output = plain(trial.model, *args, **kwargs)
        output.logits = 50.0 * torch.tanh(output.logits / 50.0)
        return output

    trial.model.forward = capped
    assert trial.choose().way == Way(shared=True, chunked=False, apart=True)


def test_layers_that_do_not_see_everything_get_rows_of_their_own(folder: Path) -> None:
    """A window longer than the samples of the trial, so that values could not tell."""
    for change in ({"sliding_window": 200}, {"layer_types": ["full_attention", "sliding_attention"]}):
        trial = Trial(folder)
        config = trial.model.get_decoder().config
        config.use_sliding_window = True
        for name, value in change.items():
            setattr(config, name, value)
        assert not trial_sees_everything(trial)
    assert trial_sees_everything(Trial(folder))


def trial_sees_everything(trial: Trial) -> bool:
    groups = [trial.collator.group(SAMPLES[1], [SAMPLES[1].chosen])]
    return _sees_everything(trial.model, groups)


def test_images_that_see_themselves_in_both_directions_get_rows_of_their_own(folder: Path) -> None:
    trial = Trial(folder)
    group = trial.collator.group(SAMPLES[1], [SAMPLES[1].chosen])
    marked = {**group.prefix, "token_type_ids": (group.prefix["input_ids"] == 5).long()}
    marked["token_type_ids"][0, 3] = 1
    assert not _sees_everything(trial.model, [Group(marked, group.responses)])


def test_a_way_that_fails_is_one_that_does_not_agree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: ResponseBatch) -> torch.Tensor:
        if self.branches is not None:
            raise ValueError("a mask of four dimensions is not supported")
        return (self.groups >= 0).long()

    monkeypatch.setattr(ResponseBatch, "attention", refuses)
    trial = Trial(folder)
    assert trial.choose().way == Way(shared=False, chunked=True)
    (said,) = trial.said
    assert said["difference_per_token"]["shared prefixes, the head in chunks"] is None
    assert trial.model.get_decoder().config._attn_implementation == "sdpa", "what was refused leaves nothing behind"


def test_a_run_goes_on_in_the_way_it_began(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Trial(folder, tmp_path).choose().way
    monkeypatch.setattr("cwdpo.model.trial._difference", lambda *_: float("inf"))
    assert Trial(folder, tmp_path).choose().way == first
    other = Trial(folder, tmp_path, chunked_head=False).choose().way
    assert other == PLAIN, "another wish is tried anew"


def test_the_trial_is_held_on_prefixes_of_different_lengths(folder: Path) -> None:
    trial = Trial(folder)
    few = [Sample(str(number), "", "a.png", "Describe the image.", "a", ("red",)) for number in range(5)]
    groups = _trial_groups(partial(examples, trial.collator), [*few, SAMPLES[2]])
    assert groups[0].prefix_length != groups[1].prefix_length


def test_a_head_of_another_kind_is_left_to_the_model(folder: Path) -> None:
    class Head(torch.nn.Linear):
        pass

    trial = Trial(folder)
    trial.model.lm_head.__class__ = Head
    assert trial.choose().way == Way(shared=True, chunked=False, apart=True)


def test_not_a_number_agrees_with_nothing(folder: Path) -> None:
    trial = Trial(folder)
    with torch.no_grad():
        trial.model.lm_head.weight.fill_(float("nan"))
    assert trial.choose().way == PLAIN


def test_samples_without_rejected_responses_get_plain_rows(folder: Path) -> None:
    trial = Trial(folder)
    scorer = trial.choose(SAMPLES[:1])
    batch = scorer.batch([trial.collator.group(SAMPLES[0], [SAMPLES[0].chosen])])
    assert batch.branches is None
    assert batch.attention().dim() == 2
