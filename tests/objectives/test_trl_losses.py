"""Losses against TRL's own code on the same tensors.

TRL computes a loss inside a method of its trainer. The methods called here read a handful of settings from `self`, and
what they do with the rest is logging; so a namespace with those settings stands in for the trainer, and no model, data
set or accelerator is needed. An attribute that a later TRL reads beside them fails loudly.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cwdpo.objectives import Dpo
from cwdpo.objectives.preference import Pairs

pytest.importorskip("trl", reason="TRL is not installed: nothing to compare with")


class _Accelerator:
    """One process: gathering is the identity."""

    device = torch.device("cpu")
    gather = gather_for_metrics = staticmethod(lambda value: value)


def stub(**settings: Any) -> SimpleNamespace:
    """What TRL's trainers have in common, and the settings of one of them."""
    common = {
        "model": SimpleNamespace(training=True), "accelerator": _Accelerator(), "aux_loss_enabled": False,
        "_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0, "_tp_size": 1,
    }  # fmt: skip
    return SimpleNamespace(**common, **settings)


# ---- dpo: the trainer's default loss, "sigmoid", with a reference whose log-probabilities are given.


def trls_dpo(log_probs: Any, mask: Any, reference: Pairs, beta: float) -> Any:
    """Mean over pairs. Shapes: log_probs (2P, T - 1), 0 outside of responses; mask (2P, T), true at their tokens."""
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = stub(
        beta=beta, loss_types=["sigmoid"], loss_weights=[1.0], label_smoothing=0.0, f_divergence_type="reverse_kl",
        ld_alpha=None, use_weighting=False, precompute_ref_logps=True,
    )  # fmt: skip
    zeros = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    inputs = {
        "input_ids": torch.zeros(mask.shape, dtype=torch.long),
        "attention_mask": torch.ones(mask.shape, dtype=torch.long),
        "completion_mask": mask.long(),
        "ref_chosen_logps": reference.reference["chosen"],
        "ref_rejected_logps": reference.reference["rejected"],
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)


def token_logps(count: int, width: int) -> tuple[Any, Any]:
    """Log-probabilities of responses at the end of every row, chosen rows first, and their mask."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(width)[None] >= torch.randint(1, width, (2 * count, 1), generator=generator)
    values = -3 * torch.rand(2 * count, width - 1, generator=generator, dtype=torch.float64)
    return (values * mask[:, 1:]).requires_grad_(), mask


def summed(log_probs: Any, mask: Any) -> Pairs:
    """The same as pairs, under a reference that differs by a few nats."""
    generator = torch.Generator().manual_seed(1)
    names = ("chosen", "rejected")
    policy = dict(zip(names, log_probs.sum(1).chunk(2), strict=True))
    reference = {
        name: logps.detach() + 3 * torch.randn(len(logps), generator=generator) for name, logps in policy.items()
    }
    return Pairs(policy, reference, dict(zip(names, mask.sum(1).double().chunk(2), strict=True)))


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_dpo_equals_trl_on_the_same_tensors(beta: float) -> None:
    log_probs, mask = token_logps(6, 9)
    given = summed(log_probs, mask)
    ours = Dpo(beta=beta).pair_losses(given).losses.mean()
    theirs = trls_dpo(log_probs, mask, given, beta)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    mine, other = (torch.autograd.grad(loss, log_probs, retain_graph=True)[0] for loss in (ours, theirs))
    assert torch.allclose(mine, other, rtol=1e-10, atol=1e-14)
    assert mine.abs().max() > 1e-3
