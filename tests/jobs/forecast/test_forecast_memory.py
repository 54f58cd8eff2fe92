"""What a GPU holds: verdicts that a calculator confirms, and what would make it fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cwdpo.base.runtime import Execution
from cwdpo.graph import Outside
from cwdpo.jobs.fit import GB
from cwdpo.jobs.forecast.dimensions import Dimensions, of_checkpoint
from cwdpo.jobs.forecast.flops import Rows, Trained
from cwdpo.jobs.forecast.memory import BUCKET, GeneratingNeed, TrainingNeed, advice, fits

GPU = 80 * GB


def released(size: str) -> Dimensions:
    """A model that is not on this machine."""
    found = of_checkpoint(Outside(Path(f"Qwen/Qwen2.5-VL-{size}-Instruct"), "", absent=True))
    assert found is not None
    return found


def training(size: str, zero: int, micro_batch: int, ranks: int, **more: bool) -> TrainingNeed:
    execution = Execution(zero_stage=zero, micro_batch=micro_batch, **more)
    rows = (Rows(image=522, text=40, responses=2, length=14),)
    trained = Trained(rank=64, recomputed=execution.gradient_checkpointing)
    return TrainingNeed(released(size), "bfloat16", rows, trained, execution, ranks)


@pytest.mark.parametrize(("size", "billions"), [("3B", 3.75), ("7B", 8.29), ("72B", 73.4)])
def test_the_table_has_as_many_parameters_as_the_model_cards_say(size: str, billions: float) -> None:
    assert released(size).total / 1e9 == pytest.approx(billions, abs=0.05)


def test_a_model_that_no_table_knows() -> None:
    assert of_checkpoint(Outside(Path("org/unheard-of"), "", absent=True)) is None


def test_weights_gradients_and_optimizer_of_7b() -> None:
    model, parts = released("7B"), training("7B", 2, 4, 8).parts()
    adapter = model.lora(64)
    # All weights on each rank in two bytes; of the adapter gradients (4 bytes) and master and moments (12) are shared.
    assert parts.weights == 2 * (model.total + adapter)
    assert parts.gradients == 4 * adapter / 8
    assert parts.optimizer == 12 * adapter / 8
    assert parts.communication == 2 * BUCKET
    assert fits(parts.total, GPU)


def test_72b_does_not_fit_under_zero_2_and_fits_under_zero_3() -> None:
    whole = training("72B", 2, 1, 8)
    # Weights alone are 147 GB.
    assert whole.parts().weights > 146 * GB
    assert not fits(whole.parts().total, GPU)
    assert advice(whole, GPU) == {"zero_stage": 3}
    for ranks in (8, 16):
        assert fits(training("72B", 3, 1, ranks).parts().total, GPU)


def test_too_many_samples_at_a_time() -> None:
    need = training("7B", 2, 16, 8)
    assert not fits(need.parts().total, GPU)
    assert advice(need, GPU) == {"micro_batch": 8}
    # Only 4 samples of 590 tokens are within 2,400.
    limited = replace(need, execution=need.execution.model_copy(update={"micro_tokens": 2400}))
    assert limited.samples == 4
    assert limited.parts() == replace(need, execution=Execution(micro_batch=4)).parts()


def test_recomputing_activations_saves_most_of_them() -> None:
    plain, recomputed = (training("7B", 2, 16, 8, gradient_checkpointing=on) for on in (False, True))
    assert recomputed.parts().activations < 0.3 * plain.parts().activations
    assert fits(recomputed.parts().total, GPU)


def test_what_no_setting_makes_fit() -> None:
    assert advice(training("72B", 3, 1, 1), GPU) is None


def test_ranks_take_no_more_samples_than_a_step_has_for_them() -> None:
    need = replace(training("7B", 2, 32, 32), batch=128)
    assert need.samples == 4
    assert need.parts() == training("7B", 2, 4, 32).parts()
    assert fits(need.parts().total, GPU)


def test_a_block_that_is_too_large_can_always_be_smaller() -> None:
    """Five beams of 32 items of a model without grouped heads; on one GPU of 24 GB."""
    llava = of_checkpoint(Outside(Path("llava-hf/llava-1.5-7b-hf"), "", absent=True))
    assert llava is not None
    need = GeneratingNeed(llava, "bfloat16", 616, 32, 5, 128, 0, Execution(), 1)
    assert not fits(need.parts().total, 24 * GB)
    assert advice(need, 24 * GB) == {"decoding.block": 2}
    both = advice(replace(need, draws=20, ranks=2), 16 * GB)
    assert both == {"inference": "tensor_parallel", "replica_size": 2, "decoding.block": 1}


def test_heads_that_cannot_be_split_are_not_offered() -> None:
    """7B has 28 heads and 4 of keys and values: eight ranks cannot share them."""
    need = GeneratingNeed(released("7B"), "bfloat16", 562, 8, 1, 64, 0, Execution(), 8)
    offered = [settings.get("replica_size") for settings, _ in need.alternatives()]
    assert {2, 4} <= set(offered)
    assert 8 not in offered


def test_all_logits_where_the_head_is_whole() -> None:
    chunked, whole = (training("7B", 2, 8, 8, chunked_head=on).parts().logits for on in (True, False))
    # 8 samples of two responses of 14 tokens over 152,064 words in float32, three times.
    assert whole == 3 * 4 * 8 * 2 * 14 * 152_064
    assert chunked == 3 * 4 * min(2**25, 8 * 2 * 14 * 152_064)


def test_keys_and_values_of_generation() -> None:
    need = GeneratingNeed(released("72B"), "bfloat16", 562, 32, 5, 64, 0, Execution(), 8)
    # 160 answers of 626 tokens, 80 layers with 8 heads of 128 for keys and for values, two bytes each.
    assert need.parts().cache == 160 * 626 * 2 * 80 * 1024 * 2
    assert not fits(need.parts().total, GPU)
    assert advice(need, GPU) == {"inference": "tensor_parallel", "replica_size": 4}
    shared = replace(need, execution=Execution(inference="tensor_parallel", replica_size=4))
    # The decoder's layers and the head are split; the embedding and the vision tower are whole on every rank.
    model = need.model
    whole = 2 * (model.head + model.of_vision)
    assert shared.parts().weights == whole + (need.parts().weights - whole) / 4
    assert shared.parts().cache == need.parts().cache / 4
    small = replace(need, model=released("7B"), block=512)
    assert advice(small, GPU) == {"decoding.block": 256}
