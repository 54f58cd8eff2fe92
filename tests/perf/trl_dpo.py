"""TRL's side of the training benchmarks: DPOTrainer on the same pairs, images and first adapter weights as ours.

    python trl_dpo.py '{"model": ..., "data": ..., "images": ..., "steps": 4, "arguments": {...}, ...}'

`training_turns.py` starts it and takes what it reports.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import REPO  # noqa: F401  puts the repository on the path
from training_flops import Counter
from training_turns import THREADS, Reporter
from training_world import LORA, adapter_start, prompt_text

from cwdpo.data.samples import DataOrder, load_samples


def main(settings: dict[str, Any]) -> None:
    """Train, reporting every step."""
    import torch

    report = Reporter()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(settings, folder)
        _begin_as_ours(trainer.model, Path(settings["model"]))
        trainer.add_callback(_reporting(report))
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        report.report("end", losses=losses)


def _trainer(settings: dict[str, Any], folder: str) -> Any:
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText
    from trl import DPOConfig, DPOTrainer

    from cwdpo.model.load import lora_targets
    from cwdpo.model.processor import load_processor

    processor = load_processor(settings["model"])
    model = AutoModelForImageTextToText.from_pretrained(settings["model"], attn_implementation=settings["attention"])
    lora = LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, lora_dropout=0.0, target_modules=lora_targets(model))
    return DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=folder, max_steps=settings["steps"], **settings["arguments"]),
        train_dataset=_dataset(settings, processor),
        processing_class=processor,
        peft_config=lora,
    )


def _dataset(settings: dict[str, Any], processor: Any) -> Any:
    """The batches of our own order, one after the other, with the same words around them."""
    from datasets import Dataset, Image, List

    data, images = Path(settings["data"]), Path(settings["images"])
    order = DataOrder(load_samples(data, data, "stage2"), settings["batch_size"], seed=0, one_per_image=False)
    samples = [sample for step in range(settings["steps"]) for sample in order.batch(step)]
    end = processor.tokenizer.eos_token
    columns = {
        "images": [[str(images / sample.image)] for sample in samples],
        "prompt": [prompt_text(processor, sample.prompt) for sample in samples],
        "chosen": [sample.chosen + end for sample in samples],
        "rejected": [sample.rejected[0] + end for sample in samples],
    }
    return Dataset.from_dict(columns).cast_column("images", List(Image()))


def _begin_as_ours(model: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    left = model.load_state_dict(load_file(adapter_start(folder)), strict=False)
    assert not left.unexpected_keys, left.unexpected_keys


def _reporting(report: Reporter) -> Any:
    from transformers import TrainerCallback

    counter = Counter()

    class Reporting(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            report.report("ready")
            counter.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            report.report("step", flops=counter.stop())

    return Reporting()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
