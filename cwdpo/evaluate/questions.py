"""Stage `questions`: a benchmark's genuine files become questions, on a CPU, once for all models."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from cwdpo.base import files
from cwdpo.base.config import Config, Neutral
from cwdpo.base.context import StageContext
from cwdpo.base.errors import DataError
from cwdpo.data.images import check_images
from cwdpo.evaluate.benchmarks import AnyQuestions
from cwdpo.evaluate.benchmarks.benchmark import QUESTIONS
from cwdpo.evaluate.prepared import command, digest_of, settings_of, unlike_published
from cwdpo.evaluate.reading.download import Download

MADE = "it asks about generated scenes"


class QuestionsSpec(Config):
    """The files are a parent."""

    benchmark: AnyQuestions
    digest: Annotated[str | None, Neutral(None)] = None
    """Of the files as they were prepared; None where they are a stage's, made of a generated world."""


def run(context: StageContext) -> None:
    """Write questions.jsonl, images/ where they lie inside the files, and summary.json.

    Raises:
        DataError: the files are wrong, or not those that were prepared.
    """
    spec: QuestionsSpec = context.spec
    download = Download(context.inputs["data"], context.out)
    questions = spec.benchmark.loaded(download)
    if spec.digest is not None:
        _check_prepared(spec, download)
    check_images(download.root, download.images, "decode")
    counts = dict(Counter(question.category for question in questions))
    files.write_jsonl(context.out / QUESTIONS, (question.row() for question in questions))
    notes = [*([] if spec.digest else [MADE]), *unlike_published(spec.benchmark, download, counts)]
    summary = {"benchmark": spec.benchmark.name, "questions": counts, "unlike_published": notes}
    files.write_json(context.out / "summary.json", summary)


def _check_prepared(spec: QuestionsSpec, download: Download) -> None:
    """Raise `DataError` where the files are not those that were prepared."""
    if download.missing or digest_of(download) != spec.digest:
        missing = sorted(set(download.missing))
        what = f"{len(missing)} images are gone, such as {missing[0]}" if missing else "files have changed"
        again = command(spec.benchmark.name, settings_of(spec.benchmark), str(download.root))
        raise DataError(f"{download.root}: {what} since it was prepared; run: {again}")
