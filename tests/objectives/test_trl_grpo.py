"""GRPO against TRL's own code on the same tensors, under equal settings.

TRL computes the loss inside a method of its trainer, which reads settings from `self`: a namespace stands in for it. An
attribute that a later TRL reads beside them fails loudly.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cwdpo.objectives import Grpo
from cwdpo.objectives.online import Actions, Experience

pytest.importorskip("trl", reason="TRL is not installed: nothing to compare with")

PROMPTS, SAMPLES, WIDTH = 3, 4, 7


class _Accelerator:
    """One process: gathering and reducing are the identity."""

    num_processes = 1
    sync_gradients = True
    gather = staticmethod(lambda value: value)
    reduce = staticmethod(lambda value, reduction: value)


def trls_loss(logps: Any, old: Any, reference: Any, advantages: Any, mask: Any, grpo: Grpo) -> Any:
    from trl.trainer.grpo_trainer import GRPOTrainer

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=_Accelerator(), _metrics={"train": defaultdict(list)},
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False), beta=grpo.kl, epsilon_low=grpo.clip,
        epsilon_high=grpo.clip, loss_type="grpo", importance_sampling_level="token", off_policy_mask_threshold=None,
        top_entropy_quantile=1.0, use_vllm=False, aux_loss_enabled=False, current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
    )  # fmt: skip
    tokens = torch.zeros(mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": tokens, "prompt_mask": tokens, "completion_ids": tokens, "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference,
    }  # fmt: skip
    return GRPOTrainer._compute_loss(trainer, None, inputs)


def ours(logps: Any, old: Any, reference: Any, advantages: Any, mask: Any, grpo: Grpo) -> Any:
    losses = grpo.token_losses(Actions(logps, old, advantages[:, None] * mask, mask, reference)).losses
    every = torch.ones(len(mask), dtype=mask.dtype)
    return (losses * grpo.token_shares(mask, every, len(mask), int(mask.sum()))).sum()


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_loss_and_gradient_equal_trls(kl: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, WIDTH + 1, (PROMPTS * SAMPLES, 1), generator=generator)
    mask = (torch.arange(WIDTH) < lengths).double()
    old, noise, other = (torch.randn(mask.shape, generator=generator, dtype=torch.float64) for _ in range(3))
    logps = ((old + spread * noise) * mask).requires_grad_()
    old, reference = old * mask, (old + 0.3 * other) * mask
    rewards = torch.rand(PROMPTS * SAMPLES, generator=generator, dtype=torch.float64)
    grpo = Grpo(samples=SAMPLES, kl=kl)
    advantages = grpo.targets(Experience(rewards, mask)).advantages[:, 0]
    found, expected = (loss(logps, old, reference, advantages, mask, grpo) for loss in (ours, trls_loss))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-15)
    mine, theirs = (torch.autograd.grad(loss, logps, retain_graph=True)[0] for loss in (found, expected))
    assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)
    assert mine.abs().max() > 1e-3
