"""Learning dynamics: what probes record of a training, what it tells, and who acts on it."""
