"""Configuration: every mistake is answered with the path of the key, what was found, and what is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from cwdpo.base.config import (
    Config,
    Neutral,
    Place,
    merged,
    parse_overrides,
    read_yaml,
    validate,
    with_override,
)
from cwdpo.base.errors import ConfigError
from cwdpo.experiment import Experiment

EXPERIMENT = {"data": {"source": "demo_world"}, "model": {"source": "tiny"}, "seed": 1}
BIAS = {"word": "red", "written_as": "blue"}
STAGE2 = {"objective": {"name": "cw_dpo"}, "negatives": {"source": "perturb"}}


def fault(content: Any, model: Any = Experiment) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(model, content, "grid.yaml")
    return str(caught.value)


def experiment(**changes: Any) -> dict[str, Any]:
    return {**EXPERIMENT, **changes}


def stage2(**changes: Any) -> dict[str, Any]:
    return experiment(stage2={**STAGE2, **changes})


def test_the_experiment_these_tests_break_is_valid() -> None:
    assert validate(Experiment, stage2(), "grid.yaml").stage2 is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            experiment(dat={}),
            "grid.yaml: dat: unknown key 'dat'; did you mean 'data'? valid: benchmarks, data, execution, judge,"
            " model, probe, seed, stage1, stage2, tuning",
        ),
        (
            stage2(optimisation={}),
            "grid.yaml: stage2.optimisation: unknown key 'optimisation'; did you mean 'optimization'? valid:"
            " curriculum, early_stop, negatives, objective, optimization, refresh, rollouts, sft_phase",
        ),
        # Inside a union: the tag is no part of the path, and only the keys of the chosen member are valid.
        (
            stage2(objective={"name": "cw_dpo", "betta": 0.1}),
            "grid.yaml: stage2.objective.betta: unknown key 'betta'; did you mean 'beta'? valid: beta, filter,"
            " filter_margin, l_floor, name, tau",
        ),
        (
            stage2(objective={"name": "dpo", "tau": 0.1}),
            "grid.yaml: stage2.objective.tau: unknown key 'tau'; valid: beta, name",
        ),
        (
            stage2(negatives={"source": "dataset", "kinds": ["colour"]}),
            "grid.yaml: stage2.negatives.kinds: unknown key 'kinds'; valid: count, own, seed, source",
        ),
        # Inside a member of a union, and inside a list inside that.
        (
            experiment(data={"source": "demo_world", "world": {"sed": 1}}),
            "grid.yaml: data.world.sed: unknown key 'sed'; did you mean 'seed'? valid: biases, groups, image_size,"
            " pairs, seed, singles, source, test, train, val",
        ),
        (
            experiment(data={"source": "demo_world", "world": {"biases": [{**BIAS, "s": 1}]}}),
            "grid.yaml: data.world.biases.0.s: unknown key 's'; valid: share, word, written_as",
        ),
        (
            experiment(benchmarks=[{"name": "coco"}, {"name": "flickr30k", "decoding": {"beam": 2}}]),
            "grid.yaml: benchmarks.1.decoding.beam: unknown key 'beam'; did you mean 'beams'? valid: beams, block,"
            " candidates, max_new_tokens, strategy, temperature, top_p",
        ),
        # A union inside a union.
        (
            experiment(benchmarks=[{"name": "coco", "data": {"source": "karpathy", "root": "x", "rots": "y"}}]),
            "grid.yaml: benchmarks.0.data.rots: unknown key 'rots'; did you mean 'root'? valid: annotations,"
            " captions_per_image, check_images, images, limit, prompt, root, source, stage1_share",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_valid_ones(content: dict[str, Any], message: str) -> None:
    assert fault(content) == message


DATA = "demo_world, karpathy, llava, nocaps, ocrvqa, preferences, textcaps"
SECOND = "continual_sft, cw_dpo, dpo, fixed_weight_dpo, focal_dpo, grpo, nsft, opa_dpo, ppo, v_dpo"
"""Objectives of Stage 2."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            stage2(objective={"name": "dpoo"}),
            f"stage2.objective: unknown name 'dpoo'; did you mean 'dpo'? valid: {SECOND}",
        ),
        (stage2(objective={"name": 5}), f"stage2.objective: unknown name '5'; valid: {SECOND}"),
        (stage2(objective={"name": ["dpo"]}), "stage2.objective: unknown name '['dpo']'"),
        (stage2(objective={"beta": 1}), f"stage2.objective: needs the key 'name'; valid: {SECOND}"),
        (stage2(objective="dpo"), "stage2.objective: expected a mapping; found 'dpo'"),
        (experiment(data={"source": "coco"}), f"data: unknown source 'coco'; valid: {DATA}"),
        (experiment(data={}), f"data: needs the key 'source'; valid: {DATA}"),
        (
            experiment(model={"source": "tny"}),
            "model: unknown source 'tny'; did you mean 'tiny'? valid: checkpoint, tiny",
        ),
        (experiment(tuning={"rank": 1}), "tuning: needs the key 'name'; valid: full, lora"),
        (
            experiment(benchmarks=[{}]),
            "benchmarks.0: needs the key 'name'; valid: captions, chair, coco, flickr30k, gqa, mm_vet, mmbench, mme,"
            " mmhal, mmmu, nocaps, own, pope, scienceqa, seed_bench, shr, textvqa",
        ),
        (
            experiment(stage1={"negatives": {"source": "gpt"}}),
            "stage1.negatives: unknown source 'gpt'; valid: augmented_image, beam, corrective, dataset, graded, llm,"
            " mixed, own_answer, perturb, revised, sample, self_critic",
        ),
    ],
)
def test_a_wrong_or_missing_tag_is_answered_with_the_valid_ones(content: dict[str, Any], message: str) -> None:
    assert fault(content).startswith(f"grid.yaml: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (experiment(seed="x"), "seed: Input should be a valid integer"),
        (experiment(seed=1.5), "seed: Input should be a valid integer, got a number with a fractional part; found 1.5"),
        (experiment(stage1=5), "stage1: expected a mapping; found 5"),
        (experiment(benchmarks={"name": "coco"}), "benchmarks: expected a list; found {'name': 'coco'}"),
        (stage2(objective={"name": "dpo", "beta": "much"}), "stage2.objective.beta: Input should be a valid number"),
        (
            stage2(objective={"name": "dpo", "beta": float("nan")}),
            "stage2.objective.beta: Input should be a finite number",
        ),
        (
            stage2(objective={"name": "dpo", "beta": -1}),
            "stage2.objective.beta: Input should be greater than 0; found -1",
        ),
        (
            stage2(objective={"name": "cw_dpo", "filter": "off"}),
            "stage2.objective.filter: Input should be 'zero', 'drop' or 'keep'; found 'off'",
        ),
        (experiment(execution={"zero_stage": 4}), "execution.zero_stage: Input should be 0, 1, 2 or 3; found 4"),
        (stage2(optimization={"betas": [0.9]}), "stage2.optimization.betas.1: is required"),
        (
            stage2(negatives={"source": "perturb", "kinds": ["color"]}),
            "stage2.negatives.kinds.0: Input should be 'colour', 'size', 'count', 'object', 'relation' or 'action';"
            " found 'color'",
        ),
        ({"model": {"source": "tiny"}, "seed": 1, "stage1": {}}, "data: is required for stage1"),
        (
            {"model": {"source": "tiny"}, "benchmarks": [{"name": "coco"}, {"name": "captions"}]},
            "data: is required for benchmark 'captions', unless that has data of its own",
        ),
        (5, "expected a mapping; found 5"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_valid(content: Any, message: str) -> None:
    assert fault(content).startswith(f"grid.yaml: {message}")


def test_what_contradicts_itself_is_said_in_one_sentence() -> None:
    twice = fault(experiment(benchmarks=[{"name": "coco"}, {"name": "coco"}]))
    assert twice == "grid.yaml: benchmarks: a name occurs twice (coco, coco)"
    needs = fault(experiment(stage1={"objective": {"name": "sft_c"}}))
    assert needs == "grid.yaml: stage1: objective 'sft_c' needs rejected responses: set stage1.negatives"


def test_every_mistake_is_listed_once() -> None:
    message = fault(experiment(seed="x", dat={}, execution={"threads": "many", "tread": 1}))
    keys = [line.split(": ")[1] for line in message.splitlines()]
    assert sorted(keys) == ["dat", "execution.threads", "execution.tread", "seed"]


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        validate(Experiment, EXPERIMENT, "x").seed = 2  # type: ignore[misc]


# ---- YAML files


def read(folder: Path, text: str | bytes) -> dict[str, Any]:
    path = folder / "grid.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


def test_yaml_is_version_1_2(tmp_path: Path) -> None:
    content = read(tmp_path, "a: off\nb: 1e-5\nc: yes\nd: 010\ne: true\nf: null\ng: [on, 0o10]\nh: 'é'\n")
    assert content == {"a": "off", "b": 1e-5, "c": "yes", "d": 10, "e": True, "f": None, "g": ["on", 8], "h": "é"}
    assert isinstance(content["b"], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'not valid YAML: line 3: found duplicate key "a"'),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 'not valid YAML: line 4: found duplicate key "c"'),
        ("a: 1\nb: [1,\nc: 2\n", r"not valid YAML: line \d: expected .* \(while parsing a flow sequence, line 2\)"),
        ("a: 1\nb: 2\n\tc: 1\n", r"not valid YAML: line 3: found character '\\t' that cannot start any token"),
        ("a: 1\nb: x: y\n", "not valid YAML: line 2: mapping values are not allowed here"),
        ("a: 1\nb: *c\n", "not valid YAML: line 2: found undefined alias 'c'"),
        ("a: !!python/name:os.system 1\n", "not valid YAML: line 1: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "not valid YAML: line 2: .*another document"),
        ("a: 2026-02-31\n", "not valid YAML: .*day.*"),
        (b"a: \xff\n", "not valid YAML: .*byte 0xff"),
        ("", "expected a mapping at the top, found NoneType"),
        ("- 1\n", "expected a mapping at the top, found list"),
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/grid\.yaml: {message}") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: cannot be read: Is a directory"):
        read_yaml(tmp_path)


# ---- overrides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stage2.objective.beta=0.2", {"stage2.objective.beta": 0.2}),
        ("a=1e-5", {"a": 1e-5}),
        ("a=off", {"a": "off"}),
        ("a=", {"a": None}),
        ("a=null", {"a": None}),
        ("a=x=y", {"a": "x=y"}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a={b: 1}", {"a": {"b": 1}}),
        ("a='0.2'", {"a": "0.2"}),
    ],
)
def test_set_reads_values_as_yaml(text: str, expected: dict[str, Any]) -> None:
    assert parse_overrides([text]) == expected


