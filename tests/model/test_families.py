"""Other families than Qwen go the same way, end to end; Qwen's positions and pixels; errors of incomplete models."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import harness
import pytest
import torch
from families import TEXT_LAYERS, TEXT_LINEARS
from harness import POLICY, Micro
from PIL import Image
from safetensors.torch import load_file, save_file

from cwdpo.base.errors import ModelError
from cwdpo.base.runtime import Execution
from cwdpo.data.encoding import Collator
from cwdpo.data.layout import ResponseBatch, separate_rows
from cwdpo.data.records import read_records
from cwdpo.data.samples import Sample
from cwdpo.graph import Node
from cwdpo.model.config import Checkpoint, FullTuning, Lora, Policy, checkpoint_folder
from cwdpo.model.decoding import Decoding
from cwdpo.model.generate import Prompted, generate
from cwdpo.model.load import (
    add_lora,
    context_length,
    decoder_name,
    load_lora,
    load_model,
    load_policy_processor,
    lora_targets,
    trainable_policy,
)
from cwdpo.model.logps import response_logps
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.pipeline import STAGES

PROMPT = "Describe the image."
TEXTS = ["a small red circle at the top left", "three large blue squares", "User: Assistant:", PROMPT] * 10
PLAIN = Policy(dtype="float32")


@dataclass(frozen=True)
class Family:
    name: str
    folder: Path
    images: Path

    def model(self) -> Any:
        return load_model(PLAIN, self.folder)

    def processor(self, **pixels: int) -> Any:
        return load_policy_processor(Policy(dtype="float32", **pixels), self.folder)

    def collator(self, context: int = 256, **pixels: int) -> Collator:
        return Collator(self.processor(**pixels), self.images, context)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square image and a wide one: Idefics3 cuts them into different numbers of tiles."""
    folder = tmp_path_factory.mktemp("images")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, (height, width) in {"square.png": (64, 64), "wide.png": (32, 64)}.items():
            Image.fromarray((torch.rand(height, width, 3) * 255).byte().numpy()).save(folder / name)
    return folder


