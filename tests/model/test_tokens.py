"""What is read of tokens, and its gradients, against float64 and plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cwdpo.model import tokens as module
from cwdpo.model.tokens import Head, read_tokens
from cwdpo.objectives.reading import LOGPS, Quantity, Reading

WORDS, WIDTH, COUNT = 500, 64, 30

# Each quantity written as one would on a blackboard, from log-probabilities (K, V), tokens and the start's.
PLAINLY: dict[Quantity, Callable[..., torch.Tensor]] = {
    "logp": lambda logp, words, start: logp.gather(1, words[:, None])[:, 0],
    "entropy": lambda logp, words, start: torch.distributions.Categorical(logits=logp).entropy(),
    "uniform": lambda logp, words, start: logp.mean(1),
    "kl": lambda logp, words, start: torch.nn.functional.kl_div(start, logp, reduction="none", log_target=True).sum(1),
    "residual": lambda logp, words, start: ((torch.nn.functional.one_hot(words, WORDS) - logp.exp()) ** 2).sum(1),
}
ALL = Reading(("logp", "entropy", "uniform", "kl"), ("residual",))


class Case:
    """Hidden states, a head and tokens; `sure` makes the tokens as likely as they get."""

    def __init__(self, sure: float = 0.0, biased: bool = False, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(WORDS, WIDTH, generator=generator) * 0.3 + 0.5  # rows of real heads share a mean, too
        self.words = torch.randint(WORDS, (COUNT,), generator=generator)
        towards = weight[self.words] - weight.mean(0)
        hidden = torch.randn(COUNT, WIDTH, generator=generator) * 0.5
        hidden += sure * towards / towards.norm(dim=1, keepdim=True) * 2
        self.start = (hidden + 0.3 * torch.randn(COUNT, WIDTH, generator=generator)).to(dtype)
        self.hidden, self.weight = hidden.to(dtype), weight.to(dtype)
        self.bias = torch.randn(WORDS, generator=generator).to(dtype) if biased else None

    def read(self, reading: Reading, trained: bool, how: str, dtype: torch.dtype) -> tuple[Any, list[torch.Tensor]]:
        """What is read, and the gradients of a sum with weights in the states and in a trained head's parameters."""
        hidden = self.hidden.to(dtype, copy=True).requires_grad_()
        weight = self.weight.to(dtype, copy=True).requires_grad_(trained)
        bias = None if self.bias is None else self.bias.to(dtype, copy=True).requires_grad_(trained)
        if how == "ours":
            found = read_tokens(hidden, Head(weight, bias), self.words, reading, self.start.to(dtype))
        else:
            found = self._plainly(reading, hidden, weight, bias)
        weights = torch.linspace(-1.0, 2.0, found.numel()).to(found.dtype).view(found.shape)
        (found * weights).sum().backward()
        wanted = [hidden, weight, bias] if trained else [hidden]
        return found.detach(), [tensor.grad for tensor in wanted if tensor is not None and tensor.grad is not None]

    def _plainly(self, reading: Reading, hidden: Any, weight: Any, bias: Any) -> torch.Tensor:
        def log_softmax(states: Any) -> Any:
            logits = torch.nn.functional.linear(states, weight, bias)
            return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)

        logp, start = log_softmax(hidden), log_softmax(self.start.to(hidden.dtype)).detach()
        values = {name: PLAINLY[name](logp, self.words, start) for name in reading.names}
        return torch.stack([values[name] if name in reading.trained else values[name].detach() for name in values])


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("reading", [ALL, Reading(("uniform", "logp"), ("entropy", "residual")), Reading(("entropy",))])
def test_every_quantity_and_its_gradient_equal_autograds(
    reading: Reading, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 7 * WORDS)  # several chunks, the last one not full
    case = Case(biased=True)
    found, slopes = case.read(reading, trained, "ours", torch.float32)
    expected, true_slopes = case.read(reading, trained, "plain", torch.float64)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-5)
    assert len(slopes) == len(true_slopes) == (3 if trained else 1)
    for slope, true in zip(slopes, true_slopes, strict=True):
        torch.testing.assert_close(slope.double(), true, atol=1e-4, rtol=1e-4)


def test_the_residual_of_a_sure_token_is_not_rounded_away() -> None:
    case = Case(sure=4.0)
    found, _ = case.read(Reading(observed=("residual",)), False, "ours", torch.float32)
    expected, _ = case.read(Reading(observed=("residual",)), False, "plain", torch.float64)
    assert float(expected[1].min()) < 1e-8
    torch.testing.assert_close(found[1].double(), expected[1], atol=1e-16, rtol=2e-3)


def test_nothing_is_linked_where_nothing_is_trained() -> None:
    case = Case()
    with torch.no_grad():
        found = read_tokens(case.hidden, Head(case.weight, None), case.words, ALL, case.start)
    assert found.shape == (5, COUNT)
    assert not found.requires_grad


def test_a_sure_token_is_never_more_than_sure() -> None:
    """Token and normalizer come from the same rounding: bf16 must not give log-probabilities above 0."""
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(40, 64, generator=generator) * 4).bfloat16()
    weight = torch.randn(300, 64, generator=generator).bfloat16()
    values = read_tokens(hidden, Head(weight, None), (hidden @ weight.T).argmax(1))
    assert float(values.max()) <= 0


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("sure", [0.0, 3.0, 9.0])
@pytest.mark.parametrize("reading", [LOGPS, ALL], ids=["logp", "all"])
def test_in_bf16_the_gradient_is_as_good_as_autograds(
    reading: Reading, trained: bool, biased: bool, sure: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, also where a token is so likely that 1 - p drowns in the rounding of p; in several chunks."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 7 * WORDS)
    case = Case(sure, biased, torch.bfloat16)
    exact, plain, ours = (
        case.read(reading, trained, how, dtype)[1]
        for how, dtype in (("plain", torch.float64), ("plain", torch.bfloat16), ("ours", torch.bfloat16))
    )
    for mine, theirs, true in zip(ours, plain, exact, strict=True):
        norm = float(true.norm())
        assert float((mine.double() - true).norm()) / norm < 1.3 * float((theirs.double() - true).norm()) / norm + 2e-3