def test_the_last_set_of_a_key_wins() -> None:
    assert parse_overrides(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("text", ["a", "=1", ".a=1", "a.=1", "a..b=1"])
def test_set_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected KEY=VALUE, such as --set stage2\.objective\.beta=0\.2$"):
        parse_overrides([text])


def test_set_with_a_broken_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--set a=\[1: the value is not valid YAML: line 1: expected ',' or '\]'"):
        parse_overrides(["a=[1"])


def test_an_override_changes_one_key_of_a_copy() -> None:
    content = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    assert with_override(content, "a.b.c", 9) == {"a": {"b": {"c": 9, "d": 2}}, "e": 3}
    assert with_override(content, "e", None) == {"a": {"b": {"c": 1, "d": 2}}, "e": None}
    assert with_override(content, "x.y", 1) == {**content, "x": {"y": 1}}
    assert with_override(content, "e.f", 1) == {**content, "e": {"f": 1}}
    assert content == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


def test_mappings_merge_unless_their_tag_changes() -> None:
    old = {"name": "cw_dpo", "beta": 0.1, "tau": 1.0}
    assert merged(old, {"beta": 0.2}) == {"name": "cw_dpo", "beta": 0.2, "tau": 1.0}
    assert merged(old, {"name": "cw_dpo", "tau": 2.0}) == {"name": "cw_dpo", "beta": 0.1, "tau": 2.0}
    assert merged(old, {"name": "dpo"}) == {"name": "dpo"}  # tau would be an unknown key of dpo
    assert merged({"a": old}, {"a": {"name": "dpo", "beta": 0.3}}) == {"a": {"name": "dpo", "beta": 0.3}}
    assert merged({"source": "tiny", "dtype": "x"}, {"source": "checkpoint"}) == {"source": "checkpoint"}
    assert merged([1, 2], [3]) == [3]
    assert merged({"a": 1}, None) is None
    assert merged(None, {"a": 1}) == {"a": 1}


# ---- what identities are made of


class Inner(Config):
    kind: Literal["inner"] = "inner"
    size: Annotated[int | None, Neutral(None)] = None
    where: Annotated[Path, Place()] = Path("/somewhere")


class Outer(Config):
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()
    dropout: Annotated[float, Neutral(0.0)] = 0.0
    rate: Annotated[float, Neutral(1.0), Field(gt=0)] = 0.5
    table: dict[str, Inner] = {}
    file: Path = Path("a/b")

    @model_validator(mode="after")
    def _check(self) -> Outer:
        if self.rate == 13:
            raise ValueError("rate: not thirteen")
        return self


def test_neutral_values_and_places_are_left_out() -> None:
    assert Outer().canonical() == {
        "inner": {"kind": "inner"},
        "items": [],
        "rate": 0.5,
        "table": {},
        "file": "a/b",
    }
    changed = Outer(inner=Inner(size=3, where=Path("/x")), items=(Inner(size=0),), dropout=0.1, rate=1.0)
    assert changed.canonical() == {
        "inner": {"kind": "inner", "size": 3},
        "items": [{"kind": "inner", "size": 0}],
        "dropout": 0.1,
        "table": {},
        "file": "a/b",
    }
    assert Outer(table={"t": Inner(size=1)}).canonical()["table"] == {"t": {"kind": "inner", "size": 1}}


def test_equal_values_have_one_canonical_form() -> None:
    assert validate(Outer, {"rate": 2}, "x").canonical() == validate(Outer, {"rate": 2.0}, "x").canonical()
    assert type(validate(Outer, {"rate": 2}, "x").canonical()["rate"]) is float


def test_a_rule_over_several_fields_says_no_more_than_its_sentence() -> None:
    assert fault({"rate": 13}, Outer) == "grid.yaml: rate: not thirteen"
