"""Prompts: the shipped ones, and files of one's own. A setting holds the text: other words are other results."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from cwdpo.base.errors import name_valid

_FOLDER = Path(__file__).with_name("prompts")


def prompt_text(value: object) -> object:
    """The text that a setting means: more than one line is the text itself, else a file, else a shipped name.

    Raises:
        ValueError: there is no such file or name.
    """
    if not isinstance(value, str) or "\n" in value:
        return value
    shipped = {path.stem: path for path in _FOLDER.glob("*.txt")}
    path = Path(value) if value.endswith(".txt") else shipped.get(value)
    if path is None:
        raise ValueError(f"unknown prompt {name_valid(value, shipped)}; or a file that ends in .txt")
    try:
        return path.read_text(encoding="utf-8").strip() + "\n"  # what has a line's end is not looked up again
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompt {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


Prompt = Annotated[str, BeforeValidator(prompt_text), Field(validate_default=True)]
"""The name of a shipped prompt or a .txt file; $names in it are filled in, $$ is a dollar."""


def filled_by(*names: str) -> AfterValidator:
    """Refuses a prompt that names what nothing fills in."""

    def check(prompt: str) -> str:
        template = Template(prompt)
        if not template.is_valid():
            raise ValueError("a lone $; write $$ for a dollar")
        for name in template.get_identifiers():
            if name not in names:
                raise ValueError(f"unknown ${name_valid(name, names)}")
        return prompt

    return AfterValidator(check)
