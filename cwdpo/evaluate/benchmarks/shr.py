"""SHR: the share of hallucinated sentences in detailed descriptions of Visual Genome images, as a judge sees them.

Zhao et al. (2023), "Beyond Hallucinations: Enhancing LVLMs through Hallucination-Aware Direct Preference Optimization";
rules of its shr_eval. With the shipped judge prompt `shr` is by the rules only; `judge_prompt` takes the official text.
The repetition columns need no judge; they are shares of distinct n-grams, so that more is better.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from cwdpo.base.errors import DataError
from cwdpo.evaluate.benchmarks.shares import mean_of, unavailable
from cwdpo.evaluate.judging.judged import NO_JUDGE, Judged, Unusable, nobody_judged
from cwdpo.evaluate.question import Answered, Metric, Question, Scores
from cwdpo.evaluate.reading.download import Download
from cwdpo.evaluate.reading.json_files import read_array
from cwdpo.evaluate.reading.tables import Row, number_of, read_lines, text_of, texts_of, with_keys
from cwdpo.model.decoding import Decoding

VERDICTS = ("hallucination", "correct", "cannot judge")
"""All of them are judged: what cannot be judged is in the denominator, as in the official numbers."""
HEADING = "Judgement:"
GRAMS = (1, 2, 3, 4)
BOX = ("x", "y", "width", "height")
FAR = 1e9
"""No place in an image is so many pixels away."""
UNJUDGED = "not available: no sentence was judged"
TOO_SHORT = "not available: no answer is long enough"
DROPPED = str.maketrans("", "", ".:\n?,")
"""What is cut out of an answer before its n-grams are counted; words on both sides of a line's end become one."""


class Shr(Judged):
    """The SHR annotations, and the images, image data and region descriptions of Visual Genome."""

    name: Literal["shr"]
    prompt: str = "Describe this image in detail."
    """What is asked about every image."""
    decoding: Decoding = Decoding(strategy="beam", beams=5, max_new_tokens=512)

    places: ClassVar[tuple[str, ...]] = ("regions", "facts", "answer")
    shipped: ClassVar[str] = "shr.txt"
    source: ClassVar[str] = (
        "val_images_final.json, shr_factual_part1.jsonl and shr_factual_part2.jsonl of SHR (juliozhao/SHR); "
        "image_data.json, region_descriptions.json, VG_100K and VG_100K_2 of Visual Genome"
    )
    references_in: ClassVar[tuple[str, ...]] = ("regions", "facts")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("shr", "SHR", higher=False, judged=True),
        *(Metric(f"distinct_{n}", f"distinct {n}-grams") for n in GRAMS),
    )
    compared: ClassVar[Metric] = Metric("correct", "sentences without a hallucination", judged=True)

    def load(self, download: Download) -> Iterator[Question]:
        """One question an image; ids are those of Visual Genome. The large files are read element by element."""
        wanted = _wanted(download)
        images = _images(download, wanted)
        regions = _regions(download, images)
        facts = _facts(download)
        for name, where in wanted.items():
            if name not in images or name not in regions:
                lacking = "image_data.json" if name not in images else "region_descriptions.json"
                raise DataError(f"{where}: image {name} is not in {lacking}")
            path = "/".join(images[name].address.split("/")[-2:])
            truth = {"regions": regions[name], "facts": "".join(f"{one}\n" for one in facts.get(name, ()))}
            yield Question(name, (download.image(path, where),), {}, truth)

    def ask(self, question: Question) -> str:
        """The same for every image."""
        return self.prompt

    def requests(self, answered: Answered) -> Sequence[str]:
        """One request for all sentences of an answer; none for an answer without any."""
        return super().requests(answered) if sentences(answered.text) else []

    def texts(self, answered: Answered) -> Mapping[str, str]:
        """The sentences of the answer, each on a line with its number."""
        lines = (f"{number}. {one}\n" for number, one in enumerate(sentences(answered.text), 1))
        return {**answered.question.truth, "answer": "".join(lines)}

    def rating(self, answered: Answered, reply: str) -> list[str | None]:
        """A verdict for each sentence, None for one that is none of the three."""
        lines = [line for line in reply.split("\n") if line]
        start = next((number for number, line in enumerate(lines) if HEADING in line), None)
        if start is None:
            raise Unusable(f"no line has the heading `{HEADING}`")
        said = [text for text in (line.partition(" ")[2].strip() for line in lines[start + 1 :]) if text]
        if len(said) != len(sentences(answered.text)):
            raise Unusable("it has another number of verdicts than there are sentences")
        verdicts = (text.split(":")[0].lower() for text in said)
        return [verdict if verdict in VERDICTS else None for verdict in verdicts]

    def score(self, answered: Sequence[Answered]) -> Scores:
        """Hallucinated sentences among the judged ones of all answers, and mean shares of distinct n-grams."""
        per_item = {one.question.id: _item(one) for one in answered}
        items = list(per_item.values())
        judged = sum(item["judged"] for item in items)
        shares = {f"distinct_{n}": [item[f"distinct_{n}"] for item in items] for n in GRAMS}
        corpus = {"shr": sum(item["hallucinated"] for item in items) / judged if judged else None}
        corpus |= {key: _mean_of_known(values) for key, values in shares.items()}
        reasons = unavailable(corpus, TOO_SHORT)
        if not judged:
            reasons["shr"] = NO_JUDGE if nobody_judged(answered) else UNJUDGED
        return Scores(corpus, per_item, reasons, _counts(answered, items))


