"""A small download of MME: the release, in which five tasks have folders for images and texts, and the eval tool."""

from __future__ import annotations

from pathlib import Path

from formats.pictures import picture

from cwdpo.data.demo_benchmarks.mme import Pair, asked, write_task


def pair(subject: str, first: str = "Yes", second: str = "No", gap: str = " ") -> Pair:
    """Two questions about one image, as they are published: the wish for yes or no is part of them."""
    return asked(f"Is this {subject}?", first, gap), asked("Is this something else?", second, gap)


TASKS: dict[str, dict[str, Pair]] = {
    "existence": {"000000006040.jpg": pair("a train"), "000000006471.jpg": pair("a baseball bat", "No", "Yes")},
    "count": {"000000017714.jpg": pair("a total of two bowls")},
    "position": {"000000018150.jpg": pair("on the left side")},
    "color": {"000000048153.jpg": pair("a red coat")},
    "posters": {"tt0048028.jpg": pair("directed by elia kazan")},
    "celebrity": {"tt0032138_shot_0395_img_0.jpg": pair("called julia", gap="  ")},
    "scene": {"Places365_val_00000001.jpg": pair("a market")},
    "landmark": {"006d75af7ad3fb8f.jpg": pair("Trade Fair Tower")},
    "artwork": {"10002.jpg": pair("a painting"), "10049.jpg": pair("a fresco")},
    "OCR": {"0001.jpg": pair('"angie\'s"')},
    "commonsense_reasoning": {"0001.png": pair("a cup of tea")},
    "numerical_calculation": {"0001.png": pair("225")},
    "text_translation": {"0001.png": pair("in English: \u8001\u5473\u9053", "No", "Yes")},
    "code_reasoning": {"0001.png": pair('"Hello"'), "0002.png": pair("a {bare} dict")},
}


def write_release(folder: Path) -> None:
    """Images and texts, as they come unpacked."""
    for number, (task, pairs) in enumerate(TASKS.items()):
        images = {name: (questions, picture((10 * number, 120, 40), name)) for name, questions in pairs.items()}
        write_task(folder, task, images)


def write_eval_tool(folder: Path) -> None:
    """Lists of the questions, to be filled in; and those that another model has filled in."""
    for task, pairs in TASKS.items():
        rows = [(name, *question) for name, questions in pairs.items() for question in questions]
        for results, filled in (("Your_Results", []), ("LaVIN", ["No"])):
            path = folder / "eval_tool" / results / f"{task}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join("\t".join([*row, *filled]) + "\n" for row in rows), encoding="utf-8")


def write(folder: Path) -> None:
    """Both."""
    write_release(folder)
    write_eval_tool(folder)