@pytest.fixture(scope="module", params=sorted(families.BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, images: Path) -> Family:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    families.BUILDERS[request.param](folder, TEXTS, 1)
    return Family(request.param, folder, images)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Family:
    folder = tmp_path_factory.mktemp("qwen") / "model"
    families.build_qwen(folder, TEXTS, 1)
    return Family("qwen", folder, images)


ROWS = [
    (Sample("1", "1", "square.png", PROMPT, ""), "a red circle"),
    (Sample("2", "2", "wide.png", "Describe the small image at the top left.", ""), "three large blue squares at left"),
    (Sample("3", "3", "wide.png", PROMPT, ""), "a"),
]


def rows_of(collator: Collator, rows: Sequence[tuple[Sample, str]]) -> ResponseBatch:
    """A row for each (sample, response)."""
    return separate_rows([collator.group(sample, [text]) for sample, text in rows], collator.pad)


def plain_logp(model: Any, collator: Collator, sample: Sample, text: str) -> float:
    """All logits of one row alone, in the plainest way: nothing shared, kept back or padded."""
    prefix = collator.prefix(sample.image, sample.prompt)
    tokens = collator.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    response = torch.tensor([[*tokens, collator.processor.tokenizer.eos_token_id]])
    inputs = {**prefix, "input_ids": torch.cat([prefix["input_ids"], response], 1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in prefix:
        inputs["mm_token_type_ids"] = torch.cat([prefix["mm_token_type_ids"], torch.zeros_like(response)], 1)
    with torch.no_grad():
        logits = model(**inputs).logits[0].double()
    start = prefix["input_ids"].shape[1]
    rows = logits.log_softmax(-1)[start - 1 : -1]
    return sum(float(rows[number, token]) for number, token in enumerate(response[0].tolist()))


def scramble(model: Any, scale: float = 1.0) -> Any:
    """Give B matrices, which start at 0, values that make the adapter matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def test_prompts_are_tokenized_as_the_processor_itself_does(family: Family) -> None:
    """One beginning-of-text token, whether the template, the tokenizer or both write it."""
    collator = family.collator()
    for name in ("square.png", "wide.png"):
        content = [{"type": "image", "image": Image.open(family.images / name)}, {"type": "text", "text": PROMPT}]
        expected = collator.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        found = collator.prefix(name, PROMPT)
        assert found["input_ids"].tolist() == expected["input_ids"].tolist()
        assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_rows_hold_response_and_end_of_turn_behind_the_mask(family: Family) -> None:
    collator = family.collator()
    batch = rows_of(collator, ROWS)
    tokenizer = collator.processor.tokenizer
    responses = batch.wanted.tokens.split(batch.wanted.lengths.tolist())
    sources = batch.wanted.sources.split(batch.wanted.lengths.tolist())
    width = batch.inputs["input_ids"].shape[1]
    for row, (ids, attention, (_, text)) in enumerate(
        zip(batch.inputs["input_ids"], batch.attention(), ROWS, strict=True)
    ):
        response = responses[row].tolist()
        assert tokenizer.decode(response[:-1]) == text
        assert response[-1] == tokenizer.eos_token_id
        predicted = sources[row] - row * width + 1
        assert ids[predicted].tolist() == response
        end = int(predicted.max()) + 1
        assert attention.tolist() == [1] * end + [0] * (len(ids) - end)


def test_logps_equal_a_plain_full_logits_computation_row_by_row(family: Family) -> None:
    model, collator = family.model(), family.collator()
    with torch.no_grad():
        together, lengths = response_logps(model, rows_of(collator, ROWS))
        alone = [float(response_logps(model, rows_of(collator, [row]))[0]) for row in ROWS]
    expected = [plain_logp(model, collator, sample, text) for sample, text in ROWS]
    assert together.tolist() == pytest.approx(expected, abs=1e-4)
    assert alone == pytest.approx(expected, abs=1e-4), "padding does not matter"
    assert lengths.tolist() == [len(collator.response_ids(text)) for _, text in ROWS]
    assert len({round(value, 2) for value in expected}) == 3


def test_the_image_matters(family: Family) -> None:
    model, collator = family.model(), family.collator()
    rows = [(Sample("1", "1", name, PROMPT, ""), "a red circle") for name in ("square.png", "wide.png")]
    with torch.no_grad():
        logps, _ = response_logps(model, rows_of(collator, rows))
    assert abs(float(logps[0] - logps[1])) > 1e-3


def test_lora_is_on_every_linear_layer_of_the_language_model_and_nowhere_else(family: Family) -> None:
    model = family.model()
    prefix = decoder_name(model)
    policy = trainable_policy(model, Lora(rank=2, alpha=4), None, seed=0)
    adapted = [name for name, _ in policy.named_parameters() if "lora_A" in name]
    assert len(adapted) == TEXT_LAYERS * TEXT_LINEARS
    assert all(f".{prefix}.layers." in name for name in adapted)
    assert not any("vis" in name or "connector" in name or "projector" in name for name in adapted)
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in policy.named_parameters() if "lora_" in name}


def test_a_list_of_suffixes_would_hit_the_vision_tower(family: Family) -> None:
    """Negative control: why `lora_targets` is an expression."""
    model = family.model()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    suffixes = set(re.search(r"\(([a-z_|]+)\)$", lora_targets(model)).group(1).split("|"))  # type: ignore[union-attr]
    hit = [name for name in linear if name.rsplit(".", 1)[-1] in suffixes]
    assert len(hit) > TEXT_LAYERS * TEXT_LINEARS
    assert sum(bool(re.fullmatch(lora_targets(model), name)) for name in linear) == TEXT_LAYERS * TEXT_LINEARS


@pytest.mark.parametrize("train_vision", [False, True])
def test_full_tuning_trains_all_but_the_vision_part(family: Family, train_vision: bool) -> None:
    policy = trainable_policy(family.model(), FullTuning(name="full", train_vision=train_vision), None, 0)
    prefix = decoder_name(policy)
    frozen = {name for name, parameter in policy.named_parameters() if not parameter.requires_grad}
    outside = {name for name, _ in policy.named_parameters() if not name.startswith((f"{prefix}.", "lm_head."))}
    assert frozen == (set() if train_vision else outside)
    assert outside
    assert policy.get_output_embeddings().weight.requires_grad


def test_the_adapter_starts_from_its_seed_and_changes_nothing(family: Family) -> None:
    collator = family.collator()
    with torch.no_grad():
        base, _ = response_logps(family.model(), rows_of(collator, ROWS))
        first, second, other = (add_lora(family.model(), Lora(rank=2, alpha=4), seed) for seed in (0, 0, 1))
        assert torch.equal(response_logps(first, rows_of(collator, ROWS))[0], base)
    states = [{k: v for k, v in model.state_dict().items() if "lora_A" in k} for model in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not any(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_an_adapter_survives_saving_and_loading(family: Family, tmp_path: Path) -> None:
    collator = family.collator()
    trained = scramble(add_lora(family.model(), Lora(rank=2, alpha=4), 0)).eval()
    trained.save_pretrained(tmp_path)
    for trainable in (False, True):
        loaded = load_lora(family.model(), tmp_path, trainable)
        assert any(parameter.requires_grad for parameter in loaded.parameters()) is trainable
        with torch.no_grad():
            expected, _ = response_logps(trained, rows_of(collator, ROWS))
            found, _ = response_logps(loaded.eval(), rows_of(collator, ROWS))
            with loaded.disable_adapter():
                base, _ = response_logps(loaded, rows_of(collator, ROWS))
        assert torch.equal(found, expected)
        assert float((found - base).abs().max()) > 0.01


def test_generation_of_a_padded_block_equals_one_by_one(family: Family) -> None:
    collator = family.collator()
    model = scramble(add_lora(family.model(), Lora(rank=2, alpha=4), 0)).eval()
    replica = SimpleNamespace(model=model, processor=collator.processor, device="cpu", lockstep=False)
    items = [Prompted.about(sample.id, sample.image, sample.prompt) for sample, _ in ROWS]
    decoding = Decoding(max_new_tokens=12)
    together = generate(replica, collator, items, decoding, seed=0)
    alone = [generate(replica, collator, [item], decoding, seed=0)[0] for item in items]
    assert together == alone
    assert len({answer.texts for answer in together}) == len(items)
    prefix = collator.prefix(items[0].image, items[0].prompt)
    plain = model.generate(**prefix, max_new_tokens=12, do_sample=False)[0, prefix["input_ids"].shape[1] :]
    assert together[0].texts[0] == " ".join(
        collator.processor.tokenizer.decode(plain, skip_special_tokens=True).split()
    )


def test_the_context_is_the_language_models(family: Family) -> None:
    assert context_length(family.model()) == 256


# ---------------------------------------------------------------------------------------------------------------------
# Stages, as worker processes


@pytest.fixture(scope="module")
def trained(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Stage 1 under two ZeRO stages and generation from it, of two families, in one job."""
    home = tmp_path_factory.mktemp("families")
    texts = [record.chosen for record in read_records(micro.pairs / "records.jsonl")]
    nodes = {}
    for name in ("llava", "idefics3"):
        families.BUILDERS[name](home / name, texts, 2)
        nodes |= {(name, *key): value for key, value in _stages(micro, home / name, name).items()}
    folders = harness.compute(home, list(nodes.values()))
    return {
        "folders": dict(zip(nodes, folders, strict=True)), "home": home,
        "losses": {key: harness.losses(home, entry) for key, entry in nodes.items() if key[1] == "stage1"},
    }  # fmt: skip


def _stages(micro: Micro, model: Path, name: str) -> dict[Any, Node]:
    spec = {
        "policy": POLICY, "tuning": {"name": "lora", "rank": 4, "alpha": 8}, "objective": {"name": "sft_c"},
        "optimization": {"batch_size": 6, "max_steps": 3, "learning_rate": 1e-2},
    }  # fmt: skip
    inputs = {**micro.inputs(negatives=micro.negatives1), "model": model}
    first, third = (
        harness.node("stage1", spec, inputs, f"{name}{zero}", micro_batch=4, zero_stage=zero) for zero in (2, 3)
    )
    benchmark = {"name": "captions", "limit": 5, "decoding": {"max_new_tokens": 6, "block": 2}}
    plain = harness.node("generate", {"policy": POLICY, "benchmark": benchmark}, {**micro.inputs(), "model": model})
    answer = Node(STAGES["generate"], plain.spec, {**plain.inputs, "adapter": first}, Execution())
    return {("stage1", 2): first, ("stage1", 3): third, ("generate", 2): answer}


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_stage1_trains_the_family_the_same_under_zero_2_and_3(trained: dict[str, Any], name: str) -> None:
    folders, losses = trained["folders"], trained["losses"]
    assert losses[name, "stage1", 3] == pytest.approx(losses[name, "stage1", 2], abs=2e-5)
    assert len(set(losses[name, "stage1", 2])) == 3
    weights = [load_file(folders[name, "stage1", zero] / "adapter_model.safetensors") for zero in (2, 3)]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=2e-4, rtol=2e-4)
    assert max(float(value.abs().max()) for key, value in weights[0].items() if "lora_B" in key) > 1e-3


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_the_family_generates_from_its_adapter(trained: dict[str, Any], micro: Micro, name: str) -> None:
    """The stage's answers are those of the adapter put on the base by hand."""
    folder = trained["home"] / name
    rows = list(harness_rows(trained["folders"][name, "generate", 2]))
    assert len(rows) == 5
    collator = Collator(load_policy_processor(PLAIN, folder), micro.images, 256)
    model = load_lora(load_model(PLAIN, folder), trained["folders"][name, "stage1", 2], trainable=False)
    for row in rows[:2]:
        prefix = collator.prefix(row["image"], "Describe the image briefly.")
        tokens = model.generate(**prefix, max_new_tokens=6, do_sample=False)[0, prefix["input_ids"].shape[1] :]
        expected = collator.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        assert row["text"] == " ".join(expected.split())
        assert row["tokens"] == len(tokens)


def harness_rows(folder: Path) -> Any:
    from cwdpo.base.files import read_jsonl

    return read_jsonl(folder / "generations.jsonl")


# ---------------------------------------------------------------------------------------------------------------------
# Qwen: positions and pixels


def test_qwen_gets_its_token_types_and_needs_them(qwen: Family) -> None:
    """Without `mm_token_type_ids` the three-part positions of images silently become plain ones."""
    model, collator = qwen.model(), qwen.collator()
    batch = rows_of(collator, ROWS)
    image = collator.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert torch.equal(batch.inputs["mm_token_type_ids"], (batch.inputs["input_ids"] == image).long())
    inputs = {**batch.inputs, "attention_mask": batch.attention()}
    without = {key: value for key, value in inputs.items() if key != "mm_token_type_ids"}
    with torch.no_grad():
        difference = model(**inputs).logits - model(**without).logits
    assert float(difference.flatten(0, 1)[batch.wanted.sources].abs().max()) > 1e-2


def image_tokens(collator: Collator, name: str) -> int:
    image = collator.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return int((collator.prefix(name, PROMPT)["input_ids"] == image).sum())


def test_pixel_limits_change_the_number_of_image_tokens(qwen: Family) -> None:
    """A token is 2 x 2 patches of 8 x 8 pixels, so 256 pixels; the checkpoint's own limits are 64 x 64 both."""
    assert image_tokens(qwen.collator(), "square.png") == 64 * 64 // 256
    assert image_tokens(qwen.collator(max_pixels=32 * 32), "square.png") == 32 * 32 // 256
    assert image_tokens(qwen.collator(min_pixels=128 * 128, max_pixels=128 * 128), "square.png") == 128 * 128 // 256
    assert image_tokens(qwen.collator(min_pixels=1024, max_pixels=16384), "wide.png") == 32 * 64 // 256


def test_a_limit_beyond_the_checkpoints_other_one_holds(qwen: Family) -> None:
    """16 x 16 pixels must not be blown up to the checkpoint's least size, 64 x 64, past the most asked for."""
    Image.new("RGB", (16, 16)).save(qwen.images / "small.png")
    assert image_tokens(qwen.collator(max_pixels=32 * 32), "small.png") <= 32 * 32 // 256
    assert image_tokens(qwen.collator(min_pixels=96 * 96), "square.png") >= 96 * 96 // 256


def test_pixel_limits_of_an_image_processor_without_any_are_refused(images: Path, tmp_path: Path) -> None:
    families.build_llava(tmp_path / "llava", TEXTS, 1)
    with pytest.raises(ModelError, match=r"model\.max_pixels: CLIPImageProcessorPil has no pixel limits"):
        load_policy_processor(Policy(dtype="float32", max_pixels=100), tmp_path / "llava")


# ---------------------------------------------------------------------------------------------------------------------
# Models that are not whole, or not there


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (["processor_config.json", "preprocessor_config.json"], "no processor"),
        (["config.json"], r"no config\.json"),
        (["model.safetensors"], r"no \*\.safetensors weights"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused_by_name(
    qwen: Family, tmp_path: Path, lost: list[str], named: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(qwen.folder, broken, ignore=shutil.ignore_patterns(*lost))
    with pytest.raises(ModelError, match=rf"{broken} holds {named}"):
        checkpoint_folder(Checkpoint(source="checkpoint", path=str(broken)))


@pytest.mark.parametrize("name", ["nobody/no-such-model", "nobody/no/such/model"])
def test_a_hub_id_that_is_not_in_the_cache_is_refused_with_the_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=rf"'{name}' is neither a folder nor a hub model.*hf download {name}"):
        checkpoint_folder(Checkpoint(source="checkpoint", path=name))


def test_an_adapter_of_another_model_is_refused_by_name(qwen: Family, tmp_path: Path) -> None:
    build_tiny_qwen(TinyQwen(), TEXTS, tmp_path / "wider", 1)
    add_lora(load_model(PLAIN, tmp_path / "wider"), Lora(rank=2, alpha=4), 0).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=rf"{tmp_path / 'adapter'}: cannot load the adapter"):
        load_lora(qwen.model(), tmp_path / "adapter", trainable=False)
    with pytest.raises(ModelError, match=rf"{tmp_path / 'nowhere'}: cannot load the adapter"):
        load_lora(qwen.model(), tmp_path / "nowhere", trainable=False)


def test_a_folder_that_is_no_vision_language_model_is_refused_by_name(qwen: Family, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{tmp_path}: cannot load the model"):
        load_model(PLAIN, tmp_path)
    broken = tmp_path / "torn"
    shutil.copytree(qwen.folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=rf"{broken}: cannot load the model"):
        load_model(PLAIN, broken)


def test_weights_that_are_not_all_there_are_refused(qwen: Family, tmp_path: Path) -> None:
    """transformers fills what is missing with random values and goes on."""
    broken = tmp_path / "gaps"
    shutil.copytree(qwen.folder, broken)
    weights = load_file(broken / "model.safetensors")
    lost = r"layers\.1\.mlp\.up_proj\.weight"
    (name,) = [name for name in weights if re.search(rf"{lost}$", name)]
    del weights[name]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{broken}: the weights lack 1 parameter.*{lost}"):
        load_model(PLAIN, broken)