def sentences(text: str) -> list[str]:
    """What stands between full stops, without what stands in an earlier sentence already."""
    kept: list[str] = []
    for piece in map(str.strip, text.split(".")):
        if piece and not any(piece in earlier for earlier in kept):
            kept.append(piece)
    return kept


def distinct(text: str, n: int) -> float | None:
    """The share of different n-grams among all n-grams of words; None where there are none."""
    words = text.translate(DROPPED).split()
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def _item(one: Answered) -> dict[str, Any]:
    verdicts = (one.judgements[0] if one.judgements else None) or []
    judged = sum(verdict is not None for verdict in verdicts)
    hallucinated = verdicts.count(VERDICTS[0])
    return {
        "prediction": ", ".join(verdict or "?" for verdict in verdicts) or None,
        "correct": 1.0 - hallucinated / judged if judged else None,
        "sentences": len(sentences(one.text)),
        "judged": judged,
        "hallucinated": hallucinated,
        **{f"distinct_{n}": distinct(one.text, n) for n in GRAMS},
    }


def _counts(answered: Sequence[Answered], items: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    unread = 0 if nobody_judged(answered) else sum(item["sentences"] - item["judged"] for item in items)
    short = sum(item[f"distinct_{GRAMS[-1]}"] is None for item in items)
    found = {"sentences without a usable verdict, left out": unread, "answers of less than four words": short}
    return {name: count for name, count in found.items() if count}


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    return mean_of(value for value in values if value is not None)


class _Image(NamedTuple):
    address: str
    width: float
    height: float


def _wanted(download: Download) -> dict[str, str]:
    """Where each image is named, by its id."""
    path = download.file("val_images_final.json")
    found: dict[str, str] = {}
    for where, row in read_array(path, ("image_id",)):
        name = str(number_of(row, "image_id", where))
        if name in found:
            raise DataError(f"{where}: image {name} occurs twice")
        found[name] = where
    return found


def _images(download: Download, wanted: Collection[str]) -> dict[str, _Image]:
    """Address and size of each image."""
    rows = read_array(download.file("image_data.json"), ("image_id", "url", "width", "height"))
    found = {}
    for where, row in rows:
        if (name := str(number_of(row, "image_id", where))) in wanted:
            width, height = _pixels(row, "width", where), _pixels(row, "height", where)
            if not (width > 0 and height > 0):
                raise DataError(f"{where}: the image is {width} x {height} pixels")
            found[name] = _Image(text_of(row, "url", where), width, height)
    return found


def _pixels(row: Row, key: str, where: str) -> float:
    found: object = row[key]
    if isinstance(found, bool) or not isinstance(found, int | float) or not -FAR < found < FAR:
        raise DataError(f"{where}: {key} is {found!r:.80}; valid: a number of pixels")
    return found


def _regions(download: Download, images: Mapping[str, _Image]) -> dict[str, str]:
    """A line for each region of an image: its box, relative to the image's size, and what it shows."""
    found = {}
    for where, row in read_array(download.file("region_descriptions.json"), ("regions",)):
        regions = row["regions"]
        if not isinstance(regions, list):
            raise DataError(f"{where}: regions is {regions!r:.80}; valid: a list of regions")
        name = str(number_of(with_keys(regions[0], ("image_id",), where), "image_id", where)) if regions else ""
        if name in images:
            found[name] = "".join(_region(one, images[name], where) for one in regions)
    return found


def _region(found: object, image: _Image, where: str) -> str:
    region = with_keys(found, (*BOX, "phrase"), where)
    left, top, width, height = (_pixels(region, key, where) for key in BOX)
    right, bottom = left + width, top + height
    box = [left / image.width, top / image.height, right / image.width, bottom / image.height]
    phrase = text_of(region, "phrase", where, empty=True)
    return f"{[float(f'{one:.2f}') for one in box]}: {phrase}\n" if phrase else ""


def _facts(download: Download) -> dict[str, list[str]]:
    """What people say of an image, by its id; an object with one key a line."""
    found: dict[str, list[str]] = {}
    for part in (1, 2):
        for where, row in read_lines(download.file(f"shr_factual_part{part}.jsonl"), ()):
            for name in list(row)[:1]:
                found[name] = texts_of(row, name, where, empty=True)
    return found
