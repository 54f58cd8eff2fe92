"""The choice of a way to score: the quickest that gives the values of the plain one, found out by trying."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from cwdpo.base.runtime import Execution, Rank
from cwdpo.data.batches import Collator
from cwdpo.data.samples import Sample
from cwdpo.model import scoring
from cwdpo.model.config import Policy
from cwdpo.model.load import load_model, load_policy_processor
from cwdpo.model.scoring import PLAIN, Scorer, Way, choose_scorer
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen

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


class Trial:
    """A model to choose for, and what was said of the choice."""

    def __init__(self, folder: Path, **execution: Any) -> None:
        self.model = load_model(POLICY, folder / "model")
        self.collator = Collator(load_policy_processor(POLICY, folder / "model"), folder, 256)
        self.said: list[dict[str, Any]] = []
        self.context: Any = SimpleNamespace(
            execution=Execution(**execution), rank=Rank(), event=lambda kind, **more: self.said.append(more)
        )

    def choose(self, samples: list[Sample] = SAMPLES) -> Scorer:
        def responses(sample: Sample) -> list[str]:
            return [sample.chosen, *sample.rejected]

        return choose_scorer(self.context, self.model, self.collator, samples, responses, "float32")


def test_a_model_that_can_shares_prefixes_and_reads_its_head_in_chunks(folder: Path) -> None:
    trial = Trial(folder)
    assert trial.choose().way == Way(shared=True, chunked=True)
    (said,) = trial.said
    assert said["way"] == said["wished"] == "shared prefixes, the head in chunks"
    assert 0 < max(said["difference_per_token"].values()) < 1e-5


def test_what_execution_switches_off_stays_off(folder: Path) -> None:
    assert Trial(folder, shared_prefix=False).choose().way == Way(shared=False, chunked=True)
    assert Trial(folder, chunked_head=False).choose().way == Way(shared=True, chunked=False)
    assert Trial(folder, shared_prefix=False, chunked_head=False).choose().way == PLAIN


def test_attention_that_takes_the_mask_wrongly_gets_rows_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eager attention adds a true/false mask to its scores without a word."""
    trial = Trial(folder)
    trial.model.set_attn_implementation("eager")
    assert trial.choose().way == Way(shared=False, chunked=True)
    (said,) = trial.said
    assert said["difference_per_token"]["shared prefixes, the head in chunks"] > scoring.TOLERANCE["float32"]
    assert "cannot be scored with shared prefixes" in capsys.readouterr().err


def test_logits_that_are_not_the_heads_product_are_taken_from_the_model(folder: Path) -> None:
    """A model that caps its logits behind the head, as some do."""
    trial = Trial(folder)
    plain = type(trial.model).forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        output = plain(trial.model, *args, **kwargs)
        output.logits = 2.0 * torch.tanh(output.logits / 2.0)
        return output

    trial.model.forward = capped
    scorer = trial.choose()
    assert scorer.way == PLAIN
    group = trial.collator.group(SAMPLES[1], [SAMPLES[1].chosen])
    with torch.no_grad():
        logps, _ = scorer.logps([group])
        logits = trial.model(**group.prefix).logits[0, -1]
    assert float(logits.abs().max()) <= 2.0
    assert float(logps[0]) < 0


def test_a_head_of_another_kind_is_left_to_the_model(folder: Path) -> None:
    class Head(torch.nn.Linear):
        pass

    trial = Trial(folder)
    trial.model.lm_head.__class__ = Head
    assert trial.choose().way == Way(shared=True, chunked=False)


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
