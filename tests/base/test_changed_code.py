"""Digests of the code: what a stage's results depend on, and what does not count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cwdpo.base import sources
from cwdpo.base.config import Config, validate
from cwdpo.negatives.stage import NegativesSpec
from cwdpo.pipeline import STAGES


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the same name with three small modules."""
    folder = tmp_path / "cwdpo"
    (folder / "base").mkdir(parents=True)
    code = {
        "stage.py": (
            '"""A stage."""\nfrom cwdpo import other\nfrom cwdpo.base import files\nfrom cwdpo.helper import add\n'
            'WORDS = "words.yaml"\n\ndef run(x):\n    """Run it."""\n    return add(x, 1)\n'
        ),
        "helper.py": "def add(x, y):\n    import cwdpo.deep\n\n    return x + y\n",
        "other.py": "A = 1\n",
        "deep.py": "B = 1\n",
        "unrelated.py": "C = 1\n",
        "__init__.py": "",
        "base/files.py": "D = 1\n",
        "words.yaml": "a: 1\n",
        "more.yaml": "a: 1\n",
    }
    for name, text in code.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", folder)
    forget_sources()
    yield folder
    forget_sources()


def forget_sources() -> None:
    """As in a new process."""
    sources._read.cache_clear()
    sources._digests.cache_clear()


class Plain(Config):
    """A specification from outside the package."""


def changes(package: Path, name: str, old: str, new: str) -> list[str]:
    """What counts as changed after an edit of one file."""
    before = sources.source_digests("cwdpo.stage", Plain())
    path = package / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    forget_sources()
    return sources.changed_sources(before, "cwdpo.stage", Plain())


def test_the_sources_of_a_stage_are_what_it_imports_but_not_the_plumbing(package: Path) -> None:
    found = sources.source_digests("cwdpo.stage", Plain())
    assert list(found) == ["cwdpo.deep", "cwdpo.helper", "cwdpo.other", "cwdpo.stage", "cwdpo/words.yaml"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stage.py", '"""Run it."""', '"""Run it well."""'),
        ("stage.py", '"""A stage."""\n', ""),
        ("stage.py", "return add(x, 1)", "return add(\n        x,\n        1,  # one\n    )"),
        ("helper.py", "def add", "# adds\ndef add"),
        ("base/files.py", "1", "2"),
        ("unrelated.py", "1", "2"),
        ("more.yaml", "1", "2"),
    ],
)
def test_comments_docstrings_layout_and_plumbing_do_not_count(package: Path, name: str, old: str, new: str) -> None:
    assert changes(package, name, old, new) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        ("stage.py", "add(x, 1)", "add(x, 2)", ["cwdpo.stage"]),
        ("helper.py", "x + y", "x - y", ["cwdpo.helper"]),
        ("other.py", "1", "2", ["cwdpo.other"]),
        ("deep.py", "1", "2", ["cwdpo.deep"]),
        ("words.yaml", "1", "2", ["cwdpo/words.yaml"]),
        ("other.py", "A = 1", "from cwdpo.unrelated import C", ["cwdpo.other", "cwdpo.unrelated"]),
    ],
)
def test_a_change_of_code_or_of_data_it_names_counts(
    package: Path, name: str, old: str, new: str, found: list[str]
) -> None:
    assert changes(package, name, old, new) == found


def digests(stage: str, spec: dict[str, Any]) -> dict[str, str]:
    return sources.source_digests(STAGES[stage].module, STAGES[stage].spec.model_validate(spec))


def test_the_lexicon_is_a_source_of_negatives_by_rule_only() -> None:
    found = digests("negatives", {"negatives": {"source": "perturb"}, "portion": "stage1"})
    assert {"cwdpo.negatives.perturb", "cwdpo/negatives/lexicon.yaml"} <= set(found)
    assert [name for name in found if name.startswith("cwdpo.base")] == ["cwdpo.base.identity"], "seeds come from it"
    other = digests("negatives", {"negatives": {"source": "dataset"}, "portion": "stage1"})
    assert "cwdpo.negatives.dataset" in other
    assert "cwdpo/negatives/lexicon.yaml" not in other


def test_a_training_depends_on_its_own_objective_only() -> None:
    found = digests("stage2", {"policy": {"dtype": "float32"}, "objective": {"name": "cw_dpo"}})
    assert "cwdpo.objectives.cw_dpo" in found
    assert "cwdpo.objectives.dpo" not in found
    assert "cwdpo.evaluate.generate" not in found


def test_sources_inside_a_mixture_count() -> None:
    """Changing a rule of `perturb` makes a mixture with it stale, as it does `perturb` alone."""
    perturb = {"source": "perturb"}
    mixture = {"source": "mixed", "of": {"swapped": {"negatives": perturb}}}
    alone, mixed = (
        sources.source_digests(
            "cwdpo.negatives.stage", validate(NegativesSpec, {"negatives": made, "portion": "stage1"}, "x")
        )
        for made in (perturb, mixture)
    )
    assert "cwdpo/negatives/lexicon.yaml" in alone
    assert alone.items() <= mixed.items()
    assert not {"cwdpo.negatives.page", "cwdpo.negatives.summary"} & set(alone), "they only show what was made"
