"""What a job runs in: the `Container` of a cluster profile."""

from __future__ import annotations

from cwdpo.jobs.containers.bare import Bare

Container = Bare
