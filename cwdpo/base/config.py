"""Configuration: frozen pydantic models, YAML 1.2 files, `--set` overrides, and errors that name the key.

A field at its *neutral* value (one that changes nothing, marked `Annotated[float, Neutral(0.0)]`) is left out
of the canonical form that identities are made of, so a new field does not orphan old artefacts. A field marked
`Annotated[Path, Place()]` says where something lies and is never part of an identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cwdpo.base.errors import ConfigError, name_valid

Model = TypeVar("Model", bound=BaseModel)


class Neutral:
    """Marks the value at which a field changes nothing and is left out of identities."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Place:
    """Marks a field that says where something lies or runs: never part of an identity."""


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, docstrings under fields say what they mean.

    Nothing reads those when it runs: to have pydantic extract them takes a quarter of the start of every command.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """JSON-ready dictionary without places and without the fields that are at their neutral value."""
        values = self.__dict__
        return {name: _plain(values[name]) for name, neutral in _counting(type(self)) if values[name] not in neutral}


@cache
def _counting(model: type[Config]) -> list[tuple[str, tuple[Any, ...]]]:
    """Fields that are no places, each with its neutral values."""
    marks = {name: field.metadata for name, field in model.model_fields.items()}
    counting = [name for name in marks if not any(isinstance(mark, Place) for mark in marks[name])]
    return [(name, tuple(mark.value for mark in marks[name] if isinstance(mark, Neutral))) for name in counting]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Config):
        return value.canonical()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping (`off` is a string, `1e-5` a number); errors name file and line."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, a date such as 2026-02-31
        raise ConfigError(f"{path}: not valid YAML: {_yaml_fault(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, found {type(content).__name__}")
    return content


def _yaml_fault(error: Exception) -> str:
    """`line 3: found duplicate key "a" (while constructing a mapping, line 1)`, without excerpts and advice."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    problem = str(error.problem).partition(" with value ")[0]  # the values of two mappings read "{}"
    context = f" ({error.context}, line {error.context_mark.line + 1})" if error.context_mark else ""
    return f"line {error.problem_mark.line + 1}: {problem}{context}"


def validate(model: type[Model], content: Mapping[str, Any], where: str | Callable[[str, str], str]) -> Model:
    """Build `model` from plain data; the error names every wrong key, what was found and what is valid.

    Args:
        where: begins every line of the error; or makes the line, from the dotted path and what is wrong there.
    """
    line = where if callable(where) else partial(fault_line, where)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [line(*_explain(model, item)) for item in _first_faults(error.errors())]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def fault_line(where: str, path: str, fault: str) -> str:
    """`main.yaml: seeds.0: ...`, without a path where the fault is of the whole."""
    return f"{where}: {path}: {fault}" if path else f"{where}: {fault}"


def _first_faults(items: list[Any]) -> list[Any]:
    """Without lists that are too short because what they hold was refused."""
    above = {item["loc"][:length] for item in items for length in range(len(item["loc"]))}
    return [item for item in items if item["type"] != "too_short" or item["loc"] not in above]


def _explain(model: type[BaseModel], item: Any) -> tuple[str, str]:
    path, models = _locate(model, item["loc"])
    return path, _fault(model, models, item)


def _fault(model: type[BaseModel], models: list[type[BaseModel]], item: Any) -> str:
    kind, found = item["type"], item["input"]
    if kind == "extra_forbidden":
        valid = {name for choice in _locate(model, item["loc"][:-1])[1] for name in choice.model_fields}
        return f"unknown key {name_valid(item['loc'][-1], valid)}"
    if kind == "union_tag_invalid":
        context = item["ctx"]
        valid = {tag.strip().strip("'") for tag in context["expected_tags"].split(",")}
        return f"unknown {context['discriminator'].strip(chr(39))} {name_valid(context['tag'], valid)}"
    if kind == "union_tag_not_found":
        valid = {str(tag) for choice in models for tag in _tags(choice)}
        return f"needs the key {item['ctx']['discriminator']}; valid: {', '.join(sorted(valid))}"
    if kind == "missing":
        return "is required"
    if kind == "value_error" and isinstance(found, Mapping):
        return str(item["ctx"]["error"])
    message = _EXPECTED.get(kind) or item["msg"].removeprefix("Value error, ")
    return f"{message}; found {found!r:.200}"


_EXPECTED = {
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
}


def _locate(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[str, list[type[BaseModel]]]:
    """The dotted path as a file spells it (pydantic adds the tags of unions), and the models that may lie there."""
    candidates: list[type[BaseModel]] = [model]
    path = []
    for part in location:
        tagged = [choice for choice in candidates if part in _tags(choice)]
        if tagged:
            candidates = tagged
            continue
        path.append(str(part))
        fields = [choice.model_fields[part] for choice in candidates if part in choice.model_fields]
        if fields:
            candidates = [found for field in fields for found in _models_in(field.annotation)]
    return ".".join(path), candidates


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    for key in ("name", "source", "kind"):
        if key in model.model_fields:
            return get_args(model.model_fields[key].annotation)
    return ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def parse_overrides(texts: list[str]) -> dict[str, Any]:
    """`["stage2.objective.beta=0.2"]` -> `{"stage2.objective.beta": 0.2}`, values read as YAML 1.2."""
    result = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not all(key.split(".")):
            raise ConfigError(f"--set {text}: expected KEY=VALUE, such as --set stage2.objective.beta=0.2")
        try:
            result[key] = YAML(typ="safe", pure=True).load(value)
        except (YAMLError, ValueError) as error:
            raise ConfigError(f"--set {text}: the value is not valid YAML: {_yaml_fault(error)}") from error
    return result


def with_override(content: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested `content` with the dotted `key` set; a mapping is merged, anything else replaced."""
    head, _, rest = key.partition(".")
    result = dict(content)
    if rest:
        below = result.get(head)
        result[head] = with_override(below if isinstance(below, Mapping) else {}, rest, value)
    else:
        result[head] = merged(result.get(head), value)
    return result


def merged(old: Any, new: Any) -> Any:
    """`new` laid over `old`: mappings key by key, unless the tag (name, source, kind) changes."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    if any(tag in new and tag in old and new[tag] != old[tag] for tag in ("name", "source", "kind")):
        return dict(new)
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
