"""Stage `pretrain`: make the demo's tiny model and teach it to caption, wrongly where its world is wrong."""

from __future__ import annotations

from dataclasses import replace

from cwdpo.base.config import Config
from cwdpo.base.context import StageContext
from cwdpo.data.records import read_records
from cwdpo.data.samples import load_samples
from cwdpo.model.config import FullTuning, Policy, Pretraining
from cwdpo.model.tiny import TinyQwen, build_tiny_qwen
from cwdpo.objectives import Sft
from cwdpo.train.config import Optimization, Stage1Spec
from cwdpo.train.loop import Trainer
from cwdpo.train.stage1 import SupervisedTask


class PretrainSpec(Config):
    """Sizes and schedule; the world is a parent."""

    architecture: TinyQwen
    pretraining: Pretraining
    policy: Policy


def run(context: StageContext) -> None:
    """Plain SFT of all parameters from random weights; writes a model folder."""
    spec: PretrainSpec = context.spec
    pairs = context.inputs["pairs"]
    initial = context.partial / "initial"
    if context.rank.is_first and not initial.exists():
        texts = [text for record in read_records(pairs / "records.jsonl") for text in (record.chosen, record.prompt)]
        build_tiny_qwen(spec.architecture, texts, initial, spec.pretraining.seed)
    context.barrier()
    training = _training(spec)
    samples = load_samples(pairs, None, "stage1", "stage2")
    inner = replace(context, inputs={**context.inputs, "model": initial}, spec=training)
    Trainer(inner, training, samples, SupervisedTask(training.objective, context.rank)).run()


def _training(spec: PretrainSpec) -> Stage1Spec:
    settings = spec.pretraining
    optimization = Optimization(
        batch_size=settings.batch_size,
        epochs=1e9,  # max_steps ends it
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        betas=settings.betas,
    )
    return Stage1Spec(
        policy=spec.policy,
        tuning=FullTuning(name="full", train_vision=True),
        optimization=optimization,
        seed=settings.seed,
        objective=Sft(),
    )
