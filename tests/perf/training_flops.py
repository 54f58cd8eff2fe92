"""Floating-point operations as torch counts them: two for each multiplication and addition of a matrix product."""

from __future__ import annotations

from typing import Any


class Counter:
    """Counts between `start` and `stop`; nothing is slowed down outside."""

    def __init__(self) -> None:
        self._mode = _mode()
        self._counting = False

    def start(self) -> None:
        """Begin to count."""
        self._mode.__enter__()
        self._counting = True

    def stop(self) -> int:
        """What was counted; when called again, the same."""
        if self._counting:
            self._counting = False
            self._mode.__exit__(None, None, None)
        return int(self._mode.get_total_flops())


def _mode() -> Any:
    """torch's counter, with what it does not know: the attention of the CPU, and products that are added in place."""
    import torch
    from torch.utils.flop_counter import (
        FlopCounterMode,
        bmm_flop,
        mm_flop,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    def added(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
        return (mm_flop if len(left) == 2 else bmm_flop)(left, right)

    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
            aten.addmm_: added,
            aten.baddbmm_: added,
        },
    )
