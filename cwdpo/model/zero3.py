"""Loading weights straight into ZeRO-3 partitions, so that no rank ever holds the whole model."""

from __future__ import annotations

from typing import Any


class Zero3Loading:
    """Context in which `from_pretrained` partitions weights over the ranks.

    Args:
        config: DeepSpeed's configuration, with ZeRO stage 3.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def __enter__(self) -> None:
        from transformers.integrations import HfDeepSpeedConfig

        self._kept = HfDeepSpeedConfig(self._config)  # transformers finds it through a weak reference

    def __exit__(self, *exception: object) -> None:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
