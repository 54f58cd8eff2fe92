"""The figures of learning dynamics, drawn from what probes recorded; a file each."""
