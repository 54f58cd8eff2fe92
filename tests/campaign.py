"""How much is tried: `make test` takes a part of what is many of a kind, `make chaos` all of it."""

from __future__ import annotations

import os

IN_FULL = "CWDPO_CHAOS" in os.environ
"""Whether all is to be tried."""
